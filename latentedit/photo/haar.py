"""Faces by the Haar cascades that come with OpenCV."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

from latentedit.errors import NotFoundError
from latentedit.photo.face import DetectedFace

DETECTION_SIDE = 480
"""Pictures are brought to about this shorter side before faces are looked for."""


LONGEST_SIDE = 8 * DETECTION_SIDE
"""Longest side of the image that is searched, so that a narrow strip is not enlarged without
limit."""


LOOKS = ((1, 0.12), (2, 0.06), (4, 0.03))
"""How many times as large a picture is looked at, and the least side of a face in shorter sides of
the picture.

A closer look is where those before find none that two cascades see, because the smaller faces may
be, the more patterns look like one. In the last look, what one cascade alone sees does not count.
"""


SMALLEST_FACE = LOOKS[-1][1]


EYE_PATCH = 256
"""Side in pixels of the square that eyes are looked for in."""


CASCADES = {"frontalface_alt": 3, "frontalface_alt2": 3, "frontalface_default": 6}
"""OpenCV's cascades for faces, and how many hits beside one another each must have."""


SQUARE_OF_BOX = 1 / 0.68
DROP_OF_BOX = 0.036
"""The side of FFHQ's square in widths of a cascade's box, and how far its centre lies above the
box's, in sides."""


EYES_IN_SQUARE = (-0.125 - 0.022j, 0.125 - 0.022j)
"""Where the eyes of an average face lie about the square's centre, in sides of it."""


BOX_SHARE = 0.35
"""What the box counts towards the distance of the eyes; the rest is where they were found."""


PAIR_SPREAD = {"size": 0.15, "degrees": 15.0, "place": 0.05}
"""Spread of true pairs about what the box lets expect: logarithm of the distance, angle, middle in
sides of the square."""


UNLIKELY_PAIR = 9.0
"""Squared spreads beyond which a pair is none."""


ODD_SIZE = 0.2
ODD_ANGLE = 20.0
ODD_CHANGE = 0.15
"""Beyond this share from the usual size, at more degrees, or if the second look changes the
distance by more than this share, a pair of eyes is doubtful.

These and the numbers above were chosen on photos made of training portraits, as
``benchmarks/framing.py --made`` makes them: turned by some 9 degrees, darkened, blurred and laid on
soft backgrounds.
"""


@lru_cache
def _cascade(name: str) -> Any:
    if not hasattr(cv2, "CascadeClassifier"):
        raise NotFoundError(
            f"OpenCV {cv2.__version__} has no cascades, which find faces; install opencv-python<5"
        )
    folder: str = cv2.data.haarcascades  # type: ignore[attr-defined]
    cascade = cv2.CascadeClassifier(f"{folder}haarcascade_{name}.xml")
    if cascade.empty():
        raise NotFoundError(f"OpenCV's haarcascade_{name}.xml is missing; install opencv-python<5")
    return cascade


def find_by_cascade(
    image: Image.Image, number: int = 1, looks: int = len(LOOKS)
) -> list[DetectedFace]:
    """Find faces by the Haar cascades of OpenCV; those that one cascade alone sees come last, else
    the largest first.

    Args:
        number: look closer until so many faces are found.
        looks: how many of `LOOKS` are taken at most.
    """
    grey = np.asarray(image.convert("L"))
    boxes: list[tuple[float, float, float, int]] = []
    for nth, look in enumerate(LOOKS[:looks]):
        found = _cascade_boxes(grey, *look)
        sure = [box for box in found if box[3] > 1]
        if nth == len(LOOKS) - 1:
            found = sure
        if sure or not boxes:
            boxes = found
        if sum(seen > 1 for *_, seen in boxes) >= number:
            break

    faces = [(_face_in(grey, box), box[2], seen) for *box, seen in boxes]
    faces.sort(key=lambda row: (row[2] == 1, -row[1]))
    doubted = []
    for face, _, seen in faces:
        few = (f"{seen} of {len(CASCADES)} cascades see it",) if seen < len(CASCADES) else ()
        doubted.append(replace(face, certain=seen > 1, doubts=(*few, *face.doubts)))

    return doubted


def seen_by_cascades(image: Image.Image) -> bool:
    """Return whether two of the cascades see the same face, which fills most of the picture."""
    boxes = _cascade_boxes(np.asarray(image.convert("L")), *LOOKS[0])
    return any(seen > 1 for *_, seen in boxes)


def _cascade_boxes(
    grey: Any, larger: int, smallest: float
) -> list[tuple[float, float, float, int]]:
    """Return the horizontal and vertical centre and width of the boxes around faces, and how many
    cascades see each; see `LOOKS`."""
    scale = min(larger * DETECTION_SIDE / min(grey.shape), LONGEST_SIDE / max(grey.shape))
    if min(grey.shape) * scale < DETECTION_SIDE / 10:
        return []  # a strip too narrow for a face
    if larger > 1 and scale > 1:
        return []  # enlarged, a picture shows nothing new

    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    # The cascades were trained on evenly lit faces.
    work = cv2.equalizeHist(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=method))
    least = int(smallest * min(work.shape))

    groups: list[list[tuple[float, float, float, str]]] = []

    for name, beside in CASCADES.items():
        for x, y, w, h in _cascade(name).detectMultiScale(
            work, 1.1, beside, minSize=(least, least)
        ):
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


def _same_face(
    one: tuple[float, float, float, str], other: tuple[float, float, float, str]
) -> bool:
    apart = np.hypot(one[0] - other[0], one[1] - other[1])
    return bool(apart < 0.3 * max(one[2], other[2]) and 0.55 < other[2] / one[2] < 1.8)


def _face_in(grey: Any, box: Sequence[float]) -> DetectedFace:
    """Return the face in a cascade's box (centre and width); its eyes are looked for as it is, and
    again when turned upright.

    Places and directions are complex numbers, as in `quad_from_eyes`.
    """
    x, y, width = box
    side = width * SQUARE_OF_BOX
    centre = complex(x, y) - 1j * DROP_OF_BOX * side
    around = (x - width / 2, y - width / 2, width, width)

    pair = _find_eyes(grey, centre, side + 0j)

    if pair is None:
        left, right = (centre + side * eye for eye in EYES_IN_SQUARE)
        return DetectedFace(
            around,
            (left.real, left.imag),
            (right.real, right.imag),
            False,
            doubts=("no eyes found",),
        )

    doubts = []
    across = pair[1] - pair[0]
    along = across / abs(across) * np.sqrt(side * 4 * abs(across))
    upright = sum(pair) / 2 - along * sum(EYES_IN_SQUARE) / 2
    again = _find_eyes(grey, upright, along)
    if again is None:
        doubts.append("the eyes were not found again after the face was turned upright")
    elif abs(np.log(abs(again[1] - again[0]) / abs(across))) > ODD_CHANGE:
        doubts.append("the eyes were found elsewhere after the face was turned upright")

    left, right = again or pair

    across = right - left
    angle = float(np.degrees(np.angle(across)))
    if abs(angle) > ODD_ANGLE:
        doubts.append(f"the eyes lie at an angle of {abs(angle):.0f} degrees")

    size = float(np.log(4 * abs(across) / side))
    if abs(size) > ODD_SIZE:
        doubts.append(
            f"the eyes are too {'far apart' if size > 0 else 'close together'} for a face of "
            "this size"
        )

    # The box and the eyes err independently and about equally in size.
    half = across / 2 * np.exp(-BOX_SHARE * size)
    left, right = (left + right) / 2 - half, (left + right) / 2 + half
    eyes = [(float(eye.real), float(eye.imag)) for eye in (left, right)]
    return DetectedFace(around, eyes[0], eyes[1], True, doubts=tuple(doubts))


def _find_eyes(grey: Any, centre: complex, along: complex) -> tuple[complex, complex] | None:
    """Return the most plausible pair of eyes in a square, left one first, in pixels of the photo.

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
    # warpAffine reads single pixels; without a blur, a large photo would alias in the small patch.
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.4 * shrinks) if shrinks > 2 else grey
    patch = cv2.warpAffine(smooth, transform, (size, size), borderMode=cv2.BORDER_REPLICATE)
    top = int(0.2 * size)
    bottom = int(0.72 * size)

    # not equalised: the eye cascades find more in the brightness as it is
    patch = patch[top:bottom]

    groups: list[list[tuple[complex, str]]] = []

    for name in ("eye", "eye_tree_eyeglasses"):
        least = int(0.07 * size)
        most = int(0.3 * size)
        hits = _cascade(name).detectMultiScale(
            patch, 1.05, 2, minSize=(least, least), maxSize=(most, most)
        )
        for x, y, w, h in hits:
            place = complex(x + w / 2, y + h / 2 + top) / size - (0.5 + 0.5j)
            group = next((group for group in groups if abs(group[0][0] - place) < 0.04), None)
            if group is None:
                groups.append([(place, name)])
            else:
                group.append((place, name))

    best = None
    least_strange = UNLIKELY_PAIR
    places = [
        (sum(place for place, _ in group) / len(group), len({name for _, name in group}))
        for group in groups
    ]

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
    """Return the squared spreads by which a pair differs from the eyes of an average face, in sides
    of the square about its centre."""
    usual_left, usual_right = EYES_IN_SQUARE
    size = np.log(abs(right - left) / abs(usual_right - usual_left)) / PAIR_SPREAD["size"]
    angle = np.degrees(np.angle(right - left)) / PAIR_SPREAD["degrees"]
    place = abs((left + right) / 2 - (usual_left + usual_right) / 2) / PAIR_SPREAD["place"]
    return float(size**2 + angle**2 + place**2)
