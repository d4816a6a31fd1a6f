"""From a photo to the crop a model was trained on: face finding, framing, resampling."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from latentedit.errors import Error
from latentedit.images import to_tensor

DETECTION_SIDE = 480
"""Pictures are brought to about this shorter side before faces are looked for."""
SMALLEST_FACE = 0.12
"""Of the shorter side of the picture."""
BOX_EYES = ((0.31, 0.38), (0.69, 0.38))
"""Where eyes lie in the box of OpenCV's frontal face cascade, in fractions of its side; used where none are found."""

FRAMINGS: dict[str, dict[str, Any]] = {
    "ffhq": {"kind": "ffhq", "eyes": [[0.375, 0.475], [0.625, 0.475]], "mouth": [0.5, 0.74]},
}
"""Published framings. "ffhq" is a square of four eye distances, or more where the mouth is far from the eyes (Karras et al.
2018, appendix C); its eyes and mouth here are where those of an average face come to lie.
"""

Quad = list[list[float]]
"""Corners of a crop in source pixels: upper left, upper right, lower right, lower left."""


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


def _cascade(name: str) -> Any:
    folder: str = cv2.data.haarcascades  # type: ignore[attr-defined]
    cascade = cv2.CascadeClassifier(f"{folder}haarcascade_{name}.xml")
    if cascade.empty():
        raise Error(f"OpenCV's haarcascade_{name}.xml is missing; install opencv-python<5")
    return cascade


def find_faces(image: Image.Image, detector: str | os.PathLike[str] | None = None) -> list[Face]:
    """Faces, largest first; an empty list where there are none.

    Args:
        detector: the file of a YuNet network (``face_detection_yunet_*.onnx`` of OpenCV's model zoo), which finds turned faces
            and mouths too; None takes the Haar cascades that come with OpenCV.

    Raises:
        Error: the detector cannot be read.
    """
    return _find_by_cascade(image) if detector is None else _find_by_yunet(image, detector)


def _find_by_yunet(image: Image.Image, model: str | os.PathLike[str]) -> list[Face]:
    if not Path(model).is_file():
        raise Error(f"{model}: no such file; a YuNet model is face_detection_yunet_2023mar.onnx of OpenCV's model zoo")
    pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
    scale = min(1.0, 2 * DETECTION_SIDE / max(image.size))
    work = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    try:
        found = cv2.FaceDetectorYN.create(os.fspath(model), "", (work.shape[1], work.shape[0])).detect(work)[1]
    except cv2.error as error:
        raise Error(f"{model}: not a YuNet face detector that this OpenCV can read") from error
    faces = []
    for row in sorted([] if found is None else found, key=lambda row: -float(row[2])):
        values = [float(value) / scale for value in row[:14]]
        # The person's right eye, which is the viewer's left, comes first; then nose and corners of the mouth.
        mouth = ((values[10] + values[12]) / 2, (values[11] + values[13]) / 2)
        box = (values[0], values[1], values[2], values[3])
        faces.append(Face(box, (values[4], values[5]), (values[6], values[7]), True, mouth))
    return faces


def _find_by_cascade(image: Image.Image) -> list[Face]:
    grey = np.asarray(image.convert("L"))
    scale = DETECTION_SIDE / min(grey.shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    work = cv2.equalizeHist(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=method))
    least = int(SMALLEST_FACE * min(work.shape))
    boxes = _cascade("frontalface_default").detectMultiScale(work, 1.1, 6, minSize=(least, least))
    faces = []
    for x, y, w, h in sorted(boxes, key=lambda box: -int(box[2])):
        pair = _find_eyes(work[y : y + h, x : x + w])
        eyes = pair or tuple((ex * w, ey * h) for ex, ey in BOX_EYES)
        left, right = (((x + ex) / scale, (y + ey) / scale) for ex, ey in eyes)
        faces.append(Face((x / scale, y / scale, w / scale, h / scale), left, right, pair is not None))
    return faces


def _find_eyes(face: Any) -> tuple[tuple[float, float], ...] | None:
    """The most plausible pair of eyes in a face's box, left one first, in pixels of the box."""
    h, w = face.shape
    boxes = _cascade("eye").detectMultiScale(face[: int(h * 0.6)], 1.05, 4, minSize=(int(w * 0.12), int(w * 0.12)))
    centres = [(float(x + a / 2), float(y + b / 2)) for x, y, a, b in boxes]
    expected = [(fx * w, fy * h) for fx, fy in BOX_EYES]
    best, best_error = None, 0.12 * w  # farther than this from the usual place is no eye
    for left in centres:
        for right in centres:
            if not 0.25 * w < right[0] - left[0] < 0.6 * w or abs(right[1] - left[1]) > 0.25 * (right[0] - left[0]):
                continue
            error = max(np.hypot(p[0] - e[0], p[1] - e[1]) for p, e in zip((left, right), expected, strict=True))
            if error < best_error:
                best, best_error = (left, right), error
    return best


def quad_of_window(left: float, top: float, size: float) -> Quad:
    """An upright square."""
    return [[left, top], [left + size, top], [left + size, top + size], [left, top + size]]


def quad_from_eyes(left_eye: Sequence[float], right_eye: Sequence[float], framing: dict[str, Any]) -> Quad:
    """The square that puts both eyes where the model's ``framing`` has them (rotated and scaled, not stretched)."""
    (ax, ay), (bx, by) = framing["eyes"]
    # As complex numbers: photo = origin + turn * crop, solved for two points.
    turn = (complex(*right_eye) - complex(*left_eye)) / (complex(bx, by) - complex(ax, ay))
    origin = complex(*left_eye) - turn * complex(ax, ay)
    corners = [origin + turn * corner for corner in (0, 1, 1 + 1j, 1j)]
    return [[corner.real, corner.imag] for corner in corners]


def quad_from_face(face: Face, framing: dict[str, Any]) -> Quad:
    """The square around ``face`` that a model of this ``framing`` was trained on.

    FFHQ's alignment (Karras et al. 2018, appendix C) is computed from eye and mouth centres; a mouth that was not found is
    taken to lie where an average one does. Other framings bring the eyes to their places.
    """
    if framing.get("kind") != "ffhq":
        return quad_from_eyes(face.left_eye, face.right_eye, framing)
    left, right = complex(*face.left_eye), complex(*face.right_eye)
    eyes, across = (left + right) / 2, right - left
    (ax, ay), (bx, by) = framing["eyes"]
    usual = (complex(*framing["mouth"]) - complex((ax + bx) / 2, (ay + by) / 2)) / (complex(bx, by) - complex(ax, ay))
    down = complex(*face.mouth) - eyes if face.mouth is not None else across * usual
    # Half the square, along the eyes: the mean of their direction and of that at right angles to the mouth's.
    half = across - 1j * down
    half *= max(2.0 * abs(across), 1.8 * abs(down)) / abs(half)
    centre = eyes + 0.1 * down
    corners = [centre + half * turn for turn in (-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j)]
    return [[corner.real, corner.imag] for corner in corners]


def quad_for(
    image: Image.Image,
    framing: dict[str, Any] | None,
    name: str = "picture",
    *,
    detector: str | os.PathLike[str] | None = None,
    number: int = 1,
) -> Quad:
    """The crop of ``image`` that a model of this ``framing`` expects around face ``number``, the largest being 1.

    Raises:
        Error: no such face found; the message says how to go on.
    """
    if not framing or "eyes" not in framing:
        way = "give --framing ffhq, --crop X,Y,SIZE or --aligned"
        raise Error(f"{name}: this model's file does not say how faces are framed; {way}")
    faces = find_faces(image, detector)
    if not faces:
        raise Error(f"{name}: no face found; give the square around it with --crop X,Y,SIZE, or --aligned if it is one")
    if number > len(faces):
        raise Error(f"{name}: faces found: {len(faces)}; --face {number} is not among them")
    return quad_from_face(faces[number - 1], framing)


def crop(image: Image.Image, quad: Quad, size: int) -> Image.Image:
    """``image`` inside ``quad`` at ``size`` x ``size`` pixels; outside the picture it is continued by reflection."""
    corners = np.array(quad, dtype=np.float64)
    side = float(np.hypot(*(corners[1] - corners[0])))
    if side < 1:
        raise Error(f"the crop is {side:.2f} pixels wide; at least 1 is needed")
    left, top = corners[0]
    if _is_window(corners, image) and side == size:
        return image.crop((int(left), int(top), int(left) + size, int(top) + size))
    factor = max(1, int(np.ceil(side / size)))  # sample densely, then average
    fine = size * factor
    target = np.array([[0, 0], [fine, 0], [fine, fine]], dtype=np.float32) - 0.5
    transform = cv2.getAffineTransform((corners[:3] - 0.5).astype(np.float32), target)
    pixels = np.asarray(image)
    method = cv2.INTER_LINEAR if factor > 1 else cv2.INTER_CUBIC
    warped = cv2.warpAffine(pixels, transform, (fine, fine), flags=method, borderMode=cv2.BORDER_REFLECT_101)
    return Image.fromarray(cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA) if factor > 1 else warped)


def _is_window(corners: Any, image: Image.Image) -> bool:
    left, top = corners[0]
    right, bottom = corners[2]
    upright = corners[1][1] == top and corners[3][0] == left
    inside = left >= 0 and top >= 0 and right <= image.width and bottom <= image.height
    return bool(upright and inside and float(left).is_integer() and float(top).is_integer())


def crop_tensor(image: Image.Image, quad: Quad, size: int, channels: int) -> Tensor:
    """As `crop`, as float ``[1, channels, size, size]`` in [-1, 1]."""
    return to_tensor(crop(image, quad, size).convert("L" if channels == 1 else "RGB"))
