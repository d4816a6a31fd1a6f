"""Labelling by hand: which sample is asked about, and what was answered. `page` shows it in a
browser."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentedit.directions.labelling.samples import FILE, PICTURE
from latentedit.directions.labelling.table import Table, lock_of
from latentedit.directions.labelling.uncertainty import (
    Array,
    Report,
    accuracy,
    latent_features,
    picture_components,
    ranking,
)
from latentedit.directions.labels import NO, YES
from latentedit.errors import ArgumentError, DataError, FormatError, NotFoundError
from latentedit.formats.load_latent import ENDINGS as LATENTS
from latentedit.io.images import EXTENSIONS
from latentedit.io.locks import alone

ORDERS = ("uncertain", "file")
VALUES = ("1", "0", "")
REFIT = 5
"""Answers between two fits of the probe."""
ENOUGH = 2
"""Answers of each class that the first fit needs."""


@dataclass(frozen=True)
class Sample:
    """One row of the table."""

    number: int
    """Counted from 0; rows without a file are not counted."""
    row: int
    file: str
    """As the table names it."""
    path: Path
    picture: Path
    """What is shown."""


@dataclass(frozen=True)
class LabellingProgress:
    """How far the labelling is."""

    yes: int
    no: int
    left: int
    auc: float | None
    """AUC of the probe on held-out answers at its last fit; None where it is not known
    (`uncertainty.accuracy`)."""


class Labelling:
    """The labels of one column of a CSV with a ``file`` column of latent files or photographs,
    relative to the CSV.

    A sample is shown by the file in the column ``picture``; without one by the file itself if it is
    a picture, else by the picture of the same name beside it. Every answer is in the CSV before
    `answer` returns, and everything else in it stays as it is; a column that is missing is added by
    the first answer. The same answers lead to the same questions. Two at once lose answers: hold
    `labelled_alone` for as long as one is in use, as ``latentedit directions label`` does.

    Args:
        order: "uncertain" (random by ``seed`` at first; then, by a probe that is fitted anew every
            5 answers, those that it is least sure of), or "file" (as in the CSV).
        progress: called with the number of files read and of all; "file" reads none.

    Raises:
        Error: no such CSV, no column ``file``, a file or picture that is missing, values other than
            0, 1 and nothing, latents and photographs in one table, no rows.
    """

    def __init__(
        self,
        table: str | os.PathLike[str],
        column: str,
        *,
        order: str = "uncertain",
        seed: int = 0,
        progress: Report | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ArgumentError.of("order", f"one of {', '.join(ORDERS)}", order)
        if column.strip() in ("", FILE, PICTURE):
            raise ArgumentError(f"{column!r} cannot be a column of labels")

        self.column = column
        self._table = Table(table)
        self.samples = _samples(self._table)
        self.latents = self.samples[0].path.suffix in LATENTS
        self._numbers = {sample.file: sample.number for sample in self.samples}
        self._values = [_value(self._table, sample.row, column) for sample in self.samples]
        self._skipped: list[int] = []
        self._again: list[int] = []  # what undo gave back, the last one to be asked first
        self._past: list[tuple[int, str]] = []  # sample and its value before
        self._fitted = False
        self._since = 0
        self._auc: float | None = None
        self._order = list(range(len(self.samples)))
        self._x: Array | None = None

        if order == "uncertain":
            paths = [sample.path for sample in self.samples]
            self._x = (latent_features if self.latents else picture_components)(paths, progress)
            self._order = [
                int(i) for i in np.random.RandomState(seed).permutation(len(self.samples))
            ]
            self._fit()

    def next(self) -> Sample | None:
        """Return which sample to ask about; the same one until something is answered. None when
        every sample has a label."""
        return next(iter(self.upcoming(1)), None)

    def upcoming(self, count: int) -> list[Sample]:
        """Return the next samples as far as they are known now: what was undone, those in order,
        those skipped."""
        later = set(self._skipped)
        queue = [
            *reversed(self._again),
            *(i for i in self._order if i not in later),
            *self._skipped,
        ]
        open_ = dict.fromkeys(i for i in queue if not self._values[i])
        return [self.samples[i] for i in list(open_)[:count]]

    def answer(self, file: str, value: str) -> None:
        """Write ``value``: "1" (yes), "0" (no), or "" (skipped: asked again after all others).

        Raises:
            Error: no such sample or value; the CSV cannot be written, or another program has
                changed it.
        """
        if file not in self._numbers:
            raise NotFoundError(f"has no row for {file!r}", path=self._table.path)
        if value not in VALUES:
            raise ArgumentError(f"an answer is 1, 0 or empty, got {value!r}")

        number = self._numbers[file]
        before = self._put(number, value)
        self._past.append((number, before))
        self._forget(number)
        if not value:
            self._skipped.append(number)
        self._refit(value != before)

    def undo(self) -> Sample | None:
        """Take the last answer back, in the CSV too, and ask for that sample next; None where there
        is none to take back.

        Raises:
            Error: as `answer`.
        """
        if not self._past:
            return None
        number, value = self._past[-1]
        before = self._put(number, value)
        self._past.pop()
        self._forget(number)
        self._again.append(number)
        self._refit(value != before)
        return self.samples[number]

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    def progress(self) -> LabellingProgress:
        yes = self._values.count("1")
        no = self._values.count("0")
        return LabellingProgress(yes, no, len(self.samples) - yes - no, self._auc)

    def _put(self, number: int, value: str) -> str:
        """Set the label and return the one before."""
        before = self._values[number]
        if value != before:
            self._table.set(self.samples[number].row, self.column, value)
            self._values[number] = value
        return before

    def _forget(self, number: int) -> None:
        self._skipped = [i for i in self._skipped if i != number]
        self._again = [i for i in self._again if i != number]

    def _refit(self, changed: bool) -> None:
        self._since += changed
        if changed and (not self._fitted or self._since >= REFIT):
            self._fit()

    def _fit(self) -> None:
        labels = np.array([float(value) if value else np.nan for value in self._values])
        if self._x is None or min(self._values.count("1"), self._values.count("0")) < ENOUGH:
            return
        self._order = ranking(self._x, labels)
        self._auc = accuracy(self._x, labels)
        self._fitted = True
        self._since = 0


@contextmanager
def labelled_alone(table: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other labelling pages from ``table`` while the block runs: two would replace each
    other's answers.

    Raises:
        Error: another process labels it; no such file; its folder cannot be written, so that no
            answer could be either.
    """
    if os.path.isdir(table):
        raise FormatError("a folder, expected a CSV file that names the samples", path=table)
    if not os.path.isfile(table):  # before a lock is left beside nothing
        raise NotFoundError("no such file", path=table)
    with alone(lock_of(table), table):
        yield


def _samples(table: Table) -> list[Sample]:
    if table.index(FILE) is None:
        raise NotFoundError(
            f"no column {FILE!r}; there are {', '.join(table.columns)}", path=table.path
        )

    found: dict[str, Sample] = {}
    for row, record in enumerate(table.rows):
        file = table.cell(row, FILE)
        if not file:
            continue
        path = table.path.parent / file
        if file in found:
            raise FormatError(
                f"{file} already has an earlier row", path=table.path, line=record.line
            )
        if not os.path.isfile(path):
            raise NotFoundError(f"no such file {path}", path=table.path, line=record.line)
        found[file] = Sample(
            len(found),
            row,
            file,
            path,
            _picture(table, path, table.cell(row, PICTURE), record.line),
        )

    if not found:
        raise DataError("no row names a file", path=table.path)

    samples = list(found.values())
    if len({sample.path.suffix in LATENTS for sample in samples}) > 1:
        raise DataError("names both latent files and photos; use only one kind", path=table.path)
    return samples


def _picture(table: Table, path: Path, named: str, line: int) -> Path:
    """Return what to show of ``path``: the picture named, the file itself, or the picture of the
    same name beside it."""
    if named:
        if not os.path.isfile(table.path.parent / named):
            raise NotFoundError(
                f"no such image {table.path.parent / named}", path=table.path, line=line
            )
        return table.path.parent / named

    if path.suffix.lower() in EXTENSIONS:
        return path

    beside = next(
        (
            path.with_suffix(ending)
            for ending in EXTENSIONS
            if os.path.isfile(path.with_suffix(ending))
        ),
        None,
    )
    if beside is None:
        raise NotFoundError(
            f"no image for {path}: neither in a column {PICTURE!r}, nor {path.stem}.png or "
            "similar next to it",
            path=table.path,
            line=line,
        )

    return beside


def _value(table: Table, row: int, column: str) -> str:
    value = table.cell(row, column)
    if value.lower() in (*YES, *NO):
        return "1" if value.lower() in YES else "0"
    if value not in VALUES:
        reason = f"{column} is {value!r}; labels here are 1 or yes, 0 or no, or empty"
        raise FormatError(reason, path=table.path, line=table.rows[row].line)
    return value
