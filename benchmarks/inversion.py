"""How good inversions of people are that the model never saw, and how soon a search is where the published one ends.

    PYTHONPATH=recipes python benchmarks/inversion.py ../shared/data --judge runs/judge.safetensors --out docs

Prints the tables of docs/photo.md, writes inversion.json and inversion.png. Every search has all photographs in one batch.

- identity kept: the nearest of all real photographs but this one, of everyone, is of the same person; histograms of
  gradients in the directions that tell people apart whom the model knows (linear discriminants), which no loss has seen
- edits that take: of the pictures that an independent judge (recipes/faces64_judge.py) finds without sunglasses, the share that
  it finds with them at +2 sigmas; likewise of those that do not look to one side the share that does, at +-2 sigmas of turn
- speed: steps until the distance with the model's own noise is what 1000 steps of the published search end with, and
  the share of its wall time that they take, from what the encoder and a step of either take in turns within a minute; machines
  are shared, and whole searches that run one after another are not slowed alike. --timing measures that share anew
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from faces64_data import crops
from faces64_evaluate import chosen
from judge import POSES
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from latentedit.critic import Critic
from latentedit.directions import Direction, load_direction, shipped
from latentedit.editing import edit
from latentedit.encoder import encode
from latentedit.images import save_image, to_tensor
from latentedit.inversion import STEPS, Inversion, invert
from latentedit.latents import Latent
from latentedit.metrics import load_judge
from latentedit.models import Model, fingerprint, load_model
from latentedit.perceptual import DiscriminatorDistance
from latentedit.search import FIRST_PART
from latentedit.sheets import Row, sheet
from latentedit.statistics import WStatistics
from latentedit.tuning import tune

SHOWN = 6
"""Photographs in the picture."""
AMOUNT = 2.0
"""Sigmas."""


def who(name: str) -> str:
    """Whose photograph: "cmu/cheyer_left_..." and "orl/s26_3" begin with the person."""
    return name.split("_")[0]


class Identity:
    """Nearest real photograph in features that no loss has seen."""

    def __init__(self, data: Path) -> None:
        known, unknown = list(crops(data, kept_out=False)), list(crops(data, kept_out=True))
        self.names = [name for name, _ in known + unknown]
        gradients = np.stack([self._gradients(to_tensor(image)[0]) for _, image in known + unknown])
        people = [who(name) for name, _ in known]
        self.projection = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.3)
        self.projection.fit(gradients[: len(known)], people)
        self.features = self._unit(self.projection.transform(gradients))

    @staticmethod
    def _gradients(image: Tensor) -> np.ndarray[Any, Any]:
        pixels = ((image.mean(dim=0) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
        return np.ravel(cv2.HOGDescriptor((64, 64), (16, 16), (8, 8), (8, 8), 9).compute(pixels))

    @staticmethod
    def _unit(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        unit: np.ndarray[Any, Any] = x / np.linalg.norm(x, axis=1, keepdims=True)
        return unit

    def kept(self, image: Tensor, name: str) -> bool:
        """Whether the photograph nearest to ``image [C, H, W]``, other than ``name`` itself, is of the same person."""
        feature = self._unit(self.projection.transform(self._gradients(image)[None]))[0]
        near = self.features @ feature
        near[self.names.index(name)] = -np.inf
        return who(self.names[int(near.argmax())]) == who(name)


class Edits:
    """Counts of pictures that an edit should change, and of those that it does."""

    def __init__(self, judge: Any, directions: dict[str, Direction]) -> None:
        self.judge, self.directions = judge, directions
        self.counts: dict[str, list[int]] = {name: [0, 0] for name in directions}

    def _says(self, image: Tensor, name: str, amount: float) -> bool:
        found = self.judge(image)
        if name == "sunglasses":
            return bool(found["sunglasses"] > 0)
        return POSES[int(found["pose"].argmax())] == ("left" if amount > 0 else "right")

    def try_on(self, latent: Latent, generator: Any) -> None:
        base = latent.ws
        before = latent.render(generator)
        for name, direction in self.directions.items():
            for amount in (AMOUNT, -AMOUNT) if name == "turn" else (AMOUNT,):
                if self._says(before, name, amount):
                    continue
                latent.ws = edit(base, direction, amount)
                self.counts[name][0] += 1
                self.counts[name][1] += self._says(latent.render(generator), name, amount)
        latent.ws = base

    def shares(self) -> dict[str, float]:
        return {name: round(took / max(tried, 1), 3) for name, (tried, took) in self.counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--judge", type=Path, default=Path("runs/judge.safetensors"))
    parser.add_argument("--model", default="faces64")
    parser.add_argument("--photos", type=int, help="this many of the photographs, spread evenly; all by default")
    parser.add_argument("--steps", type=int, default=1000, help="of the published search")
    parser.add_argument(
        "--ways", nargs="+", help="rows to measure anew; the others, and the picture, stay as they are in --out"
    )
    parser.add_argument("--timing", action="store_true", help="only what steps cost; all else stays as it is in --out")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    model, judge = load_model(options.model), load_judge(options.judge)
    directions = {
        d.name: replace(d, step=None, layers=None)  # of the probes themselves, which tell ways of inverting apart
        for d in (load_direction(path) for path in shipped(fingerprint(model.generator)).values())
        if d.name in ("sunglasses", "turn")
    }
    photographs = chosen(options.data)
    if options.photos:
        photographs = [photographs[i] for i in np.linspace(0, len(photographs) - 1, options.photos).round().astype(int)]
    names, images = [name for name, _ in photographs], [to_tensor(image) for _, image in photographs]
    if options.timing:
        figures = json.loads((options.out / "inversion.json").read_text())
        figures["seconds_a_step"] = step_seconds(model, torch.cat(images))
        finish(figures, options.out)
        return
    identity = Identity(options.data)
    own = [identity.kept(image[0], name) for name, image in zip(names, images, strict=True)]
    print(f"{len(names)} photographs; of themselves {np.mean(own):.0%} have a neighbour of the same person", flush=True)

    rows: dict[str, dict[str, list[float]]] = {}
    edits, pictures = {}, {}
    shown = np.linspace(0, len(names) - 1, SHOWN).round().astype(int).tolist()
    searches: dict[str, Inversion] = {}
    for way, run in inverters(model, options.steps).items():
        if options.ways and way not in options.ways:
            continue
        started = time.perf_counter()
        result, latents = run(torch.cat(images), None)
        seconds = (time.perf_counter() - started) / len(names)
        searches[way] = result
        edits[way], columns = Edits(judge, directions), rows.setdefault(way, {})
        drawn = [latent.render(model.generator) for latent in latents]
        pictures[way] = [drawn[i] for i in shown]
        for number, (latent, picture) in enumerate(zip(latents, drawn, strict=True)):
            found = dict(result.distances[number])
            if latent.tuned:
                found |= {"perceptual": latent.distances["perceptual_tuned"], "psnr": latent.distances["psnr_tuned"]}
                found |= {key: float(latent.settings[key] or 0) for key in ("tune_loss_db", "tune_rank")}
            found |= {"seconds": seconds, "identity": float(identity.kept(picture[0], names[number]))}
            for key, value in found.items():
                columns.setdefault(key, []).append(value)
            edits[way].try_on(latent, model.generator)
        print(way, {key: round(statistics.mean(values), 3) for key, values in columns.items()}, edits[way].shares(), flush=True)
    speed = {}
    for space in ("W", "W+") if {"W", "W+", "W, published", "W+, published"} <= searches.keys() else ():
        published, result = searches[f"{space}, published"], searches[space]
        # The first part of our steps renders with the model's own noise, so that its distances are the ones to compare.
        course = result.history["perceptual"][: round(STEPS["quasi-newton"] * FIRST_PART)]
        counts = []
        for number in range(len(names)):
            aim = published.distances[number]["perceptual_own_noise"]
            reached = [i for i, value in enumerate(course[:, number].tolist()) if value <= aim]
            counts.append(float(reached[0] + 1) if reached else float("inf"))
        speed[space] = counts

    figures = {
        "model": Path(model.path).name,
        "photographs": len(names),
        "published_steps": options.steps,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "identity_of_the_photographs": round(float(np.mean(own)), 3),
        "ways": {
            way: {
                key: round(statistics.median(v) if key != "identity" else statistics.mean(v), 4) for key, v in columns.items()
            }
            | {f"edits_{key}": value for key, value in edits[way].shares().items()}
            for way, columns in rows.items()
        },
        "steps_to_reach_the_published": {
            key: {
                "median": statistics.median(values),
                "worst": max(values) if max(values) < float("inf") else None,
                "never": sum(value == float("inf") for value in values),
            }
            for key, values in speed.items()
        },
    }
    options.out.mkdir(parents=True, exist_ok=True)
    if options.ways:
        before = json.loads((options.out / "inversion.json").read_text())
        figures["ways"] = {way: figures["ways"].get(way, row) for way, row in before["ways"].items()}
        for name in ("steps_to_reach_the_published", "seconds_a_step"):
            figures[name] = {**before[name], **figures.get(name, {})}
    else:
        figures["seconds_a_step"] = step_seconds(model, torch.cat(images))
    finish(figures, options.out)
    if not options.ways:
        save_image(sheet([Row(way, shown_) for way, shown_ in pictures.items()]), options.out / "inversion.png")


def finish(figures: dict[str, Any], out: Path) -> None:
    print(table(figures))
    (out / "inversion.json").write_text(json.dumps(figures, indent=1) + "\n")


def step_seconds(model: Model, images: Tensor, steps: int = 15, rounds: int = 4) -> dict[str, dict[str, float]]:
    """Of the encoder, a step of ours and a step of the published search, measured in turns; the median of the rounds."""
    ways, found = inverters(model, steps), {}
    for space, start in (("W", "encoder, W"), ("W+", "encoder, W+")):
        taken: dict[str, list[float]] = {"encoder": [], "ours": [], "published": []}
        for _ in range(rounds):
            for kind, way in (("encoder", start), ("ours", space), ("published", f"{space}, published")):
                times = [time.perf_counter()]

                def tick(done: int, *_: Any, times: list[float] = times) -> None:
                    times.append(time.perf_counter())
                    if done == steps:
                        raise KeyboardInterrupt  # ends a search as Ctrl-C does, with what it has

                ways[way](images, None if kind == "encoder" else tick)
                ticks = times[1:]
                taken[kind].append(
                    time.perf_counter() - times[0] if kind == "encoder" else (ticks[-1] - ticks[0]) / (len(ticks) - 1)
                )
        found[space] = {kind: round(statistics.median(values), 4) for kind, values in taken.items()}
    return found


Inverter = Callable[[Tensor, Any], tuple[Inversion, list[Latent]]]


def inverters(model: Model, steps: int) -> dict[str, Inverter]:
    """From photographs to their inversions; the progress callback is called after every step."""
    generator, statistics_ = model.generator, WStatistics.of(model.generator)
    assert model.discriminator is not None
    assert model.encoder is not None
    encoder, perceptual = model.encoder, DiscriminatorDistance(model.discriminator)
    critic = Critic(generator, statistics_)

    def searched(space: str, **options: Any) -> Inverter:
        def run(image: Tensor, progress: Any) -> tuple[Inversion, list[Latent]]:
            given: dict[str, Any] = {"perceptual": perceptual, "statistics": statistics_, "critic": critic, **options}
            if options.get("method") != "adam":
                given["start"] = encode(generator, encoder, image, space, statistics=statistics_)
                given["curvature"] = model.curvature
            result = invert(generator, image, space, progress=progress, **given)
            return result, [result.latent(i) for i in range(len(image))]

        return run

    def tuned(space: str, **options: Any) -> Inverter:
        def run(image: Tensor, progress: Any) -> tuple[Inversion, list[Latent]]:
            result, latents = searched(space, **options)(image, progress)
            for i, latent in enumerate(latents):
                one = slice(i, i + 1)
                noise = [map_[one] for map_ in result.noise]
                tune(generator, image[one], result.ws[one], noise, perceptual).put_into(latent)
            return result, latents

        return run

    return {
        "encoder, W": searched("w", steps=0),
        "encoder, W+": searched("w+", steps=0),
        "W": searched("w"),
        "W+": searched("w+"),
        "W+, held near W": searched("w+", delta_weight=0.01, adversarial_weight=0.1),
        "style space": searched("s"),
        "W near the mean, tuned": tuned("w", prior_weight=0.2, noise="frozen"),
        "W, published": searched("w", method="adam", steps=steps),
        "W+, published": searched("w+", method="adam", steps=steps),
    }


def table(figures: dict[str, Any]) -> str:
    lines = [
        "| | distance, found / own noise | PSNR, dB | w | identity kept | sunglasses take | turn takes | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way, f in figures["ways"].items():
        lines.append(
            f"| {way} | {f['perceptual']:.3f} / {f['perceptual_own_noise']:.3f} | {f['psnr']:.1f} / {f['psnr_own_noise']:.1f}"
            f" | {f['w_distance']:.2f} | {f['identity']:.0%} | {f['edits_sunglasses']:.0%} | {f['edits_turn']:.0%}"
            f" | {f['seconds']:.1f} |"
        )
    lines.append("")
    lines.append("| until the published search's distance is reached | median | worst |")
    lines.append("|---|---|---|")
    for space in ("W", "W+"):
        count, cost = figures["steps_to_reach_the_published"][space], figures["seconds_a_step"][space]
        whole = figures["published_steps"] * cost["published"]
        shares = [
            None if n is None else (cost["encoder"] + n * cost["ours"]) / whole for n in (count["median"], count["worst"])
        ]
        never = f"not reached by {count['never']} of {figures['photographs']}"
        last = never if shares[1] is None else f"{shares[1]:.3f}"
        slowest = never if count["worst"] is None else f"{count['worst']:.0f}"
        lines.append(f"| {space}: steps, of {figures['published_steps']} | {count['median']:.0f} | {slowest} |")
        lines.append(f"| {space}: share of its time | {shares[0]:.3f} | {last} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
