"""The options that say which part of a photo is inverted."""

import os
from dataclasses import dataclass

FileName = str | os.PathLike[str]


@dataclass(frozen=True)
class Cropping:
    """Which crops of a photo are inverted; the fields are the options of `latentedit invert`, as
    texts."""

    crop: str | None = None
    """"LEFT,TOP,SIZE" in pixels; None for the face."""
    aligned: bool = False
    """Whether the photos are crops already."""
    face: str = "1"
    """Number of the face, 1 for the largest, or "all"."""
    landmarks: str | None = None
    """Centres of the eyes and the mouth in pixels, instead of finding a face."""
    face_detector: FileName | None = None
    """YuNet model that finds faces."""

    @property
    def in_pixels(self) -> bool:
        """Whether positions are given in pixels of the photo as it is, so that it must not be
        reduced when it is opened."""
        return self.crop is not None or self.landmarks is not None
