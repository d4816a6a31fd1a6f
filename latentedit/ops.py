"""FIR resampling, the primitive under every change of resolution in StyleGAN2.

Everything is composed of PyTorch's own differentiable operations, so gradients of any order work on every device.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import Error


def fir_filter(taps: Sequence[float], *, normalize: bool = True) -> Tensor:
    """Separable 2-D filter ``outer(taps, taps)``, float32 of shape ``[k, k]``; its sum is 1 unless ``normalize`` is off.

    StyleGAN2 uses ``[1, 3, 3, 1]`` (Karras et al. 2020, appendix B).
    """
    row = np.asarray(taps, dtype=np.float32)
    if row.ndim != 1 or row.size == 0:
        raise Error(f"a FIR filter needs a non-empty list of taps, got shape {list(row.shape)}")
    kernel = np.outer(row, row)
    kernel = kernel / kernel.sum() if normalize else kernel
    return torch.tensor(kernel.tolist(), dtype=torch.float32)  # a list, as an array stays on the CPU whatever the device is


def upfirdn2d(
    x: Tensor,
    filter: Tensor,
    up: int = 1,
    down: int = 1,
    padding: Sequence[int] | int = 0,
    gain: float = 1.0,
    flip_filter: bool = False,
) -> Tensor:
    """Upsample by inserting zeros, pad, filter, and keep every ``down``-th sample, all in one step.

    Args:
        x: ``[N, C, H, W]``.
        filter: ``[kh, kw]`` or, for a separable filter, ``[k]``.
        up, down: integer factors, the same for both axes.
        padding: ``(x0, x1, y0, y1)`` or one number, in pixels of the upsampled picture; negative values crop.
        gain: factor on the output; ``up ** 2`` keeps the brightness of an upsampled picture.
        flip_filter: False is a true convolution (the filter is flipped), True a correlation.

    Returns:
        ``[N, C, (H * up + y0 + y1 - kh) // down + 1, (W * up + x0 + x1 - kw) // down + 1]``.
    """
    if x.ndim != 4:
        raise Error(f"upfirdn2d: x must have shape [N, C, H, W], got {list(x.shape)}")
    if filter.ndim == 1:
        filter = torch.outer(filter, filter)
    x0, x1, y0, y1 = (padding,) * 4 if isinstance(padding, int) else padding
    kernel = (filter if flip_filter else filter.flip(0, 1)) * gain
    if filter.requires_grad:
        return _upfirdn2d(x, kernel, up, down, (x0, x1, y0, y1))
    result: Tensor = _UpFirDn2d.apply(x, kernel, up, down, (x0, x1, y0, y1))  # type: ignore[no-untyped-call]
    return result


Padding = tuple[int, int, int, int]


def _upfirdn2d(x: Tensor, kernel: Tensor, up: int, down: int, padding: Padding) -> Tensor:
    """Correlation with ``kernel``, of one channel at a time."""
    channels = x.shape[1]
    weight = kernel.to(device=x.device, dtype=x.dtype)[None, None].expand(channels, 1, -1, -1)  # [C, 1, kh, kw]
    if up > 1:
        return _spread(x, weight.flip(2, 3), up, padding)[:, :, ::down, ::down]
    x0, x1, y0, y1 = padding
    if x0 == x1 and y0 == y1 and min(x0, y0) >= 0:
        return F.conv2d(x, weight, stride=down, padding=(y0, x0), groups=channels)
    return F.conv2d(F.pad(x, padding), weight, stride=down, groups=channels)


def _spread(x: Tensor, weight: Tensor, up: int, padding: Padding) -> Tensor:
    """Zeros inserted, ``padding`` and filter in one transposed convolution, cut to what it says."""
    (kh, kw), (x0, x1, y0, y1) = weight.shape[2:], padding
    # What a transposed convolution has beyond the padded picture, before and after, for either axis.
    left, right, top, bottom = kw - 1 - x0, kw - up - x1, kh - 1 - y0, kh - up - y1
    across, down = max(min(left, right), 0), max(min(top, bottom), 0)
    y = F.conv_transpose2d(x, weight, stride=up, padding=(down, across), groups=len(weight))
    rest = (across - left, across - right, down - top, down - bottom)
    return F.pad(y, rest) if any(rest) else y


class _UpFirDn2d(torch.autograd.Function):
    """The gradient of an upfirdn2d is an upfirdn2d with ``up`` and ``down`` exchanged, so it has every order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, up: int, down: int, padding: Padding) -> Tensor:
        y = _upfirdn2d(x, kernel, up, down, padding)
        ctx.save_for_backward(kernel)
        ctx.geometry = up, down, padding, x.shape, y.shape
        ctx.form = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        up, down, padding, (*_, height, width), (*_, out_height, out_width) = ctx.geometry
        reverse = _reverse(kernel, up, down, padding, (height, width), (out_height, out_width))
        # A gradient comes as it likes; one channel at a time is several times slower in the other format.
        gradient = gradient.contiguous(memory_format=ctx.form)
        y = _UpFirDn2d.apply(gradient, kernel.flip(0, 1), down, up, reverse)  # type: ignore[no-untyped-call]
        return y, None, None, None, None


def _reverse(kernel: Tensor, up: int, down: int, padding: Padding, size: Sequence[int], out_size: Sequence[int]) -> Padding:
    """The padding of the upfirdn2d that is the gradient of one with ``padding``, from ``size`` to ``out_size``."""
    (kh, kw), (x0, _, y0, _) = kernel.shape, padding
    (height, width), (out_height, out_width) = size, out_size
    return (
        kw - x0 - 1,
        width * up - out_width * down + x0 - up + 1,
        kh - y0 - 1,
        height * up - out_height * down + y0 - up + 1,
    )


def filter_adjoint(gradient: Tensor, filter: Tensor, size: Sequence[int], padding: Padding, gain: float = 1.0) -> Tensor:
    """The gradient of ``upfirdn2d(x, filter, padding=padding, gain=gain)`` in ``x [N, C, *size]``."""
    reverse = _reverse(filter, 1, 1, padding, size, gradient.shape[2:])
    return _upfirdn2d(gradient, filter * gain, 1, 1, reverse)


def upsample2d(x: Tensor, filter: Tensor, factor: int = 2, gain: float = 1.0) -> Tensor:
    """``[N, C, H, W]`` to ``[N, C, H * factor, W * factor]``, low-pass filtered, brightness kept (times ``gain``)."""
    k = filter.shape[-1]
    before, after = (k + factor - 1) // 2, (k - factor) // 2
    return upfirdn2d(x, filter, up=factor, padding=(before, after, before, after), gain=gain * factor**2)


def downsample2d(x: Tensor, filter: Tensor, factor: int = 2) -> Tensor:
    """``[N, C, H, W]`` to ``[N, C, H / factor, W / factor]``, low-pass filtered."""
    k = filter.shape[-1]
    before, after = (k - factor + 1) // 2, (k - factor) // 2
    return upfirdn2d(x, filter, down=factor, padding=(before, after, before, after))
