"""``demo``: the whole main job on bundled things."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.cli.common import device_option, progress_bar, read_model, say_written, seed_option

if TYPE_CHECKING:
    from latentedit.inversion import Inversion

AMOUNTS = (-2.0, -1.0, 0.0, 1.0, 2.0)

PRIOR_WEIGHT = 0.2
"""Twenty times the usual: a portrait foreign to the model is held near what the model knows, so that sliders act."""
TUNE_STEPS = 200
"""For the usual number of steps of the search; in proportion for others."""


def portrait() -> Path:
    """The photograph that comes with matplotlib (Grace Hopper; US Navy, public domain)."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@click.command()
@click.option("--photo", type=click.Path(), help="A portrait of your own; by default one that comes with matplotlib.")
@click.option("--out", type=click.Path(), default="demo", show_default=True, help="Folder for pictures and latent file.")
@click.option("--steps", default=100, show_default=True, type=click.IntRange(1), help="Optimisation steps.")
@device_option
@seed_option
def demo(photo: str | None, out: str, steps: int, device: str, seed: int) -> None:
    """Invert a portrait into faces128 and move every slider that ships with it.

    \b
    Example:
      latentedit demo --out demo
    """
    from latentedit import sheets
    from latentedit.curvature import PROBES, Curvature
    from latentedit.directions.direction import read_direction, shipped
    from latentedit.editing import edit
    from latentedit.encoder import encode
    from latentedit.faces import crop_tensor, quad_for
    from latentedit.images import open_image, save_image
    from latentedit.inversion import STEPS, invert
    from latentedit.latents import save_latent
    from latentedit.models import fingerprint
    from latentedit.perceptual import choose
    from latentedit.statistics import WStatistics
    from latentedit.tuning import tune

    path = Path(photo) if photo else portrait()
    folder = Path(out)
    model = read_model("faces128", device)
    generator = model.generator
    picture = open_image(path)
    quad = quad_for(picture, model.framing, str(path))
    target = crop_tensor(picture, quad, generator.resolution, generator.channels)
    measure, line = choose("auto", model.discriminator, None, generator.device)
    click.echo(line, err=True)
    statistics = WStatistics.of(generator)
    own = fingerprint(generator)

    curvature = model.curvature
    if curvature is None:
        with progress_bar(PROBES, "measuring the model") as bar:
            curvature = Curvature.cached(generator, measure, statistics, own, lambda done: bar.update(done - bar.n))

    def search(space: str, **options: Any) -> "Inversion":
        start = None
        if model.encoder is not None:
            start = encode(generator, model.encoder, target.to(generator.device), space, statistics=statistics)
        with progress_bar(steps, f"inverting into {space.upper()}") as bar:
            return invert(
                generator,
                target,
                space,
                steps,
                perceptual=measure,
                curvature=curvature,
                start=start,
                statistics=statistics,
                seed=seed,
                progress=lambda *_: bar.update(1),
                **options,
            )

    plus, pivot = search("w+"), search("w", prior_weight=PRIOR_WEIGHT, noise="frozen")
    # One w for all layers, near the model's own, resembles little and edits well; then the generator moves towards the photo.
    tune_steps = TUNE_STEPS * steps // STEPS["quasi-newton"] or 1
    with progress_bar(tune_steps, "tuning the generator") as bar:
        tuning = tune(generator, target, pivot.ws, pivot.noise, measure, tune_steps, progress=lambda *_: bar.update(1))
    latent = pivot.latent()
    tuning.put_into(latent)
    latent.crop = quad
    pictures = [target, plus.image, plus.image_own_noise, pivot.image, latent.render(generator)]
    captions = ["photo", "W+", "W+, own noise", "W", "W, tuned"]
    first = sheets.Row(f"{path.name}, cropped and inverted", pictures, captions)
    rows = [first]
    base = latent.ws
    for name, file in sorted(shipped(own).items()):
        direction = read_direction(file)
        strip = []
        for amount in AMOUNTS:
            latent.ws = edit(base, direction, amount)
            strip.append(latent.render(generator))
        row = sheets.Row(f"{name}, in sigmas", strip, [f"{amount:+.1f}" for amount in AMOUNTS])
        save_image(sheets.sheet([row]), folder / f"{name}.png")
        say_written(folder / f"{name}.png")
        rows.append(row)
    latent.ws = base
    save_image(sheets.sheet([first]), folder / "inversion.png")
    say_written(folder / "inversion.png")
    save_image(sheets.sheet(rows), folder / "sliders.png")
    say_written(folder / "sliders.png")
    save_latent(folder / "portrait.safetensors", latent)
    say_written(folder / "portrait.safetensors")
    for name, result in (("W+", plus), ("W", pivot)):
        found = result.distances[0]
        click.echo(
            f"{name}: PSNR {found['psnr']:.1f} dB with the found noise, {found['psnr_own_noise']:.1f} dB with"
            f" the model's own; distance from the model's own w {found['w_distance']:.2f} (its own: about 1)"
        )
    click.echo(f"W, tuned: PSNR {tuning.after['psnr']:.1f} dB")
