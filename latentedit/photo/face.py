"""A face in an image, and doubts about it."""

from dataclasses import dataclass, field

from latentedit.photo.landmarks import Landmarks


@dataclass(frozen=True)
class DetectedFace:
    """A face in an image, in pixels."""

    box: tuple[float, float, float, float]
    """left, top, width, height."""
    left_eye: tuple[float, float]
    """The eye on the left as one looks at the face, and so on the left of an upright image."""
    right_eye: tuple[float, float]
    eyes_found: bool
    """False if the positions of the eyes are estimated from the box."""
    mouth: tuple[float, float] | None = None
    """The mouth's centre, if the detector finds it."""
    landmarks: Landmarks | None = field(default=None, compare=False, repr=False)
    """dlib's 68 landmarks, ``[68, 2]``, if known."""
    certain: bool = True
    """False if only one of several detectors sees the face, so that there may be none."""
    turned: int = 0
    """Degrees clockwise by which the image had to be turned for the face to be upright: 0, 90, 180
    or 270. All places are in the image as it is."""
    doubts: tuple[str, ...] = ()
    """Reasons why the crop around this face may be wrong; empty if there are none."""
