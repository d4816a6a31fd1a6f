"""``align`` and ``invert``: from photographs to crops and latents."""

from pathlib import Path

import click

from latentedit.cli.common import (
    crop_options,
    device_option,
    each,
    expand,
    framing_option,
    model_option,
    progress_bar,
    quad_of,
    read_model,
    say_written,
    seed_option,
)


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@model_option()
@framing_option
@click.option("--out", type=click.Path(), required=True, help="Folder for the crops.")
@device_option
def align(photos: tuple[str, ...], model_name: str, framing: str | None, out: str, device: str) -> None:
    """Find the face in every PHOTO (or folder) and write the crop that the model was trained on.

    \b
    Example:
      latentedit align holiday.jpg --out crops
    """
    from latentedit.faces import crop, quad_for
    from latentedit.images import EXTENSIONS, open_image, save_image

    model = read_model(model_name, device, framing)

    def work(path: Path) -> None:
        photo = open_image(path)
        quad = quad_for(photo, model.framing, str(path))
        target = Path(out) / f"{path.stem}.png"
        save_image(crop(photo, quad, model.generator.resolution), target)
        say_written(target)

    each(expand(photos, EXTENSIONS, "pictures"), work)


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@model_option()
@click.option("--out", type=click.Path(), required=True, help="Folder for latent files and pictures.")
@click.option("--space", type=click.Choice(["w", "w+"]), default="w+", show_default=True, help="One w, or one a layer.")
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(1), help="Optimisation steps.")
@crop_options
@framing_option
@click.option(
    "--perceptual",
    type=click.Choice(["auto", "lpips", "discriminator"]),
    default="auto",
    show_default=True,
    help="Distance to minimise; auto is LPIPS where its weights are at hand.",
)
@click.option("--perceptual-weights", metavar="FILE", help="vgg16-397923af.pth, for LPIPS.")
@click.option("--remember-source", is_flag=True, help="Keep the photo's name and SHA-256 in the latent file.")
@device_option
@seed_option
def invert(
    photos: tuple[str, ...],
    model_name: str,
    out: str,
    space: str,
    steps: int,
    crop: str | None,
    aligned: bool,
    framing: str | None,
    perceptual: str,
    perceptual_weights: str | None,
    remember_source: bool,
    device: str,
    seed: int,
) -> None:
    """Find the latent whose picture is nearest to each PHOTO (or each picture of a folder).

    Writes NAME.safetensors, NAME.png (the picture it renders) and NAME-compare.png (photo, with the found noise, with the
    model's own noise) a photo.

    \b
    Example:
      latentedit invert me.jpg --out latents
    """
    from latentedit import sheets
    from latentedit.faces import crop_tensor
    from latentedit.images import EXTENSIONS, open_image, save_image
    from latentedit.inversion import invert as run
    from latentedit.latents import describe_source, save_latent
    from latentedit.perceptual import choose
    from latentedit.statistics import WStatistics

    files = expand(photos, EXTENSIONS, "pictures")
    model = read_model(model_name, device, framing)
    generator = model.generator
    measure, line = choose(perceptual, model.discriminator, perceptual_weights, generator.device)
    click.echo(line, err=True)
    statistics = WStatistics.of(generator)

    def work(path: Path) -> None:
        photo = open_image(path)
        quad = quad_of(photo, model, crop, aligned, str(path))
        target = crop_tensor(photo, quad, generator.resolution, generator.channels)
        with progress_bar(steps, path.name) as bar:
            result = run(
                generator,
                target,
                space,
                steps,
                perceptual=measure,
                seed=seed,
                statistics=statistics,
                progress=lambda *_: bar.update(1),
            )
        latent = result.latent()
        latent.crop = quad
        latent.source = describe_source(path) if remember_source else None
        folder = Path(out)
        save_latent(folder / f"{path.stem}.safetensors", latent)
        save_image(result.image, folder / f"{path.stem}.png")
        pictures = [target, result.image, result.image_own_noise]
        row = sheets.Row(path.name, pictures, ["photo", "found noise", "own noise"])
        save_image(sheets.sheet([row]), folder / f"{path.stem}-compare.png")
        found = result.distances[0]
        click.echo(
            f"{path.name}: {measure.name} {found['perceptual']:.4f} / {found['perceptual_own_noise']:.4f}, PSNR"
            f" {found['psnr']:.1f} / {found['psnr_own_noise']:.1f} dB (found / own noise); distance from the model's own w"
            f" {found['w_distance']:.2f} (its own: about 1; farther than {found['w_percentile']:.0f} % of them)"
        )
        for name in (f"{path.stem}.safetensors", f"{path.stem}.png", f"{path.stem}-compare.png"):
            say_written(folder / name)

    each(files, work)
