"""Measures inversions of people who are not in the training data of `faces128`, with independent
networks.

    python recipes/judge.py ../shared/data/portraits --out runs/judge.safetensors
    PYTHONPATH=recipes python benchmarks/inversion.py ../shared/data/portraits --out docs
    PYTHONPATH=recipes python benchmarks/inversion.py ../shared/data/portraits --compare --photos 12

Inverts the 88 held-out crops and prints medians: PSNR with the optimised noise and with the model's
own, dlib's distance between photo and rendering (same person here: below 0.42; dlib's own limit is
0.6), the share below 0.45, Shift-Tolerant LPIPS with a network (VGG) that no search minimises, and
the distance of w from the model's random w. Then the same by sex and by skin colour. ``--compare``
measures several losses, to show them and not to choose one: the weights were chosen on training
crops. Inversions are cached in runs/; benchmarks/sliders.py reads them from there.
"""

import argparse
import csv
import hashlib
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from portrait_judge import Looks, PortraitJudge, distances
from torch import Tensor

from latentedit.cli.common import progress_bar
from latentedit.formats.load_model import load_model
from latentedit.inversion.face_weights import face_weights
from latentedit.inversion.options import (
    PIXEL_WEIGHT,
    PRIOR_WEIGHT,
    InversionOptions,
    ProjectorSettings,
)
from latentedit.inversion.perceptual import (
    CombinedDistance,
    DiscriminatorDistance,
    Perceptual,
    StlpipsDistance,
    distance,
)
from latentedit.inversion.projector import Projector, SearchStep
from latentedit.inversion.result import psnr
from latentedit.io.contact_sheet import Row, sheet
from latentedit.io.images import load_image, save_image
from latentedit.model.model import Model
from latentedit.networks.fingerprint import fingerprint

BATCH = 4
LIKE = 0.45
"""Distance of dlib's descriptors that inversions should stay below; strangers lie from 0.42 on here
(docs/photo.md)."""
SHOWN = ("london",)
"""Sources of people who may be shown."""


@dataclass(frozen=True)
class Way:
    """A way to invert."""

    space: str
    perceptual: str = "auto"
    pixel_weight: float = PIXEL_WEIGHT
    prior_weight: float = PRIOR_WEIGHT
    focus: bool = True
    steps: int | None = None


USUAL = {
    "encoder, W+": Way("w+", steps=0),
    "W": Way("w"),
    "W+": Way("w+"),
}
COMPARED = {
    "discriminator, pixels x 1, no focus (before)": Way("w+", "discriminator", 1.0, 0.01, False),
    "discriminator, pixels x 1": Way("w+", "discriminator", 1.0, 0.01),
    "ST-LPIPS, pixels x 5, no focus": Way("w+", "stlpips", 5.0, 0.01, False),
    "discriminator + 0.3 ST-LPIPS, pixels x 5, no focus": Way("w+", "both", 5.0, 0.01, False),
    "discriminator, pixels x 15": Way("w+", "discriminator", 15.0),
    "discriminator + 0.3 ST-LPIPS, pixels x 15, prior x 0.01": Way("w+", "both", 15.0, 0.01),
}


def held_out(data: Path) -> tuple[list[dict[str, str]], Tensor]:
    """Rows of held_out.csv, and the crops ``[88, 3, 128, 128]``."""
    with open(data / "held_out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, torch.cat([load_image(data / "held_out" / row["file"], size=128) for row in rows])


def distance_of(way: Way, model: Model, focus: Tensor | None) -> Perceptual | str:
    if way.perceptual != "both":
        return way.perceptual
    assert model.discriminator is not None
    own = DiscriminatorDistance(model.discriminator, focus)
    return CombinedDistance([(own, 1.0), (StlpipsDistance(), 0.3)])


def projector_of(way: Way, model: Model, own_curvature: bool) -> Projector:
    """Inverts as ``way`` says; with ``own_curvature``, the preconditioner is that of its loss
    instead of the model's."""
    focus = face_weights(model.framing, model.generator.resolution) if way.focus else None
    settings = ProjectorSettings(distance_of(way, model, focus), focus=focus, cache=False)
    return Projector(replace(model, curvature=None) if own_curvature else model, settings)


def key_of(way: Way, model: Model, images: Tensor) -> str:
    """What an inversion depends on."""
    assert model.encoder is not None
    digest = hashlib.sha256(repr((way, fingerprint(model.generator))).encode())
    for tensor in (*model.encoder.state_dict().values(), images):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def inverted(
    name: str, way: Way, model: Model, images: Tensor, kept: Path | None
) -> dict[str, Any]:
    """ws, both renderings, distances and seconds a picture; read from ``kept`` if that is there and
    was made so."""
    own = fingerprint(model.generator)
    key = key_of(way, model, images)
    if kept is not None and kept.is_file():
        found: dict[str, Any] = torch.load(kept, weights_only=True)
        if found.get("key") == key:
            return found
    # The preconditioner that comes with the model is that of the usual loss.
    projector = projector_of(way, model, own_curvature=name in COMPARED)
    options = InversionOptions(
        space=way.space,
        steps=way.steps,
        init="encoder",
        pixel_weight=way.pixel_weight,
        prior_weight=way.prior_weight,
    )
    if options.needs_preconditioner:
        projector.curvature(way.pixel_weight)
    parts = []
    began = time.monotonic()
    with progress_bar(len(images), name, "photo") as bar:
        for batch in images.split(BATCH):
            parts.append(projector.invert(batch, options, on_step=partial(_tell, bar, len(batch))))
    found = {
        "key": key,
        "fingerprint": own,
        "ws": torch.cat([part.ws for part in parts]),
        "image": torch.cat([part.image for part in parts]),
        "own": torch.cat([part.image_own_noise for part in parts]),
        "noise": [
            torch.cat(maps).half() for maps in zip(*(part.noise for part in parts), strict=True)
        ],
        "w": torch.tensor([d["w_distance"] for part in parts for d in part.distances]),
        "seconds": (time.monotonic() - began) / len(images),
    }
    if kept is not None:
        kept.parent.mkdir(exist_ok=True)
        torch.save(found, kept)
    return found


def _tell(bar: Any, count: int, step: SearchStep) -> None:
    bar.update(count / step.total)


@torch.no_grad()
def figures(
    found: dict[str, Any], images: Tensor, real: Looks, judge: PortraitJudge, second: Perceptual
) -> dict[str, Any]:
    """A number a photograph: ``[N]`` each."""
    columns: dict[str, Any] = {"w": found["w"].numpy()}
    for noise in ("image", "own"):
        pictures = found[noise]
        columns[f"psnr_{noise}"] = psnr(pictures, images).numpy()
        columns[f"identity_{noise}"] = distances(real, judge.look(pictures))
        apart = [
            distance(second.features(a), second.features(b))
            for a, b in zip(pictures.split(8), images.split(8), strict=True)
        ]
        columns[f"second_{noise}"] = torch.cat(apart).numpy()
    return columns


def summary(columns: dict[str, Any], rows: Any = slice(None)) -> dict[str, float]:
    """Medians, and the share of identities below `LIKE`; a face that is not found any more is not
    like anybody."""
    found = {name: round(float(np.nanmedian(values[rows])), 4) for name, values in columns.items()}
    for noise in ("image", "own"):
        found[f"like_{noise}"] = round(float((columns[f"identity_{noise}"][rows] < LIKE).mean()), 4)
    return found


HEADER = (
    "| | PSNR (dB), optimised / own noise | identity distance | below 0.45 | ST-LPIPS (VGG) | "
    "distance in w |\n"
    "|---|---|---|---|---|---|",
    "| | photos | PSNR (dB), optimised / own noise | identity distance | below 0.45 "
    "|\n|---|---|---|---|---|",
)


def line(f: dict[str, float]) -> str:
    return (
        f"{f['psnr_image']:.1f} / {f['psnr_own']:.1f} | {f['identity_image']:.3f} / "
        f"{f['identity_own']:.3f}"
        f" | {f['like_image']:.0%} / {f['like_own']:.0%}"
    )


def groups(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Who is compared with whom."""
    woman, dark = (np.array([row[name] for row in rows]) for name in ("woman", "dark_skin"))
    return {
        "women": woman == "1",
        "men": woman == "0",
        "dark skin": dark == "1",
        "other skin": dark == "0",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--judge", type=Path, default=Path("runs/judge.safetensors"))
    parser.add_argument("--model", default="faces128")
    parser.add_argument(
        "--compare", action="store_true", help="several losses instead of the usual ones"
    )
    parser.add_argument("--ways", nargs="+", help="these rows alone")
    parser.add_argument("--photos", type=int, help="as many, taken evenly; all by default")
    parser.add_argument("--out", type=Path, help="folder for inversion.json and inversion.png")
    options = parser.parse_args()

    model = load_model(options.model)
    judge = PortraitJudge(options.judge)
    second = StlpipsDistance("vgg")
    rows, images = held_out(options.data)
    if options.photos:
        chosen = np.linspace(0, len(rows) - 1, options.photos).round().astype(int)
        rows = [rows[i] for i in chosen]
        images = images[torch.from_numpy(chosen)]
    real = judge.look(images)
    ways = COMPARED if options.compare else USUAL
    if options.ways:
        ways = {name: way for name, way in {**USUAL, **COMPARED}.items() if name in options.ways}
    everything = {}
    results = {}
    for name, way in ways.items():
        kept = (
            None
            if options.compare
            else Path("runs")
            / f"inversion-{name.replace(', ', '-').replace(' ', '-')}-{len(rows)}.pt"
        )
        results[name] = inverted(name, way, model, images, kept)
        everything[name] = figures(results[name], images, real, judge, second)

    print(f"\n{len(rows)} held-out crops\n\n{HEADER[0]}")
    table = {name: summary(columns) for name, columns in everything.items()}
    for name, f in table.items():
        print(
            f"| {name} | {line(f)} | {f['second_image']:.3f} / {f['second_own']:.3f} | "
            f"{f['w']:.2f} |"
        )
    served: dict[str, Any] = {}
    if "W+" in everything:
        print(f"\n{HEADER[1]}")
        for group, members in groups(rows).items():
            served[group] = {
                "photographs": int(members.sum()),
                **summary(everything["W+"], members),
            }
            print(f"| {group} | {members.sum()} | {line(served[group])} |")
    if options.out and not options.compare:
        seconds = {name: result["seconds"] for name, result in results.items()}
        write(options.out / "inversion.json", len(rows), table, served, seconds)
        if "W+" in results:
            picture(options.out / "inversion.png", rows, images, results)


def write(
    path: Path, count: int, table: dict[str, Any], served: dict[str, Any], seconds: dict[str, float]
) -> None:
    """Write figures to ``path``; those of ways that were not measured this time stay."""
    facts: dict[str, Any] = (
        json.loads(path.read_text())
        if path.is_file()
        else {"ways": {}, "groups": {}, "seconds": {}}
    )
    ways = facts["ways"] | table
    facts = {
        "photographs": count,
        "ways": {name: ways[name] for name in USUAL if name in ways},
        "groups": facts["groups"] | served,
        "seconds": facts["seconds"] | seconds,
    }
    path.write_text(json.dumps(facts, indent=1) + "\n")


def picture(
    path: Path, rows: list[dict[str, str]], images: Tensor, results: dict[str, Any]
) -> None:
    """People of the London set: photograph, encoder, W+ with the model's own and with the found
    noise."""
    shown = [
        i for i, row in enumerate(rows) if row["source"] in SHOWN and row["expression"] == "neutral"
    ][:6]
    lines = []
    for number, i in enumerate(shown):
        cells = {"photograph": images[i]}
        cells |= {
            name: results[name]["own"][i] for name in ("encoder, W+", "W+") if name in results
        }
        if "W+" in results:
            cells["W+, found noise"] = results["W+"]["image"][i]
        lines.append(Row("", list(cells.values()), list(cells) if not number else ()))
    save_image(sheet(lines), path)


if __name__ == "__main__":
    main()
