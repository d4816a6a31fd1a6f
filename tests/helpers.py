"""What many tests share: commands and their complaints, small networks, pictures and options of a
training."""

import os
import re
import socket
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import click
import matplotlib
import numpy as np
import torch
from click.testing import CliRunner, Result

from latentedit.cli.main import main
from latentedit.inversion.perceptual import DiscriminatorDistance
from latentedit.inversion.preconditioner import Curvature
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.latent.w_statistics import WStatistics
from latentedit.networks.discriminator import Discriminator, DiscriminatorConfig
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.training import PictureSet, TrainingConfig
from latentedit.training.encoders import EncoderTrainer, EncoderTraining
from tests.onnx_files import mean

SHARED = Path(__file__).parent.parent.parent / "shared"
SHARED_DATA = SHARED / "data"
TINY = {"resolution": 16, "channels": 1, "channel_base": 128, "channel_max": 16}
NETWORK = {"channel_base": 64, "channel_max": 8}
CONFIG = TrainingConfig(
    generator={**NETWORK, "z_dim": 8, "w_dim": 8, "mapping_layers": 1},
    discriminator=NETWORK,
    batch=4,
    mirror=True,
    augment="bgc",
    ada_kimg=0.5,
    kimg=0.04,
    snapshot_kimg=0.02,
)


def hopper() -> Path:
    """The portrait of Grace Hopper that comes with matplotlib (US Navy, public domain); tests know
    its coordinates."""
    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def measured_once(cache: Path) -> Path:
    """Let a cache find the domains and curvatures that other tests have measured, in whatever
    process: of one network they are always the same. Returns ``cache``."""
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("domain", "curvature"):
        measured = Path(os.environ["LATENTEDIT_TESTS_MEASURED"]) / name
        measured.mkdir(parents=True, exist_ok=True)
        if not (cache / name).exists():
            (cache / name).symlink_to(measured)
    return cache


def tiny_generator(seed: int = 0, **changes: object) -> Generator:
    torch.manual_seed(seed)
    options = {**TINY, "z_dim": 12, "w_dim": 12, "mapping_layers": 2, **changes}
    generator = Generator(GeneratorConfig(**options))  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in generator.synthesis.layers:
            layer.noise_strength.fill_(0.1)
        generator.mapping.w_avg.normal_()
    return generator.eval().requires_grad_(False)


def tiny_discriminator(seed: int = 0, **changes: object) -> Discriminator:
    torch.manual_seed(seed)
    return Discriminator(DiscriminatorConfig(**{**TINY, **changes})).eval().requires_grad_(False)  # type: ignore[arg-type]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def works(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def complaint(*arguments: object) -> str:
    """The one line on stderr of a command that must fail with status 1."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output + repr(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = [
        line for line in result.stderr.splitlines() if not line.startswith("perceptual distance:")
    ]
    lines = [line for line in lines if line and "%|" not in line]  # progress bars
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("latentedit: ")
    advised = set(
        re.findall(r"--[a-z][a-z-]*", re.sub(r'"latentedit [^"]*"|\bwith \w+ --\w+', "", lines[0]))
    )
    assert advised <= options_of([str(argument) for argument in arguments]), lines[0]
    return lines[0]


def options_of(words: list[str]) -> set[str]:
    """The options of the command that ``words`` begin with, and those that the user wrote."""
    command: click.Command = main
    for word in words:
        found = (
            command.get_command(click.Context(command), word)
            if isinstance(command, click.Group)
            else None
        )
        if found is None:
            break
        command = found
    own = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    return {*own, *(word for word in words if word.startswith("--"))}


def by_two(work: Callable[[], object]) -> list[int | None]:
    """Call ``work`` in two processes that find each other as those of a launcher do; returns how
    they ended.

    They are forked, as to start Python and import everything takes far longer than most work.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}

    def one(rank: int) -> None:
        os.environ.update(address, WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank))
        work()

    started = [get_context("fork").Process(target=one, args=(rank,)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=600)
        process.kill()  # which does nothing to one that has ended
        process.join()
    return [process.exitcode for process in started]


def commands(
    group: click.Group = main, prefix: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += commands(command, (*prefix, name))
        else:
            found.append(((*prefix, name), command))
    return found


def pictures(seed: int = 0, count: int = 10) -> PictureSet:
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 1, 8, 8), dtype=np.uint8)
    return PictureSet(
        torch.from_numpy(pixels), torch.zeros(count, 0), [f"{i}.png" for i in range(count)]
    )


def onnx_mean(path: Path, size: int) -> None:
    """The smallest ONNX file that says something: the mean of all pixels."""
    path.write_bytes(mean(size))


def trainer(
    generator: Generator, steps: int = 30, photos: PictureSet | None = None, seed: int = 0
) -> EncoderTrainer:
    perceptual = DiscriminatorDistance(tiny_discriminator())
    curvature = Curvature.of(
        generator, ReconstructionLoss(perceptual), WStatistics.of(generator), 32
    )
    return EncoderTrainer(
        generator, perceptual, curvature, EncoderTraining(steps, batch=8, seed=seed), photos=photos
    )
