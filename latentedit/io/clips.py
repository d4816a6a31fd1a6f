"""Clips: the frames of a video, of an animated image, or of a folder of images, one at a time."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from PIL import Image

from latentedit.errors import FormatError, NotFoundError
from latentedit.io.folders import listing
from latentedit.io.images import EXTENSIONS, check_size, open_image, opened
from latentedit.io.video import quiet

FPS = 24.0
"""Of a folder of images."""
MOST_FRAMES = 100_000
CONTAINERS = (
    (4, b"ftyp"),  # .mp4, .m4v, .mov
    (0, b"\x1a\x45\xdf\xa3"),  # .webm, .mkv
    (8, b"AVI "),
)
"""Where videos say what they are. Others, such as playlists, could name further files, and are not
opened."""


@dataclass(frozen=True)
class Clip:
    """Frames that can be read again and again, all of one size."""

    path: Path
    fps: float
    _images: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[Image.Image]:
        """Yield the frames, upright "RGB", one at a time.

        Raises:
            Error: damaged, frames of different sizes, or more than `MOST_FRAMES`.
        """
        size = None
        for number, frame in enumerate(self._frames()):
            if number == MOST_FRAMES:
                raise FormatError(f"has more than {MOST_FRAMES} frames", path=self.path)
            if frame.size != (size or frame.size):
                raise FormatError("its frames have different sizes", path=self.path)
            size = frame.size
            yield frame.convert("RGB")
        if size is None:
            raise FormatError("has no frames that can be read", path=self.path)

    def _frames(self) -> Iterator[Image.Image]:
        if self._images:
            yield from (open_image(path) for path in self._images)
        elif _is_video(self.path):
            yield from _of_video(self.path)
        else:
            yield from _of_animation(self.path)


def open_clip(path: str | os.PathLike[str]) -> Clip:
    """Open a video, an animated image, or a folder of images, sorted by the numbers in their names.

    Raises:
        Error: no such file or folder, no images in it, or not a video.
    """
    place = Path(path)
    if place.is_dir():
        images = sorted(listing(place, EXTENSIONS).files, key=_natural)
        if not images:
            raise NotFoundError("no images in this folder", path=place)
        return Clip(place, FPS, tuple(images))
    if not place.is_file():
        raise NotFoundError("no such file or folder", path=place)
    if _is_video(place):
        capture = _capture(place)
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
        return Clip(place, fps if 1 <= fps <= 240 else FPS)
    with opened(place, str(place)) as file:
        duration = float(file.info.get("duration") or 1000 / FPS)
    return Clip(place, min(max(1000 / max(duration, 1), 1), 240))


def _natural(path: Path) -> list[Any]:
    """ "frame10" comes after "frame9"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def _is_video(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(16)
    return any(start[place : place + len(mark)] == mark for place, mark in CONTAINERS)


def _capture(path: Path) -> Any:
    # Nothing but this file is read.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file")
    quiet()
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise FormatError("a video that OpenCV cannot read", path=path)
    return capture


def _of_video(path: Path) -> Iterator[Image.Image]:
    capture = _capture(path)
    try:
        check_size(
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            str(path),
        )
        while True:
            good, frame = capture.read()
            if not good:
                return
            yield Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()


def _of_animation(path: Path) -> Iterator[Image.Image]:
    with opened(path, str(path)) as file:
        for number in range(getattr(file, "n_frames", 1)):
            file.seek(number)
            yield open_image(file.copy(), name=str(path))
