"""Tables as CSV files."""

import csv
import io
import os
from collections.abc import Iterator

from latentedit.errors import FormatError
from latentedit.io.files import LARGEST_TABLE, read_text


def read_csv(
    path: str | os.PathLike[str], most: int = LARGEST_TABLE, *, column: str | None = None
) -> Iterator[list[str]]:
    """The rows of a CSV file that have cells, the head among them; errors as `read_text`, and for
    what is no CSV.

    Cells are separated by commas, or by what makes ``column`` a cell of the head, see
    `csv_delimiter`.
    """
    text = read_text(path, most)
    delimiter = "," if column is None else csv_delimiter(text.partition("\n")[0], column)
    try:
        yield from (
            cells
            for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            if cells
        )
    except csv.Error as error:
        raise FormatError(f"not a readable CSV file ({error})", path=path) from error


def csv_delimiter(head: str, column: str = "file") -> str:
    """Return what separates the cells of a CSV whose first line is ``head``: the one that makes
    ``column`` a cell of its own.

    Spreadsheets write semicolons where the comma is the decimal sign, and some programs tabs.
    """
    for delimiter in (",", ";", "\t"):
        try:
            cells = next(csv.reader([head.strip()], delimiter=delimiter), [])
        except csv.Error:  # whoever reads the rows says so
            continue
        if column in (cell.strip() for cell in cells):
            return delimiter
    return ","
