"""Writes the measured tables into docs, between `<!-- figures: NAME -->` and `<!-- end -->`.

    PYTHONPATH=recipes:benchmarks python recipes/faces128_figures.py

From docs/inversion.json and docs/sliders.json, which benchmarks/inversion.py and
benchmarks/sliders.py write.
"""

import json
import re
from typing import Any

from faces128_directions import OUT, SLIDERS
from faces128_ship import ROOT
from inversion import HEADER as INVERSION_HEADER
from inversion import line as inversion_line
from sliders import HEADER as SLIDER_HEADER
from sliders import line as slider_line

PAGES = ("docs/photo.md", "docs/directions.md", "docs/faces128.md")
FIRST = ("smile", "glasses", "turn")


def inversion(facts: dict[str, Any]) -> str:
    lines = [INVERSION_HEADER[0]]
    for name, f in facts["ways"].items():
        lines.append(
            f"| {name} | {inversion_line(f)} | {f['second_image']:.3f} / {f['second_own']:.3f} | "
            f"{f['w']:.2f} |"
        )
    return "\n".join(lines)


def groups(facts: dict[str, Any]) -> str:
    lines = [INVERSION_HEADER[1]]
    for name, f in facts["groups"].items():
        lines.append(f"| {name} | {f['photographs']} | {inversion_line(f)} |")
    return "\n".join(lines)


def sliders(
    facts: dict[str, Any], names: tuple[str, ...], sets: tuple[str, ...], amounts: tuple[str, ...]
) -> str:
    lines = [SLIDER_HEADER]
    for name in names:
        found = facts["sliders"].get(name, {})
        for where in sets:
            for amount in amounts:
                if amount in found.get(where, {}):
                    lines.append(slider_line(name, float(amount), where, found[where][amount]))
    return "\n".join(lines)


def words(names: list[str]) -> str:
    lines = ["| slider | + means |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {SLIDERS[name].words} |" for name in names)])


def cards(names: list[str]) -> str:
    return "Each card shows three people at five amounts, and the figures of the slider: " + (
        ", ".join(f"[{name}](cards/{name}.md)" for name in names) + "."
    )


def main() -> None:
    inverted = json.loads((ROOT / "docs" / "inversion.json").read_text())
    moved = json.loads((ROOT / "docs" / "sliders.json").read_text())
    shipped = [name for name in SLIDERS if (OUT / f"{name}.safetensors").is_file()]
    tables = {
        "words": words(shipped),
        "cards": cards(shipped),
        "inversion": inversion(inverted),
        "groups": groups(inverted),
        "first sliders": sliders(moved, FIRST, ("W+", "random"), ("-2", "+2")),
        "sliders": sliders(moved, tuple(shipped), ("W+", "W", "random"), ("-2", "+2")),
    }
    for page in PAGES:
        path = ROOT / page
        text = path.read_text()
        for name, table in tables.items():
            pattern = rf"(<!-- figures: {name} -->\n).*?(<!-- end -->)"
            inside = table.replace("\\", r"\\")
            text = re.sub(pattern, rf"\1\n{inside}\n\n\2", text, flags=re.S)
        path.write_text(text)
        print(f"wrote {page}")
    unused = [
        name
        for name in tables
        if not any(f"<!-- figures: {name} -->" in (ROOT / page).read_text() for page in PAGES)
    ]
    if unused:
        raise SystemExit(f"no page has a place for: {', '.join(unused)}")


if __name__ == "__main__":
    main()
