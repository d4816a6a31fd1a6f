"""Bilinear resampling that can be differentiated twice on every device.

PyTorch's own `grid_sample` has no second derivative on some of them (CUDA in torch 2.11), and R1
differentiates twice through the geometric augmentation.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import ArgumentError

BILINEAR = 0
ZEROS = 0
"""PyTorch's numbers for the interpolation and for what lies outside of a picture."""


def grid_sample(images: Tensor, grid: Tensor) -> Tensor:
    """Return the values of ``images`` at the positions ``grid``, interpolated bilinearly; 0
    outside.

    It is ``torch.nn.functional.grid_sample(images, grid, align_corners=False)``, differentiable to
    any order in ``images``, and in ``grid`` wherever that requires gradients.

    Args:
        images: ``[N, C, H, W]``.
        grid: ``[N, h, w, 2]``, x and y; -1 and 1 are the outer edges of the outermost pixels.

    Returns:
        ``[N, C, h, w]``.

    Raises:
        Error: shapes that do not fit.
    """
    if images.ndim != 4 or grid.ndim != 4 or grid.shape[3] != 2 or len(grid) != len(images):
        raise ArgumentError(
            "grid_sample: expected images [N, C, H, W] and a grid [N, h, w, 2], got"
            f" {list(images.shape)} and {list(grid.shape)}"
        )
    if grid.requires_grad:
        return _gathered(images, grid)

    sampled: Tensor = _Sample.apply(images, grid)  # type: ignore[no-untyped-call]
    return sampled


class _Sample(torch.autograd.Function):
    """The samples; linear in the pictures, so that the gradient does not depend on them."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = images.shape[2:]
        return F.grid_sample(images, grid, align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        spread: Tensor = _Spread.apply(gradient, grid, ctx.size)  # type: ignore[no-untyped-call]
        return spread, None


class _Spread(torch.autograd.Function):
    """The transpose of `_Sample`: its gradient is `_Sample` again, and so on."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        # The operation wants pictures for their shape alone: what is not computed is not read.
        shape = gradient.new_empty(1).expand(*gradient.shape[:2], *size)
        spread: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            gradient, shape, grid, BILINEAR, ZEROS, False, [True, False]
        )[0]
        return spread

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        sampled: Tensor = _Sample.apply(gradient, grid)  # type: ignore[no-untyped-call]
        return sampled, None, None


def _gathered(images: Tensor, grid: Tensor) -> Tensor:
    """Return the same of operations that PyTorch differentiates to any order in both arguments."""
    n, channels, height, width = images.shape
    x = (grid[..., 0] + 1) * (width / 2) - 0.5  # [N, h, w]
    y = (grid[..., 1] + 1) * (height / 2) - 0.5
    left = x.detach().floor()
    top = y.detach().floor()
    planes = images.flatten(2)  # [N, C, H * W]
    total = images.new_zeros(n, channels, *grid.shape[1:3])

    for column, across in ((left, left + 1 - x), (left + 1, x - left)):
        for row, down in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            found = planes.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1))
            weight = (across * down * inside)[:, None]
            total = total + found.view_as(total) * weight

    return total
