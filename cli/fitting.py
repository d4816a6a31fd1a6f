"""``directions fit``: a direction from labels or from a classifier."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.cli import log
from latentedit.cli.common import (
    MOST,
    Finite,
    crop_options,
    device_option,
    json_option,
    megapixels_option,
    model_option,
    options_here,
    progress_bar,
    quad_of,
    read_model,
    say,
    say_seen,
    say_written,
)
from latentedit.cli.reports import kept
from latentedit.cli.tables import describe
from latentedit.errors import ArgumentError, DataError, Error, IncompatibleError, NotFoundError

if TYPE_CHECKING:
    from torch import Tensor

    from latentedit.directions import Direction, OnnxClassifier
    from latentedit.directions.labels import LabelTable
    from latentedit.latent.latent_file import Latent
    from latentedit.model.model import Model


def label_options(function: Any) -> Any:
    """Add the options that select labels."""
    for option in (
        click.option(
            "--exclude", multiple=True, metavar="GROUP", help="Group to leave out. Repeatable."
        ),
        click.option(
            "--group",
            metavar="COLUMN",
            help="Column that identifies the person; a person is never in two folds.",
        ),
        click.option(
            "--negative",
            multiple=True,
            metavar="VALUE",
            help="Value that means no (default: all others). Repeatable.",
        ),
        click.option(
            "--positive", multiple=True, metavar="VALUE", help="Value that means yes. Repeatable."
        ),
        click.option("--column", help="Column of the CSV that holds the labels."),
    ):
        function = option(function)
    return function


MIRRORING = (
    "Mirrored photos: not used, with the same label, or with the opposite label (left and right)"
)


def _file_or_folder(context: click.Context, option: click.Parameter, out: str) -> str:
    """Refuse a folder as the file of one direction, and a file as the folder of ``--each``."""
    each = bool(context.params.get("each"))
    kind = click.Path(file_okay=not each, dir_okay=each)
    return str(kind.convert(out, option, context))


@click.command()
@click.argument("table", metavar="[CSV|FOLDER]", type=click.Path(), required=False)
@label_options
@click.option(
    "--mirror",
    type=click.Choice(["auto", "none", "keep", "swap"]),
    default="auto",
    show_default=True,
    help=f"{MIRRORING}; auto: with the same label, of at most 500 photos.",
)
@click.option(
    "--balance",
    metavar="COLUMN,...",
    help="Columns that correlate with the labels; samples are weighted to make the labels "
    "independent of them.",
)
@click.option("--order", metavar="VALUE,...", help="Values from least to most, for ordered labels.")
@click.option(
    "--each",
    is_flag=True,
    is_eager=True,  # what --out may be depends on it
    help="Fit one direction per class against all others; --out is a folder.",
)
@click.option("--name", help="Name of the direction (default: the column's name).")
@model_option()
@click.option(
    "--method",
    type=click.Choice(["transfer", "invert"]),
    default="transfer",
    show_default=True,
    help="For photos: train a classifier on them and score random images with it, or invert "
    "every photo.",
)
@click.option(
    "--probe",
    type=click.Choice(["auto", "svc", "logistic", "lda", "ridge"]),
    default="auto",
    show_default=True,
    help="Linear model. auto: svc, or logistic for few labels, or ridge for numbers.",
)
@click.option(
    "--space",
    type=click.Choice(["w", "w+", "s", "z"]),
    default="w",
    show_default=True,
    help="Latent space of the direction.",
)
@click.option(
    "--confident",
    type=Finite(0, 0.5, min_open=True),
    help="Fit to this share of the samples at either end of the scores.",
)
@click.option(
    "--keep",
    metavar="NAME,...|auto",
    help="Directions whose scores must not change; auto selects them.",
)
@click.option(
    "--classifier",
    type=click.Path(),
    help="ONNX classifier that scores random images; replaces labels.",
)
@click.option(
    "--output",
    default=-1,
    show_default=True,
    type=click.IntRange(-1000, 1000),
    help="Index of the classifier's output; -1 is the last.",
)
@click.option(
    "--size",
    default=224,
    show_default=True,
    type=click.IntRange(1, 4096),
    help="Input size of the classifier, in pixels.",
)
@click.option(
    "--prepare",
    type=click.Choice(["imagenet", "unit", "signed"]),
    default="imagenet",
    show_default=True,
    help="Input range of the classifier: ImageNet normalisation, 0 to 1, or -1 to 1.",
)
@click.option("--grey", is_flag=True, help="The classifier takes greyscale images.")
@click.option("--layers", help="Layers to analyse and to edit: 0-3, coarse, middle or fine.")
@click.option(
    "--samples",
    type=click.IntRange(100, MOST),
    help="Number of random images to score.  [default: 1000 for photos, 6000 for --classifier]",
)
@click.option(
    "--steps",
    default=150,
    show_default=True,
    type=click.IntRange(1, MOST),
    help="Optimisation steps per photo, with --method invert.",
)
@crop_options
@click.option(
    "--out",
    type=click.Path(),
    required=True,
    callback=_file_or_folder,
    help="Direction file (.safetensors); with --each, a folder.",
)
@json_option
@megapixels_option
@device_option
def fit(
    table: str | None,
    column: str | None,
    positive: tuple[str, ...],
    negative: tuple[str, ...],
    balance: str | None,
    order: str | None,
    each: bool,
    group: str | None,
    exclude: tuple[str, ...],
    name: str | None,
    model_name: str,
    method: str,
    mirror: str,
    probe: str,
    space: str,
    confident: float | None,
    keep: str | None,
    classifier: str | None,
    output: int,
    size: int,
    prepare: str,
    grey: bool,
    layers: str | None,
    samples: int | None,
    steps: int,
    crop: str | None,
    aligned: bool,
    out: str,
    as_json: bool,
    device: str,
) -> None:
    """Fit a direction to labelled samples, or to a classifier's scores of random images.

    Labels are a CSV with a "file" column (photos, or latent files such as those of "directions
    sample"), or a folder with one sub-folder per class. Rows without a label are skipped. Photos
    that cannot be read or show no face are listed and skipped. A warning says when another column
    predicts the labels, because the slider may then change that attribute instead; --balance
    weights the samples to prevent it.

    \b
    Example:
      latentedit directions fit labels.csv --column glasses --group person --aligned --out
          glasses.safetensors
      latentedit directions fit labels.csv --column hair --order none,short,long --keep auto --out
          hair.safetensors
      latentedit directions fit --classifier smile.onnx --name smile --size 64 --grey --prepare unit
          --out smile.safetensors
    """
    from latentedit.directions.direction import check_name, name_from
    from latentedit.directions.labels import read_texts
    from latentedit.latent.layers import parse_layers
    from latentedit.latent.spaces import Z, space_of

    if name is not None:
        check_name(name)
    if each and (positive or negative or order):
        raise ArgumentError(
            "--each fits every class; it cannot be used with --positive, --negative or --order"
        )
    if not each and not out.endswith(".safetensors"):
        raise ArgumentError(f"--out must end in .safetensors, got {out}")
    if balance and classifier is not None:
        raise ArgumentError("--balance needs labels; it cannot be used with --classifier")
    if (table is None) == (classifier is None):
        raise ArgumentError(
            "give either labels (a CSV or a folder) or --classifier FILE, and not both"
        )
    if layers and not space_of(space).has_layers:
        raise ArgumentError("a direction in z edits all layers; leave out --layers")
    model = read_model(model_name, device)
    rows = parse_layers(layers, model.generator.num_ws) if layers else None
    common: dict[str, Any] = {"kind": probe, "space": space, "layers": rows, "examine": True}
    asked = _Asked(model, crop, aligned, method, mirror, samples, steps, confident, common)
    if classifier is not None:
        if name is None or each:
            raise ArgumentError("--classifier needs --name, and cannot be used with --each")
        from latentedit.directions import OnnxClassifier

        score = OnnxClassifier(classifier, output, size, prepare, 1 if grey else 3)
        facts = {"classifier": Path(classifier).name, "output": output}
        found = [_from_classifier(score, facts, name, asked)]
    else:
        assert table is not None
        texts = read_texts(table, column, group=group, exclude=exclude)
        provenance = {
            "labels": Path(table).name,
            "column": column,
            "positive": list(positive),
            "negative": list(negative),
            "order": order.split(",") if order else [],
            "excluded": list(exclude),
        }
        common["provenance"] = provenance
        for line in texts.left_out:
            log.remark(line)
        called = name or name_from(texts.attribute)
        wanted = _each_of(called, sorted(set(texts.texts))) if each else [(called, positive)]
        tables = [
            (title, texts.numbers(yes, negative, order.split(",") if order else ()))
            for title, yes in wanted
        ]
        columns = [part.strip() for part in balance.split(",")] if balance else []
        _warn(tables, columns)
        if columns:
            provenance["balanced"] = columns
        found = _from_tables(tables, columns, asked)
    for direction in found:
        if keep:
            measured = direction
            direction = kept(direction, keep, model, direction.name)
            if direction is not measured and not as_json:
                click.echo(f"  before conditioning on {', '.join(direction.report['kept'])}:")
                _print_report(measured)
                click.echo("  after conditioning:")
        place = Path(out) / f"{direction.name}.safetensors" if each else Path(out)
        direction.save(place)
        if as_json:
            row = {"name": direction.name, "space": direction.space, "written": str(place)}
            click.echo(json.dumps(row | {"report": direction.report}))
        else:
            _print_report(direction)
        _tell_of_background(direction, model)
        if not as_json:
            say_written(place)
        if space_of(direction.space) is Z:
            log.warn(
                "a direction in z works on random images (directions sheet); edit cannot apply "
                "it to latents"
            )


def _each_of(called: str, values: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return a direction's name for every one of ``values``, each another one, also where upper and
    lower case are the same."""
    from latentedit.directions.direction import name_from

    found: list[tuple[str, tuple[str, ...]]] = []
    taken: set[str] = set()
    for value in values:
        title = first = name_from(f"{called}-{value}")
        number = 2
        while title.casefold() in taken:
            title = f"{first}-{number}"
            number += 1
        taken.add(title.casefold())
        found.append((title, (value,)))
    return found


@dataclass(frozen=True)
class _Asked:
    """What the options ask for, whatever the labels come from."""

    model: "Model"
    crop: str | None
    aligned: bool
    method: str
    mirror: str
    samples: int | None
    steps: int
    confident: float | None
    common: dict[str, Any]
    """Arguments of every fit."""


def _from_classifier(
    classifier: "OnnxClassifier", facts: dict[str, Any], name: str, asked: _Asked
) -> "Direction":
    from latentedit.directions import fit_from_scores
    from latentedit.directions.transfer import SCORED_W
    from latentedit.latent.spaces import S, W, space_of

    if space_of(asked.common["space"]) not in (W, S):
        raise ArgumentError("a classifier scores random images in w; --space must be w or s here")
    share: dict[str, Any] = {"confident": asked.confident} if asked.confident is not None else {}
    with progress_bar(asked.samples or SCORED_W, "rendering", "image") as bar:
        return fit_from_scores(
            classifier,
            generator=asked.model.generator,
            name=name,
            samples=asked.samples or SCORED_W,
            provenance=facts,
            progress=lambda done, _: bar.update(done - bar.n),
            **share,
            **asked.common,
        )


def _warn(tables: "list[tuple[str, LabelTable]]", balanced: list[str]) -> None:
    """Warn of other columns that predict the labels, except those that are ``balanced``."""
    from latentedit.directions.balancing import telling_columns

    for title, labels in tables:
        for column, auc in telling_columns(labels):
            if column not in balanced:
                said = (
                    f"{title}: the column {column} predicts these labels (AUC {auc:.2f}); the "
                    "direction may change it"
                )
                log.warn(f"{said}. Use --balance {column} to make the labels independent of it")


def _from_tables(
    tables: "list[tuple[str, LabelTable]]", balance: list[str], asked: _Asked
) -> "list[Direction]":
    import torch

    from latentedit.directions.balancing import balanced, balanced_rows

    paths = tables[0][1].paths
    if are_latents(paths):
        if balance:
            tables = [
                (title, balanced(labels, balanced_rows(labels, balance)))
                for title, labels in tables
            ]
        return [_from_latents(labels, title, asked) for title, labels in tables]
    if asked.confident is not None and asked.method != "transfer":
        raise ArgumentError("--confident needs scores; it cannot be used with --method invert")
    crops = read_crops(paths, asked.model, asked.crop, asked.aligned)
    images = torch.cat(list(crops.values()))
    found = []
    for title, labels in tables:
        labels = labels.only(set(crops))
        chosen = images
        if balance:
            # every copy of a photo is augmented anew
            rows = balanced_rows(labels, balance, copies=1)
            chosen = images[rows]
            labels = balanced(labels, rows)
        found.append(_from_photos(chosen, labels, title, asked))
    return found


def _from_latents(labels: "LabelTable", name: str, asked: _Asked) -> "Direction":
    import torch

    from latentedit.directions import LabelledLatents, ProbeOptions, fit_probe
    from latentedit.latent.spaces import Z, space_of
    from latentedit.latent.w_statistics import sample_z

    generator = asked.model.generator
    space = space_of(asked.common["space"])
    found = []
    for path, latent in zip(labels.paths, own_latents(labels.paths, asked.model), strict=True):
        if space is not Z:
            found.append(latent.rows(generator.num_ws))
        elif _is_seed(latent.settings.get("seed")) and not latent.settings.get("edits"):
            # z is stored in no file, but follows from the seed of a latent that nobody has edited.
            found.append(sample_z(latent.settings["seed"], generator.z_dim))
        else:
            raise DataError(
                f"{path}: its z is unknown; --space z needs latents of latentedit directions sample"
            )

    choices = {key: value for key, value in asked.common.items() if key != "provenance"}
    options = ProbeOptions(**choices)
    if asked.confident is not None:
        options = replace(options, confident=2 * asked.confident)
    samples = LabelledLatents(torch.cat(found), labels.values, labels.groups)
    return fit_probe(
        samples, generator, options, name=name, provenance=asked.common.get("provenance")
    )


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**32


def read_pictures(
    paths: list[Path], model: "Model", crop: str | None, aligned: bool
) -> "dict[Path, Tensor]":
    """Return ``[1, C, R, R]`` of photos as `read_crops` does, or of latent files with the model's
    own noise."""
    import torch

    if not are_latents(paths):
        return read_crops(paths, model, crop, aligned)
    generator = model.generator
    with torch.no_grad():
        rows = (
            latent.rows(generator.num_ws).to(generator.device)
            for latent in own_latents(paths, model)
        )
        return {path: generator.synthesis(ws).cpu() for path, ws in zip(paths, rows, strict=True)}


def are_latents(paths: list[Path]) -> bool:
    """Return whether ``paths`` are latent files; raise `Error` for a mixture."""
    from latentedit.formats.load_latent import ENDINGS

    latents = [path.suffix in ENDINGS for path in paths]
    if any(latents) and not all(latents):
        raise DataError("the labels name both latent files and photos; use only one kind")
    return all(latents)


def own_latents(paths: list[Path], model: "Model") -> "list[Latent]":
    """Load latent files, all of which must belong to the model."""
    from latentedit.formats.load_latent import load_latent
    from latentedit.networks.fingerprint import fingerprint

    generator = model.generator
    own = fingerprint(generator)
    found = []
    for path in paths:
        latent = load_latent(path)
        latent.check_generator(own, model.path)
        rows, width = latent.ws.shape[1:]
        if rows not in (1, generator.num_ws) or width != generator.w_dim:
            sizes = (
                f"latents of {rows} x {width}; this generator has {generator.num_ws} x "
                f"{generator.w_dim}"
            )
            raise IncompatibleError(f"{path}: {sizes}")
        found.append(latent)
    return found


def read_crops(
    paths: list[Path], model: "Model", crop: str | None, aligned: bool
) -> "dict[Path, Tensor]":
    """Return ``[1, C, R, R]`` of photos; those that cannot be read or show no face are listed and
    skipped.

    A warning names photos whose face may be framed wrongly.

    Raises:
        Error: no photo can be used.
    """
    from latentedit.io.images import open_image, open_reduced
    from latentedit.photo.alignment import crop_tensor, faces_for, quad_from_face
    from latentedit.photo.faces import Seen

    generator = model.generator
    crops = {}
    seen = Seen()
    wrong: list[Error] = []
    with progress_bar(len(paths), "reading", "photo") as bar:
        for path in paths:
            try:
                photo = open_image(path) if crop else open_reduced(path)[0]
                if crop or aligned:
                    quad = quad_of(photo, crop, aligned, str(path))
                else:
                    faces = faces_for(photo, model.framing, str(path), ways=options_here())
                    seen.add(str(path), faces)
                    quad = quad_from_face(faces[0], model.framing or {})
                crops[path] = crop_tensor(photo, quad, generator.resolution, generator.channels)
            except Error as error:
                wrong.append(error)
            bar.update(1)

    if not crops and len(wrong) == 1:
        raise wrong[0]
    if not crops:
        raise DataError(f"none of the {len(paths)} photos can be used; the first: {wrong[0]}")

    for problem in wrong:
        log.warn(f"skipped: {problem}")
    if wrong:
        log.warn(f"skipped {len(wrong)} of {len(paths)} photos")
    say_seen(seen, len(crops))
    return crops


def _from_photos(images: "Tensor", labels: "LabelTable", name: str, asked: _Asked) -> "Direction":
    from latentedit.directions import (
        LabelledPhotos,
        TransferOptions,
        fit_from_inversions,
        fit_from_photos,
    )
    from latentedit.latent.spaces import Z, space_of

    model = asked.model
    transfer = asked.method == "transfer"
    space = space_of(asked.common["space"])
    if space is Z:
        raise ArgumentError("photos have no z; --space must be w, w+ or s")
    if transfer and space.per_layer:
        raise ArgumentError(
            "random images have the same w in all layers; --space w+ needs --method invert"
        )
    if model.discriminator is None:
        advice = (
            "has no discriminator, whose features are needed to classify photos; use latent files"
        )
        raise NotFoundError(f"{model.path}: {advice}")

    with progress_bar(len(images), "transferring" if transfer else "inverting", "image") as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        photos = LabelledPhotos(images, labels.values, labels.groups, asked.mirror)
        shared = dict(
            generator=model.generator,
            discriminator=model.discriminator,
            name=name,
            progress=report,
            **asked.common,
        )
        if not transfer:
            return fit_from_inversions(photos, steps=asked.steps, **shared)
        options = TransferOptions()
        if asked.samples:
            options = replace(options, samples=asked.samples)
        if asked.confident is not None:
            options = replace(options, confident=asked.confident)
        return fit_from_photos(photos, options=options, **shared)


def _tell_of_background(direction: "Direction", model: "Model") -> None:
    """Say so where a slider moves what is behind faces, as it does when labels go along with the
    collection."""
    from latentedit.directions.places import places

    found = places(model.generator, direction, model.framing)
    if found is None or not found.mainly_behind:
        return
    levels = f"by {found.border:.1f} grey levels a pixel (the face by {found.face:.1f})"
    said = f"{direction.name}: the slider moves mainly the background, {levels}"
    if direction.provenance.get("balanced"):
        advice = (
            "if that is not meant, these labels go along with something else than the columns of "
            "--balance"
        )
    else:
        advice = (
            "if that is not meant, --balance with a column of the background or the collection "
            "takes it out of the labels"
        )
    say(f"{said}; {advice}", err=True)


def _print_report(direction: "Direction") -> None:
    from latentedit.directions.chance import doubts_about

    known = {key: value for key, value in direction.report.items() if value is not None}
    for line in describe(known, indent="  "):
        click.echo(line)
    for sentence in doubts_about(direction.report):
        say(f"  {sentence}")
