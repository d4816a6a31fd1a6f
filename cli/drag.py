"""``drag``: move points of an image to other places."""

import json
from contextlib import closing
from dataclasses import dataclass, replace
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
from latentedit.cli.photos import Inverting, Sources, is_photo, photo_options
from latentedit.cli.sweeping import OWN, Pasted, Scene, paste_options
from latentedit.errors import ArgumentError, Interrupted
from latentedit.io import outputs

if TYPE_CHECKING:
    from collections import abc

    from torch import Tensor

    from latentedit.latent.dragging import Drag, DragStep, Handle
    from latentedit.latent.latent_file import Latent
    from latentedit.model.model import Model
    from latentedit.networks.generator import Generator
    from latentedit.photo.alignment import CropPixels

Point = tuple[float, float]

FRAMES = 48
"""Images of a video at most; drawing all of a long drag would take longer than the drag."""


@click.command()
@click.argument("source", metavar="PHOTO|LATENT", required=False)
@model_option(None)
@click.option(
    "--from",
    "starts",
    multiple=True,
    required=True,
    metavar="X,Y",
    help="Point to move, in pixels of PHOTO, or of the image of LATENT; 0,0 is the upper left"
    " pixel. Repeatable.",
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
    help="Also write the way as a video of the crop: .gif, .mp4 or .webm.",
)
@paste_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    help="Image to write; the latent gets the same name and .safetensors (default:"
    " NAME-dragged.png next to PHOTO or LATENT; with --paste-back, it ends as the photo does).",
)
@photo_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option(
    "--force",
    is_flag=True,
    help="Accept a latent of another generator, and a photo that does not match.",
)
@device_option
def drag(
    source: str | None,
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
    photo: str | None,
    difference: bool,
    feather: float,
    out: str | None,
    as_json: bool,
    force: bool,
    device: str,
    inverting: Inverting,
) -> None:
    """Move points of PHOTO or LATENT to other places: drag the nose aside, and the head turns.

    A PHOTO is inverted first, as by "latentedit edit". The result is the image of the crop, or with
    --paste-back the whole photo, and a latent file for further edits. Points on a face follow its
    landmarks (pip install "latentedit[faces]"), and the sliders of the model bring them to their
    targets. Otherwise, the search changes w in the first layers, which set shape and pose, until
    every point is within 2 pixels of its target (DragGAN, Pan et al. 2023). Noise maps, a tuned
    generator and style offsets of LATENT are kept. Ctrl-C ends the search and writes what was
    reached.

    \b
    Example:
      latentedit drag me.jpg --from 256,180 --to 276,180 --paste-back --out me-turned.jpg
      latentedit drag latents/me.safetensors --from 64,78 --to 72,78 --out turned.png
      latentedit drag latents/me.safetensors --from 64,101 --to 64,106 --from 64,92 --to 64,92
          --out open-mouth.png
      latentedit drag latents/me.safetensors --from 64,78 --to 74,78 --mask face.png --gif way.gif
    """
    from latentedit.directions.face_drag import goes_by_landmarks
    from latentedit.io.images import check_picture, save_image
    from latentedit.io.video import ENDINGS, save_video
    from latentedit.latent.dragging import DragOptions, drag_steps, finished, nearer, read_mask
    from latentedit.latent.latent_file import save_latent
    from latentedit.photo.landmarks import EXTRA
    from latentedit.photo.pasting import save_like

    if photo and (source is None or is_photo(Path(source))):
        # An option that takes a value or not takes the photo after it.
        source = source or photo
        if Path(source).resolve() != Path(photo).resolve():
            raise ArgumentError(f"{source} is pasted back into itself, and not into {photo}")
        photo = OWN
    if source is None:
        raise click.UsageError("Missing argument 'PHOTO|LATENT'.")
    path = Path(source)
    of_photo = is_photo(path)
    if photo == OWN and not of_photo:
        raise ArgumentError(f"{path}: a latent, which --paste-back PHOTO pastes into PHOTO")
    if difference and photo is None:
        raise ArgumentError("--difference needs --paste-back")
    pairs = _pairs(starts, targets)
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

    outputs.given(path)
    into = source if photo == OWN else photo
    image_file = _free_place(path, into) if out is None else Path(out)
    latent_file = image_file.with_suffix(".safetensors")
    if image_file == latent_file:
        image_file = latent_file.with_suffix(".png")
    check_picture(image_file)
    outputs.check(latent_file)

    held: Tensor | None = None

    def check(model: "Model") -> None:
        nonlocal held
        held = None if mask is None else read_mask(mask, model.generator.image_size)
        if by == "landmarks" and not goes_by_landmarks(options, held):
            raise ArgumentError("--by landmarks takes no mask, layers, weight or radius")

    sources = Sources(model_name, device, inverting, force=force)
    # What would fail after the minutes of an inversion fails before it.
    sources.prepare([path], check)
    opened = sources.open(path)
    found = opened.latent
    generator = opened.model.generator
    if not of_photo:
        check(opened.model)
    points = _Points(pairs, _pixels(found, generator) if of_photo else None)
    handles = points.handles()
    scene = Scene(generator)
    if into is not None:
        scene = Scene.of(generator, found, Pasted(into, feather, difference, force, small=False))
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
    if into is None:
        save_image(scene.draw(result.latent), image_file)
    else:
        save_like(scene.draw(result.latent), image_file, into)
    save_latent(latent_file, result.latent)
    if gif is not None:
        places = [step.ws for step in way[:: max(len(way) // FRAMES, 1)]]
        if followed == "landmarks":  # which stays while it measures, and then takes few large steps
            parts = range(FRAMES // 2)
            places = [way[0].ws.lerp(best.ws, part / len(parts)) for part in parts]
        frames = [replace(found, ws=ws).render(generator) for ws in places]
        last = result.latent.render(generator)
        say_video(save_video(gif, [*frames, *[last] * 12], fps=12), gif)
    _report(
        result,
        points,
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


@dataclass(frozen=True)
class _Points:
    """The points of a drag as the user names them, and where they are in the image of the
    latent."""

    pairs: list[tuple[Point, Point]]
    """From and to."""
    pixels: "CropPixels | None"
    """Of the photo that they are named in; None if they are named in the image itself."""

    def handles(self) -> "list[Handle]":
        from latentedit.latent.dragging import Handle

        return [Handle(*(self._in_image(point) for point in pair)) for pair in self.pairs]

    def _in_image(self, point: Point) -> Point:
        if self.pixels is None:
            return point
        x, y = self.pixels.in_crop(point)
        largest = self.pixels.size - 1
        if not (0 <= x <= largest and 0 <= y <= largest):
            corners = ", ".join(f"{x:.0f},{y:.0f}" for x, y in self.pixels.quad)
            raise ArgumentError(
                f"the point {point[0]:g},{point[1]:g} lies outside the crop around the face, whose"
                f" corners in the photo are {corners}"
            )
        return x, y

    def named(self, point: Point) -> Point:
        """Return a point of the image as the user would name it."""
        return point if self.pixels is None else self.pixels.in_photo(point)

    @property
    def scale(self) -> float:
        """How many of the user's pixels lie along one of the image."""
        return 1.0 if self.pixels is None else self.pixels.scale


def _pixels(latent: "Latent", generator: "Generator") -> "CropPixels":
    """Return which pixels of its photo are which ones of the image of ``latent``."""
    from latentedit.photo.alignment import CropPixels

    assert latent.crop is not None  # inversions of photos know it
    return CropPixels(latent.crop, generator.resolution)


def _pairs(starts: tuple[str, ...], targets: tuple[str, ...]) -> list[tuple[Point, Point]]:
    if len(starts) != len(targets):
        raise ArgumentError(
            f"every --from needs a --to: got {len(starts)} --from and {len(targets)} --to"
        )
    pairs = zip(starts, targets, strict=True)
    return [(_point(start, "--from"), _point(target, "--to")) for start, target in pairs]


def _point(text: str, option: str) -> Point:
    x, y = parse_numbers(text, 2, option)
    return x, y


def _free_place(source: Path, photo: str | None) -> Path:
    """Return NAME-dragged.png, or NAME-dragged-2.png and so on, so that the result of another drag
    stays; with the ending of the ``photo`` that is pasted into."""
    from latentedit.io.images import WRITTEN

    own = "" if photo is None else Path(photo).suffix
    ending = own if own.lower() in WRITTEN else ".png"
    number = 1
    while True:
        name = f"{source.stem}-dragged{f'-{number}' if number > 1 else ''}"
        place = source.with_name(name + ending)
        if not place.exists() and not place.with_suffix(".safetensors").exists():
            return place
        number += 1


def _report(
    result: "Drag",
    points: _Points,
    files: list[Path],
    as_json: bool,
    more_may_help: bool,
    followed: str,
) -> None:
    if as_json:
        ends = zip(points.pairs, result.points, result.distances, strict=True)
        facts = {
            "steps": result.steps,
            "arrived": result.arrived,
            "followed": followed,
            "handles": [
                {
                    "from": start,
                    "to": target,
                    "at": points.named(point),
                    "distance": round(distance * points.scale, 3),
                }
                for (start, target), point, distance in ends
            ],
            "files": [str(file) for file in files],
        }
        click.echo(json.dumps(facts))
        return
    for pair, distance in zip(points.pairs, result.distances, strict=True):
        ends_of = " to ".join(f"{x:g},{y:g}" for x, y in pair)
        left = distance * points.scale
        say(f"{ends_of}: {left:.1f} pixels from the target after {result.steps} steps")
    log.remark(f"followed: {followed}")
    if not result.arrived:
        log.remark(
            "not all points arrived: this is the nearest step. The model may know no such image."
            + (
                " Nearer targets may help"
                if followed == "landmarks"
                else " Nearer targets or more white in --mask may help"
            )
            + (", and so may more --steps" if more_may_help else "")
        )
    for file in files:
        say_written(file)
