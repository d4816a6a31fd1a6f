"""Measures whether the sliders of `faces128` change their attribute and nothing else, with
independent classifiers.

    PYTHONPATH=recipes:benchmarks python benchmarks/inversion.py ../shared/data/portraits
    PYTHONPATH=recipes:benchmarks python benchmarks/sliders.py ../shared/data/portraits --out docs

Moves every slider by -2, -1, +1 and +2 sigmas on three sets of images: inversions into W+ and into
W of people who are not in the training data (made by benchmarks/inversion.py), and random samples
at psi 0.7. All use the model's own noise.

- success rate: of the images without the attribute, the share that shows it after the edit
  (recipes/portrait_judge.py).
- side effects: the share of images whose answer to another attribute changes, averaged over the
  attributes that are unrelated to the slider, minus the same share for a random direction of equal
  length. Largest: the attribute that changes most.
- identity distance: dlib's distance between edited and unedited image, and the share below 0.6, at
  2 sigmas, of 100 samples.
- faces found: the share of images in which dlib's detector still finds a face.

At 2 sigmas all 500 samples are measured, at 1 sigma 100.

Measurements are cached in runs/looks, so that an interrupted run resumes. ``--sets`` measures only
some sets; sliders.json keeps the figures of the others.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inversion import held_out
from portrait_judge import Looks, PortraitJudge, brought_over, identity, joined, side_effects
from torch import Tensor

from latentedit.cli.common import progress_bar
from latentedit.directions import Direction, load_direction, shipped
from latentedit.directions.direction import unit
from latentedit.formats.load_model import load_model
from latentedit.io.contact_sheet import Row, sheet
from latentedit.io.images import save_image
from latentedit.latent.editing import edit, step_of
from latentedit.latent.w_statistics import sample_w
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator

AMOUNTS = (-2.0, -1.0, 1.0, 2.0)
PSI = 0.7
CONTROLS = 44
"""About as many pictures are moved along a random direction."""
DESCRIBED = 44
STRONG = 2.0
"""How many pictures of a set are compared by descriptors, and at which amount, either way."""
WEAK = 100
"""Random samples at the other amounts."""
KEPT = Path("runs/looks")
LONG = {"W+": "photos, W+", "W": "photos, W", "random": "random, psi 0.7"}
"""The sets of images."""


def sets(generator: Generator, samples: int, names: Sequence[str]) -> dict[str, Tensor]:
    """ws ``[N, num_ws, w_dim]`` of every set in ``names``."""
    found = {}
    for name in ("W+", "W"):
        if name not in names:
            continue
        kept = sorted(
            Path("runs").glob(f"inversion-{name}-[0-9]*.pt"),
            key=lambda path: int(path.stem.split("-")[-1]),
        )
        if not kept:
            raise SystemExit(f"no inversions into {name}: run benchmarks/inversion.py first")
        inverted = torch.load(kept[-1], weights_only=True)
        if inverted["fingerprint"] != fingerprint(generator):
            raise SystemExit(
                f"{kept[-1]}: inversions of another model; run benchmarks/inversion.py again"
            )
        found[name] = inverted["ws"]
    w = sample_w(generator, samples, seed=5)
    mean = sample_w(generator).mean(dim=0)
    if "random" in names:
        found["random"] = torch.lerp(mean, w, PSI)[:, None].expand(-1, generator.num_ws, -1)
    return found


def as_long_as(direction: Direction, generator: Generator) -> Direction:
    """A random direction whose step is as long in every layer; an amount of 1 means the same
    length."""
    seed = int.from_bytes(hashlib.sha256(direction.name.encode()).digest()[:4], "little")
    vector = unit(torch.randn(generator.w_dim, generator=torch.Generator().manual_seed(seed)))
    own = step_of(torch.zeros(1, generator.num_ws, generator.w_dim), direction)
    step = vector * own.norm(dim=1, keepdim=True)
    return replace(
        direction,
        name="random",
        vector=vector,
        sigma=float((step @ vector).mean()),
        step=step,
        layers=None,
    )


@torch.no_grad()
def pictures(
    generator: Generator, ws: Tensor, direction: Direction | None, amount: float
) -> Tensor:
    """``[N, 3, 128, 128]``."""
    moved = ws if direction is None else edit(ws, direction, amount)
    return torch.cat([generator.synthesis(one) for one in moved.split(1)])


@dataclass(frozen=True)
class Witness:
    """The judge, with dlib's descriptors for the first ``described`` pictures; they cost more than
    all else together."""

    whole: PortraitJudge
    quick: PortraitJudge
    generator: Generator
    digest: bytes
    """SHA-256 of the classifier's file."""

    def look(self, ws: Tensor, direction: Direction | None, amount: float, described: int) -> Looks:
        """What is seen of ``ws`` moved; kept by the content of all."""
        digest = hashlib.sha256(ws.contiguous().numpy().tobytes() + self.digest)
        digest.update(fingerprint(self.generator).encode() + str(described).encode())
        if direction is not None:
            digest.update(step_of(ws[:1], direction).numpy().tobytes() + str(amount).encode())
        file = KEPT / f"{digest.hexdigest()[:32]}.npz"
        if file.is_file():
            return self._read(file)
        drawn = pictures(self.generator, ws, direction, amount)
        parts = [self.whole.look(drawn[:described])] if described else []
        if len(drawn) > described:
            parts.append(self.quick.look(drawn[described:]))
        found = joined(parts)
        KEPT.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {f"logit/{name}": values for name, values in found.logits.items()}
        arrays |= {f"measure/{name}": values for name, values in found.measures.items()}
        np.savez(file, descriptors=found.descriptors, found=found.found, **arrays)
        return replace(found, reference=self.whole.reference)

    def _read(self, file: Path) -> Looks:
        with np.load(file) as kept:
            return Looks(
                {name[6:]: kept[name] for name in kept.files if name.startswith("logit/")},
                {name[8:]: kept[name] for name in kept.files if name.startswith("measure/")},
                kept["descriptors"],
                kept["found"],
                self.whole.reference,
            )


def first(looks: Looks, count: int) -> Looks:
    """Return the looks of the first ``count`` images."""
    return Looks(
        {name: values[:count] for name, values in looks.logits.items()},
        {name: values[:count] for name, values in looks.measures.items()},
        looks.descriptors[:count],
        looks.found[:count],
        looks.reference,
    )


def mean_change(before: Looks, after: Looks) -> dict[str, float]:
    """Mean change of every measure: of landmarks in distances between the eyes, of pixels in
    [-1, 1]."""
    found = {
        key: float(np.nanmean(after.measures[key] - before.measures[key]))
        for key in before.measures
    }
    return {key: round(value, 4) for key, value in found.items()}


Effects = dict[str, dict[str, float]]


def row(
    before: Looks, after: Looks, other: Effects, name: str, sign: int, described: int
) -> dict[str, Any]:
    """Figures of an edit; ``other`` are the side effects of a random direction."""
    share, asked = brought_over(before, after, name, sign)
    own = side_effects(before, after, name)
    changed = {key: round(own[key]["changed"] - other[key]["changed"], 4) for key in own}
    same = identity(first(before, described), first(after, described)) if described else {}
    return {
        "asked": asked,
        "brought_over": round(share, 4),
        "side_effects": round(float(np.nanmean(list(changed.values()))), 4),
        "most": max(changed, key=lambda key: changed[key]),
        "by_attribute": changed,
        "identity": round(same["median"], 4) if same else None,
        "same": round(same["within_0.6"], 4) if same else None,
        "faces": round(float(after.found.mean()), 4),
        "faces_before": round(float(before.found.mean()), 4),
        "change": mean_change(before, after),
    }


HEADER = (
    "| slider | amount | images | success rate | side effects | largest | identity distance | "
    "below 0.6 | faces found |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def line(name: str, amount: float, where: str, f: dict[str, Any]) -> str:
    same = "| | |" if f["same"] is None else f"| {f['identity']:.2f} | {f['same']:.0%} |"
    return (
        f"| {name} | {amount:+.0f} | {LONG[where]} | {f['brought_over']:.0%} of {f['asked']} | "
        f"{f['side_effects']:+.1%}"
        f" | {f['most']} {f['by_attribute'][f['most']]:+.0%} {same} {f['faces']:.0%} |"
    )


def shown(
    path: Path, data: Path, generator: Generator, directions: Sequence[Direction], ws: Tensor
) -> None:
    """A row a slider: somebody of the London set at every amount."""
    rows, _ = held_out(data)
    people = [
        i
        for i, one in enumerate(rows)
        if one["source"] == "london" and one["expression"] == "neutral"
    ]
    lines = []
    for number, direction in enumerate(directions):
        person = ws[people[number % len(people)]][None]
        cells = [
            pictures(generator, person, direction, amount) for amount in (-2.0, -1.0, 0.0, 1.0, 2.0)
        ]
        lines.append(Row(direction.name, cells, ["-2", "-1", "0", "+1", "+2"]))
    save_image(sheet(lines), path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--judge", type=Path, default=Path("runs/judge.safetensors"))
    parser.add_argument("--model", default="faces128")
    parser.add_argument(
        "--directions", nargs="+", type=Path, help="files to look at instead of those that ship"
    )
    parser.add_argument("--sets", nargs="+", choices=list(LONG), default=list(LONG))
    parser.add_argument("--amounts", nargs="+", type=float, default=list(AMOUNTS))
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--out", type=Path, help="folder for sliders.json and sliders.png")
    options = parser.parse_args()

    model = load_model(options.model)
    generator = model.generator
    files = options.directions or sorted(shipped(fingerprint(generator)).values())
    directions = [load_direction(file) for file in files]
    quick = PortraitJudge(options.judge, descriptors=False)
    bases = sets(generator, options.samples, options.sets)
    own = sample_w(generator, 300, seed=9)[:, None].expand(-1, generator.num_ws, -1)
    quick.centre_on(pictures(generator, own, None, 0.0))
    whole = PortraitJudge(options.judge)
    whole.reference = quick.reference
    witness = Witness(whole, quick, generator, hashlib.sha256(options.judge.read_bytes()).digest())

    found: dict[str, Any] = {}
    print(f"\n{HEADER}")
    with progress_bar(
        len(directions) * len(bases) * len(options.amounts), "judging", "edit"
    ) as bar:
        for direction in directions:
            control = as_long_as(direction, generator)
            for where, ws in bases.items():
                described = min(len(ws), DESCRIBED)
                before = witness.look(ws, None, 0.0, described)
                fewer = witness.look(ws[:WEAK], None, 0.0, 0)
                some = ws[:: max(len(ws) // CONTROLS, 1)]
                still = witness.look(some, None, 0.0, 0)
                for amount in options.amounts:
                    sign = 1 if amount > 0 else -1
                    other = side_effects(
                        still, witness.look(some, control, abs(amount), 0), direction.name
                    )
                    if abs(amount) == STRONG:
                        after = witness.look(ws, direction, amount, described)
                        figures = row(before, after, other, direction.name, sign, described)
                    else:
                        after = witness.look(ws[:WEAK], direction, amount, 0)
                        figures = row(fewer, after, other, direction.name, sign, 0)
                    found.setdefault(direction.name, {}).setdefault(where, {})[f"{amount:+g}"] = (
                        figures
                    )
                    bar.write(line(direction.name, amount, where, figures))
                    bar.update(1)
    if options.out:
        write(options.out / "sliders.json", options.samples, found)
        if "W+" in bases:
            shown(options.out / "sliders.png", options.data, generator, directions, bases["W+"])


def write(path: Path, samples: int, found: dict[str, Any]) -> None:
    """Write figures to ``path``; those of sets that were not looked at this time stay."""
    facts: dict[str, Any] = {"judge": "recipes/judge.py", "samples": samples, "sliders": {}}
    if path.is_file():
        facts["sliders"] = json.loads(path.read_text())["sliders"]
    for name, sets_of_it in found.items():
        facts["sliders"].setdefault(name, {}).update(sets_of_it)
    path.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
