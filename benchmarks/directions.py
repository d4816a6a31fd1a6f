"""Do the shipped sliders do what their names say, and nothing else? Asked of a judge that has seen neither them nor the model.

    PYTHONPATH=recipes python benchmarks/directions.py ../shared/data --judge runs/judge.safetensors --out docs

Prints the table of docs/directions.md, writes directions.json and directions.png. Everything is rendered with the generator's
own noise, on W inversions of photographs of the people kept out of training, and on random samples (psi 1 and 0.7).

- brought over: of the pictures that the judge puts on the other side, the share that +2 (-2) sigmas bring over; for turn,
  "left" at one end and "right" at the other, of those it finds straight. Sliders of what is measured in pixels
  (recipes/faces64_light.py) are asked about the median of random samples.
- side effects: the share of all pictures in which one of the judge's answers to other attributes changes; for the inversions
  less the share in which it already differs from that to the photograph. The last rows have that share for a step of 2 sigmas
  along a random direction.
- identity kept: the nearest real photograph, of everyone, is of the same person (benchmarks/inversion.py), before and after
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faces64_evaluate import chosen
from faces64_judge import POSES
from faces64_light import MEASURED, medians
from inversion import Identity
from torch import Tensor

from latentedit.directions import Direction, load_direction, shipped
from latentedit.directions.effects import moved_pictures
from latentedit.directions.probe import measure_sigma
from latentedit.encoder import encode
from latentedit.images import save_image, to_tensor
from latentedit.inversion import invert
from latentedit.metrics import load_judge
from latentedit.models import Model, fingerprint, load_model
from latentedit.sheets import Row, sheet
from latentedit.statistics import sample_w

AMOUNT = 2.0
SHOWN = 7
CONTROL = "random"
ORDER = ("sunglasses", "turn", "look-up", *MEASURED)


class Answers:
    """What the judge says of pictures."""

    def __init__(self, judge: Any, pictures: Tensor, middles: dict[str, float]) -> None:
        with torch.no_grad():
            found = judge(pictures)
        self.sunglasses = (found["sunglasses"] > 0).numpy()
        self.pose = np.array(POSES)[found["pose"].argmax(dim=1).numpy()]
        self.measured = {name: (MEASURED[name][0](pictures) > middle).numpy() for name, middle in middles.items()}

    def differ(self, other: "Answers", name: str) -> Any:
        """Where an answer is another one, of those that ``name`` should not change."""
        parts = {"sunglasses": self.sunglasses != other.sunglasses, "pose": self.pose != other.pose}
        parts.pop({"turn": "pose", "look-up": "pose"}.get(name, name), None)
        return np.any(list(parts.values()), axis=0)


def wanted(name: str, amount: float, answers: Answers) -> tuple[Any, Any]:
    """Which pictures are asked about (on the other side), as a function of answers before; and which are there."""
    if name == "sunglasses":
        return answers.sunglasses != (amount > 0), answers.sunglasses == (amount > 0)
    if name == "turn":
        return answers.pose == "straight", answers.pose == ("left" if amount > 0 else "right")
    if name == "look-up":
        return (
            (answers.pose == "straight", answers.pose == "up") if amount > 0 else (answers.pose == "up", answers.pose != "up")
        )
    up = amount > 0
    return answers.measured[name] != up, answers.measured[name] == up


def row(name: str, amount: float, before: Answers, after: Answers, real: Answers | None) -> dict[str, Any]:
    reference = real if real is not None else before
    changed = float(after.differ(reference, name).mean() - before.differ(reference, name).mean())
    figures: dict[str, Any] = {"side_effects": round(changed, 3)}
    if name == CONTROL:
        return figures
    asked, _ = wanted(name, amount, before)
    _, there = wanted(name, amount, after)
    share = round(float(there[asked].mean()), 3) if asked.any() else None
    return {"asked": int(asked.sum()), "brought_over": share, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--judge", type=Path, default=Path("runs/judge.safetensors"))
    parser.add_argument("--model", default="faces64")
    parser.add_argument("--directions", nargs="+", type=Path, help="files to ask about instead of the shipped ones")
    parser.add_argument("--unrefined", action="store_true", help="the probes' directions, without the steps of refining")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--photos", type=int, help="of the photographs; all by default")
    parser.add_argument("--space", choices=("w", "w+"), default="w", help="of the inversions")
    parser.add_argument("--prior-weight", type=float, default=0.01, help="of the inversions")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    judge, model = load_judge(options.judge), load_model(options.model)
    generator = model.generator
    files = options.directions or sorted(shipped(fingerprint(generator)).values())
    directions = sorted(map(load_direction, files), key=lambda d: ORDER.index(d.name))
    if options.unrefined:
        directions = [replace(d, step=None, layers=None) for d in directions if d.step is not None]
    middles = {name: medians(model, measure)[0] for name, (measure, _) in MEASURED.items()}
    photographs = chosen(options.data)[: options.photos]
    names, images = [name for name, _ in photographs], torch.cat([to_tensor(image) for _, image in photographs])
    identity = Identity(options.data)
    inverted = inversions(model, images, options.space, options.prior_weight)
    w, mean = sample_w(generator, options.samples, seed=5), sample_w(generator).mean(dim=0)
    random, truncated = (torch.lerp(mean, w, psi)[:, None].expand(-1, generator.num_ws, -1) for psi in (1.0, 0.7))
    drawn = torch.nn.functional.normalize(torch.randn(generator.w_dim, generator=torch.Generator().manual_seed(0)), dim=0)
    control = Direction(CONTROL, drawn, 0.0, measure_sigma(drawn, generator), fingerprint(generator))
    figures: dict[str, Any] = {"model": Path(model.path).name, "photographs": len(names), "samples": len(random), "rows": []}
    sets: dict[str, tuple[Tensor, Answers | None]] = {
        "people kept out": (inverted, Answers(judge, images, middles)),
        "random, psi 1": (random, None),
        "random, psi 0.7": (truncated, None),
    }
    for direction in (*directions, control):
        for amount in (AMOUNT, -AMOUNT):
            for where, (ws, truth) in sets.items():
                before, after = (moved_pictures(generator, direction, ws, a) for a in (0.0, amount))
                found = row(direction.name, amount, Answers(judge, before, middles), Answers(judge, after, middles), truth)
                if truth is not None:
                    found |= {
                        key: round(float(np.mean([identity.kept(p, n) for p, n in zip(pictures, names, strict=True)])), 3)
                        for key, pictures in (("identity_before", before), ("identity", after))
                    }
                figures["rows"].append({"direction": direction.name, "amount": amount, "of": where, **found})
                print(figures["rows"][-1], flush=True)
    print(table(figures))
    first = figures["rows"][0]
    print(f"identity at 0: {first['identity_before']:.0%}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "directions.json").write_text(json.dumps(figures, indent=1) + "\n")
        save_image(strips(generator, directions, inverted, names), options.out / "directions.png")


def inversions(model: Model, images: Tensor, space: str, prior_weight: float) -> Tensor:
    start = encode(model.generator, model.encoder, images, space) if model.encoder is not None else None
    found = invert(
        model.generator, images, space, perceptual="discriminator", discriminator=model.discriminator,
        start=start, curvature=model.curvature, prior_weight=prior_weight,
    )  # fmt: skip
    return found.ws


def strips(generator: Any, directions: list[Direction], ws: Tensor, names: list[str]) -> Any:
    """Sweeps of two people kept out and one random sample."""
    people = [next(i for i, n in enumerate(names) if n.startswith(p)) for p in ("cmu/", "orl/s27")]
    bases = [ws[i : i + 1] for i in people] + [sample_w(generator, 1, seed=3)[:, None].expand(-1, generator.num_ws, -1)]
    amounts = [float(a) for a in np.linspace(-3, 3, SHOWN)]
    rows = []
    for direction in directions:
        for base in bases:
            pictures = [moved_pictures(generator, direction, base, a)[0] for a in amounts]
            rows.append(Row(f"{direction.name}, in sigmas", pictures, [f"{a:+.0f}" for a in amounts]))
    return sheet(rows)


def table(figures: dict[str, Any]) -> str:
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for f in figures["rows"]:
        rows.setdefault((f["direction"], f["amount"]), {})[f["of"]] = f
    sets = list(next(iter(rows.values())))
    lines = ["| | sigmas | " + " | ".join(f"{one}: brought over, side effects" for one in sets) + " | identity kept |"]
    lines.append("|---" * (len(sets) + 3) + "|")
    for (name, amount), of in rows.items():
        cells = [f"{name}", f"{amount:+g}"]
        for found in of.values():
            over = "" if found.get("brought_over") is None else f"{found['brought_over']:.0%} of {found['asked']}, "
            cells.append(f"{over}{found['side_effects']:.0%}")
        lines.append("| " + " | ".join([*cells, f"{of[sets[0]]['identity']:.0%}"]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
