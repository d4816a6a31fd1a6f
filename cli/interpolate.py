"""``interpolate``: strips and videos of the way through several latents or random faces."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.cli import defaults
from latentedit.cli.common import (
    PSI,
    device_option,
    megapixels_option,
    model_option,
    read_model,
    rendering_bar,
    say_written,
)
from latentedit.cli.latents import read_together
from latentedit.cli.moving import (
    LOOPS,
    MOST_IMAGES,
    STRIP,
    Timing,
    is_video,
    video_options,
    write_video,
)
from latentedit.cli.photos import Inverting, Sources, photo_options
from latentedit.cli.sample import label_of, parse_seeds
from latentedit.errors import ArgumentError

if TYPE_CHECKING:
    from PIL import Image


@click.command()
@click.argument("latents", nargs=-1, metavar="[PHOTO|LATENT]...")
@click.option("--seeds", help="Random faces instead of latent files, such as 3,14,15 or 0-7.")
@click.option("--psi", type=PSI, help="With --seeds: truncation.  [default: 0.7]")
@click.option(
    "--class", "label", help="With --seeds: label for a conditional model, number or name."
)
@click.option(
    "--path",
    "kind",
    type=click.Choice(["linear", "spline", "z", "spherical"]),
    default="linear",
    show_default=True,
    help="Straight lines (linear) or a smooth curve (spline) in w; with --seeds also straight "
    "lines (z)"
    " or arcs (spherical) in z.",
)
@click.option(
    "--count", type=click.IntRange(2, MOST_IMAGES), help="Number of images, one way.  [default: 7]"
)
@video_options(LOOPS)
@model_option(None)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    required=True,
    help="Image (a strip), or video (.mp4, .webm or .gif).",
)
@click.option("--force", is_flag=True, help="Accept latents of another generator.")
@photo_options
@megapixels_option
@device_option
def interpolate(
    latents: tuple[str, ...],
    seeds: str | None,
    psi: float | None,
    label: str | None,
    kind: Any,
    count: int | None,
    fps: float | None,
    seconds: float | None,
    loop: str | None,
    model_name: str | None,
    out: str,
    force: bool,
    device: str,
    inverting: Inverting,
) -> None:
    """Go through every PHOTO or LATENT in turn, or through the random faces of --seeds.

    Between latents, noise maps and tuned generators change too. The time between two points is
    always the same. Photos are inverted first, as by "latentedit edit".

    \b
    Example:
      latentedit interpolate me.jpg you.jpg --out strip.png
      latentedit interpolate me.safetensors you.safetensors --out strip.png
      latentedit interpolate me.safetensors you.safetensors --count 24 --out me-to-you.mp4
      latentedit interpolate a.safetensors b.safetensors c.safetensors --path spline --loop round
          --seconds 6 --out abc.mp4
      latentedit interpolate --seeds 3,14,15,92 --path spherical --loop round --seconds 8 --out
          faces.mp4
    """
    from latentedit.io import contact_sheet
    from latentedit.io.images import check_picture, save_image, to_pil
    from latentedit.latent.paths import IN_Z, Course, Seeds, through_latents, through_seeds

    numbers = [] if seeds is None else parse_seeds(seeds)
    if bool(latents) == bool(numbers):
        raise ArgumentError(f"give latent files or --seeds{', not both' if numbers else ''}")
    if latents and (psi is not None or label is not None):
        name = "--psi" if psi is not None else "--class"
        raise ArgumentError(f"{name} needs --seeds: the w of a latent file is fixed")
    if latents and kind in IN_Z:
        raise ArgumentError(f"--path {kind} needs --seeds: a latent file has no z")
    names = [str(number) for number in numbers] or [Path(text).stem for text in latents]
    if len(names) < 2:
        raise ArgumentError(f"a path needs at least 2 {'seeds' if numbers else 'latents'}, got 1")

    timing = Timing(fps, seconds, loop)
    images = timing.count(count, 7, "--count")
    if not is_video(out):
        check_picture(out)
        timing.check(out)
        if images > STRIP:
            raise ArgumentError(f"a strip has at most {STRIP} images; a video may have {images}")

    course = Course(images, kind, closed=loop == "round")
    if numbers:
        model = read_model(model_name or defaults.value_of("model") or "faces128", device)
        generator = model.generator
        found = Seeds(numbers, label_of(model, label), 0.7 if psi is None else psi)
        walk = through_seeds(generator, found, course)
    else:
        files, model = read_together(latents, Sources(model_name, device, inverting, force=force))
        generator = model.generator
        walk = through_latents(generator, files, course)

    def draw(number: int) -> "Image.Image":
        return to_pil(walk(number).render(generator))

    if is_video(out):
        write_video(out, images, draw, timing)
    else:
        pictures = []
        with rendering_bar(images) as rendered:
            for number in range(images):
                pictures.append(walk(number).render(generator))
                rendered()
        positions = course.positions(len(names)).tolist()
        title = f"{'seeds ' if numbers else ''}{' to '.join(names)}"
        row = contact_sheet.Row(title, pictures, [f"{position:.2f}" for position in positions])
        save_image(contact_sheet.sheet([row]), out)

    say_written(out)
