"""``directions pca``, ``sefa``, ``channels``, ``name`` and ``sheet``: directions without labels,
and contact sheets."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentedit.cli.common import (
    LARGEST_AMOUNT,
    PSI,
    F,
    Finite,
    device_option,
    megapixels_option,
    model_option,
    progress_bar,
    read_model,
    rendering_bar,
    say_written,
    seed_option,
)
from latentedit.cli.photos import Inverting, Sources, photo_options
from latentedit.cli.sample import class_option, generator_of
from latentedit.errors import ArgumentError

if TYPE_CHECKING:
    from latentedit.directions import Direction
    from latentedit.networks.generator import Generator


SEEDS = "2,4,9"
"""Seeds of the images on sheets: in-domain faces of the bundled model, in different light, with and
without glasses."""


def look_options(amounts: str) -> Callable[[F], F]:
    """Return what the sheet of sweeps shows, by default ``amounts``."""

    def add(function: F) -> F:
        function = click.option(
            "--psi", default=0.7, show_default=True, type=PSI, help="Truncation of the images."
        )(function)
        function = click.option(
            "--seeds", default=SEEDS, show_default=True, help="Seeds of the images on the sheet."
        )(function)
        text = "Amounts on the sheet, in sigmas."
        return click.option(
            "--amounts", default=amounts, show_default=True, metavar="FROM:TO:COUNT", help=text
        )(function)

    return add


def layers_option(function: F) -> F:
    return click.option(
        "--layers", help="Layers to analyse and to edit: 0-3, coarse, middle or fine."
    )(function)


def out_folder_option(function: F) -> F:
    return click.option(
        "--out", type=click.Path(file_okay=False), required=True, help="Output folder."
    )(function)


@click.command()
@click.option(
    "--count",
    default=10,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Number of components.",
)
@click.option(
    "--samples",
    default=100_000,
    show_default=True,
    type=click.IntRange(1, 10_000_000),
    help="Number of random w.",
)
@click.option("--layers", help="Layers that the directions edit: 0-3, coarse, middle or fine.")
@class_option
@model_option()
@look_options("-3:3:7")
@out_folder_option
@seed_option
@device_option
def pca(
    count: int,
    samples: int,
    layers: str | None,
    label: str | None,
    model_name: str,
    amounts: str,
    seeds: str,
    psi: float,
    out: str,
    seed: int,
    device: str,
) -> None:
    """Find the principal components of w (GANSpace). Needs no labels.

    Writes pc-00.safetensors, pc-01.safetensors, ... and sheet.png, which shows what they do. Use
    "directions name" to name one.

    \b
    Example:
      latentedit directions pca --count 10 --out components
    """
    from latentedit.directions import principal_components

    look = _look(amounts, seeds)
    generator = generator_of(read_model(model_name, device), label)
    with progress_bar(samples, "sampling", "w", scale=True) as bar:
        found = principal_components(
            generator,
            count,
            samples=samples,
            seed=seed,
            layers=_rows(layers, generator),
            progress=lambda done, _: bar.update(done - bar.n),
        )

    _write(generator, found, look, psi, Path(out))


@click.command()
@click.option(
    "--count",
    default=10,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Number of directions.",
)
@layers_option
@model_option()
@look_options("-3:3:7")
@out_folder_option
@device_option
def sefa(
    count: int,
    layers: str | None,
    model_name: str,
    amounts: str,
    seeds: str,
    psi: float,
    out: str,
    device: str,
) -> None:
    """Find the directions that change the styles most (SeFa). Needs no labels.

    Writes sefa-00.safetensors, sefa-01.safetensors, ... and sheet.png, which shows what they do.
    Use "directions name" to name one.

    \b
    Example:
      latentedit directions sefa --layers 0-3 --out components
    """
    from latentedit.directions import factorised

    look = _look(amounts, seeds)
    generator = read_model(model_name, device).generator
    _write(
        generator,
        factorised(generator, count, layers=_rows(layers, generator)),
        look,
        psi,
        Path(out),
    )


@click.command()
@click.option(
    "--count",
    default=20,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Number of channels.",
)
@click.option(
    "--samples",
    default=32,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Random images to measure them on.",
)
@click.option(
    "--amount",
    default=3.0,
    show_default=True,
    type=Finite(-LARGEST_AMOUNT, LARGEST_AMOUNT),
    help="Amount by which the measurement moves them, in sigmas.",
)
@click.option("--layers", help="Layers whose channels to analyse: 0-3, coarse, middle or fine.")
@model_option()
@look_options("-8:8:7")
@out_folder_option
@seed_option
@device_option
def channels(
    count: int,
    samples: int,
    amount: float,
    layers: str | None,
    model_name: str,
    amounts: str,
    seeds: str,
    psi: float,
    out: str,
    seed: int,
    device: str,
) -> None:
    """Find style channels with a local effect (StyleSpace). Needs no labels.

    Writes s-LAYER-CHANNEL.safetensors files and sheet.png, which shows what they do. Use
    "directions name" to name one.

    \b
    Example:
      latentedit directions channels --count 20 --out channels
    """
    from latentedit.directions import style_channels
    from latentedit.directions.channels import Sampling

    look = _look(amounts, seeds)
    model = read_model(model_name, device)
    generator = model.generator
    with progress_bar(1, "measuring", "step") as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = style_channels(
            generator,
            count,
            discriminator=model.discriminator,
            sampling=Sampling(samples, amount, psi, seed),
            layers=_rows(layers, generator),
            progress=report,
        )

    _write(generator, found, look, psi, Path(out))


@click.command()
@click.argument("file", metavar="FILE")
@click.argument("name")
@click.option("--flip", is_flag=True, help="Reverse the direction.")
@click.option(
    "--layers", help="Layers that it edits: 0-3, coarse, middle or fine (default: unchanged)."
)
@model_option(None)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    help="Direction file (.safetensors) (default: NAME in your folder).",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace your direction of the same name, or hide the bundled one.",
)
def name(
    file: str,
    name: str,
    flip: bool,
    layers: str | None,
    model_name: str | None,
    out: str | None,
    force: bool,
) -> None:
    """Give the direction in FILE a NAME and copy it to your directions folder.

    The folder is LATENTEDIT_DIRECTIONS, or ~/.latentedit/directions. "latentedit edit --set NAME=2"
    finds the direction there.

    \b
    Example:
      latentedit directions name components/pc-03.safetensors beard --flip --layers 4-9
    """
    from latentedit.directions.direction import renamed
    from latentedit.directions.registry import load_direction, storage_path

    if out is not None and not out.endswith(".safetensors"):
        raise ArgumentError(f"--out must end in .safetensors, got {out}")
    direction = load_direction(file)
    rows = (
        _rows(layers, read_model(model_name or _bundled(direction), "cpu").generator)
        if layers
        else None
    )
    direction = renamed(direction, name, flip=flip, layers=rows)
    path = storage_path(direction, out, force=force)
    direction.save(path)
    say_written(path)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE...")
@click.option(
    "--latent",
    "latent_file",
    metavar="FILE",
    help="Latent or photo to start from, instead of random ones.",
)
@click.option("--hold", metavar="NAME,...", help="Directions whose scores must not change.")
@class_option
@model_option(None)
@look_options("-3:3:7")
@click.option("--out", type=click.Path(), required=True, help="Image to write.")
@click.option("--force", is_flag=True, help="Accept a latent and directions of another generator.")
@photo_options
@megapixels_option
@device_option
def sheet(
    names: tuple[str, ...],
    latent_file: str | None,
    hold: str | None,
    label: str | None,
    model_name: str | None,
    amounts: str,
    seeds: str,
    psi: float,
    out: str,
    force: bool,
    device: str,
    inverting: Inverting,
) -> None:
    """Draw a contact sheet of directions, one per row, applied to random images or to a latent.

    \b
    Example:
      latentedit directions sheet smile turn --amounts -3:3:7 --out sweeps.png
      latentedit directions sheet smile turn --latent me.jpg --out mine.png
    """
    from latentedit.cli.moves import direction_for
    from latentedit.directions import load_direction, sweep_sheet
    from latentedit.io.images import save_image

    steps, numbers = _look(amounts, seeds)
    if latent_file and label is not None:
        raise ArgumentError("--class goes with random faces, not with --latent")
    sources = Sources(model_name, device, inverting, force=force)
    files = [Path(latent_file)] if latent_file else []
    sources.prepare(files)
    opened = [sources.open(path) for path in files]
    latent = opened[0].latent if opened else None
    if opened:
        model = opened[0].model
    else:
        model = read_model(model_name or _bundled(load_direction(names[0])), device)
    directions = [direction_for(name, model, force) for name in names]
    held = [direction_for(name, model, force) for name in hold.split(",")] if hold else []
    count = len(directions) * len(steps) * (1 if latent is not None else len(numbers))
    with rendering_bar(count) as rendered:
        picture = sweep_sheet(
            generator_of(model, label),
            directions,
            steps,
            seeds=numbers,
            psi=psi,
            latent=latent,
            hold=held,
            progress=lambda *_: rendered(),
        )
    save_image(picture, out)
    say_written(out)


def _bundled(direction: "Direction") -> str:
    """Return the bundled model that ``direction`` belongs to, or the file that it was last read
    from."""
    from latentedit.cli.moves import known_model

    return known_model(direction.fingerprint, f"direction {direction.name}")


def _rows(layers: str | None, generator: "Generator") -> tuple[int, int] | None:
    from latentedit.latent.layers import parse_layers

    return parse_layers(layers, generator.num_ws) if layers else None


def _look(amounts: str, seeds: str) -> tuple[list[float], list[int]]:
    """Amounts and seeds of a sheet."""
    from latentedit.cli.moves import parse_amounts
    from latentedit.cli.sample import parse_seeds

    numbers = parse_seeds(seeds)
    if len(numbers) > 20:
        raise ArgumentError(f"a sheet shows at most 20 seeds, got {len(numbers)}")
    return parse_amounts(amounts, "--amounts takes FROM:TO:COUNT"), numbers


def _write(
    generator: "Generator",
    found: Sequence["Direction"],
    look: tuple[list[float], list[int]],
    psi: float,
    folder: Path,
) -> None:
    from latentedit.directions import sweep_sheet
    from latentedit.directions.sweeps import title
    from latentedit.io.images import own_path, save_image

    for direction in found:
        direction.save(folder / f"{direction.name}.safetensors")
        click.echo(title(direction))
    drawn = own_path(folder / "sheet.png", "directions")
    steps, seeds = look
    with rendering_bar(len(found) * len(steps) * len(seeds)) as rendered:
        picture = sweep_sheet(
            generator, found, steps, seeds=seeds, psi=psi, progress=lambda *_: rendered()
        )
    save_image(picture, drawn)
    say_written(drawn)
