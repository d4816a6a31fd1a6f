"""Labels of samples, from a CSV file or from sub-folders."""

import math
import os
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from latentedit.errors import ArgumentError, DataError, Error, FormatError, NotFoundError, meant
from latentedit.formats.load_latent import ENDINGS as LATENTS
from latentedit.io import outputs
from latentedit.io.csv_table import read_csv
from latentedit.io.folders import listing
from latentedit.io.images import EXTENSIONS

ENDINGS = (*EXTENSIONS, *LATENTS)
"""Endings of the files in sub-folders that count as samples."""
YES, NO = ("yes", "y", "true", "t", "on"), ("no", "n", "false", "f", "off")
"""Accepted words for 1 and 0; upper and lower case are the same."""
LARGEST = 1e15
"""Largest number that a label may be; the squares of larger ones are lost in sums."""
DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


@dataclass(frozen=True)
class LabelTable:
    """Files with the labels of one attribute."""

    paths: list[Path]
    values: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Labels 0 and 1, or numbers, ``[n]``."""
    groups: list[str] | None
    """Group of every sample, e.g. the person; samples of a group are never split between folds."""
    others: dict[str, list[str]] = field(default_factory=dict)
    """The table's other columns as they are written, by name."""

    @property
    def binary(self) -> bool:
        return set(np.unique(self.values)) == {0.0, 1.0}

    def only(self, paths: Container[Path]) -> "LabelTable":
        """Return the table of those files only.

        Raises:
            Error: their labels are all the same.
        """
        rows = [i for i, path in enumerate(self.paths) if path in paths]
        if len(rows) == len(self.paths):
            return self
        values = self.values[rows]
        if len(set(values)) < 2:
            raise DataError(
                f"the labels of the {len(rows)} files that can be used are all the same; a "
                "direction needs two classes"
            )

        groups = [self.groups[i] for i in rows] if self.groups else None
        others = {name: [texts[i] for i in rows] for name, texts in self.others.items()}
        return LabelTable([self.paths[i] for i in rows], values, groups, others)


@dataclass(frozen=True)
class TextLabels:
    """Files and labels as they are written in the table, without files that have no label."""

    source: Path
    attribute: str
    paths: list[Path]
    texts: list[str]
    groups: list[str] | None
    places: Sequence[tuple[Path, int | None]]
    """Place of every sample in the table, for messages."""
    others: dict[str, list[str]] = field(default_factory=dict)
    """The table's other columns."""
    left_out: list[str] = field(default_factory=list)
    """Sentences about files of a folder that are not used."""

    def numbers(
        self, positive: Iterable[str] = (), negative: Iterable[str] = (), order: Sequence[str] = ()
    ) -> LabelTable:
        """Convert the labels to 0 and 1, or to numbers; see `read_labels`."""
        yes = set(positive)
        no = set(negative)
        if order and (yes or no):
            raise ArgumentError(
                "an order of values cannot be used with positive or negative values"
            )

        values = []
        for text, (path, line) in zip(self.texts, self.places, strict=True):
            try:
                values.append(_value(text, self.attribute, yes, no, order))
            except Error as error:
                raise error.at(path, line) from error

        # None means neither yes nor no, if both were named.
        rows = [i for i, value in enumerate(values) if value is not None]
        if not rows:
            raise DataError(f"no sample has a usable label of {self.attribute!r}", path=self.source)

        found = np.array([values[i] for i in rows], dtype=np.float64)
        if len(set(found)) < 2:
            raise DataError(
                f"all {len(found)} labels of {self.attribute!r} are the same; a direction needs "
                "two classes",
                path=self.source,
            )

        groups = [self.groups[i] for i in rows] if self.groups else None
        others = {name: [texts[i] for i in rows] for name, texts in self.others.items()}
        return LabelTable([self.paths[i] for i in rows], found, groups, others)


def read_labels(
    table: str | os.PathLike[str],
    column: str | None = None,
    *,
    positive: Iterable[str] = (),
    negative: Iterable[str] = (),
    order: Sequence[str] = (),
    group: str | None = None,
    exclude: Iterable[str] = (),
    file_column: str = "file",
) -> LabelTable:
    """Read labels as numbers. Samples with an empty label, or "nan", are left out.

    Args:
        table: a CSV, whose ``file_column`` names files relative to it, or a folder, whose
            sub-folders are the classes.
        column: column of the CSV that holds the labels.
        positive: values that mean 1.
        negative: values that mean 0. With neither, the column holds numbers, or yes and no. With
            one of the two, all other values are the other class. With both, samples with other
            values are left out.
        order: values from least to most, which become 0, 1, 2 ...
        group: column of the group (person) that a sample belongs to.
        exclude: groups to leave out.

    Raises:
        Error: a missing file or column, a sample that does not exist, a value that is not a number,
            a single class, or a sample with two different labels.
    """
    return read_texts(table, column, group=group, exclude=exclude, file_column=file_column).numbers(
        positive, negative, order
    )


def read_texts(
    table: str | os.PathLike[str],
    column: str | None = None,
    *,
    group: str | None = None,
    exclude: Iterable[str] = (),
    file_column: str = "file",
) -> TextLabels:
    """Read labels as they are written; arguments and errors are those of `read_labels`."""
    path = Path(table)
    if os.path.isdir(path):
        if column is not None or group is not None:
            raise ArgumentError("a folder of sub-folders has neither columns nor groups", path=path)
        return _from_folders(path)

    if column is None:
        raise ArgumentError(
            "the column of the labels is not named", path=path, advice="name it with `column`"
        )

    names, *cells = list(read_csv(path, column=file_column)) or [[]]
    rows = [dict(zip(names, row, strict=False)) for row in cells]
    for needed in [file_column, column, *([group] if group else [])]:
        if needed not in names:
            advice = meant(needed, names)
            raise NotFoundError(
                f"no column {needed!r}; there are {', '.join(names) or 'none'}",
                advice=advice,
                path=path,
            )

    left_out = set(exclude)
    seen: dict[Path, str] = {}
    paths = []
    texts = []
    groups = []
    places = []
    others: dict[str, list[str]] = {
        name: [] for name in names if name not in (file_column, column, group)
    }

    for number, row in enumerate(rows, start=2):
        text = row.get(column, "").strip()
        member = row.get(group, "") if group else ""
        if not text or text.lower() == "nan" or member in left_out:
            continue

        sample = path.parent / row.get(file_column, "")
        if not os.path.isfile(sample):  # as Windows writes it
            sample = path.parent / row.get(file_column, "").replace("\\", "/")
        if not os.path.isfile(sample):
            raise NotFoundError(f"no such file {sample}", path=path, line=number)

        if sample in seen:
            if seen[sample] != text:
                raise FormatError(
                    f"{sample.name} is {text!r} here and {seen[sample]!r} before",
                    path=path,
                    line=number,
                )
            continue

        seen[sample] = text
        # Photos are inputs of the command that reads the table: it must not write over them.
        outputs.given(sample)
        paths.append(sample)
        texts.append(text)
        groups.append(member)
        places.append((path, number))
        for name, words in others.items():
            words.append(row.get(name, "").strip())

    if not paths:
        raise DataError(f"no row has a usable label in column {column!r}", path=path)
    return TextLabels(path, column, paths, texts, groups if group else None, places, others)


def _from_folders(path: Path) -> TextLabels:
    """Read the classes in ``path``, or in its only sub-folder if that has the classes."""
    classes = _sub_folders(path)
    while len(classes) == 1 and _sub_folders(classes[0]) and not listing(classes[0], ENDINGS).files:
        classes = _sub_folders(classes[0])

    found = []
    left_out = []
    for folder in classes:
        inside = listing(folder, ENDINGS)
        found += [(sample, folder.name) for sample in inside.files]
        left_out += [f"{folder}: {line}" for line in inside.lines(recursive=False)]

    for sample, _ in found:
        outputs.given(sample)

    if len({name for _, name in found}) < 2:
        raise FormatError(
            "expected a CSV file, or a folder with two or more sub-folders of samples, one per "
            "class",
            path=path,
        )
    return TextLabels(
        path,
        path.resolve().name,
        [sample for sample, _ in found],
        [name for _, name in found],
        None,
        [(sample, None) for sample, _ in found],
        left_out=left_out,
    )


def _sub_folders(path: Path) -> list[Path]:
    return sorted(
        inside for inside in path.iterdir() if inside.is_dir() and not inside.name.startswith(".")
    )


def _value(
    text: str, attribute: str, yes: set[str], no: set[str], order: Sequence[str]
) -> float | None:
    if order:
        if text not in order:
            raise FormatError(
                f"{attribute} is {text!r}, which is not in the order {', '.join(order)}"
            )
        return float(order.index(text))

    if text in yes:
        return 1.0
    if text in no:
        return 0.0
    if yes and no:
        return None
    if yes or no:
        return 0.0 if yes else 1.0
    if text.lower() in (*YES, *NO):
        return float(text.lower() in YES)

    try:
        number = float(text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text)
    except ValueError as error:
        raise FormatError(
            f"{attribute} is {text!r}, neither a number nor yes or no",
            advice="use `positive=VALUE`",
        ) from error

    if not math.isfinite(number):
        raise FormatError(f"{attribute} is {text!r}, which is not a finite number")
    if abs(number) > LARGEST:
        raise FormatError(
            f"{attribute} is {text!r}, expected a number between -{LARGEST:g} and {LARGEST:g}"
        )
    return number
