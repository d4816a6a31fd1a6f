"""Measures what dragging does to people who are not in the training data of `faces128`.

    PYTHONPATH=recipes python benchmarks/dragging.py ../shared/data/portraits --out docs

Inverts portraits of the London set (held out, neutral) as `latentedit invert` does, and drags two
things as the command does: the lower lip down, while the upper one is held, and the nose aside.
Prints for both how far the handles end from their targets, as the drag sees it and as dlib's
landmarks do, how much the mouth opened or the head turned and how much was wanted, in distances
between the eyes, dlib's distance between the faces before and after, and the share of broken
images, before the drag too: dlib finds no face, or the discriminator scores it below 99 % of random
faces. A drag by landmarks asks dlib too; --by features does not, and holds what lies outside a mask
around the mouth.
Options and targets were chosen on training people and random faces. Inversions are kept in runs/.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from portrait_judge import SAME_PERSON, Faces, enlarged, measures_of
from torch import Tensor

from latentedit.cli.common import progress_bar
from latentedit.directions.face_drag import Guide, face_drag, guide_for
from latentedit.formats.load_model import load_model
from latentedit.inversion.options import InversionOptions
from latentedit.inversion.projector import Projector
from latentedit.io.images import load_image, save_image, to_pil, to_tensor
from latentedit.latent.dragging import Drag, DragOptions, Handle, drag, finished, nearer
from latentedit.latent.latent_file import Latent
from latentedit.model.model import Model
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator

Array = NDArray[np.float64]
SIDE = 128
OPENING = 0.15
"""How far the lower lip is dragged, in distances between the eyes: 79 % of the people in
train.csv have their inner lips less far apart."""
TURN = 0.13
"""How far the nose is dragged: 83 % of the people in train.csv look aside by less."""
LEAST_SCORE = -7.47
"""The discriminator's score of which 1 % of 400 random faces of `faces128-v3` (psi 0.7) fall
short, where it sees one image at a time, as here: in a batch it compares them."""
NOSE, UPPER_LIP, LOWER_LIP, CHIN, UNDER_NOSE = 30, 51, 57, 8, 33
SHOWN = 6
SCALE = 2


@dataclass(frozen=True)
class Seen:
    """What dlib sees in an image."""

    points: Array
    """Landmarks in pixels, ``[68, 2]``; NaN without a face."""
    descriptor: Array
    """``[128]``."""

    @property
    def between(self) -> float:
        """The distance between the eyes, in pixels."""
        eyes = self.points[36:42].mean(axis=0) - self.points[42:48].mean(axis=0)
        return float(np.linalg.norm(eyes))

    def point(self, number: int, right: float = 0.0, down: float = 0.0) -> tuple[float, float]:
        """A landmark, moved by distances between the eyes, to whole pixels as a person points."""
        x, y = self.points[number] + np.array([right, down]) * self.between
        return float(np.clip(round(x), 0, SIDE - 1)), float(np.clip(round(y), 0, SIDE - 1))

    def measure(self, name: str) -> float:
        return float(measures_of(self.points[None])[name][0])


@dataclass(frozen=True)
class Task:
    """Something to drag."""

    name: str
    measure: str
    """What dlib's landmarks measure of it (`portrait_judge.measures_of`)."""
    wanted: float
    """By how much it shall change."""
    landmarks: tuple[int, ...]
    """Those of the handles."""
    handles: Callable[[Seen, int], list[Handle]]
    mask: Callable[[Seen], Tensor] | None = None


def lips(seen: Seen, _: int) -> list[Handle]:
    lower = Handle(seen.point(LOWER_LIP), seen.point(LOWER_LIP, down=OPENING))
    return [lower, Handle(seen.point(UPPER_LIP), seen.point(UPPER_LIP))]


def nose(seen: Seen, number: int) -> list[Handle]:
    side = 1 if number % 2 else -1
    return [Handle(seen.point(NOSE), seen.point(NOSE, right=side * TURN))]


def around_the_mouth(seen: Seen) -> Tensor:
    """An ellipse from the nose to below the chin, as a person would paint it."""
    middle = (seen.points[UPPER_LIP] + seen.points[CHIN]) / 2 + [0, 0.1 * seen.between]
    width = np.linalg.norm(seen.points[48] - seen.points[54])
    height = seen.points[CHIN, 1] - seen.points[UNDER_NOSE, 1]
    axes = 0.75 * width + 0.1 * seen.between, 0.5 * height + 0.2 * seen.between
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    centre = tuple(int(value) for value in middle)
    cv2.ellipse(pixels, centre, tuple(int(axis) for axis in axes), 0, 0, 360, 255, -1)
    return torch.from_numpy(pixels / 255.0).float()[None, None]


TASKS = (
    Task(
        "opening the mouth", "mouth_open", OPENING, (LOWER_LIP, UPPER_LIP), lips, around_the_mouth
    ),
    Task("turning the head", "yaw", TURN, (NOSE,), nose),
)


def score_of(model: Model, image: Tensor) -> float:
    """What the model's discriminator says of an image."""
    if model.discriminator is None:
        return float("nan")
    with torch.no_grad():
        return float(model.discriminator(image))


def looked_at(faces: Faces, image: Tensor) -> Seen:
    points, descriptor = faces(enlarged(image)[0])
    # dlib looks at an image of twice the size; a pixel's centre has whole numbers here.
    return Seen((points + 0.5) / 2 - 0.5, descriptor)


def inverted(data: Path, model: Model, people: int, kept: Path) -> tuple[list[str], list[Latent]]:
    """Names and latents of the first ``people`` of the London set, kept in ``kept``."""
    with open(data / "held_out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    london = [row for row in rows if row["source"] == "london" and row["expression"] == "neutral"]
    chosen = [row["file"] for row in london[:people]]
    own = fingerprint(model.generator)
    found: dict[str, Any] = {}
    if kept.is_file():
        found = torch.load(kept, weights_only=True)
    if found.get("fingerprint") != own:
        found = {"fingerprint": own, "latents": {}}
    latents = found["latents"]
    projector = Projector(model)
    missing = [name for name in chosen if name not in latents]
    with progress_bar(len(missing), "inverting", "photo") as bar:
        for name in missing:
            image = load_image(data / "held_out" / name, size=SIDE)
            result = projector.invert(image, InversionOptions(space="w+"))
            latents[name] = {"ws": result.ws, "noise": [map_.half() for map_ in result.noise]}
            bar.update(1)
    kept.parent.mkdir(exist_ok=True)
    torch.save(found, kept)
    made = [latents[name] for name in chosen]
    return chosen, [
        Latent(one["ws"], [map_.float() for map_ in one["noise"]], own, "w+") for one in made
    ]


@dataclass(frozen=True)
class Dragged:
    """One drag of one person."""

    before: Tensor
    after: Tensor
    handles: Sequence[Handle]
    mask: Tensor | None
    result: Drag
    figures: dict[str, float]


def by_command(
    generator: Generator,
    latent: Latent,
    handles: Sequence[Handle],
    options: DragOptions,
    mask: Tensor | None,
    guide: Guide | None,
) -> Drag:
    """What `latentedit drag` does: by landmarks if there is a guide, else by features."""
    moves = None if guide is None else face_drag(generator, latent, handles, guide)
    if moves is None:
        return drag(generator, latent, handles, options, mask=mask)
    way = list(moves)
    return finished(latent, handles, reduce(nearer, way[1:], way[0]))


def dragged(
    task: Task,
    number: int,
    latent: Latent,
    model: Model,
    faces: Faces,
    options: DragOptions,
    guide: Guide | None,
) -> Dragged | None:
    """Drag the face of ``latent``; None where dlib finds no face to begin with."""
    generator = model.generator
    before = latent.render(generator)
    was = looked_at(faces, before)
    if np.isnan(was.points).any():
        return None
    handles = task.handles(was, number)
    mask = None if task.mask is None or guide is not None else task.mask(was)
    began = time.process_time()
    result = by_command(generator, latent, handles, options, mask, guide)
    seconds = time.process_time() - began
    after = result.latent.render(generator)
    now = looked_at(faces, after)
    ways = zip(handles, task.landmarks, strict=True)
    # A landmark is expected where it was, plus the way of its handle.
    apart = [
        np.linalg.norm(now.points[mark] - was.points[mark] - np.array(h.target) + np.array(h.start))
        for h, mark in ways
    ]
    moving = [i for i, h in enumerate(handles) if h.start != h.target]
    sign = np.sign(sum(sum(h.target) - sum(h.start) for h in handles))
    figures = {
        "way": float(
            np.mean(
                [np.linalg.norm(np.subtract(handles[i].target, handles[i].start)) for i in moving]
            )
        ),
        "distance": float(np.mean(result.distances)),
        "landmark": float(np.mean(apart)),
        "effect": float(sign * (now.measure(task.measure) - was.measure(task.measure))),
        "identity": float(np.linalg.norm(now.descriptor - was.descriptor)),
        "wanted": task.wanted,
        "broken": float(np.isnan(now.points).any() or score_of(model, after) < LEAST_SCORE),
        "broken_before": float(score_of(model, before) < LEAST_SCORE),
        "within": float(np.linalg.norm(now.descriptor - was.descriptor) <= SAME_PERSON[1]),
        "arrived": float(result.arrived),
        "steps": float(result.steps),
        "seconds": seconds,
    }
    return Dragged(before, after, handles, mask, result, figures)


HEADER = (
    "| | people | way (px) | left (px) | left by landmarks (px) | arrived | wanted | effect |"
    " identity distance | within 0.42 | broken before | broken | steps | processor time (s) |\n"
    "|" + "---|" * 14
)


def summary(found: Sequence[Dragged]) -> dict[str, float]:
    """Means over people, and the median of identity distances."""
    columns = {name: [one.figures[name] for one in found] for name in found[0].figures}
    table = {name: round(float(np.nanmean(values)), 3) for name, values in columns.items()}
    table["identity"] = round(float(np.nanmedian(columns["identity"])), 3)
    return {"people": len(found), **table}


def line(name: str, f: dict[str, float]) -> str:
    return (
        f"| {name} | {f['people']:.0f} | {f['way']:.1f} | {f['distance']:.1f} |"
        f" {f['landmark']:.1f} | {f['arrived']:.0%} | {f['wanted']:+.2f} | {f['effect']:+.2f} |"
        f" {f['identity']:.2f} | {f['within']:.0%} | {f['broken_before']:.0%} |"
        f" {f['broken']:.0%} | {f['steps']:.0f} | {f['seconds']:.1f} |"
    )


def marked(one: Dragged) -> Tensor:
    """The image before, with handles (red), targets (blue) and what the mask holds darkened."""
    image = to_pil(one.before).convert("RGB").resize((SCALE * SIDE,) * 2, Image.Resampling.BICUBIC)
    if one.mask is not None:
        held = Image.fromarray(((1 - one.mask[0, 0].numpy()) * 110).astype(np.uint8))
        image.paste((0, 0, 0), mask=held.resize(image.size))
    pen = ImageDraw.Draw(image)
    for handle in one.handles:
        (x, y), (a, b) = (
            [SCALE * (value + 0.5) for value in point] for point in (handle.start, handle.target)
        )
        pen.line((x, y, a, b), fill="white", width=2)
        for (u, v), colour in (((a, b), "#1b6fe0"), ((x, y), "#e0245e")):
            pen.ellipse((u - 4, v - 4, u + 4, v + 4), fill=colour, outline="white")
    return to_tensor(image)


def picture(path: Path, results: dict[str, list[Dragged]]) -> None:
    """Two rows a task: handles and mask, and what came of it."""
    rows = []
    for found in results.values():
        shown = found[:SHOWN]
        rows.append(torch.cat([marked(one) for one in shown], dim=3))
        large = [
            to_pil(one.after).convert("RGB").resize((SCALE * SIDE,) * 2, Image.Resampling.BICUBIC)
            for one in shown
        ]
        rows.append(torch.cat([to_tensor(image) for image in large], dim=3))
    save_image(torch.cat(rows, dim=2), path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="faces128")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--steps", type=int, default=DragOptions().steps)
    parser.add_argument("--by", choices=("landmarks", "features"), default="landmarks")
    parser.add_argument("--out", type=Path, help="folder for dragging.json and dragging.jpg")
    chosen = parser.parse_args()

    model = load_model(chosen.model)
    faces = Faces()
    options = replace(DragOptions(), steps=chosen.steps)
    _, latents = inverted(chosen.data, model, chosen.people, Path("runs") / "dragging.pt")
    guide = guide_for(model.generator) if chosen.by == "landmarks" else None
    results: dict[str, list[Dragged]] = {}
    for task in TASKS:
        found = []
        with progress_bar(len(latents), task.name, "person") as bar:
            for number, latent in enumerate(latents):
                one = dragged(task, number, latent, model, faces, options, guide)
                if one is not None:
                    found.append(one)
                bar.update(1)
        results[task.name] = found

    print(f"\n{HEADER}")
    table = {name: summary(found) for name, found in results.items()}
    for name, f in table.items():
        print(line(name, f))
    if chosen.out:
        (chosen.out / "dragging.json").write_text(json.dumps(table, indent=1) + "\n")
        picture(chosen.out / "dragging.jpg", results)


if __name__ == "__main__":
    main()
