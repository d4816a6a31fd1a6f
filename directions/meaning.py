"""What the two ends of a slider mean, and how far it may be moved, in words and numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentedit.directions.facts import DirectionFacts
from latentedit.errors import Error, is_number, shown
from latentedit.io.budget import read_toml

ABOUT = "about.toml"
"""Lies beside directions, with a table for each."""


@dataclass(frozen=True)
class Meaning:
    """What a user should know of a slider; "" and None where nobody knows."""

    minus: str = ""
    """What a negative amount does."""
    plus: str = ""
    """What a positive amount does."""
    safe: tuple[float, float] | None = None
    """The lowest and highest amount in sigmas at which nearly all pictures stay in-domain."""


def meaning_of(path: Path, facts: DirectionFacts) -> Meaning:
    """Return what is known of the direction in the file ``path``, which says these ``facts``.

    The file `ABOUT` beside it counts before its own report and provenance.
    """
    beside = _beside(path)
    provenance = facts.provenance
    plus = (
        _text(beside.get("plus"))
        or _text(provenance.get("plus"))
        or _values(provenance.get("positive"))
        or _text(provenance.get("column"))
    )
    minus = _text(beside.get("minus")) or _values(provenance.get("negative"))
    if not minus and plus:
        minus = f"not {plus}" if _values(provenance.get("positive")) else f"less of: {plus}"
    effect = _object(facts.report.get("effect"))
    safe = _ends(beside.get("safe")) or _ends(effect.get("whole"))
    return Meaning(minus, plus, safe)


def quality_of(facts: DirectionFacts) -> str:
    """Return the figure that says how well the direction's score predicts its labels, or ""."""
    report = facts.report
    for name, title in (("photo_auc", "AUC"), ("auc", "AUC"), ("r2", "R2")):
        if is_number(report.get(name)):
            return f"{title} {report[name]:.2f}"
    return ""


def _beside(path: Path) -> dict[str, Any]:
    about = path.with_name(ABOUT)
    try:
        return _object(read_toml(about).get(path.stem)) if about.is_file() else {}
    except Error:
        return {}  # says nothing, then


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return shown(value) if isinstance(value, str) else ""


def _values(value: Any) -> str:
    return ", ".join(map(_text, value)) if isinstance(value, list) else ""


def _ends(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    if not all(is_number(end, 1000) for end in value):
        return None
    low, high = float(value[0]), float(value[1])
    return (low, high) if low <= 0 <= high else None
