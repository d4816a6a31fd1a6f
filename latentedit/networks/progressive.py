"""Progressive growing (Karras et al. 2018, section 2): networks of which only the coarse layers are
in use at first."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import ArgumentError


class Growing(nn.Module):
    """A network with a level of detail: 0 is the full resolution, 2 a quarter of it, 2.5 half way
    between a quarter and an eighth. Stored in the buffer ``lod``.
    """

    lod: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("lod", torch.zeros([]))
        self.level = 0.0  # the same number, known without asking the device

    def set_lod(self, lod: float) -> None:
        self.level = lod
        self.lod.fill_(lod)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        # A level from a file is read once, here; later nothing asks the device for it.
        level = float(self.lod)
        if not level < 16:
            raise ArgumentError(f"a level of detail of {level}")
        self.level = max(level, 0.0)


def enlarge(image: Tensor, factor: int = 2) -> Tensor:
    """Return every pixel repeated ``factor`` times along both axes."""
    return image if factor == 1 else F.interpolate(image, scale_factor=factor, mode="nearest")


def shrink(image: Tensor, factor: int = 2) -> Tensor:
    """Return means of ``factor`` x ``factor`` pixels."""
    return image if factor == 1 else F.avg_pool2d(image, factor)


def with_lod(image: Tensor, lod: float) -> Tensor:
    """Return real pictures ``[N, C, H, W]`` with the detail that a generator at ``lod`` has, at the
    same size."""
    whole = int(lod)
    share = lod - int(lod)
    image = shrink(image, 2**whole)
    if share:
        image = torch.lerp(image, enlarge(shrink(image)), share)
    return enlarge(image, 2**whole)


def with_box(weight: Tensor) -> Tensor:
    """Return ``[O, I, k, k]`` convolved with a 2 x 2 box of ones: ``[O, I, k + 1, k + 1]``.

    Doubling by repetition and then convolving, or convolving and then adding 2 x 2, is one strided
    convolution with this kernel (Karras et al. 2018 call it fused; the result is the same up to
    rounding).
    """
    padded = F.pad(weight, (1, 1, 1, 1))
    return (
        padded[:, :, 1:, 1:]
        + padded[:, :, :-1, 1:]
        + padded[:, :, 1:, :-1]
        + padded[:, :, :-1, :-1]
    )
