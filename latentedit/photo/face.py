"""A face in a picture, and what is doubtful about it."""

from dataclasses import dataclass, field

from latentedit.photo.landmarks import Landmarks


@dataclass(frozen=True)
class Face:
    """A face in a picture, in pixels."""

    box: tuple[float, float, float, float]
    """left, top, width, height."""
    left_eye: tuple[float, float]
    """The eye at the viewer's left."""
    right_eye: tuple[float, float]
    eyes_found: bool
    """False where the eyes are taken from the box."""
    mouth: tuple[float, float] | None = None
    """Its centre, where the detector tells."""
    landmarks: Landmarks | None = field(default=None, compare=False, repr=False)
    """dlib's 68 points, ``[68, 2]``, where they are known."""
    doubts: tuple[str, ...] = ()
    """Why the crop around this face may be wrong; empty where nothing speaks against it."""
