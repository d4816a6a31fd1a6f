"""Sigma: the standard deviation of a direction's score over random w, which is the unit of
amounts."""

from torch import Tensor

from latentedit.latent.spaces import W, space_of
from latentedit.networks.generator import Generator


def measure_sigma(
    vector: Tensor, generator: Generator, space: str = "", scale: Tensor | None = None
) -> float:
    """Compute the standard deviation of ``<vector, x>`` over 10,000 random latents (psi 1, seed 0).

    Args:
        space: the vector's space; "" for W or W+, whose random latents are the same.
        scale: standard deviation of every style channel, in the space "s".
    """
    where = space_of(space) if space else W
    return where.sigma(generator, vector, scale)
