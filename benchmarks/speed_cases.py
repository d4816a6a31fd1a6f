"""What `speed.py` times. A case prepares itself and returns the pieces of its work.

Only what users call is used here, so that the same file times an earlier checkout
(`speed.py --package`).
"""

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from convolutions import Recorder, of_synthesis

Work = Callable[[], Any]


@dataclass
class Case:
    """The time of a case is the sum of its parts, each times its weight."""

    parts: list[tuple[float, Work]]
    pictures: float = 0.0
    """Done in that time; 0 where there are none."""
    convolutions: bool = True
    """Whether the bare convolutions of it are timed too, as they are recorded in it or ..."""
    bare: Callable[[], float] | None = None
    """... as this says."""
    limit: float | None = None
    """Target for the ratio to them, or for the seconds if they are not timed."""
    rounds: int = 3


def rendering(resolution: int, batch: int, precision: Any) -> Case:
    """Synthesis by networks of the usual width (channel_base 32768, at most 512)."""
    from latentedit.networks.config import DTYPES
    from latentedit.networks.generator import Generator, GeneratorConfig

    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(resolution=resolution)).eval().requires_grad_(False)
    for layer in generator.synthesis.layers:
        layer.noise_strength.fill_(0.1)
    with torch.no_grad():
        ws = generator.mapping(torch.randn(batch, generator.z_dim))

    @torch.no_grad()
    def work() -> None:
        generator.synthesis(ws, precision=precision)

    limit = 1.25 if precision == "fp32" else 1.5
    rounds = 5 if batch == 1 else 3
    bare = partial(of_synthesis, generator, batch, DTYPES[precision])
    return Case([(1, work)], batch, bare=torch.no_grad()(bare), limit=limit, rounds=rounds)


def rendering_stylegan3(configuration: str) -> Case:
    """Synthesis by StyleGAN3 networks of the published size at 1024 px, beside their bare
    convolutions and filters."""
    from latentedit.networks.config import AliasFree
    from latentedit.networks.generator import Generator, GeneratorConfig

    torch.manual_seed(0)
    radial = configuration == "r"
    widths: dict[str, Any] = {"channel_base": 65536, "channel_max": 1024} if radial else {}
    options = AliasFree(kernel=1 if radial else 3, radial=radial)
    config = GeneratorConfig(
        1024,
        architecture="stylegan3",
        conv_clamp=256,
        mapping_layers=2,
        alias_free=options,
        **widths,
    )
    generator = Generator(config).eval().requires_grad_(False)
    with torch.no_grad():
        ws = generator.mapping(torch.randn(1, generator.z_dim))

    @torch.no_grad()
    def work() -> None:
        generator.synthesis(ws)

    def bare() -> float:
        with Recorder(filters=True) as recorder:
            work()
        seconds: float = recorder.bare()
        return seconds

    return Case([(1, work)], 1, bare=torch.no_grad()(bare), limit=1.5)


def rendering_bundled() -> Case:
    """One picture of `faces128`, as `sample` and `edit` render it."""
    from latentedit.formats.load_model import load_generator
    from latentedit.latent.w_statistics import sample_z

    generator = load_generator("faces128")
    with torch.no_grad():
        ws = generator.mapping(sample_z(0, generator.z_dim))

    @torch.no_grad()
    def work() -> None:
        generator.synthesis(ws)

    bare = partial(of_synthesis, generator, 1, torch.float32)
    return Case([(1, work)], 1, bare=torch.no_grad()(bare), rounds=9)


def projecting(resolution: int, space: str, batch: int, method: Any) -> Case:
    """Steps of `invert`: those of a search of four, or fifty, that one of two, or ten, does not
    have."""
    from latentedit.formats.load_model import load_model
    from latentedit.inversion.face_weights import face_weights
    from latentedit.inversion.perceptual import LpipsDistance
    from latentedit.inversion.preconditioner import Curvature
    from latentedit.inversion.projector import invert
    from latentedit.latent.w_statistics import WStatistics, sample_w
    from latentedit.networks.generator import Generator, GeneratorConfig

    torch.manual_seed(0)
    options: dict[str, Any] = {"method": method}
    bundled = resolution == 128
    if bundled:
        model = load_model("faces128")
        generator = model.generator
        few = 10
        many = 50
        options |= {
            "discriminator": model.discriminator,
            "focus": face_weights(model.framing, resolution),
        }
    else:
        generator = Generator(GeneratorConfig(resolution=resolution)).eval().requires_grad_(False)
        few = 2
        many = 4
        options["perceptual"] = LpipsDistance(None)

    # Not measured, as a step takes as long with any.
    options["curvature"] = Curvature(torch.randn(8, generator.num_ws, generator.w_dim) / 100)
    options["statistics"] = WStatistics.of(generator)
    ws = sample_w(generator, batch, seed=3)[:, None].expand(-1, generator.num_ws, -1)
    with torch.no_grad():
        target = generator.synthesis(ws)

    def work(steps: int) -> None:
        invert(generator, target, space, steps, **options)

    share = 1 / (many - few)
    parts: list[tuple[float, Work]] = [(share, lambda: work(many)), (-share, lambda: work(few))]
    return Case(parts, limit=None if bundled else 1.6, rounds=3 if bundled else 2)


def training(
    preset: str, resolution: int, channels: int, precision: str, batch: int | None = None
) -> Case:
    """A sixteenth of sixteen iterations: one with R1 and path length, three with path length,
    twelve with neither."""
    from latentedit.training import PictureSet, Trainer, load_preset

    # Augmented as in the midst of a run.
    config = replace(
        load_preset(preset, resolution), precision=precision, augment_p=0.3, ada_target=None
    )
    config = config if batch is None else replace(config, batch=batch)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(
        rng.integers(0, 256, (64, channels, resolution, resolution), dtype=np.uint8)
    )
    trainer = Trainer(config, PictureSet(images, torch.zeros(64, 0), [str(i) for i in range(64)]))
    trainer.step()

    def work(steps: int) -> None:
        trainer.steps = steps
        trainer.step()

    parts: list[tuple[float, Work]] = [
        (12 / 16, lambda: work(1)),
        (3 / 16, lambda: work(4)),
        (1 / 16, lambda: work(16)),
    ]
    return Case(parts, config.batch, rounds=3 if resolution == 64 else 1)


def command(*words: str, limit: float, rounds: int = 3) -> Case:
    """``latentedit`` with ``words``, a process from beginning to end."""
    line = [sys.executable, "-m", "latentedit.cli.main", *words]
    work: Work = partial(subprocess.run, line, check=True, capture_output=True)
    return Case([(1, work)], convolutions=False, limit=limit, rounds=rounds)


def editing() -> Case:
    """``latentedit edit`` of one latent of `faces128`."""
    from latentedit.formats.load_model import load_generator
    from latentedit.latent.latent_file import Latent, save_latent
    from latentedit.latent.w_statistics import sample_w
    from latentedit.networks.fingerprint import fingerprint

    generator = load_generator("faces128")
    ws = sample_w(generator, 1)[:, None].repeat(1, generator.num_ws, 1)
    folder = Path(tempfile.mkdtemp())
    save_latent(folder / "me.safetensors", Latent(ws, None, fingerprint(generator), "w"))
    out = str(folder / "edited.png")
    return command(
        "edit",
        str(folder / "me.safetensors"),
        "--set",
        "smile=1",
        "--out",
        out,
        limit=2.5,
        rounds=5,
    )


def inverting() -> Case:
    """``latentedit invert`` of the demo's portrait, with all defaults."""
    from latentedit.cli.demo import portrait

    return command("invert", str(portrait()), "--out", tempfile.mkdtemp(), "--again", limit=20.0)


def loading() -> Case:
    """`load_model` of a 1024 px model of the usual width, after the import."""
    from latentedit.formats.load_model import load_model
    from latentedit.model.model import Model
    from latentedit.model.native import save_model
    from latentedit.networks.discriminator import Discriminator, DiscriminatorConfig
    from latentedit.networks.generator import Generator, GeneratorConfig

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "large.safetensors"
    save_model(
        path,
        Model(
            Generator(GeneratorConfig(resolution=1024)),
            Discriminator(DiscriminatorConfig(resolution=1024)),
        ),
    )

    def work() -> None:
        load_model(path)
        assert folder

    return Case([(1, work)], convolutions=False, limit=1.0)


def usual_generator() -> Any:
    """A mapping network of the usual size, on the smallest synthesis there is."""
    from latentedit.networks.generator import Generator, GeneratorConfig

    torch.manual_seed(0)
    return (
        Generator(GeneratorConfig(resolution=8, channel_base=64, channel_max=8))
        .eval()
        .requires_grad_(False)
    )


def probe(kind: str) -> Case:
    """`fit` on 100,000 w of 512 dimensions; a ridge without cross-validation or intervals would
    take a second."""
    from latentedit.directions import fit
    from latentedit.latent.w_statistics import sample_w

    generator = usual_generator()
    w = sample_w(generator, 100_000)
    draws = torch.Generator().manual_seed(0)
    score = w @ torch.randn(512, generator=draws)
    score = score + score.std() * torch.randn(len(w), generator=draws)
    labels: Any = score.numpy() if kind == "ridge" else (score > score.median()).long().numpy()
    return Case(
        [(1, lambda: fit(w, labels, kind=kind, generator=generator))], convolutions=False, rounds=1
    )


def looking() -> Case:
    """What `invert` sees along the ten sliders of faces128, of one of its own pictures."""
    from latentedit.cli.looks import onlooker_of
    from latentedit.formats.load_model import load_model
    from latentedit.latent.latent_file import Latent
    from latentedit.latent.w_statistics import sample_z
    from latentedit.networks.fingerprint import fingerprint

    model = load_model("faces128")
    generator = model.generator
    ws = generator.mapping(sample_z(1, generator.z_dim), None, 0.7)
    latent = Latent(ws, None, fingerprint(generator), "w")
    onlooker = onlooker_of(model)
    return Case([(1, lambda: onlooker.look(latent))], convolutions=False, limit=1.0)


PHOTOS = 2000
"""Photographs that `fitting_photos` takes."""


def fitting_photos() -> Case:
    """``latentedit directions fit`` from 2,000 labelled photographs, with nothing in the cache.

    The portraits of ``../shared``, or the demo's portrait so often; every other one of these is
    darker, and labelled so.
    """
    folder = Path(tempfile.mkdtemp())
    rows = [("file", "label", "person"), *(_portraits() or _darkened(folder))]
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)

    line = [sys.executable, "-m", "latentedit.cli.main", "directions", "fit"]
    line += [str(folder / "labels.csv"), "--column", "label", "--group", "person", "--aligned"]
    line += ["--out", str(folder / "found.safetensors")]

    def work() -> None:
        with tempfile.TemporaryDirectory() as cache:
            variables = {**os.environ, "LATENTEDIT_CACHE": cache}
            subprocess.run(line, check=True, capture_output=True, env=variables)

    return Case([(1, work)], convolutions=False, limit=90.0, rounds=1)


def _portraits() -> list[tuple[str, str, str]]:
    """File, whether it shows glasses, and person; empty where ``../shared`` is missing."""
    portraits = Path(__file__).parents[2] / "shared" / "data" / "portraits"
    if not portraits.is_dir():
        return []
    with open(portraits / "train.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["glasses"]][:PHOTOS]
    return [(str(portraits / "train" / row["file"]), row["glasses"], row["person"]) for row in rows]


def _darkened(folder: Path) -> list[tuple[str, str, str]]:
    from PIL import Image

    from latentedit.cli.demo import portrait

    image = np.asarray(Image.open(portrait()).convert("RGB").resize((128, 128)))
    rows = []
    for number in range(PHOTOS):
        grain = np.random.default_rng(number).normal(0, 8, image.shape) - 20 * (number % 2)
        path = folder / f"{number}.png"
        Image.fromarray((image + grain).clip(0, 255).astype(np.uint8)).save(path)
        rows.append((str(path), str(number % 2), str(number)))
    return rows


def principal_components() -> Case:
    """PCA of a million w of 512 dimensions, drawing them included."""
    from latentedit.directions import principal_components as run

    generator = usual_generator()
    return Case([(1, lambda: run(generator, samples=1_000_000))], convolutions=False, rounds=1)


CASES: dict[str, Callable[[], Case]] = {
    **{
        f"render-{resolution}-b{batch}-{precision}": (
            lambda resolution=resolution, batch=batch, precision=precision: rendering(
                resolution, batch, precision
            )  # type: ignore[misc]
        )
        for resolution in (256, 1024)
        for batch in (1, 8)
        for precision in ("fp32", "bf16")
    },
    "stylegan3-t-1024": lambda: rendering_stylegan3("t"),
    "stylegan3-r-1024": lambda: rendering_stylegan3("r"),
    "render-faces128": rendering_bundled,
    "project-256-w-vgg": lambda: projecting(256, "w", 1, "adam"),
    "project-128-w": lambda: projecting(128, "w", 1, "quasi-newton"),
    "project-128-w+": lambda: projecting(128, "w+", 1, "quasi-newton"),
    "project-128-w+-b8": lambda: projecting(128, "w+", 8, "quasi-newton"),
    "train-64-fp32": lambda: training("small", 64, 1, "fp32"),
    "train-64-bf16": lambda: training("small", 64, 1, "bf16"),
    "train-256-fp32": lambda: training("paper256", 256, 3, "fp32", 2),
    "help": lambda: command("--help", limit=0.3, rounds=9),
    "edit": editing,
    "invert": inverting,
    "demo": lambda: command("demo", "--out", tempfile.mkdtemp(), limit=240.0, rounds=1),
    "load-1024": loading,
    "probe-ridge-100k": lambda: probe("ridge"),
    "probe-logistic-100k": lambda: probe("logistic"),
    "pca-1M": principal_components,
    "fit-2000-photos": fitting_photos,
    "look-faces128": looking,
}
