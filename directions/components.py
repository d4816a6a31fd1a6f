"""Shared parts of PCA and SeFa, which find directions without labels.

The directions have no meaning yet: `latentedit.directions.sweeps` draws them on a contact sheet,
and the user names them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from latentedit.directions.direction import Direction
from latentedit.errors import ArgumentError
from latentedit.latent.w_statistics import sample_w
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator

Progress = Callable[[int, int], None]
Layers = tuple[int, int] | None


def _eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[D]`` of a symmetric float64 matrix, falling, and its eigenvectors as rows,
    largest entry positive."""
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
    w = sample_w(generator).cpu()
    own = fingerprint(generator)
    return [
        Direction(
            name=f"{prefix}-{index:02d}",
            vector=vector.float(),
            intercept=-float(vector @ mean),
            # as `latentedit.directions.sigma.measure_sigma`
            sigma=float((w @ vector.float()).std()),
            fingerprint=own,
            layers=layers,
            report=dict(report),
            provenance=dict(provenance),
        )
        for index, (vector, report) in enumerate(zip(vectors, reports, strict=True))
    ]


def check_count(
    generator: Generator, count: int, most: int, what: str, layers: Layers
) -> tuple[int, int]:
    """First and last row of ``layers``; `Error` unless the network has them, and ``count`` is from
    1 to ``most``."""
    found = check_layers(generator, layers)
    if not 1 <= count <= most:
        raise ArgumentError(f"expected a count from 1 to {most}, the number of {what}, got {count}")
    return found


def check_layers(generator: Generator, layers: Layers) -> tuple[int, int]:
    first, last = layers or (0, generator.num_ws - 1)
    if not 0 <= first <= last < generator.num_ws:
        raise ArgumentError(
            f"layers {first}-{last} lie outside this network, whose layers are "
            f"0-{generator.num_ws - 1}"
        )
    return first, last
