"""From a photo to the crop a model was trained on: face finding, framing, resampling."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from latentedit.errors import Error
from latentedit.images import to_tensor
from latentedit.landmarks import EXTRA, Landmarks, available, centres, find_landmarks

DETECTION_SIDE = 480
"""Pictures are brought to about this shorter side before faces are looked for."""
LONGEST_SIDE = 8 * DETECTION_SIDE
"""Of what is looked at, so that a narrow strip is not enlarged without end."""
LOOKS = ((1, 0.12), (2, 0.06))
"""How many times as large a picture is looked at, and the least side of a face in shorter sides of the picture; the second look
is where the first finds none that two cascades see, because the smaller faces may be, the more patterns look like one.
"""
SMALLEST_FACE = LOOKS[-1][1]

EYE_PATCH = 256
"""Side in pixels of the square that eyes are looked for in."""
CASCADES = {"frontalface_alt": 3, "frontalface_alt2": 3, "frontalface_default": 6}
"""OpenCV's cascades for faces, and how many hits beside one another each must have."""
SQUARE_OF_BOX, DROP_OF_BOX = 1 / 0.68, 0.036
"""The side of FFHQ's square in widths of a cascade's box, and how far its centre lies above the box's, in sides."""
EYES_IN_SQUARE = (-0.125 - 0.022j, 0.125 - 0.022j)
"""Where the eyes of an average face lie about the square's centre, in sides of it."""
BOX_SHARE = 0.35
"""What the box counts towards the distance of the eyes; the rest is where they were found."""
PAIR_SPREAD = {"size": 0.15, "degrees": 15.0, "place": 0.05}
"""Spread of true pairs about what the box lets expect: logarithm of the distance, angle, middle in sides of the square."""
UNLIKELY_PAIR = 9.0
"""Squared spreads beyond which a pair is none."""

ODD_SIZE, ODD_ANGLE, ODD_CHANGE = 0.2, 20.0, 0.15
"""Beyond this share from the usual size, at more degrees, or if the second look changes the distance by more than this share, a
pair of eyes is doubtful.

These and the numbers above were chosen on photos made of training portraits, as ``benchmarks/framing.py --made`` makes
them: turned by some 9 degrees, darkened, blurred and laid on soft backgrounds.
"""

WAYS = {
    "--crop": "the square around it with --crop X,Y,SIZE",
    "--landmarks": "eyes and mouth with --landmarks AX,AY,BX,BY,MX,MY",
    "--aligned": "--aligned if it is a crop already",
    "--face-detector": "another detector with --face-detector FILE",
}
"""What can be given where no face is found, by option; not every command has them all."""

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
    landmarks: Landmarks | None = field(default=None, compare=False, repr=False)
    """dlib's 68 points, ``[68, 2]``, where they are known."""
    doubts: tuple[str, ...] = ()
    """Why the crop around this face may be wrong; empty where nothing speaks against it."""


def find_faces(image: Image.Image, detector: str | os.PathLike[str] | None = None) -> list[Face]:
    """Finds faces, largest first; an empty list where there are none.

    Args:
        detector: the file of a YuNet network (``face_detection_yunet_*.onnx`` of OpenCV's model zoo), which finds turned faces
            and mouths too. None takes dlib's 68 landmarks where the extra ``latentedit[faces]`` is installed, and the
            Haar cascades that come with OpenCV where it is not or finds nothing.

    Raises:
        Error: the detector cannot be read.
    """
    if detector is not None:
        return _find_by_yunet(image, detector)
    if not available():
        return find_by_cascade(image)
    faces = find_by_landmarks(image)
    if faces:
        return faces
    unseen = "dlib sees no face, only OpenCV's cascades do"
    return [replace(face, doubts=(unseen, *face.doubts)) for face in find_by_cascade(image)]


def warnings_of(face: Face, ways: Sequence[str] = tuple(WAYS)) -> list[str]:
    """Says in one sentence what is doubtful about ``face`` and the way out; an empty list where nothing is.

    Args:
        ways: options that can be given.
    """
    if not face.doubts:
        return []
    given = " or ".join(way for way in ("--landmarks", "--crop") if way in ways)
    way = f"look at the crop, or give {given}" if given else "look at the crop"
    if not available():
        way = f"look at the crop; {EXTRA} aligns by 68 landmarks"
    return [f"the face may be framed wrongly: {', '.join(face.doubts)}; {way}"]


def find_by_landmarks(image: Image.Image) -> list[Face]:
    """Finds faces by dlib's 68 landmarks, largest first; needs the extra ``latentedit[faces]``."""
    faces = []
    for points in find_landmarks(image):
        left_eye, right_eye, mouth = centres(points)
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        box = (float(left), float(top), float(right - left), float(bottom - top))
        faces.append(Face(box, left_eye, right_eye, True, mouth, points))
    return faces


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


@lru_cache
def _cascade(name: str) -> Any:
    folder: str = cv2.data.haarcascades  # type: ignore[attr-defined]
    cascade = cv2.CascadeClassifier(f"{folder}haarcascade_{name}.xml")
    if cascade.empty():
        raise Error(f"OpenCV's haarcascade_{name}.xml is missing; install opencv-python<5")
    return cascade


def find_by_cascade(image: Image.Image) -> list[Face]:
    """Finds faces by the Haar cascades of OpenCV; those that one cascade alone sees come last, else the largest first."""
    grey = np.asarray(image.convert("L"))
    boxes = _cascade_boxes(grey, *LOOKS[0])
    if all(seen == 1 for *_, seen in boxes):  # none, or one around a smaller face
        nearer = _cascade_boxes(grey, *LOOKS[1])
        boxes = nearer if not boxes or any(seen > 1 for *_, seen in nearer) else boxes
    found = [(_face_in(grey, box), box[2], seen) for *box, seen in boxes]
    found.sort(key=lambda row: (row[2] == 1, -row[1]))
    doubted = []
    for face, _, seen in found:
        few = (f"{seen} of {len(CASCADES)} cascades see it",) if seen < len(CASCADES) else ()
        doubted.append(replace(face, doubts=(*few, *face.doubts)))
    return doubted


def _cascade_boxes(grey: Any, larger: int, smallest: float) -> list[tuple[float, float, float, int]]:
    """Horizontal and vertical centre and width of the boxes around faces, and how many cascades see each; see `LOOKS`."""
    scale = min(larger * DETECTION_SIDE / min(grey.shape), LONGEST_SIDE / max(grey.shape))
    if min(grey.shape) * scale < DETECTION_SIDE / 10:
        return []  # a strip too narrow for a face
    if larger > 1 and scale > 1:
        return []  # enlarged, a picture shows nothing new

    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    work = cv2.equalizeHist(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=method))
    least = int(smallest * min(work.shape))

    groups: list[list[tuple[float, float, float, str]]] = []
    for name, beside in CASCADES.items():
        for x, y, w, h in _cascade(name).detectMultiScale(work, 1.1, beside, minSize=(least, least)):
            hit = (x + w / 2, y + h / 2, float(w), name)
            group = next((group for group in groups if _same_face(group[0], hit)), None)
            if group is None:
                groups.append([hit])
            else:
                group.append(hit)

    boxes = []
    for group in groups:
        x, y, width = np.mean([hit[:3] for hit in group], axis=0) / scale
        boxes.append((float(x), float(y), float(width), len({hit[3] for hit in group})))
    return boxes


def _same_face(one: tuple[float, float, float, str], other: tuple[float, float, float, str]) -> bool:
    apart = np.hypot(one[0] - other[0], one[1] - other[1])
    return bool(apart < 0.3 * max(one[2], other[2]) and 0.55 < other[2] / one[2] < 1.8)


def _face_in(grey: Any, box: Sequence[float]) -> Face:
    """The face in a cascade's box (centre and width); its eyes are looked for as it is, and again when turned upright.

    Places and directions are complex numbers, as in `quad_from_eyes`.
    """
    x, y, width = box
    side = width * SQUARE_OF_BOX
    centre = complex(x, y) - 1j * DROP_OF_BOX * side
    around = (x - width / 2, y - width / 2, width, width)

    pair = _find_eyes(grey, centre, side + 0j)
    if pair is None:
        left, right = (centre + side * eye for eye in EYES_IN_SQUARE)
        return Face(around, (left.real, left.imag), (right.real, right.imag), False, doubts=("no eyes found",))

    doubts = []
    across = pair[1] - pair[0]
    along = across / abs(across) * np.sqrt(side * 4 * abs(across))
    upright = sum(pair) / 2 - along * sum(EYES_IN_SQUARE) / 2
    again = _find_eyes(grey, upright, along)
    if again is None:
        doubts.append("the eyes are not found again when the face is turned upright")
    elif abs(np.log(abs(again[1] - again[0]) / abs(across))) > ODD_CHANGE:
        doubts.append("the eyes are found elsewhere when the face is turned upright")
    left, right = again or pair

    across = right - left
    angle = float(np.degrees(np.angle(across)))
    if abs(angle) > ODD_ANGLE:
        doubts.append(f"the eyes lie at an angle of {abs(angle):.0f} degrees")
    size = float(np.log(4 * abs(across) / side))
    if abs(size) > ODD_SIZE:
        doubts.append(f"the eyes are too {'far apart' if size > 0 else 'near together'} for such a face")

    # The box and the eyes err independently and about equally in size.
    half = across / 2 * np.exp(-BOX_SHARE * size)
    left, right = (left + right) / 2 - half, (left + right) / 2 + half
    eyes = [(float(eye.real), float(eye.imag)) for eye in (left, right)]
    return Face(around, eyes[0], eyes[1], True, doubts=tuple(doubts))


def _find_eyes(grey: Any, centre: complex, along: complex) -> tuple[complex, complex] | None:
    """The most plausible pair of eyes in a square, left one first, in pixels of the photo.

    Args:
        centre: of FFHQ's square, as far as it is known.
        along: its upper side, as a complex number.
    """
    size = EYE_PATCH
    corners = np.array([centre + along / 2 * corner for corner in (-1 - 1j, 1 - 1j, 1 + 1j)])
    source = np.stack([corners.real, corners.imag], axis=1) - 0.5
    target = np.array([[0, 0], [size, 0], [size, size]]) - 0.5
    transform = cv2.getAffineTransform(source.astype(np.float32), target.astype(np.float32))
    shrinks = abs(along) / size
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.4 * shrinks) if shrinks > 2 else grey
    patch = cv2.warpAffine(smooth, transform, (size, size), borderMode=cv2.BORDER_REPLICATE)
    top, bottom = int(0.2 * size), int(0.72 * size)
    patch = patch[top:bottom]  # not equalised: the eye cascades find more in the brightness as it is

    groups: list[list[tuple[complex, str]]] = []
    for name in ("eye", "eye_tree_eyeglasses"):
        least, most = int(0.07 * size), int(0.3 * size)
        hits = _cascade(name).detectMultiScale(patch, 1.05, 2, minSize=(least, least), maxSize=(most, most))
        for x, y, w, h in hits:
            place = complex(x + w / 2, y + h / 2 + top) / size - (0.5 + 0.5j)
            group = next((group for group in groups if abs(group[0][0] - place) < 0.04), None)
            if group is None:
                groups.append([(place, name)])
            else:
                group.append((place, name))

    best = None
    least_strange = UNLIKELY_PAIR
    places = [(sum(place for place, _ in group) / len(group), len({name for _, name in group})) for group in groups]
    for left, left_seen in places:
        for right, right_seen in places:
            if right.real - left.real < 0.1:
                continue
            strange = _strangeness(left, right) - left_seen - right_seen
            if strange < least_strange:
                best = (centre + along * left, centre + along * right)
                least_strange = strange
    return best


def _strangeness(left: complex, right: complex) -> float:
    """Squared spreads by which a pair differs from the eyes of an average face, in sides of the square about its centre."""
    usual_left, usual_right = EYES_IN_SQUARE
    size = np.log(abs(right - left) / abs(usual_right - usual_left)) / PAIR_SPREAD["size"]
    angle = np.degrees(np.angle(right - left)) / PAIR_SPREAD["degrees"]
    place = abs((left + right) / 2 - (usual_left + usual_right) / 2) / PAIR_SPREAD["place"]
    return float(size**2 + angle**2 + place**2)


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


def faces_for(
    image: Image.Image,
    framing: dict[str, Any] | None,
    name: str = "picture",
    *,
    detector: str | os.PathLike[str] | None = None,
    ways: Sequence[str] = ("--framing", "--crop", "--aligned"),
) -> list[Face]:
    """The faces of ``image`` that a model of this ``framing`` can be given, at least one, the largest first.

    Args:
        ways: options that the user can give; the messages speak of no others.

    Raises:
        Error: the framing does not say where faces belong, or no face was found; the message says how to go on.
    """
    if not framing or "eyes" not in framing:
        forms = {"--framing": "--framing ffhq", "--crop": "--crop X,Y,SIZE", "--aligned": "--aligned"}
        given = " or ".join(form for way, form in forms.items() if way in ways)
        advice = f"give {given}" if given else '"latentedit model convert --framing ffhq" writes one that does'
        raise Error(f"{name}: this model's file does not say how faces are framed; {advice}")
    faces = find_faces(image, detector)
    if not faces:
        given = ", or ".join(text for way, text in WAYS.items() if way in ways)
        advice = f"give {given}" if given else "take another photo"
        more = "" if detector or available() else f"; {EXTRA} finds more"
        limit = "" if detector or available() else f" of {SMALLEST_FACE:.0%} of the shorter side or more"
        raise Error(f"{name}: no face found{limit}; {advice}{more}")
    return faces


def nth_face(faces: Sequence[Face], number: int, name: str = "picture") -> Face:
    """Face ``number``, the first being 1.

    Raises:
        Error: there are fewer.
    """
    if number > len(faces):
        raise Error(f"{name}: faces found: {len(faces)}; --face {number} is not among them")
    return faces[number - 1]


def quad_for(
    image: Image.Image,
    framing: dict[str, Any] | None,
    name: str = "picture",
    *,
    detector: str | os.PathLike[str] | None = None,
    number: int = 1,
    ways: Sequence[str] = ("--framing", "--crop", "--aligned"),
) -> Quad:
    """The crop of ``image`` that a model of this ``framing`` expects around face ``number``, the largest being 1.

    Raises:
        Error: no such face found; the message says how to go on.
    """
    face = nth_face(faces_for(image, framing, name, detector=detector, ways=ways), number, name)
    return quad_from_face(face, framing or {})


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
