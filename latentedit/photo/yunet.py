"""Faces by YuNet, a network of OpenCV's model zoo."""

import os
from typing import Any

import cv2
import numpy as np
from PIL import Image

from latentedit.errors import Error, FormatError, NotFoundError
from latentedit.io.onnx import silent, try_onnx
from latentedit.io.weights import YUNET, by_name
from latentedit.photo.face import DetectedFace
from latentedit.photo.haar import DETECTION_SIDE

LONGER_SIDES = (2 * DETECTION_SIDE, 4 * DETECTION_SIDE)
"""The longer side in pixels that photos are brought to at most; the second where the first shows
too few faces."""
YUNET_STRIDES = (8, 16, 32)
YUNET_OUTPUTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""What it gives for each square of so many pixels: numbers, by the names of outputs."""


def find_by_yunet(
    image: Image.Image, model: str | os.PathLike[str], number: int = 1
) -> list[DetectedFace]:
    """Find faces with the network in the file ``model``, largest first.

    Args:
        model: a file, or "yunet" for the one that ``latentedit model fetch yunet`` downloaded.
        number: look closer until so many faces are found.

    Raises:
        Error: no such file, or no YuNet network that OpenCV can read.
    """
    model = by_name(os.fspath(model)) or model
    if not os.path.isfile(model):
        advice = f"{YUNET.downloaded('YuNet')}, then `face_detector={YUNET.name}`"
        raise NotFoundError("no such face detector", path=model, advice=advice)

    pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
    faces: list[DetectedFace] = []
    tried = 0.0
    for side in LONGER_SIDES:
        scale = min(1.0, side / max(image.size))
        if scale == tried:
            break
        tried = scale
        found = _faces_at(pixels, scale, model)
        faces = found if len(found) >= len(faces) else faces
        if len(faces) >= number:
            break
    return faces


def _faces_at(pixels: Any, scale: float, model: str | os.PathLike[str]) -> list[DetectedFace]:
    """Find the faces in a picture that is brought to ``scale`` times its size before."""
    work = pixels
    if scale < 1:
        work = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    size = (work.shape[1], work.shape[0])
    check_yunet(model, *size)
    try:
        with silent():
            found = cv2.FaceDetectorYN.create(os.fspath(model), "", size).detect(work)[1]
    except cv2.error as error:
        raise FormatError(
            "not a YuNet face detector that this OpenCV can read", path=model
        ) from error

    rows = [] if found is None else list(found)
    rows = [row for row in rows if np.isfinite(row).all() and row[2] > 0 and row[3] > 0]
    faces = []
    for row in sorted(rows, key=lambda row: -float(row[2])):
        values = [float(value) / scale for value in row[:14]]
        # The person's right eye, which is the viewer's left, comes first; then nose and corners of
        # the mouth.
        mouth = ((values[10] + values[12]) / 2, (values[11] + values[13]) / 2)
        box = (values[0], values[1], values[2], values[3])
        faces.append(DetectedFace(box, (values[4], values[5]), (values[6], values[7]), True, mouth))

    return faces


def check_yunet(model: str | os.PathLike[str], width: int, height: int) -> None:
    """See that the file is a YuNet network: OpenCV takes as many numbers from its outputs as such a
    network gives.

    Raises:
        Error: it is no such network, damaged, or needs too much.
    """
    padded = [-(-side // YUNET_STRIDES[-1]) * YUNET_STRIDES[-1] for side in (height, width)]
    outputs = {
        f"{name}_{stride}": numbers * (padded[0] // stride) * (padded[1] // stride)
        for name, numbers in YUNET_OUTPUTS.items()
        for stride in YUNET_STRIDES
    }
    try:
        try_onnx(model, (3, padded[0], padded[1]), outputs)
    except Error as error:
        what = "not a YuNet face detector that this OpenCV can read"
        raise FormatError(f"{what} ({error.reason})", path=model, advice=YUNET.advice) from error
