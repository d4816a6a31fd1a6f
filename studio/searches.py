"""A search for a photo's latent that shows its picture on the way, can be stopped, and keeps the
best."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from latentedit.errors import DataError
from latentedit.latent.latent_file import Latent
from latentedit.model.model import Model


@dataclass(frozen=True)
class SearchQuality:
    """A trade between an easy edit and a good likeness."""

    key: str
    title: str
    text: str
    space: str
    tuned: bool = False


QUALITIES = {
    quality.key: quality
    for quality in (
        SearchQuality(
            "edits",
            "Edits best",
            "Sliders do most and break least. The face may look like a relative. (W)",
            "w",
        ),
        SearchQuality("balanced", "Balanced", "A good likeness that still edits well. (W+)", "w+"),
        SearchQuality(
            "likeness",
            "Looks most like the photo",
            "The network is tuned to the photo. Takes longest. (W+, tuned)",
            "w+",
            True,
        ),
    )
}
STEPS = 100
TUNE_STEPS = 80
TUNE_RATE = 2e-3
SHOW = 0.15
"""Seconds between two pictures of the search."""


class StoppedError(KeyboardInterrupt):
    """The user has stopped the search; a search ends on it as on Ctrl-C and returns the best so
    far."""


@dataclass
class SearchProgress:
    """How far a search is."""

    phase: str = "Preparing"
    step: int = 0
    total: int = 0
    image: Tensor | None = None
    """What it draws now, ``[1, C, H, W]``."""
    began: float = field(default_factory=time.monotonic)
    left: float | None = None
    """Seconds until the end, by the pace so far; None while that is not known."""

    @property
    def share(self) -> float:
        return self.step / self.total if self.total else 0.0


class PhotoSearch:
    """Inverts one crop; `run` takes seconds to minutes and is called in a thread of its own.

    Args:
        target: the crop, ``[1, C, R, R]`` in [-1, 1].
        tell: called often with a `SearchProgress`.
        start: ws ``[1, num_ws, w_dim]`` to go on from; None begins with the encoder's, or at the
            mean.
    """

    def __init__(
        self,
        model: Model,
        target: Tensor,
        quality: SearchQuality,
        tell: Callable[[SearchProgress], None],
        *,
        start: Tensor | None = None,
        steps: int = STEPS,
    ) -> None:
        self.model = model
        self.target = target
        self.quality = quality
        self.tell = tell
        self.start = start
        self.steps = steps
        self.stopped = threading.Event()
        self._last = 0.0

    def stop(self) -> None:
        """End the search after its present step, with the best so far."""
        self.stopped.set()

    def run(self) -> Latent:
        """Search, and return the latent.

        Raises:
            Error: it was stopped before it had found anything, or the search failed.
        """
        from latentedit.inversion.options import InversionOptions
        from latentedit.inversion.pivotal_tuning import TuningOptions
        from latentedit.inversion.preconditioner import PROBES
        from latentedit.inversion.projector import Projector, SearchStep

        quality = self.quality
        self.tell(SearchProgress())
        projector = Projector(self.model)
        pace = _Pace("Measuring the model, once", PROBES)
        projector.curvature(progress=lambda done: self._report(pace.at(done, PROBES)))
        if self.stopped.is_set():
            raise DataError("the search was stopped before it had begun")

        extra = TUNE_STEPS * 2.2 if quality.tuned else 0.0
        searching = _Pace("Searching", self.steps, extra)

        def show(step: SearchStep) -> None:
            self._report(replace(searching.at(step.number, step.total), image=step.images))
            if self.stopped.is_set():
                step.stop()

        options = InversionOptions(
            space=quality.space,
            steps=self.steps,
            noise="frozen" if quality.tuned else "optimise",
        )
        result = projector.invert(self.target, options, start=self.start, on_step=show)
        latent = result.latent()
        if not quality.tuned or self.stopped.is_set():
            return latent

        tuning_pace = _Pace("Tuning the network to the photo", TUNE_STEPS)

        def tuned(step: int, total: int, _: dict[str, float]) -> None:
            self._report(replace(tuning_pace.at(step, total), image=result.image))
            if self.stopped.is_set():
                raise StoppedError

        try:
            chosen = TuningOptions(TUNE_STEPS, learning_rate=TUNE_RATE)
            tuning = projector.tune(self.target, result.ws, result.noise, chosen, tuned)
        except StoppedError:
            return latent

        tuning.put_into(latent)
        return latent

    def _report(self, progress: SearchProgress) -> None:
        now = time.monotonic()
        if now - self._last >= SHOW or progress.step >= progress.total:
            self._last = now
            self.tell(progress)


class _Pace:
    """Says how long a phase still takes, by the time of its steps so far."""

    def __init__(self, phase: str, total: int, extra: float = 0.0) -> None:
        self.phase = phase
        self.total = total
        self.extra = extra
        self.began = time.monotonic()

    def at(self, step: int, total: int) -> SearchProgress:
        left = None
        if step >= 2:
            left = (time.monotonic() - self.began) / step * (total - step + self.extra)
        return SearchProgress(self.phase, step, total, began=self.began, left=left)
