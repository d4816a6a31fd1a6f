"""Sentences for figures of a report that cannot be distinguished from chance."""

import math
from collections.abc import Mapping
from typing import Any

MARGIN = 1.2
"""On the number of labels that would do, so that chance lies outside of the interval and not at its
end."""


def doubts_about(report: Mapping[str, Any]) -> list[str]:
    """Return a sentence for every figure of a report that cannot be distinguished from chance.

    Intervals shrink with the square root of the number of labels (of people, if they are known).
    This gives the number that would suffice if the figure stayed the same.
    """
    found = []
    for prefix, what in (("", "the probe"), ("photo_", "the photo classifier")):
        for key, name, chance in (("auc", "AUC", 0.5), ("r2", "R2", 0.0)):
            value = report.get(f"{prefix}{key}")
            interval = report.get(f"{prefix}{key}_interval")
            if (
                value is None
                or interval is None
                or not all(map(math.isfinite, (value, *interval)))
                or interval[0] > chance
            ):
                continue

            people = report.get(f"{prefix}groups")
            count, unit = (
                (people, "people") if people else (report.get(f"{prefix}samples") or 0, "labels")
            )
            seen = (
                f"{what} may be no better than chance: the interval of its {name} of {value:.2f} is"
            )
            seen += f" {interval[0]:.2f} to {interval[1]:.2f}"
            if value <= chance:
                found.append(f"{seen}; these labels show no effect, and more labels may not help")
                continue
            needed = count * ((value - interval[0]) / (value - chance)) ** 2 * MARGIN
            enough = (
                f"; about {_two_digits(needed)} {unit} would be enough, there are {count}"
                if count
                else ""
            )
            found.append(f"{seen}{enough}")

    return found


def _two_digits(number: float) -> int:
    digits: int = 10 ** max(len(str(int(number))) - 2, 0)
    return math.ceil(number / digits - 1e-6) * digits
