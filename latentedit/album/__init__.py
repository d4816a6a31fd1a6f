"""Folders of photographs and of their latents."""
