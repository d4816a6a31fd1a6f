"""``align``: from photographs to crops."""

import json
from pathlib import Path

import click

from latentedit.cli import log
from latentedit.cli.common import (
    device_option,
    each,
    face_options,
    folder_option,
    found_files,
    framing_option,
    json_option,
    megapixels_option,
    model_option,
    quads_of,
    read_model,
    recursive_option,
    say_written,
)


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@model_option()
@framing_option
@face_options
@folder_option("Folder for the crops.")
@json_option
@recursive_option
@megapixels_option
@device_option
def align(
    photos: tuple[str, ...],
    model_name: str,
    framing: str | None,
    face: str,
    landmarks: str | None,
    face_detector: str | None,
    out: str,
    as_json: bool,
    recursive: bool,
    device: str,
) -> None:
    """Find the face in every PHOTO (or folder) and write the crop that the model expects.

    Writes one NAME.png per photo. Photos that share a name become NAME-ENDING.png or
    FOLDER-NAME.png. If NAME.png is an image of yours, the crop becomes NAME-crop.png.

    A warning says when a face may be framed wrongly. With pip install "latentedit[faces]", faces
    are aligned by 68 landmarks.

    \b
    Example:
      latentedit align holiday.jpg --out crops
    """
    from latentedit.io.folders import distinct
    from latentedit.io.images import CUT, EXTENSIONS, open_image, open_reduced, own_path, save_image
    from latentedit.photo.alignment import crop

    model = read_model(model_name, device, framing)
    photos_found = found_files(photos, EXTENSIONS, "images", recursive=recursive, photos=True)
    names = distinct(photos_found)
    theirs = {f"{name}.png".casefold() for name in names.values()}

    def work(path: Path) -> None:
        # Landmarks are in pixels of the photo as it is.
        photo, reduced = (open_image(path), 1) if landmarks else open_reduced(path)
        for suffix, quad, warnings, notes in quads_of(
            photo, model, str(path), face, landmarks, face_detector
        ):
            for note in notes:
                log.remark(f"{path.name}: {note}")
            for warning in warnings:
                log.warn(f"{path.name}: {warning}")
            target = own_path(Path(out) / f"{names[path]}{suffix}.png", "crop", theirs)
            save_image(crop(photo, quad, model.generator.resolution), target, CUT)
            if not as_json:
                say_written(target)
                continue
            corners = [[x * reduced, y * reduced] for x, y in quad]
            facts = {"photo": str(path), "written": str(target), "crop": corners}
            click.echo(json.dumps(facts | {"remarks": warnings, "notes": list(notes)}))

    each(photos_found, work)
