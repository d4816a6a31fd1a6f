"""Files of other tools: networks (`nvidia`, `tensorflow`, `rosinality`, `genforce`, `checkpoints`), latents (`projections`) and
plain arrays. Nothing in them is executed (`unpickling`).
"""
