"""Files of plain arrays that other tools write: ``.npy``, ``.npz`` and ``.pt``."""

import io
import math
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from latentedit.errors import Error, FormatError, quoted, reason
from latentedit.io.budget import check_things, file_size, opened_zip
from latentedit.io.files import is_picture
from latentedit.io.torch_files import read_torch

ENDINGS = (".npy", ".npz", ".pt")
MOST = 10_000
"""Things in a file."""
HEADER = 10_000
"""Bytes of the header of a ``.npy``, which says the shape."""

Array = np.ndarray[Any, Any]


def read_arrays(path: str | os.PathLike[str]) -> Any:
    """Return the contents of such a file, tensors (those saved on a GPU too) as numpy arrays: an
    array, or what a ``.pt`` holds.

    Raises:
        Error: no such file, damaged, too large, or anything that is not data.
    """
    path = Path(path)
    size = file_size(path)
    if is_picture(path):
        raise FormatError("an image, not an array of numbers", path=path)

    if path.suffix == ".pt":
        found = read_torch(path)
        try:
            check_things(found, deepest=6, most=MOST)
        except Error as error:
            raise error.at(path) from error
        return _plain(found)

    if path.suffix not in ENDINGS:
        raise FormatError(f"arrays are read from {', '.join(ENDINGS)}", path=path)

    try:
        if zipfile.is_zipfile(path):  # whatever it is called
            with opened_zip(path, MOST) as archive:
                members = {member.filename: member for member in archive.infolist()}
                return {
                    name.removesuffix(".npy"): _member(archive, member)
                    for name, member in members.items()
                }
        with open(path, "rb") as file:
            return _array(file, size)
    except Exception as error:  # a hostile or damaged file can raise anything
        raise FormatError(
            f"not a numpy file of numbers, or damaged ({reason(error)})", path=path
        ) from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    return _array(io.BytesIO(archive.read(member)), member.file_size)


def _array(file: BinaryIO, size: int) -> Array:
    """Return the array of a ``.npy`` of ``size`` bytes; no more than those are allocated, whatever
    it says."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise FormatError(
            f"version {version[0]}.{version[1]} of the format, which arrays of numbers do not need"
        )

    shape, fortran, kind = readers[version](file, HEADER)
    if kind.kind not in "biufSU" or len(shape) > 8 or any(n < 0 for n in shape):
        raise FormatError(f"an array of {quoted(str(kind))}, expected numbers")

    count = math.prod(shape)
    if count * kind.itemsize > size or math.prod(max(n, 1) for n in shape) > max(size, 2**20):
        raise FormatError("an array that claims more numbers than the file has")

    data = file.read(count * kind.itemsize)
    return np.frombuffer(data, dtype=kind, count=count).reshape(
        shape, order="F" if fortran else "C"
    )


def _plain(value: Any) -> Any:
    """Return ``value`` with arrays in place of its tensors; they share their numbers."""
    if isinstance(value, Tensor):
        return (
            value.float() if value.dtype.itemsize == 2 and value.is_floating_point() else value
        ).numpy()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def numbers(
    path: str | os.PathLike[str], array: Any, kind: type[np.floating[Any]] = np.float64
) -> Array:
    """Return ``array`` as floats of that ``kind`` if it is one of finite numbers; else `Error`."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise FormatError(
            "expected numbers, found "
            f"{array.dtype if isinstance(array, np.ndarray) else quoted(array)}",
            path=path,
        )

    with np.errstate(over="ignore"):
        found = array.astype(kind)
    # Not before, as a number can be too large for the kind. A NaN is both the lowest and the
    # highest.
    lowest, highest = (found.min(), found.max()) if found.size else (0.0, 0.0)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise FormatError("has values that are not numbers", path=path)
    return found
