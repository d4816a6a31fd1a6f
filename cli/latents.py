"""``edit``, ``mix`` and ``interpolate``: from latents to pictures."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentedit.cli.common import device_option, each, expand, model_option, read_model, say_written
from latentedit.errors import Error

if TYPE_CHECKING:
    from torch import Tensor

    from latentedit.directions import Direction
    from latentedit.generator import Generator
    from latentedit.latents import Latent
    from latentedit.models import Model


@dataclass(frozen=True)
class Move:
    """One ``--set NAME=[:]AMOUNT[@LAYERS]``."""

    name: str
    amount: float
    layers: str | None
    absolute: bool = False
    """Whether the score moves to ``amount``, instead of by it."""


def parse_move(text: str) -> Move:
    name, equals, rest = text.rpartition("=")
    amount, _, layers = rest.partition("@")
    try:
        number = float(amount.removeprefix(":"))
        return Move(name, number, layers or None, amount.startswith(":")) if equals and name else _bad(text)
    except ValueError:
        return _bad(text)


def _bad(text: str) -> Move:
    raise Error(f"--set takes NAME=AMOUNT or NAME=AMOUNT@LAYERS with the amount in sigmas, or NAME=:SCORE, got {text!r}")


def parse_sweep(text: str) -> tuple[str, list[float]]:
    """``"NAME=FROM:TO:COUNT"`` as the name and the amounts."""
    name, _, rest = text.rpartition("=")
    if not name:
        raise Error(f"--sweep takes NAME=FROM:TO:COUNT with 2 to 50 pictures, got {text!r}")
    return name, parse_amounts(rest, "--sweep takes NAME=FROM:TO:COUNT")


def parse_amounts(text: str, form: str) -> list[float]:
    """``"FROM:TO:COUNT"`` as the amounts; the ``form`` of the option is for the complaint."""
    parts = text.split(":")
    try:
        start, stop, count = float(parts[0]), float(parts[1]), int(parts[2])
        if len(parts) != 3 or not 2 <= count <= 50 or not math.isfinite(stop - start):
            raise ValueError
    except (ValueError, IndexError) as error:
        raise Error(f"{form} with 2 to 50 pictures, got {text!r}") from error
    return [start + (stop - start) * i / (count - 1) for i in range(count)]


def model_for(latent: "Latent", name: str | None, device: str, force: bool) -> "Model":
    """The model named, or the bundled one that ``latent`` belongs to; checked against the latent's fingerprint."""
    from latentedit.models import bundled_with, fingerprint

    if not latent.fingerprint and name is None:
        raise Error("a latent of another tool does not say which generator it belongs to; name it with --model")
    found = name or bundled_with(latent.fingerprint)
    if found is None:
        raise Error(f"this latent needs the generator with fingerprint {latent.fingerprint}; name its file with --model")
    model = read_model(str(found), device)
    latent.check_generator(fingerprint(model.generator), model.path, force=force)
    latent.ws = latent.rows(model.generator.num_ws)
    return model


def direction_for(name: str, model: "Model", force: bool) -> "Direction":
    from latentedit.directions.direction import check_generator, load_direction
    from latentedit.models import fingerprint

    own = fingerprint(model.generator)
    direction = load_direction(name, own)
    check_generator(direction, own, model.path, force=force)
    return direction


@click.command()
@click.argument("latents", nargs=-1, required=True, metavar="LATENT...")
@model_option(None)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=[:]AMOUNT[@LAYERS]",
    help="Move by AMOUNT sigmas, or with a colon to that score; repeatable.",
)
@click.option("--hold", metavar="NAME,...", help="Keep these scores, and move those of --set by exactly their amounts.")
@click.option("--sweep", metavar="NAME=FROM:TO:COUNT", help="A strip of pictures instead of one; a video as .mp4 or .gif.")
@click.option("--paste-back", "photo", metavar="PHOTO", help="Put the edited crop back into this photo, which it came from.")
@click.option(
    "--difference", is_flag=True, help="With --paste-back: add what the edit changed, and keep the photo's own detail."
)
@click.option("--feather", default=0.15, show_default=True, help="Share of the crop's side over which its edge fades.")
@click.option("--out", type=click.Path(), required=True, help="Picture, latent (.safetensors), or folder for several.")
@click.option("--force", is_flag=True, help="Accept latents and directions of another generator.")
@device_option
def edit(
    latents: tuple[str, ...],
    model_name: str | None,
    sets: tuple[str, ...],
    hold: str | None,
    sweep: str | None,
    photo: str | None,
    difference: bool,
    feather: float,
    out: str,
    force: bool,
    device: str,
) -> None:
    """Apply attribute sliders to each LATENT and write the picture.

    NAME is a direction file, one of your own (LATENTEDIT_DIRECTIONS, or ~/.latentedit/directions), or one that ships for the
    model; "latentedit directions list" shows them. LAYERS is a range such as 0-3, or coarse, middle, fine. Directions in style
    space move the latent's style offsets.

    \b
    Example:
      latentedit edit latents/me.safetensors --set sunglasses=2 --set turn=-1@coarse --out edited.png
      latentedit edit latents/me.safetensors --set sunglasses=:1.5 --hold turn,look-up --out held.png
      latentedit edit latents/me.safetensors --sweep turn=-3:3:7 --out strip.png
      latentedit edit latents/me.safetensors --set turn=1 --paste-back me.jpg --out me-turned.jpg
    """
    from latentedit import sheets
    from latentedit.directions.sweeps import check_holdable, move_latent
    from latentedit.editing import edit_holding
    from latentedit.images import save_image
    from latentedit.latents import load_latent, save_latent
    from latentedit.video import ENDINGS, save_video, there_and_back

    moves = [parse_move(text) for text in sets]
    swept = parse_sweep(sweep) if sweep else None
    if not moves and not swept and photo is None:
        raise Error("nothing to do: give at least one --set NAME=AMOUNT, or --sweep NAME=FROM:TO:COUNT")
    files = expand(latents, (".safetensors", ".npz", ".npy", ".pt"), "latent files")
    target = Path(out)
    several = len(files) > 1
    if several and target.suffix:
        raise Error(f"{len(files)} latents need a folder as --out, got {out}")
    if swept and target.suffix == ".safetensors":
        raise Error("--sweep writes a picture; give --out a picture's name")
    if target.suffix in ENDINGS and not swept:
        raise Error("a video is of a sweep; give --sweep NAME=FROM:TO:COUNT")
    if hold and not moves and not swept:
        raise Error("--hold goes with --set or --sweep")
    if difference and photo is None:
        raise Error("--difference goes with --paste-back")
    if photo is not None and (several or swept or target.suffix in ("", ".safetensors")):
        raise Error("--paste-back goes with one latent, without --sweep, and a picture as --out")

    def work(path: Path) -> None:
        latent = load_latent(path)
        model = model_for(latent, model_name, device, force)
        generator = model.generator
        unedited = latent.render(generator) if difference and photo is not None else None
        named = functools.cache(lambda name: direction_for(name, model, force))
        held = [named(name) for name in hold.split(",")] if hold else []

        def moved(latent: "Latent", steps: list[Move]) -> "Latent":
            wanted = [(named(step.name), step) for step in steps]
            if not held:
                for direction, step in wanted:
                    amount = _amount(generator, latent, direction, step)
                    latent = move_latent(generator, latent, direction, amount, step.layers)
                return latent
            check_holdable([*(direction for direction, _ in wanted), *held])
            amounts = [(d, _amount(generator, latent, d, step), step.layers) for d, step in wanted]
            return replace(latent, ws=edit_holding(latent.ws, amounts, held))

        if moves:
            latent = moved(latent, moves)
        place = target if target.suffix else target / f"{path.stem}.png"
        if swept:
            name, amounts = swept
            pictures = [moved(latent, [Move(name, amount, None)]).render(generator) for amount in amounts]
            if place.suffix in ENDINGS:
                save_video(place, there_and_back(pictures), fps=12)
            else:
                row = sheets.Row(f"{path.stem}: {Path(name).stem}", pictures, [f"{amount:+.1f}" for amount in amounts])
                save_image(sheets.sheet([row]), place)
        elif place.suffix == ".safetensors":
            latent.settings = {
                **latent.settings,
                "edits": [*latent.settings.get("edits", []), *sets, *([f"holding {hold}"] if hold else [])],
            }
            latent.space = "s" if latent.styles else "w" if bool((latent.ws == latent.ws[:, :1]).all()) else "w+"
            latent.distances = {}
            save_latent(place, latent)
        elif photo is not None:
            _paste(latent, generator, unedited, photo, feather, place, force)
        else:
            save_image(latent.render(generator), place)
        say_written(place)

    each(files, work)


def _amount(generator: "Generator", latent: "Latent", direction: "Direction", step: Move) -> float:
    """In sigmas; of an absolute target what is missing to it."""
    from latentedit.directions.sweeps import check_movable

    check_movable(direction)
    if not step.absolute:
        return step.amount
    return step.amount - float(direction.score(latent.ws, generator, latent.styles)[0]) / direction.sigma


def _paste(
    latent: "Latent",
    generator: "Generator",
    unedited: "Tensor | None",
    photo: str,
    feather: float,
    place: Path,
    force: bool,
) -> None:
    from latentedit.images import open_image, to_pil
    from latentedit.latents import describe_source
    from latentedit.pasting import paste_back, save_like

    if latent.crop is None:
        raise Error("this latent does not say where in a photo it belongs; --paste-back needs one made by latentedit invert")
    base = open_image(photo)
    if latent.source and latent.source.get("sha256") != describe_source(photo)["sha256"] and not force:
        raise Error(
            f"{photo}: not the photo that this latent was made from ({latent.source.get('name')}); --force pastes anyway"
        )
    before = None if unedited is None else to_pil(unedited)
    save_like(paste_back(base, to_pil(latent.render(generator)), latent.crop, feather=feather, before=before), place, photo)


@click.group()
def latent() -> None:
    """Latents of other tools, in and out."""


@latent.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@model_option(None)
@click.option("--out", type=click.Path(), required=True, help="Folder for latent files and pictures.")
@device_option
def import_(files: tuple[str, ...], model_name: str | None, out: str, device: str) -> None:
    """Make latent files, with pictures beside them, of every latent in FILE.

    Read are projected_w.npz of NVIDIA's projectors, latents.pt of e4e, the .pt of rosinality's projector, and arrays [N,
    layers, width] in .npy.

    \b
    Example:
      latentedit latent import projected_w.npz --model ffhq.pkl --out latents
    """
    from latentedit.foreign.projections import ENDINGS, load_projections
    from latentedit.images import save_image
    from latentedit.latents import save_latent

    if model_name is None:
        raise Error("these files do not say which generator they belong to; name it with --model")
    model = read_model(model_name, device)
    generator = model.generator

    def work(path: Path) -> None:
        for name, found in load_projections(path):
            _belongs(path, found, model)
            found.ws = found.rows(generator.num_ws)
            found.settings = {"imported": path.name}
            save_image(found.render(generator), Path(out) / f"{name}.png")
            save_latent(Path(out) / f"{name}.safetensors", found)
            say_written(Path(out) / f"{name}.safetensors")

    each(expand(files, ENDINGS, "files of latents"), work)


def _belongs(path: Path, found: "Latent", model: "Model") -> None:
    from latentedit.models import fingerprint

    generator = model.generator
    rows, width = found.ws.shape[1:]
    if rows not in (1, generator.num_ws) or width != generator.w_dim:
        raise Error(f"{path}: latents of {rows} x {width}; this generator has {generator.num_ws} x {generator.w_dim}")
    shapes = [tuple(map_.shape) for map_ in found.noise or []]
    if shapes and shapes != generator.synthesis.noise_shapes:
        raise Error(f"{path}: its noise maps are of other sizes than this generator's")
    found.check_generator(fingerprint(generator), model.path)


@latent.command()
@click.argument("source", metavar="LATENT")
@click.option("--out", type=click.Path(), required=True, help="A .npz, as NVIDIA's projector writes it.")
def export(source: str, out: str) -> None:
    """Write LATENT as projected_w.npz; its noise maps have no place there.

    \b
    Example:
      latentedit latent export latents/me.safetensors --out projected_w.npz
    """
    from latentedit.foreign.projections import save_projection
    from latentedit.latents import load_latent

    found = load_latent(source)
    if not out.endswith(".npz"):
        raise Error(f"{out}: latents of other tools are written as .npz")
    save_projection(out, found)
    if found.styles:
        click.echo("left out: the style offsets, which the layout has no place for", err=True)
    if found.noise is not None:
        click.echo("left out: the noise maps, which the layout has no place for", err=True)
    say_written(out)


def _pair(first: str, second: str, model_name: str | None, device: str, force: bool) -> tuple["Latent", "Latent", "Model"]:
    from latentedit.latents import load_latent
    from latentedit.models import fingerprint

    a, b = load_latent(first), load_latent(second)
    model = model_for(a, model_name, device, force)
    b.check_generator(fingerprint(model.generator), model.path, force=force)
    b.ws = b.rows(model.generator.num_ws)
    if a.styles or b.styles:
        raise Error(
            f"{first if a.styles else second}: has style offsets, which belong to its own w; invert with --space w or w+"
        )
    return a, b, model


def _write(latent: "Latent", model: "Model", out: str, note: Sequence[str]) -> None:
    from latentedit.images import save_image
    from latentedit.latents import save_latent

    if out.endswith(".safetensors"):
        latent.space, latent.distances = "w+", {}
        latent.settings = {**latent.settings, "edits": [*latent.settings.get("edits", []), *note]}
        save_latent(out, latent)
    else:
        save_image(latent.render(model.generator), out)
    say_written(out)


@click.command()
@click.argument("first", metavar="LATENT")
@click.argument("second", metavar="OTHER")
@click.option("--layers", default="coarse", show_default=True, help="Rows taken from OTHER: 0-3, coarse, middle, fine.")
@model_option(None)
@click.option("--out", type=click.Path(), required=True, help="Picture, or latent (.safetensors).")
@click.option("--force", is_flag=True, help="Accept latents of another generator.")
@device_option
def mix(first: str, second: str, layers: str, model_name: str | None, out: str, force: bool, device: str) -> None:
    """Style mixing: LATENT with some layers of OTHER.

    \b
    Example:
      latentedit mix me.safetensors you.safetensors --layers coarse --out mixed.png
    """
    from latentedit.editing import mix as run
    from latentedit.editing import parse_layers

    a, b, model = _pair(first, second, model_name, device, force)
    a.ws = run(a.ws, b.ws, parse_layers(layers, model.generator.num_ws))
    _write(a, model, out, [f"mixed {layers} of {Path(second).name}"])


@click.command()
@click.argument("first", metavar="LATENT")
@click.argument("second", metavar="OTHER")
@click.option("--count", default=7, show_default=True, type=click.IntRange(2, 50), help="Pictures.")
@model_option(None)
@click.option("--out", type=click.Path(), required=True, help="Picture (a strip).")
@click.option("--force", is_flag=True, help="Accept latents of another generator.")
@device_option
def interpolate(first: str, second: str, count: int, model_name: str | None, out: str, force: bool, device: str) -> None:
    """A strip of pictures on the straight line from LATENT to OTHER; the found noise is carried over in step.

    \b
    Example:
      latentedit interpolate me.safetensors you.safetensors --out strip.png
    """
    import torch

    from latentedit import sheets
    from latentedit.editing import interpolate as run
    from latentedit.images import save_image

    a, b, model = _pair(first, second, model_name, device, force)
    layers = model.generator.synthesis.layers
    own = [layer.noise_const[None, None].cpu() for layer in layers]
    pictures = []
    base, other = a.noise or own, b.noise or own
    for index, ws in enumerate(run(a.ws, b.ws, count)):
        t = index / (count - 1)
        a.ws = ws[None]
        a.noise = [torch.lerp(x, y, t) for x, y in zip(base, other, strict=True)]
        pictures.append(a.render(model.generator))
    row = sheets.Row(f"{Path(first).stem} to {Path(second).stem}", pictures, [f"{i / (count - 1):.2f}" for i in range(count)])
    save_image(sheets.sheet([row]), out)
    say_written(out)
