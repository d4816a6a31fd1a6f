"""``dataset`` and ``train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.cli.common import device_option, expand, parse_numbers, say_written
from latentedit.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image


BAR = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.0f} kimg [{elapsed}<{remaining}{postfix}]"


@click.group()
def dataset() -> None:
    """Make and inspect training sets."""


@dataset.command()
@click.argument("folder", type=click.Path())
@click.option("--size", required=True, type=int, help="Side of the squares in pixels, a power of two.")
@click.option("--crop", metavar="X,Y,SIZE", help="The same square of every picture; by default the central one.")
@click.option("--colour", type=click.Choice(["grey", "rgb"]), default="rgb", show_default=True, help="Channels.")
@click.option("--out", type=click.Path(), required=True, help="Training set (.zip).")
def build(folder: str, size: int, crop: str | None, colour: str, out: str) -> None:
    """Cut the pictures of FOLDER to squares of one size and store them in a zip; unreadable ones are listed and skipped.

    \b
    Example:
      latentedit dataset build photos --size 64 --out photos64.zip
    """
    from latentedit.images import EXTENSIONS, open_image, resample
    from latentedit.training.data import write_pictures

    if size < 8 or size & (size - 1):
        raise Error(f"--size must be a power of two of at least 8, got {size}")
    window = parse_numbers(crop, 3, "--crop") if crop else None
    if not Path(folder).is_dir():
        raise Error(f"{folder}: no such folder")
    paths = [p for p in sorted(Path(folder).rglob("*")) if p.suffix.lower() in EXTENSIONS]
    if not paths:
        expand([folder], EXTENSIONS, "pictures")
    skipped: list[str] = []

    def squares() -> "Iterator[tuple[str, Image.Image]]":
        for path in paths:
            try:
                picture = open_image(path)
                left, top, side = window or (0.0, 0.0, 0.0)
                if window is None:
                    side = min(picture.size)
                    left, top = (picture.width - side) // 2, (picture.height - side) // 2
                elif left < 0 or top < 0 or left + side > picture.width or top + side > picture.height:
                    raise Error(f"{path}: --crop {crop} lies outside the picture of {picture.width} x {picture.height}")
                square = resample(picture, (left, top, left + side, top + side), size)
                yield (
                    path.relative_to(folder).with_suffix(".png").as_posix(),
                    square.convert("L" if colour == "grey" else "RGB"),
                )
            except Error as error:
                skipped.append(str(error))

    count = write_pictures(out, squares())
    for message in skipped:
        click.echo(f"skipped {message}", err=True)
    click.echo(f"{count} pictures of {size} x {size}, {colour}")
    say_written(out)


@dataset.command()
@click.argument("data", type=click.Path())
def info(data: str) -> None:
    """Counts, sizes and labels of a training set (zip or folder).

    \b
    Example:
      latentedit dataset info photos64.zip
    """
    from latentedit.training.data import load_pictures

    pictures = load_pictures(data)
    colour = "grey" if pictures.channels == 1 else "RGB"
    click.echo(f"{len(pictures)} pictures of {pictures.resolution} x {pictures.resolution}, {colour}")
    for label, count in enumerate(pictures.labels.sum(dim=0).int().tolist()):
        click.echo(f"label {label}: {count}")
    click.echo(f"sha256 {pictures.digest()}")


@click.command()
@click.argument("data", type=click.Path())
@click.option("--out", type=click.Path(), required=True, help="Folder of the run; run again to resume.")
@click.option("--preset", default="small", show_default=True, help="Name of a preset, or a TOML file.")
@click.option("--kimg", type=float, help="Stop after this many thousand pictures.")
@click.option("--max-minutes", type=float, help="Stop after this time, with a snapshot.")
@click.option("--snapshot-kimg", type=float, help="Thousand pictures between snapshots.")
@click.option("--batch", type=int, help="Pictures a step.")
@click.option("--learning-rate", type=float, help="Of both networks; may be lowered when a run is resumed.")
@click.option("--gamma", type=float, help="Weight of the R1 penalty.")
@click.option("--augment", help="Group of augmentations (bg, bgc, ...), or none.")
@click.option("--augment-p", type=float, help="Strength of the augmentation at the start, 0 to 1.")
@click.option("--mirror/--no-mirror", default=None, help="Show every picture mirrored as well.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="Of the blocks from 16 x 16 up.")
@click.option("--eyes", metavar="AX,AY,BX,BY", help="Where eyes lie in these pictures, in fractions of the side.")
@click.option("--mouth", metavar="X,Y", help="Where the mouth lies.")
@click.option("--init-from", metavar="MODEL", help="Start from the weights of this model, as far as they fit.")
@click.option("--seed", type=int, help="Of every random draw.")
@device_option
def train(
    data: str,
    out: str,
    preset: str,
    kimg: float | None,
    max_minutes: float | None,
    snapshot_kimg: float | None,
    batch: int | None,
    learning_rate: float | None,
    gamma: float | None,
    augment: str | None,
    augment_p: float | None,
    mirror: bool | None,
    precision: str | None,
    eyes: str | None,
    mouth: str | None,
    init_from: str | None,
    seed: int | None,
    device: str,
) -> None:
    """Train a generator on DATA, a zip or folder of squares ("latentedit dataset build").

    The same command again goes on from the last snapshot. Ctrl-C finishes the step, writes a snapshot and stops. With --eyes
    the model file says how faces are framed, so that "align" and "invert" can crop new photographs.

    \b
    Example:
      latentedit train photos64.zip --out runs/photos64 --preset small --max-minutes 90
    """
    from latentedit.devices import resolve_device
    from latentedit.models import load_model
    from latentedit.training import load_pictures, load_preset
    from latentedit.training import train as run

    config = load_preset(preset).changed(
        kimg=kimg,
        snapshot_kimg=snapshot_kimg,
        batch=batch,
        learning_rate=learning_rate,
        r1_gamma=gamma,
        augment=augment,
        augment_p=augment_p,
        mirror=mirror,
        precision=precision,
        seed=seed,
    )
    framing = _framing(eyes, mouth)
    pictures = load_pictures(data)
    click.echo(f"{len(pictures)} pictures of {pictures.resolution} x {pictures.resolution}, {pictures.channels} channels")
    from tqdm import tqdm

    bar: Any = None

    def report(figures: dict[str, float]) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=config.kimg, initial=figures["kimg"], unit="kimg", dynamic_ncols=True, bar_format=BAR)
        bar.n = figures["kimg"]
        bar.set_postfix_str(f"{figures['images_per_second']:.0f} images/s, augmentation {figures['ada_p']:.2f}")

    try:
        model = run(
            config,
            pictures,
            out,
            device=resolve_device(device),
            max_minutes=max_minutes,
            framing=framing,
            provenance={"data": Path(data).name},
            init_from=load_model(init_from) if init_from else None,
            report=report,
        )
    finally:
        if bar is not None:
            bar.close()
    say_written(model)


def _framing(eyes: str | None, mouth: str | None) -> dict[str, Any] | None:
    if eyes is None:
        if mouth is not None:
            raise Error("--mouth goes with --eyes")
        return None
    ax, ay, bx, by = parse_numbers(eyes, 4, "--eyes")
    framing: dict[str, Any] = {"kind": "face", "eyes": [[ax, ay], [bx, by]]}
    if mouth is not None:
        framing["mouth"] = parse_numbers(mouth, 2, "--mouth")
    return framing
