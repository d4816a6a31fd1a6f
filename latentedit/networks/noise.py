"""The noise inputs of a synthesis network and what may be given for them."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from latentedit.errors import ArgumentError

Noise = Literal["const", "random", "none"] | Sequence[Tensor]


def noise_maps(noise: Noise, constants: Sequence[Tensor], batch: int) -> list[Tensor | None]:
    """Return the maps that ``noise`` stands for, one a noise input, coarse to fine, each None or
    ``[1 or batch, 1, r, r]``.

    Args:
        constants: the maps stored in the network, ``[r, r]`` each.

    Raises:
        Error: another word than "const", "random" or "none", or maps of another number or shape.
    """
    if isinstance(noise, str):
        if noise == "none":
            return [None] * len(constants)
        if noise == "const":
            return [map_[None, None] for map_ in constants]
        if noise == "random":
            return [torch.randn(batch, 1, *map_.shape, device=map_.device) for map_ in constants]
        raise ArgumentError.of("noise", '"const", "random", "none" or a list of maps', noise)

    if len(noise) != len(constants):
        raise ArgumentError(
            f"expected {len(constants)} noise maps, coarse to fine, got {len(noise)}"
        )

    for map_, own in zip(noise, constants, strict=True):
        if map_.shape[1:] != (1, *own.shape) or map_.shape[0] not in (1, batch):
            expected = ", ".join(map(str, (1, *own.shape)))
            raise ArgumentError.of_shape("noise map", f"[1 or {batch}, {expected}]", map_.shape)

    return list(noise)
