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

from latentedit.errors import FormatError, reason, shown
from latentedit.io.files import write_bytes
from latentedit.io.header import HEADER, read_header

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
