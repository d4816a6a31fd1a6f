"""What edits made with `faces128` do to a face, by a judge that knows neither model nor sliders.

    judge = PortraitJudge("runs/judge.safetensors")
    before, after = judge.look(rendered), judge.look(moved)
    brought_over(before, after, "smile", +1)
    side_effects(before, after, "smile")
    identity(before, after)

Three witnesses, none of them fitted to a rendering:

- dlib's 68 landmarks, for smile, mouth-open, turn, eyes-open and face-width: lengths in units of
  the distance between the eyes, as in ../shared/data/portraits/train.csv;
- a small CNN (recipes/judge.py) for glasses, beard, femininity, grey-hair and bald;
- dlib's face descriptor for identity, and its detector for whether a picture is still a face.

Background, light and warmth are measured in pixels. dlib and face_recognition_models are no
dependencies of the project: `pip install "latentedit[faces]"`.
"""

import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentedit.errors import Error
from latentedit.io.header import read_header
from latentedit.io.images import to_uint8
from latentedit.metrics import Judge, load_judge
from latentedit.metrics.judge import FORMAT, VERSION

Array = NDArray[np.float64]

RESOLUTION = 128
ENLARGED = 256
"""The side at which dlib looks at a picture, in pixels; its detector finds no face below 80."""

HEADS = {
    "glasses": "glasses",
    "beard": "beard",
    "femininity": "woman",
    "grey-hair": "grey_hair",
    "bald": "bald",
    "teeth": "teeth",
}
"""Attributes that the CNN answers, and the head of each."""

LANDMARKED = {
    "mouth-open": "mouth_open",
    "turn": "yaw",
    "eyes-open": "eyes_open",
    "face-width": "face_width",
}
"""Attributes that are one measure of the landmarks each; smile is three (`SMILE`)."""

SMILE = ("corners_up", "mouth_width", "mouth_open")
PIXELS = ("background", "light", "warmth")
ATTRIBUTES = ("smile", *LANDMARKED, *HEADS, *PIXELS)

RELATED = (
    {"smile", "mouth-open"},
    {"smile", "teeth"},
    {"smile", "eyes-open"},
    {"mouth-open", "teeth"},
    {"glasses", "eyes-open"},
    {"femininity", "beard"},
    {"turn", "face-width"},
)
"""Pairs of which one changes with the other in life too, so neither is a side effect of the other:
who smiles shows teeth and narrows the eyes, less is seen of a turned jaw, frames hide lids, and
beards are men's."""

SAME_PERSON = (0.6, 0.42)
"""Descriptor distances up to which two pictures show one person: dlib's own, and the distance of
the nearest stranger in ../shared/data/portraits."""

SHIFTS = (0.0, 0.03, -0.03)
"""Landmarks are the mean over the found square and two moved along the diagonal, in its sides."""


def measures_of(points: Array) -> dict[str, Array]:
    """Lengths on faces, in units of the distance between the eyes.

    Args:
        points: ``[N, 68, 2]``, x to the right and y down, numbered as in the iBUG 300-W set (dlib's
            predictor); NaN where there is no face.

    Returns:
        ``[N]`` each: `yaw` (nose tip against the middle of the eyes, positive to the right of the
        picture), `corners_up` (mouth corners above the middle of the outer lips), `mouth_width`,
        `mouth_open` (between the inner lips), `face_width` (between the first and last point of the
        jaw), and `eyes_open`, the eyes' mean aspect ratio (Soukupova and Cech 2016, eq. 1).
    """
    first = points[:, 36:42].mean(axis=1)
    second = points[:, 42:48].mean(axis=1)
    between = np.linalg.norm(second - first, axis=1)

    def length(a: int, b: int) -> Array:
        distance: Array = np.linalg.norm(points[:, a] - points[:, b], axis=1)
        return distance

    def opening(corner: int) -> Array:
        """Aspect ratio of the eye that begins at the point ``corner``."""
        heights = length(corner + 1, corner + 5) + length(corner + 2, corner + 4)
        return heights / (2 * length(corner, corner + 3))

    middle = (first + second) / 2
    lips = (points[:, 51, 1] + points[:, 57, 1]) / 2
    corners = (points[:, 48, 1] + points[:, 54, 1]) / 2

    return {
        "yaw": (points[:, 30, 0] - middle[:, 0]) / between,
        "corners_up": (lips - corners) / between,
        "mouth_width": length(48, 54) / between,
        "mouth_open": length(62, 66) / between,
        "face_width": length(0, 16) / between,
        "eyes_open": (opening(36) + opening(42)) / 2,
    }


def pixels_of(pictures: Tensor) -> dict[str, Array]:
    """What is measured in pixels of ``[N, 3, 128, 128]`` in [-1, 1], framed as FFHQ: ``[N]`` each.

    `background` is the mean luma (BT.601) of the upper corners, `light` that of the face between
    brows and lips, and `warmth` its red minus its blue.
    """
    weights = torch.tensor([0.299, 0.587, 0.114], device=pictures.device)[:, None, None]
    luma = (pictures * weights).sum(dim=1)
    corners = torch.cat([luma[:, :28, :18], luma[:, :28, -18:]], dim=2)
    face = pictures[:, :, 54:102, 42:86]

    found = {
        "background": corners.mean(dim=(1, 2)),
        "light": luma[:, 54:102, 42:86].mean(dim=(1, 2)),
        "warmth": (face[:, 0] - face[:, 2]).mean(dim=(1, 2)),
    }
    return {name: value.double().cpu().numpy() for name, value in found.items()}


@dataclass(frozen=True)
class Reference:
    """Where answers turn, and how far people differ; measured on `train.csv` by the judge."""

    smile_middle: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Midway between neutral and smiling, of `SMILE`."""

    smile_step: tuple[float, ...] = (1.0, 0.0, 0.0)
    """From neutral to smiling, of `SMILE`: a whole real smile."""

    middles: dict[str, float] = field(default_factory=dict)
    """The measure that is neither side, by attribute of landmarks or pixels; 0 where missing."""

    deviations: dict[str, float] = field(default_factory=dict)
    """Standard deviation over people of every attribute's score; 1 where missing."""


@dataclass(frozen=True)
class Looks:
    """What the judge saw of N pictures.

    Attributes:
        logits: by head of the CNN, ``[N]``; 0 is undecided.
        measures: of `measures_of`, NaN where no face was found, and `pixels_of`; ``[N]`` each.
        descriptors: ``[N, 128]``, NaN where no face was found or none were asked for.
        found: ``[N]``, whether there is a face.
        reference: what scores are counted from.
    """

    logits: dict[str, Array]
    measures: dict[str, Array]
    descriptors: Array
    found: NDArray[np.bool_]
    reference: Reference = Reference()

    def __len__(self) -> int:
        return len(self.found)

    def score(self, attribute: str) -> Array:
        """How much of an attribute there is, ``[N]``; 0 is the undecided point, NaN unknown.

        Smile is in whole real smiles, turn in standard deviations of yaw, what landmarks and pixels
        say in the units of the measure, and the CNN's answers are log odds.

        Raises:
            Error: no such attribute.
        """
        reference = self.reference
        if attribute == "smile":
            step = np.array(reference.smile_step)
            mouth = np.stack([self.measures[name] for name in SMILE], axis=1)
            along: Array = (mouth - np.array(reference.smile_middle)) @ step / (step @ step)
            return along
        if attribute == "turn":
            return self.measures["yaw"] / reference.deviations.get("yaw", 1.0)
        if attribute in HEADS:
            return self.logits[HEADS[attribute]]
        if attribute in LANDMARKED or attribute in PIXELS:
            measure = LANDMARKED.get(attribute, attribute)
            return self.measures[measure] - reference.middles.get(attribute, 0.0)
        raise Error(f"the judge does not know {attribute!r}; it knows {', '.join(ATTRIBUTES)}")

    def side(self, attribute: str) -> Array:
        """Which answer is given, ``[N]``: 1 or -1, of turn also 0 (straight); NaN: unknown."""
        score = self.score(attribute)
        if attribute == "turn":
            return np.where(np.isnan(score), np.nan, np.sign(score) * (np.abs(score) > 1))
        return np.where(np.isnan(score), np.nan, np.where(score > 0, 1.0, -1.0))


def joined(parts: Sequence[Looks]) -> Looks:
    """Looks at several lots of pictures as one."""
    first = parts[0]
    return Looks(
        {head: np.concatenate([part.logits[head] for part in parts]) for head in first.logits},
        {name: np.concatenate([part.measures[name] for part in parts]) for name in first.measures},
        np.concatenate([part.descriptors for part in parts]),
        np.concatenate([part.found for part in parts]),
        first.reference,
    )


def unrelated(slider: str) -> list[str]:
    """The attributes that a slider should leave alone."""
    return [name for name in ATTRIBUTES if name != slider and {name, slider} not in RELATED]


def brought_over(before: Looks, after: Looks, slider: str, sign: int) -> tuple[float, int]:
    """The share of pictures from the other side that an edit brings over, and how many were asked.

    Asked are pictures on the other side before the edit; of turn those that look straight ahead. A
    picture in which no face is found any more counts as not brought over.

    Args:
        sign: 1 or -1, the end that the slider was moved to.

    Returns:
        The share, NaN where none was asked, and the number asked.
    """
    start = before.side(slider)
    end = after.side(slider)
    asked = start == (0 if slider == "turn" else -sign)
    share = float((end[asked] == sign).mean()) if asked.any() else float("nan")
    return share, int(asked.sum())


def side_effects(before: Looks, after: Looks, slider: str) -> dict[str, dict[str, float]]:
    """What an edit does to every attribute that it should leave alone (`unrelated`).

    Returns:
        By attribute: `changed`, the share of pictures whose answer becomes another one; `mean`, the
        mean change of its score, and `spread`, the mean of the change without its sign, both in
        standard deviations over people. Pictures without a face, before or after, are left out of
        what landmarks measure.
    """
    found = {}
    for name in unrelated(slider):
        change = after.score(name) - before.score(name)
        known = ~np.isnan(change)
        if not known.any():
            found[name] = {"changed": float("nan"), "mean": float("nan"), "spread": float("nan")}
            continue
        # Turn is already counted in standard deviations.
        unit = 1.0 if name == "turn" else before.reference.deviations.get(name, 1.0)
        found[name] = {
            "changed": float((after.side(name) != before.side(name))[known].mean()),
            "mean": float(change[known].mean()) / unit,
            "spread": float(np.abs(change[known]).mean()) / unit,
        }
    return found


def distances(before: Looks, after: Looks) -> Array:
    """Euclidean distance between descriptors, picture by picture, ``[N]``; NaN without a face."""
    apart: Array = np.linalg.norm(after.descriptors - before.descriptors, axis=1)
    return apart


def identity(before: Looks, after: Looks) -> dict[str, float]:
    """Whether pictures still show the same people.

    Returns:
        The median and mean distance where both have a face; of the pictures that had a face the
        share within 0.6 and within 0.42 (a lost face is not), and the share that still have one.
    """
    apart = distances(before, after)
    known = ~np.isnan(apart)
    had = before.found
    nan = float("nan")
    near = {f"within_{limit:g}": apart[had] <= limit for limit in SAME_PERSON}
    shares = {name: float(value.mean()) if had.any() else nan for name, value in near.items()}
    return {
        "median": float(np.median(apart[known])) if known.any() else nan,
        "mean": float(apart[known].mean()) if known.any() else nan,
        **shares,
        "still_faces": float(after.found[had].mean()) if had.any() else nan,
    }


def dlib_models() -> Path:
    """The folder of dlib's networks.

    The package face_recognition_models has them; it is not imported, for it needs the pkg_resources
    that setuptools 81 dropped.

    Raises:
        Error: dlib or the package is missing.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    places = spec.submodule_search_locations if spec is not None else None
    if importlib.util.find_spec("dlib") is None or not places:
        raise Error('the judge of portraits needs `pip install "latentedit[faces]"`')
    return Path(places[0]) / "models"


class Faces:
    """Detector, landmarks and descriptor of dlib, for one picture at a time."""

    def __init__(self, descriptors: bool = True) -> None:
        folder = dlib_models()
        self.dlib: Any = importlib.import_module("dlib")
        self.detector = self.dlib.get_frontal_face_detector()
        points = folder / "shape_predictor_68_face_landmarks.dat"
        self.predictor = self.dlib.shape_predictor(str(points))
        self.network = None
        if descriptors:
            weights = folder / "dlib_face_recognition_resnet_model_v1.dat"
            self.network = self.dlib.face_recognition_model_v1(str(weights))

    def square(self, picture: NDArray[np.uint8]) -> Any | None:
        """The largest face in ``[H, W, 3]``; small ones are looked for only where there is none."""
        found = list(self.detector(picture, 0)) or list(self.detector(picture, 1))
        return max(found, key=lambda rectangle: rectangle.area(), default=None)

    def landmarks(self, picture: NDArray[np.uint8], square: Any) -> Array:
        """The 68 points in pixels, ``[68, 2]``: steadier as a mean over slightly moved squares."""
        total = np.zeros((68, 2))
        for shift in SHIFTS:
            by = round(shift * square.width())
            left = square.left()
            top = square.top()
            right = square.right()
            bottom = square.bottom()
            moved = self.dlib.rectangle(left + by, top + by, right + by, bottom + by)
            total += [(point.x, point.y) for point in self.predictor(picture, moved).parts()]
        return total / len(SHIFTS)

    def descriptor(self, picture: NDArray[np.uint8], square: Any) -> Array:
        """The 128 numbers of the face, from a chip of 150 pixels upright on its landmarks."""
        if self.network is None:
            return np.full(128, np.nan)
        points = self.predictor(picture, square)
        return np.array(self.network.compute_face_descriptor(picture, points))

    def __call__(self, picture: NDArray[np.uint8]) -> tuple[Array, Array]:
        """Landmarks ``[68, 2]`` and descriptor ``[128]`` of ``[H, W, 3]``; NaN without a face."""
        square = self.square(picture)
        if square is None:
            return np.full((68, 2), np.nan), np.full(128, np.nan)
        return self.landmarks(picture, square), self.descriptor(picture, square)


def enlarged(pictures: Tensor) -> list[NDArray[np.uint8]]:
    """``[N, 3, 128, 128]`` in [-1, 1] as ``[256, 256, 3]`` each, by cubic interpolation."""
    pixels = to_uint8(pictures).permute(0, 2, 3, 1).cpu().numpy()
    size = (ENLARGED, ENLARGED)
    larger = [cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in pixels]
    return [np.ascontiguousarray(one) for one in larger]


_faces: Faces | None = None  # one for every process of the pool, since dlib's objects do not travel


def _start(descriptors: bool) -> None:
    global _faces
    _faces = Faces(descriptors)


def _seen(picture: NDArray[np.uint8]) -> tuple[Array, Array]:
    assert _faces is not None
    return _faces(picture)


class PortraitJudge:
    """Landmarks, CNN and descriptor in one, for pictures of `faces128`.

    Args:
        path: the file that recipes/judge.py wrote.
        descriptors: whether to take dlib's descriptors too, which cost more than all else together.
        processes: how many look for faces at once. With more than one, call from under
            ``if __name__ == "__main__"``.

    Raises:
        Error: no such file, one of a judge of other pictures, or no dlib.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        descriptors: bool = True,
        processes: int = 1,
    ) -> None:
        self.network = load_judge(path)
        missing = set(HEADS.values()) - set(self.network.heads)
        if (self.network.channels, self.network.resolution) != (3, RESOLUTION) or missing:
            kind = f"a judge of colour portraits of {RESOLUTION} px"
            raise Error(f"{path}: not {kind}; recipes/judge.py makes one")

        provenance = read_header(path, FORMAT, VERSION).get("provenance", {})
        self.reference = Reference(**provenance.get("reference", {}))
        self.descriptors = descriptors
        self.processes = processes
        self.faces = Faces(descriptors) if processes == 1 else None

    def centre_on(self, pictures: Tensor) -> None:
        """Take the medians of these pictures, random ones of a model, as middles of `PIXELS`."""
        medians = {name: float(np.median(value)) for name, value in pixels_of(pictures).items()}
        self.reference = replace(self.reference, middles={**self.reference.middles, **medians})

    def look(self, pictures: Tensor) -> Looks:
        """Look at pictures ``[N, 3, 128, 128]`` in [-1, 1].

        Raises:
            Error: pictures of another shape.
        """
        if pictures.ndim != 4 or pictures.shape[1:] != (3, RESOLUTION, RESOLUTION):
            expected = f"[N, 3, {RESOLUTION}, {RESOLUTION}]"
            raise Error(f"the judge looks at pictures {expected}, got {list(pictures.shape)}")

        pictures = pictures.detach().float().clamp(-1, 1).cpu()
        with self._looking() as look:
            seen = list(look(enlarged(pictures)))
        points = np.array([landmarks for landmarks, _ in seen]).reshape(-1, 68, 2)
        descriptors = np.array([descriptor for _, descriptor in seen]).reshape(-1, 128)

        return Looks(
            logits=logits_of(self.network, pictures),
            measures={**measures_of(points), **pixels_of(pictures)},
            descriptors=descriptors,
            found=~np.isnan(points[:, 0, 0]),
            reference=self.reference,
        )

    @contextmanager
    def _looking(self) -> Iterator[Any]:
        if self.faces is not None:
            yield lambda pictures: map(self.faces, pictures)
            return
        context = get_context("spawn")
        with ProcessPoolExecutor(self.processes, context, _start, (self.descriptors,)) as pool:
            yield lambda pictures: pool.map(_seen, pictures, chunksize=8)


@torch.no_grad()
def logits_of(network: Judge, pictures: Tensor) -> dict[str, Array]:
    """Mean log odds of pictures and their mirror images, ``[N]`` for every head of two classes."""
    parts = []
    for some in pictures.split(64):
        straight = network(some)
        mirrored = network(some.flip(3))
        parts.append({head: (straight[head] + mirrored[head]) / 2 for head in network.heads})
    together = {head: torch.cat([part[head] for part in parts]) for head in network.heads}
    return {head: value.double().numpy() for head, value in together.items()}
