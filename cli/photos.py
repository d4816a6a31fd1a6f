"""``align``: from photographs to crops."""

from pathlib import Path

import click

from latentedit.cli.common import (
    device_option,
    each,
    expand,
    face_options,
    framing_option,
    model_option,
    quads_of,
    read_model,
    say_written,
)


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@model_option()
@framing_option
@face_options
@click.option("--out", type=click.Path(), required=True, help="Folder for the crops.")
@device_option
def align(
    photos: tuple[str, ...],
    model_name: str,
    framing: str | None,
    face: str,
    landmarks: str | None,
    face_detector: str | None,
    out: str,
    device: str,
) -> None:
    """Find the face in every PHOTO (or folder) and write the crop that the model was trained on.

    A face that may be framed wrongly is told of. With pip install "latentedit[faces]" faces are aligned by 68 landmarks.

    \b
    Example:
      latentedit align holiday.jpg --out crops
    """
    from latentedit.faces import crop
    from latentedit.images import EXTENSIONS, open_image, save_image

    model = read_model(model_name, device, framing)

    def work(path: Path) -> None:
        photo = open_image(path)
        for suffix, quad, warnings in quads_of(photo, model, str(path), face, landmarks, face_detector):
            for warning in warnings:
                click.echo(f"{path.name}: {warning}", err=True)
            target = Path(out) / f"{path.stem}{suffix}.png"
            save_image(crop(photo, quad, model.generator.resolution), target)
            say_written(target)

    each(expand(photos, EXTENSIONS, "pictures"), work)
