"""FIR resampling, the primitive under every change of resolution in StyleGAN2.

Everything is composed of PyTorch's own differentiable operations, so gradients of any order work on
every device.

There are three forms of the same sum: a Triton kernel (`latentedit.runtime.fused`), a depthwise
convolution, and sums of shifted pictures, an axis at a time. On CUDA the kernel runs where Triton
is at hand, else sums for large pictures. CPUs take the convolution. Which one runs follows from
device, size and filter alone.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import ArgumentError
from latentedit.runtime import fused


def fir_filter(taps: Sequence[float], *, normalize: bool = True) -> Tensor:
    """Separable 2-D filter ``outer(taps, taps)``, float32 of shape ``[k, k]``; its sum is 1 unless
    ``normalize`` is off.

    StyleGAN2 uses ``[1, 3, 3, 1]`` (Karras et al. 2020, appendix B).
    """
    row = np.asarray(taps, dtype=np.float32)
    if row.ndim != 1 or row.size == 0:
        raise ArgumentError(
            f"a FIR filter needs a non-empty list of taps, got shape {list(row.shape)}"
        )
    kernel = np.outer(row, row)
    kernel = kernel / kernel.sum() if normalize else kernel
    # a list, as an array stays on the CPU whatever the device is
    return torch.tensor(kernel.tolist(), dtype=torch.float32)


def fir_taps(taps: Sequence[float]) -> Tensor:
    """One axis of `fir_filter`, ``[k]``: that a filter is separable shows in its shape, without a
    look at its numbers."""
    row = np.asarray(taps, dtype=np.float32)
    if row.ndim != 1 or row.size == 0:
        raise ArgumentError(
            f"a FIR filter needs a non-empty list of taps, got shape {list(row.shape)}"
        )
    return torch.tensor((row / row.sum()).tolist(), dtype=torch.float32)


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
        up: integer factor, the same for both axes.
        down: integer factor, the same for both axes.
        padding: ``(x0, x1, y0, y1)`` or one number, in pixels of the upsampled picture; negative
            values crop.
        gain: factor on the output; ``up ** 2`` keeps the brightness of an upsampled picture.
        flip_filter: False is a true convolution (the filter is flipped), True a correlation.

    Returns:
        ``[N, C, (H * up + y0 + y1 - kh) // down + 1, (W * up + x0 + x1 - kw) // down + 1]``.
    """
    if x.ndim != 4:
        raise ArgumentError.of_shape("upfirdn2d: x", "[N, C, H, W]", x.shape)
    x0, x1, y0, y1 = (padding,) * 4 if isinstance(padding, int) else padding
    geometry = Geometry(up, down, (x0, x1, y0, y1), gain, not flip_filter)
    if filter.requires_grad:
        return _depthwise(x, filter, geometry)
    result: Tensor = _UpFirDn2d.apply(x, filter, geometry)  # type: ignore[no-untyped-call]
    return result


Padding = tuple[int, int, int, int]

SUMMED = 2**20
"""Output numbers from which on CUDA filters by sums: below, the launch of one kernel is cheaper
than that of a dozen."""


class Geometry(NamedTuple):
    """What `upfirdn2d` does, but for picture and filter; ``flip`` is whether the filter is flipped
    before a correlation."""

    up: int
    down: int
    padding: Padding
    gain: float
    flip: bool

    def fused(self) -> fused.FirGeometry:
        """Return the same for the Triton kernel, which is told the size of its output."""
        left, _, top, _ = self.padding
        return fused.FirGeometry(self.up, self.down, top, left, self.gain, self.flip)

    def size(self, size: Sequence[int], filter: Tensor) -> tuple[int, int]:
        """Return the height and width of the output for those of the input."""
        x0, x1, y0, y1 = self.padding
        kh, kw = _extent(filter)
        height, width = size
        return (
            (height * self.up + y0 + y1 - kh) // self.down + 1,
            (width * self.up + x0 + x1 - kw) // self.down + 1,
        )

    def reverse(self, filter: Tensor, size: Sequence[int], out: Sequence[int]) -> "Geometry":
        """That of the gradient, from ``out`` back to ``size``."""
        (kh, kw), (x0, _, y0, _) = _extent(filter), self.padding
        padding = (
            kw - x0 - 1,
            size[1] * self.up - out[1] * self.down + x0 - self.up + 1,
            kh - y0 - 1,
            size[0] * self.up - out[0] * self.down + y0 - self.up + 1,
        )
        return Geometry(self.down, self.up, padding, self.gain, not self.flip)


def _extent(filter: Tensor) -> tuple[int, int]:
    return filter.shape[0], filter.shape[-1]


def prefers_sums(device: torch.device, count: int) -> bool:
    """The fixed rule for separable filters, ``count`` being the numbers of the output."""
    return device.type == "cuda" and count >= SUMMED


def _upfirdn2d(x: Tensor, filter: Tensor, geometry: Geometry) -> Tensor:
    if filter.ndim == 1:
        height, width = geometry.size(x.shape[2:], filter)
        if fused.available(x, geometry.up):
            return fused.fir_resample(x, filter, (height, width), geometry.fused())
        if prefers_sums(x.device, x.shape[0] * x.shape[1] * height * width):
            return _summed(x, filter, geometry)
    return _depthwise(x, filter, geometry)


def _summed(x: Tensor, taps: Tensor, geometry: Geometry) -> Tensor:
    """Return sums of shifted pictures, an axis after the other; without a gradient, as `_UpFirDn2d`
    has it."""
    x0, _, y0, _ = geometry.padding
    height, width = geometry.size(x.shape[2:], taps)
    weights = taps.to(device=x.device, dtype=x.dtype)
    factors = weights * geometry.gain if geometry.gain != 1 else weights
    form = (
        torch.channels_last
        if x.is_contiguous(memory_format=torch.channels_last)
        else torch.contiguous_format
    )

    # The axis whose filter leaves fewer pixels for the other comes first.
    if geometry.up > geometry.down:
        x = _sum_along(x, 3, weights, geometry, x0, width, form)
        return _sum_along(x, 2, factors, geometry, y0, height, form)
    x = _sum_along(x, 2, weights, geometry, y0, height, form)
    return _sum_along(x, 3, factors, geometry, x0, width, form)


def _sum_along(
    x: Tensor,
    dim: int,
    weights: Tensor,
    geometry: Geometry,
    before: int,
    size: int,
    form: torch.memory_format,
) -> Tensor:
    """One axis; what padding would add is left out of the sums, and not added."""
    up = geometry.up
    down = geometry.down
    taps = weights.unbind(0)
    taps = taps[::-1] if geometry.flip else taps
    shape = list(x.shape)
    shape[dim] = size
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)

    for phase in range(min(up, size)):
        # Output number t of those at phase, phase + up, ... is a sum over what lies at start + down
        # t, one start a tap.
        outputs = y[(slice(None),) * dim + (slice(phase, None, up),)]
        count = outputs.shape[dim]
        empty = True
        for number, tap in enumerate(taps):
            start, beside = divmod(phase * down + number - before, up)
            first = max(-(start // down), 0)
            last = min((x.shape[dim] - 1 - start) // down, count - 1)
            if beside or last < first:
                continue

            place = outputs.narrow(dim, first, last - first + 1)
            low = start + down * first
            shifted = x[(slice(None),) * dim + (slice(low, low + down * (last - first) + 1, down),)]
            if empty:
                outputs.narrow(dim, 0, first).zero_()
                outputs.narrow(dim, last + 1, count - 1 - last).zero_()
                torch.mul(shifted, tap, out=place)
                empty = False
            else:
                place.addcmul_(shifted, tap)

        if empty:
            outputs.zero_()

    return y


def _depthwise(x: Tensor, filter: Tensor, geometry: Geometry) -> Tensor:
    """Correlation, of one channel at a time."""
    up = geometry.up
    down = geometry.down
    padding = geometry.padding
    if filter.ndim == 1:
        filter = torch.outer(filter, filter)

    kernel = (filter.flip(0, 1) if geometry.flip else filter) * geometry.gain
    channels = x.shape[1]

    # [C, 1, kh, kw]
    weight = kernel.to(device=x.device, dtype=x.dtype)[None, None].expand(channels, 1, -1, -1)
    if up > 1:
        return _spread(x, weight.flip(2, 3), up, padding)[:, :, ::down, ::down]

    x0, x1, y0, y1 = padding
    if x0 == x1 and y0 == y1 and min(x0, y0) >= 0:
        return F.conv2d(x, weight, stride=down, padding=(y0, x0), groups=channels)
    return F.conv2d(_padded(x, padding), weight, stride=down, groups=channels)


def _spread(x: Tensor, weight: Tensor, up: int, padding: Padding) -> Tensor:
    """Zeros inserted, ``padding`` and filter in one transposed convolution, cut to what it says."""
    (kh, kw), (x0, x1, y0, y1) = weight.shape[2:], padding
    # What a transposed convolution has beyond the padded picture, before and after, for either
    # axis.
    left = kw - 1 - x0
    right = kw - up - x1
    top = kh - 1 - y0
    bottom = kh - up - y1
    across = max(min(left, right), 0)
    down = max(min(top, bottom), 0)
    y = F.conv_transpose2d(x, weight, stride=up, padding=(down, across), groups=len(weight))
    rest = (across - left, across - right, down - top, down - bottom)
    return _padded(y, rest)


def _padded(x: Tensor, sides: Padding) -> Tensor:
    """Return ``x`` with zeros added, or cropped where a side is negative."""
    if not any(sides):
        return x
    if min(sides) >= 0 or max(sides) <= 0:
        return F.pad(x, sides)
    # Padded before it is cropped, because a crop on one side may reach into the padding of the
    # other.
    return F.pad(F.pad(x, [max(n, 0) for n in sides]), [min(n, 0) for n in sides])


class _UpFirDn2d(torch.autograd.Function):
    """The gradient of an upfirdn2d is an upfirdn2d with ``up`` and ``down`` exchanged, so it has
    every order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, filter: Tensor, geometry: Geometry) -> Tensor:
        y = _upfirdn2d(x, filter, geometry)
        ctx.save_for_backward(filter)
        ctx.reverse = geometry.reverse(filter, x.shape[2:], y.shape[2:])
        ctx.form = (
            torch.channels_last
            if x.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (filter,) = ctx.saved_tensors
        # A gradient comes as it likes; one channel at a time is several times slower in the other
        # format.
        gradient = gradient.contiguous(memory_format=ctx.form)
        y = _UpFirDn2d.apply(gradient, filter, ctx.reverse)  # type: ignore[no-untyped-call]
        return y, None, None


def filter_adjoint(
    gradient: Tensor, filter: Tensor, size: Sequence[int], padding: Padding, gain: float = 1.0
) -> Tensor:
    """Return the gradient of ``upfirdn2d(x, filter, padding=padding, gain=gain)`` in ``x [N, C,
    *size]``."""
    geometry = Geometry(1, 1, padding, gain, True)
    return _upfirdn2d(gradient, filter, geometry.reverse(filter, size, gradient.shape[2:]))


def upsample2d(x: Tensor, filter: Tensor, factor: int = 2, gain: float = 1.0) -> Tensor:
    """``[N, C, H, W]`` to ``[N, C, H * factor, W * factor]``, low-pass filtered, brightness kept
    (times ``gain``)."""
    k = filter.shape[-1]
    before = (k + factor - 1) // 2
    after = (k - factor) // 2
    return upfirdn2d(
        x, filter, up=factor, padding=(before, after, before, after), gain=gain * factor**2
    )


def downsample2d(x: Tensor, filter: Tensor, factor: int = 2) -> Tensor:
    """``[N, C, H, W]`` to ``[N, C, H / factor, W / factor]``, low-pass filtered."""
    k = filter.shape[-1]
    before = (k - factor + 1) // 2
    after = (k - factor) // 2
    return upfirdn2d(x, filter, down=factor, padding=(before, after, before, after))
