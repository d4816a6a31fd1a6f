"""Moving pictures: a search, or a slider, as .mp4, .webm or .gif."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from latentedit.errors import ArgumentError, OutputError
from latentedit.io.files import VIDEOS, replacing
from latentedit.io.images import EDITED, check_picture, opaque, to_pil

ENDINGS = VIDEOS
OLD = (
    "written as MPEG-4 part 2, which browsers may not play; pip install 'latentedit[video]' writes "
    "H.264, or take .webm or .gif"
)
LEAST = 256
"""Smaller pictures are enlarged by a whole factor to at least this side."""


def save_video(
    path: str | os.PathLike[str],
    pictures: Iterable[Tensor | Image.Image],
    fps: float = 24.0,
    *,
    repeat: bool = True,
) -> str | None:
    """Write ``pictures``, all of one size, as a video; they are taken one by one, so that any
    number of them can be written.

    .mp4 is written as H.264 where PyAV is installed (``pip install 'latentedit[video]'``), which
    browsers play, else by OpenCV as MPEG-4 part 2, which they may not; .webm as VP8 and .gif
    everywhere.

    Args:
        pictures: PIL images, or tensors ``[C, H, W]`` or ``[1, C, H, W]`` in [-1, 1].
        fps: pictures a second; a .gif has whole hundredths of a second, which are distributed so
            that the sum is right.
        repeat: whether a .gif begins anew at its end; the other formats leave this to the player.

    Returns:
        What the user should know of the file; None where it plays everywhere.

    Raises:
        Error: another ending, no pictures, or the file cannot be written; of a .gif as
            `latentedit.io.images.check_picture`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in ENDINGS:
        raise ArgumentError(f"the name of a video must end in {' or '.join(ENDINGS)}", path=path)

    if suffix == ".gif":
        check_picture(path)

    frames = _frames(pictures, path)
    first = next(frames, None)
    if first is None:
        raise ArgumentError("there are no images for a video", path=path)

    everything = itertools.chain([first], frames)

    with replacing(path) as temporary:
        if suffix == ".gif":
            timed = _timed(everything, fps)
            said = {"comment": EDITED.encode(), **({"loop": 0} if repeat else {})}
            next(timed).save(temporary, "GIF", save_all=True, append_images=timed, **said)
        elif suffix == ".webm":
            _by_opencv(temporary, everything, fps, "VP80", first.size)
        elif not _by_pyav(temporary, everything, fps, first.size):
            _by_opencv(temporary, everything, fps, "mp4v", first.size)
            return OLD

    return None


def quiet() -> None:
    """Keep OpenCV and FFmpeg from printing what they think of a video; errors here say it."""
    # FFmpeg reads this when the first video of a process is opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    levels = cv2.utils.logging
    levels.setLogLevel(levels.LOG_LEVEL_SILENT)


def there_and_back(pictures: Sequence[Tensor]) -> list[Tensor]:
    """Return ``pictures`` forwards and then backwards, so that the video can be repeated without a
    jump."""
    return [*pictures, *reversed(pictures[1:-1])]


def _frames(
    pictures: Iterable[Tensor | Image.Image], path: str | os.PathLike[str]
) -> Iterator[Image.Image]:
    size = None
    for picture in pictures:
        frame = _frame(picture)
        if frame.size != (size or frame.size):
            raise ArgumentError("all images of a video must have the same size", path=path)
        size = frame.size
        yield frame


def _frame(picture: Tensor | Image.Image) -> Image.Image:
    image = to_pil(picture) if isinstance(picture, Tensor) else picture
    image = opaque(image).convert("RGB")
    factor = -(-LEAST // min(image.size))
    width = image.width * factor
    height = image.height * factor
    return image.resize((width, height), Image.Resampling.BICUBIC) if factor > 1 else image


def _timed(frames: Iterable[Image.Image], fps: float) -> Iterator[Image.Image]:
    """Give every frame its milliseconds; players take less than two hundredths of a second for
    ten."""
    for number, frame in enumerate(frames):
        hundredths = round(100 * (number + 1) / fps) - round(100 * number / fps)
        frame.info["duration"] = 10 * max(hundredths, 2)
        yield frame


def _by_pyav(path: Path, frames: Iterable[Image.Image], fps: float, size: tuple[int, int]) -> bool:
    try:
        import av
    except ImportError:
        return False

    container: Any = av.open(os.fspath(path), "w")
    try:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = (side // 2 * 2 for side in size)  # H.264 wants even sides
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18"}
        for frame in frames:
            picture = av.VideoFrame.from_image(frame.crop((0, 0, stream.width, stream.height)))
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    finally:
        container.close()

    return True


def _by_opencv(
    path: Path, frames: Iterable[Image.Image], fps: float, codec: str, size: tuple[int, int]
) -> None:
    quiet()
    fourcc = cv2.VideoWriter_fourcc(*codec)  # type: ignore[attr-defined]
    writer = cv2.VideoWriter(os.fspath(path), fourcc, fps, size)
    if not writer.isOpened():
        raise OutputError("OpenCV cannot write videos here; use .gif", path=path)
    try:
        for frame in frames:
            writer.write(np.ascontiguousarray(np.asarray(frame)[:, :, ::-1]))
    finally:
        writer.release()
