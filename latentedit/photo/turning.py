"""Photos that lie on their side or stand on their head: quarter turns of an image and of its
faces."""

from dataclasses import replace

import numpy as np
from PIL import Image

from latentedit.photo.face import DetectedFace

TURNS = (180, 90, 270)
"""Degrees clockwise by which a photo is turned, in this order, if there is no upright face in
it."""
_TRANSPOSED = {
    90: Image.Transpose.ROTATE_270,  # Pillow counts anticlockwise
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}


def turned(image: Image.Image, degrees: int) -> Image.Image:
    """Return ``image`` turned clockwise by one of `TURNS`."""
    return image.transpose(_TRANSPOSED[degrees])


def turned_back(face: DetectedFace, degrees: int, size: tuple[int, int]) -> DetectedFace:
    """Return a face that was found in a turned image, with its places in the image as it was.

    Args:
        degrees: by which the image was turned clockwise.
        size: width and height of the image before.
    """
    width, height = size

    def back(x: float, y: float) -> tuple[float, float]:
        if degrees == 90:  # what was on the left is on top
            return y, height - x
        if degrees == 180:
            return width - x, height - y
        return width - y, x

    left, top, wide, tall = face.box
    ends = np.array([back(left, top), back(left + wide, top + tall)])
    corner = ends.min(axis=0)
    sides = ends.max(axis=0) - corner
    marks = face.landmarks
    return replace(
        face,
        box=(float(corner[0]), float(corner[1]), float(sides[0]), float(sides[1])),
        left_eye=back(*face.left_eye),
        right_eye=back(*face.right_eye),
        mouth=None if face.mouth is None else back(*face.mouth),
        landmarks=None if marks is None else np.array([back(x, y) for x, y in marks.tolist()]),
        turned=degrees,
    )
