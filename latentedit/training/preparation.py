"""Preparation of training sets: from any images to squares of one size."""

import io
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image

from latentedit.errors import (
    ArgumentError,
    DataError,
    Error,
    FormatError,
    NotFoundError,
    meant,
    reason,
)
from latentedit.io.csv_table import read_csv
from latentedit.io.folders import unread
from latentedit.io.images import (
    EDITED,
    EXTENSIONS,
    note_in,
    open_image,
    opened,
    resample,
    transparent,
)
from latentedit.photo.alignment import crop, quad_from_face
from latentedit.photo.faces import Seen, find_faces
from latentedit.photo.framing import FRAMINGS
from latentedit.training.data import LABELS, PictureSource, portable


@dataclass(frozen=True)
class Preparation:
    """How every image is prepared."""

    size: int
    """Side of the squares in pixels, a power of two of at least 8."""
    crop: Literal["centre", "face"] | tuple[float, float, float] = "centre"
    """"centre": according to ``fit``; "face": the square that aligns the eyes with ``framing``; or
    left, top, side."""
    fit: Literal["crop", "pad", "skip"] = "crop"
    """Images that are not square: take the central square, pad with the border's colour, or
    skip."""
    grey: bool = False
    background: Literal["white", "black", "skip"] = "white"
    """Background for transparent images; "skip" leaves them out."""
    framing: dict[str, Any] | None = None
    """For "face"; FFHQ's by default."""

    def __post_init__(self) -> None:
        if isinstance(self.crop, tuple) and not all(math.isfinite(number) for number in self.crop):
            raise ArgumentError.of("the rectangle", "three numbers", self.crop)
        if self.size < 8 or self.size & (self.size - 1):
            raise ArgumentError.of("size", "a power of two of at least 8", self.size)

    def square(self, picture: Image.Image, name: str, seen: Seen | None = None) -> Image.Image:
        """Return the square of ``picture``, "L" or "RGB", ``size`` pixels a side.

        Args:
            seen: where it is noted what was seen of faces, under ``name``.

        Raises:
            Error: no face, a rectangle outside the picture, or a kind of picture that is to be left
                out.
        """
        if transparent(picture) and self.background == "skip":
            raise DataError("is transparent", path=name)

        picture = open_image(
            picture, (0, 0, 0) if self.background == "black" else (255, 255, 255), name
        )
        if self.crop == "face":
            faces = find_faces(picture)
            if not faces:
                raise DataError("no face found", path=name)
            if seen is not None:
                seen.add(name, faces)
            found = crop(
                picture, quad_from_face(faces[0], self.framing or FRAMINGS["ffhq"]), self.size
            )
        else:
            found = resample(*self._window(picture, name), self.size)

        return found.convert("L" if self.grey else "RGB")

    def _window(
        self, picture: Image.Image, name: str
    ) -> tuple[Image.Image, tuple[float, float, float, float]]:
        width, height = picture.size
        if isinstance(self.crop, tuple):
            left, top, side = self.crop
            if left < 0 or top < 0 or side < 1 or left + side > width or top + side > height:
                window = ",".join(f"{number:g}" for number in self.crop)
                raise DataError(
                    f"the rectangle {window} lies outside the image of {width} x {height}",
                    path=name,
                )
            return picture, (left, top, left + side, top + side)

        if width != height and self.fit == "skip":
            raise DataError(f"is {width} x {height}, not square", path=name)

        if width != height and self.fit == "pad":
            side = max(width, height)
            before = ((side - height) // 2, (side - width) // 2)
            pads = [(before[0], side - height - before[0]), (before[1], side - width - before[1])]
            array = np.asarray(picture)
            return Image.fromarray(
                np.pad(array, pads + [(0, 0)] * (array.ndim - 2), mode="edge")
            ), (0, 0, side, side)

        side = min(width, height)
        left = (width - side) // 2
        top = (height - side) // 2
        return picture, (left, top, left + side, top + side)


@dataclass
class Skipped:
    """What `prepared` yields no image for, and why."""

    others: list[str] = field(default_factory=list)
    """Sentences about files that are no images, by their endings."""
    images: list[str] = field(default_factory=list)
    """What is wrong with each image that cannot be used."""


def prepared(
    path: str | os.PathLike[str],
    preparation: Preparation,
    skipped: Skipped,
    sources: dict[str, str] | None = None,
    *,
    renderings: bool = True,
    seen: Seen | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[str, Image.Image]]:
    """Yield (name, square) for every image of a folder or zip; ``skipped`` gets the others.

    ``sources`` maps every yielded name to the name of its file. Without ``renderings``, images that
    latentedit rendered are skipped. ``seen`` gets what was seen of faces, by the name of the
    file. ``progress`` is called with the number of files that were read, and of all
    files.

    Raises:
        Error: the folder or zip does not exist, or has no images.
    """
    source = PictureSource(Path(path))
    skipped.others += unread(source.others)
    names = [name for name in sorted(source.names) if name.lower().endswith(EXTENSIONS)]
    if not names:
        raise NotFoundError(f"no images ({', '.join(EXTENSIONS)}) in it", path=path)

    taken: set[str] = set()
    for number, name in enumerate(names):
        progress(number, len(names))
        try:
            with opened(io.BytesIO(source.read(name)), name) as file:
                if not renderings and note_in(file).startswith(EDITED):
                    raise DataError(
                        "rendered by latentedit",
                        path=name,
                        advice="use `renderings` to include such images",
                    )
                picture = preparation.square(file, name, seen)
        except Error as error:
            # The text, as an error keeps its traceback, and with it open files.
            skipped.images.append(str(error))
            continue

        stored = _free(portable(name), taken)
        taken.add(stored.casefold())
        if sources is not None:
            sources[stored] = name
        yield stored, picture

    progress(len(names), len(names))


def _free(name: str, taken: set[str]) -> str:
    """Return the name of a PNG that is not taken: a.png, a.jpg.png for an a.jpg beside it,
    a.jpg-2.png ..."""
    found = str(PurePosixPath(name).with_suffix(".png"))
    number = 1
    while found.casefold() in taken:
        found = f"{name}.png" if number == 1 else f"{name}-{number}.png"
        number += 1
    return found


def class_labels(
    path: str | os.PathLike[str], labels: str | None = None, column: str | None = None
) -> Callable[[str], str | None] | None:
    """Return a function from the name of an image in ``path`` to its label.

    Args:
        path: the folder or zip of the images.
        labels: a CSV file with a ``file`` column (relative to itself, or to ``path``) and
            ``column``; "folders" for the first sub-folder of every image; None for the
            ``dataset.json`` in ``path``, if there is one.

    Raises:
        Error: the CSV cannot be read, has no such column or names a file twice with different
            labels.
    """
    root = Path(path)
    if labels == "folders":
        return lambda name: name.split("/")[0] if "/" in name else None
    if labels is not None:
        if column is None:
            raise ArgumentError(
                "labels from a CSV file need the name of their column",
                advice="give it with `column`",
            )
        table = _csv_labels(Path(labels), column, root)
        return table.get

    if column is not None:
        raise ArgumentError("a column needs a CSV file of labels", advice="give it with `labels`")

    document, numbers = PictureSource(root).labels()
    try:
        names = document.get("label_names") or []
        if any(not isinstance(label, int) for label in numbers.values()):
            raise FormatError(f"{LABELS} has vector labels, which cannot be kept", path=path)
        found = {
            name: str(names[label]) if names else str(label) for name, label in numbers.items()
        }
    except (TypeError, KeyError, IndexError) as error:
        raise FormatError(
            f"{LABELS} is not NVIDIA's list of names and numbers ({reason(error)})", path=path
        ) from error

    return found.get if found else None


def _csv_labels(table: Path, column: str, root: Path) -> dict[str, str]:
    there, *cells = list(read_csv(table, column="file")) or [[]]
    rows = [dict(zip(there, row, strict=False)) for row in cells]
    for needed in ("file", column):
        if needed not in there:
            advice = meant(needed, there)
            raise NotFoundError(
                f"no column {needed!r}; there are {', '.join(there) or 'none'}",
                advice=advice,
                path=table,
            )

    found: dict[str, str] = {}
    source = PictureSource(root)
    known = set(source.names)

    for number, row in enumerate(rows, start=2):
        name = row.get("file", "")
        label = row.get(column, "").strip()
        if not label:
            continue

        beside = table.parent / name
        # as Windows writes it, or a shell completes it
        if not os.path.isfile(beside) and name not in known:
            name = source.plain(name)
            beside = table.parent / name
        if (
            root.is_dir()
            and os.path.isfile(beside)
            and beside.resolve().is_relative_to(root.resolve())
        ):
            name = beside.resolve().relative_to(root.resolve()).as_posix()

        if name not in known:
            raise NotFoundError(f"no such file {name} in {root}", path=table, line=number)
        if found.setdefault(name, label) != label:
            raise FormatError(
                f"{name} is labelled {label!r} here and {found[name]!r} before",
                path=table,
                line=number,
            )

    if not found:
        raise DataError(f"column {column!r} has no label", path=table)
    return found
