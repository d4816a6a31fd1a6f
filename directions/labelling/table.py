"""CSV files of which single cells change and nothing else does."""

import codecs
import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from latentedit.errors import FormatError, NotFoundError, OutputError
from latentedit.io.csv_table import csv_delimiter
from latentedit.io.files import is_picture, write_bytes


def lock_of(table: str | os.PathLike[str]) -> Path:
    """Return what whoever changes ``table`` holds (`latentedit.io.locks.alone`): the same for all
    links to one file."""
    place = Path(os.path.realpath(table))
    return place.with_name(f"{place.name}.lock")


@dataclass(frozen=True)
class CsvRecord:
    """One row: its cells, and the text that they were read from."""

    cells: list[str]
    text: str
    """Without its ending, with the quotes that it has in the file."""
    ending: str
    line: int
    """In the file, counted from 1: the last one where a cell has line breaks."""
    delimiter: str = ","

    def padded(self, count: int) -> "CsvRecord":
        """With at least ``count`` cells; an empty line stays one."""
        missing = max(count - len(self.cells), 0) if self.cells else 0
        text = self.text + self.delimiter * missing
        return replace(self, cells=[*self.cells, *[""] * missing], text=text)

    def with_cell(self, index: int, value: str) -> "CsvRecord":
        cells = [*self.cells, *[""] * (index + 1 - len(self.cells))]
        cells[index] = value
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=self.delimiter, lineterminator="").writerow(cells)
        return replace(self, cells=cells, text=buffer.getvalue())


class Table:
    """A CSV file in UTF-8 with a head; rows that are not changed keep every byte, line endings and
    byte-order mark too.

    Raises:
        Error: no such file, not UTF-8, not a CSV, empty.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            if is_picture(self.path):
                raise FormatError("an image, not a CSV file", path=self.path)
            self._bytes = self.path.read_bytes()
            records = list(_records(self._bytes.decode("utf-8-sig")))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            kind = NotFoundError if isinstance(error, FileNotFoundError) else FormatError
            reason = getattr(error, "strerror", None) or error
            raise kind(f"not a readable CSV file ({reason})", path=self.path) from error

        if not records or not records[0].cells:
            raise FormatError("the first line must name the columns, it is empty", path=self.path)

        self.head = records[0]
        self.rows = records[1:]

    @property
    def columns(self) -> list[str]:
        return self.head.cells

    def index(self, column: str) -> int | None:
        """Return where ``column`` is; None where there is none.

        Raises:
            Error: it is there twice.
        """
        if self.columns.count(column) > 1:
            raise FormatError(
                f"has {self.columns.count(column)} columns {column!r}", path=self.path
            )
        return self.columns.index(column) if column in self.columns else None

    def cell(self, row: int, column: str) -> str:
        """Without the spaces around it; "" where the row or the table has no such cell."""
        index = self.index(column)
        cells = self.rows[row].cells
        return cells[index].strip() if index is not None and index < len(cells) else ""

    def set(self, row: int, column: str, value: str) -> None:
        """Change one cell, in the file before this returns; a column that is missing is added at
        the end.

        Raises:
            Error: the file cannot be written, or another program has changed it since it was read.
        """
        head = self.head
        rows = list(self.rows)
        index = self.index(column)
        if index is None:
            index = len(self.columns)
            head = head.with_cell(index, column)
            rows = [record.padded(index + 1) for record in rows]

        rows[row] = rows[row].with_cell(index, value)
        self._write(head, rows)
        self.head = head
        self.rows = rows

    def _write(self, head: CsvRecord, rows: list[CsvRecord]) -> None:
        mark = codecs.BOM_UTF8 if self._bytes.startswith(codecs.BOM_UTF8) else b""
        data = mark + "".join(record.text + record.ending for record in [head, *rows]).encode()
        place = Path(os.path.realpath(self.path))  # what a link points to is replaced, not the link
        try:
            unchanged = place.read_bytes() == self._bytes
        except OSError as error:
            raise OutputError(f"{error.strerror or error}", path=self.path) from error

        if not unchanged:
            raise OutputError(
                "another program has changed this file; start the command again, nothing is lost",
                path=self.path,
            )

        write_bytes(place, data, in_place=True)
        self._bytes = data


def _records(text: str) -> Iterator[CsvRecord]:
    pending: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            pending.append(line)
            yield line

    delimiter = csv_delimiter(text.partition("\n")[0])
    reader = csv.reader(lines(), strict=True, delimiter=delimiter)
    for cells in reader:
        whole = "".join(pending)
        pending.clear()
        bare = whole.rstrip("\r\n")
        yield CsvRecord(cells, bare, whole[len(bare) :], reader.line_num, delimiter)
