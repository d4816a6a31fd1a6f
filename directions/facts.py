"""What a direction file says of itself, read without its vector and without torch, so that listing
many is quick."""

import os
from dataclasses import dataclass
from typing import Any

from latentedit.errors import FormatError, complete, is_number
from latentedit.io.budget import check_things
from latentedit.io.header import DIRECTION, read_header

FACTS = 5000
"""Largest number of values in a report; pages and images are made from them."""


@dataclass(frozen=True)
class DirectionFacts:
    """A direction without its vector; the attributes are those of
    `latentedit.directions.Direction`."""

    name: str
    intercept: float
    sigma: float
    fingerprint: str
    layers: tuple[int, int] | None
    space: str
    """"" in files that leave it to the shape of the vector."""
    report: dict[str, Any]
    provenance: dict[str, Any]


def read_facts(path: str | os.PathLike[str]) -> DirectionFacts:
    """Read the header of a direction file.

    Raises:
        Error: the file is missing, damaged or of another kind.
    """
    header = read_header(path, *DIRECTION)
    with complete(path, "direction"):
        return facts_in(header)


def facts_in(header: dict[str, Any]) -> DirectionFacts:
    """Return the facts in the header of a direction file; raise `Error` where one is of another
    kind than it should be."""
    for name in ("report", "provenance"):
        if not isinstance(header.get(name), dict | None):
            raise FormatError.of(f"a direction file's {name}", "an object", header[name])
        check_things(header.get(name), most=FACTS)

    layers = header.get("layers")
    if layers is not None and not isinstance(layers, list):
        raise FormatError.of("a direction file's layers", "the first and the last", layers)

    for name in ("intercept", "sigma"):
        value = header[name]
        if not is_number(value):
            raise FormatError.of(f"a direction file's {name}", "a finite number", value)

    for name in ("name", "fingerprint"):
        if not isinstance(header[name], str):
            raise FormatError.of(f"a direction file's {name}", "a text", header[name])

    return DirectionFacts(
        name=header["name"],
        intercept=float(header["intercept"]),
        sigma=float(header["sigma"]),
        fingerprint=header["fingerprint"],
        layers=tuple(layers) if layers else None,
        space=header.get("space") or "",
        report=header.get("report") or {},
        provenance=header.get("provenance") or {},
    )
