"""Weights of the published encoders for the reference numbers in encoders_256.npz, each made from
its name."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def weight(name: str, shape: Sequence[int], seed: int) -> NDArray[Any]:
    """The array that the parameter or buffer ``name`` of this ``shape`` holds;
    ``num_batches_tracked`` is left alone."""
    n: NDArray[Any] = (
        np.random.default_rng([seed, zlib.crc32(name.encode())])
        .standard_normal(shape)
        .astype(np.float32)
    )
    if name.endswith("running_var"):
        n = 1 + 0.2 * np.abs(n)
    elif name.endswith("running_mean"):
        n = 0.1 * n
    elif n.ndim >= 2:
        n = n / np.sqrt(np.prod(shape[1:]))
    else:
        n = 0.5 + 0.1 * n if name.endswith("weight") else 0.1 * n
    return n
