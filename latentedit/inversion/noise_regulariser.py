"""The noise regulariser keeps noise maps white, so that they cannot store image content (StyleGAN2,
appendix D)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_LEVEL = 8
"""Side of the coarsest level of the noise regulariser's pyramid."""


def noise_regulariser(maps: list[Tensor]) -> Tensor:
    """Measure how far noise maps ``[N, 1, h, w]`` are from white noise, per image: ``[N]``.

    It is the squared autocorrelation at a shift of one pixel, summed over all levels of a pyramid
    down to 8 x 8 (StyleGAN2, appendix D). Levels are averaged 2 x 2 and multiplied by 2 as in the
    paper, which keeps unit variance at every level. The published code omits the factor, so that
    coarse levels hardly count there.
    """
    return torch.cat([squared for _, squared in _autocorrelations(maps)], dim=1).sum(dim=1)


def _autocorrelations(maps: list[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """The pixels of every level and, in both directions, the squares ``[N, K]`` of the K maps, and
    means of larger ones, that have its size.
    """
    # Maps of one size and the averages of larger maps are handled together, which takes a few
    # operations per level instead of a few per map.
    size = max(map_.shape[-1] for map_ in maps)
    level = None
    while True:
        same = [map_ for map_ in maps if map_.shape[-1] == size]
        if level is not None and size >= SMALLEST_LEVEL:
            same.append(F.avg_pool2d(level, 2) * 2)
        if not same:
            break
        level = torch.cat(same, dim=1)
        for axis in (2, 3):
            # Cyclic shifts, as in the published code: a border would need its own weight.
            yield size**2, (level * level.roll(1, dims=axis)).mean(dim=(2, 3)).square()
        size //= 2


def whiten(maps: list[Tensor], sweeps: int) -> None:
    """Change ``maps``, in place, so that `noise_regulariser` is zero, the mean 0 and the variance
    1.

    A sweep is half a Gauss-Newton step: an autocorrelation over n pixels has a gradient of squared
    length 2 / n.
    """
    for _ in range(sweeps):
        leaves = [map_.detach().requires_grad_() for map_ in maps]
        with torch.enable_grad():
            # Each term is weighted so that the step along its gradient removes half of it.
            total = torch.stack(
                [size / 8 * squared.sum() for size, squared in _autocorrelations(leaves)]
            ).sum()

        gradients = torch.autograd.grad(total, leaves)
        with torch.no_grad():
            for map_, gradient in zip(maps, gradients, strict=True):
                map_ -= gradient
        _renormalise(maps)


@torch.no_grad()
def _renormalise(maps: list[Tensor]) -> None:
    for map_ in maps:
        map_ -= map_.mean(dim=(1, 2, 3), keepdim=True)
        map_ *= map_.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
