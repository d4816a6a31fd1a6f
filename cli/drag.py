"""``drag``: move points of an image to other places."""

import json
from contextlib import closing
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentedit.cli import log
from latentedit.cli.common import (
    MOST,
    WEIGHT,
    Finite,
    device_option,
    model_option,
    parse_numbers,
    progress_bar,
    say,
    say_video,
    say_written,
)
from latentedit.cli.moves import model_for
from latentedit.errors import ArgumentError, Interrupted
from latentedit.io import outputs

if TYPE_CHECKING:
    from collections import abc

    from latentedit.latent.dragging import Drag, DragStep, Handle
    from latentedit.latent.latent_file import Latent
    from latentedit.networks.generator import Generator

FRAMES = 48
"""Images of a video at most; drawing all of a long drag would take longer than the drag."""


@click.command()
@click.argument("latent", metavar="LATENT")
@model_option(None)
@click.option(
    "--from",
    "starts",
    multiple=True,
    required=True,
    metavar="X,Y",
    help="Point to move, in pixels; 0,0 is the upper left pixel. Repeatable.",
)
@click.option(
    "--to",
    "targets",
    multiple=True,
    required=True,
    metavar="X,Y",
    help="Where the point shall go: one --to for every --from, in the same order. A point whose"
    " --to is its --from is held.",
)
@click.option(
    "--mask",
    metavar="FILE",
    help="Image of the same size as the model's images: white pixels may change, black ones are"
    " held.",
)
@click.option(
    "--steps",
    type=click.IntRange(1, MOST),
    default=100,
    show_default=True,
    help="Steps at most; the search ends when every point is within 2 pixels of its target, or"
    " when 25 steps brought them no nearer.",
)
@click.option(
    "--by",
    type=click.Choice(["auto", "landmarks", "features"]),
    default="auto",
    show_default=True,
    help="What is followed: landmarks of the face, moved by the sliders of the model, or features"
    " of the network. auto follows landmarks where all points are on a face and no mask, layers,"
    " weight or radius is given.",
)
@click.option(
    "--layers",
    metavar="LAYERS",
    help="Layers whose w may change, such as 0-5 (default: the first six).",
)
@click.option(
    "--mask-weight",
    type=WEIGHT,
    default=1.0,
    show_default=True,
    help="Weight that keeps the masked part as it is.",
)
@click.option(
    "--prior-weight",
    type=WEIGHT,
    default=0.0,
    show_default=True,
    help="Weight that keeps w near its start.",
)
@click.option(
    "--motion-radius",
    type=Finite(0, 1000),
    help="Radius in pixels of the region around a point that moves along.",
)
@click.option(
    "--tracking-radius",
    type=Finite(1, 1000),
    help="Distance in pixels at which a point is looked for after every step.",
)
@click.option(
    "--gif",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Also write the way as a video: .gif, .mp4 or .webm.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    help="Image to write; the latent gets the same name and .safetensors (default:"
    " NAME-dragged.png next to LATENT).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--force", is_flag=True, help="Accept a latent of another generator.")
@device_option
def drag(
    latent: str,
    model_name: str | None,
    starts: tuple[str, ...],
    targets: tuple[str, ...],
    mask: str | None,
    steps: int,
    by: str,
    layers: str | None,
    mask_weight: float,
    prior_weight: float,
    motion_radius: float | None,
    tracking_radius: float | None,
    gif: str | None,
    out: str | None,
    as_json: bool,
    force: bool,
    device: str,
) -> None:
    """Move points of the image of LATENT to other places: drag the nose aside, and the
    head turns.

    It writes the image, and a latent file for further edits. Points on a face follow its landmarks
    (pip install "latentedit[faces]"), and the sliders of the model bring them to their targets.
    Otherwise, the search changes w in the first layers, which set shape and pose, until every point
    is within 2 pixels of its target (DragGAN, Pan et al. 2023). Noise maps, a tuned generator and
    style offsets of LATENT are kept. Ctrl-C ends the search and writes what was reached.

    \b
    Example:
      latentedit drag latents/me.safetensors --from 64,78 --to 72,78 --out turned.png
      latentedit drag latents/me.safetensors --from 64,101 --to 64,106 --from 64,92 --to 64,92
          --out open-mouth.png
      latentedit drag latents/me.safetensors --from 64,78 --to 74,78 --mask face.png --gif way.gif
    """
    from latentedit.directions.face_drag import goes_by_landmarks
    from latentedit.formats.load_latent import load_latent
    from latentedit.io.images import check_picture, save_image
    from latentedit.io.video import ENDINGS, save_video
    from latentedit.latent.dragging import DragOptions, drag_steps, finished, nearer, read_mask
    from latentedit.latent.latent_file import save_latent
    from latentedit.photo.landmarks import EXTRA

    handles = _handles(starts, targets)
    options = DragOptions(
        steps=steps,
        layers=layers,
        mask_weight=mask_weight,
        prior_weight=prior_weight,
        motion_radius=motion_radius,
        tracking_radius=tracking_radius,
    )
    if gif is not None and Path(gif).suffix.lower() not in ENDINGS:
        raise ArgumentError(
            f"{gif}: --gif takes a name that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
        )

    source = Path(latent)
    outputs.given(source)
    found = load_latent(source)
    image_file = _free_place(source) if out is None else Path(out)
    latent_file = image_file.with_suffix(".safetensors")
    if image_file == latent_file:
        image_file = latent_file.with_suffix(".png")
    check_picture(image_file)
    outputs.check(latent_file)

    model = model_for(found, model_name, device, force)
    generator = model.generator
    held = None if mask is None else read_mask(mask, generator.image_size)
    if by == "landmarks" and not goes_by_landmarks(options, held):
        raise ArgumentError("--by landmarks takes no mask, layers, weight or radius")
    moves = None
    if by != "features" and goes_by_landmarks(options, held):
        moves = _by_landmarks(generator, found, handles, steps)
    if by == "landmarks" and moves is None:
        raise ArgumentError(
            "--by landmarks needs points on a face, sliders of the model, enough --steps, and"
            f" {EXTRA}"
        )
    followed = "features" if moves is None else "landmarks"
    moves = moves or drag_steps(generator, found, handles, options, held)
    way: list[DragStep] = []
    with closing(moves), progress_bar(None, "dragging") as bar:
        interrupted = False
        try:
            for step in moves:
                way.append(step)
                bar.total = step.total
                bar.update(step.number - bar.n)
                bar.set_postfix_str(f"{max(step.distances):.1f} px left", refresh=False)
        except KeyboardInterrupt:
            interrupted = bool(way)
            if not interrupted:
                raise
    best = reduce(nearer, way[1:], way[0])
    more_may_help = followed == "features" and way[-1].number == steps
    way = way[: best.number + 1]
    result = finished(found, handles, best)
    image = result.latent.render(generator)
    save_image(image, image_file)
    save_latent(latent_file, result.latent)
    if gif is not None:
        places = [step.ws for step in way[:: max(len(way) // FRAMES, 1)]]
        if followed == "landmarks":  # which stays while it measures, and then takes few large steps
            parts = range(FRAMES // 2)
            places = [way[0].ws.lerp(best.ws, part / len(parts)) for part in parts]
        frames = [replace(found, ws=ws).render(generator) for ws in places]
        say_video(save_video(gif, [*frames, *[image] * 12], fps=12), gif)
    _report(
        result,
        handles,
        [image_file, latent_file, *([Path(gif)] if gif is not None else [])],
        as_json,
        more_may_help,
        followed,
    )
    if interrupted:
        raise Interrupted("interrupted; what was reached is written")


def _by_landmarks(
    generator: "Generator", latent: "Latent", handles: "list[Handle]", steps: int
) -> "abc.Generator[DragStep, None, None] | None":
    """Return the steps of a drag that follows the landmarks of a face; None where it cannot."""
    from latentedit.directions.face_drag import face_drag, guide_for

    guide = guide_for(generator)
    return None if guide is None else face_drag(generator, latent, handles, guide, steps)


def _handles(starts: tuple[str, ...], targets: tuple[str, ...]) -> "list[Handle]":
    from latentedit.latent.dragging import Handle

    if len(starts) != len(targets):
        raise ArgumentError(
            f"every --from needs a --to: got {len(starts)} --from and {len(targets)} --to"
        )
    pairs = zip(starts, targets, strict=True)
    return [Handle(_point(start, "--from"), _point(target, "--to")) for start, target in pairs]


def _point(text: str, option: str) -> tuple[float, float]:
    x, y = parse_numbers(text, 2, option)
    return x, y


def _free_place(source: Path) -> Path:
    """Return NAME-dragged.png, or NAME-dragged-2.png and so on, so that the result of another drag
    stays."""
    number = 1
    while True:
        place = source.with_name(f"{source.stem}-dragged{f'-{number}' if number > 1 else ''}.png")
        if not place.exists() and not place.with_suffix(".safetensors").exists():
            return place
        number += 1


def _report(
    result: "Drag",
    handles: "list[Handle]",
    files: list[Path],
    as_json: bool,
    more_may_help: bool,
    followed: str,
) -> None:
    if as_json:
        points = zip(handles, result.points, result.distances, strict=True)
        facts = {
            "steps": result.steps,
            "arrived": result.arrived,
            "followed": followed,
            "handles": [
                {
                    "from": handle.start,
                    "to": handle.target,
                    "at": point,
                    "distance": round(distance, 3),
                }
                for handle, point, distance in points
            ],
            "files": [str(file) for file in files],
        }
        click.echo(json.dumps(facts))
        return
    for handle, distance in zip(handles, result.distances, strict=True):
        ends = " to ".join(f"{x:g},{y:g}" for x, y in (handle.start, handle.target))
        say(f"{ends}: {distance:.1f} pixels from the target after {result.steps} steps")
    log.remark(f"followed: {followed}")
    if not result.arrived:
        log.remark(
            "not all points arrived: this is the nearest step. The model may know no such image."
            " Nearer targets or more white in --mask may help"
            + (", and so may more --steps" if more_may_help else "")
        )
    for file in files:
        say_written(file)
