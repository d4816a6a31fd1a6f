"""``directions``: find, list and inspect edit directions."""

from pathlib import Path

import click

from latentedit.cli import components
from latentedit.cli.common import (
    MOST,
    device_option,
    model_option,
    print_facts,
    read_model,
    say,
    say_written,
)
from latentedit.cli.fitting import fit
from latentedit.cli.groups import Forgiving
from latentedit.cli.labelling import label, sample
from latentedit.cli.refining import refine
from latentedit.cli.reports import compare, condition, report


@click.group(cls=Forgiving)
def directions() -> None:
    """Find, list and inspect edit directions."""


@directions.command("import")
@click.argument("file", type=click.Path())
@click.option("--name", help="Name of the direction (default: the file's name).")
@click.option(
    "--component",
    type=click.IntRange(0, MOST),
    help="Component of a GANSpace file, counted from 0.",
)
@click.option("--layers", help="Layers that it edits: 0-3, coarse, middle or fine.")
@model_option()
@click.option("--out", type=click.Path(), required=True, help="Direction file (.safetensors).")
@device_option
def import_command(
    file: str,
    name: str | None,
    component: int | None,
    layers: str | None,
    model_name: str,
    out: str,
    device: str,
) -> None:
    """Import a published direction: a .npy, .npz or .pt of shape [D], [1, D], [L, D] or [1, L, D],
    or a GANSpace file.

    The vector is normalised and its sigma is measured on the model, so that amounts compare with
    those of other sliders.

    \b
    Example:
      latentedit directions import age.npy --model ffhq.pkl --out age.safetensors
    """
    from latentedit.directions import import_direction
    from latentedit.latent.layers import parse_layers

    generator = read_model(model_name, device).generator
    rows = parse_layers(layers, generator.num_ws) if layers else None
    direction = import_direction(
        file, generator, name or Path(file).stem, component=component, layers=rows
    )
    direction.save(out)
    click.echo(
        f"{direction.name}: space {direction.space}, norm was "
        f"{direction.provenance['original_norm']:.4g},"
        f" 1 sigma is {direction.sigma:.4g}"
    )
    say_written(out)


@directions.command("list")
@model_option(None)
def list_command(model_name: str | None) -> None:
    """List the available directions: your own and the bundled ones.

    \b
    Example:
      latentedit directions list --model faces128
    """
    from latentedit.directions.facts import read_facts
    from latentedit.directions.registry import own_directions, shipped
    from latentedit.errors import quoted
    from latentedit.formats.stated_fingerprint import fingerprint_of

    own = fingerprint_of(model_name) if model_name else None
    for where, table in (("yours", own_directions(own)), ("shipped", shipped(own))):
        for name, path in table.items():
            direction = read_facts(path)
            figure = next(
                (
                    f"{k} {quoted(direction.report[k])}"
                    for k in ("photo_auc", "auc", "r2")
                    if k in direction.report
                ),
                "",
            )
            say(
                f"{name:16} {where:8} {direction.space:3} {figure}  for generator "
                f"{direction.fingerprint[:12]}"
            )


@directions.command()
@click.argument("name", metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the origin and the quality figures of a direction.

    \b
    Example:
      latentedit directions show smile
    """
    from latentedit.directions.chance import doubts_about
    from latentedit.directions.facts import read_facts
    from latentedit.directions.registry import find_direction

    direction = read_facts(find_direction(name))
    facts = {
        "name": direction.name,
        "space": direction.space,
        "layers": direction.layers,
        "intercept": direction.intercept,
        "sigma": direction.sigma,
        "fingerprint": direction.fingerprint,
        "report": direction.report,
        "provenance": direction.provenance,
    }
    print_facts(facts, as_json)
    for sentence in () if as_json else doubts_about(direction.report):
        click.echo(sentence)


parts = (components.pca, components.sefa, components.channels, components.name, components.sheet)
for command in (fit, refine, sample, label, *parts, report, compare, condition):
    directions.add_command(command)
