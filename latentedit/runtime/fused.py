"""Triton kernels for CUDA: FIR resampling and the pointwise part of a layer, each in one pass over
memory; random numbers.

A layer of small feature maps is bound by memory on a GPU. PyTorch's own operations read and write a
feature map about 20 times for a 4 x 4 filter and about 8 times for factors, noise, bias and
activation; these kernels do so once. They add up in float32 and round once.

Nothing is compiled at import. The first use on a device compiles a small kernel; where that fails
(no Triton, no C compiler), `available` is false from then on and the other forms run.
"""

import functools
import importlib
import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LARGEST = 2**31
"""Numbers of a tensor that the kernels' 32-bit indices reach; half of it leaves room for
margins."""
FACTORS = (1, 2, 4)
"""Factors of upsampling that the filter's kernel knows."""
BLOCK = 512
"""Numbers of a row that a program makes; half as many of short rows. More kinds would waste fewer
threads at the ends of rows, and take longer to compile."""
TILE = 1024
"""Numbers that a program of `gradients` or `changes` holds at a time, beside up to three sums of
each; twice as many where there is but one sum (measured on an H200: three quarters of the time)."""
WORDS = 512
"""Random words that a program makes."""
PROGRAMS = 1056
"""Programs that keep a large GPU busy: 8 for each of 132 multiprocessors."""


class FirGeometry(NamedTuple):
    """The geometry of a separable FIR filter, the same for both axes but for the padding before."""

    up: int = 1
    down: int = 1
    top: int = 0
    left: int = 0
    gain: float = 1.0
    flip: bool = False


class Layer(NamedTuple):
    """What follows a convolution: ``lrelu(x * factors + bias + noise)``."""

    factors: Tensor | None = None
    """``[N, C]`` float32."""
    bias: Tensor | None = None
    """``[C]``."""
    noise: Tensor | None = None
    """``[1 or N, 1, H, W]``."""
    slope: float = 1.0
    """Slope of the leaky ReLU for negative numbers; 1 means no activation."""


def available(x: Tensor, up: int = 1) -> bool:
    """Return whether these kernels can run on ``x [N, C, H, W]``, and make it ``up`` times as high
    and wide; a fixed rule, after one trial a device."""
    return (
        x.dtype in DTYPES
        and up in FACTORS
        and 0 < x.numel() * up**2 < LARGEST // 2
        and runs_on(x.device)
    )


def runs_on(device: torch.device) -> bool:
    """Return whether these kernels run on ``device``; a fixed rule, after one trial a device."""
    return (device.type == "cuda" or INTERPRETED) and _works(device)


INTERPRETED = False
"""Tests set this to run the kernels on the CPU by Triton's interpreter."""


@functools.cache
def _works(device: torch.device) -> bool:
    try:
        fir_resample(
            torch.ones(1, 1, 2, 2, device=device),
            torch.ones(1, device=device),
            (2, 2),
            FirGeometry(),
        )
    # no Triton (Windows, CPU builds of PyTorch), or whatever a missing compiler raises
    except Exception as error:
        LOG.info("no Triton kernels on %s: %s", device, str(error).splitlines()[:1])
        return False

    return True


@functools.cache
def _kernels() -> Any:
    """The kernels are imported at their first use, as Triton takes its time."""
    return importlib.import_module("latentedit.runtime.triton_kernels")


def fir_resample(
    x: Tensor,
    taps: Tensor,
    size: Sequence[int],
    geometry: FirGeometry,
    layer: Layer | None = None,
) -> Tensor:
    """Upsample by zeros, pad, filter along both axes, keep every ``down``-th; then a layer's
    pointwise part.

    Args:
        x: ``[N, C, H, W]``, of one of `DTYPES`.
        taps: ``[k]``, float32.
        size: height and width of the output.

    Returns:
        ``[N, C, *size]`` in the dtype and memory format of ``x``. Without gradient.
    """
    x, form = _dense(x)
    n, c, h, w = x.shape
    y = torch.empty((n, c, *size), dtype=x.dtype, device=x.device, memory_format=form)
    planes, depth = (n, c) if form == torch.channels_last else (n * c, 1)
    layer = layer or Layer()
    if layer != Layer() and depth == 1 and c > 1:
        raise AssertionError("a layer's pointwise part needs channels_last")

    row = size[1] * depth
    block = BLOCK if row > BLOCK // 2 else BLOCK // 2
    across = -(-row // block)
    rows = geometry.up
    # A program that makes several rows shares what it reads between them, as long as registers
    # suffice and there are programs enough.
    more = max(rows, 4 if geometry.down == 1 else 2)
    if len(taps) > 1 and planes * (size[0] // more) * across >= PROGRAMS:
        rows = more
    grid = (planes * -(-size[0] // rows), across)
    _kernels().fir[grid](
        x,
        taps if taps.dtype == torch.float32 else taps.float(),
        y,
        _or(layer.factors, x),
        _or(layer.bias, x),
        _or(layer.noise, x),
        h,
        w,
        depth,
        *size,
        geometry.top,
        geometry.left,
        geometry.gain,
        layer.slope,
        0 if layer.noise is None or len(layer.noise) == 1 else math.prod(size),
        UP=geometry.up,
        DOWN=geometry.down,
        TAPS=len(taps),
        FLIP=geometry.flip,
        TOP_PHASE=geometry.top % geometry.up,
        LEFT_PHASE=geometry.left % geometry.up,
        FACTORS=layer.factors is not None,
        BIAS=layer.bias is not None,
        NOISE=layer.noise is not None,
        ACTIVATED=layer.slope != 1.0,
        ROWS=rows,
        BLOCK=block,
        num_warps=block // 256,
    )
    return y


def pointwise(x: Tensor, layer: Layer) -> Tensor:
    """Return the result of ``layer`` on channels_last ``x [N, C, H, W]``. Without gradient."""
    return fir_resample(
        x.contiguous(memory_format=torch.channels_last),
        _one(x.device),
        x.shape[2:],
        FirGeometry(),
        layer,
    )


@functools.cache
def _one(device: torch.device) -> Tensor:
    return torch.ones(1, device=device)


class Gradients(NamedTuple):
    """What `gradients` gives; sums over positions are ``[N, C]`` float32.

    Where the factors' gradient is not wanted, ``product`` and ``noisy`` hold no numbers.
    """

    scaled: Tensor
    """``[N, C, H, W]``: the gradient in what came before, times the factors."""
    before: Tensor
    """Sums of the gradient before the activation."""
    product: Tensor
    """Sums of gradient times output, or of the gradient before the activation times ``x``."""
    noisy: Tensor
    """Sums of the gradient before the activation times noise."""
    noise: Tensor | None
    """``[N, 1, H, W]`` float32, the gradient before the activation summed over channels, where that
    is wanted."""


def gradients(
    gradient: Tensor,
    y: Tensor,
    layer: Layer,
    to_noise: bool = False,
    to_factors: bool = True,
    x: Tensor | None = None,
) -> Gradients:
    """Return all that the gradient of `pointwise` needs, in one pass over ``gradient`` and output
    ``y [N, C, H, W]``.

    Args:
        to_noise: whether the gradient in the noise is wanted.
        to_factors: whether sums of products are wanted, which the gradient in the factors takes.
        x: the input, where it is at hand: the gradient in the factors then is ``product`` alone.
    """
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    y = y.contiguous(memory_format=torch.channels_last)
    n, c, h, w = y.shape
    shares = _shares(y, TILE if to_factors else 2 * TILE)
    scaled = torch.empty_like(gradient, dtype=y.dtype)
    noise = layer.noise if to_factors and x is None else None
    sums = torch.empty(3 if to_factors else 1, n, shares.splits, c, device=y.device)
    over_channels = torch.empty(n, 1, h, w, device=y.device) if to_noise else None
    _kernels().layer_gradients[(n, shares.splits)](
        gradient,
        y,
        y if x is None else x.contiguous(memory_format=torch.channels_last),
        _or(layer.factors, y),
        _or(noise, y),
        scaled,
        sums,
        _or(over_channels, sums),
        h * w,
        c,
        shares.each,
        0 if noise is None or len(noise) == 1 else h * w,
        n * shares.splits * c,
        layer.slope,
        FACTORS=layer.factors is not None,
        NOISE=noise is not None,
        TO_NOISE=to_noise,
        PRODUCT=to_factors,
        GIVEN=x is not None,
        ACTIVATED=layer.slope != 1.0,
        PIXELS=shares.pixels,
        WIDE=shares.wide,
        num_warps=4,
    )
    before, *others = sums.sum(dim=2).unbind(0)
    product, noisy = others or (sums[:0], sums[:0])
    return Gradients(scaled, before, product, noisy, over_channels)


class Changes(NamedTuple):
    """What `changes` gives: a loss's gradient in what its first gradient was computed from."""

    gradient: Tensor
    """``[N, C, H, W]``."""
    x: Tensor
    """``[N, C, H, W]``."""
    factors: Tensor
    """``[N, C]`` float32."""


def changes(
    gradient: Tensor, y: Tensor, x: Tensor, layer: Layer, given: tuple[Tensor, Tensor]
) -> Changes:
    """Differentiate `gradients` once more, in one pass.

    With m, the slope at every number, the first gradients are ``m * gradient * factors`` in the
    input ``x`` and the sums of ``m * gradient * x`` in the factors.

    Args:
        gradient: what `gradients` was given, ``[N, C, H, W]``.
        y: the output of the layer, which tells m.
        x: its input.
        layer: of which factors and slope count.
        given: the gradients in both first gradients, ``[N, C, H, W]`` and ``[N, C]``.
    """
    gradient, y, x, change = (
        t.contiguous(memory_format=torch.channels_last) for t in (gradient, y, x, given[0])
    )
    n, c, h, w = x.shape
    shares = _shares(x, TILE)
    for_gradient = torch.empty_like(gradient)
    for_x = torch.empty_like(x)
    sums = torch.empty(n, shares.splits, c, device=x.device)
    assert layer.factors is not None
    _kernels().layer_changes[(n, shares.splits)](
        gradient,
        y,
        x,
        change,
        layer.factors.contiguous(),
        given[1].contiguous(),
        for_gradient,
        for_x,
        sums,
        h * w,
        c,
        shares.each,
        layer.slope,
        ACTIVATED=layer.slope != 1.0,
        PIXELS=shares.pixels,
        WIDE=shares.wide,
        num_warps=4,
    )
    return Changes(for_gradient, for_x, sums.sum(dim=1))


class _Shares(NamedTuple):
    """How programs share the positions of an image."""

    wide: int
    """Channels, up to the next power of two."""
    pixels: int
    """Positions at a time."""
    splits: int
    """Programs an image."""
    each: int
    """Positions of a program."""


def _shares(x: Tensor, tile: int) -> _Shares:
    n, c, h, w = x.shape
    wide = _power(c)
    pixels = max(tile // wide, 1)
    splits = max(min(PROGRAMS // n, -(-h * w // pixels)), 1)
    each = -(-h * w // splits)
    return _Shares(wide, pixels, splits, -(-each // pixels) * pixels)


class Stream(NamedTuple):
    """What tells streams of random words apart; `latentedit.training.streams` says what it is."""

    samples: Tensor
    """``[N]`` int64: numbers of the pictures."""
    step: Tensor
    """``[2]`` int64: lower and upper 32 bits of the step."""
    key: tuple[int, int]
    """From 0 to 2^32 - 1 each."""
    rounds: int


def random_words(stream: Stream, start: int, count: int) -> Tensor:
    """Return the ``count`` words from word ``start`` on, ``[N, count]`` int64 from 0 to 2^32 - 1,
    as `latentedit.training.philox` makes them."""
    y = torch.empty(len(stream.samples), count, dtype=torch.int64, device=stream.samples.device)
    grid = (len(y), -(-count // WORDS))
    keys = (_signed(key) for key in stream.key)
    _kernels().random_words[grid](
        stream.samples, stream.step, *keys, y, start, count, ROUNDS=stream.rounds, BLOCK=WORDS
    )
    return y


def random_normal(stream: Stream, start: int, count: int) -> Tensor:
    """Return the standard normal numbers ``[N, count]`` float32 of the ``count`` words from word
    ``start`` on; ``count`` is even."""
    y = torch.empty(len(stream.samples), count, device=stream.samples.device)
    grid = (len(y), -(-count // 2 // WORDS))
    keys = (_signed(key) for key in stream.key)
    _kernels().random_normal[grid](
        stream.samples, stream.step, *keys, y, start, count // 2, ROUNDS=stream.rounds, BLOCK=WORDS
    )
    return y


def _signed(word: int) -> int:
    """Return the same 32 bits as a signed number: Triton would take a larger one for 64 bits, and
    compile a kernel for either."""
    return word - 2**32 if word >= 2**31 else word


def _dense(x: Tensor) -> tuple[Tensor, torch.memory_format]:
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return x, torch.channels_last
    if x.is_contiguous():
        single = x.shape[1] == 1
        return x, torch.channels_last if single else torch.contiguous_format
    return x.contiguous(memory_format=torch.channels_last), torch.channels_last


def _power(n: int) -> int:
    """Return the least power of two that is at least ``n``."""
    return 1 << max(n - 1, 0).bit_length()


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A kernel wants a pointer for every argument, read or not."""
    return other if tensor is None else tensor.contiguous()
