"""``directions refine``: improve a slider with classifiers of labelled photos."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.cli.common import (
    MOST,
    crop_options,
    device_option,
    model_option,
    print_facts,
    progress_bar,
    read_model,
    say,
    say_written,
)
from latentedit.cli.fitting import MIRRORING, label_options, read_pictures
from latentedit.cli.reports import own_direction
from latentedit.errors import ArgumentError, NotFoundError

if TYPE_CHECKING:
    from latentedit.directions.labels import TextLabels


@click.command()
@click.argument("name", metavar="NAME|FILE")
@click.argument("table", metavar="CSV|FOLDER", type=click.Path())
@label_options
@click.option(
    "--mirror",
    type=click.Choice(["none", "keep", "swap"]),
    default="keep",
    show_default=True,
    help=f"{MIRRORING}.",
)
@click.option(
    "--hold",
    multiple=True,
    metavar="COLUMN",
    help="Column whose attribute should not change. Repeatable.",
)
@click.option(
    "--light/--no-light",
    "hold_light",
    default=True,
    show_default=True,
    help="Keep the brightness (mean grey value) constant.",
)
@click.option(
    "--layers", help="Layers to edit: 0-3, coarse, middle or fine (default: the direction's own)."
)
@click.option(
    "--steps",
    default=150,
    show_default=True,
    type=click.IntRange(1, MOST),
    help="Optimisation steps.",
)
@click.option(
    "--batch",
    default=12,
    show_default=True,
    type=click.IntRange(1, MOST),
    help="Images per step, each edited in both directions.",
)
@model_option()
@crop_options
@click.option(
    "--out", type=click.Path(dir_okay=False), required=True, help="Direction file (.safetensors)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_option
def refine(
    name: str,
    table: str,
    column: str | None,
    positive: tuple[str, ...],
    negative: tuple[str, ...],
    group: str | None,
    exclude: tuple[str, ...],
    mirror: str,
    hold: tuple[str, ...],
    hold_light: bool,
    layers: str | None,
    steps: int,
    batch: int,
    model_name: str,
    crop: str | None,
    aligned: bool,
    out: str,
    as_json: bool,
    device: str,
) -> None:
    """Optimise the step of a direction in every layer, so that edited images change in the
    attribute and in little else.

    The labelled photos (or the images of labelled latents) train classifiers. These rate images
    edited in both directions, and the steps are optimised for their answers. The score stays the
    same, and an amount of 1 still changes it by one sigma. Without --negative, every value other
    than --positive counts as negative. Takes about two minutes on two cores.

    \b
    Example:
      latentedit directions refine turn photos.csv --column pose --positive left --negative right
          --aligned --out t.safetensors
      latentedit directions refine hat.safetensors samples/labels.csv --column hat --out
          hat-refined.safetensors
      latentedit directions refine beard photos.csv --column beard --hold pose --layers 0-5
          --aligned --out beard.safetensors
    """
    import numpy as np
    import torch

    from latentedit.directions import PhotoScores, RefineOptions
    from latentedit.directions import refine as refined
    from latentedit.directions.labels import read_texts
    from latentedit.latent.layers import parse_layers

    if not out.endswith(".safetensors"):
        raise ArgumentError(f"--out must end in .safetensors, got {out}")

    model = read_model(model_name, device)
    if model.discriminator is None:
        raise NotFoundError(
            f"{model.path}: has no discriminator, whose features are needed to classify photos"
        )

    direction = own_direction(name, model)
    if layers:
        direction = replace(direction, layers=parse_layers(layers, model.generator.num_ws))

    asked = read_texts(table, column, group=group, exclude=exclude)
    others = [read_texts(table, one, group=group, exclude=exclude) for one in hold]
    paths = sorted({path for texts in (asked, *others) for path in texts.paths})
    crops = read_pictures(paths, model, crop, aligned)

    def labelled(
        texts: "TextLabels", yes: tuple[str, ...], opposite: tuple[str, ...] | None = None
    ) -> tuple[Any, Any]:
        """Return photos and 0 or 1; with ``opposite`` also their mirror images, for which those
        values mean yes."""
        found = texts.numbers(yes).only(set(crops))
        images = torch.cat([crops[path] for path in found.paths])
        if opposite is None:
            return images, found.values
        return torch.cat([images, images.flip(3)]), np.concatenate(
            [found.values, texts.numbers(opposite).only(set(crops)).values]
        )

    def swapped(yes: tuple[str, ...], no: tuple[str, ...]) -> tuple[str, ...] | None:
        return {"none": None, "keep": yes, "swap": no}[mirror]

    if negative and not positive:
        raise ArgumentError("--negative needs --positive")
    if mirror == "swap" and not negative:
        raise ArgumentError("--mirror swap exchanges --positive and --negative, and needs both")

    ends = [labelled(asked, positive, swapped(positive, negative))]
    if negative:
        ends.append(labelled(asked, negative, swapped(negative, positive)))

    stay = [labelled(texts, values) for texts in others for values in _answers(texts)]
    with progress_bar(None, "training classifiers", "image") as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        scores = PhotoScores(model.discriminator, ends, stay, report)

    with progress_bar(steps, "refining", "step") as bar:
        found = refined(
            direction,
            model.generator,
            scores,
            RefineOptions(steps=steps, batch=batch, hold_light=hold_light),
            discriminator=model.discriminator,
            progress=lambda done, _: bar.update(done - bar.n),
        )

    provenance = {
        "refined_on": Path(table).name,
        "refined_column": asked.attribute,
        "refined_positive": list(positive),
        "refined_negative": list(negative),
        "refined_held": list(hold),
    }
    found.provenance.update(provenance)
    found.save(out)
    if as_json:
        print_facts({"name": found.name, "report": found.report, "written": out}, as_json)
        return
    say(f"{found.name}: its step is {found.report['refined_length']:g} times as long as before")
    say_written(out)


def _answers(texts: "TextLabels") -> list[tuple[str, ...]]:
    """Return the values that get a classifier each: one of two, or all of several."""
    values = sorted(set(texts.texts))
    return [(value,) for value in (values[1:] if len(values) == 2 else values)]
