"""Principal components of w as directions, without labels (GANSpace)."""

import torch
from torch import Tensor

from latentedit.directions.components import (
    Layers,
    Progress,
    _directions,
    _eigenvectors,
    check_count,
)
from latentedit.directions.direction import Direction
from latentedit.errors import DataError
from latentedit.latent.w_statistics import w_chunks
from latentedit.networks.generator import Generator

CHUNK = 10_000
"""Random w at a time: 512 numbers of each are 20 MB."""


def principal_components(
    generator: Generator,
    count: int = 20,
    *,
    samples: int = 100_000,
    seed: int = 0,
    layers: Layers = None,
    progress: Progress | None = None,
) -> list[Direction]:
    """Find the first ``count`` principal components of w (GANSpace, Haerkoenen et al. 2020, section
    2.2).

    Mean and scatter matrix are summed over chunks. The result is exact, and memory does not grow
    with ``samples``.

    Args:
        samples: number of random w, those of `latentedit.latent.w_statistics.sample_w` for
            ``seed``.
        layers: first and last layer that the directions edit; None for all.
        progress: called with the number of finished samples and of all samples.

    Returns:
        Directions ``pc-00``, ``pc-01``, ... by decreasing variance. The largest absolute entry of
        each is positive, and the score is 0 at the mean w. Reports contain ``explained``, the share
        of the variance of w, and ``cumulative``, the share of all components so far.

    Raises:
        Error: too many components for w or for the samples, or layers outside the network.
    """
    check_count(generator, count, generator.w_dim, "dimensions of w", layers)
    if samples <= count:
        raise DataError(f"{count} components need more than {count} samples, got {samples}")
    # Mean and scatter are all that principal components need, and both can be added up.
    mean, scatter = moments(generator, samples, seed, progress=progress)
    values, vectors = _eigenvectors(scatter)
    shares = (values / values.sum()).tolist()
    reports = [
        {"samples": samples, "seed": seed, "explained": share, "cumulative": sum(shares[: i + 1])}
        for i, share in enumerate(shares[:count])
    ]
    return _directions(generator, "pc", vectors[:count], mean, layers, reports, {"method": "pca"})


def moments(
    generator: Generator,
    samples: int,
    seed: int = 0,
    *,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mean ``[w_dim]`` and scatter matrix ``[w_dim, w_dim]`` (sum of outer products
    about the mean) of random w, float64.

    Chunks are merged by the pairwise update of Chan, Golub and LeVeque (1983), which loses nothing
    to cancellation where the mean is large.
    """
    done = 0
    mean = torch.zeros(generator.w_dim, dtype=torch.float64)
    scatter = torch.zeros(generator.w_dim, generator.w_dim, dtype=torch.float64)

    for w in w_chunks(generator, samples, seed, chunk):
        x = w.cpu().double()
        own = x.mean(dim=0)
        # Centred before squaring: float64 would otherwise spend its digits on the mean.
        x -= own
        total = done + len(x)
        gap = own - mean
        scatter += x.T @ x + torch.outer(gap, gap) * (done * len(x) / total)
        mean += gap * (len(x) / total)
        done = total
        if progress:
            progress(done, samples)

    return mean, scatter
