"""Moving pictures: a search, or a slider, as .mp4, .webm or .gif."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from latentedit.errors import ArgumentError, OutputError
from latentedit.io.files import replacing
from latentedit.io.images import EDITED, check_picture, to_pil

ENDINGS = (".mp4", ".webm", ".gif")
OLD = (
    "written as MPEG-4 part 2, which browsers may not play; pip install 'latentedit[video]' writes "
    "H.264, or take .webm or .gif"
)
LEAST = 256
"""Smaller pictures are enlarged by a whole factor to at least this side."""


def save_video(
    path: str | os.PathLike[str], pictures: Iterable[Tensor], fps: float = 24.0
) -> str | None:
    """Write ``pictures``, each ``[C, H, W]`` or ``[1, C, H, W]`` in [-1, 1] and all of one size, as
    a video.

    .mp4 is written as H.264 where PyAV is installed (``pip install 'latentedit[video]'``), which
    browsers play, else by OpenCV as MPEG-4 part 2, which they may not; .webm as VP8 and .gif
    everywhere.

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

    frames = [_frame(picture) for picture in pictures]
    if not frames:
        raise ArgumentError("there are no images for a video", path=path)
    if len({frame.size for frame in frames}) > 1:
        raise ArgumentError("all images of a video must have the same size", path=path)

    with replacing(path) as temporary:
        if suffix == ".gif":
            said = {"duration": round(1000 / fps), "loop": 0, "comment": EDITED.encode()}
            frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], **said)
        elif suffix == ".webm":
            _by_opencv(temporary, frames, fps, "VP80")
        elif not _by_pyav(temporary, frames, fps):
            _by_opencv(temporary, frames, fps, "mp4v")
            return OLD

    return None


def there_and_back(pictures: Sequence[Tensor]) -> list[Tensor]:
    """``pictures`` forwards and then backwards, so that the video can be repeated without a
    jump."""
    return [*pictures, *reversed(pictures[1:-1])]


def _frame(picture: Tensor) -> Image.Image:
    image = to_pil(picture).convert("RGB")
    factor = -(-LEAST // min(image.size))
    width = image.width * factor
    height = image.height * factor
    return image.resize((width, height), Image.Resampling.BICUBIC) if factor > 1 else image


def _by_pyav(path: Path, frames: list[Image.Image], fps: float) -> bool:
    try:
        import av
    except ImportError:
        return False

    container: Any = av.open(os.fspath(path), "w")
    try:
        stream = container.add_stream("libx264", rate=round(fps))
        # H.264 wants even sides
        stream.width, stream.height = (side // 2 * 2 for side in frames[0].size)
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


def _by_opencv(path: Path, frames: list[Image.Image], fps: float, codec: str) -> None:
    fourcc = cv2.VideoWriter_fourcc(*codec)  # type: ignore[attr-defined]
    writer = cv2.VideoWriter(os.fspath(path), fourcc, fps, frames[0].size)
    if not writer.isOpened():
        raise OutputError("OpenCV cannot write videos here; use .gif", path=path)
    for frame in frames:
        writer.write(np.ascontiguousarray(np.asarray(frame)[:, :, ::-1]))
    writer.release()
