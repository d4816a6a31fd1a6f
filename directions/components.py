"""Directions without labels: principal components of w, and the affine layers factorised.

Nothing here knows what a direction means; `latentedit.directions.sweeps` draws them, and who looks at the sheet names them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.directions.direction import Direction
from latentedit.errors import Error
from latentedit.generator import Generator
from latentedit.models import fingerprint
from latentedit.statistics import sample_w, w_chunks
from latentedit.synthesis import ToRGB

CHUNK = 10_000
"""Random w at a time: 512 numbers of each are 20 MB."""

Progress = Callable[[int, int], None]
Layers = tuple[int, int] | None


def principal_components(
    generator: Generator,
    count: int = 20,
    *,
    samples: int = 100_000,
    seed: int = 0,
    layers: Layers = None,
    progress: Progress | None = None,
) -> list[Direction]:
    """The ``count`` directions along which random w spread most, in W (GANSpace, Haerkoenen et al. 2020, section 2.2).

    Mean and scatter matrix are summed over chunks, so that memory does not grow with ``samples`` and the result is that of an
    exact analysis of all of them.

    Args:
        samples: w, those of `latentedit.statistics.sample_w` for ``seed``.
        layers: first and last row of ws that the directions move; None for all.
        progress: told how many samples are done, and of how many.

    Returns:
        ``pc-00``, ``pc-01``, ... by falling variance, the largest absolute entry of each positive, scored 0 at the mean w.
        Reports say ``explained``, the share of the variance of w, and ``cumulative``, that of all up to it.

    Raises:
        Error: more components than w or samples allow, or layers outside the network.
    """
    check_count(generator, count, generator.w_dim, "dimensions of w", layers)
    if samples <= count:
        raise Error(f"{count} components need more than {count} samples, got {samples}")
    mean, scatter = moments(generator, samples, seed, progress=progress)
    values, vectors = _eigenvectors(scatter)
    shares = (values / values.sum()).tolist()
    reports = [
        {"samples": samples, "seed": seed, "explained": share, "cumulative": sum(shares[: i + 1])}
        for i, share in enumerate(shares[:count])
    ]
    return _directions(generator, "pc", vectors[:count], mean, layers, reports, {"method": "pca"})


def moments(
    generator: Generator, samples: int, seed: int = 0, *, chunk: int = CHUNK, progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """Mean ``[w_dim]`` and scatter matrix ``[w_dim, w_dim]`` (sum of outer products about the mean) of random w, float64.

    Chunks are merged by the pairwise update of Chan, Golub and LeVeque (1983), which loses nothing to cancellation
    where the mean is large.
    """
    done = 0
    mean = torch.zeros(generator.w_dim, dtype=torch.float64)
    scatter = torch.zeros(generator.w_dim, generator.w_dim, dtype=torch.float64)
    for w in w_chunks(generator, samples, seed, chunk):
        x = w.cpu().double()
        own = x.mean(dim=0)
        x -= own
        total = done + len(x)
        gap = own - mean
        scatter += x.T @ x + torch.outer(gap, gap) * (done * len(x) / total)
        mean += gap * (len(x) / total)
        done = total
        if progress:
            progress(done, samples)
    return mean, scatter


def factorised(generator: Generator, count: int = 20, *, layers: Layers = None) -> list[Direction]:
    """The ``count`` directions in W that move the styles most (SeFa, Shen and Zhou 2021, section 3), from the weights alone.

    They are the eigenvectors of ``A^T A``, the rows of A being those of the affine layers ``w -> style``, a layer for a row of
    ws: its convolution's, and for the last row of StyleGAN2 the last ToRGB's; other ToRGBs share their row with a convolution
    and are left out. Every row of A is scaled to length 1, as in the authors' code, and with reason: a network stays the same
    when a channel's row and bias are multiplied by a number and the weights it modulates divided by it, so a row's length says
    nothing of its channel. The gain of `latentedit.layers.FullyConnected` cancels likewise.

    Args:
        layers: first and last row of ws whose affine layers are taken, and that the directions move; None for all.

    Returns:
        ``sefa-00``, ``sefa-01``, ... by falling eigenvalue, signs and scores as in `principal_components`. Reports say
        ``eigenvalue``, the sum of squared changes over the channels for a step of length 1, and ``share``, that of all.

    Raises:
        Error: more directions than w has dimensions, or layers outside the network.
    """
    first, last = check_count(generator, count, generator.w_dim, "dimensions of w", layers)
    synthesis = generator.synthesis
    affines = [layer.affine.weight for layer in synthesis.layers]
    last_rgb = synthesis.blocks[-1].torgb
    if isinstance(last_rgb, ToRGB):  # the first StyleGAN's has no w
        affines.append(last_rgb.affine.weight)
    weights = torch.cat([weight.detach().cpu().double() for weight in affines[first : last + 1]])
    rows = F.normalize(weights, dim=1)  # a row of zeros stays one
    values, vectors = _eigenvectors(rows.T @ rows)
    reports = [{"eigenvalue": float(value), "share": float(value / values.sum())} for value in values[:count]]
    mean = sample_w(generator).cpu().double().mean(dim=0)
    return _directions(generator, "sefa", vectors[:count], mean, layers, reports, {"method": "sefa"})


def _eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[D]`` of a symmetric float64 matrix, falling, and its eigenvectors as rows, largest entry positive."""
    values, columns = torch.linalg.eigh(matrix)
    vectors = columns.T.flip(0)
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return values.flip(0).clamp(min=0), vectors * largest.sign()


def _directions(
    generator: Generator,
    prefix: str,
    vectors: Tensor,
    mean: Tensor,
    layers: Layers,
    reports: list[dict[str, float]],
    provenance: dict[str, str],
) -> list[Direction]:
    w, own = sample_w(generator).cpu(), fingerprint(generator)
    return [
        Direction(
            name=f"{prefix}-{index:02d}",
            vector=vector.float(),
            intercept=-float(vector @ mean),
            sigma=float((w @ vector.float()).std()),  # as `latentedit.directions.probe.measure_sigma`
            fingerprint=own,
            layers=layers,
            report=dict(report),
            provenance=dict(provenance),
        )
        for index, (vector, report) in enumerate(zip(vectors, reports, strict=True))
    ]


def check_count(generator: Generator, count: int, most: int, what: str, layers: Layers) -> tuple[int, int]:
    """First and last row of ``layers``; `Error` unless the network has them, and ``count`` is from 1 to ``most``."""
    found = check_layers(generator, layers)
    if not 1 <= count <= most:
        raise Error(f"expected a count from 1 to {most}, the number of {what}, got {count}")
    return found


def check_layers(generator: Generator, layers: Layers) -> tuple[int, int]:
    first, last = layers or (0, generator.num_ws - 1)
    if not 0 <= first <= last < generator.num_ws:
        raise Error(f"layers {first}-{last} lie outside this network, whose layers are 0-{generator.num_ws - 1}")
    return first, last
