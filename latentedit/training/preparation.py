"""From pictures of any kind to the squares that a network is trained on."""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image

from latentedit.errors import Error
from latentedit.faces import FRAMINGS, crop, find_faces, quad_from_face
from latentedit.images import EXTENSIONS, open_image, resample
from latentedit.training.data import LABELS, PictureSource


@dataclass(frozen=True)
class Preparation:
    """What is done to every picture."""

    size: int
    """Side of the squares in pixels, a power of two of at least 8."""
    crop: Literal["centre", "face"] | tuple[float, float, float] = "centre"
    """"centre": what ``fit`` says; "face": the square that puts the eyes where ``framing`` has them; or left, top, side."""
    fit: Literal["crop", "pad", "skip"] = "crop"
    """Pictures that are not square: their central square, bars of the border's colour beside them, or not at all."""
    grey: bool = False
    background: Literal["white", "black", "skip"] = "white"
    """What transparent pictures are laid on; "skip" leaves them out."""
    framing: dict[str, Any] | None = None
    """For "face"; FFHQ's by default."""

    def __post_init__(self) -> None:
        if isinstance(self.crop, tuple) and not all(math.isfinite(number) for number in self.crop):
            raise Error(f"the rectangle must be three numbers, got {self.crop}")
        if self.size < 8 or self.size & (self.size - 1):
            raise Error(f"size must be a power of two of at least 8, got {self.size}")

    def square(self, picture: Image.Image, name: str) -> Image.Image:
        """The square of ``picture``, "L" or "RGB", ``size`` pixels a side.

        Raises:
            Error: no face, a rectangle outside the picture, or a kind of picture that is to be left out.
        """
        transparent = picture.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in picture.info
        if transparent and self.background == "skip":
            raise Error(f"{name}: is transparent")
        if transparent and self.background == "black":
            rgba = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
        picture = open_image(picture)
        if self.crop == "face":
            faces = find_faces(picture)
            if not faces:
                raise Error(f"{name}: no face found")
            found = crop(picture, quad_from_face(faces[0], self.framing or FRAMINGS["ffhq"]), self.size)
        else:
            found = resample(*self._window(picture, name), self.size)
        return found.convert("L" if self.grey else "RGB")

    def _window(self, picture: Image.Image, name: str) -> tuple[Image.Image, tuple[float, float, float, float]]:
        width, height = picture.size
        if isinstance(self.crop, tuple):
            left, top, side = self.crop
            if left < 0 or top < 0 or side < 1 or left + side > width or top + side > height:
                window = ",".join(f"{number:g}" for number in self.crop)
                raise Error(f"{name}: the rectangle {window} lies outside the picture of {width} x {height}")
            return picture, (left, top, left + side, top + side)
        if width != height and self.fit == "skip":
            raise Error(f"{name}: is {width} x {height}, not square")
        if width != height and self.fit == "pad":
            side = max(width, height)
            before = ((side - height) // 2, (side - width) // 2)
            pads = [(before[0], side - height - before[0]), (before[1], side - width - before[1])]
            array = np.asarray(picture)
            return Image.fromarray(np.pad(array, pads + [(0, 0)] * (array.ndim - 2), mode="edge")), (0, 0, side, side)
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return picture, (left, top, left + side, top + side)


def prepared(
    path: str | os.PathLike[str], preparation: Preparation, skipped: list[str], sources: dict[str, str] | None = None
) -> Iterator[tuple[str, Image.Image]]:
    """(name, square) for every picture of a folder or zip; why others cannot be used is added to ``skipped``.

    ``sources`` receives, for every name given out, that of the file it came from.

    Raises:
        Error: no such folder or zip, or no pictures in it.
    """
    source = PictureSource(Path(path))
    names = [name for name in sorted(source.names) if name.lower().endswith(EXTENSIONS)]
    if not names:
        raise Error(f"{path}: no pictures ({', '.join(EXTENSIONS)}) in it")
    taken: set[str] = set()
    for name in names:
        try:
            with Image.open(io.BytesIO(source.read(name))) as file:
                file.load()
                picture = preparation.square(file, name)
        except Error as error:
            skipped.append(str(error).replace("picture:", f"{name}:", 1))
            continue
        except (OSError, SyntaxError, ValueError, RuntimeError, EOFError, Image.DecompressionBombError) as error:
            skipped.append(f"{name}: not a picture, damaged or truncated ({str(error).splitlines()[0]})")
            continue
        stored = str(PurePosixPath(name).with_suffix(".png"))
        if stored in taken:
            stored = f"{name}.png"  # a.jpg beside a.png
        taken.add(stored)
        if sources is not None:
            sources[stored] = name
        yield stored, picture


def class_labels(
    path: str | os.PathLike[str], labels: str | None = None, column: str | None = None
) -> Callable[[str], str | None] | None:
    """A function from the name of a picture in ``path`` to its label.

    Args:
        path: the folder or zip of the pictures.
        labels: a CSV file with a ``file`` column (relative to itself, or to ``path``) and ``column``; "folders" for the first
            sub-folder of every picture; None for the ``dataset.json`` in ``path``, if there is one.

    Raises:
        Error: the CSV cannot be read, has no such column or names a file twice with different labels.
    """
    root = Path(path)
    if labels == "folders":
        return lambda name: name.split("/")[0] if "/" in name else None
    if labels is not None:
        if column is None:
            raise Error("labels from a CSV file need the name of its column (--column)")
        table = _csv_labels(Path(labels), column, root)
        return table.get
    if column is not None:
        raise Error("--column names a column of the CSV file of labels; give that with --labels")
    source = PictureSource(root)
    if LABELS not in source.names:
        return None
    try:
        document = json.loads(source.read(LABELS))
        rows, names = document.get("labels") or [], document.get("label_names") or []
        if any(not isinstance(label, int) for _, label in rows):
            raise Error(f"{path}: {LABELS} has labels that are vectors of numbers, which cannot be carried over")
        found = {str(name): str(names[label]) if names else str(label) for name, label in rows}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Error(f"{path}: {LABELS} is not NVIDIA's list of names and numbers ({error})") from error
    return found.get if found else None


def _csv_labels(table: Path, column: str, root: Path) -> dict[str, str]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Error(f"{table}: not a readable CSV file ({getattr(error, 'strerror', None) or error})") from error
    there = list(rows[0]) if rows else []
    for needed in ("file", column):
        if needed not in there:
            raise Error(f"{table}: no column {needed!r}; there are {', '.join(there) or 'none'}")
    found: dict[str, str] = {}
    known = set(PictureSource(root).names)
    for number, row in enumerate(rows, start=2):
        name, label = row["file"] or "", (row[column] or "").strip()
        if not label:
            continue
        beside = table.parent / name
        if root.is_dir() and beside.is_file() and beside.resolve().is_relative_to(root.resolve()):
            name = beside.resolve().relative_to(root.resolve()).as_posix()
        if name not in known:
            raise Error(f"{table}, line {number}: no such file {name} in {root}")
        if found.setdefault(name, label) != label:
            raise Error(f"{table}, line {number}: {name} is labelled {label!r} here and {found[name]!r} before")
    if not found:
        raise Error(f"{table}: column {column!r} has no label")
    return found
