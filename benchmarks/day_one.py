"""What the first day with an official 1024 px face network costs: a network of that shape with
random weights.

    python benchmarks/day_one.py [--resolution 1024] [--steps 3]

Every line is measured in a process of its own, whose peak memory is printed. LPIPS runs with a
random backbone, which takes as long as the real one.
"""

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from latentedit import InversionOptions, Projector, ProjectorSettings, load_model, save_model
from latentedit.formats.checkpoints import save_plain
from latentedit.formats.rosinality import save_rosinality
from latentedit.inversion.options import STEPS
from latentedit.inversion.perceptual import LpipsDistance
from latentedit.inversion.preconditioner import Curvature
from latentedit.latent.w_statistics import sample_z
from latentedit.model.model import Model
from latentedit.networks.discriminator import DiscriminatorConfig, build_discriminator
from latentedit.networks.generator import Generator, GeneratorConfig


def make(folder: Path, resolution: int) -> None:
    """Config F of StyleGAN2 and the first StyleGAN, in the layouts that this package can write."""
    torch.manual_seed(0)
    model = Model(
        Generator(GeneratorConfig(resolution)), build_discriminator(DiscriminatorConfig(resolution))
    )
    for network in (model.generator, model.discriminator):
        assert network is not None
        network.eval().requires_grad_(False)
    save_model(folder / "stylegan2.safetensors", model)
    save_rosinality(folder / "stylegan2-rosinality.pt", model)
    save_plain(folder / "stylegan2-plain.pt", model)
    first = GeneratorConfig(resolution, channel_base=16384, architecture="stylegan1")
    save_model(
        folder / "stylegan1.safetensors", Model(Generator(first).eval().requires_grad_(False))
    )


def timed(task: str, file: str, steps: int) -> None:
    """One line of the table, in this process."""
    started = time.perf_counter()
    model = load_model(file)
    loaded = time.perf_counter() - started
    generator = model.generator
    facts = f"load {loaded:6.2f} s"
    if task == "render":
        with torch.no_grad():
            ws = generator.mapping(sample_z(0, generator.z_dim), None, 0.7)
            generator.synthesis(ws)
            started = time.perf_counter()
            for _ in range(steps):
                generator.synthesis(ws)
        facts += f", a picture {(time.perf_counter() - started) / steps:6.2f} s"
    elif task != "load":
        settings = ProjectorSettings(
            LpipsDistance(None) if task == "lpips" else "discriminator", focus=None
        )
        projector = Projector(model, settings)
        curvature = Curvature.of(generator, projector.loss(), projector.statistics, 1)
        projector = Projector(
            model, replace(settings, curvature=curvature, statistics=projector.statistics)
        )
        image = torch.zeros(1, generator.channels, generator.resolution, generator.resolution)
        times: list[float] = []
        options = InversionOptions(steps=steps + 2, init="mean")
        projector.invert(image, options, on_step=lambda _: times.append(time.perf_counter()))
        step = median(b - a for a, b in itertools.pairwise(times))
        facts += (
            f", a step {step:6.2f} s, a photo ({STEPS['quasi-newton']} steps) "
            f"{step * STEPS['quasi-newton'] / 60:6.1f} min"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{Path(file).name:26} {task:14} {facts}, peak {peak:.1f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        timed(given.task[0], given.task[1], given.steps)
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, given.resolution)
        tasks = [("load", file.name) for file in sorted(folder.iterdir())]
        tasks += [("render", "stylegan2.safetensors"), ("render", "stylegan1.safetensors")]
        tasks += [
            ("discriminator", "stylegan2.safetensors"),
            ("lpips", "stylegan2.safetensors"),
            ("lpips", "stylegan1.safetensors"),
        ]
        for task, file in tasks:
            call = [
                sys.executable,
                __file__,
                "--steps",
                str(given.steps),
                "--task",
                task,
                str(folder / file),
            ]
            subprocess.run(call, check=True)


if __name__ == "__main__":
    main()
