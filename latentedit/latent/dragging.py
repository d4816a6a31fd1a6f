"""Dragging: points of an image move to other places (DragGAN: Pan et al. 2023, arXiv 2305.10973).

Every step does two things. Motion supervision changes w so that the features around each handle
are found one pixel nearer to its target (section 3.2, eq. 1). Point tracking then looks where the
handle is now: at the place near by whose features are most like those that it began with
(section 3.3, eq. 2).

What differs from the paper, and why, is measured in docs/drag.md: w moves by steps of a fixed
length in whitened coordinates, in which a length is the same for every direction and network, and
mostly by the same vector in every layer, which keeps faces natural.
"""

import math
import os
from collections import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import ArgumentError, DivergedError, IncompatibleError, check_number
from latentedit.io.images import open_image, to_tensor
from latentedit.latent.deltas import expand_deltas, with_deltas
from latentedit.latent.latent_file import Latent
from latentedit.latent.layers import parse_layers
from latentedit.latent.spaces import space_of_latent
from latentedit.latent.w_statistics import WStatistics
from latentedit.networks.generator import Generator
from latentedit.networks.noise import Noise
from latentedit.networks.stylegan3 import AliasFreeSynthesis

WITHIN = 2.0
"""Distance in pixels from its target at which a handle has arrived."""
PATIENCE = 25
"""A drag ends after this many steps that brought its points no nearer: the network knows no such
image, and further steps would only change the face."""
MOST_STEPS = 10_000_000
MOST_HANDLES = 100
LAYERS = 6
"""Number of layers whose w changes: the first ones, which set shape and pose (section 3.2)."""
MOTION, TRACKING = 3 / 128, 3 / 128
"""Radii of motion supervision and of tracking, as shares of the image's side."""
FEATURES = 4
"""Features are taken where an image has this many times their resolution ..."""
COARSEST, FINEST = 32, 256
"""... but from no coarser and no finer ones."""
MOMENTUM = 0.5
SPREAD = 0.3
"""Share of a step that may differ from layer to layer."""

Point = tuple[float, float]
"""Across and down, in pixels; 0, 0 is the centre of the upper left pixel."""


@dataclass(frozen=True)
class Handle:
    """A point of the image, and where it shall go; a handle that is its own target is held."""

    start: Point
    target: Point

    def __post_init__(self) -> None:
        for name, point in (("start", self.start), ("target", self.target)):
            if len(point) != 2:
                raise ArgumentError.of(f"a handle's {name}", "two numbers, across and down", point)
            for value in point:
                check_number(f"a handle's {name}", value)


@dataclass(frozen=True)
class DragOptions:
    """Everything that can be chosen about a drag.

    Raises:
        Error: a value out of its range, or one that is not a finite number.
    """

    steps: int = 100
    """Steps at most; fewer where all handles arrive. 0 changes nothing."""
    learning_rate: float = 0.15
    """Length of a step, in standard deviations of w."""
    motion_radius: float | None = None
    """Radius of the region around a handle that moves along, in pixels; None for 3 of 128."""
    tracking_radius: float | None = None
    """Distance up to which a handle is looked for after a step, in pixels; None for 3 of 128."""
    mask_weight: float = 1.0
    """Weight of the change of features where the mask holds them."""
    prior_weight: float = 0.0
    """Weight of the squared distance of w from its start, in standard deviations of w."""
    layers: str | None = None
    """Layers whose w changes, as `latentedit.latent.layers.parse_layers` takes them; None for the
    first six, which set shape and pose."""

    def __post_init__(self) -> None:
        if type(self.steps) is not int or not 0 <= self.steps <= MOST_STEPS:
            expected = f"a whole number from 0 to {MOST_STEPS}"
            raise ArgumentError.of("steps", expected, self.steps)
        for name in ("learning_rate", "mask_weight", "prior_weight"):
            check_number(name, getattr(self, name), 0)
        if self.motion_radius is not None:
            check_number("motion_radius", self.motion_radius, 0, 1000)
        if self.tracking_radius is not None:
            check_number("tracking_radius", self.tracking_radius, 1, 1000)


@dataclass(frozen=True)
class DragStep:
    """Where a drag is after a step."""

    number: int
    """0 is the start."""
    total: int
    """Steps at most."""
    ws: Tensor
    """``[1, num_ws, w_dim]`` on the CPU."""
    points: tuple[Point, ...]
    """Where the handles are."""
    distances: tuple[float, ...]
    """How far they are from their targets, in pixels."""

    @property
    def arrived(self) -> bool:
        """Whether all handles are within 2 pixels of their targets."""
        return self.farthest <= WITHIN

    @property
    def farthest(self) -> float:
        """How far the farthest handle is from its target, in pixels."""
        return max(self.distances)


@dataclass(frozen=True)
class Drag:
    """The result of a drag."""

    latent: Latent
    points: tuple[Point, ...]
    """Where the handles are."""
    distances: tuple[float, ...]
    """How far they are from their targets, in pixels."""
    steps: int
    """Number of the step that is kept: of all, the one whose farthest handle was nearest."""
    arrived: bool
    """Whether all handles are within 2 pixels of their targets."""


def drag(
    generator: Generator,
    latent: Latent,
    handles: Sequence[Handle],
    options: DragOptions | None = None,
    *,
    mask: Tensor | None = None,
    on_step: Callable[[DragStep], object] | None = None,
) -> Drag:
    """Move points of the image of ``latent`` to other places.

    The search is deterministic. Noise maps, a tuned generator and style offsets of the latent stay.

    Args:
        handles: points and their targets, in pixels of the generator's image.
        mask: ``[1, 1, H, W]``, 1 where the image may change and 0 where it is held; None holds
            nothing.
        on_step: called after every step; it may raise KeyboardInterrupt to end the drag with what
            was reached.

    Raises:
        Error: handles outside the image, a mask of another size, one that holds a handle, or a
            latent of another generator.
    """
    best: DragStep | None = None
    try:
        for step in drag_steps(generator, latent, handles, options, mask):
            best = nearer(best, step)
            if on_step is not None:
                on_step(step)
    except KeyboardInterrupt:
        if best is None:
            raise
    assert best is not None
    return finished(latent, handles, best)


def drag_steps(
    generator: Generator,
    latent: Latent,
    handles: Sequence[Handle],
    options: DragOptions | None = None,
    mask: Tensor | None = None,
    statistics: WStatistics | None = None,
) -> abc.Generator[DragStep, None, None]:
    """Yield the start and every step of a drag, until all handles arrive, 25 steps bring the
    farthest no nearer, or the steps are done.

    `nearer` says which step to keep. Whoever takes no further step has ended the drag; `finished`
    makes the latent of a step.

    Args:
        statistics: of the generator's w, if they are known already.

    Raises:
        Error: as `drag`; before the first step.
    """
    options = options or DragOptions()
    check_handles(handles, generator.image_size, mask)
    latent.check_shapes(generator)
    search = _Search(generator, latent, handles, options, mask, statistics)
    step = best = search.state(0)
    yield step
    for number in range(1, options.steps + 1):
        if step.arrived or number > best.number + PATIENCE:
            return
        search.move()
        search.track()
        step = search.state(number)
        if step.farthest < best.farthest:
            best = step
        yield step


def nearer(best: DragStep | None, step: DragStep) -> DragStep:
    """Return the step whose farthest handle is nearer to its target; ``step`` if both are alike.

    A drag that does not arrive may wander, so its last step need not be its best one.
    """
    return step if best is None or step.farthest <= best.farthest else best


def finished(latent: Latent, handles: Sequence[Handle], step: DragStep) -> Drag:
    """Return the result of a drag of ``latent`` that ended with ``step``."""
    edits = [f"drag {_text(handle.start)} to {_text(handle.target)}" for handle in handles]
    moved = replace(
        latent,
        ws=step.ws,
        space=space_of_latent(step.ws, latent.styles).name,
        settings={**latent.settings, "edits": [*latent.settings.get("edits", []), *edits]},
        # Both are of the image before.
        distances={},
        safe=None,
    )
    return Drag(moved, step.points, step.distances, step.number, step.arrived)


def _text(point: Point) -> str:
    return ",".join(f"{value:g}" for value in point)


def check_handles(
    handles: Sequence[Handle], size: tuple[int, int], mask: Tensor | None = None
) -> None:
    """Raise `Error` unless handles and mask fit an image of this height and width."""
    if not 1 <= len(handles) <= MOST_HANDLES:
        expected = f"from 1 to {MOST_HANDLES}"
        raise ArgumentError.of("the number of handles", expected, len(handles))
    height, width = size
    for handle in handles:
        for x, y in (handle.start, handle.target):
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                raise ArgumentError(
                    f"the point {_text((x, y))} lies outside the image, whose pixels are 0,0 to"
                    f" {width - 1},{height - 1}"
                )
    if mask is None:
        return

    shape = (1, 1, height, width)
    if tuple(mask.shape) != shape:
        raise ArgumentError.of_shape("mask", str(list(shape)), mask.shape)
    if not bool((mask > 0.5).any()):
        raise ArgumentError("the mask holds the whole image: nothing in it is white")
    for handle in handles:
        column, row = (round(value) for value in handle.start)
        if handle.start != handle.target and not bool(mask[0, 0, row, column] > 0.5):
            raise ArgumentError(
                f"the mask holds the point {_text(handle.start)}, which shall move; make it white"
                " there"
            )


def read_mask(path: str | os.PathLike[str], size: tuple[int, int]) -> Tensor:
    """Read a mask for images of this height and width, ``[1, 1, H, W]``: 1 where it is white, 0
    where it is black.

    Raises:
        Error: not an image, or of another size.
    """
    image = open_image(path)
    height, width = size
    if image.size != (width, height):
        raise IncompatibleError(
            f"a mask has the size of the image, {width} x {height}, and this one has"
            f" {image.width} x {image.height}",
            path=path,
            expected=(width, height),
            actual=image.size,
        )
    return (to_tensor(image.convert("L")) > 0).float()


def feature_side(sides: Sequence[int], resolution: int) -> int:
    """Return the resolution of the features that are compared: a quarter of the image's, from 32 to
    256 pixels, or the nearest that the network has."""
    wanted = min(max(resolution // FEATURES, COARSEST), FINEST, resolution)
    return min(sides, key=lambda side: (abs(math.log2(side / wanted)), side))


class _Search:
    """The state of a drag: how far w has moved, and where the handles are."""

    def __init__(
        self,
        generator: Generator,
        latent: Latent,
        handles: Sequence[Handle],
        options: DragOptions,
        mask: Tensor | None,
        statistics: WStatistics | None,
    ) -> None:
        statistics = statistics or WStatistics.of(generator)
        if latent.tuned:
            own = dict(generator.synthesis.named_parameters())
            generator = with_deltas(generator, expand_deltas(latent.tuned, own))
        self.generator = generator
        self.options = options
        self.device = generator.device
        height, width = generator.image_size
        self.side = feature_side(generator.synthesis.feature_sides, generator.resolution)
        self.size = torch.tensor([width, height], device=self.device)
        """Width and height of the image."""
        self.noise: Noise = "const"
        if latent.noise is not None:
            self.noise = [map_.to(self.device) for map_ in latent.noise]
        self.offsets = [offset.to(self.device) for offset in latent.styles]
        self.ws = latent.rows(generator.num_ws).to(self.device)  # [1, num_ws, w_dim]
        self.colouring = statistics.colouring.to(self.device)
        self.first, self.last = moved_layers(generator, options.layers)
        rows = self.last + 1 - self.first
        self.way = torch.zeros(1, rows, generator.w_dim, device=self.device)
        """How far w has moved from its start, in whitened coordinates."""
        self.speed = torch.zeros_like(self.way)

        self.starts = self._tensor([handle.start for handle in handles])  # [P, 2]
        self.targets = self._tensor([handle.target for handle in handles])
        self.points = self.starts.clone()
        pixel = generator.resolution
        self.around = _disc(options.motion_radius or MOTION * pixel).to(self.device)
        near = options.tracking_radius or max(TRACKING * pixel, 1.5)
        self.near = _disc(near).to(self.device)
        with torch.no_grad():
            self.before = self.features(self.ws)
            self.looks = F.normalize(self.at(self.before, self.starts), dim=1)  # [P, C]
            self.scale = self.before.abs().mean().clamp(min=1e-12)
        self.held = self._held(mask)
        self.leaf = self.way.clone().requires_grad_()
        self.now = self.features(self.moved(self.leaf))

    def _tensor(self, points: Sequence[Point]) -> Tensor:
        return torch.tensor(points, dtype=torch.float32, device=self.device)

    def _held(self, mask: Tensor | None) -> Tensor | None:
        """``[1, 1, h, w]``: how much of every feature is held, of sum 1; None for nothing."""
        if mask is None:
            return None
        size = self.before.shape[2:]
        held = 1 - F.interpolate(mask.to(self.device).float(), size=size, mode="area")
        total = held.sum()
        return held / total if bool(total > 0) else None

    def moved(self, way: Tensor) -> Tensor:
        """``[1, num_ws, w_dim]``."""
        middle = self.ws[:, self.first : self.last + 1] + way @ self.colouring
        return torch.cat([self.ws[:, : self.first], middle, self.ws[:, self.last + 1 :]], dim=1)

    def features(self, ws: Tensor) -> Tensor:
        """``[1, C, h, w]``."""
        synthesis = self.generator.synthesis
        styles = synthesis.styles(ws)
        if self.offsets:
            styles = [own + more for own, more in zip(styles, self.offsets, strict=True)]
        found: Tensor = synthesis.features(styles, self.side, self.noise)
        return found.float()

    def at(self, features: Tensor, points: Tensor) -> Tensor:
        """The features at ``points [P, 2]``, as if they were resized to the image: ``[P, C]``."""
        places = (points + 0.5) * (2 / self.size) - 1
        found = F.grid_sample(
            features, places[None, None], padding_mode="border", align_corners=False
        )
        return found[0, :, 0].t()

    def move(self) -> None:
        """Motion supervision: one step of w."""
        (gradient,) = torch.autograd.grad(self._loss(), self.leaf)
        if not bool(gradient.isfinite().all()):
            raise DivergedError(
                "the drag has reached values that are not finite", advice="try fewer `steps`"
            )
        # Layers share most of a step: what differs from layer to layer leaves the domain first.
        shared = gradient.mean(dim=1, keepdim=True)
        direction = shared + SPREAD * (gradient - shared)
        length = direction.norm() / math.sqrt(direction.shape[1])
        self.speed.mul_(MOMENTUM).add_(direction / length.clamp(min=1e-20), alpha=1 - MOMENTUM)
        self.way = self.way - self.options.learning_rate * self.speed
        self.leaf = self.way.clone().requires_grad_()
        self.now = self.features(self.moved(self.leaf))

    def _loss(self) -> Tensor:
        """Equation 1, with features in units of their mean magnitude."""
        loss = torch.zeros((), device=self.device)
        for start, point, target in zip(self.starts, self.points, self.targets, strict=True):
            left = target - point
            far = left.norm()
            step = left / far.clamp(min=1) if bool(far > 0) else left
            there = self.at(self.now, point + self.around + step)
            here = self.at(self.now.detach(), point + self.around)
            first = self.at(self.before, start + self.around)
            # The paper compares with the features of now alone, which drift as a handle moves.
            loss = loss + 0.5 * (there - here).abs().mean() + 0.5 * (there - first).abs().mean()
        loss = loss / self.scale
        if self.held is not None:
            change = (self.now - self.before).abs().mean(dim=1, keepdim=True)
            held = (change * self.held).sum() / self.scale
            loss = loss + self.options.mask_weight * held
        if self.options.prior_weight:
            loss = loss + self.options.prior_weight * self.leaf.square().sum(dim=2).mean()
        return loss

    @torch.no_grad()
    def track(self) -> None:
        """Point tracking: every handle to the place near by that looks most like its start."""
        most = self.size - 1
        for number, look in enumerate(self.looks):
            candidates = (self.points[number] + self.near).clamp(min=0).minimum(most)  # [K, 2]
            found = F.normalize(self.at(self.now, candidates), dim=1)
            unlike = (found - look).abs().sum(dim=1)
            self.points[number] = candidates[unlike.argmin()]

    def state(self, number: int) -> DragStep:
        points = self.points.tolist()
        distances = (self.targets - self.points).norm(dim=1).tolist()
        with torch.no_grad():
            ws = self.ws if number == 0 else self.moved(self.way)
        return DragStep(
            number,
            self.options.steps,
            ws.detach().cpu().clone(),
            tuple((x, y) for x, y in points),
            tuple(distances),
        )


def moved_layers(generator: Generator, layers: str | None) -> tuple[int, int]:
    """Return the first and the last layer whose w a drag changes.

    The first w of a StyleGAN3 turns and shifts its whole image, so it stays unless it is named.
    """
    if layers is not None:
        return parse_layers(layers, generator.num_ws)
    first = 1 if isinstance(generator.synthesis, AliasFreeSynthesis) else 0
    return first, min(first + LAYERS, generator.num_ws) - 1


def _disc(radius: float) -> Tensor:
    """Whole steps to all places within ``radius``, ``[K, 2]``, the nearest first."""
    most = math.floor(radius)
    axis = torch.arange(-most, most + 1, dtype=torch.float32)
    steps = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
    lengths = steps.norm(dim=1)
    order = lengths.argsort(stable=True)
    return steps[order][lengths[order] <= radius]
