"""Files of plain arrays that other tools write: ``.npy``, ``.npz`` and ``.pt``."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentedit.errors import Error
from latentedit.foreign.checkpoints import read_tensors_or_values

ENDINGS = (".npy", ".npz", ".pt")
LARGEST = 1 << 30
"""Bytes that an ``.npz`` may unpack to."""
MOST = 10_000
"""Things in a file."""

Array = np.ndarray[Any, Any]


def read_arrays(path: str | os.PathLike[str]) -> Any:
    """The contents of such a file, tensors (those saved on a GPU too) as numpy arrays: an array, or what a ``.pt`` holds.

    Raises:
        Error: no such file, damaged, too large, or anything that is not data.
    """
    path = Path(path)
    if not path.is_file():
        raise Error(f"{path}: no such file")
    if path.suffix == ".pt":
        budget = [MOST]
        return _plain(path, read_tensors_or_values(path), 0, budget)
    if path.suffix not in ENDINGS:
        raise Error(f"{path}: arrays are read from {', '.join(ENDINGS)}")
    try:
        if zipfile.is_zipfile(path):  # whatever it is called, as numpy looks at the contents too
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > LARGEST:
                    raise Error(f"unpacks to more than {LARGEST >> 30} GiB")
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except Exception as error:  # a hostile or damaged file can raise anything
        text = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise Error(f"{path}: not a numpy file of numbers, or damaged ({text})") from error


def _plain(path: Path, value: Any, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        raise Error(f"{path}: more than {MOST} things, or the same ones again and again")
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_complex() or value.is_quantized:
            raise Error(f"{path}: holds something other than plain tensors of numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise Error(f"{path}: holds a tensor that claims more numbers than the file does")
        return value.detach().double().numpy() if value.is_floating_point() else value.detach().numpy()
    if depth < 4 and isinstance(value, dict):
        return {key: _plain(path, item, depth + 1, budget) for key, item in value.items()}
    if depth < 4 and isinstance(value, list | tuple):
        return [_plain(path, item, depth + 1, budget) for item in value]
    return value


def numbers(path: str | os.PathLike[str], array: Any) -> Array:
    """``array`` if it is one of finite numbers, as float64; else `Error`."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise Error(f"{path}: expected numbers, found {array.dtype if isinstance(array, np.ndarray) else type(array).__name__}")
    if not np.isfinite(array).all():
        raise Error(f"{path}: has values that are no numbers")
    return array.astype(np.float64)
