"""``directions``: find, list and inspect edit directions."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentedit.cli import components, log, words
from latentedit.cli.common import (
    MOST,
    device_option,
    json_option,
    model_option,
    print_facts,
    read_model,
    say_written,
)
from latentedit.cli.fitting import fit
from latentedit.cli.groups import Forgiving
from latentedit.cli.labelling import label, sample
from latentedit.cli.refining import refine
from latentedit.cli.reports import compare, condition, report
from latentedit.cli.tables import say_table

if TYPE_CHECKING:
    from latentedit.directions.facts import DirectionFacts
    from latentedit.directions.meaning import Meaning


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
@click.option(
    "--out", type=click.Path(dir_okay=False), required=True, help="Direction file (.safetensors)."
)
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
@json_option
def list_command(model_name: str | None, as_json: bool) -> None:
    """List the sliders: your own directions and the bundled ones, with what negative and positive
    amounts mean, and how far is safe.

    \b
    Example:
      latentedit directions list --model faces128
    """
    from latentedit.directions.facts import read_facts
    from latentedit.directions.meaning import meaning_of, quality_of
    from latentedit.directions.registry import own_directions, shipped
    from latentedit.formats.stated_fingerprint import fingerprint_of

    own = fingerprint_of(model_name) if model_name else None
    found = []
    for where, files in (("yours", own_directions(own)), ("bundled", shipped(own))):
        for name, path in files.items():
            facts = read_facts(path)
            found.append((name, where, facts, meaning_of(path, facts), quality_of(facts)))

    if as_json:
        for name, where, facts, meaning, quality in found:
            row = {"name": name, "from": where, "space": facts.space, "quality": quality}
            row |= asdict(meaning) | {"fingerprint": facts.fingerprint}
            click.echo(json.dumps(row))
        return
    if not found:
        click.echo("no directions for this model")
        return
    rows = [
        (name, meaning.minus, meaning.plus, in_words(meaning), quality, _model_of(facts, where))
        for name, where, facts, meaning, quality in found
    ]
    say_table(rows, ("slider", "minus", "plus", "safe", "quality", "for"))
    log.remark(
        "safe: amounts at which nearly all pictures stay whole; quality: how well the score "
        "predicts held-out labels, 1 at best"
    )


def in_words(meaning: "Meaning") -> str:
    """Return the safe amounts of a slider, such as "-1.5 to 2.25", or ""."""
    if meaning.safe is None:
        return ""
    low, high = meaning.safe
    return f"{low:g} to {high:g}"


def _model_of(facts: "DirectionFacts", where: str) -> str:
    """Return the model of a direction: bundled, a file that was used before, or its fingerprint."""
    from latentedit.model.bundled import bundled_with
    from latentedit.model.remembered import remembered

    file = remembered(facts.fingerprint)
    other = file.name if file is not None else f"generator {facts.fingerprint[:12]}"
    name = bundled_with(facts.fingerprint) or other
    return f"{name} (yours)" if where == "yours" else name


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
for command in (fit, refine, words.from_text, sample, label, *parts, report, compare, condition):
    directions.add_command(command)
