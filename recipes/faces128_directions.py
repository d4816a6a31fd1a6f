"""Finds the sliders of `faces128` and writes them to directions/shipped/faces128-v3.

    python recipes/guide.py ../shared/data/portraits
    PYTHONPATH=recipes python recipes/faces128_directions.py ../shared/data/portraits

1. Random pictures are scored: by the guide (recipes/guide.py) for what portraits are labelled with,
   in pixels for light.
2. A linear probe in W is fitted to the scores.
3. The probe's step is refined on pictures, half of them of random w and half of inverted training
   crops: the guide's answer to the attribute should change, its other answers, the light and what
   lies outside the attribute's region should stay. `smile` begins at the mean difference between
   inverted London pairs (one person, neutral and smiling).

The judge (recipes/portrait_judge.py) and the held-out people take no part.

``--carry FOLDER`` takes over the sliders in FOLDER from an earlier version of the model that this
one was trained on from, and needs no pictures: their scores of random w are compared, and sigma is
measured again. ``--further`` goes on from the sliders that ship. Those of `faces128-v3` began as
those of `faces128-v2`, and three went on:

    PYTHONPATH=recipes python recipes/faces128_directions.py ../shared/data/portraits \\
        --carry faces128-v2
    PYTHONPATH=recipes python recipes/faces128_directions.py ../shared/data/portraits \\
        --further --only smile bald turn
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from faces128_encoder import measured
from faces128_ship import NAME, ROOT
from guide import BINARY, HEADS, NUMERIC, Guide, load, read_table
from torch import Tensor

from latentedit.directions import Direction, RefineOptions, fit, load_direction, refine
from latentedit.directions.direction import read_direction
from latentedit.directions.refinement import of_one_sigma
from latentedit.formats.load_model import load_model
from latentedit.inversion.options import InversionOptions, ProjectorSettings
from latentedit.inversion.projector import Projector
from latentedit.io.images import load_image
from latentedit.latent.w_statistics import sample_w
from latentedit.model.model import Model
from latentedit.networks.fingerprint import fingerprint

SAMPLES = 4000
PAIRS = 10
OTHERS = 3
STEPS = 40
"""Training crops that are inverted, in as many steps, for pictures to refine on: London pairs, and
others of six kinds."""
CERTAIN = 0.6
"""Usual factor on the guide's log odds: below 1 asks for more certainty than its own."""
OUT = ROOT / "directions" / "shipped" / NAME

Score = Callable[[Tensor], Tensor]


USUAL = RefineOptions(steps=60, batch=6, outside=20.0)
EVERYWHERE = RefineOptions(steps=60, batch=6)
"""For what has no region of its own."""
QUICK = RefineOptions(steps=40, batch=6, outside=20.0)
LIT = RefineOptions(steps=25, batch=6, hold_light=False)


@dataclass(frozen=True)
class Slider:
    """What a slider is made from."""

    words: str
    """What + means, for its card."""
    head: str = ""
    """The guide's answer that it moves; "" where a function of pixels or of several heads stands
    for it."""
    related: tuple[str, ...] = ()
    """Answers that change with it in life too, and are not held."""
    region: tuple[tuple[float, float, float, float], ...] = ()
    """Ellipses (centre x, y, half axes) where it is seen, in fractions of the crop; none:
    everywhere."""
    ends: tuple[float, float] = (0.7, -0.7)
    """For numbers in standard deviations: where the two ends begin."""
    options: RefineOptions = USUAL
    certain: float = CERTAIN
    """Factor on the guide's log odds."""


FACE = (0.5, 0.58, 0.30, 0.36)
MOUTH = (0.5, 0.72, 0.22, 0.17)
EYES = ((0.37, 0.48, 0.17, 0.12), (0.63, 0.48, 0.17, 0.12))
HAIR = ((0.5, 0.16, 0.36, 0.22), (0.22, 0.42, 0.14, 0.36), (0.78, 0.42, 0.14, 0.36))
SMILING = ("corners_up", "mouth_width", "mouth_open", "teeth", "eyes_open")

SLIDERS = {
    "smile": Slider(
        "smiles",
        related=SMILING,
        region=(MOUTH, FACE),
        ends=(1.1, -0.8),
        options=replace(QUICK, typical=0.03),
    ),
    "mouth-open": Slider("mouth open", "mouth_open", SMILING, (MOUTH,), (1.1, -0.6), options=QUICK),
    "glasses": Slider("wears glasses", "glasses", ("eyes_open",), EYES),
    "beard": Slider(
        "beard or moustache",
        "beard",
        ("woman", "face_width"),
        ((0.5, 0.78, 0.28, 0.22),),
        options=RefineOptions(steps=60, batch=6, outside=8.0),
        certain=0.3,
    ),
    "turn": Slider(
        "looks to the right of the image",
        "yaw",
        ("face_width", "mouth_width"),
        ends=(2.0, -2.6),
        options=RefineOptions(steps=40, batch=6, real=2.0, typical=0.1),
    ),
    "eyes-open": Slider("eyes wide open", "eyes_open", (), EYES, (0.9, -0.9), options=QUICK),
    "face-width": Slider(
        "broad face", "face_width", ("mouth_width",), (FACE,), (0.9, -0.9), options=QUICK
    ),
    "femininity": Slider(
        "looks like a woman", "woman", ("beard", "face_width"), options=EVERYWHERE
    ),
    "grey-hair": Slider("grey hair", "grey_hair", (), HAIR, options=QUICK),
    "bald": Slider(
        "bald",
        "bald",
        (),
        HAIR,
        options=replace(QUICK, hold=0.5, outside=10.0, typical=0.02),
        certain=0.3,
    ),
    "background": Slider("light background", ends=(0.9, -0.9), options=LIT),
    "light": Slider("light on the face", ends=(0.9, -0.9), options=LIT),
    "warmth": Slider("warm light", ends=(0.9, -0.9), options=RefineOptions(steps=25, batch=6)),
}


def corners(x: Tensor) -> Tensor:
    """Mean of the upper corners, ``[N]``."""
    return torch.cat([x[:, :, :32, :12], x[:, :, :32, -12:]], dim=3).mean(dim=(1, 2, 3))


def middle(x: Tensor) -> Tensor:
    """Mean of the face, ``[N]``."""
    return x[:, :, 52:100, 44:84].mean(dim=(1, 2, 3))


def redness(x: Tensor) -> Tensor:
    """Red less blue in the face, ``[N]``."""
    face = x[:, :, 52:100, 44:84].mean(dim=(2, 3))
    return face[:, 0] - face[:, 2]


PIXELS: dict[str, Score] = {"background": corners, "light": middle, "warmth": redness}


class Answers:
    """What guide and pixels say of pictures, every column in standard deviations or log odds."""

    def __init__(self, guide: Guide, data: Path) -> None:
        self.guide = guide
        rows = [row for row in read_table(data / "train.csv") if row["corners_up"]]
        pairs: dict[str, dict[str, Tensor]] = {}
        numbers = torch.tensor([[float(row[name]) for name in NUMERIC] for row in rows])
        z = (numbers - numbers.mean(0)) / numbers.std(0)
        for row, values in zip(rows, z, strict=True):
            if row["source"] == "london" and row["expression"]:
                pairs.setdefault(row["person"], {})[row["expression"]] = values
        both = [pair for pair in pairs.values() if len(pair) == 2]
        neutral = torch.stack([pair["neutral"] for pair in both]).median(0).values
        smiling = torch.stack([pair["smiling"] for pair in both]).median(0).values
        own = [NUMERIC.index(name) for name in ("corners_up", "mouth_width", "mouth_open")]
        way = torch.zeros(len(NUMERIC))
        way[own] = (smiling - neutral)[own]
        self.way = way / way.square().sum()
        self.neutral = neutral
        self.middles: dict[str, tuple[float, float]] = {}

    def pixels(self, x: Tensor) -> Tensor:
        """``[N, 3]`` in standard deviations."""
        columns = [(PIXELS[name](x) - m) / s for name, (m, s) in self.middles.items()]
        return torch.stack(columns, dim=1)

    def value(self, name: str, guided: Tensor, pixels: Tensor) -> Tensor:
        """Return the value of the slider ``name``, ``[N]``: log odds, or a number."""
        if name in PIXELS:
            return pixels[:, list(PIXELS).index(name)]
        if name == "smile":  # 0 is the neutral face of the London pairs, 1 their smile
            return (guided[:, len(BINARY) :] - self.neutral) @ self.way
        return guided[:, HEADS.index(SLIDERS[name].head)]

    def scores(self, name: str) -> Score:
        """For `refine`: positive end, negative end, everything that should stay."""
        slider = SLIDERS[name]
        held = [
            i for i, head in enumerate(HEADS) if head != slider.head and head not in slider.related
        ]
        kept = [
            i
            for i, other in enumerate(PIXELS)
            if other != name and not (name in PIXELS and other == "light")
        ]
        binary = slider.head in BINARY
        steep = 6.0 if name == "smile" else 3.0

        def found(x: Tensor) -> Tensor:
            guided = self.guide(x)
            pixels = self.pixels(x)
            value = self.value(name, guided, pixels)
            if binary:
                ends = [slider.certain * value, -slider.certain * value]
            else:
                ends = [steep * (value - slider.ends[0]), steep * (slider.ends[1] - value)]
            numeric = guided[:, held] * torch.tensor(
                [1.0 if HEADS[i] in BINARY else 2.0 for i in held]
            )
            return torch.cat([torch.stack(ends, dim=1), numeric, 2 * pixels[:, kept]], dim=1)

        return found


def region(slider: Slider, size: int = 128) -> Tensor | None:
    """``[1, 1, size, size]`` from 0 to 1, or None for everywhere."""
    if not slider.region:
        return None
    centres = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    found = torch.zeros(size, size)
    for cx, cy, across, along in slider.region:
        inside = torch.sigmoid(5 * (1.2 - ((x - cx) / across) ** 2 - ((y - cy) / along) ** 2))
        found = torch.maximum(found, inside)
    return found[None, None]


@torch.no_grad()
def pool(model: Model, answers: Answers, path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Random w, the guide's answers and pixel measures of their pictures; kept in ``path``."""
    generator = model.generator
    w = sample_w(generator, SAMPLES, seed=1)
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        answers.middles = kept["middles"]
        return w, kept["guided"], kept["pixels"]
    guided = []
    thumbs = []
    began = time.monotonic()
    for number, part in enumerate(w.split(25)):
        x = generator.synthesis(part[:, None].expand(-1, generator.num_ws, -1))
        guided.append(answers.guide(x))
        thumbs.append(torch.stack([function(x) for function in PIXELS.values()], dim=1))
        print(
            f"\rscored {25 * (number + 1)} of {SAMPLES}, {time.monotonic() - began:.0f} s",
            end="",
            flush=True,
        )
    raw = torch.cat(thumbs)
    for i, name in enumerate(PIXELS):
        answers.middles[name] = (float(raw[:, i].median()), float(raw[:, i].std()))
    middles, scales = (
        torch.tensor(column) for column in zip(*answers.middles.values(), strict=True)
    )
    pixels = (raw - middles) / scales
    torch.save({"guided": torch.cat(guided), "pixels": pixels, "middles": answers.middles}, path)
    print()
    return w, torch.cat(guided), pixels


def crops(model: Model, data: Path, path: Path) -> tuple[Tensor, Tensor]:
    """ws of training crops, inverted into W+, and of London pairs the mean difference of smiling
    and neutral."""
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        return kept["ws"], kept["smile"]
    chosen = selected(read_table(data / "train.csv"))
    projector = Projector(model, ProjectorSettings("discriminator", curvature=measured(model)))
    options = InversionOptions(steps=STEPS, init="encoder", noise="frozen")
    found = []
    began = time.monotonic()
    for start in range(0, len(chosen), 4):
        images = torch.cat(
            [
                load_image(data / "train" / row["file"], size=128)
                for row in chosen[start : start + 4]
            ]
        )
        found.append(projector.invert(images, options).ws)
        print(
            f"inverted {start + len(images)} of {len(chosen)}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    ws = torch.cat(found)
    pairs: dict[str, dict[str, Tensor]] = {}
    for row, one in zip(chosen, ws, strict=True):
        pairs.setdefault(row["person"], {})[row["expression"]] = one
    smile = torch.stack([p["smiling"] - p["neutral"] for p in pairs.values() if len(p) == 2]).mean(
        dim=0
    )
    torch.save({"ws": ws, "smile": smile}, path)
    return ws, smile


def selected(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """`PAIRS` London pairs, and others of every kind, evenly."""
    random = np.random.RandomState(0)
    both = [
        row["person"]
        for row in rows
        if row["source"] == "london" and row["expression"] == "smiling"
    ]
    people = random.choice(both, PAIRS, replace=False)
    found = [row for row in rows if row["person"] in people and row["expression"]]
    for kind in ("glasses", "beard", "woman", "grey_hair", "bald", "dark_skin"):
        some = [
            row
            for row in rows
            if row[kind] == "1" and row["source"] != "london" and row not in found
        ]
        found += [some[i] for i in random.choice(len(some), OTHERS, replace=False)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--guide", type=Path, default=ROOT / "runs" / "guide.safetensors")
    parser.add_argument("--only", nargs="+", choices=list(SLIDERS))
    parser.add_argument(
        "--further", action="store_true", help="begin at the step that ships already"
    )
    parser.add_argument(
        "--carry", type=Path, help="folder of an earlier version's sliders, to take over"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()

    model = load_model(NAME)
    if options.carry is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for file in sorted(options.carry.glob("*.safetensors")):
            carried(file, model).save(options.out / file.name)
            print(f"wrote {options.out / file.name}", flush=True)
        return
    guide, facts = load(options.guide)
    answers = Answers(guide, options.data)
    w, guided, pixels = pool(model, answers, ROOT / "runs" / f"pool-{NAME}.pt")
    ws, smile = crops(model, options.data, ROOT / "runs" / f"crops-{NAME}.pt")
    for name in options.only or SLIDERS:
        began = time.monotonic()
        earlier = load_direction(OUT / f"{name}.safetensors") if options.further else None
        begin = None if earlier is None else earlier.step
        found = made(
            name, model, answers, (w, guided, pixels), ws, smile if begin is None else None, begin
        )
        if earlier is not None:
            begun = earlier.provenance.get("carried_from") or earlier.provenance.get("begun_at")
            found.provenance.update({"begun_at": begun} if begun else {})
        if SLIDERS[name].head:
            kind = "photo_auc" if SLIDERS[name].head in BINARY else "photo_r"
            found.report[kind] = round(facts[SLIDERS[name].head], 3)
        found.save(options.out / f"{name}.safetensors")
        print(f"{name}: {found.report}, {time.monotonic() - began:.0f} s", flush=True)


def carried(file: Path, model: Model) -> Direction:
    """The slider in ``file``, of a model that this one was trained on from; one sigma is that of
    this model's random faces."""
    earlier = read_direction(file)
    scores = sample_w(model.generator).cpu() @ earlier.vector
    direction = replace(
        earlier,
        sigma=float(scores.std()),
        fingerprint=fingerprint(model.generator),
        provenance={**earlier.provenance, "carried_from": earlier.fingerprint},
    )
    assert earlier.step is not None
    return replace(direction, step=of_one_sigma(earlier.step, direction))


def made(
    name: str,
    model: Model,
    answers: Answers,
    scored: tuple[Tensor, Tensor, Tensor],
    ws: Tensor,
    smile: Tensor | None,
    begin: Tensor | None,
) -> Direction:
    """The probe's direction for ``name``, refined."""
    slider = SLIDERS[name]
    w, guided, pixels = scored
    values = answers.value(name, guided, pixels)
    start = fit(
        w,
        values.numpy(),
        generator=model.generator,
        name=name,
        kind="ridge",
        strength=0.1,
        provenance={"plus": slider.words, "guide": "recipes/guide.py", "random_w": len(w)},
    )
    if begin is not None:
        start = replace(start, step=begin)
    elif name == "smile" and smile is not None:
        start = replace(start, step=of_one_sigma(0.5 * smile, start))
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        print(f"\r{name}: {done} of {total}, {time.monotonic() - told:.0f} s", end="", flush=True)

    found = refine(
        start,
        model.generator,
        answers.scores(name),
        slider.options,
        discriminator=model.discriminator,
        base=ws,
        region=region(slider),
        progress=progress,
    )
    print()
    return found


if __name__ == "__main__":
    main()
