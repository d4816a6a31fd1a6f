"""Latents: their file, arithmetic, statistics of w."""
