"""``align`` and ``invert``: from photographs to crops and latents."""

import json
import os
import time
from pathlib import Path
from typing import Any

import click

from latentedit.cli.common import (
    crop_options,
    device_option,
    each,
    expand,
    face_options,
    framing_option,
    model_option,
    progress_bar,
    quad_of,
    quads_of,
    read_model,
    say_written,
    seed_option,
)
from latentedit.errors import Error

SHEET_ROWS = 40
"""Of the contact sheet."""
LARGE = 256
"""Pixels from which on it is told beforehand how long a search takes."""
FRAMES, HOLD = 120, 24
"""Pictures of a search in its video, and how often the last one is shown at its end."""


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

    \b
    Example:
      latentedit align holiday.jpg --out crops
    """
    from latentedit.faces import crop
    from latentedit.images import EXTENSIONS, open_image, save_image

    model = read_model(model_name, device, framing)

    def work(path: Path) -> None:
        photo = open_image(path)
        for suffix, quad in quads_of(photo, model, str(path), face, landmarks, face_detector):
            target = Path(out) / f"{path.stem}{suffix}.png"
            save_image(crop(photo, quad, model.generator.resolution), target)
            say_written(target)

    each(expand(photos, EXTENSIONS, "pictures"), work)


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@model_option()
@click.option("--out", type=click.Path(), required=True, help="Folder for latent files and pictures.")
@click.option("--space", type=click.Choice(["w", "w+"]), default="w+", show_default=True, help="One w, or one a layer.")
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(1), help="Optimisation steps.")
@click.option("--patience", type=click.IntRange(1), help="End when so many steps have brought nothing.")
@click.option("--restarts", default=0, show_default=True, type=click.IntRange(0), help="Further searches from elsewhere.")
@click.option(
    "--noise",
    type=click.Choice(["optimise", "frozen", "off"]),
    default="optimise",
    show_default=True,
    help="Noise maps: found too, the model's own, or none.",
)
@click.option("--delta-weight", default=0.0, show_default=True, help="Draws W+ towards W, where sliders mean more; try 0.01.")
@click.option("--tune", is_flag=True, help="Then move the generator a little towards the photo; kept in the latent file.")
@click.option("--tune-steps", default=200, show_default=True, type=click.IntRange(1), help="Steps of --tune.")
@click.option("--mask", metavar="FILE", help="Picture of the crop's shape: white counts, black does not.")
@crop_options
@face_options
@framing_option
@click.option(
    "--perceptual",
    type=click.Choice(["auto", "lpips", "discriminator"]),
    default="auto",
    show_default=True,
    help="Distance to minimise; auto is LPIPS where its weights are at hand.",
)
@click.option("--perceptual-weights", metavar="FILE", help="vgg16-397923af.pth, for LPIPS.")
@click.option("--video", is_flag=True, help="Write NAME.mp4 of the search too.")
@click.option("--remember-source", is_flag=True, help="Keep the photo's name and SHA-256 in the latent file.")
@click.option("--again", is_flag=True, help="Do photos anew that are in the folder's index.csv already.")
@click.option("--json", "as_json", is_flag=True, help="Print what came out as JSON, an object a photo.")
@device_option
@seed_option
def invert(
    photos: tuple[str, ...],
    model_name: str,
    out: str,
    space: str,
    steps: int,
    patience: int | None,
    restarts: int,
    noise: Any,
    delta_weight: float,
    tune: bool,
    tune_steps: int,
    mask: str | None,
    crop: str | None,
    aligned: bool,
    face: str,
    landmarks: str | None,
    face_detector: str | None,
    framing: str | None,
    perceptual: str,
    perceptual_weights: str | None,
    video: bool,
    remember_source: bool,
    again: bool,
    as_json: bool,
    device: str,
    seed: int,
) -> None:
    """Find the latent whose picture is nearest to each PHOTO (or each picture of a folder).

    Writes NAME.safetensors, NAME.png (the picture it renders) and NAME-compare.png (photo, with the found noise, with the
    model's own noise) a photo, and a row of index.csv. The same command again skips photos that are done; one bad photo does
    not stop the others. Started by torchrun, the processes share the photos. Ctrl-C keeps the best so far.

    \b
    Example:
      latentedit invert me.jpg --out latents
      latentedit invert photos --out latents --space w --steps 400
    """
    from latentedit import sheets
    from latentedit.albums import Index, key, share
    from latentedit.costs import estimate
    from latentedit.faces import crop_tensor
    from latentedit.images import EXTENSIONS, load_image, open_image, save_image
    from latentedit.inversion import invert as run
    from latentedit.latents import describe_source, save_latent
    from latentedit.models import fingerprint
    from latentedit.perceptual import choose
    from latentedit.preflight import Domain, remarks
    from latentedit.statistics import WStatistics
    from latentedit.tuning import tune as tuned
    from latentedit.video import save_video

    files = share(expand(photos, EXTENSIONS, "pictures"))
    model = read_model(model_name, device, framing)
    generator = model.generator
    measure, line = choose(perceptual, model.discriminator, perceptual_weights, generator.device)
    click.echo(line, err=True)
    if generator.resolution >= LARGE:
        cost = estimate(model, generator.device)
        total = cost.step_seconds * steps * (restarts + 1) / 60
        click.echo(f"a photo takes about {total:.2g} minutes and {cost.step_gb:.2g} GB, to a factor of two", err=True)
    statistics = WStatistics.of(generator)
    domain = Domain.of(generator, model.discriminator) if model.discriminator is not None else None
    counts = (load_image(mask, generator.resolution, 1) + 1) / 2 if mask else None
    search: dict[str, Any] = {
        "steps": steps,
        "patience": patience,
        "restarts": restarts,
        "noise": noise,
        "delta_weight": delta_weight,
        "seed": seed,
    }
    told = {**search, "space": space, "perceptual": measure.name, "model": fingerprint(generator), "mask": mask}
    told |= {
        "tune": tune_steps if tune else 0,
        "crop": crop,
        "aligned": aligned,
        "face": face,
        "landmarks": landmarks,
        "face_detector": face_detector,
    }
    folder, index = Path(out), Index(out)
    rows: list[sheets.Row] = []
    began, done = time.monotonic(), 0
    doubled = {path.stem for path in files if sum(other.stem == path.stem for other in files) > 1}

    def one(path: Path, name: str, quad: list[list[float]], photo: Any, own_key: str) -> None:
        nonlocal done
        started = time.monotonic()
        target = crop_tensor(photo, quad, generator.resolution, generator.channels)
        distance = None
        if domain is not None and model.discriminator is not None:
            distance = domain.distance(model.discriminator, target.to(generator.device))
        warnings = remarks(photo, quad, target, distance)
        for warning in warnings:
            click.echo(f"{path.name}: {warning}", err=True)
        frames: list[Any] = []
        every = max(steps * (restarts + 1) // FRAMES, 1)

        def watch(step: int, pictures: Any) -> None:
            if video and (step == 1 or step % every == 0):
                frames.append(pictures[0].cpu())

        with progress_bar(steps * (restarts + 1), path.name) as bar:
            result = run(
                generator,
                target,
                space,
                perceptual=measure,
                statistics=statistics,
                mask=counts,
                progress=lambda *_: bar.update(1),
                watch=watch,
                **search,
            )
        latent, shown = result.latent(), result.image
        if tune and not result.settings.get("interrupted"):
            with progress_bar(tune_steps, f"{path.name}: tuning") as bar:
                tuning = tuned(
                    generator, target, result.ws, result.noise, measure, tune_steps, progress=lambda *_: bar.update(1)
                )
            latent.tuned = tuning.stored
            latent.settings = {
                **latent.settings,
                "tune_steps": tune_steps,
                "tune_rank": tuning.rank,
                "tune_loss_db": tuning.loss_db,
            }
            latent.distances = {
                **latent.distances,
                "perceptual_tuned": tuning.after["perceptual"],
                "psnr_tuned": tuning.after["psnr"],
            }
            shown = latent.render(generator)
        latent.crop = quad
        latent.source = describe_source(path) if remember_source else None
        save_latent(folder / f"{name}.safetensors", latent)
        save_image(shown, folder / f"{name}.png")
        if video:
            save_video(folder / f"{name}.mp4", [*frames, *[shown] * HOLD])
        pictures, captions = [target, result.image, result.image_own_noise], ["photo", "found noise", "own noise"]
        if latent.tuned:
            pictures, captions = [*pictures, shown], [*captions, "tuned"]
        row = sheets.Row(path.name, pictures, captions)
        save_image(sheets.sheet([row]), folder / f"{name}-compare.png")
        rows.append(sheets.Row(path.name, [*pictures, (target - shown).abs() * 2 - 1], [*captions, "difference"]))
        found, seconds = result.distances[0], time.monotonic() - started
        facts = {"photo": str(path), "latent": f"{name}.safetensors", **found, "seconds": round(seconds, 1)}
        interrupted = bool(result.settings.get("interrupted"))
        index.add(**facts, status="interrupted" if interrupted else "ok", remarks="; ".join(warnings), key=own_key)
        done += 1
        if as_json:
            facts |= {name: value for name, value in latent.distances.items() if name.endswith("_tuned")}
            facts |= {"verdict": result.verdict(), "remarks": warnings, "crop": quad, "interrupted": interrupted}
            click.echo(json.dumps(facts))
        else:
            click.echo(
                f"{path.name}: {measure.name} {found['perceptual']:.4f} / {found['perceptual_own_noise']:.4f}, PSNR"
                f" {found['psnr']:.1f} / {found['psnr_own_noise']:.1f} dB (found / own noise); distance from the model's own w"
                f" {found['w_distance']:.2f} (its own: about 1; farther than {found['w_percentile']:.0f} % of them)"
            )
            click.echo(f"{path.name}: {result.verdict()}")
            if latent.tuned:
                click.echo(
                    f"{path.name}: tuned to {latent.distances['psnr_tuned']:.1f} dB; compressing the generator's difference"
                    f" left the picture within {latent.settings['tune_loss_db']:.0f} dB of itself"
                )
            for ending in (".safetensors", ".png", "-compare.png"):
                say_written(folder / f"{name}{ending}")
        if interrupted:
            raise Error("interrupted; the best so far is kept, the same command goes on")

    def work(path: Path) -> None:
        stem = path.name.replace(".", "-") if path.stem in doubled else path.stem
        try:
            photo = open_image(path)
            own_key = key(path, told)
            if crop or aligned:
                quads = [("", quad_of(photo, model, crop, aligned, str(path)))]
            else:
                quads = quads_of(photo, model, str(path), face, landmarks, face_detector)
        except Error as error:
            if len(files) > 1:
                index.add(photo=str(path), latent=f"{stem}.safetensors", status="failed", remarks=str(error))
            raise
        for suffix, quad in quads:
            if not again and index.has(f"{stem}{suffix}.safetensors", own_key):
                click.echo(f"{path.name}: done before", err=True)
                continue
            one(path, f"{stem}{suffix}", quad, photo, own_key)

    try:
        each(files, work)
    finally:
        if len(rows) > 1:
            rank = os.environ.get("RANK")
            sheet = folder / (f"sheet-{rank}.png" if rank else "sheet.png")
            save_image(sheets.sheet(rows[:SHEET_ROWS]), sheet)
            click.echo(f"wrote {sheet}", err=as_json)
            click.echo(f"{done} photos, {done / (time.monotonic() - began) * 60:.1f} a minute", err=True)
