"""Reports of the directions that ship: in their files, and as cards and curves in docs/cards.

    python recipes/faces64_cards.py --judge runs/judge.safetensors

Asks the judge (recipes/faces64_judge.py), or measures pixels (recipes/faces64_light.py), on 200 random pictures at
every amount.
"""

import argparse
from pathlib import Path

from faces64_light import MEASURED, Measure, medians
from faces64_ship import ROOT
from torch import Tensor

from latentedit.directions import card, effect_of_layers, load_direction, measure_effect, plot, question, shipped, with_report
from latentedit.images import save_image
from latentedit.metrics import load_judge
from latentedit.models import fingerprint, load_model
from latentedit.statistics import sample_w

PICTURES = 200
ASKED = {"sunglasses": ("sunglasses",), "turn": ("pose", "left", "right"), "look-up": ("pose", "up", "straight")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", type=Path, default=Path("runs/judge.safetensors"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "cards")
    options = parser.parse_args()
    model, judge = load_model("faces64"), load_judge(options.judge)
    generator = model.generator
    files = shipped(fingerprint(generator))
    directions = {name: load_direction(path) for name, path in files.items()}
    ws = sample_w(generator, PICTURES, seed=1)[:, None].expand(-1, generator.num_ws, -1)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, direction in directions.items():
        if name in ASKED:
            score = question(judge, *ASKED[name])
        else:
            measure, (middle, _) = MEASURED[name][0], medians(model, MEASURED[name][0])

            def score(x: Tensor, measure: Measure = measure, middle: float = middle) -> Tensor:
                return measure(x) - middle

        others = {} if name == "sunglasses" else {"sunglasses": question(judge, "sunglasses")}
        if ASKED.get(name, ("",))[0] != "pose":
            others["straight"] = question(judge, "pose", "straight")
        effect = measure_effect(generator, direction, ws, score, others=others, discriminator=model.discriminator)
        found = with_report(
            direction,
            generator,
            others=list(directions.values()),
            effect=effect,
            by_layer=effect_of_layers(generator, direction, ws, score),
        )
        found.save(files[name])
        (options.out / f"{name}.md").write_text(card(found) + f"\n![curves]({name}.png)\n", encoding="utf-8")
        save_image(plot(found), options.out / f"{name}.png")
        print(name, found.report["effect"]["brought_over"], found.report["effect"]["side_effects"], flush=True)


if __name__ == "__main__":
    main()
