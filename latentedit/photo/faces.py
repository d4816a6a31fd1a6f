"""Face detection, with landmarks, OpenCV's cascades or a YuNet model."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL import Image

from latentedit.errors import spelled
from latentedit.photo.face import Face
from latentedit.photo.haar import find_by_cascade, seen_by_cascades
from latentedit.photo.landmarks import EXTRA, centres, detects, find_landmarks, has_landmarks
from latentedit.photo.yunet import find_by_yunet

_MORE_EXACT = f"{EXTRA} aligns by 68 landmarks"

WAYS = {
    "crop": "the square around it with `crop=X,Y,SIZE`",
    "landmarks": "eyes and mouth with `landmarks=AX,AY,BX,BY,MX,MY`",
    "aligned": "`aligned=True` if it is a crop already",
    "face_detector": "another detector with `face_detector=FILE`",
}
"""What the user can do if no face is found, by argument; not every command has all of them."""
NAMED = 10
"""Images that `warning_of_several` names; of the others it only gives the number."""


def find_faces(image: Image.Image, detector: str | os.PathLike[str] | None = None) -> list[Face]:
    """Find faces, largest first; returns an empty list if there are none.

    Args:
        detector: the file of a YuNet network (``face_detection_yunet_*.onnx`` of OpenCV's model
            zoo), or "yunet" for the downloaded one, which also finds rotated faces and mouths.
            None uses dlib's 68 landmarks if ``latentedit[faces]`` is installed, and OpenCV's Haar
            cascades if it is not, or if dlib finds nothing.

    Raises:
        Error: the detector cannot be read.
    """
    if detector is not None:
        return find_by_yunet(image, detector)
    if not has_landmarks():
        return find_by_cascade(image)
    faces = find_by_landmarks(image)
    if faces:
        return faces
    unseen = "dlib found no face, only OpenCV's cascades did"
    return [replace(face, doubts=(unseen, *face.doubts)) for face in find_by_cascade(image)]


def sees_face(image: Image.Image) -> bool:
    """Return whether there is a face in a crop: by dlib's detector where it is at hand, else by two
    of OpenCV's cascades."""
    if has_landmarks():
        return detects(image)
    return seen_by_cascades(image)


def doubt_about(face: Face) -> str:
    """Say in a sentence what is doubtful about ``face``, or "" if nothing is."""
    return f"the face may be framed wrongly: {', '.join(face.doubts)}" if face.doubts else ""


def warnings_of(face: Face, ways: Sequence[str] = tuple(WAYS)) -> list[str]:
    """Return one sentence about what is doubtful about ``face`` and what to do; an empty list if
    nothing is.

    Args:
        ways: arguments that can be given.
    """
    doubt = doubt_about(face)
    if not doubt:
        return []
    given = spelled(" or ".join(f"`{way}`" for way in ("landmarks", "crop") if way in ways))
    way = f"check the crop, or add {given}" if given else "check the crop"
    if not has_landmarks():
        way = f"check the crop; {_MORE_EXACT}"
    return [f"{doubt}; {way}"]


def warning_of_several(doubts: Mapping[str, Sequence[str]], total: int) -> str:
    """Return one sentence about doubtful faces among the images of a collection, or "" if there are
    none.

    Args:
        doubts: the doubts about a face, by the name of its image.
        total: number of images, with those whose face is not doubtful.
    """
    doubtful = {name: reasons for name, reasons in doubts.items() if reasons}
    if not doubtful:
        return ""
    shown = [f"{name} ({', '.join(reasons)})" for name, reasons in list(doubtful.items())[:NAMED]]
    more = ["..."] if len(doubtful) > NAMED else []
    way = "check these crops" + ("" if has_landmarks() else f"; {_MORE_EXACT}")
    return (
        f"the faces of {len(doubtful)} of {total} images may be framed wrongly: "
        f"{', '.join([*shown, *more])}; {way}"
    )


def find_by_landmarks(image: Image.Image) -> list[Face]:
    """Find faces by dlib's 68 landmarks, largest first; needs the extra ``latentedit[faces]``."""
    faces = []
    for points in find_landmarks(image):
        left_eye, right_eye, mouth = centres(points)
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        box = (float(left), float(top), float(right - left), float(bottom - top))
        faces.append(Face(box, left_eye, right_eye, True, mouth, points))
    return faces
