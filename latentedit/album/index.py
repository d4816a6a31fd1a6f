"""Many photographs at once: what is done already, what each gave, and which process does which."""

import csv
import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from latentedit.errors import ArgumentError, Error, FormatError, OutputError
from latentedit.io.files import make_folder, read_text, sync_folder
from latentedit.io.folders import distinct
from latentedit.io.images import is_free

COLUMNS = (
    "photo",
    "latent",
    "status",
    "perceptual",
    "psnr",
    "perceptual_own_noise",
    "psnr_own_noise",
    "w_distance",
    "w_percentile",
    "seconds",
    "remarks",
    "key",
)


LARGEST_INDEX = 2**28
"""Bytes of an ``index.csv`` that is read."""
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""What spreadsheets compute when a cell begins with it; an apostrophe before it keeps them from
that."""


def key(photo: str | os.PathLike[str], settings: dict[str, Any]) -> str:
    """32 hexadecimal digits: 16 that change with the content of ``photo``, and 16 that change with
    ``settings`` too."""
    return keys(photo, settings)[0]


def keys(photo: str | os.PathLike[str], *settings: dict[str, Any]) -> list[str]:
    """Return the `key` of ``photo`` with each of ``settings``; the photo is read once."""
    with open(photo, "rb") as file:
        # The content and not the name or the time: photos are renamed and copied.
        digest = hashlib.file_digest(file, "sha256")
    content = digest.hexdigest()[:16]

    found = []
    for one in settings:
        both = digest.copy()
        both.update(json.dumps(one, sort_keys=True).encode())
        found.append(content + both.hexdigest()[:16])
    return found


def share(items: Sequence[Path]) -> list[Path]:
    """Return the items that fall to this process, by the variables that torchrun sets (RANK,
    WORLD_SIZE); all of them without."""
    try:
        rank = int(os.environ.get("RANK", "0"))
        world = int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise ArgumentError("RANK and WORLD_SIZE must be numbers, as torchrun sets them") from error
    if not 0 <= rank < world:
        raise ArgumentError(f"RANK {rank} of WORLD_SIZE {world}")
    return list(items[rank::world])


class Index:
    """``index.csv`` in a folder of latents, a row a latent; rows are added one by one, and the last
    of a latent counts.

    Several processes may add to one file: every row is one write at its end. Photos are named
    relative to the folder. A cell that a spreadsheet would compute has an apostrophe before it,
    which is taken off on reading. Names that are not UTF-8 are written with escapes.

    Raises:
        Error: the file cannot be read, or is not such an index.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / "index.csv"
        self.rows: dict[str, dict[str, str]] = {}
        self._columns: Sequence[str] = COLUMNS
        if not self.path.exists():
            return
        try:
            self.rows = {row["latent"]: row for row in self._read() if row["latent"]}
        except (Error, csv.Error) as error:
            reason = error.reason if isinstance(error, Error) else error
            raise FormatError(
                f"not an index written by latentedit ({reason})", path=self.path
            ) from error

    def _read(self) -> Iterator[dict[str, str]]:
        # Line by line, as no cell has line breaks: a quote that a torn row leaves open must not
        # swallow the rows after it.
        lines = read_text(self.path, LARGEST_INDEX).splitlines()
        for cells in (cells for line in lines for cells in csv.reader([line])):
            # The head is missing where the disk was full when it should have been written, and
            # there twice where two processes began at once.
            if "latent" in cells and "status" in cells:
                missing = [name for name in COLUMNS if name not in cells]
                if missing:
                    raise FormatError(f"it has no column {missing[0]}")
                self._columns = cells
                continue
            yield {
                **dict.fromkeys(COLUMNS, ""),
                **dict(zip(self._columns, map(_unquoted, cells), strict=False)),
            }

    def has(self, latent: str, found: str) -> bool:
        """Return whether the latent of that name was made of a photo and with settings of the key
        ``found``, and is there."""
        row = self.rows.get(_plain(latent))
        if row is None or row["status"] != "ok" or not os.path.isfile(self.path.parent / latent):
            return False
        # Indexes of before have the second half alone.
        return row["key"] in (found, found[16:])

    def is_there(self, latent: str) -> bool:
        """Return whether the latent of that name was made without a failure, and is there."""
        row = self.rows.get(_plain(latent))
        return row is not None and row["status"] == "ok" and (self.path.parent / latent).is_file()

    def of_another(self, latent: str, photo: str | os.PathLike[str], found: str) -> bool:
        """Return whether the latent of that name belongs to another photo: one of another place
        and, by its key, other content."""
        row = self.rows.get(_plain(latent))
        if row is None or row["photo"] in (self.place(photo), _plain(os.fspath(photo))):
            return False
        return not found or len(row["key"]) != 32 or row["key"][:16] != found[:16]

    def place(self, photo: str | os.PathLike[str]) -> str:
        """Return how ``photo`` is named in the index."""
        try:
            found = os.path.relpath(photo, self.path.parent)
        except ValueError:  # another drive
            found = os.path.abspath(photo)
        return _plain(found.replace(os.sep, "/"))

    def add(self, photo: str | os.PathLike[str], **row: Any) -> None:
        """Append a row of `COLUMNS`, and sync the file.

        Raises:
            Error: the file cannot be written.
        """
        text = {name: _text(row.get(name)) for name in COLUMNS} | {"photo": self.place(photo)}
        self.rows[text["latent"]] = text
        numbers = {name for name, value in row.items() if isinstance(value, int | float)}
        cells = [
            text.get(name, "") if name in numbers else _quoted(text.get(name, ""))
            for name in self._columns
        ]
        try:
            make_folder(self.path.parent)
            self._append(cells)
        except OSError as error:
            raise OutputError.refused(self.path, error) from error

    def _append(self, cells: Sequence[str]) -> None:
        new = not self.path.exists()
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            ended = size == 0 or _last_byte(handle, size) == b"\n"
            buffer = io.StringIO()
            writer = csv.writer(buffer, lineterminator="\n")
            if size == 0:
                writer.writerow(self._columns)
            writer.writerow(cells)
            # A process that was killed may have left half a row, to which this one must not be
            # joined.
            data = (b"" if ended else b"\n") + buffer.getvalue().encode()
            if os.write(handle, data) < len(data):
                # A full disk takes a part of it, which would spoil the next row.
                os.ftruncate(handle, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        finally:
            os.close(handle)

        if new:
            sync_folder(self.path.parent)


ENDINGS = (".safetensors", ".png", "-compare.png", ".mp4")
"""What the name of an inverted photo gets, a file each."""
_SHEET = re.compile(r"sheet(-\d+)?\.png")


class Names:
    """Names for what comes of photos in a folder, such that nothing takes the place of anything
    else.

    They are those of `latentedit.io.folders.distinct`. Where the folder has a latent of another
    photo, an input or a picture of other origin by one of the names that would be written, it is
    NAME-inverted, NAME-inverted-2 and so on.

    Args:
        files: all photos, also those of other processes.
    """

    def __init__(self, index: Index, files: Sequence[Path]) -> None:
        self.index = index
        self.bases = distinct(files)
        self._owners: dict[str, str] = {}
        # The shorter first: "a" keeps its name, and "a-compare" gives way to what comes of "a".
        for base in sorted(self.bases.values(), key=len):
            self._reserve(base, base)

    def of(self, photo: Path, suffix: str = "", found: str = "") -> str:
        """Return the name for ``photo`` with ``suffix`` at its end; ``found`` is its `key`, ""
        where it cannot be read."""
        base = self.bases[photo]
        number = 0
        name = f"{base}{suffix}"
        while not self._is_free(name, base, photo, found):
            number += 1
            name = f"{base}-inverted{f'-{number}' if number > 1 else ''}{suffix}"
        self._reserve(name, base)
        return name

    def _is_free(self, name: str, base: str, photo: Path, found: str) -> bool:
        files = [f"{name}{ending}" for ending in ENDINGS]
        if any(
            self._owners.get(file.casefold(), base) != base or _SHEET.fullmatch(file)
            for file in files
        ):
            return False

        folder = self.index.path.parent
        return all(is_free(folder / file) for file in files) and not self.index.of_another(
            files[0], photo, found
        )

    def _reserve(self, name: str, base: str) -> None:
        for ending in ENDINGS:
            self._owners.setdefault(f"{name}{ending}".casefold(), base)


def _last_byte(handle: int, size: int) -> bytes:
    os.lseek(handle, size - 1, os.SEEK_SET)
    return os.read(handle, 1)


def _plain(text: str) -> str:
    """Return ``text`` with escapes for bytes of a file name that are not UTF-8, and for line breaks
    and the like."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _quoted(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def _unquoted(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else _plain(str(value))
