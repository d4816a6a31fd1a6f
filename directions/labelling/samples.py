"""Random pictures of a generator in a folder, to be labelled by hand."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from latentedit.directions.direction import NAME
from latentedit.directions.labelling.table import Table, lock_of
from latentedit.errors import ArgumentError, OutputError
from latentedit.io.contact_sheet import CELL, Row, sheet
from latentedit.io.files import write_bytes
from latentedit.io.images import save_image
from latentedit.io.locks import alone
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.latent.w_statistics import random_labels, sample_z
from latentedit.networks.generator import Generator

LABELS = "labels.csv"
SHEET = "sheet.png"
FILE = "file"
PICTURE = "picture"
ROW = 8
ON_SHEET = 500
"""Pictures in a row of the sheet, and on all of it at most."""
MOST = 10_000


def write_samples(
    generator: Generator,
    fingerprint: str,
    folder: str | os.PathLike[str],
    count: int,
    *,
    psi: float = 1.0,
    seed: int = 0,
    attributes: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render ``count`` random samples into ``folder`` and return the path of its ``labels.csv``,
    which is written last.

    Sample i has z of the seed ``seed + i``, so that it is the picture that
    ``latentedit sample --seeds`` shows for that seed; a conditional generator's labels are drawn at
    their training frequencies and kept in the latent's settings.

    Args:
        fingerprint: of ``generator``, for the latent files.
        psi: truncation; 1 is none.
        attributes: empty columns of ``labels.csv``, after ``file`` (the latent, which `fit` reads)
            and ``picture``.
        progress: called with the samples done and their number.

    Raises:
        Error: a ``labels.csv`` is there that has labels, or is being labelled; a name that no
            direction can have; a count or seed out of range.
    """
    place = Path(folder)
    _check(count, seed, attributes)
    with alone(lock_of(place / LABELS), place / LABELS):
        _refuse_loss(place / LABELS)
        classes = random_labels(generator, seed, count)
        rows = []
        shown = []
        for i in range(count):
            c = None if classes is None else classes[i : i + 1]
            with torch.no_grad():
                ws = generator.mapping(
                    sample_z(seed + i, generator.z_dim).to(generator.device), c, psi
                )
                image = generator.synthesis(ws).cpu()

            settings = {"seed": seed + i, "psi": psi} | (
                {} if c is None else {"class": int(c.argmax())}
            )
            rows.append((f"{i:04d}.safetensors", f"{i:04d}.png"))
            save_latent(
                place / rows[-1][0], Latent(ws.cpu(), None, fingerprint, "w", None, settings)
            )
            save_image(image, place / rows[-1][1])
            if i < ON_SHEET:
                shown.append(_small(image))
            if progress is not None:
                progress(i + 1, count)

        save_image(
            sheet([_row(shown, first) for first in range(0, len(shown), ROW)]), place / SHEET
        )
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([FILE, PICTURE, *attributes])
        writer.writerows([*row, *[""] * len(attributes)] for row in rows)
        write_bytes(place / LABELS, text.getvalue().encode())

    return place / LABELS


def _check(count: int, seed: int, attributes: Sequence[str]) -> None:
    if not 1 <= count <= MOST:
        raise ArgumentError.of("the number of samples", f"1 to {MOST}", count)
    if not 0 <= seed <= 2**32 - count:
        raise ArgumentError(
            f"the seeds of {count} samples must be below 2^32 and not negative, got {seed} for "
            "the first"
        )

    for name in attributes:
        if not NAME.fullmatch(name) or name in (FILE, PICTURE):
            raise ArgumentError(
                f"an attribute's name has letters, digits, - and _, and is not {FILE} or "
                f"{PICTURE}; got {name!r}"
            )

    if len(set(attributes)) < len(attributes):
        raise ArgumentError(f"an attribute is named twice: {', '.join(attributes)}")


def _refuse_loss(path: Path) -> None:
    """Refuse to replace a table that has labels."""
    if not path.exists():
        return
    table = Table(path)
    for column in dict.fromkeys(table.columns):
        found = sum(bool(table.cell(row, column)) for row in range(len(table.rows)))
        if found and column not in (FILE, PICTURE):
            raise OutputError(
                f"has {found} labels of {column!r}, which would be lost; use another folder",
                path=path,
            )


def _small(image: Tensor) -> Tensor:
    """At most as large as a cell of a sheet."""
    side = image.shape[-1]
    return image if side <= CELL else torch.nn.functional.interpolate(image, CELL, mode="area")


def _row(pictures: Sequence[Tensor], first: int) -> Row:
    part = pictures[first : first + ROW]
    return Row("", part, [f"{first + i:04d}" for i in range(len(part))])
