"""Alignment: from a face to the square around it, as the model's training images were cropped."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from latentedit.errors import ArgumentError, NotFoundError
from latentedit.io.images import to_tensor
from latentedit.photo.face import DetectedFace
from latentedit.photo.faces import WAYS, find_faces
from latentedit.photo.haar import SMALLEST_FACE
from latentedit.photo.landmarks import EXTRA, has_landmarks

Quad = list[list[float]]
"""Corners of a crop in source pixels: upper left, upper right, lower right, lower left."""


def quad_of_window(left: float, top: float, size: float) -> Quad:
    """Return an upright square."""
    return [[left, top], [left + size, top], [left + size, top + size], [left, top + size]]


def quad_from_eyes(
    left_eye: Sequence[float], right_eye: Sequence[float], framing: dict[str, Any]
) -> Quad:
    """Return the square that aligns both eyes with the model's ``framing`` (rotated and scaled, not
    stretched)."""
    (ax, ay), (bx, by) = framing["eyes"]
    # As complex numbers: photo = origin + turn * crop, solved for two points.
    turn = (complex(*right_eye) - complex(*left_eye)) / (complex(bx, by) - complex(ax, ay))
    origin = complex(*left_eye) - turn * complex(ax, ay)
    corners = [origin + turn * corner for corner in (0, 1, 1 + 1j, 1j)]
    return [[corner.real, corner.imag] for corner in corners]


def quad_from_face(face: DetectedFace, framing: dict[str, Any]) -> Quad:
    """Return the square around ``face`` that a model of this ``framing`` expects.

    FFHQ's alignment (Karras et al. 2018, appendix C) is computed from the centres of eyes and
    mouth. If the mouth was not found, it is assumed at its average position. Other framings only
    align the eyes.
    """
    if framing.get("kind") != "ffhq":
        return quad_from_eyes(face.left_eye, face.right_eye, framing)

    left = complex(*face.left_eye)
    right = complex(*face.right_eye)
    eyes = (left + right) / 2
    across = right - left
    (ax, ay), (bx, by) = framing["eyes"]
    usual = (complex(*framing["mouth"]) - complex((ax + bx) / 2, (ay + by) / 2)) / (
        complex(bx, by) - complex(ax, ay)
    )
    down = complex(*face.mouth) - eyes if face.mouth is not None else across * usual

    # Half the square, along the eyes: the mean of their direction and of that at right angles to
    # the mouth's.
    half = across - 1j * down
    # The constants are those of FFHQ's alignment: twice the distance of the eyes, or 1.8 times that
    # from eyes to mouth.
    half *= max(2.0 * abs(across), 1.8 * abs(down)) / abs(half)
    centre = eyes + 0.1 * down
    corners = [centre + half * turn for turn in (-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j)]
    return [[corner.real, corner.imag] for corner in corners]


def faces_for(
    image: Image.Image,
    framing: dict[str, Any] | None,
    name: str = "picture",
    *,
    detector: str | os.PathLike[str] | None = None,
    number: int = 1,
    ways: Sequence[str] = ("framing", "crop", "aligned"),
) -> list[DetectedFace]:
    """Find the faces of ``image`` for a model of this ``framing``: at least one, the largest first.

    Args:
        number: look for smaller faces until so many are found.
        ways: arguments that the user can give, such as "crop"; messages suggest no others.

    Raises:
        Error: the framing does not define the position of faces, or no face was found; the message
            suggests what to do.
    """
    if not framing or "eyes" not in framing:
        forms = {
            "framing": "`framing=ffhq`",
            "crop": "`crop=X,Y,SIZE`",
            "aligned": "`aligned=True`",
        }
        given = " or ".join(form for way, form in forms.items() if way in ways)
        advice = (
            f"add {given}"
            if given
            else 'use "latentedit model convert --framing ffhq" to write one that does'
        )
        raise NotFoundError(
            "the model file does not define the framing of faces", path=name, advice=advice
        )

    faces = find_faces(image, detector, number)
    if not faces:
        given = ", or ".join(text for way, text in WAYS.items() if way in ways)
        advice = f"add {given}" if given else "use another photo"
        more = "" if detector or has_landmarks() else f"; {EXTRA} finds more faces"
        limit = (
            ""
            if detector or has_landmarks()
            else f" of at least {SMALLEST_FACE:.0%} of the shorter side"
        )
        raise NotFoundError(f"no face found{limit}", path=name, advice=f"{advice}{more}")

    return faces


def nth_face(faces: Sequence[DetectedFace], number: int, name: str = "picture") -> DetectedFace:
    """Return face ``number``, counted from 1.

    Raises:
        Error: there are fewer faces.
    """
    if number > len(faces):
        raise NotFoundError(f"face {number} does not exist, only {len(faces)} found", path=name)
    return faces[number - 1]


def quad_for(
    image: Image.Image,
    framing: dict[str, Any] | None,
    name: str = "picture",
    *,
    detector: str | os.PathLike[str] | None = None,
    number: int = 1,
    ways: Sequence[str] = ("framing", "crop", "aligned"),
) -> Quad:
    """Find the crop of ``image`` that a model of this ``framing`` expects around face ``number``;
    the largest face is 1.

    Raises:
        Error: the face was not found; the message suggests what to do.
    """
    faces = faces_for(image, framing, name, detector=detector, number=number, ways=ways)
    return quad_from_face(nth_face(faces, number, name), framing or {})


def crop(image: Image.Image, quad: Quad, size: int) -> Image.Image:
    """Resample ``image`` inside ``quad`` to ``size`` x ``size`` pixels; parts outside the image are
    filled by reflection."""
    corners = np.array(quad, dtype=np.float64)
    side = float(np.hypot(*(corners[1] - corners[0])))
    if side < 1:
        raise ArgumentError(f"the crop is {side:.2f} pixels wide; at least 1 is needed")

    left, top = corners[0]
    # Pixels are taken as they are, so that a crop that was written here is read again without loss.
    if _is_window(corners, image) and side == size:
        return image.crop((int(left), int(top), int(left) + size, int(top) + size))

    # warpAffine reads single pixels: shrinking in one step would alias.
    factor = max(1, int(np.ceil(side / size)))  # sample densely, then average
    fine = size * factor
    target = np.array([[0, 0], [fine, 0], [fine, fine]], dtype=np.float32) - 0.5
    transform = cv2.getAffineTransform((corners[:3] - 0.5).astype(np.float32), target)
    pixels = np.asarray(image)
    method = cv2.INTER_LINEAR if factor > 1 else cv2.INTER_CUBIC
    warped = cv2.warpAffine(
        pixels, transform, (fine, fine), flags=method, borderMode=cv2.BORDER_REFLECT_101
    )
    return Image.fromarray(
        cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA) if factor > 1 else warped
    )


@dataclass(frozen=True)
class CropPixels:
    """Says which pixel of a photo is which one of its `crop`; 0, 0 is the middle of the upper left
    pixel of either."""

    quad: Quad
    size: int
    """Width and height of the crop after resampling."""

    @property
    def scale(self) -> float:
        """How many pixels of the photo lie along one of the crop."""
        return abs(self._across) / self.size

    def in_crop(self, point: Sequence[float]) -> tuple[float, float]:
        """Return where ``point`` of the photo, ``x, y``, is in the crop; beyond its pixels where it
        lies outside."""
        away = complex(*point) + complex(0.5, 0.5) - self._origin
        # Parallelograms too, as files may hold any: away = u * across + v * down.
        area = (self._across.conjugate() * self._down).imag
        u = (away.conjugate() * self._down).imag / area
        v = (self._across.conjugate() * away).imag / area
        return u * self.size - 0.5, v * self.size - 0.5

    def in_photo(self, point: Sequence[float]) -> tuple[float, float]:
        """Return where ``point`` of the crop, ``x, y``, is in the photo."""
        u, v = ((part + 0.5) / self.size for part in point)
        place = self._origin + u * self._across + v * self._down - complex(0.5, 0.5)
        return place.real, place.imag

    @property
    def _origin(self) -> complex:
        return complex(*self.quad[0])

    @property
    def _across(self) -> complex:
        return complex(*self.quad[1]) - self._origin

    @property
    def _down(self) -> complex:
        return complex(*self.quad[3]) - self._origin


def _is_window(corners: Any, image: Image.Image) -> bool:
    left, top = corners[0]
    right, bottom = corners[2]
    upright = corners[1][1] == top and corners[3][0] == left
    inside = left >= 0 and top >= 0 and right <= image.width and bottom <= image.height
    return bool(upright and inside and float(left).is_integer() and float(top).is_integer())


def crop_tensor(image: Image.Image, quad: Quad, size: int, channels: int) -> Tensor:
    """Return the result of `crop` as float ``[1, channels, size, size]`` in [-1, 1]."""
    return to_tensor(crop(image, quad, size).convert("L" if channels == 1 else "RGB"))
