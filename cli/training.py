"""``dataset`` and ``train``."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from latentedit.cli import log
from latentedit.cli.common import (
    SEED,
    Finite,
    bar_options,
    device_option,
    megapixels_option,
    parse_numbers,
    progress_bar,
    read_model,
    say_seen,
    say_written,
)
from latentedit.cli.groups import Forgiving
from latentedit.cli.tables import say_table
from latentedit.errors import ArgumentError

if TYPE_CHECKING:
    from latentedit.training.config import TrainingConfig
    from latentedit.training.data import PictureSet
    from latentedit.training.distributed import World


BAR = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.0f} kimg [{elapsed}<{remaining}{postfix}]"
SHEET_ROWS = 8
SHEET_COLUMNS = 10


@click.group(cls=Forgiving)
def dataset() -> None:
    """Create and inspect training sets."""


@dataset.command()
@click.argument("source", type=click.Path())
@click.option(
    "--size",
    required=True,
    type=click.IntRange(4, 4096),
    help="Side of the square images in pixels, a power of two.",
)
@click.option(
    "--crop",
    default="centre",
    show_default=True,
    metavar="centre|face|X,Y,SIZE",
    help="Which square to take from each image.",
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "skip"]),
    default="crop",
    show_default=True,
    help="How to treat images that are not square.",
)
@click.option(
    "--background",
    type=click.Choice(["white", "black", "skip"]),
    default="white",
    show_default=True,
    help="Background for transparent images.",
)
@click.option(
    "--colour",
    type=click.Choice(["grey", "rgb"]),
    default="rgb",
    show_default=True,
    help="Colour channels.",
)
@click.option(
    "--eyes",
    metavar="AX,AY,BX,BY",
    help="With --crop face: position of the eyes, in fractions of the side.",
)
@click.option(
    "--labels",
    metavar="FILE.csv|folders",
    help="Class labels: a CSV with a file column, or the names of the sub-folders.",
)
@click.option("--column", help="Column of the CSV that holds the class.")
@click.option("--renderings", is_flag=True, help="Include images that latentedit rendered.")
@click.option(
    "--out", type=click.Path(), required=True, help="Training set to write: a .zip or a new folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@megapixels_option
def build(
    source: str,
    size: int,
    crop: str,
    fit: str,
    background: str,
    colour: str,
    eyes: str | None,
    labels: str | None,
    column: str | None,
    renderings: bool,
    out: str,
    as_json: bool,
) -> None:
    """Crop and scale the images of SOURCE (a folder or zip) to squares of one size.

    Unreadable files are listed and skipped. Sub-folders are included, hidden files are not. The
    labels of a dataset.json in SOURCE are kept. With --crop face, a warning names faces that may be
    framed wrongly.

    \b
    Example:
      latentedit dataset build photos --size 64 --crop face --out photos64.zip
    """
    from latentedit.photo.faces import Seen
    from latentedit.training.data import write_pictures
    from latentedit.training.preparation import Preparation, Skipped, class_labels, prepared

    if eyes and crop != "face":
        raise ArgumentError("--eyes needs --crop face")

    preparation = Preparation(
        size,
        cast(Any, crop if crop in ("centre", "face") else tuple(parse_numbers(crop, 3, "--crop"))),
        cast(Any, fit),
        colour == "grey",
        cast(Any, background),
        _framing(eyes, None),
    )
    skipped = Skipped()
    sources: dict[str, str] = {}
    given = class_labels(source, labels, column)
    classes: set[str] = set()

    def label_of(name: str) -> str | None:
        found = given(sources[name]) if given else None
        classes.update([found] if found is not None else [])
        return found

    seen = Seen()
    try:
        with ExitStack() as stack:
            bars: list[Any] = []

            def report(done: int, total: int) -> None:
                if not bars:
                    bars.append(stack.enter_context(progress_bar(total, "preparing", "image")))
                bars[0].update(done - bars[0].n)

            pictures = prepared(
                source,
                preparation,
                skipped,
                sources,
                renderings=renderings,
                seen=seen,
                progress=report,
            )
            count = write_pictures(out, pictures, label_of if given else None)
    finally:
        for sentence in skipped.others:
            log.warn(sentence)
        for problem in skipped.images:
            log.warn(f"skipped {problem}")

    say_seen(seen, count)
    if len(classes) == 1:
        log.warn(
            f"warning: all images have the same class, {classes.pop()!r}, so the labels are useless"
        )

    bad = len(skipped.images)
    if as_json:
        facts = {"images": count, "resolution": size, "colour": colour, "skipped": skipped.images}
        facts |= {"doubtful": {name: list(why) for name, why in seen.doubts.items()}}
        facts |= {"several_faces": seen.several, "turned": seen.turned, "written": out}
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"{count} images of {size} x {size}, {colour}" + (f"; {bad} skipped" if bad else ""))
    say_written(out)


@dataset.command()
@click.argument("data", type=click.Path())
@click.option(
    "--sheet",
    type=click.Path(),
    help="Contact sheet to write: one row per label, or 80 evenly spaced images.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(data: str, sheet: str | None, as_json: bool) -> None:
    """Show the size, the label balance and the loading speed of a training set (zip or folder).

    \b
    Example:
      latentedit dataset info photos64.zip --sheet sheet.png
    """
    from latentedit.training.data import load_pictures
    from latentedit.training.loop import loading_rate

    pictures = load_pictures(data)
    colour = "grey" if pictures.channels == 1 else "RGB"
    counts = pictures.labels.sum(dim=0).int().tolist()
    names = pictures.label_names or [""] * len(counts)
    rate = round(loading_rate(pictures))
    if sheet:
        _contact_sheet(pictures, sheet)
    if as_json:
        labels = zip(names, counts, strict=True)
        facts = {
            "images": len(pictures),
            "resolution": pictures.resolution,
            "colour": colour.lower(),
            "labels": [{"name": str(name), "images": count} for name, count in labels],
            "images_per_second": rate,
            "sha256": pictures.digest(),
        }
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"{len(pictures)} images of {pictures.resolution} x {pictures.resolution}, {colour}")
    if counts:
        rows = [
            (label, name, count, f"{count / len(pictures):.1%}")
            for label, (name, count) in enumerate(zip(names, counts, strict=True))
        ]
        say_table(rows, ("label", "name", "images", "share"))

    click.echo(f"loads at {rate} images/s")
    click.echo(f"sha256 {pictures.digest()}")
    if sheet:
        say_written(sheet)


def _contact_sheet(pictures: "PictureSet", path: str) -> None:
    from latentedit.io.contact_sheet import Row
    from latentedit.io.contact_sheet import sheet as make
    from latentedit.io.images import from_uint8, save_image

    def row(title: str, rows: list[int]) -> Row:
        count = min(len(rows), SHEET_COLUMNS)
        spaced = [rows[i * len(rows) // count] for i in range(count)]
        return Row(
            title,
            list(from_uint8(pictures.read(spaced))),
            [Path(pictures.names[i]).stem[-16:] for i in spaced],
        )

    if pictures.labels.shape[1]:
        of = [
            pictures.labels[:, label].nonzero().flatten().tolist()
            for label in range(pictures.labels.shape[1])
        ]
        names = pictures.label_names or [str(label) for label in range(len(of))]
        rows = [
            row(f"{name}: {len(found)}", found)
            for name, found in zip(names, of, strict=True)
            if found
        ][: 4 * SHEET_ROWS]
    else:
        everything = list(range(len(pictures)))
        lines = min(SHEET_ROWS, -(-len(pictures) // SHEET_COLUMNS))
        rows = [
            row("", everything[i * len(pictures) // lines : (i + 1) * len(pictures) // lines])
            for i in range(lines)
        ]

    save_image(make(rows), path)


@click.command()
@click.argument("data", type=click.Path())
@click.option(
    "--out",
    type=click.Path(),
    required=True,
    help="Folder for the run. Run the same command again to resume.",
)
@click.option(
    "--preset", default="small", show_default=True, help="Name of a preset, or a TOML file."
)
@click.option(
    "--kimg", type=Finite(0, 1e9, min_open=True), help="Stop after this many thousand images."
)
@click.option(
    "--max-minutes", type=Finite(0, 1e7), help="Stop after this time and write a snapshot."
)
@click.option(
    "--snapshot-kimg",
    type=Finite(0, 1e9, min_open=True),
    help="Thousands of images between snapshots.",
)
@click.option("--batch", type=click.IntRange(1, 65536), help="Images per step, over all processes.")
@click.option(
    "--micro-batch",
    type=click.IntRange(1, 65536),
    help="Images at a time per device; smaller values need less memory.",
)
@click.option(
    "--learning-rate", type=Finite(0, 10, min_open=True), help="Learning rate of both networks."
)
@click.option("--gamma", type=Finite(0, 1e6), help="Weight of the R1 penalty.")
@click.option("--augment", help="Augmentations (bg, bgc, upright, ...), or none.")
@click.option("--augment-p", type=Finite(0, 1), help="Initial augmentation strength, 0 to 1.")
@click.option("--mirror/--no-mirror", default=None, help="Also train on the mirrored images.")
@click.option(
    "--swap",
    "swaps",
    multiple=True,
    metavar="LABEL=LABEL",
    help="Labels that a mirrored image exchanges. Repeatable.",
)
@click.option(
    "--freeze-d",
    type=click.IntRange(0, 1000),
    help="Number of discriminator layers, from the image on, to keep fixed.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    help="Precision of the blocks from 16 x 16 up.",
)
@click.option(
    "--eyes",
    metavar="AX,AY,BX,BY",
    help="Position of the eyes in the images, in fractions of the side.",
)
@click.option("--mouth", metavar="X,Y", help="Position of the mouth, in fractions of the side.")
@click.option(
    "--init-from",
    metavar="MODEL",
    help="Start from the weights of this model where names and shapes match.",
)
@click.option(
    "--held-out",
    type=click.Path(),
    help="Images not to train on; the discriminator's outputs for them are logged.",
)
@click.option(
    "--metrics",
    metavar="NAME,...",
    help="Measure every snapshot, as latentedit metrics does, and keep the best by kid (or fid).",
)
@click.option(
    "--features",
    help="Network for --metrics: inception, efficientnet-lite0, or a file "
    "(see latentedit metrics).",
)
@click.option(
    "--tensorboard",
    is_flag=True,
    help="Also write TensorBoard event files (pip install 'latentedit[tensorboard]').",
)
@click.option("--no-graphs", is_flag=True, help="Do not use CUDA graphs: slower, for debugging.")
@click.option("--accept-changes", is_flag=True, help="Resume even if options or data have changed.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the configuration with an estimate of memory and time, and stop.",
)
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print JSON.")
@click.option("--seed", type=SEED, help="Random seed.")
@device_option
def train(
    data: str,
    out: str,
    preset: str,
    kimg: float | None,
    max_minutes: float | None,
    snapshot_kimg: float | None,
    batch: int | None,
    micro_batch: int | None,
    learning_rate: float | None,
    gamma: float | None,
    augment: str | None,
    augment_p: float | None,
    mirror: bool | None,
    swaps: tuple[str, ...],
    freeze_d: int | None,
    precision: str | None,
    eyes: str | None,
    mouth: str | None,
    init_from: str | None,
    held_out: str | None,
    metrics: str | None,
    features: str | None,
    tensorboard: bool,
    no_graphs: bool,
    accept_changes: bool,
    dry_run: bool,
    as_json: bool,
    seed: int | None,
    device: str,
) -> None:
    """Train a generator on DATA, a training set made by "latentedit dataset build".

    Run the same command again to resume from the last snapshot. Ctrl-C finishes the step, writes a
    snapshot and stops. --eyes stores the framing of faces in the model file, so that "align" and
    "invert" can crop new photos. Started by torchrun, the processes share the work.

    \b
    Example:
      latentedit train photos64.zip --out runs/photos64 --preset small --max-minutes 90
    """
    from latentedit.metrics import measure_of
    from latentedit.runtime.devices import resolve_device
    from latentedit.training import RunOptions, join_world, load_pictures, load_preset
    from latentedit.training import train as run

    if as_json and not dry_run:
        raise ArgumentError("--json needs --dry-run")
    load_preset(preset)  # reports a wrong name before anything is read
    where = resolve_device(device)
    world = join_world(where.type)
    if where.type == "cuda" and world.size > 1:
        where = resolve_device(f"cuda:{world.local_rank}")

    framing = _framing(eyes, mouth)
    pictures = load_pictures(data)
    config = load_preset(preset, pictures.resolution, world.size).changed(
        kimg=kimg,
        snapshot_kimg=snapshot_kimg,
        batch=batch,
        micro_batch=micro_batch,
        learning_rate=learning_rate,
        r1_gamma=gamma,
        augment=augment,
        augment_p=augment_p,
        mirror=mirror,
        freeze_d=freeze_d,
        precision=precision,
        seed=seed,
    )
    if swaps and not config.mirror:
        raise ArgumentError("--swap needs --mirror")

    pictures.swap_when_mirrored(dict(_pair(text) for text in swaps))
    if world.leads and not as_json:
        labels = f", {pictures.labels.shape[1]} labels" if pictures.labels.shape[1] else ""
        click.echo(
            f"{len(pictures)} images of {pictures.resolution} x {pictures.resolution}, "
            f"{pictures.channels} channels{labels}"
        )

    if dry_run:
        if world.leads:
            _describe(config, pictures, str(where), world, as_json)
        return
    if features and not metrics:
        raise ArgumentError("--features needs --metrics")

    if metrics:
        unseen = load_pictures(held_out) if held_out else None
        names = metrics.split(",")
        measure = measure_of(
            names, pictures, features or "inception", where, mirror=config.mirror, held_out=unseen
        )
    else:
        measure = None

    from tqdm import tqdm

    bar: Any = None

    def report(figures: dict[str, float]) -> None:
        nonlocal bar
        if bar is None:
            options = bar_options(BAR)
            bar = tqdm(total=config.kimg, initial=figures["kimg"], unit="kimg", **options)
        measured = "".join(
            f", {k.removeprefix('metric/')} {v:.4g}"
            for k, v in figures.items()
            if k.startswith("metric/")
        )
        loading = (
            f"{figures['images_per_second']:.0f} images/s (data alone "
            f"{figures['loading_images_per_second']:.0f})"
        )
        said = f"{loading}, augmentation {figures['ada_p']:.2f}{measured}"
        bar.set_postfix_str(said, refresh=False)
        bar.update(figures["kimg"] - bar.n)

    try:
        model = run(
            config,
            pictures,
            out,
            RunOptions(
                max_minutes=max_minutes,
                framing=framing,
                provenance={"data": Path(data).name},
                init_from=read_model(init_from, "cpu") if init_from else None,
                held_out=load_pictures(held_out) if held_out else None,
                measure=measure,
                tensorboard=tensorboard,
                graphs=not no_graphs,
                accept_changes=accept_changes,
            ),
            device=where,
            world=world,
            report=report,
            notice=click.echo if world.leads else None,
        )
    finally:
        if bar is not None:
            bar.close()
        world.leave()

    if bar is not None:
        say_written(model)


def _describe(
    config: "TrainingConfig", pictures: "PictureSet", device: str, world: "World", as_json: bool
) -> None:
    from dataclasses import asdict

    import torch

    from latentedit.training import Trainer
    from latentedit.training.estimate import estimate_training

    Trainer(config, pictures, "cpu", world)  # raises errors of the configuration
    processes = world.size
    guess = estimate_training(
        config, pictures.shape, pictures.labels.shape[1], torch.device(device), processes
    )
    if as_json:
        facts = {"images": len(pictures), "resolution": pictures.resolution, "device": device}
        estimate = {**asdict(guess), "hours": config.kimg * guess.hours_per_mimg / 1000}
        facts |= {"processes": processes, "settings": config.as_dict(), "estimate": estimate}
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(config.toml().rstrip())
    click.echo("")
    click.echo(f"generator {guess.parameters_g:,} parameters, discriminator {guess.parameters_d:,}")
    click.echo(
        f"about {guess.memory_gb:.1f} GB per device, on {processes} "
        f"device{'s' * (processes > 1)} ({device})"
    )
    hours = config.kimg * guess.hours_per_mimg / 1000
    click.echo(
        f"about {guess.images_per_second:.3g} images/s: {hours:,.1f} hours for "
        f"{config.kimg:,.0f} kimg"
    )


def _pair(text: str) -> tuple[str, str]:
    one, equals, other = text.partition("=")
    if not equals or not one or not other:
        raise ArgumentError(f"--swap takes LABEL=LABEL, got {text!r}")
    return one, other


def _framing(eyes: str | None, mouth: str | None) -> dict[str, Any] | None:
    if eyes is None:
        if mouth is not None:
            raise ArgumentError("--mouth needs --eyes")
        return None

    ax, ay, bx, by = parse_numbers(eyes, 4, "--eyes")
    if not all(0 <= number <= 1 for number in (ax, ay, bx, by)) or ax >= bx:
        raise ArgumentError(
            "--eyes takes fractions of the side from 0 to 1, first the eye on the left of the "
            f"image; got {eyes}"
        )

    framing: dict[str, Any] = {"kind": "face", "eyes": [[ax, ay], [bx, by]]}
    if mouth is not None:
        place = parse_numbers(mouth, 2, "--mouth")
        if not all(0 <= number <= 1 for number in place):
            raise ArgumentError(f"--mouth takes fractions of the side from 0 to 1; got {mouth}")
        framing["mouth"] = place

    return framing
