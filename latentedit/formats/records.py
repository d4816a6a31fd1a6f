"""What networks in NVIDIA's PyTorch pickles record: tensors, numbers and words, checked as they are
taken out."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from latentedit.errors import FormatError, quoted
from latentedit.formats.pickle_allow_list import Array, Held, Record

MOST = 10_000
"""Modules of a network; the largest published one has some hundreds."""


def record_tensors(record: Record) -> dict[str, Tensor]:
    """Return the parameters and buffers under their full names."""
    found: dict[str, Tensor] = {}
    for count, (prefix, module) in enumerate(_modules(record, "")):
        if count > MOST:  # the same modules within one another, again and again
            raise FormatError(f"more than {MOST} modules")
        for group in ("_parameters", "_buffers"):
            for name, value in module.get(group, {}).items():
                if isinstance(value, Held) and isinstance(value.value, Tensor):
                    found[f"{prefix}{word(name)}"] = value.value

    return found


def _modules(record: Record, prefix: str) -> Iterator[tuple[str, Record]]:
    yield prefix, record
    for name, module in record.get("_modules", {}).items():
        if isinstance(module, Record):
            yield from _modules(module, f"{prefix}{word(name)}.")


def word(value: Any) -> str:
    """Return a text, of which 100 letters count."""
    if not isinstance(value, str):
        raise FormatError(f"{quoted(value)} where a word was expected")
    return value[:100]


def whole(value: Any) -> int:
    """Return a number, rounded towards 0."""
    return int(number(value))


def number(value: Any) -> float:
    """Return a finite number of at most 2^53. A word is none, as one of a million digits is a
    number too."""
    plain = value.item() if isinstance(value, np.number | np.bool_) else value
    if not isinstance(plain, int | float) or not abs(plain) <= 2**53:
        raise FormatError(f"{quoted(plain)} where a number was expected")
    return float(plain)


def side(value: Any) -> int:
    """Return the side of a square, recorded as one number or as two equal ones."""
    if isinstance(value, Array):
        value = value.value.tolist()
    if not isinstance(value, list | tuple):
        return whole(value)
    if len(value) != 2 or whole(value[0]) != whole(value[1]):
        raise FormatError(f"{quoted(value)} where the side of a square was expected")
    return whole(value[0])
