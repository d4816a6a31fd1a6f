"""Weights of the published encoders for the reference numbers in encoders_256.npz, each made from its name."""

import zlib

import numpy as np


def weight(name, shape, seed):
    """The array that the parameter or buffer ``name`` of this ``shape`` holds; ``num_batches_tracked`` is left alone."""
    n = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        return 1 + 0.2 * np.abs(n)
    if name.endswith("running_mean"):
        return 0.1 * n
    if n.ndim >= 2:
        return n / np.sqrt(np.prod(shape[1:]))
    return 0.5 + 0.1 * n if name.endswith("weight") else 0.1 * n
