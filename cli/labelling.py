"""``directions sample`` and ``directions label``: random images, and labelling by hand."""

import re
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.cli.common import (
    PSI,
    SEED,
    device_option,
    model_option,
    progress_bar,
    read_model,
    say_written,
    seed_option,
)
from latentedit.cli.sample import class_option, generator_of
from latentedit.errors import DataError, Interrupted

if TYPE_CHECKING:
    from latentedit.directions.labelling.session import Labelling


@click.command()
@click.option(
    "--count",
    type=click.IntRange(1, 10_000),
    default=200,
    show_default=True,
    help="Number of samples.",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME",
    help="Attribute to label; adds a column. Repeatable.",
)
@click.option(
    "--psi",
    default=1.0,
    show_default=True,
    type=PSI,
    help="Truncation: 1 means none, smaller values give more typical images.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=SEED,
    help="Seed of the first sample; the others count up.",
)
@class_option
@model_option()
@click.option(
    "--out", type=click.Path(), required=True, help="Folder for images, latents and labels.csv."
)
@device_option
def sample(
    count: int,
    attributes: tuple[str, ...],
    psi: float,
    seed: int,
    label: str | None,
    model_name: str,
    out: str,
    device: str,
) -> None:
    """Generate random samples to label: images, latents, a contact sheet, and labels.csv with empty
    columns.

    \b
    Example:
      latentedit directions sample --count 200 --attribute beard --attribute smile --psi 0.8 --out
          samples
    """
    from latentedit.directions.labelling.samples import write_samples
    from latentedit.networks.fingerprint import fingerprint

    generator = generator_of(read_model(model_name, device), label)

    with progress_bar(count, "rendering", "image") as bar:
        table = write_samples(
            generator,
            fingerprint(generator),
            out,
            count,
            psi=psi,
            seed=seed,
            attributes=attributes,
            progress=lambda done, _: bar.update(done - bar.n),
        )

    say_written(table)
    click.echo(
        f"next: latentedit directions label {shlex.quote(str(table))} --column "
        f"{(*attributes, 'NAME')[0]}"
    )


@click.command()
@click.argument("table", metavar="CSV", type=click.Path())
@click.option("--column", required=True, help="Column for the labels; added if missing.")
@click.option(
    "--order",
    type=click.Choice(["uncertain", "file"]),
    default="uncertain",
    show_default=True,
    help="Start with the samples that a probe of the answers so far is least certain about, or "
    "follow the CSV.",
)
@seed_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the page (default: chosen by the system).",
)
@click.option("--no-browser", is_flag=True, help="Print the address, do not open a browser.")
def label(table: str, column: str, order: str, seed: int, port: int, no_browser: bool) -> None:
    """Label the samples of CSV by hand, on a web page that only this machine can open.

    CSV needs a "file" column with latent files or photos. A "picture" column names other images to
    show. Every answer is saved at once: Ctrl-C or a power failure loses nothing. Run the same
    command again to continue.

    \b
    Example:
      latentedit directions label samples/labels.csv --column beard
    """
    from latentedit.directions.labelling.session import labelled_alone

    with labelled_alone(table):
        labelling = _read(table, column, order, seed)
        if labelling.next() is None:
            count = len(labelling.samples)
            raise DataError(
                f"{table}: all {count} samples have a label in {column!r}; clear the labels that "
                "you want to change"
            )
        interrupted = _ask(labelling, port, not no_browser)

    reached = labelling.progress()
    click.echo(f"{column}: {reached.yes} yes, {reached.no} no, {reached.left} left")
    if min(reached.yes, reached.no) >= 2:
        click.echo(f"next: {fit_command(labelling, table)}")
    else:
        click.echo("a direction needs at least 2 of each; run the same command again to continue")

    if interrupted:
        raise Interrupted(f"interrupted; all answers are saved in {table}")


def _read(table: str, column: str, order: str, seed: int) -> "Labelling":
    """Read the table, with a progress bar."""
    from latentedit.directions.labelling.session import Labelling

    bars: list[Any] = []
    with ExitStack() as stack:

        def progress(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(progress_bar(total, "reading", "sample")))
            bars[0].update(done - bars[0].n)

        return Labelling(table, column, order=order, seed=seed, progress=progress)


def _ask(labelling: "Labelling", port: int, browser: bool) -> bool:
    """Serve the page until it is done, and return whether Ctrl-C ended it."""
    import webbrowser

    from latentedit.directions.labelling.desk import Desk
    from latentedit.studio.web.guard import doorway
    from latentedit.studio.web.server import Studio

    desk = Desk(labelling)

    def pages(studio: Studio) -> None:
        from latentedit.studio.web.labelling import build_labelling

        build_labelling(studio, desk)

    page = Studio(pages, port=port, title="latentedit")
    with ExitStack() as stack:

        def ready() -> None:
            done = "Its Done button, or Ctrl-C here, ends the program."
            click.echo(f"{page.address}\nOpen this page if your browser does not. {done}")
            if browser:
                webbrowser.open(stack.enter_context(doorway(page.address)))

        interrupted = page.run(ready)
        desk.settled()
        return interrupted


def fit_command(labelling: "Labelling", table: str) -> str:
    """Return the command that fits a direction to the labels."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", labelling.column).strip("-_") or "direction"
    words = ["latentedit", "directions", "fit", table, "--column", labelling.column]
    words += ["--name", name] if name != labelling.column else []
    if labelling.latents:
        from latentedit.formats.load_latent import load_latent
        from latentedit.model.bundled import bundled_with

        words += [
            "--model",
            bundled_with(load_latent(labelling.samples[0].path).fingerprint) or "MODEL",
        ]

    return shlex.join([*words, "--out", str(Path(f"{name}.safetensors"))])
