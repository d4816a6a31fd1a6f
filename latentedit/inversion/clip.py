"""Inversion of the frames of a clip, such that neighbours get similar latents."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from statistics import fmean

from torch import Tensor

from latentedit.errors import ArgumentError
from latentedit.inversion.options import InversionOptions
from latentedit.inversion.projector import Projector
from latentedit.inversion.result import Inversion
from latentedit.latent.w_statistics import WStatistics

LATER_STEPS = 30
"""Steps of every frame but the first."""


@dataclass(frozen=True)
class ClipOptions:
    """How the frames of a clip are inverted.

    Raises:
        Error: fewer than one step.
    """

    inversion: InversionOptions = field(default_factory=lambda: InversionOptions(noise="frozen"))
    """Of the first frame. Its ``neighbour_weight`` keeps every other frame near the one before.

    Noise maps are not searched by default: those of neighbours would have nothing in common, and
    flicker."""
    later_steps: int = LATER_STEPS
    """Steps of every other frame, whose search starts from the answer of the one before."""
    linked: bool = True
    """Whether frames know their neighbours; without, every frame is inverted alone."""

    def __post_init__(self) -> None:
        if self.later_steps < 1:
            raise ArgumentError.of("later_steps", "at least 1", self.later_steps)


def invert_clip(
    projector: Projector,
    frames: Iterable[Tensor],
    options: ClipOptions | None = None,
    on_frame: Callable[[int], object] | None = None,
) -> Iterator[Inversion]:
    """Yield the inversion of every frame, ``[1, C, resolution, resolution]`` in [-1, 1], in turn.

    The search of a frame starts from the answer of the frame before, and its loss has the squared
    Mahalanobis distance from that answer as another prior, so that w changes only as far as the
    picture asks for it.

    Args:
        on_frame: called with the number of frames done after each.

    Raises:
        Error: as `latentedit.Projector.invert`.
    """
    options = options or ClipOptions()
    before: Tensor | None = None
    for number, frame in enumerate(frames, 1):
        search = options.inversion
        if before is not None:
            search = replace(search, steps=options.later_steps, restarts=0)
        found = projector.invert(frame, search, start=before, neighbour=before)
        if options.linked and not found.interrupted:
            before = found.ws
        yield found
        if on_frame is not None:
            on_frame(number)
        if found.interrupted:
            return


@dataclass
class TemporalChange:
    """How much neighbouring frames differ."""

    statistics: WStatistics
    of_w: list[float] = field(default_factory=list)
    """Mahalanobis distance of the w of two neighbours, divided by sqrt(w_dim), mean over the
    layers; about 1.4 for two random w."""
    of_pixels: list[float] = field(default_factory=list)
    """Mean absolute difference of their pixels, from 0 to 1."""
    _before: tuple[Tensor, Tensor] | None = None

    def add(self, ws: Tensor, image: Tensor) -> None:
        """Take the next frame: ``ws [1, num_ws, w_dim]`` and ``image [1, C, H, W]`` in [-1, 1]."""
        now = ws.cpu() @ self.statistics.whitening, image.cpu().clamp(-1, 1)
        if self._before is not None:
            step = (now[0] - self._before[0]).square().mean(dim=2).sqrt().mean()
            self.of_w.append(float(step))
            self.of_pixels.append(float((now[1] - self._before[1]).abs().mean() / 2))
        self._before = now

    @property
    def means(self) -> tuple[float, float]:
        """The means over all neighbours of both.

        Raises:
            Error: fewer than two frames.
        """
        if not self.of_w:
            raise ArgumentError("the change between frames needs at least 2 frames")
        return fmean(self.of_w), fmean(self.of_pixels)
