"""The crop of a face in the frames of a clip: found in each of them, filled in where it is not
seen, and smoothed over time."""

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from latentedit.errors import NotFoundError
from latentedit.photo.alignment import Quad, faces_for, nth_face, quad_from_face
from latentedit.photo.faces import find_faces

SMOOTHING = 2.0
"""Standard deviation of the smoothing of crops over time, in frames."""
NEAR = 0.7
"""Largest distance of the same face between frames, in sides of its crop."""
LEAST_SEEN = 0.5
"""Share of the frames in which the face must be found."""


def squares(quads: Sequence[Quad]) -> Any:
    """Return centre x and y, log of the side in pixels, and angle in radians of every crop:
    ``[T, 4]``.

    Angles have no jumps of whole turns between frames.
    """
    corners = np.array(quads, dtype=np.float64)  # [T, 4, 2]
    centres = corners.mean(axis=1)
    across = corners[:, 1] - corners[:, 0]
    side = np.log(np.hypot(across[:, 0], across[:, 1]))
    angle = np.unwrap(np.arctan2(across[:, 1], across[:, 0]))
    return np.column_stack([centres, side, angle])


def quad_of_square(square: Sequence[float]) -> Quad:
    """The inverse of `squares` for one crop."""
    x, y, side, angle = (float(number) for number in square)
    half = math.exp(side) / 2 * complex(math.cos(angle), math.sin(angle))
    corners = [complex(x, y) + half * turn for turn in (-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j)]
    return [[corner.real, corner.imag] for corner in corners]


def steady(quads: Sequence[Quad | None], smoothing: float = SMOOTHING) -> list[Quad]:
    """Fill in the crops of frames without one, linearly in time, and smooth position, size and
    angle.

    Args:
        smoothing: standard deviation of the Gaussian in frames; 0 for none.

    Raises:
        Error: too few frames have a crop.
    """
    from scipy.ndimage import gaussian_filter1d

    seen = [number for number, quad in enumerate(quads) if quad is not None]
    if len(seen) < max(LEAST_SEEN * len(quads), 1):
        raise NotFoundError(
            f"the face was found in {len(seen)} of {len(quads)} frames; half of them are needed",
            advice="give the square around it with `crop=X,Y,SIZE`",
        )
    known = squares([quad for quad in quads if quad is not None])
    times = np.arange(len(quads))
    filled = np.column_stack([np.interp(times, seen, column) for column in known.T])
    if smoothing > 0:
        filled = gaussian_filter1d(filled, smoothing, axis=0, mode="nearest")
    return [quad_of_square(square) for square in filled]


def track_face(
    frames: Iterable[Image.Image],
    framing: dict[str, Any] | None,
    *,
    number: int = 1,
    detector: str | os.PathLike[str] | None = None,
    name: str = "clip",
) -> Iterable[Quad | None]:
    """Yield the crop around the same face in every frame; None where it is not found.

    In the first frame it is face ``number``, the largest being 1; then the one nearest to the last
    crop.

    Raises:
        Error: the framing does not define the position of faces, or the first frame has no such
            face.
    """
    before: Any = None
    for frame in frames:
        if before is None:
            faces = faces_for(frame, framing, name, detector=detector)
            found: Quad | None = quad_from_face(nth_face(faces, number, name), framing or {})
        else:
            crops = [quad_from_face(face, framing or {}) for face in find_faces(frame, detector)]
            found = _nearest(crops, before)
        if found is not None:
            before = squares([found])[0]
        yield found


def _nearest(crops: Sequence[Quad], before: Any) -> Quad | None:
    away = [float(np.hypot(*(squares([crop])[0][:2] - before[:2]))) for crop in crops]
    if not away or min(away) > NEAR * math.exp(before[2]):
        return None
    return crops[away.index(min(away))]
