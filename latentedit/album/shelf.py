"""Where inverted photos are kept: an album, which is a folder with an index, or the cache."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from latentedit.album.index import Index, Names
from latentedit.album.options import AlbumOptions
from latentedit.errors import Error
from latentedit.inversion.verdict import Verdict
from latentedit.io.contact_sheet import Row, sheet
from latentedit.io.files import cache_folder
from latentedit.io.images import own_path, save_image
from latentedit.io.video import save_video
from latentedit.latent.latent_file import Latent, describe_source, save_latent

SHEET_ROWS = 40
"""Rows of the contact sheet."""
HOLD = 24
"""How often the last frame of a search is repeated at the end of its video."""
CACHED = 500
"""Latents that the cache keeps; those that were used least recently go first."""


@dataclass
class Job:
    """A face that waits for its turn."""

    photo: Path
    name: str
    quad: list[list[float]]
    """Corners of its crop in the photo, in pixels."""
    target: Tensor
    """The crop, ``[1, C, R, R]`` in [-1, 1]."""
    remarks: list[str]
    """Warnings about the photo and its crop."""
    notes: Sequence[str]
    """What is good to know about the face."""
    key: str
    """Of the photo's content and all that decides what becomes of it (`index.keys`)."""


@dataclass(frozen=True)
class Inverted:
    """A face that was searched for."""

    job: Job
    latent: Latent
    target: Tensor
    searched: Tensor
    """Rendered with the optimised noise, ``[1, C, H, W]``."""
    own_noise: Tensor
    """Rendered with the model's own noise."""
    shown: Tensor
    """As the latent file renders."""
    distances: dict[str, float]
    frames: list[Tensor]
    """Images of some of the steps; empty without a video."""
    verdict: Verdict
    seconds: float
    """Share of the face in the time of its batch, with tuning."""
    interrupted: bool


@dataclass(frozen=True)
class Saved:
    """What a shelf wrote of a face."""

    written: list[Path]
    seconds: float
    """Those of the face, with the time for writing."""
    video: Path | None = None
    video_note: str | None = None


class Shelf(Protocol):
    """Where an `AlbumRunner` puts what it finds; `put` is called in another thread."""

    def begin(self, photos: Sequence[Path]) -> None:
        """Get ready for ``photos``, also those that other processes do."""

    def name(self, photo: Path, suffix: str, key: str) -> str:
        """Return the name for a face of ``photo``."""

    def has(self, name: str, key: str, before: str) -> bool:
        """Return whether the face of that name was made of the same photo, with the same options
        and contents of files; ``before`` is the key that older versions gave it."""

    def fail(self, photo: Path, key: str, reason: str) -> None:
        """Note that a photo could not be done."""

    def put(self, found: Inverted) -> Saved:
        """Keep a face."""

    def overview(self) -> tuple[Path, str | None] | None:
        """Draw all faces, and return the file and what went wrong with it; None for no overview."""


class AlbumFolder:
    """A folder with a latent, an image and a comparison for every face, and a row of index.csv.

    Args:
        options: of the album.

    Raises:
        Error: the folder's index cannot be read.
    """

    def __init__(self, folder: str | os.PathLike[str], options: AlbumOptions) -> None:
        self.folder = Path(folder)
        self.options = options
        self._index = Index(folder)
        self._names = Names(self._index, [])
        self._rows: list[Row] = []

    def begin(self, photos: Sequence[Path]) -> None:
        self._names = Names(self._index, photos)

    def name(self, photo: Path, suffix: str, key: str) -> str:
        return self._names.of(photo, suffix, key)

    def has(self, name: str, key: str, before: str) -> bool:
        latent = f"{name}.safetensors"
        if self._index.has(latent, key):
            return True
        # Rows of older versions know files by their names alone. They count unless such a file was
        # changed since.
        return self._index.has(latent, before) and self._unchanged_since(self.folder / latent)

    def _unchanged_since(self, latent: Path) -> bool:
        try:
            made = latent.stat().st_mtime_ns
            return all(file.stat().st_mtime_ns <= made for file in self.options.named_files)
        except OSError:
            return False

    def fail(self, photo: Path, key: str, reason: str) -> None:
        failed = f"{self._names.of(photo, found=key)}.safetensors"
        self._index.add(photo, latent=failed, status="failed", remarks=reason)

    def put(self, found: Inverted) -> Saved:
        started = time.monotonic()
        job = found.job
        photo = job.photo
        name = job.name
        latent = found.latent
        latent.source = describe_source(photo) if self.options.remember_source else None

        written = [
            self.folder / f"{name}{ending}" for ending in (".safetensors", ".png", "-compare.png")
        ]
        save_latent(written[0], latent)
        save_image(found.shown, written[1])
        video = self.folder / f"{name}.mp4" if self.options.video else None
        note = None if video is None else save_video(video, [*found.frames, *[found.shown] * HOLD])

        pictures = [found.target, found.searched, found.own_noise]
        captions = ["photo", "optimised noise", "own noise"]
        if latent.tuned:
            pictures = [*pictures, found.shown]
            captions = [*captions, "tuned"]
        save_image(sheet([Row(photo.name, pictures, captions)]), written[2])
        # In [-1, 1]: no difference is black.
        difference = (found.target - found.shown).abs() * 2 - 1
        self._rows.append(Row(photo.name, [*pictures, difference], [*captions, "difference"]))

        seconds = found.seconds + time.monotonic() - started
        self._index.add(
            photo,
            latent=written[0].name,
            **found.distances,
            seconds=round(seconds, 1),
            status="interrupted" if found.interrupted else "ok",
            remarks="; ".join(job.remarks),
            key=job.key,
        )
        return Saved(written, seconds, video, note)

    def overview(self) -> tuple[Path, str | None] | None:
        if len(self._rows) < 2:
            return None
        rank = os.environ.get("RANK")
        drawn = own_path(self.folder / (f"sheet-{rank}.png" if rank else "sheet.png"), "latentedit")
        try:
            save_image(sheet(self._rows[:SHEET_ROWS]), drawn)
        except Error as error:
            # Told and not raised, as the failures of photos are to be told too.
            return drawn, str(error)
        return drawn, None


class LatentCache:
    """Latents of photos by what they were made of and with: nothing in the cache names a photo.

    A search that was interrupted is not kept.

    Args:
        folder: None for "latents" in the cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() / "latents" if folder is None else folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def begin(self, photos: Sequence[Path]) -> None:
        """Nothing to get ready."""

    def name(self, photo: Path, suffix: str, key: str) -> str:
        return f"{key}{suffix}"

    def has(self, name: str, key: str = "", before: str = "") -> bool:
        """Whether the latent is there; if so, it counts as used now."""
        try:
            os.utime(self.path(name))
        except OSError:
            return False
        return True

    def fail(self, photo: Path, key: str, reason: str) -> None:
        """Nothing is kept of failures."""

    def put(self, found: Inverted) -> Saved:
        started = time.monotonic()
        written = []
        if not found.interrupted:
            written = [self.path(found.job.name)]
            save_latent(written[0], found.latent)
            self._make_room()
        return Saved(written, found.seconds + time.monotonic() - started)

    def _make_room(self) -> None:
        kept = []
        for path in self.folder.glob("*.safetensors"):
            with suppress(OSError):  # another process made room
                kept.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(kept)[:-CACHED]:
            with suppress(OSError):
                path.unlink()

    def overview(self) -> tuple[Path, str | None] | None:
        return None
