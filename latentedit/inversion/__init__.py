"""From a picture to a latent: search, loss, encoder, tuning of the generator."""
