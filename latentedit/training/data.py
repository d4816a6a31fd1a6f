"""Training sets: a stored zip or a folder of square pictures of one size, with labels in NVIDIA's ``dataset.json``."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentedit.errors import Error
from latentedit.files import replacing
from latentedit.images import EXTENSIONS, from_uint8, open_image

LABELS = "dataset.json"


class PictureSet:
    """Pictures decoded into memory once: uint8 ``[n, C, H, W]``, with one-hot labels ``[n, c_dim]``."""

    def __init__(self, pixels: Tensor, labels: Tensor, names: Sequence[str]) -> None:
        self.pixels, self.labels, self.names = pixels, labels, list(names)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def resolution(self) -> int:
        return self.pixels.shape[-1]

    @property
    def channels(self) -> int:
        return self.pixels.shape[1]

    def batch(self, positions: Iterable[int], seed: int, mirror: bool) -> tuple[Tensor, Tensor]:
        """Pictures ``[N, C, H, W]`` in [-1, 1] and labels ``[N, c_dim]`` at ``positions`` of an endless shuffled stream.

        Every epoch is a permutation drawn from ``seed`` and the epoch's number alone, so a position means the same
        picture in every process. With ``mirror`` an epoch shows every picture as it is and mirrored.
        """
        period = len(self) * (2 if mirror else 1)
        orders: dict[int, np.ndarray[Any, Any]] = {}
        chosen = []
        for position in positions:
            epoch, index = divmod(position, period)
            if epoch not in orders:
                orders[epoch] = np.random.default_rng([seed, epoch]).permutation(period)
            chosen.append(int(orders[epoch][index]))
        pictures = self.pixels[[i % len(self) for i in chosen]]
        flipped = torch.tensor([i >= len(self) for i in chosen])[:, None, None, None]
        pictures = torch.where(flipped, pictures.flip(3), pictures)
        return from_uint8(pictures), self.labels[[i % len(self) for i in chosen]]

    def digest(self) -> str:
        """SHA-256 of pixels and labels: tells a resumed run whether the data is still the same."""
        digest = hashlib.sha256(np.array(self.pixels.shape, dtype="<u4").tobytes())
        digest.update(self.pixels.numpy().tobytes())
        digest.update(self.labels.numpy().astype("<f4").tobytes())
        return digest.hexdigest()


def load_pictures(path: str | os.PathLike[str]) -> PictureSet:
    """Read a zip or folder that `build_pictures` (or NVIDIA's dataset tool) wrote.

    Raises:
        Error: nothing there, no pictures, pictures that are not square or not all of one size.
    """
    files = _read_all(Path(path))
    names = sorted(name for name in files if name.lower().endswith(EXTENSIONS))
    if not names:
        raise Error(f"{path}: no pictures ({', '.join(EXTENSIONS)}) in it")
    arrays: list[np.ndarray[Any, Any]] = []
    for name in names:
        try:
            picture = open_image(Image.open(io.BytesIO(files[name])))
        except (Error, OSError) as error:
            raise Error(f"{path}: {name} cannot be read ({error})") from error
        array = np.asarray(picture)
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        if array.shape[1] != array.shape[2]:
            raise Error(f"{path}: {name} is {array.shape[2]} x {array.shape[1]}, training needs squares; use dataset build")
        if arrays and array.shape != arrays[0].shape:
            raise Error(f"{path}: {name} has shape {array.shape}, {names[0]} {arrays[0].shape}; use dataset build")
        arrays.append(array)
    return PictureSet(torch.from_numpy(np.stack(arrays)), _read_labels(path, files.get(LABELS), names), names)


def _read_all(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        found = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in EXTENSIONS or p.name == LABELS]
        return {p.relative_to(path).as_posix(): p.read_bytes() for p in found}
    if not path.is_file():
        raise Error(f"{path}: no such folder or zip file")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    except (zipfile.BadZipFile, OSError) as error:
        raise Error(f"{path}: not a readable zip file ({error})") from error


def _read_labels(path: str | os.PathLike[str], text: bytes | None, names: list[str]) -> Tensor:
    labels = json.loads(text).get("labels") if text else None
    if not labels:
        return torch.zeros(len(names), 0)
    table = dict(labels)
    missing = [name for name in names if name not in table]
    if missing:
        raise Error(f"{path}: {LABELS} has no label for {missing[0]}")
    numbers = torch.tensor([int(table[name]) for name in names])
    return torch.nn.functional.one_hot(numbers).float()


def write_pictures(path: str | os.PathLike[str], pictures: Iterable[tuple[str, Image.Image]]) -> int:
    """Write ``(name, picture)`` pairs as an uncompressed zip of PNGs, atomically; returns how many.

    The bytes depend on the pictures alone, not on the time of writing.
    """
    count = 0
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, picture in pictures:
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            archive.writestr(zipfile.ZipInfo(name), buffer.getvalue())
            count += 1
        if not count:
            raise Error(f"{path}: no picture to write into it")
    return count
