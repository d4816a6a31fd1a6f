"""A drag in the studio: points and a mask from the page, the image on the way, and the face that
comes of it."""

import base64
import binascii
import io
import shlex
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentedit.directions.face_drag import face_drag, goes_by_landmarks, guide_for
from latentedit.errors import ArgumentError
from latentedit.io.images import to_pil
from latentedit.latent.dragging import DragOptions, DragStep, Handle, drag_steps, finished, nearer
from latentedit.latent.latent_file import Latent
from latentedit.latent.w_statistics import WStatistics
from latentedit.model.bundled import bundled_with
from latentedit.studio.open_face import OpenFace
from latentedit.studio.painter import as_jpeg
from latentedit.studio.saving import short
from latentedit.studio.session import Session

SHOW = 0.15
"""Seconds between two images of the way."""
MOST_HANDLES = 20
MOST_STEPS = 1000


@dataclass(frozen=True)
class Progress:
    """Where a drag is."""

    image: bytes
    step: DragStep


class Dragging:
    """Drags the face of a session; one at a time."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.progress: Progress | None = None
        self.command = ""
        """The command line that does what was done last."""
        self._stop = threading.Event()
        self._statistics: WStatistics | None = None

    @property
    def running(self) -> bool:
        return self.session.dragging

    def stop(self) -> None:
        """End the drag after its present step; where the points are then counts."""
        self._stop.set()

    def run(self, handles: Sequence[Handle], mask: Tensor | None, steps: int) -> OpenFace | None:
        """Drag the face, as its sliders have it, and open what comes of it; takes seconds to
        minutes.

        Args:
            mask: ``[1, 1, resolution, resolution]``, 1 for what may change; None for everything.

        Raises:
            Error: no face is open, a drag or a search runs, or points that cannot be dragged.
        """
        session = self.session
        face = session.face
        latent = session.edited()
        assert face is not None
        options = DragOptions(steps=steps)
        self._stop.clear()
        session.begin_drag()
        try:
            moves = self._steps(latent, handles, options, mask)
            best = self._watched(latent, moves)
            if best is None or session.closed:
                return None
            result = finished(latent, handles, best)
            self.command = self._command(face, handles, mask, steps)
            made = session.show(result.latent, face.name, f"{face.name}, dragged", photo=face.photo)
        finally:
            session.end_drag()
        return made

    def _steps(
        self, latent: Latent, handles: Sequence[Handle], options: DragOptions, mask: Tensor | None
    ) -> Any:
        """Return the steps of a drag: by the landmarks of the face where there is one and nothing
        is held by a mask, else by features."""
        generator = self.session.model.generator
        guide = guide_for(generator) if goes_by_landmarks(options, mask) else None
        moves = None
        if guide is not None:
            moves = face_drag(generator, latent, handles, guide, options.steps)
        if moves is not None:
            return moves
        if self._statistics is None:
            self._statistics = WStatistics.of(generator)
        return drag_steps(generator, latent, handles, options, mask, self._statistics)

    def _watched(self, latent: Latent, moves: Any) -> DragStep | None:
        """Return the best step of ``moves``, and show the image of some on the way and of that
        one."""
        session = self.session
        best: DragStep | None = None
        shown = 0.0
        with closing(moves):
            for step in moves:
                best = nearer(best, step)
                now = time.monotonic()
                if now - shown >= SHOW or step.arrived or step.number == step.total:
                    shown = now
                    self._show(latent, step)
                if self._stop.is_set() or session.closed:
                    break
        shown_last = self.progress.step if self.progress is not None else None
        if best is not None and best is not shown_last and not session.closed:
            self._show(latent, best)
        return best

    def _show(self, latent: Latent, step: DragStep) -> None:
        image = as_jpeg(self.session.render(replace(latent, ws=step.ws)))
        self.progress = Progress(image, step)
        self.session.tell("drag")

    def _command(
        self, face: OpenFace, handles: Sequence[Handle], mask: Tensor | None, steps: int
    ) -> str:
        """Return the command line that drags the same points of the same face; a face that is in
        no file, or moved by sliders, is written for it."""
        session = self.session
        source = face.file
        if source is None or any(setting.amount for setting in session.state.settings.values()):
            key = session.keeper.add(session.edited())
            source = session.keeper.latent_file(key)
        words = ["latentedit", "drag", short(source)]
        if bundled_with(session.fingerprint) is None:
            words += ["--model", session.model_name]
        for handle in handles:
            words += ["--from", _text(handle.start), "--to", _text(handle.target)]
        if mask is not None:
            words += ["--mask", short(self._kept_mask(mask))]
        return shlex.join([*words, "--steps", str(steps), "--out", "dragged.png"])

    def _kept_mask(self, mask: Tensor) -> Path:
        data = io.BytesIO()
        to_pil(mask * 2 - 1).save(data, "PNG")
        return self.session.keeper.add_upload(data.getvalue(), ".png")


def _text(point: tuple[float, float]) -> str:
    return ",".join(f"{value:g}" for value in point)


def handles_of(facts: Any) -> list[Handle]:
    """Return the points that the page sent, ``[[x, y, x, y], ...]``.

    Raises:
        Error: anything else.
    """
    if not isinstance(facts, list) or not 1 <= len(facts) <= MOST_HANDLES:
        raise ArgumentError(f"set one to {MOST_HANDLES} points, and a target for each")
    found = []
    for pair in facts:
        if not isinstance(pair, list) or len(pair) != 4:
            raise ArgumentError("a point needs a target")
        try:
            x, y, to_x, to_y = (float(value) for value in pair)
        except (TypeError, ValueError) as error:
            raise ArgumentError("a point needs a target") from error
        found.append(Handle((x, y), (to_x, to_y)))
    return found


def mask_of(facts: Any, resolution: int) -> Tensor | None:
    """Return the mask that the page sent as base64 of one bit a pixel:
    ``[1, 1, resolution, resolution]``.

    Raises:
        Error: anything else.
    """
    if not facts:
        return None
    count = resolution * resolution
    try:
        data = base64.b64decode(str(facts)[:count], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ArgumentError("the mask could not be read; paint it again") from error
    if len(data) != (count + 7) // 8:
        raise ArgumentError("the mask has another size than the image; paint it again")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count)
    return torch.from_numpy(bits.astype(np.float32)).reshape(1, 1, resolution, resolution)
