"""Native files: safetensors with a JSON header that says what they are."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from latentedit.errors import Error, FormatError, quoted, reason, shown
from latentedit.io.budget import ENTRIES, TEXT, check_finite, file_size, parse_json
from latentedit.io.files import is_picture, write_bytes

HEADER = "latentedit"
"""Key of the JSON header among the safetensors metadata."""


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""The kinds of numbers that a file may hold, with `FLOATS`."""


def write_tensors(
    path: str | os.PathLike[str],
    kind: str,
    version: int,
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write a native file: ``tensors`` and the JSON ``header``, marked with its ``kind`` and format
    ``version``."""
    text = json.dumps({"format": kind, "version": version, **header})
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, safetensors.torch.save(contiguous, metadata={HEADER: text}))


def read_header(path: str | os.PathLike[str], kind: str, version: int) -> dict[str, Any]:
    """The JSON header of a native file.

    Raises:
        Error: the file is missing, damaged, of another kind or written by a newer version.
    """
    size = file_size(path)
    if is_picture(path):
        raise FormatError(f"an image, not a {kind} file", path=path)

    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, TEXT):
                raise FormatError(
                    f"a header of {length} bytes, expected at most {max(min(size - 8, TEXT), 0)}"
                )
            table = parse_json(file.read(length))
        if not isinstance(table, dict) or len(table) > ENTRIES:
            raise FormatError(f"a header of more than {ENTRIES} tensors, or of none")
        metadata = table.get("__metadata__") or {}
        text = metadata.get(HEADER, "{}") if isinstance(metadata, dict) else None
        header = parse_json(text) if isinstance(text, str) else None
    except Error as error:
        raise FormatError(f"not a {kind} file, or damaged ({error})", path=path) from error

    if not isinstance(header, dict) or header.get("format") != kind:
        found = header.get("format") if isinstance(header, dict) else None
        named = (
            shown(found)
            if isinstance(found, str) and found
            else "a safetensors file of other origin"
        )
        raise FormatError(
            f"expected a {kind} file, found {named}", path=path, expected=kind, actual=named
        )
    if type(header.get("version")) is not int or header["version"] > version:
        raise FormatError(
            f"written in format version {quoted(header.get('version'))}, this latentedit reads "
            f"up to {version}; upgrade it",
            path=path,
        )

    try:
        # a figure may be undefined, and nothing is computed from it
        check_finite(header, but="report")
    except Error as error:
        raise error.at(path) from error

    return header


def read_tensors(
    path: str | os.PathLike[str], kind: str, version: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a native file, on the CPU, all of finite numbers; errors as
    `read_header`."""
    header = read_header(path, kind, version)
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (
        safetensors.SafetensorError,
        OSError,
        ValueError,
        RuntimeError,
        AttributeError,
        KeyError,
    ) as error:
        raise FormatError(f"not a {kind} file, or damaged ({reason(error)})", path=path) from error
    for name, tensor in tensors.items():
        check_numbers(path, name, tensor)
    return header, tensors


def check_numbers(path: str | os.PathLike[str], name: str, tensor: Tensor) -> None:
    """Raise `Error` unless the tensor called ``name`` in a file is a plain one of finite
    numbers."""
    if tensor.dtype not in FLOATS + WHOLE:
        raise FormatError(
            f"tensor {shown(name)} is of {tensor.dtype}, expected plain numbers", path=path
        )
    if tensor.dtype in FLOATS and tensor.numel():
        lowest, highest = torch.aminmax(tensor)  # a NaN is both; and nothing is allocated
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            raise FormatError(
                f"tensor {shown(name)} has values that are not finite numbers", path=path
            )
