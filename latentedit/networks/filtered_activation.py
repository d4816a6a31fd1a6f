"""Upsampling, a leaky ReLU and downsampling as one operation (Karras et al. 2021, section 3.2 and
appendix D).

What the activation sees has four times the samples of what goes in and out. It is kept nowhere: the
gradient computes it again, and on CPUs not even that is whole, as pictures are filtered in strips
that stay in the cache. There, all filters are depthwise convolutions of channels_last pictures
without a stride. For this, the samples of the higher rate are held as several pictures of the lower
rate, one for each phase, which are never put together: the activation needs no neighbours, and a
downsampled picture is a sum over phases.

The operation is piecewise linear: its gradient, and the gradient of that, are the same three steps
with the slopes of the activation in the place of the activation, backwards or forwards.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit import ops

STRIP = 2**22
"""Samples of the higher rate in a strip: 16 MB in float32."""


class ActivationPlan(NamedTuple):
    """What `filtered_activation` does, but for picture and filters."""

    up: int
    down: int
    """Factors, of which the second divides the first."""
    padding: tuple[int, int]
    """Samples of the higher rate before and after the picture, the same for both axes; negative
    ones crop."""
    slope: float
    gain: float
    clamp: float | None

    def high(self, size: int, filter: Tensor | None) -> int:
        """Return the samples of the higher rate that ``size`` samples become."""
        taps = 1 if filter is None else filter.shape[0]
        return size * self.up + sum(self.padding) - taps + 1

    def low(self, high: int, filter: Tensor | None) -> int:
        """Return the samples that are left of ``high`` ones."""
        taps = 1 if filter is None else filter.shape[0]
        return (high - taps) // self.down + 1


def filtered_activation(
    x: Tensor, up_filter: Tensor | None, down_filter: Tensor | None, plan: ActivationPlan
) -> Tensor:
    """Upsample, ``clamp(lrelu(x) * gain)``, downsample; differentiable to any order in ``x``.

    Args:
        x: ``[N, C, H, W]``.
        up_filter: ``[k]``, or None for none.
        down_filter: ``[k]`` or, if it is not separable, ``[k, k]``; None for none.
    """
    result: Tensor = _Forward.apply(x, up_filter, down_filter, plan)  # type: ignore[no-untyped-call]
    return result


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        up_filter: Tensor | None,
        down_filter: Tensor | None,
        plan: ActivationPlan,
    ) -> Tensor:
        # Only the input: what the activation saw has up to 16 times its samples, and is computed
        # again.
        ctx.save_for_backward(x, up_filter, down_filter)
        ctx.plan = plan
        return _forward(x, None, up_filter, down_filter, plan)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Adjoint.apply(gradient, *ctx.saved_tensors, ctx.plan), None, None, None  # type: ignore[no-untyped-call]


class _Adjoint(torch.autograd.Function):
    """A gradient of the output to one of the input; linear in the gradient, and constant in x but
    for where that is 0."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        x: Tensor,
        up_filter: Any,
        down_filter: Any,
        plan: ActivationPlan,
    ) -> Tensor:
        ctx.save_for_backward(x, up_filter, down_filter)
        ctx.plan = plan
        return _adjoint(gradient, x, up_filter, down_filter, plan)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tangent = _Tangent.apply(gradient, *ctx.saved_tensors, ctx.plan)  # type: ignore[no-untyped-call]
        return tangent, None, None, None, None


class _Tangent(torch.autograd.Function):
    """A change of the input to one of the output."""

    @staticmethod
    def forward(
        ctx: Any, change: Tensor, x: Tensor, up_filter: Any, down_filter: Any, plan: ActivationPlan
    ) -> Tensor:
        ctx.save_for_backward(x, up_filter, down_filter)
        ctx.plan = plan
        return _forward(x, change, up_filter, down_filter, plan)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        adjoint = _Adjoint.apply(gradient, *ctx.saved_tensors, ctx.plan)  # type: ignore[no-untyped-call]
        return adjoint, None, None, None, None


def _activate(u: Tensor, plan: ActivationPlan) -> Tensor:
    """In place, and without the gain, which is in the filter that follows."""
    if plan.slope != 1:
        u = F.leaky_relu_(u, plan.slope)
    return u if plan.clamp is None else u.clamp_(-plan.clamp / plan.gain, plan.clamp / plan.gain)


def _times_slope(v: Tensor, u: Tensor, plan: ActivationPlan) -> Tensor:
    """Return ``v`` times the slope that `_activate` has at ``u``."""
    if plan.slope != 1:
        v = torch.ops.aten.leaky_relu_backward(v, u, plan.slope, False)
    if plan.clamp is not None:
        # The gain comes after the clamp here, so the limit is that of the value before the gain.
        limit = plan.clamp / plan.gain
        v = torch.ops.aten.hardtanh_backward(v, u, -limit / plan.slope, limit)
    return v


def _forward(
    x: Tensor, change: Tensor | None, up_filter: Any, down_filter: Any, plan: ActivationPlan
) -> Tensor:
    """Return the operation, or with a ``change`` of x that of its result."""
    if x.device.type in ("cpu", "meta"):
        return _forward_in_phases(x, change, up_filter, down_filter, plan)
    return forward_whole(x, change, up_filter, down_filter, plan)


def forward_whole(
    x: Tensor, change: Tensor | None, up_filter: Any, down_filter: Any, plan: ActivationPlan
) -> Tensor:
    """Return the same for whole pictures, of operations that are quick on other devices."""
    up, down = _wholes(x, up_filter, down_filter, plan)
    u = ops._upfirdn2d(x, *up)
    u = _activate(u, plan) if change is None else _times_slope(ops._upfirdn2d(change, *up), u, plan)
    return ops._upfirdn2d(u, *down)


def _adjoint(
    gradient: Tensor, x: Tensor, up_filter: Any, down_filter: Any, plan: ActivationPlan
) -> Tensor:
    if x.device.type in ("cpu", "meta"):
        return _adjoint_in_phases(gradient, x, up_filter, down_filter, plan)
    return adjoint_whole(gradient, x, up_filter, down_filter, plan)


def adjoint_whole(
    gradient: Tensor, x: Tensor, up_filter: Any, down_filter: Any, plan: ActivationPlan
) -> Tensor:
    """Return the gradient in ``x`` for that of the result, for whole pictures."""
    (up, there), (down, back) = _wholes(x, up_filter, down_filter, plan)
    u = ops._upfirdn2d(x, up, there)
    v = ops._upfirdn2d(gradient, down, back.reverse(down, u.shape[2:], gradient.shape[2:]))
    return ops._upfirdn2d(_times_slope(v, u, plan), up, there.reverse(up, x.shape[2:], u.shape[2:]))


def _wholes(
    x: Tensor, up_filter: Any, down_filter: Any, plan: ActivationPlan
) -> list[tuple[Tensor, ops.Geometry]]:
    """Return the filters and geometries of the two linear steps, for whole pictures on other
    devices."""
    before, after = plan.padding
    up = ops.Geometry(plan.up, 1, (before, after, before, after), plan.up**2, True)
    down = ops.Geometry(1, plan.down, (0, 0, 0, 0), plan.gain, True)
    filters = [x.new_ones(1) if filter is None else filter for filter in (up_filter, down_filter)]
    return list(zip(filters, (up, down), strict=True))


class Link(NamedTuple):
    """Along one axis: ``target[i]`` is a sum over ``taps[m] * source[i + offset + m]``."""

    source: int
    target: int
    offset: int
    taps: Tensor

    def reverse(self) -> "Link":
        """That of the gradient."""
        return Link(self.target, self.source, -self.offset - len(self.taps) + 1, self.taps.flip(0))


def _upwards(filter: Tensor, plan: ActivationPlan) -> list[Link]:
    """From samples to the phases of the higher rate, of which number p has places p, p + up, p + 2
    up ..."""
    # Zeros between samples would take 1 - 1/up of the amplitude away.
    taps = filter.flip(0) * plan.up
    links = []
    for phase in range(plan.up):
        first = (plan.padding[0] - phase) % plan.up  # the first tap that meets a sample
        if first < len(taps):
            links.append(
                Link(0, phase, (phase + first - plan.padding[0]) // plan.up, taps[first :: plan.up])
            )

    return links


def _downwards(taps: Tensor, plan: ActivationPlan) -> list[Link]:
    """From those phases to the ``up / down`` phases of the result."""
    links = []
    for target in range(plan.up // plan.down):
        for phase in range(plan.up):
            first = (phase - plan.down * target) % plan.up
            if first < len(taps):
                links.append(
                    Link(
                        phase,
                        target,
                        (plan.down * target + first) // plan.up,
                        taps[first :: plan.up],
                    )
                )

    return links


class Piece(NamedTuple):
    """Places ``start`` and on of a picture along an axis; what lies beyond its ends is zero, or not
    needed."""

    picture: Tensor
    start: int


def _window(piece: Piece, dim: int, first: int, end: int) -> Tensor:
    """Return the places ``first`` to ``end`` along ``dim``, with zeros where there are none."""
    x = piece.picture
    first = first - piece.start
    end = end - piece.start
    size = x.shape[dim]
    # Only what lies within is copied; the rest is padding.
    low = min(max(first, 0), size)
    high = max(min(end, size), 0)
    x = x.narrow(dim, low, max(high - low, 0))
    before = min(max(-first, 0), end - first)
    after = end - first - before - x.shape[dim]
    if before or after:
        x = F.pad(x, (before, after) if dim == 3 else (0, 0, before, after))
    return x.contiguous(memory_format=torch.channels_last)


def _reach(links: list[Link], first: int, end: int) -> tuple[int, int]:
    """Return the places of sources that places ``first`` to ``end`` of targets need."""
    low = min(link.offset for link in links)
    return first + low, end - 1 + max(link.offset + len(link.taps) for link in links)


def _depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    weight = (
        kernel.to(x.dtype)
        .expand(x.shape[1], 1, *kernel.shape)
        .contiguous(memory_format=torch.channels_last)
    )
    return F.conv2d(x, weight, groups=x.shape[1])


def _along(
    links: list[Link], sources: dict[int, Piece], dim: int, first: int, end: int
) -> dict[int, Piece]:
    """Return the places ``first`` to ``end`` of the targets along ``dim``."""
    low, high = _reach(links, first, end)
    near = {phase: _window(piece, dim, low, high) for phase, piece in sources.items()}
    found: dict[int, Tensor] = {}
    for link in links:
        # All kernels are as long as what all links need, so that none needs a copy of a part of its
        # source.
        before = link.offset - (low - first)
        taps = F.pad(link.taps, (before, high - low - (end - first) + 1 - before - len(link.taps)))
        part = _depthwise(near[link.source], taps[:, None] if dim == 2 else taps[None])
        found[link.target] = found[link.target].add_(part) if link.target in found else part

    return {phase: Piece(picture, first) for phase, picture in found.items()}


Phases = dict[int, dict[int, Tensor]]
"""Pictures by the phases of their rows and of their columns."""


class _Grid:
    """The linear steps of a strip, for rows and columns of the lower rate (those of the input)."""

    def __init__(self, x: Tensor, up_filter: Any, down_filter: Any, plan: ActivationPlan) -> None:
        one = x.new_ones(1)
        self.plan = plan
        self.both = down_filter is not None and down_filter.ndim == 2
        up, down = (one if filter is None else filter for filter in (up_filter, down_filter))
        self.up = _upwards(up, plan)
        down = down.flip(tuple(range(down.ndim)))
        # Applied along both axes, so that half of it (as a power) belongs to each.
        scale = plan.gain if self.both else plan.gain**0.5
        self.down_filter = down * scale
        # of rows, only offsets count
        self.down = _downwards(self.down_filter[0] if self.both else self.down_filter, plan)

    def raised(self, x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Phases:
        """Return the upsampled picture."""
        tall = _along(self.up, {0: Piece(x, 0)}, 2, *rows)
        return {
            r: _pictures(_along(self.up, {0: Piece(piece.picture, 0)}, 3, *columns))
            for r, piece in tall.items()
        }

    def raised_adjoint(
        self, v: Phases, start: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> Tensor:
        links = [link.reverse() for link in self.up]
        wide = {r: _along(links, _pieces(v[r], start[1]), 3, *columns)[0].picture for r in v}
        return _along(links, _pieces(wide, start[0]), 2, *rows)[0].picture

    def lowered(
        self, u: Phases, start: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> Phases:
        """Return the downsampled picture."""
        if self.both:
            return self._both(u, start, rows, columns, lambda link: link)
        wide = {r: _pictures(_along(self.down, _pieces(u[r], start[1]), 3, *columns)) for r in u}
        return _turned(
            {
                c: _pictures(_along(self.down, _pieces(p, start[0]), 2, *rows))
                for c, p in _turned(wide).items()
            }
        )

    def lowered_adjoint(self, g: Phases, rows: tuple[int, int], columns: tuple[int, int]) -> Phases:
        if self.both:
            return self._both(g, (0, 0), rows, columns, Link.reverse)
        links = [link.reverse() for link in self.down]
        tall = _turned(
            {c: _pictures(_along(links, _pieces(p, 0), 2, *rows)) for c, p in _turned(g).items()}
        )
        return {r: _pictures(_along(links, _pieces(tall[r], 0), 3, *columns)) for r in tall}

    def _both(
        self,
        sources: Phases,
        start: tuple[int, int],
        rows: tuple[int, int],
        columns: tuple[int, int],
        turn: Callable[[Link], Link],
    ) -> Phases:
        """Return a filter that is not separable, along both axes at once."""
        places = self.down_filter.new_tensor(range(len(self.down_filter)), dtype=torch.long)
        links = [turn(link) for link in _downwards(places, self.plan)]
        near: Phases = {}
        (top, bottom), (left, right) = _reach(links, *rows), _reach(links, *columns)

        for r, line in sources.items():
            near[r] = {
                c: _window(
                    Piece(_window(Piece(x, start[0]), 2, top, bottom), start[1]), 3, left, right
                )
                for c, x in line.items()
            }

        found: Phases = {}
        for down in links:
            for across in links:
                kernel = self.down_filter[down.taps][:, across.taps]
                up = down.offset - (top - rows[0])
                beside = across.offset - (left - columns[0])
                tall = bottom - top - (rows[1] - rows[0]) + 1 - up - len(kernel)
                wide = right - left - (columns[1] - columns[0]) + 1 - beside - kernel.shape[1]
                part = _depthwise(
                    near[down.source][across.source], F.pad(kernel, (beside, wide, up, tall))
                )
                line = found.setdefault(down.target, {})
                line[across.target] = (
                    line[across.target].add_(part) if across.target in line else part
                )

        return found


def _pieces(pictures: dict[int, Tensor], start: int) -> dict[int, Piece]:
    return {phase: Piece(picture, start) for phase, picture in pictures.items()}


def _pictures(pieces: dict[int, Piece]) -> dict[int, Tensor]:
    return {phase: piece.picture for phase, piece in pieces.items()}


def _turned(phases: Phases) -> Phases:
    """Rows and columns exchanged."""
    columns = next(iter(phases.values()))
    return {c: {r: line[c] for r, line in phases.items()} for c in columns}


def _strips(x: Tensor, height: int, plan: ActivationPlan) -> list[tuple[int, int]]:
    """Return ranges of ``height`` rows of the lower rate, each of about `STRIP` samples of the
    higher one."""
    if x.device.type == "meta":
        return [(0, height)]
    rows = max(STRIP // (x.shape[0] * x.shape[1] * plan.up**2 * x.shape[3]), 8)
    return [(first, min(first + rows, height)) for first in range(0, height, rows)]


def _forward_in_phases(
    x: Tensor, change: Tensor | None, up_filter: Any, down_filter: Any, plan: ActivationPlan
) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    change = None if change is None else change.contiguous(memory_format=torch.channels_last)
    grid = _Grid(x, up_filter, down_filter, plan)
    phases = plan.up // plan.down
    height, width = (plan.low(plan.high(size, up_filter), down_filter) for size in x.shape[2:])
    tall, columns = -(-height // phases), (0, -(-width // phases))
    shape, form = (*x.shape[:2], tall * phases, columns[1] * phases), torch.channels_last
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)

    for rows in _strips(x, tall, plan):
        needed = _reach(grid.down, *rows), _reach(grid.down, *columns)
        u = grid.raised(x, *needed)
        moved = None if change is None else grid.raised(change, *needed)
        for r, line in u.items():
            for c in line:
                line[c] = (
                    _activate(line[c], plan)
                    if moved is None
                    else _times_slope(moved[r][c], line[c], plan)
                )

        lowered = grid.lowered(u, (needed[0][0], needed[1][0]), rows, columns)
        for r, line in lowered.items():
            for c, part in line.items():
                y[:, :, rows[0] * phases + r : rows[1] * phases : phases, c::phases] = part

    return y[:, :, :height, :width]


def _adjoint_in_phases(
    gradient: Tensor, x: Tensor, up_filter: Any, down_filter: Any, plan: ActivationPlan
) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    grid = _Grid(x, up_filter, down_filter, plan)
    phases = plan.up // plan.down
    g = {
        r: {
            c: gradient[:, :, r::phases, c::phases].contiguous(memory_format=torch.channels_last)
            for c in range(phases)
        }
        for r in range(phases)
    }
    back, columns = [link.reverse() for link in grid.up], (0, x.shape[3])
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    for rows in _strips(x, x.shape[2], plan):
        needed = _reach(back, *rows), _reach(back, *columns)
        u = grid.raised(x, *needed)
        v = grid.lowered_adjoint(g, *needed)
        for r, line in v.items():
            for c in line:
                line[c] = _times_slope(line[c], u[r][c], plan)
        y[:, :, rows[0] : rows[1]] = grid.raised_adjoint(
            v, (needed[0][0], needed[1][0]), rows, columns
        )

    return y
