"""Sigma: the standard deviation of a direction's score over random w, which is the unit of amounts."""

import torch
from torch import Tensor

from latentedit.latent.w_statistics import SAMPLES, sample_w, sample_z
from latentedit.networks.generator import Generator


def measure_sigma(vector: Tensor, generator: Generator, space: str = "", scale: Tensor | None = None) -> float:
    """Compute the standard deviation of ``<vector, x>`` over 10,000 random latents (psi 1, seed 0)."""
    if space == "z":
        return float((sample_z(0, generator.z_dim, SAMPLES) @ vector).std())
    w = sample_w(generator).cpu()
    if space == "s":
        assert scale is not None
        with torch.no_grad():
            parts = [
                torch.cat(
                    generator.synthesis.styles(part[:, None].expand(-1, generator.num_ws, -1).to(generator.device)), dim=1
                )
                for part in w.split(1000)
            ]
        return float(((torch.cat(parts).cpu() / scale) @ vector).std())
    flat = vector.reshape(-1, generator.w_dim).sum(dim=0)  # all rows of a random w are equal
    return float((w @ flat).std())
