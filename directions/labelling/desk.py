"""What a page of labels asks for and answers, one request at a time; every answer is on the disk
before it is confirmed."""

import threading
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from latentedit.directions.labelling.session import VALUES, Labelling, Sample
from latentedit.errors import ArgumentError, NotFoundError
from latentedit.io.images import open_image

LARGEST = 1024
EXACT = 256
"""Pixels of the longer side of a picture that is sent, and up to which it is sent without loss."""


class Desk:
    """A labelling that several threads may ask; samples are numbers, and no path that a request
    names is ever opened."""

    def __init__(self, labelling: Labelling) -> None:
        self.labelling = labelling
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """Return what a page shows: the question, the picture to fetch beforehand, and how far it
        is."""
        with self._lock:
            return self._state()

    def answer(self, sample: object, value: object) -> dict[str, Any]:
        """Write an answer, and return the state after it.

        Raises:
            Error: no such sample or value, or the table cannot be written.
        """
        found = self._sample(sample)
        if not isinstance(value, str) or value not in VALUES:
            raise ArgumentError('the value of an answer is "1", "0" or ""')
        with self._lock:
            self.labelling.answer(found.file, value)
            return self._state()

    def undo(self) -> dict[str, Any]:
        """Take the last answer back, and return the state after it; raise `Error` if the table
        cannot be written."""
        with self._lock:
            self.labelling.undo()
            return self._state()

    def picture(self, sample: object) -> tuple[str, bytes]:
        """Return media type and bytes of a sample's picture; raise `Error` if there is none."""
        return for_browser(self._sample(sample).picture)

    def settled(self) -> None:
        """Wait for an answer that is being written."""
        with self._lock:
            pass

    def _sample(self, number: object) -> Sample:
        text = str(number)
        samples = self.labelling.samples
        if isinstance(number, bool | float):
            raise NotFoundError("no such sample")
        if not (text.isascii() and text.isdecimal() and len(text) < 10) or int(text) >= len(
            samples
        ):
            raise NotFoundError("no such sample")
        return samples[int(text)]

    def _state(self) -> dict[str, Any]:
        labelling = self.labelling
        progress = labelling.progress()
        upcoming = labelling.upcoming(2)
        numbers = [sample.number for sample in upcoming] + [None, None]
        return {
            "column": labelling.column,
            "number": numbers[0],
            "following": numbers[1],
            "file": upcoming[0].file if upcoming else None,
            "yes": progress.yes,
            "no": progress.no,
            "left": progress.left,
            "auc": progress.auc,
            "can_undo": labelling.can_undo,
        }


def for_browser(path: Path) -> tuple[str, bytes]:
    """Return media type and bytes of a picture for a browser: upright, at most 1024 pixels on a
    side, without metadata.

    Raises:
        Error: not a picture.
    """
    image = open_image(path)
    buffer = BytesIO()
    image.info.clear()
    if max(image.size) <= EXACT:
        image.save(buffer, "PNG")
        return "image/png", buffer.getvalue()
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=92)
    return "image/jpeg", buffer.getvalue()
