"""``demo``: inversion and editing of the bundled portrait."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from latentedit.cli import log
from latentedit.cli.common import (
    MOST,
    device_option,
    print_facts,
    progress_bar,
    read_model,
    say_written,
    seed_option,
)
from latentedit.cli.looks import onlooker_of
from latentedit.errors import Interrupted

if TYPE_CHECKING:
    from torch import Tensor

    from latentedit.directions.direction import Direction
    from latentedit.inversion.pivotal_tuning import Tuning
    from latentedit.inversion.result import Inversion
    from latentedit.latent.latent_file import Latent
    from latentedit.model.model import Model
    from latentedit.networks.generator import Generator

AMOUNTS = (-2.0, -1.0, 0.0, 1.0, 2.0)
FIRST = {"smile": 1.25, "femininity": -1.5, "turn": 1.0, "grey-hair": 2.0}
"""Sliders of the large image, and their amounts."""
TUNE_STEPS = 80
TUNE_RATE = 2e-3
"""Pivotal tuning, for the default number of search steps; other numbers of steps are scaled in
proportion."""
LARGE = 256
SMALL = 160
"""Sides of the images on the sheets, in pixels."""


def portrait() -> Path:
    """Return the path of the bundled portrait: a person of the Face Research Lab London Set who is
    not in the training data.

    L. DeBruine and B. Jones, 2017, figshare 10.6084/m9.figshare.5047666, CC BY 4.0; cut and scaled.
    """
    from latentedit.model.bundled import BUNDLED

    return BUNDLED / "portrait.jpg"


@click.command()
@click.option("--photo", type=click.Path(), help="Portrait to use (default: the bundled one).")
@click.option(
    "--out",
    type=click.Path(),
    default="demo",
    show_default=True,
    help="Folder for images and the latent file.",
)
@click.option(
    "--steps",
    default=100,
    show_default=True,
    type=click.IntRange(1, MOST),
    help="Optimisation steps.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@device_option
@seed_option
def demo(photo: str | None, out: str, steps: int, as_json: bool, device: str, seed: int) -> None:
    """Invert a portrait into faces128 and apply every bundled slider to it.

    The generator is tuned to the portrait, as with "latentedit invert --tune". Writes demo.png
    (photo, inversion, four edits), sliders.png (every slider from -2 to +2), smiling.jpg (an edit
    pasted back into the photo) and portrait.safetensors (the latent file, for "latentedit edit").

    \b
    Example:
      latentedit demo --out demo
    """
    from latentedit.directions.direction import read_direction
    from latentedit.directions.registry import shipped
    from latentedit.inversion.verdict import judge
    from latentedit.io import contact_sheet
    from latentedit.io.images import open_image, own_path, save_image, to_pil
    from latentedit.latent.latent_file import save_latent
    from latentedit.networks.fingerprint import fingerprint
    from latentedit.photo.alignment import crop_tensor, faces_for, quad_from_face
    from latentedit.photo.crop_hash import crop_hash
    from latentedit.photo.faces import notes_on, warnings_of
    from latentedit.photo.pasting import paste_back, save_like

    path = Path(photo) if photo else portrait()
    folder = Path(out)
    written: list[str] = []

    def say_done(file: Path) -> None:
        written.append(str(file))
        if not as_json:
            say_written(file)

    model = read_model("faces128", device)
    generator = model.generator
    picture = open_image(path)
    faces = faces_for(picture, model.framing or {}, str(path), ways=())
    face = faces[0]
    for note in notes_on(faces, 1, ways=()):
        log.remark(note)
    for warning in warnings_of(face, ways=()):
        log.warn(warning)

    quad = quad_from_face(face, model.framing or {})
    target = crop_tensor(picture, quad, generator.resolution, generator.channels)

    result, tuning = search(model, target, steps, seed)
    latent = result.latent()
    latent.crop = quad
    latent.crop_hash = crop_hash(target)
    if tuning is None:
        save_latent(folder / "portrait.safetensors", latent)
        raise Interrupted(
            f"interrupted; the best result so far is in {folder / 'portrait.safetensors'}"
        )

    tuning.put_into(latent)
    directions = {
        name: read_direction(file) for name, file in sorted(shipped(fingerprint(generator)).items())
    }
    chosen = {name: amount for name, amount in FIRST.items() if name in directions}

    unmoved = latent.render(generator)
    pictures = [
        target,
        unmoved,
        *(render_moved(generator, latent, directions[name], chosen[name]) for name in chosen),
    ]
    captions = ["photo", "inversion", *(f"{name} {amount:+g}" for name, amount in chosen.items())]
    halves = [
        contact_sheet.Row("", pictures[i : i + 3], captions[i : i + 3])
        for i in range(0, len(pictures), 3)
    ]
    drawn = own_path(folder / "demo.png", "latentedit")
    save_image(contact_sheet.sheet(halves, LARGE), drawn)
    say_done(drawn)

    rows = []
    with progress_bar(len(directions) * len(AMOUNTS), "rendering", "image") as bar:
        for name, direction in directions.items():
            strip = []
            for amount in AMOUNTS:
                strip.append(
                    render_moved(generator, latent, direction, amount) if amount else unmoved
                )
                bar.update(1)
            rows.append(
                contact_sheet.Row(
                    name, strip, [f"{amount:+g}" if amount else "0" for amount in AMOUNTS]
                )
            )

    drawn = own_path(folder / "sliders.png", "latentedit")
    save_image(contact_sheet.sheet(rows, SMALL), drawn)
    say_done(drawn)

    if "smile" in directions:
        before = to_pil(unmoved)
        smiling = to_pil(render_moved(generator, latent, directions["smile"], FIRST["smile"]))
        drawn = own_path(folder / "smiling.jpg", "latentedit")
        save_like(paste_back(picture, smiling, quad, before=before), drawn, path)
        say_done(drawn)

    look = onlooker_of(model).look(latent)
    look.put_into(latent)
    save_latent(folder / "portrait.safetensors", latent)
    say_done(folder / "portrait.safetensors")
    found = result.distances[0]
    verdict = judge(latent.distances, look)
    if as_json:
        facts = {"photo": str(path), **found, "psnr_tuned": tuning.after["psnr"]}
        print_facts({**facts, "verdict": str(verdict), "written": written}, as_json)
        return
    click.echo(f"PSNR {found['psnr']:.1f} dB, after tuning {tuning.after['psnr']:.1f} dB")
    click.echo(f"distance from the mean w {found['w_distance']:.2f} (random w: about 1)")
    click.echo(str(verdict))
    if limits := verdict.limits():
        click.echo(limits)


def search(
    model: "Model", target: "Tensor", steps: int, seed: int
) -> "tuple[Inversion, Tuning | None]":
    """Invert into W+ with the model's own noise and tune the generator to the portrait; the tuning
    is None after Ctrl-C."""
    from latentedit.inversion.options import STEPS, InversionOptions
    from latentedit.inversion.pivotal_tuning import TuningOptions
    from latentedit.inversion.preconditioner import PROBES
    from latentedit.inversion.projector import Projector

    projector = Projector(model)
    log.remark(projector.perceptual_line)
    if not projector.has_curvature():
        with progress_bar(PROBES, "measuring the model") as bar:
            projector.curvature(progress=lambda done: bar.update(done - bar.n))

    with progress_bar(steps, "inverting") as bar:
        options = InversionOptions(steps=steps, noise="frozen", seed=seed)
        result = projector.invert(target, options, on_step=lambda _: bar.update(1))

    if result.interrupted:
        return result, None

    tune_steps = max(TUNE_STEPS * steps // STEPS["quasi-newton"], 1)
    with progress_bar(tune_steps, "tuning the generator") as bar:
        chosen = TuningOptions(tune_steps, learning_rate=TUNE_RATE)
        tuning = projector.tune(target, result.ws, result.noise, chosen, lambda *_: bar.update(1))

    return result, tuning


def render_moved(
    generator: "Generator", latent: "Latent", direction: "Direction", amount: float
) -> "Tensor":
    """Render ``latent`` moved by ``amount`` sigmas."""
    from dataclasses import replace

    from latentedit.latent.editing import edit

    return replace(latent, ws=edit(latent.ws, direction, amount)).render(generator)
