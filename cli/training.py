"""``dataset`` and ``train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from latentedit.cli.common import (
    SEED,
    Finite,
    device_option,
    megapixels_option,
    parse_numbers,
    read_model,
    say,
    say_written,
)
from latentedit.errors import Error

if TYPE_CHECKING:
    from latentedit.training.config import TrainingConfig
    from latentedit.training.data import PictureSet
    from latentedit.training.distributed import World


BAR = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.0f} kimg [{elapsed}<{remaining}{postfix}]"
SHEET_ROWS, SHEET_COLUMNS = 8, 10


@click.group()
def dataset() -> None:
    """Make and inspect training sets."""


@dataset.command()
@click.argument("source", type=click.Path())
@click.option("--size", required=True, type=click.IntRange(4, 4096), help="Side of the squares in pixels, a power of two.")
@click.option(
    "--crop", default="centre", show_default=True, metavar="centre|face|X,Y,SIZE", help="Which square of every picture."
)
@click.option(
    "--fit", type=click.Choice(["crop", "pad", "skip"]), default="crop", show_default=True, help="Pictures that are not square."
)
@click.option(
    "--background",
    type=click.Choice(["white", "black", "skip"]),
    default="white",
    show_default=True,
    help="What transparent pictures are laid on.",
)
@click.option("--colour", type=click.Choice(["grey", "rgb"]), default="rgb", show_default=True, help="Channels.")
@click.option("--eyes", metavar="AX,AY,BX,BY", help="With --crop face: where eyes go, in fractions of the side.")
@click.option("--labels", metavar="FILE.csv|folders", help="Classes: a CSV with a file column, or the sub-folders' names.")
@click.option("--column", help="Column of the CSV that holds the class.")
@click.option("--renderings", is_flag=True, help="Take pictures that latentedit rendered too.")
@click.option("--out", type=click.Path(), required=True, help="Training set: a .zip, or a new folder.")
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
) -> None:
    """Cut the pictures of SOURCE (a folder or zip) to squares of one size and store them; unreadable ones are listed and
    skipped. Sub-folders are read too, hidden files are not. The labels of a dataset.json in SOURCE are kept.

    \b
    Example:
      latentedit dataset build photos --size 64 --crop face --out photos64.zip
    """
    from latentedit.training.data import write_pictures
    from latentedit.training.preparation import Preparation, class_labels, prepared

    if eyes and crop != "face":
        raise Error("--eyes goes with --crop face")
    preparation = Preparation(
        size,
        cast(Any, crop if crop in ("centre", "face") else tuple(parse_numbers(crop, 3, "--crop"))),
        cast(Any, fit),
        colour == "grey",
        cast(Any, background),
        _framing(eyes, None),
    )
    skipped: list[str] = []
    sources: dict[str, str] = {}
    given = class_labels(source, labels, column)
    classes: set[str] = set()

    def label_of(name: str) -> str | None:
        found = given(sources[name]) if given else None
        classes.update([found] if found is not None else [])
        return found

    try:
        pictures = prepared(source, preparation, skipped, sources, renderings=renderings)
        count = write_pictures(out, pictures, label_of if given else None)
    finally:
        for message in skipped:
            say(message if message.startswith("left out") else f"skipped {message}", err=True)
    if len(classes) == 1:
        say(f"warning: all pictures have one class, {classes.pop()!r}; labels tell nothing apart", err=True)
    bad = sum(not message.startswith("left out") for message in skipped)
    click.echo(f"{count} pictures of {size} x {size}, {colour}" + (f"; {bad} skipped" if bad else ""))
    say_written(out)


@dataset.command()
@click.argument("data", type=click.Path())
@click.option("--sheet", type=click.Path(), help="Write a contact sheet: a row a label, or 80 pictures evenly spaced.")
def info(data: str, sheet: str | None) -> None:
    """Counts, sizes and balance of labels of a training set (zip or folder), and how fast it loads.

    \b
    Example:
      latentedit dataset info photos64.zip --sheet sheet.png
    """
    from latentedit.training.data import load_pictures
    from latentedit.training.loop import loading_rate

    pictures = load_pictures(data)
    colour = "grey" if pictures.channels == 1 else "RGB"
    click.echo(f"{len(pictures)} pictures of {pictures.resolution} x {pictures.resolution}, {colour}")
    counts = pictures.labels.sum(dim=0).int().tolist()
    for label, count in enumerate(counts):
        name = f" ({pictures.label_names[label]})" if pictures.label_names else ""
        say(f"label {label}{name}: {count} pictures, {count / len(pictures):.1%}")
    click.echo(f"loads at {loading_rate(pictures):.0f} images/s")
    click.echo(f"sha256 {pictures.digest()}")
    if sheet:
        _contact_sheet(pictures, sheet)
        say_written(sheet)


def _contact_sheet(pictures: "PictureSet", path: str) -> None:
    from latentedit.io.contact_sheet import Row
    from latentedit.io.contact_sheet import sheet as make
    from latentedit.io.images import from_uint8, save_image

    def row(title: str, rows: list[int]) -> Row:
        count = min(len(rows), SHEET_COLUMNS)
        spaced = [rows[i * len(rows) // count] for i in range(count)]
        return Row(title, list(from_uint8(pictures.read(spaced))), [Path(pictures.names[i]).stem[-16:] for i in spaced])

    if pictures.labels.shape[1]:
        of = [pictures.labels[:, label].nonzero().flatten().tolist() for label in range(pictures.labels.shape[1])]
        names = pictures.label_names or [str(label) for label in range(len(of))]
        rows = [row(f"{name}: {len(found)}", found) for name, found in zip(names, of, strict=True) if found][: 4 * SHEET_ROWS]
    else:
        everything, lines = list(range(len(pictures))), min(SHEET_ROWS, -(-len(pictures) // SHEET_COLUMNS))
        rows = [row("", everything[i * len(pictures) // lines : (i + 1) * len(pictures) // lines]) for i in range(lines)]
    save_image(make(rows), path)


@click.command()
@click.argument("data", type=click.Path())
@click.option("--out", type=click.Path(), required=True, help="Folder of the run; run again to resume.")
@click.option("--preset", default="small", show_default=True, help="Name of a preset, or a TOML file.")
@click.option("--kimg", type=Finite(0, 1e9, min_open=True), help="Stop after this many thousand pictures.")
@click.option("--max-minutes", type=Finite(0, 1e7), help="Stop after this time, with a snapshot.")
@click.option("--snapshot-kimg", type=Finite(0, 1e9, min_open=True), help="Thousand pictures between snapshots.")
@click.option("--batch", type=click.IntRange(1, 65536), help="Pictures a step, over all processes.")
@click.option("--micro-batch", type=click.IntRange(1, 65536), help="Pictures at once on a device; smaller needs less memory.")
@click.option("--learning-rate", type=Finite(0, 10, min_open=True), help="Of both networks.")
@click.option("--gamma", type=Finite(0, 1e6), help="Weight of the R1 penalty.")
@click.option("--augment", help="Group of augmentations (bg, bgc, ...), or none.")
@click.option("--augment-p", type=Finite(0, 1), help="Strength of the augmentation at the start, 0 to 1.")
@click.option("--mirror/--no-mirror", default=None, help="Show every picture mirrored as well.")
@click.option("--swap", "swaps", multiple=True, metavar="LABEL=LABEL", help="Labels that change places in a mirrored picture.")
@click.option(
    "--freeze-d", type=click.IntRange(0, 1000), help="Discriminator layers, from the picture on, that stay as they are."
)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), help="Of the blocks from 16 x 16 up.")
@click.option("--eyes", metavar="AX,AY,BX,BY", help="Where eyes lie in these pictures, in fractions of the side.")
@click.option("--mouth", metavar="X,Y", help="Where the mouth lies.")
@click.option("--init-from", metavar="MODEL", help="Start from the weights of this model, as far as they fit.")
@click.option("--held-out", type=click.Path(), help="Pictures not to train on; what the discriminator makes of them is logged.")
@click.option(
    "--metrics", metavar="NAME,...", help="Measure every snapshot, as latentedit metrics does; the best by kid (fid) is kept."
)
@click.option(
    "--features", help="Network for --metrics: inception, efficientnet-lite0, or the file of a judge (see latentedit metrics)."
)
@click.option("--tensorboard", is_flag=True, help="Write event files too (pip install 'latentedit[tensorboard]').")
@click.option("--no-graphs", is_flag=True, help="On CUDA, launch every operation by itself: slower, for finding faults.")
@click.option("--accept-changes", is_flag=True, help="Resume although options or data have changed.")
@click.option("--dry-run", is_flag=True, help="Print what would run, with an estimate of memory and time.")
@click.option("--seed", type=SEED, help="Of every random draw.")
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
    seed: int | None,
    device: str,
) -> None:
    """Train a generator on DATA, a zip or folder of squares ("latentedit dataset build").

    The same command again goes on from the last snapshot. Ctrl-C finishes the step, writes a snapshot and stops. With --eyes
    the model file says how faces are framed, so that "align" and "invert" can crop new photographs. Started by torchrun, the
    processes share the work.

    \b
    Example:
      latentedit train photos64.zip --out runs/photos64 --preset small --max-minutes 90
    """
    from latentedit.metrics import measure_of
    from latentedit.runtime.devices import resolve_device
    from latentedit.training import join_world, load_pictures, load_preset
    from latentedit.training import train as run

    load_preset(preset)  # a wrong name is told before anything is read
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
        raise Error("--swap goes with --mirror")
    pictures.swap_when_mirrored(dict(_pair(text) for text in swaps))
    if world.leads:
        labels = f", {pictures.labels.shape[1]} labels" if pictures.labels.shape[1] else ""
        click.echo(
            f"{len(pictures)} pictures of {pictures.resolution} x {pictures.resolution}, {pictures.channels} channels{labels}"
        )
    if dry_run:
        if world.leads:
            _describe(config, pictures, str(where), world)
        return
    if features and not metrics:
        raise Error("--features goes with --metrics")
    if metrics:
        unseen = load_pictures(held_out) if held_out else None
        names = metrics.split(",")
        measure = measure_of(names, pictures, features or "inception", where, mirror=config.mirror, held_out=unseen)
    else:
        measure = None
    from tqdm import tqdm

    bar: Any = None

    def report(figures: dict[str, float]) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=config.kimg, initial=figures["kimg"], unit="kimg", dynamic_ncols=True, bar_format=BAR)
        bar.n = figures["kimg"]
        measured = "".join(f", {k.removeprefix('metric/')} {v:.4g}" for k, v in figures.items() if k.startswith("metric/"))
        loading = f"{figures['images_per_second']:.0f} images/s (data alone {figures['loading_images_per_second']:.0f})"
        bar.set_postfix_str(f"{loading}, augmentation {figures['ada_p']:.2f}{measured}")

    try:
        model = run(
            config,
            pictures,
            out,
            device=where,
            max_minutes=max_minutes,
            framing=framing,
            provenance={"data": Path(data).name},
            init_from=read_model(init_from, "cpu") if init_from else None,
            held_out=load_pictures(held_out) if held_out else None,
            measure=measure,
            tensorboard=tensorboard,
            graphs=not no_graphs,
            accept_changes=accept_changes,
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


def _describe(config: "TrainingConfig", pictures: "PictureSet", device: str, world: "World") -> None:
    import torch

    from latentedit.training import Trainer
    from latentedit.training.estimate import estimate

    Trainer(config, pictures, "cpu", world)  # says what could not be built
    processes = world.size
    guess = estimate(config, pictures.shape, pictures.labels.shape[1], torch.device(device), processes)
    click.echo(config.toml().rstrip())
    click.echo("")
    click.echo(f"generator {guess.parameters_g:,} parameters, discriminator {guess.parameters_d:,}")
    click.echo(f"about {guess.memory_gb:.1f} GB on each of {processes} device{'s' * (processes > 1)} ({device})")
    hours = config.kimg * guess.hours_per_mimg / 1000
    click.echo(f"about {guess.images_per_second:.3g} images/s: {hours:,.1f} hours for {config.kimg:,.0f} kimg")


def _pair(text: str) -> tuple[str, str]:
    one, equals, other = text.partition("=")
    if not equals or not one or not other:
        raise Error(f"--swap takes LABEL=LABEL, got {text!r}")
    return one, other


def _framing(eyes: str | None, mouth: str | None) -> dict[str, Any] | None:
    if eyes is None:
        if mouth is not None:
            raise Error("--mouth goes with --eyes")
        return None
    ax, ay, bx, by = parse_numbers(eyes, 4, "--eyes")
    if not all(0 <= number <= 1 for number in (ax, ay, bx, by)) or ax >= bx:
        raise Error(f"--eyes takes fractions of the side from 0 to 1, the eye at the viewer's left first; got {eyes}")
    framing: dict[str, Any] = {"kind": "face", "eyes": [[ax, ay], [bx, by]]}
    if mouth is not None:
        place = parse_numbers(mouth, 2, "--mouth")
        if not all(0 <= number <= 1 for number in place):
            raise Error(f"--mouth takes fractions of the side from 0 to 1; got {mouth}")
        framing["mouth"] = place
    return framing
