"""How near the crops that the toolkit takes lie to FFHQ's alignment, with the extra
``latentedit[faces]`` and without.

    python benchmarks/framing.py ../shared/data/portraits

Prints the table of docs/photo.md. The photographs are the 58 whole portraits of people whom no
training picture shows (``held_out_photos``); ``quads.json`` beside them has the square of each from
dlib's 68 landmarks. The offset of a crop is the mean distance of its four corners from that
square's, as a share of the square's side. A hit is announced where the toolkit calls it doubtful;
false alarms are announced hits that are off by less than 5 %. ``--made N`` adds N photos made of
training crops, turned, darkened and blurred: of this kind were those that the thresholds in
latentedit/photo/haar.py were chosen on, and they are harder.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentedit.io.images import open_image
from latentedit.photo.alignment import quad_from_face
from latentedit.photo.face import DetectedFace
from latentedit.photo.faces import find_faces
from latentedit.photo.framing import FRAMINGS
from latentedit.photo.haar import find_by_cascade
from latentedit.photo.landmarks import EXTRA, has_landmarks

NEAR = 0.05
FAR = 0.1
COLUMNS = (
    "found",
    "median",
    "worst",
    "beyond 5 %",
    "beyond 10 %: announced",
    "unannounced",
    "false alarms",
)

Square = NDArray[np.float64]
"""Corners ``[4, 2]``: upper left, upper right, lower right, lower left."""


def photographs(portraits: Path) -> Iterator[tuple[Image.Image, Square]]:
    """The whole photographs with their squares."""
    folder = portraits / "held_out_photos"
    for name, corners in json.loads((folder / "quads.json").read_text()).items():
        # The file goes round the other way: upper left, lower left, lower right, upper right.
        yield open_image(folder / name), np.array(corners)[[0, 3, 2, 1]]


def made_photographs(
    portraits: Path, count: int, seed: int = 0
) -> Iterator[tuple[Image.Image, Square]]:
    """Training crops turned, darkened, blurred and laid on made backgrounds; each is its own
    square."""
    draw = np.random.default_rng(seed)
    paths = sorted((portraits / "train").glob("*.jpg"))
    for path in draw.choice(np.array(paths), count, replace=False):
        width = int(draw.integers(300, 800))
        height = int(width * draw.uniform(0.8, 1.4))
        face = np.asarray(open_image(path).convert("RGB")).astype(np.float32)

        # The square: a third to the whole of the shorter side, mostly inside, tilted by some 9
        # degrees.
        side = min(width, height) * draw.uniform(0.35, 1)
        room = np.maximum(np.array([width, height]) - 0.9 * side, 0)
        centre = np.array([width, height]) / 2 + draw.uniform(-0.45, 0.45, 2) * room
        angle = np.radians(draw.normal(0, 9))
        half = np.array([np.cos(angle), np.sin(angle)]) * side / 2
        down = np.array([-half[1], half[0]])
        square = centre + np.array([-half - down, half - down, half + down, down - half])

        # Both are laid on a background of soft spots; the crop's edge fades into it.
        size = face.shape[0]
        source = np.array([[0, 0], [size, 0], [size, size]], dtype=np.float32) - 0.5
        transform = cv2.getAffineTransform(source, (square[:3] - 0.5).astype(np.float32))
        edge = np.clip(np.minimum(np.arange(size), np.arange(size)[::-1]) / 8, 0, 1).astype(
            np.float32
        )
        weight = cv2.warpAffine(np.minimum.outer(edge, edge), transform, (width, height))[..., None]
        laid = cv2.warpAffine(face, transform, (width, height), flags=cv2.INTER_CUBIC)
        spots = draw.uniform(0, 255, (12, 12, 3)).astype(np.float32)
        ground = cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC)
        picture = laid * weight + ground * (1 - weight)

        picture = 255 * (np.clip(picture, 0, 255) / 255) ** np.exp(draw.normal(0, 0.35))
        if draw.random() < 0.3:  # light from one side
            picture = picture * np.linspace(draw.uniform(0.2, 0.6), 1, width)[:, None]
        if draw.random() < 0.3:
            picture = cv2.GaussianBlur(picture, (0, 0), side / size * draw.uniform(0.3, 1))
        picture = picture + draw.normal(0, draw.uniform(0, 8), picture.shape)
        yield Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)), square


def offset(face: DetectedFace, square: Square) -> float:
    """Mean distance of the corners, in sides of the square."""
    found = np.array(quad_from_face(face, FRAMINGS["ffhq"]))
    side = np.linalg.norm(square[1] - square[0])
    return float(np.linalg.norm(found - square, axis=1).mean() / side)


def row(
    find: Callable[[Image.Image], list[DetectedFace]],
    pictures: Iterator[tuple[Image.Image, Square]],
) -> list[str]:
    """What a way of finding faces does on ``pictures``, a text a column."""
    total = 0
    offsets = []
    doubtful = []
    for picture, square in pictures:
        total += 1
        faces = find(picture)
        if faces:
            offsets.append(offset(faces[0], square))
            doubtful.append(bool(faces[0].doubts))
    off = np.array(offsets)
    told = np.array(doubtful)
    counts = [off > NEAR, (off > FAR) & told, (off > FAR) & ~told, (off < NEAR) & told]
    figures = [f"{len(off)} of {total}", f"{np.median(off):.1%}", f"{off.max():.1%}"]
    return figures + [str(int(count.sum())) for count in counts]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--made", type=int, default=0, metavar="N", help="photos made of training crops to add"
    )
    options = parser.parse_args()

    ways: dict[str, Callable[[Image.Image], list[DetectedFace]]] = {
        "without the extra": find_by_cascade
    }
    if has_landmarks():
        ways = {"with the extra": find_faces, **ways}
    else:
        print(f"The extra is not installed: {EXTRA}\n")

    portraits = options.data
    print(f"| | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, find in ways.items():
        print(f"| {name} | {' | '.join(row(find, photographs(portraits)))} |", flush=True)
    for name, find in ways.items() if options.made else ():
        cells = row(find, made_photographs(portraits, options.made))
        print(f"| made, {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
