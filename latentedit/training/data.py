"""Training sets: a stored zip or a folder of square images of one size, with labels in NVIDIA's
``dataset.json``."""

import hashlib
import io
import json
import math
import os
import re
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentedit.errors import (
    ArgumentError,
    DataError,
    Error,
    FormatError,
    NotFoundError,
    OutputError,
    quoted,
    reason,
    shown,
)
from latentedit.io import outputs
from latentedit.io.budget import TEXT, THINGS, opened_zip, parse_json
from latentedit.io.files import is_picture, replacing, replacing_folder
from latentedit.io.folders import hidden
from latentedit.io.images import EXTENSIONS, from_uint8, open_image, opened

LABELS = "dataset.json"
WRITTEN_BY = b"latentedit"
"""The comment of zips that were written here, and may be replaced."""
DRIVE = re.compile(r"[A-Za-z]:")
PICTURES = 2**18
"""Members of a zip at most; larger sets are folders."""
PICTURE = 512
LABEL = 1024
NUMBERS = 64
"""Bytes of a picture in a zip at least, where there are many; bytes of its label at most, and
numbers and texts in it."""
LARGEST_FILE = 2**28
"""Bytes of one picture's file, packed or not, or of a ``dataset.json``."""
DENSE = 2**24
DENSEST = 100
"""Larger members of a zip may not unpack to more than so many times their size: they would be
nothing but zeros."""
MOST_LABELS = 2**16
MOST_NUMBERS = 2**26
"""Labels, and numbers in the table of all pictures' labels, of which half must be labels that
occur."""
IN_MEMORY = 2 * 2**30
"""Sets of at most this many bytes, decoded, are kept in memory."""
DECODERS = 4
"""Threads that decode pictures of larger sets."""
AHEAD = 64
"""Batches that may be waited for at most; one a round of accumulation is."""


class PictureSet:
    """A training set: square images of one size, with one-hot labels ``[n, c_dim]``.

    Args:
        pixels: uint8 ``[n, C, H, W]`` in memory.
        labels: float ``[n, c_dim]``; c_dim is 0 without labels.
        names: names of the images.
        label_names: one name per label, or none.
        source_digest: identifies the data, if that is cheaper than hashing the pixels.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        names: Sequence[str],
        label_names: Sequence[str] = (),
        source_digest: str | None = None,
    ) -> None:
        if len(labels) != len(pixels):
            raise ArgumentError(f"{len(pixels)} images but {len(labels)} labels")
        self.pixels = pixels
        self.labels = labels
        self.names = list(names)
        self.label_names = list(label_names)
        self.shape: tuple[int, ...] = tuple(pixels.shape[1:])
        self.swap = torch.arange(labels.shape[1])
        self._digest = source_digest
        self._orders: dict[tuple[int, int, int], np.ndarray[Any, Any]] = {}

    def __len__(self) -> int:
        return len(self.names)

    @property
    def resolution(self) -> int:
        return self.shape[-1]

    @property
    def channels(self) -> int:
        return self.shape[0]

    def read(self, rows: Sequence[int]) -> Tensor:
        """uint8 ``[N, C, H, W]``."""
        return self.pixels[list(rows)]

    def swap_when_mirrored(self, pairs: Mapping[str, str]) -> None:
        """Exchange the labels of each pair (left and right) in mirrored images; labels are given by
        name or number.

        Raises:
            Error: an unknown label, or a label in two pairs.
        """
        known = {name: i for i, name in enumerate(self.label_names)} | {
            str(i): i for i in range(self.labels.shape[1])
        }
        for one, other in pairs.items():
            for name in (one, other):
                if name not in known:
                    raise NotFoundError(
                        f"no label {name!r}; labels are "
                        f"{', '.join(self.label_names or known) or 'missing'}"
                    )

            a = known[one]
            b = known[other]
            if int(self.swap[a]) != a or int(self.swap[b]) != b:
                raise ArgumentError(f"label {one!r} or {other!r} is in more than one pair")

            self.swap[a] = b
            self.swap[b] = a

    @property
    def classes(self) -> bool:
        """Whether every picture has one label, as opposed to a vector of numbers."""
        one = (self.labels == 1).sum(dim=1) + (self.labels == 0).sum(dim=1) == self.labels.shape[1]
        return self.labels.shape[1] > 0 and bool((one & (self.labels.sum(dim=1) == 1)).all())

    def label_frequencies(self, mirror: bool) -> list[float] | None:
        """Share of the pictures that has each label, with the mirrored ones if ``mirror``; None
        unless there are classes."""
        if not self.classes:
            return None
        shares = self.labels.mean(dim=0)
        return [
            round(share, 6)
            for share in ((shares + shares[self.swap]) / 2 if mirror else shares).tolist()
        ]

    def labels_at(self, rows: Tensor, mirror: bool) -> Tensor:
        """Return the labels ``[N, c_dim]`` of ``rows [N]`` of the set, or with ``mirror`` of the
        set and its mirrored pictures."""
        labels = self.labels[rows % len(self)]
        return (
            torch.where((rows >= len(self))[:, None], labels[:, self.swap], labels)
            if mirror
            else labels
        )

    def chosen(self, positions: Iterable[int], seed: int, mirror: bool) -> list[int]:
        """Rows at ``positions`` of the stream that `batch` describes; those of mirrored pictures
        follow the others."""
        period = len(self) * (2 if mirror else 1)
        found = []
        for position in positions:
            epoch, index = divmod(position, period)
            key = seed, epoch, period
            order = self._orders.get(key)
            if order is None:
                order = np.random.default_rng([seed, epoch]).permutation(period)
                self._orders = dict([*list(self._orders.items())[-1:], (key, order)])
            found.append(int(order[index]))

        return found

    def batch(self, positions: Iterable[int], seed: int, mirror: bool) -> tuple[Tensor, Tensor]:
        """Return images ``[N, C, H, W]`` in [-1, 1] and labels ``[N, c_dim]`` at ``positions`` of
        an endless shuffled stream.

        Every epoch is a permutation that only depends on ``seed`` and the epoch's number, so a
        position means the same image in every process. With ``mirror``, an epoch contains every
        image as it is and mirrored.
        """
        chosen = self.chosen(positions, seed, mirror)
        rows = [i % len(self) for i in chosen]
        pictures = self.read(rows)
        labels = self.labels[rows]
        flipped = torch.tensor([i >= len(self) for i in chosen])
        pictures = torch.where(flipped[:, None, None, None], pictures.flip(3), pictures)
        labels = torch.where(flipped[:, None], labels[:, self.swap], labels)
        return from_uint8(pictures), labels

    def digest(self) -> str:
        """Return the SHA-256 of images and labels, by which a resumed run recognises its data."""
        if self._digest is None:
            digest = hashlib.sha256(np.array(self.pixels.shape, dtype="<u4").tobytes())
            digest.update(self.pixels.numpy().tobytes())
            digest.update(self.labels.numpy().astype("<f4").tobytes())
            self._digest = digest.hexdigest()
        if bool((self.swap == torch.arange(len(self.swap))).all()):
            return self._digest
        return hashlib.sha256(f"{self._digest} {self.swap.tolist()}".encode()).hexdigest()


class StoredPictureSet(PictureSet):
    """Pictures decoded when they are wanted, by threads, a batch ahead of the one that is being
    worked on."""

    def __init__(
        self,
        source: "PictureSource",
        names: Sequence[str],
        shape: tuple[int, int, int],
        labels: Tensor,
        label_names: Sequence[str] = (),
    ) -> None:
        super().__init__(
            torch.empty(len(names), 0), labels, names, label_names, source.digest(names, labels)
        )
        self.shape = shape
        self.source = source
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._coming: dict[tuple[tuple[int, ...], int, bool], Future[tuple[Tensor, Tensor]]] = {}

    def read(self, rows: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.stack(list(self._pool.map(self._decode, rows))))

    def _decode(self, row: int) -> np.ndarray[Any, Any]:
        array = _decode(self.source, self.names[row])
        if array.shape != self.shape:
            raise DataError(
                f"{self.names[row]} has shape {array.shape}, expected {self.shape}; use dataset "
                "build",
                path=self.source.path,
            )
        return array

    def batch(self, positions: Iterable[int], seed: int, mirror: bool) -> tuple[Tensor, Tensor]:
        wanted = tuple(positions), seed, mirror
        load = super().batch
        found = self._coming.pop(wanted).result() if wanted in self._coming else load(*wanted)
        ahead = (
            max(wanted[0])
            - min(wanted[0])
            + (wanted[0][1] - wanted[0][0] if len(wanted[0]) > 1 else 1)
        )
        following = tuple(position + ahead for position in wanted[0]), seed, mirror
        self._coming = dict(list(self._coming.items())[-AHEAD:]) | {
            following: self._ahead.submit(load, *following)
        }
        return found


class PictureSource:
    """Bytes by name, from a folder or a zip; names have slashes.

    Hidden files count as not there. A top folder that all of a zip is in is no part of the names,
    where it has sub-folders or a ``dataset.json``.

    Raises:
        Error: no such folder or zip, or names that point outside of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._top = ""

        if os.path.isdir(path):
            found = [p.relative_to(path).as_posix() for p in sorted(path.rglob("*")) if p.is_file()]
        elif os.path.isfile(path):
            outputs.given(path)
            if is_picture(path):
                raise FormatError("an image, expected a folder or a zip file of images", path=path)
            found = [name for name in self._archive().namelist() if not name.endswith("/")]
            for name in found:  # what is read here may be written elsewhere under the same name
                if (
                    name.startswith(("/", "\\"))
                    or DRIVE.match(name)
                    or ".." in name.replace("\\", "/").split("/")
                ):
                    raise FormatError(
                        f"the name {name[:100]!r} in it points outside; the file is malicious, "
                        "or damaged",
                        path=path,
                    )
        else:
            raise NotFoundError("no such folder or zip file", path=path)

        found = [name for name in found if not hidden(name)]
        if os.path.isfile(path):
            self._top = _common_top(found)
            found = [name.removeprefix(self._top) for name in found]
        else:
            for name in found:
                outputs.given(path / name)

        self.names = [name for name in found if name.lower().endswith(EXTENSIONS) or name == LABELS]
        self.others = [
            name for name in found if not (name.lower().endswith(EXTENSIONS) or _is_labels(name))
        ]
        """What is neither a picture nor labels."""

    def _archive(self) -> zipfile.ZipFile:
        try:
            # one a thread: reading moves the file's position
            if not hasattr(self._local, "archive"):
                # it closes the file when it goes
                self._local.opened = opened_zip(self.path, PICTURES, whole=False)
                self._local.archive = self._local.opened.__enter__()
        # What is in the directory of an archive can be anything.
        except (OSError, ValueError, OverflowError) as error:
            raise FormatError(
                f"not a readable zip file ({reason(error)})", path=self.path
            ) from error

        archive: zipfile.ZipFile = self._local.archive
        return archive

    def read(self, name: str) -> bytes:
        """Return the bytes of one file.

        Raises:
            Error: it cannot be read, or is larger than any picture.
        """
        try:
            if os.path.isdir(self.path):
                self._check_size(name, (self.path / name).stat().st_size, None)
                return (self.path / name).read_bytes()
            info = self._archive().getinfo(self._top + name)
            self._check_size(name, info.file_size, info.compress_size)
            return self._archive().read(info)
        except Error:
            raise
        except Exception as error:  # damaged members fail in as many ways as there are compressions
            raise FormatError(
                f"{shown(name)} cannot be read ({reason(error)})", path=self.path
            ) from error

    def _check_size(self, name: str, size: int, packed: int | None) -> None:
        if size > LARGEST_FILE:
            raise FormatError(
                f"{name} has {size / 2**20:.0f} MB, more than {LARGEST_FILE / 2**20:.0f} MB",
                path=self.path,
            )
        if packed is not None and size > DENSE and size > DENSEST * max(packed, 1):
            raise FormatError(
                f"{name} is {packed} bytes that unpack to {size / 2**20:.0f} MB; the file may be "
                "malicious",
                path=self.path,
            )

    def digest(self, names: Sequence[str], labels: Tensor) -> str:
        digest = hashlib.sha256()
        for name in names:
            crc = (
                zlib.crc32(self.read(name))
                if os.path.isdir(self.path)
                else self._archive().getinfo(self._top + name).CRC
            )
            digest.update(f"{name} {crc}\n".encode("utf-8", "surrogateescape"))

        digest.update(labels.numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def labels(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the ``dataset.json``, {} where there is none, and its labels by the names of the
        pictures here.

        Backslashes and ``./`` in its names are matched, and the top folder.

        Raises:
            Error: it is not such a file.
        """
        if LABELS not in self.names:
            return {}, {}
        text, things = self._label_text()
        try:
            document = parse_json(text, len(text), things)
            rows = document.get("labels") or []
            return document, {self.plain(str(name)): label for name, label in rows}
        except (ValueError, AttributeError, TypeError) as error:
            raise FormatError(
                f'{LABELS} must be {{"labels": [["name.png", 0], ...]}} ({reason(error)})',
                path=self.path,
            ) from error

    def _label_text(self) -> tuple[bytes, int]:
        """Return the ``dataset.json``, and how many things may be in it: both may be the larger,
        the more pictures there are."""
        pictures = len(self.names)
        # in a zip a name needs few bytes where no picture is behind it
        if os.path.isfile(self.path):
            pictures = min(pictures, os.path.getsize(self.path) // PICTURE)
            size = self._archive().getinfo(self._top + LABELS).file_size
        else:
            size = os.path.getsize(self.path / LABELS)

        if size > TEXT + LABEL * pictures:
            raise FormatError(
                f"{LABELS} has {size} bytes, expected at most {TEXT + LABEL * pictures}",
                path=self.path,
            )
        return self.read(LABELS), THINGS + NUMBERS * pictures

    def plain(self, name: str) -> str:
        """Return ``name`` as a table of labels has it, with the separators of `names` and without
        the top folder."""
        found = PurePosixPath(name.replace("\\", "/")).as_posix()
        return found.removeprefix(self._top) if self._top else found


def _is_labels(name: str) -> bool:
    return PurePosixPath(name).name == LABELS


def _common_top(names: Sequence[str]) -> str:
    """Return ``"photos/"`` where all ``names`` begin with it, and further folders or a
    ``dataset.json`` are beneath it."""
    tops = {name.partition("/")[0] for name in names}
    if len(tops) != 1 or not all("/" in name for name in names):
        return ""
    top = f"{tops.pop()}/"
    beneath = [name.removeprefix(top) for name in names]
    return (
        top
        if LABELS in beneath
        or all("/" in name for name in beneath if name.lower().endswith(EXTENSIONS))
        else ""
    )


def load_pictures(path: str | os.PathLike[str], in_memory: int = IN_MEMORY) -> PictureSet:
    """Read a zip or folder written by `write_pictures` (or NVIDIA's dataset tool).

    If the decoded images take more than ``in_memory`` bytes, they are decoded on demand.

    Raises:
        Error: a missing file, no images, images that are not square or not all of one size, or
            labels that do not match.
    """
    source = PictureSource(Path(path))
    names = sorted(name for name in source.names if name.lower().endswith(EXTENSIONS))
    if not names:
        raise NotFoundError(f"no images ({', '.join(EXTENSIONS)}) in it", path=path)

    labels, label_names = _read_labels(source, names)
    first = _decode(source, names[0])

    # Decoding takes longer than training at small sizes, so what fits into memory is decoded once.
    if len(names) * first.nbytes > in_memory:
        return StoredPictureSet(source, names, first.shape, labels, label_names)

    arrays = [first, *(_decode(source, name) for name in names[1:])]
    for name, array in zip(names, arrays, strict=True):
        if array.shape != first.shape:
            raise DataError(
                f"{name} has shape {array.shape}, {names[0]} {first.shape}; use dataset build",
                path=path,
            )

    return PictureSet(torch.from_numpy(np.stack(arrays)), labels, names, label_names)


def _decode(source: PictureSource, name: str) -> np.ndarray[Any, Any]:
    called = f"{source.path}: {name}"
    with opened(io.BytesIO(source.read(name)), called) as file:
        picture = open_image(file, name=called)
    array = np.asarray(picture)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if array.shape[1] != array.shape[2]:
        raise DataError(
            f"{name} is {array.shape[2]} x {array.shape[1]}, training needs squares; use dataset "
            "build",
            path=source.path,
        )
    return np.ascontiguousarray(array)


def _read_labels(source: PictureSource, names: list[str]) -> tuple[Tensor, list[str]]:
    path = source.path
    document, table = source.labels()
    if not table:
        return torch.zeros(len(names), 0), []

    missing = [name for name in names if name not in table]
    if missing:
        raise DataError(f"{LABELS} has no label for {missing[0]}", path=path)

    rows = [table[name] for name in names]
    if all(type(row) is int and row >= 0 for row in rows):
        given = document.get("label_names") or []
        if not isinstance(given, list):
            raise FormatError(f"the label_names in {LABELS} must be a list of names", path=path)
        label_names = [str(name) for name in given]
        count = max(len(label_names), max(rows) + 1)
        if label_names and len(label_names) < count:
            raise FormatError(
                f"{LABELS} names {len(label_names)} labels, but has number {count - 1}", path=path
            )
        if count > MOST_LABELS or (len(rows) * count > MOST_NUMBERS and count > 2 * len(set(rows))):
            raise FormatError(
                f"{LABELS} has the label {quoted(max(rows))}, but only {len(set(rows))} "
                "different ones;"
                " number them from 0 without gaps",
                path=path,
            )
        return torch.nn.functional.one_hot(torch.tensor(rows), count).float(), label_names

    if all(isinstance(row, list) for row in rows):
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1:
            raise FormatError(
                f"{LABELS} has labels of unequal length ({lengths[0]} and {lengths[-1]})", path=path
            )

        try:
            vectors = torch.tensor(rows, dtype=torch.float32)
        except (ValueError, TypeError, OverflowError, RuntimeError) as error:
            raise FormatError(
                f"{LABELS} has labels that are not numbers ({reason(error)})", path=path
            ) from error

        if vectors.ndim != 2 or not bool(vectors.isfinite().all()):
            raise FormatError(f"{LABELS} has labels that are not finite numbers", path=path)
        return vectors, []

    raise FormatError(
        f"{LABELS} must have a whole number, or a list of numbers, for every image", path=path
    )


def portable(name: str) -> str:
    """Return ``name`` without what is refused or cannot be stored elsewhere: backslashes, a drive,
    letters that are not printable."""
    found = "".join(letter if letter.isprintable() and letter != "\\" else "_" for letter in name)
    return f"{found[0]}_{found[2:]}" if DRIVE.match(found) else found


def write_pictures(
    path: str | os.PathLike[str],
    pictures: Iterable[tuple[str, Image.Image]],
    labels: Callable[[str], str | None] | None = None,
) -> int:
    """Write ``(name, picture)`` pairs as PNGs to an uncompressed zip (``path`` ends in .zip) or a
    folder; returns their number.

    ``labels`` maps a name to its label. Labels are numbered in sorted order and stored with their
    names in NVIDIA's ``dataset.json``. The bytes depend only on the images, not on the time of
    writing. The zip or folder is either complete or absent.

    Raises:
        Error: nothing to write, or some images have no label although others do.
    """
    path = Path(path)
    found = dict[str, str | None]()

    def fill(write: Callable[[str, bytes], None]) -> None:
        for name, picture in pictures:
            # it could not be read again
            if len(found) + 1 == PICTURES and path.suffix.lower() == ".zip":
                raise DataError(
                    f"a zip has fewer than {PICTURES} pictures; give a folder, which has as many "
                    "as there are",
                    path=path,
                )

            buffer = io.BytesIO()
            picture.save(buffer, "PNG", icc_profile=None)
            write(name, buffer.getvalue())
            found[name] = labels(name) if labels else None

        if not found:
            raise NotFoundError("there are no images to write", path=path)
        if labels is not None and all(label is None for label in found.values()):
            raise DataError(
                "none of the images has a label, although labels were asked for", path=path
            )

        if any(label is not None for label in found.values()):
            bare = [name for name, label in found.items() if label is None]
            if bare:
                raise DataError(f"{bare[0]} has no label, others have", path=path)
            known = sorted({str(label) for label in found.values()}, key=_numeric)
            rows = [[name, known.index(str(label))] for name, label in found.items()]
            write(LABELS, json.dumps({"labels": rows, "label_names": known}, indent=1).encode())

    if path.suffix.lower() == ".zip":
        if outputs.in_force():
            _check_replaceable(path)
        with (
            replacing(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        ):
            # The mark by which a later run knows that it may replace this file.
            archive.comment = WRITTEN_BY
            # ZipInfo without a time: equal images make equal files, whose digest identifies the
            # training set.
            fill(lambda name, data: archive.writestr(zipfile.ZipInfo(name), data))
    else:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(
                "already exists; give a new folder, or a name that ends in .zip", path=path
            )
        with replacing_folder(path) as partial:

            def write(name: str, data: bytes) -> None:
                place = partial / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)

            fill(write)

    return len(found)


def _check_replaceable(path: Path) -> None:
    """Refuse to put a data set in the place of an archive of the user's own."""
    if not os.path.isfile(path) or path.stat().st_size == 0:
        return
    try:
        with opened_zip(path, PICTURES, whole=False) as archive:
            ours = archive.comment == WRITTEN_BY
    except Exception:  # whatever it is, it is no data set of ours
        ours = False

    if not ours:
        raise OutputError(
            "already exists, and latentedit did not write it; give the output another name, or "
            "remove that file",
            path=path,
        )


def _numeric(label: str) -> tuple[int, float, str]:
    """Sorts numbers by value, before words."""
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    return (0, number, label) if math.isfinite(number) else (1, 0.0, label)
