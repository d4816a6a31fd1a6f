"""Face detection, with landmarks, OpenCV's cascades or a YuNet model."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from latentedit.errors import spelled
from latentedit.photo.face import DetectedFace
from latentedit.photo.haar import find_by_cascade, seen_by_cascades
from latentedit.photo.landmarks import (
    DETECTION_SIDES,
    EXTRA,
    centres,
    detects,
    find_landmarks,
    has_landmarks,
)
from latentedit.photo.turning import TURNS, turned, turned_back
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


CASCADE_LOOKS = 2
"""Looks of the cascades at a turned photo, and at one in which dlib sees no face. With more, photos
without faces take long."""


def find_faces(
    image: Image.Image, detector: str | os.PathLike[str] | None = None, number: int = 1
) -> list[DetectedFace]:
    """Find faces, largest first; returns an empty list if there are none.

    If no upright face is found, the image is turned by quarters, and the first way round that shows
    one counts.

    Args:
        detector: the file of a YuNet network (``face_detection_yunet_*.onnx`` of OpenCV's model
            zoo), or "yunet" for the downloaded one, which also finds rotated faces and mouths.
            None uses dlib's 68 landmarks if ``latentedit[faces]`` is installed, and OpenCV's Haar
            cascades if it is not, or if dlib finds nothing.
        number: how many are wanted; smaller faces are looked for until so many are found.

    Raises:
        Error: the detector cannot be read.
    """
    if detector is not None:
        return find_by_yunet(image, detector, number) or _first_turned(
            image, lambda view: find_by_yunet(view, detector)
        )
    if not has_landmarks():
        return _by_cascade(image, number)

    faces = find_by_landmarks(image, number) or _first_turned(
        image, lambda view: find_by_landmarks(view, looks=1)
    )
    if faces:
        return faces
    unseen = "dlib found no face, only OpenCV's cascades did"
    by_cascade = find_by_cascade(image, number, CASCADE_LOOKS)
    return [replace(face, doubts=(unseen, *face.doubts)) for face in by_cascade]


def _by_cascade(image: Image.Image, number: int) -> list[DetectedFace]:
    """Find faces by the cascades; turned ones count only where upright ones are uncertain and they
    are certain, with eyes."""
    upright = find_by_cascade(image, number)
    if any(face.certain for face in upright):
        return upright

    def certain(view: Image.Image) -> list[DetectedFace]:
        found = find_by_cascade(view, looks=CASCADE_LOOKS)
        return [face for face in found if face.certain and face.eyes_found]

    return _first_turned(image, certain) or upright


def _first_turned(
    image: Image.Image, find: Callable[[Image.Image], list[DetectedFace]]
) -> list[DetectedFace]:
    """Find faces in the image turned by quarters, and return those of the first turn that shows
    any."""
    for degrees in TURNS:
        found = find(turned(image, degrees))
        if found:
            return [turned_back(face, degrees, image.size) for face in found]
    return []


def sees_face(image: Image.Image) -> bool:
    """Return whether there is a face in a crop: by dlib's detector where it is at hand, else by two
    of OpenCV's cascades."""
    if has_landmarks():
        return detects(image)
    return seen_by_cascades(image)


def doubt_about(face: DetectedFace) -> str:
    """Say in a sentence what is doubtful about ``face``, or "" if nothing is."""
    return f"the face may be framed wrongly: {', '.join(face.doubts)}" if face.doubts else ""


def warnings_of(face: DetectedFace, ways: Sequence[str] = tuple(WAYS)) -> list[str]:
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


def notes_on(
    faces: Sequence[DetectedFace], number: int, ways: Sequence[str] = ("face",)
) -> list[str]:
    """Return what is good to know about face ``number`` of an image, counted from 1: that there are
    others, and that the image was turned.

    Args:
        ways: arguments that can be given.
    """
    found = []
    count = sum(face.certain for face in faces)
    if count > 1 and number == 1:
        way = spelled(f", `face={number + 1}` for the next") if "face" in ways else ""
        found.append(f"{count} faces; took the largest{way}")
    found += turn_of(faces[number - 1])
    return found


def turn_of(face: DetectedFace) -> list[str]:
    """Return a sentence about a face that is not upright in its image; an empty list if it is."""
    if not face.turned:
        return []
    how = "is upside down" if face.turned == 180 else "lies on its side"
    return [f"the photo {how}; the face was found after turning it by {face.turned} degrees"]


@dataclass
class Seen:
    """What was seen of the faces in the images of a collection."""

    doubts: dict[str, Sequence[str]] = field(default_factory=dict)
    """About the face that was taken, by the name of its image."""
    several: list[str] = field(default_factory=list)
    """Images with several faces, of which the largest was taken."""
    turned: list[str] = field(default_factory=list)
    """Images that are upside down or lie on their side."""

    def add(self, name: str, faces: Sequence[DetectedFace]) -> None:
        """Note the faces of an image, the first of which was taken."""
        if faces[0].doubts:
            self.doubts[name] = faces[0].doubts
        if sum(face.certain for face in faces) > 1:
            self.several.append(name)
        if faces[0].turned:
            self.turned.append(name)

    def remarks(self, total: int) -> list[str]:
        """Return a sentence about each kind of image that is good to know of.

        Args:
            total: number of images, with all others.
        """
        found = []
        for names, what in (
            (self.several, "show several faces; the largest was taken"),
            (self.turned, "are upside down or lie on their side, and were turned"),
        ):
            if names:
                shown = ", ".join([*names[:NAMED], *(["..."] if len(names) > NAMED else [])])
                found.append(f"{len(names)} of {total} images {what}: {shown}")
        return found

    def warning(self, total: int) -> str:
        """Return `warning_of_several` about the doubtful ones, or ""."""
        return warning_of_several(self.doubts, total)


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


def find_by_landmarks(
    image: Image.Image, number: int = 1, looks: int = len(DETECTION_SIDES)
) -> list[DetectedFace]:
    """Find faces by dlib's 68 landmarks, largest first; needs the extra ``latentedit[faces]``.

    Args:
        number: look closer until so many are found.
        looks: how often at most.
    """
    faces = []
    for points in find_landmarks(image, number, looks):
        left_eye, right_eye, mouth = centres(points)
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        box = (float(left), float(top), float(right - left), float(bottom - top))
        faces.append(DetectedFace(box, left_eye, right_eye, True, mouth, points))
    return faces
