"""Writes the cards of the sliders of `faces128`, and what the judge found into their files.

    PYTHONPATH=recipes:benchmarks python benchmarks/sliders.py ../shared/data/portraits --out docs
    PYTHONPATH=recipes:benchmarks python recipes/faces128_cards.py ../shared/data/portraits

A card is docs/cards/NAME.md with docs/cards/NAME.png: three people of the London set, whom no
training picture shows, at -2 to +2 sigmas, and the judge's figures from docs/sliders.json.
``--table`` prints the table of docs/directions.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from faces128_directions import OUT, SLIDERS
from faces128_ship import NAME, ROOT
from inversion import USUAL, held_out, inverted
from sliders import HEADER, LONG, line, pictures

from latentedit.directions import card, load_direction, with_report
from latentedit.formats.load_model import load_model
from latentedit.io.contact_sheet import Row, sheet
from latentedit.io.images import save_image

PEOPLE = ("london-122", "london-018", "london-025")
AMOUNTS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def rows_of(
    name: str, sets: dict[str, Any], amounts: tuple[str, ...] = ("-2", "-1", "+1", "+2")
) -> list[str]:
    """Lines of the judge's table for one slider."""
    return [
        line(name, float(a), where, sets[where][a])
        for where in LONG
        for a in amounts
        if where in sets and a in sets[where]
    ]


def effect_of(sets: dict[str, Any]) -> dict[str, Any]:
    """The judge's figures on random samples at 2 sigmas, as a direction's report holds them."""
    found = {amount: sets["random"][amount] for amount in ("-2", "+2")}
    return {
        "brought_over": {a: [f["brought_over"], f["asked"]] for a, f in found.items()},
        "side_effects_over_random": {a: f["side_effects"] for a, f in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--figures", type=Path, default=ROOT / "docs" / "sliders.json")
    parser.add_argument(
        "--table", action="store_true", help="print the table of all sliders at 2 sigmas, and stop"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "cards")
    options = parser.parse_args()

    figures: dict[str, Any] = json.loads(options.figures.read_text())["sliders"]
    if options.table:
        print(HEADER)
        for name in SLIDERS:
            if name in figures:
                print("\n".join(rows_of(name, figures[name], ("-2", "+2"))))
        return
    model = load_model(NAME)
    rows, images = held_out(options.data)
    people = [
        i
        for i, row in enumerate(rows)
        if row["person"] in PEOPLE and row["expression"] == "neutral"
    ]
    ws = inverted("W+", USUAL["W+"], model, images[people], ROOT / "runs" / "inversion-cards.pt")[
        "ws"
    ]
    files = {
        name: OUT / f"{name}.safetensors"
        for name in SLIDERS
        if (OUT / f"{name}.safetensors").is_file()
    }
    directions = {name: load_direction(file) for name, file in files.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, direction in directions.items():
        found = with_report(direction, model.generator, others=list(directions.values()))
        found.report["effect"] = effect_of(figures[name])
        found.save(files[name])

        lines: list[Row] = []
        for person in ws.split(1):
            cells = [pictures(model.generator, person, found, amount) for amount in AMOUNTS]
            lines.append(
                Row(
                    "",
                    cells,
                    () if lines else [f"{amount:+g}" if amount else "0" for amount in AMOUNTS],
                )
            )
        save_image(sheet(lines, 160), options.out / f"{name}.png")
        table = "\n".join([HEADER, *rows_of(name, figures[name])])
        text = (
            f"{card(found)}\n+ means: {SLIDERS[name].words}.\n\n![{name}]({name}.png)\n\n{table}\n"
        )
        (options.out / f"{name}.md").write_text(text, encoding="utf-8")
        print(f"wrote {options.out / f'{name}.md'}")


if __name__ == "__main__":
    main()
