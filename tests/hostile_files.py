"""A part of the campaign: damaged and hostile files."""

import contextlib
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from latentedit.errors import Error
from latentedit.training import loop
from tests.campaign import Case, Part, Place
from tests.mutations import variant
from tests.specimens import KINDS, Kind
from tests.watching import Outcome, command, current, judged, refusal

STUDIO = ".studio"
LOG = "run/log.jsonl"
SPOKEN_FOR = ("report", "settings", "distances", "provenance", "source", "label_names")
"""What is kept as it was found, whatever it is."""


class Files(Part):
    """Damaged and hostile versions of good files, read in Python or by a command."""

    name = "files"

    def case(self, number: int) -> Case:
        which = number % len(KINDS)
        kind, rng = KINDS[which], self.place.rng(self.name, number)
        uses: list[tuple[str, ...]] = [*([()] * 2 if kind.read else []), *kind.commands]
        return Case(
            self.name, self.place.seed, number, kind.file, list(rng.choice(uses)), {"kind": which}
        )

    def evidence(self, case: Case) -> bytes:
        if "file" in case.extra:
            return Path(case.extra["file"]).read_bytes()
        data = (self.place.good / case.name).read_bytes()
        return variant(case.name, data, self.place.rng("bytes", case.number), self.place.canary)

    def run(self, case: Case) -> Outcome:
        kind: Kind = KINDS[case.extra["kind"]]
        scratch, data, before = self.place.fresh(), self.evidence(case), self.place.signature()
        if kind.within:
            shutil.copytree(self.place.good / kind.within, scratch / kind.within)
        file = scratch / (kind.file if kind.within else Path(kind.file).name)
        file.write_bytes(data)
        filled = self.place.filled(case.arguments, file)
        with undrawn(kind):
            outcome = judged(lambda: command(filled) if filled else reading(kind, file), current[0])
        changed = damage(self.place, before)
        return (
            outcome
            if outcome.fault
            else overwritten(self.place, changed) or left_behind(scratch) or outcome
        )


@contextlib.contextmanager
def undrawn(kind: Kind | None = None) -> Iterator[None]:
    """Training draws no curves but of a damaged log: they take longer than everything else
    together."""
    if kind is not None and kind.file == LOG:
        yield
        return
    with patch.object(loop, "save_curves", lambda log, path: None):
        yield


def reading(kind: Kind, file: Path) -> Outcome:
    assert kind.read is not None
    try:
        found = kind.read(file)
    except Error as error:
        return refusal(error, file)
    odd = not_finite(found)
    return Outcome("accepted", odd) if odd else Outcome(None, "ok")


def not_finite(value: Any, where: str = "") -> str | None:
    """Where in ``value`` there is a number that is none; None where there is not."""
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        finite = not value.is_floating_point() or bool(torch.isfinite(value).all())
        return None if finite else f"{where} is not finite"
    if isinstance(value, np.ndarray):
        finite = value.dtype.kind != "f" or bool(np.isfinite(value).all())
        return None if finite else f"{where} is not finite"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{where} is {value}"
    inner: list[tuple[str, Any]] = []
    if is_dataclass(value):
        inner = [
            (one.name, getattr(value, one.name))
            for one in fields(value)
            if one.name not in SPOKEN_FOR
        ]
    elif isinstance(value, dict):
        inner = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        inner = [(str(number), item) for number, item in enumerate(value)]
    return next(
        (found for name, item in inner if (found := not_finite(item, f"{where}.{name}"[:80]))), None
    )


def damage(place: Place, before: dict[str, tuple[int, int, int]]) -> list[Path]:
    """Good files that have changed or gone; all of them are made whole again, and new ones
    removed."""
    after = place.signature()
    if after == before:
        return []
    changed = sorted(
        Path(name)
        for name, facts in before.items()
        if after.get(name) != facts and Path(name).suffix
    )
    shutil.rmtree(place.good)
    shutil.copytree(place.work / "spare", place.good, symlinks=True)
    return changed


def overwritten(place: Place, changed: list[Path]) -> Outcome | None:
    names = ", ".join(str(path.relative_to(place.good)) for path in changed[:5])
    return Outcome("lost", f"overwritten: {names}") if changed else None


def left_behind(folder: Path) -> Outcome | None:
    """Temporary files that nobody removes; the studio's own folder is there to be found again."""
    hidden = [path.name for path in folder.rglob(".*") if path.name != STUDIO]
    found = sorted({re.sub(r"-[a-z0-9_]{8}\b", "-*", name) for name in hidden})
    return Outcome("lost", f"left behind: {', '.join(found[:5])}") if found else None
