"""``edit``: sliders, sweeps and grids, optionally pasted back into the photo."""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentedit.cli.common import (
    device_option,
    each,
    folder_option,
    json_option,
    megapixels_option,
    model_option,
    recursive_option,
    say,
    say_written,
    transform_option,
)
from latentedit.cli.looks import Limits, onlooker_of
from latentedit.cli.moves import Move, direction_for, parse_move, parse_sweep
from latentedit.cli.moving import Timing, is_video, video_options, write_video
from latentedit.cli.photos import Inverting, Sources, expand_sources, is_photo, photo_options
from latentedit.cli.sweeping import (
    OWN,
    Pasted,
    Scene,
    check_grid,
    images_of,
    paste_options,
    sheet_of,
    together,
)
from latentedit.errors import ArgumentError

if TYPE_CHECKING:
    from PIL import Image

    from latentedit.directions import Direction
    from latentedit.latent.latent_file import Latent
    from latentedit.model.model import Model
    from latentedit.networks.generator import Generator


@click.command()
@click.argument("given", nargs=-1, metavar="PHOTO|LATENT...")
@model_option(None)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=[:]AMOUNT[@LAYERS]",
    help="Slider and amount: 1 is the usual difference between two random faces (one sigma). "
    "With a colon, set the score to"
    " this value instead. Repeatable.",
)
@click.option(
    "--hold",
    metavar="NAME,...",
    help="Sliders whose scores must not change. The scores of --set then change by exactly their "
    "amounts, also for sliders in both options.",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="NAME=FROM:TO:COUNT",
    help="Write a strip of images, or a video if --out is .mp4, .webm or .gif. A second --sweep "
    "makes a grid; in a video, all"
    " sliders move together. COUNT can be left out in videos.",
)
@video_options(("back", "none"))
@transform_option
@paste_options
@folder_option("Image or latent (.safetensors) to write; a folder for several.")
@photo_options
@click.option(
    "--force",
    is_flag=True,
    help="Accept latents and directions of another generator, and a photo that does not match.",
)
@json_option
@recursive_option
@megapixels_option
@device_option
def edit(
    given: tuple[str, ...],
    model_name: str | None,
    sets: tuple[str, ...],
    hold: str | None,
    sweeps: tuple[str, ...],
    fps: float | None,
    seconds: float | None,
    loop: str | None,
    transform: str | None,
    photo: str | None,
    difference: bool,
    feather: float,
    out: str,
    force: bool,
    as_json: bool,
    recursive: bool,
    device: str,
    inverting: Inverting,
) -> None:
    """Apply attribute sliders to each PHOTO or LATENT and write the image.

    A PHOTO is inverted first: --quality says how well, and --face which face. Its latent is kept in
    the cache (LATENTEDIT_CACHE), so that the next edit of it takes seconds. Use "latentedit invert"
    to keep latents yourself, and to see how good they are.

    NAME is a direction file, one of your own directions (LATENTEDIT_DIRECTIONS, or
    ~/.latentedit/directions), or a bundled direction; "latentedit directions list" shows them.
    LAYERS is a range such as 0-3, or coarse, middle, fine. Directions in style space change the
    latent's style offsets. A warning appears if an AMOUNT is larger than the safe amounts that
    the latent file stores.

    In a folder, the image has the name of PHOTO or LATENT. If it is the folder of that, or an image
    of yours has this name, it becomes NAME-edited. A folder stands for the latents in it, or else
    for its photos.

    \b
    Example:
      latentedit edit me.jpg --set smile=1 --out smiling.jpg
      latentedit edit me.jpg --set smile=1 --quality best --paste-back --out me-smiling.jpg
      latentedit edit latents/me.safetensors --set smile=1.5 --set turn=-1@coarse --out edited.png
      latentedit edit latents/me.safetensors --set glasses=:1.5 --hold turn,smile --out held.png
      latentedit edit latents/me.safetensors --sweep turn=-3:3:7 --out strip.png
      latentedit edit latents/me.safetensors --sweep turn=-2:2:5 --sweep smile=0:2:3 --out grid.png
      latentedit edit latents/me.safetensors --sweep turn=-2:2 --sweep smile=0:2 --seconds 4 --out
          both.mp4
      latentedit edit latents/me.safetensors --sweep smile=-1:2 --paste-back me.jpg --seconds 3
          --out me-smiling.mp4
      latentedit edit latent-of-stylegan3.safetensors --model stylegan3-t.pkl --transform 0.1,0,-15
          --out turned.png
      latentedit edit latents/me.safetensors --set turn=1 --paste-back me.jpg --out me-turned.jpg
    """
    from latentedit.directions.sweeps import check_holdable, move_latent
    from latentedit.io.folders import distinct
    from latentedit.io.images import WRITTEN, own_path, save_image
    from latentedit.latent.editing import edit_holding
    from latentedit.latent.latent_file import save_latent
    from latentedit.latent.spaces import space_of_latent
    from latentedit.latent.transforms import Transform, transformed

    moves = [parse_move(text) for text in sets]
    swept = [parse_sweep(text) for text in sweeps]
    turn = Transform.parse(transform) if transform is not None else None
    timing = Timing(fps, seconds, loop)
    if not moves and not swept and photo is None and turn is None:
        raise ArgumentError(
            "nothing to do: add at least one --set NAME=AMOUNT or --sweep NAME=FROM:TO:COUNT"
        )
    if photo and (not given or any(is_photo(Path(text)) for text in given)):
        # An option that takes a value or not takes the photo after it.
        given = (*given, photo)
        photo = OWN
    if not given:
        raise click.UsageError("Missing argument 'PHOTO|LATENT...'.")
    files = expand_sources(given, recursive=recursive)
    names = distinct(files)
    own = photo == OWN

    def ending(path: Path) -> str:
        return path.suffix if own and path.suffix.lower() in WRITTEN else ".png"

    theirs = {f"{name}{ending(path)}".casefold() for path, name in names.items()}
    target = Path(out)
    several = len(files) > 1
    if several and target.suffix:
        raise ArgumentError(f"{len(files)} results need a folder as --out, got {out}")
    if swept and target.suffix == ".safetensors":
        raise ArgumentError("--sweep writes an image; give --out an image name")
    moving = is_video(target)
    if moving and not swept:
        raise ArgumentError("a video needs at least one --sweep NAME=FROM:TO:COUNT")
    timing.check(target)
    if not moving:
        check_grid(swept)
    if hold and not moves and not swept:
        raise ArgumentError("--hold needs --set or --sweep")
    if difference and photo is None:
        raise ArgumentError("--difference needs --paste-back")
    if photo is not None and target.suffix == ".safetensors":
        raise ArgumentError("--paste-back needs an image or a video as --out")
    if photo is not None and not own and (several or not target.suffix):
        raise ArgumentError("--paste-back PHOTO needs one latent, and an image or a video as --out")
    images = images_of(swept, timing) if moving else 0
    sources = Sources(model_name, device, inverting, force=force)
    sliders = [move.name for move in moves] + [sweep.name for sweep in swept]
    sliders += hold.split(",") if hold else []

    def check(model: "Model") -> None:
        for slider in sliders:
            direction_for(slider, model, force)

    sources.prepare(files, check)

    def work(path: Path) -> None:
        opened = sources.open(path)
        if own and opened.photo is None:
            raise ArgumentError(f"{path}: a latent, which --paste-back PHOTO pastes into PHOTO")
        into = photo if opened.photo is None or not own else str(opened.photo)
        latent = opened.latent
        model = opened.model
        generator = model.generator
        scene = Scene(generator)
        if into is not None:
            scene = Scene.of(
                generator, latent, Pasted(into, feather, difference, force, bool(swept))
            )
        limits = Limits(latent)
        named = functools.cache(lambda name: direction_for(name, model, force))
        held = {name: named(name) for name in hold.split(",")} if hold else {}

        def moved(latent: "Latent", steps: list[Move], limits: Limits) -> "Latent":
            wanted = [(named(step.name), step) for step in steps]
            if not held:
                for direction, step in wanted:
                    amount = _amount(generator, latent, direction, step)
                    limits.count(direction, amount, step.layers)
                    latent = move_latent(generator, latent, direction, amount, step.layers)
                return latent
            check_holdable([*(direction for direction, _ in wanted), *held.values()])
            # What moves and is held changes by exactly its amount, and by nothing of the others.
            moving = {step.name for step in steps}
            still = [direction for name, direction in held.items() if name not in moving]
            amounts = [(d, _amount(generator, latent, d, step), step.layers) for d, step in wanted]
            for move in amounts:
                limits.count(*move)
            return replace(latent, ws=edit_holding(latent.ws, amounts, still))

        def swept_to(steps: list[Move]) -> "Image.Image":
            return scene.draw(turned(moved(latent, steps, limits.branch())))

        def turned(latent: "Latent") -> "Latent":
            return latent if turn is None else transformed(generator, latent, turn)

        if moves:
            latent = moved(latent, moves, limits)
        place = target
        if not target.suffix:
            # Next to the latent, NAME.png is the image that the inversion rendered.
            beside = target.resolve() == path.parent.resolve()
            place = own_path(
                target / f"{names[path]}{'-edited' if beside else ''}{ending(path)}",
                "edited",
                theirs,
            )
        if moving:
            steps = together(swept, images)
            write_video(place, images, lambda number: swept_to(steps[number]), timing)
        elif swept:
            save_image(sheet_of(swept, swept_to, path.stem), place)
        elif place.suffix == ".safetensors":
            latent = turned(latent)
            done = [
                *sets,
                *([f"holding {hold}"] if hold else []),
                *([f"transform {transform}"] if transform else []),
            ]
            latent.settings = {
                **latent.settings,
                "edits": [*latent.settings.get("edits", []), *done],
            }
            latent.space = space_of_latent(latent.ws, latent.styles).name
            latent.distances = {}
            # What was seen of sliders was seen from where the latent was before.
            onlooker_of(model).look(latent).put_into(latent)
            save_latent(place, latent)
        elif into is not None:
            from latentedit.photo.pasting import save_like

            save_like(scene.draw(turned(latent)), place, into)
        else:
            save_image(scene.draw(turned(latent)), place)
        for line in limits.lines():
            say(f"{path.name}: {line}", err=True)
        if not as_json:
            say_written(place)
            return
        facts = {
            "source": str(path),
            "written": str(place),
            "edits": [*sets, *sweeps],
            "model": latent.fingerprint,
            "pasted_into": into,
            "warnings": limits.lines(),
        }
        click.echo(json.dumps(facts))

    each(files, work)


def _amount(generator: "Generator", latent: "Latent", direction: "Direction", step: Move) -> float:
    """Return the amount in sigmas; for an absolute target, the distance to it."""
    from latentedit.directions.sweeps import check_movable

    check_movable(direction)
    if not step.absolute:
        return step.amount
    return (
        step.amount
        - float(direction.score(latent.ws, generator, latent.styles)[0]) / direction.sigma
    )
