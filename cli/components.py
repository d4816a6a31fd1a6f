"""``directions pca``, ``sefa``, ``channels``, ``name`` and ``sheet``: directions without labels, and a look at any."""

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
    model_option,
    progress_bar,
    read_model,
    say_written,
    seed_option,
)
from latentedit.errors import Error

if TYPE_CHECKING:
    from latentedit.directions import Direction
    from latentedit.networks.generator import Generator


SEEDS = "2,4,9"
"""Of the pictures on sheets: whole faces, of different light and with and without spectacles, of the bundled model."""


def look_options(amounts: str) -> Callable[[F], F]:
    """What the sheet of sweeps shows, by default ``amounts``."""

    def add(function: F) -> F:
        function = click.option("--psi", default=0.7, show_default=True, type=PSI, help="Truncation of the pictures.")(function)
        function = click.option("--seeds", default=SEEDS, show_default=True, help="Of the pictures on the sheet.")(function)
        text = "Sigmas on the sheet."
        return click.option("--amounts", default=amounts, show_default=True, metavar="FROM:TO:COUNT", help=text)(function)

    return add


def layers_option(function: F) -> F:
    return click.option("--layers", help="Rows of ws to look at and to move: 0-3, coarse, middle, fine.")(function)


def folder_option(function: F) -> F:
    return click.option("--out", type=click.Path(file_okay=False), required=True, help="Folder.")(function)


@click.command()
@click.option("--count", default=10, show_default=True, type=click.IntRange(1, 1000), help="Components.")
@click.option("--samples", default=100_000, show_default=True, type=click.IntRange(1, 10_000_000), help="Random w.")
@click.option("--layers", help="Rows of ws that they move: 0-3, coarse, middle, fine.")
@model_option()
@look_options("-3:3:7")
@folder_option
@seed_option
@device_option
def pca(
    count: int,
    samples: int,
    layers: str | None,
    model_name: str,
    amounts: str,
    seeds: str,
    psi: float,
    out: str,
    seed: int,
    device: str,
) -> None:
    """Find directions along which random w spread most (GANSpace); no labels needed.

    Written are pc-00.safetensors and so on, and sheet.png, on which one sees what they do; "directions name" names them.

    \b
    Example:
      latentedit directions pca --count 10 --out components
    """
    from latentedit.directions import principal_components

    look = _look(amounts, seeds)
    generator = read_model(model_name, device).generator
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
@click.option("--count", default=10, show_default=True, type=click.IntRange(1, 1000), help="Directions.")
@layers_option
@model_option()
@look_options("-3:3:7")
@folder_option
@device_option
def sefa(count: int, layers: str | None, model_name: str, amounts: str, seeds: str, psi: float, out: str, device: str) -> None:
    """Find directions that move the styles most (SeFa); no labels needed.

    Written are sefa-00.safetensors and so on, and sheet.png, on which one sees what they do; "directions name" names them.

    \b
    Example:
      latentedit directions sefa --layers 0-3 --out components
    """
    from latentedit.directions import factorised

    look = _look(amounts, seeds)
    generator = read_model(model_name, device).generator
    _write(generator, factorised(generator, count, layers=_rows(layers, generator)), look, psi, Path(out))


@click.command()
@click.option("--count", default=20, show_default=True, type=click.IntRange(1, 1000), help="Channels.")
@click.option(
    "--samples", default=32, show_default=True, type=click.IntRange(1, 100_000), help="Random pictures to measure them on."
)
@click.option(
    "--amount",
    default=3.0,
    show_default=True,
    type=Finite(-LARGEST_AMOUNT, LARGEST_AMOUNT),
    help="Sigmas by which they are moved for that.",
)
@click.option("--layers", help="Rows of ws whose styles to look at: 0-3, coarse, middle, fine.")
@model_option()
@look_options("-8:8:7")
@folder_option
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
    """Find style channels that change one place (StyleSpace); no labels needed.

    Written are s-LAYER-CHANNEL.safetensors and sheet.png, on which one sees what they do; "directions name" names them.

    \b
    Example:
      latentedit directions channels --count 20 --out channels
    """
    from latentedit.directions import style_channels

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
            samples=samples,
            amount=amount,
            psi=psi,
            seed=seed,
            layers=_rows(layers, generator),
            progress=report,
        )
    _write(generator, found, look, psi, Path(out))


@click.command()
@click.argument("file", metavar="FILE")
@click.argument("name")
@click.option("--flip", is_flag=True, help="The other way round.")
@click.option("--layers", help="Rows of ws that it moves: 0-3, coarse, middle, fine; by default as before.")
@model_option(None)
@click.option("--out", type=click.Path(), help="Direction file (.safetensors); by default NAME in your folder.")
@click.option("--force", is_flag=True, help="Take a name that is in use.")
def name(file: str, name: str, flip: bool, layers: str | None, model_name: str | None, out: str | None, force: bool) -> None:
    """Call the component in FILE by a NAME, and keep it among your directions.

    Your folder is LATENTEDIT_DIRECTIONS, or ~/.latentedit/directions; "latentedit edit --set NAME=2" finds it there.

    \b
    Example:
      latentedit directions name components/pc-03.safetensors beard --flip --layers 4-9
    """
    from latentedit.directions.direction import renamed
    from latentedit.directions.registry import free_path, load_direction

    if out is not None and not out.endswith(".safetensors"):
        raise Error(f"--out must end in .safetensors, got {out}")
    direction = load_direction(file)
    rows = _rows(layers, read_model(model_name or _bundled(direction), "cpu").generator) if layers else None
    direction = renamed(direction, name, flip=flip, layers=rows)
    path = free_path(direction, out, force=force)
    direction.save(path)
    say_written(path)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE...")
@click.option("--latent", "latent_file", metavar="FILE", help="Picture to start from, instead of random ones.")
@click.option("--hold", metavar="NAME,...", help="Keep these scores.")
@model_option(None)
@look_options("-3:3:7")
@click.option("--out", type=click.Path(), required=True, help="Picture.")
@click.option("--force", is_flag=True, help="Accept a latent and directions of another generator.")
@device_option
def sheet(
    names: tuple[str, ...],
    latent_file: str | None,
    hold: str | None,
    model_name: str | None,
    amounts: str,
    seeds: str,
    psi: float,
    out: str,
    force: bool,
    device: str,
) -> None:
    """Draw what directions do, a row each: random pictures, or a latent's, moved by some sigmas.

    \b
    Example:
      latentedit directions sheet smile turn --amounts -3:3:7 --out sweeps.png
    """
    from latentedit.cli.moves import direction_for, model_for
    from latentedit.directions import load_direction, sweep_sheet
    from latentedit.formats.load_latent import load_latent
    from latentedit.io.images import save_image

    steps, numbers = _look(amounts, seeds)
    latent = load_latent(latent_file) if latent_file else None
    model = (
        model_for(latent, model_name, device, force)
        if latent is not None
        else read_model(model_name or _bundled(load_direction(names[0])), device)
    )
    directions = [direction_for(name, model, force) for name in names]
    held = [direction_for(name, model, force) for name in hold.split(",")] if hold else []
    picture = sweep_sheet(model.generator, directions, steps, seeds=numbers, psi=psi, latent=latent, hold=held)
    save_image(picture, out)
    say_written(out)


def _bundled(direction: "Direction") -> str:
    """Name of the model that ``direction`` was found on."""
    from latentedit.model.bundled import bundled_with

    found = bundled_with(direction.fingerprint)
    if found is None:
        raise Error(f"direction {direction.name} needs the generator {direction.fingerprint[:12]}; name its file with --model")
    return found


def _rows(layers: str | None, generator: "Generator") -> tuple[int, int] | None:
    from latentedit.latent.editing import parse_layers

    return parse_layers(layers, generator.num_ws) if layers else None


def _look(amounts: str, seeds: str) -> tuple[list[float], list[int]]:
    """Amounts and seeds of a sheet."""
    from latentedit.cli.models import parse_seeds
    from latentedit.cli.moves import parse_amounts

    numbers = parse_seeds(seeds)
    if len(numbers) > 20:
        raise Error(f"a sheet shows at most 20 seeds, got {len(numbers)}")
    return parse_amounts(amounts, "--amounts takes FROM:TO:COUNT"), numbers


def _write(
    generator: "Generator", found: Sequence["Direction"], look: tuple[list[float], list[int]], psi: float, folder: Path
) -> None:
    from latentedit.directions import sweep_sheet
    from latentedit.directions.sweeps import title
    from latentedit.io.images import own_path, save_image

    for direction in found:
        direction.save(folder / f"{direction.name}.safetensors")
        click.echo(title(direction))
    drawn = own_path(folder / "sheet.png", "directions")
    save_image(sweep_sheet(generator, found, look[0], seeds=look[1], psi=psi), drawn)
    say_written(drawn)
