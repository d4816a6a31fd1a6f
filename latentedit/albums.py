"""Many photographs at once: what is done already, what each gave, and which process does which."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentedit.errors import Error

COLUMNS = (
    "photo", "latent", "status", "perceptual", "psnr", "perceptual_own_noise", "psnr_own_noise", "w_distance", "w_percentile",
    "seconds", "remarks", "key",
)  # fmt: skip


def key(photo: str | os.PathLike[str], settings: dict[str, Any]) -> str:
    """16 hexadecimal digits that change with the content of ``photo`` and with ``settings``."""
    digest = hashlib.sha256(Path(photo).read_bytes())
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def share(items: Sequence[Path]) -> list[Path]:
    """The items that fall to this process, by the variables that torchrun sets (RANK, WORLD_SIZE); all of them without."""
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise Error("RANK and WORLD_SIZE must be numbers, as torchrun sets them") from error
    if not 0 <= rank < world:
        raise Error(f"RANK {rank} of WORLD_SIZE {world}")
    return list(items[rank::world])


class Index:
    """``index.csv`` in a folder of latents, a row a latent; rows are added one by one, and the last of a photo counts.

    Several processes may add to one file: every row is one write at its end.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / "index.csv"
        self.rows: dict[str, dict[str, str]] = {}
        if self.path.is_file():
            try:
                with open(self.path, newline="", encoding="utf-8") as file:
                    for row in csv.DictReader(file):
                        if row.get("latent"):
                            self.rows[str(row["latent"])] = {name: value or "" for name, value in row.items() if name}
            except (UnicodeDecodeError, csv.Error) as error:
                raise Error(f"{self.path}: not an index that latentedit wrote ({error})") from error

    def has(self, latent: str, found: str) -> bool:
        """Whether the latent of that name was made of a photo and with settings of the key ``found``, and is there."""
        row = self.rows.get(latent)
        return row is not None and row["status"] == "ok" and row["key"] == found and (self.path.parent / latent).is_file()

    def add(self, **row: Any) -> None:
        """Append a row of `COLUMNS`.

        Raises:
            Error: the file cannot be written.
        """
        text = {name: _text(row.get(name)) for name in COLUMNS}
        self.rows[text["latent"]] = text
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self._append(COLUMNS, os.O_CREAT | os.O_EXCL)
            self._append([text[name] for name in COLUMNS], 0)
        except OSError as error:
            raise Error(f"cannot write {self.path}: {error.strerror or error}") from error

    def _append(self, cells: Sequence[str], flags: int) -> None:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(cells)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | flags, 0o666)
        try:
            os.write(handle, buffer.getvalue().encode())
        finally:
            os.close(handle)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
