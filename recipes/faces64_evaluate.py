"""How good `faces64` is on the people kept out of training: figures, strips for the README, and the blind sheet.

    python recipes/faces64_evaluate.py ../shared/data --judge runs/judge.safetensors --out docs

Inverts photographs of the kept-out people, moves every shipped slider, and asks the judge (recipes/faces64_judge.py). Writes
faces64-figures.json, faces64-inversions.png, faces64-sliders.png, faces64-samples.png, and blind.png with blind.json: five
pairs a slider, left or right drawn at random, to be answered by eye before the key is opened.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faces64_data import crops
from faces64_judge import POSES
from faces64_light import MEASURED
from torch import Tensor

from latentedit.directions import Direction, load_direction, shipped
from latentedit.editing import edit
from latentedit.encoder import encode
from latentedit.images import grid, save_image, to_tensor
from latentedit.inversion import STEPS, Inversion, invert, psnr
from latentedit.metrics import load_judge
from latentedit.models import fingerprint, load_model
from latentedit.sheets import Row, sheet
from latentedit.statistics import WStatistics, sample_w

AMOUNTS = (-2.0, -1.5, -1.0, 0.0, 1.0, 1.5, 2.0)
PAIRS = 5
PAIR_AMOUNTS = {"turn": (-2.0, 2.0), "look-up": (0.0, 2.0)}
"""In sigmas. The people wear no sunglasses and look straight on, so that there 0 is the other one of the two."""
SUNGLASSES_SCORE = 1.0
"""In sigmas: sunglasses are put on by moving to this score, since people start as far apart as they need amounts."""
ASKED = {"sunglasses": "wears sunglasses", "turn": "looks to the right of the picture", "look-up": "looks up"}


def chosen(data: Path) -> list[tuple[str, Any]]:
    """Kept-out photographs, evenly: without sunglasses, straight or turned, of the CMU people, and four of every ORL one."""
    everyone = list(crops(data, kept_out=True))
    cmu = [item for item in everyone if item[0].startswith("cmu/") and "_open" in item[0]]
    orl = [item for item in everyone if item[0].startswith("orl/")]
    return cmu[::2] + orl[::3]


def judged(judge: Any, images: Tensor, name: str) -> Tensor:
    """Log odds, by the judge, of what the slider ``name`` promises, or how far a measurement is from 0 (mid-grey): ``[N]``."""
    if name in MEASURED:
        return MEASURED[name][0](images)
    found: dict[str, Tensor] = judge(images)
    if name == "sunglasses":
        return found["sunglasses"]
    poses = found["pose"]
    if name == "turn":  # the person's left is the right of the picture
        return poses[:, POSES.index("left")] - poses[:, POSES.index("right")]
    return poses[:, POSES.index("up")] - poses[:, POSES.index("straight")]


def rendered(generator: Any, ws: Tensor, noise: list[Tensor] | None = None) -> Tensor:
    maps = [[m[i : i + 1] for m in noise] for i in range(len(ws))] if noise is not None else ["const"] * len(ws)
    return torch.cat([generator.synthesis(ws[i : i + 1], noise=maps[i]) for i in range(len(ws))])


def summary(result: Inversion) -> dict[str, dict[str, float]]:
    names = result.distances[0]
    return {
        name: {
            "median": round(statistics.median(d[name] for d in result.distances), 4),
            "worst": round((min if name.startswith("psnr") else max)(d[name] for d in result.distances), 4),
        }
        for name in names
    }


@torch.no_grad()
def effects(generator: Any, judge: Any, direction: Direction, ws: Tensor, noise: list[Tensor] | None) -> dict[str, Any]:
    """Mean over pictures of the judge's log odds, and the share it says yes to, at every amount."""
    odds = [judged(judge, rendered(generator, edit(ws, direction, a), noise), direction.name) for a in AMOUNTS]
    return {
        "amounts": AMOUNTS,
        "log_odds": [round(float(o.mean()), 3) for o in odds],
        "yes": [round(float((o > 0).float().mean()), 3) for o in odds],
        "right_of_pairs": round(float((odds[-1] > odds[0]).float().mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--judge", type=Path, default=Path("runs/judge.safetensors"))
    parser.add_argument("--model", default="faces64")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--steps", type=int, default=125)
    parser.add_argument("--method", choices=list(STEPS), default="quasi-newton")
    parser.add_argument("--blind-only", action="store_true", help="only the sheet of pairs and its key")
    parser.add_argument("--figures-only", action="store_true", help="no directions, no pictures")
    options = parser.parse_args()
    judge, model = load_judge(options.judge), load_model(options.model)
    generator, own = model.generator, fingerprint(model.generator)
    photographs = chosen(options.data)
    names, images = [name for name, _ in photographs], torch.cat([to_tensor(image) for _, image in photographs])
    print(f"{len(names)} photographs of kept-out people", flush=True)
    spread = WStatistics.of(generator)
    results: dict[str, Inversion] = {}
    figures: dict[str, Any] = {
        "model": model.path.split("/")[-1],
        "fingerprint": own,
        "photographs": len(names),
        "steps": options.steps,
    }
    for space in ("w",) if options.blind_only else ("w", "w+"):
        start = None
        if model.encoder is not None and options.method == "quasi-newton":
            start = encode(generator, model.encoder, images, space, statistics=spread)
        results[space] = invert(
            generator,
            images,
            space,
            options.steps,
            perceptual="discriminator",
            discriminator=model.discriminator,
            statistics=spread,
            method=options.method,
            start=start,
            curvature=model.curvature,
        )
        figures[f"inversion_{space}"] = summary(results[space])
        print(space, json.dumps(figures[f"inversion_{space}"]), flush=True)
    directions = [load_direction(path) for _, path in sorted(shipped(own).items())]
    if options.blind_only:
        blind(generator, judge, directions, results["w"], names, options.out)
        return
    # Pixels are the one measure here that belongs to no contestant; the mean picture of the set is the bar to clear.
    flat = images.mean(dim=0, keepdim=True).expand_as(images)
    figures["psnr_of_the_mean_picture"] = round(float(psnr(flat, images).median()), 3)
    if options.figures_only:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
        return

    random_ws = sample_w(generator, 200, seed=5)[:, None].expand(-1, generator.num_ws, -1)
    figures["effects"] = {}
    for direction in directions:
        figures["effects"][direction.name] = {
            "random_w": effects(generator, judge, direction, random_ws, None),
            "kept_out_w": effects(generator, judge, direction, results["w"].ws, results["w"].noise),
            "kept_out_w+": effects(generator, judge, direction, results["w+"].ws, results["w+"].noise),
        }
        print(direction.name, json.dumps(figures["effects"][direction.name]), flush=True)

    w, plus = results["w"], results["w+"]
    shown = [names.index(n) for n in spaced(names)]
    rows = [
        Row("photographs of people the model never saw (cropped)", [images[i] for i in shown]),
        Row("W+ with the found noise", [plus.image[i] for i in shown], [f"{plus.distances[i]['psnr']:.0f} dB" for i in shown]),
        Row("W+ with the model's own noise", [plus.image_own_noise[i] for i in shown],
            [f"{plus.distances[i]['psnr_own_noise']:.0f} dB" for i in shown]),
        Row("W with the model's own noise", [w.image_own_noise[i] for i in shown],
            [f"{w.distances[i]['psnr_own_noise']:.0f} dB" for i in shown]),
    ]  # fmt: skip
    # The photographs themselves are not ours to publish: only what the model rendered is written.
    save_image(sheet(rows[1:]), options.out / "faces64-inversions.png")
    strips = []
    for direction in directions:
        for i in (shown[0], shown[1], shown[-1]):
            strip = rendered_strip(generator, w, i, direction)
            strips.append(Row(f"{direction.name}, in sigmas", strip, [f"{a:+.1f}" for a in AMOUNTS]))
    save_image(sheet(strips), options.out / "faces64-sliders.png")
    with torch.no_grad():
        z = torch.from_numpy(np.random.RandomState(0).randn(32, generator.z_dim).astype(np.float32))
        save_image(grid(rendered(generator, generator.mapping(z, None, 0.7)), 8), options.out / "faces64-samples.png")
    blind(generator, judge, directions, w, names, options.out)
    (options.out / "faces64-figures.json").write_text(json.dumps(figures, indent=1) + "\n")


def spaced(names: list[str]) -> list[str]:
    """Eight of the photographs, of different people."""
    people = sorted({name.split("_")[0] for name in names})
    picked = [
        next(name for name in names if name.startswith(person) and ("orl" in name or "straight" in name)) for person in people
    ]
    return picked[:8]


@torch.no_grad()
def rendered_strip(generator: Any, result: Inversion, index: int, direction: Direction) -> list[Tensor]:
    noise = [m[index : index + 1] for m in result.noise]
    return [generator.synthesis(edit(result.ws[index : index + 1], direction, a), noise=noise)[0] for a in AMOUNTS]


def pair_amounts(direction: Direction, ws: Tensor) -> tuple[float, float]:
    if direction.name == "sunglasses":
        return 0.0, SUNGLASSES_SCORE - float(direction.score(ws)) / direction.sigma
    return PAIR_AMOUNTS[direction.name]


@torch.no_grad()
def blind(generator: Any, judge: Any, directions: list[Direction], result: Inversion, names: list[str], out: Path) -> None:
    """Five pairs a slider, on W inversions of different kept-out people; the key stays in blind.json."""
    rng = np.random.default_rng(20261121)
    rows, key = [], {}
    for direction in [d for d in directions if d.name in ASKED]:
        people = rng.permutation(sorted({name.split("_")[0] for name in names}))[:PAIRS]
        cells, answers, right = [], [], 0
        for someone in people:
            options = [i for i, name in enumerate(names) if name.startswith(someone) and ("orl" in name or "straight" in name)]
            i = int(rng.choice(options))
            noise = [m[i : i + 1] for m in result.noise]
            pair = [
                generator.synthesis(edit(result.ws[i : i + 1], direction, a), noise=noise)
                for a in pair_amounts(direction, result.ws[i : i + 1])
            ]
            if rng.random() < 0.5:
                pair.reverse()
                answers.append("A")
            else:
                answers.append("B")
            odds = [float(judged(judge, picture, direction.name)) for picture in pair]
            right += ("A" if odds[0] > odds[1] else "B") == answers[-1]
            cells += pair
        captions = [f"{number + 1}{letter}" for number in range(PAIRS) for letter in "AB"]
        rows.append(Row(f"Which of the two {ASKED[direction.name]}?", cells, captions))
        key[direction.name] = {"answers": "".join(answers), "judge_right": right, "pairs": PAIRS}
    save_image(sheet(rows), out / "blind.png")
    (out / "blind.json").write_text(json.dumps(key, indent=1) + "\n")


if __name__ == "__main__":
    main()
