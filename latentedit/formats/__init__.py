"""Files of other tools: networks, latents and arrays. Nothing in them is executed."""
