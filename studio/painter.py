"""From a latent and where the sliders stand to a picture, and the queue that draws only the newest
position."""

import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor

from latentedit.directions.sweeps import check_holdable, move_latent
from latentedit.errors import NotFoundError
from latentedit.io.images import to_pil
from latentedit.latent.deltas import expand_deltas, with_deltas
from latentedit.latent.editing import edit_holding
from latentedit.latent.latent_file import Latent, render
from latentedit.networks.generator import Generator
from latentedit.networks.noise import Noise
from latentedit.studio.history import State
from latentedit.studio.sliders import Slider

J = TypeVar("J")


def with_sliders(
    generator: Generator, latent: Latent, state: State, sliders: Mapping[str, Slider]
) -> Latent:
    """Return ``latent`` with every slider where ``state`` has it; locked scores stay, as with
    ``edit --hold``.

    Raises:
        Error: a slider that there is not, or directions that cannot be moved and held together.
    """
    steps = []
    for name, setting in state.settings.items():
        if name not in sliders:
            raise NotFoundError(f"there is no slider {name!r} for this model")
        if setting.amount:
            steps.append((sliders[name].direction, setting.amount, setting.layers))

    held = [sliders[name].direction for name in sorted(state.locks) if name in sliders]
    if not held or not steps:
        for direction, amount, layers in steps:
            latent = move_latent(generator, latent, direction, amount, layers)
        return latent

    check_holdable([*(direction for direction, *_ in steps), *held])
    moving = {direction.name for direction, *_ in steps}
    still = [direction for direction in held if direction.name not in moving]
    return replace(latent, ws=edit_holding(latent.ws, steps, still))


class Painter:
    """Draws the latents of one generator, and keeps the tuned copy that the last one needed."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self._lock = threading.Lock()
        self._tuned: tuple[dict[str, Tensor], Generator] | None = None

    @torch.no_grad()
    def paint(self, latent: Latent) -> Tensor:
        """Return the picture ``[1, C, H, W]`` in [-1, 1], equal to that of `Latent.render`."""
        generator = self._of(latent)
        device = generator.device
        noise: Noise = (
            "const" if latent.noise is None else [map_.to(device) for map_ in latent.noise]
        )
        offsets = [offset.to(device) for offset in latent.styles]
        return render(generator, latent.rows(generator.num_ws).to(device), noise, offsets)

    def _of(self, latent: Latent) -> Generator:
        """Return the generator, tuned as ``latent`` asks; the copy is made once per tuning."""
        if not latent.tuned:
            return self.generator
        with self._lock:
            if self._tuned is None or self._tuned[0] is not latent.tuned:
                deltas = expand_deltas(
                    latent.tuned, dict(self.generator.synthesis.named_parameters())
                )
                self._tuned = latent.tuned, with_deltas(self.generator, deltas)
            return self._tuned[1]


def scores(generator: Generator, latent: Latent, sliders: Mapping[str, Slider]) -> dict[str, float]:
    """Return the score of ``latent`` under every slider, in sigmas."""
    return {
        name: float(slider.direction.score(latent.ws, generator, latent.styles)[0])
        / slider.direction.sigma
        for name, slider in sliders.items()
    }


def as_jpeg(image: Tensor | Image.Image, *, quality: int = 93) -> bytes:
    """Return a picture as JPEG for the page, without metadata and without thinned colours."""
    picture = to_pil(image) if isinstance(image, Tensor) else image
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


@dataclass
class _Waiting(Generic[J]):
    job: J


class Newest(Generic[J]):
    """A thread that works on the newest job: one that a newer one overtakes before its turn is
    dropped."""

    def __init__(self, work: Callable[[J], None], name: str = "painter") -> None:
        self.done = self.dropped = 0
        self._work = work
        self._waiting: _Waiting[J] | None = None
        self._closed = self._busy = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, job: J) -> None:
        """Ask for ``job`` instead of whatever waits."""
        with self._changed:
            if self._waiting is not None:
                self.dropped += 1
            self._waiting = _Waiting(job)
            self._changed.notify_all()

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait until nothing is left to do; return whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting is None and not self._busy, timeout)

    def close(self) -> None:
        """Let the thread end after the job that it is at."""
        with self._changed:
            self._closed = True
            self._waiting = None
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(10)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._closed or self._waiting is None:
                    return

                job = self._waiting.job
                self._waiting = None
                self._busy = True
            self._work(job)
            self.done += 1
