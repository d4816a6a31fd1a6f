"""Labels of samples from a CSV file."""

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentedit.errors import Error


@dataclass(frozen=True)
class LabelTable:
    """Files with one attribute's labels."""

    paths: list[Path]
    values: np.ndarray[tuple[int], np.dtype[np.float64]]
    """0 and 1, or numbers, ``[n]``."""
    groups: list[str] | None
    """Of every sample, e.g. the person; samples of a group are never split between folds."""

    @property
    def binary(self) -> bool:
        return set(np.unique(self.values)) == {0.0, 1.0}


def read_labels(
    table: str | os.PathLike[str],
    column: str,
    *,
    positive: Iterable[str] = (),
    negative: Iterable[str] = (),
    group: str | None = None,
    exclude: Iterable[str] = (),
    file_column: str = "file",
) -> LabelTable:
    """Read the labels of ``column``; files are relative to the CSV. Rows with an empty label are left out.

    Args:
        positive, negative: values that mean 1 and 0. With neither, the column holds numbers; with one of them, all other
            values are the other class; with both, rows with further values are left out.
        group: column of the group (person) that a sample belongs to.
        exclude: groups to leave out.

    Raises:
        Error: no such file or column, a row whose file does not exist, a value that is no number, one class only.
    """
    path = Path(table)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Error(f"{path}: not a readable CSV file ({getattr(error, 'strerror', None) or error})") from error
    for needed in [file_column, column, *([group] if group else [])]:
        if needed not in names:
            raise Error(f"{path}: no column {needed!r}; there are {', '.join(names) or 'none'}")
    yes, no, left_out = set(positive), set(negative), set(exclude)
    paths, values, groups = [], [], []
    for number, row in enumerate(rows, start=2):
        text = (row[column] or "").strip()
        member = row[group] if group else ""
        if not text or member in left_out:
            continue
        value = _value(path, number, column, text, yes, no)
        if value is None:
            continue
        sample = path.parent / (row[file_column] or "")
        if not sample.is_file():
            raise Error(f"{path}, line {number}: no such file {sample}")
        paths.append(sample)
        values.append(value)
        groups.append(member)
    if not paths:
        raise Error(f"{path}: no row has a label in column {column!r} that is asked for")
    if len(set(values)) < 2:
        raise Error(f"{path}: all {len(values)} labels of {column!r} are the same; a direction needs two classes")
    return LabelTable(paths, np.array(values), groups if group else None)


def _value(path: Path, number: int, column: str, text: str, yes: set[str], no: set[str]) -> float | None:
    if text in yes:
        return 1.0
    if text in no:
        return 0.0
    if yes and no:
        return None
    if yes or no:
        return 0.0 if yes else 1.0
    try:
        return float(text)
    except ValueError as error:
        raise Error(f"{path}, line {number}: {column} is {text!r}, not a number; say --positive VALUE") from error
