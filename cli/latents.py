"""``mix`` and latents of other tools."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentedit.cli import defaults, log
from latentedit.cli.common import (
    device_option,
    each,
    found_files,
    megapixels_option,
    model_option,
    read_model,
    recursive_option,
    say_written,
)
from latentedit.cli.groups import Forgiving
from latentedit.cli.moves import model_for
from latentedit.cli.photos import Inverting, Sources, is_photo, photo_options
from latentedit.errors import ArgumentError, Error, IncompatibleError

if TYPE_CHECKING:
    from latentedit.latent.latent_file import Latent
    from latentedit.model.model import Model


@click.group(cls=Forgiving)
def latent() -> None:
    """Import and export latents of other tools."""


@latent.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@model_option(None)
@click.option("--out", type=click.Path(), required=True, help="Folder for latent files and images.")
@recursive_option
@device_option
def import_(
    files: tuple[str, ...], model_name: str | None, out: str, recursive: bool, device: str
) -> None:
    """Convert every latent in FILE to a latent file, and render its image.

    Accepts projected_w.npz of NVIDIA's projectors, latents.pt of e4e, the .pt of rosinality's
    projector, and .npy arrays of shape [N, layers, width].

    The results are named after FILE, and after its folder if several files share a name. A file
    that would replace another latent or an image of yours becomes NAME-imported.

    \b
    Example:
      latentedit latent import projected_w.npz --model ffhq.pkl --out latents
    """
    from latentedit.formats.projections import ENDINGS, load_projections
    from latentedit.io.folders import distinct
    from latentedit.io.images import save_image
    from latentedit.latent.latent_file import save_latent

    model_name = model_name or defaults.value_of("model")
    if model_name is None:
        raise ArgumentError("these files do not name their generator; add --model")

    model = read_model(model_name, device)
    generator = model.generator
    sources = list(dict.fromkeys(found_files(files, ENDINGS, "latent files", recursive=recursive)))
    names = distinct(sources)
    written: set[str] = set()

    def work(path: Path) -> None:
        for inner, found in load_projections(path):
            _belongs(path, found, model)
            found.ws = found.rows(generator.num_ws)
            found.settings = {"imported": path.name}
            # A file with one latent gives it its own name; a file with several names each of them.
            name = (
                f"{names[path]}{inner.removeprefix(path.stem)}"
                if inner.startswith(path.stem)
                else inner
            )
            place = _free_place(Path(out), name, found, written)
            save_image(found.render(generator), place.with_name(f"{place.stem}.png"))
            save_latent(place, found)
            say_written(place)

    each(sources, work)


def _free_place(folder: Path, name: str, latent: "Latent", written: set[str]) -> Path:
    """Return the path for ``latent``: NAME, or NAME-imported, -2 ... if another latent or an image
    of the user is there."""
    from latentedit.formats.load_latent import load_latent
    from latentedit.io.images import is_free

    def other(place: Path) -> bool:
        if (
            place.name.casefold() in written
            or not is_free(place)
            or not is_free(place.with_name(f"{place.stem}.png"))
        ):
            return True
        try:
            there = load_latent(place) if place.is_file() else None
        except Error:
            return True
        return there is not None and (
            there.ws.shape != latent.ws.shape or not bool((there.ws == latent.ws).all())
        )

    place = folder / f"{name}.safetensors"
    number = 1
    while other(place):
        place = folder / f"{name}-imported{f'-{number}' if number > 1 else ''}.safetensors"
        number += 1

    written.add(place.name.casefold())
    return place


def _belongs(path: Path, found: "Latent", model: "Model") -> None:
    from latentedit.networks.fingerprint import fingerprint

    generator = model.generator
    rows, width = found.ws.shape[1:]
    if rows not in (1, generator.num_ws) or width != generator.w_dim:
        raise IncompatibleError(
            f"{path}: latents of {rows} x {width}; this generator needs {generator.num_ws} x "
            f"{generator.w_dim}"
        )

    shapes = [tuple(map_.shape) for map_ in found.noise or []]
    if shapes and shapes != generator.synthesis.noise_shapes:
        raise IncompatibleError(f"{path}: the sizes of its noise maps do not match this generator")

    found.check_generator(fingerprint(generator), model.path)


@latent.command()
@click.argument("source", metavar="LATENT")
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    required=True,
    help="File to write: a .npz as NVIDIA's projector writes it.",
)
def export(source: str, out: str) -> None:
    """Write LATENT as projected_w.npz. What this format cannot hold (noise maps, a tuned generator,
    style offsets) is listed.

    \b
    Example:
      latentedit latent export latents/me.safetensors --out projected_w.npz
    """
    from latentedit.formats.load_latent import load_latent
    from latentedit.formats.projections import lost, save_projection

    found = load_latent(source)
    if not out.endswith(".npz"):
        raise ArgumentError(f"{out}: --out must end in .npz")
    save_projection(out, found)
    for what in lost(found):
        log.warn(f"left out: {what}")
    if found.tuned:
        log.remark('"latentedit latent bake" writes the tuned generator as a model of its own')
    say_written(out)


@latent.command()
@click.argument("sources", nargs=-1, required=True, metavar="LATENT...")
@model_option(None)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    required=True,
    help="Model file (.safetensors) to write.",
)
@click.option(
    "--latents",
    "latents_out",
    type=click.Path(),
    help="Folder for the latents that go with the model (default: the folder of --out).",
)
@click.option("--force", is_flag=True, help="Accept latents of another generator.")
def bake(
    sources: tuple[str, ...], model_name: str | None, out: str, latents_out: str | None, force: bool
) -> None:
    """Write a model file whose generator has the tuned difference of LATENT in its weights.

    Every LATENT is written again as NAME-baked.safetensors, without the difference. With the new
    model it renders exactly the same image. Several latents must share one difference, as "invert
    --tune --together" makes them. The model can be converted to the other layouts, which have no
    place for differences.

    \b
    Example:
      latentedit latent bake latents/me.safetensors --out me-model.safetensors
      latentedit model convert me-model.safetensors me.pkl
    """
    from latentedit.formats.load_latent import load_latent
    from latentedit.io.folders import distinct
    from latentedit.latent.latent_file import save_latent
    from latentedit.model.baking import bake as baked
    from latentedit.model.baking import check_tuned
    from latentedit.model.native import save_model
    from latentedit.networks.fingerprint import fingerprint

    if not out.endswith(".safetensors"):
        raise ArgumentError(f"{out}: --out must end in .safetensors; convert the model afterwards")
    paths = [Path(source) for source in dict.fromkeys(sources)]
    found = [load_latent(path) for path in paths]
    model = model_for(found[0], model_name, "cpu", force)
    for path, one in zip(paths, found, strict=True):
        check_tuned(one, path)
    made, latents = baked(model, found, force=force)
    names = distinct(paths)
    save_model(out, made)
    say_written(out)
    for path, one in zip(paths, latents, strict=True):
        place = Path(latents_out or Path(out).parent) / f"{names[path]}-baked.safetensors"
        save_latent(place, one)
        say_written(place)
    click.echo(f"fingerprint {fingerprint(made.generator)}")


def read_together(files: Sequence[str], sources: Sources) -> tuple[list["Latent"], "Model"]:
    """Return the latents in ``files``, also of the photos among them, one w per layer each, and
    their generator's model.

    Raises:
        Error: latents of different generators, or with style offsets.
    """
    paths = [Path(file) for file in files]
    sources.prepare(paths)
    first = sources.open(paths[0])
    model = first.model
    found = [first.latent, *(sources.open(path, model).latent for path in paths[1:])]
    for file, latent in zip(files, found, strict=True):
        if latent.styles:
            raise ArgumentError(
                f"{file}: has style offsets, which only fit its own w; invert with --space w or w+"
            )

    return found, model


def _write(latent: "Latent", model: "Model", out: str, note: Sequence[str]) -> None:
    from latentedit.io.images import save_image
    from latentedit.latent.latent_file import save_latent

    if out.endswith(".safetensors"):
        latent.settings = {**latent.settings, "edits": [*latent.settings.get("edits", []), *note]}
        save_latent(out, latent)
    else:
        save_image(latent.render(model.generator), out)
    say_written(out)


@click.command()
@click.argument("first", metavar="PHOTO|LATENT")
@click.argument("second", metavar="OTHER")
@click.option(
    "--layers",
    default="coarse",
    show_default=True,
    help="Layers to take from OTHER: 0-3, coarse, middle or fine.",
)
@model_option(None)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    required=True,
    help="Image or latent (.safetensors) to write.",
)
@click.option("--force", is_flag=True, help="Accept latents of another generator.")
@photo_options
@megapixels_option
@device_option
def mix(
    first: str,
    second: str,
    layers: str,
    model_name: str | None,
    out: str,
    force: bool,
    device: str,
    inverting: Inverting,
) -> None:
    """Combine LATENT with some layers of OTHER (style mixing).

    The noise maps and the generator tuning of these layers come from OTHER too. Photos are inverted
    first, as by "latentedit edit".

    \b
    Example:
      latentedit mix me.jpg you.jpg --layers coarse --out mixed.png
      latentedit mix me.safetensors you.safetensors --layers coarse --out mixed.png
    """
    from latentedit.latent.blending import mixed
    from latentedit.latent.layers import parse_layers

    sources = Sources(model_name, device, inverting, force=force)
    (a, b), model = read_together([first, second], sources)
    latent = mixed(model.generator, a, b, parse_layers(layers, model.generator.num_ws))
    # Latent files do not name photos.
    named = "a photo" if is_photo(Path(second)) else Path(second).name
    _write(latent, model, out, [f"mixed {layers} of {named}"])
