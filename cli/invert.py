"""``invert``: from photos to latents, one or a folder of them."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.cli import log
from latentedit.cli.common import (
    MOST,
    WEIGHT,
    Framed,
    SeveralError,
    ahead,
    crop_options,
    device_option,
    each,
    expand,
    face_options,
    framing_option,
    megapixels_option,
    model_option,
    perceptual_options,
    progress_bar,
    quad_of,
    quads_of,
    read_model,
    recursive_option,
    say,
    say_video,
    say_written,
    seed_option,
)
from latentedit.cli.looks import onlooker_of
from latentedit.errors import ArgumentError, Error, Interrupted, NotFoundError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from torch import Tensor

    from latentedit.inversion.result import Inversion
    from latentedit.inversion.verdict import Verdict

SHEET_ROWS = 40
"""Rows of the contact sheet."""
LARGE = 256
"""Resolution from which the duration is estimated beforehand and photos are inverted one by one."""
BATCH = 8
"""Photos per batch for smaller models."""
FRAMES, HOLD = 120, 24
"""Frames of a search in its video, and how often the last frame is repeated at the end."""


@contextmanager
def keeping(result: "Inversion") -> Iterator[None]:
    """End the block on Ctrl-C, and keep what the search had found before."""
    try:
        yield
    except KeyboardInterrupt:
        result.settings["interrupted"] = True


@dataclass
class Job:
    """A face that waits for its turn."""

    path: Path
    name: str
    quad: list[list[float]]
    target: "Tensor"
    remarks: list[str]
    key: str


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@model_option()
@click.option("--out", type=click.Path(), required=True, help="Folder for latent files and images.")
@click.option(
    "--space",
    type=click.Choice(["w", "w+", "s"]),
    default="w+",
    show_default=True,
    help="Latent space: one w (w), one w per layer (w+), or w+ with style offsets (s).",
)
@click.option(
    "--method",
    type=click.Choice(["quasi-newton", "adam"]),
    default="quasi-newton",
    show_default=True,
    help="Optimiser; adam is the published projector.",
)
@click.option(
    "--steps",
    type=click.IntRange(0, MOST),
    help="Optimisation steps (default: 100, or 1000 with adam). 0 uses the encoder's output as is.",
)
@click.option(
    "--init",
    type=click.Choice(["auto", "mean", "encoder"]),
    default="auto",
    show_default=True,
    help="Starting point. auto: the encoder's output with quasi-newton, if the model has an encoder; otherwise the mean w.",
)
@click.option("--encoder", "encoder_file", metavar="FILE", help="Encoder file, if it is not next to the model.")
@click.option("--patience", type=click.IntRange(1, MOST), help="Stop after this many steps without improvement.")
@click.option(
    "--restarts",
    default=0,
    show_default=True,
    type=click.IntRange(0, MOST),
    help="Additional searches from other starting points.",
)
@click.option(
    "--noise",
    type=click.Choice(["optimise", "frozen", "off"]),
    default="optimise",
    show_default=True,
    help="Noise maps: optimised, the model's own, or none.",
)
@click.option(
    "--prior-weight",
    default=0.1,
    show_default=True,
    type=WEIGHT,
    help="Weight that keeps w near its mean. Higher values lower fidelity and improve editability.",
)
@click.option(
    "--delta-weight",
    default=0.0,
    show_default=True,
    type=WEIGHT,
    help="Weight that keeps the layers of W+ similar, which improves editability; try 0.01.",
)
@click.option(
    "--adversarial-weight",
    default=0.0,
    show_default=True,
    type=WEIGHT,
    help="Weight of a latent discriminator, which keeps w realistic; try 0.1.",
)
@click.option("--tune", is_flag=True, help="Then tune the generator to the photo; the latent file stores the change.")
@click.option("--tune-steps", default=200, show_default=True, type=click.IntRange(1, MOST), help="Steps of --tune.")
@click.option("--mask", metavar="FILE", help="Image of the crop's shape: white pixels count, black ones do not.")
@crop_options
@face_options
@framing_option
@perceptual_options
@click.option(
    "--batch",
    type=click.IntRange(1, MOST),
    help="Photos per batch (default: 8, or 1 for models of 256 px and more; on CUDA as many as fit).",
)
@click.option("--video", is_flag=True, help="Also write a video of the search, NAME.mp4.")
@click.option("--remember-source", is_flag=True, help="Store the photo's name and SHA-256 in the latent file.")
@click.option("--again", is_flag=True, help="Reprocess photos that index.csv lists as done.")
@click.option("--json", "as_json", is_flag=True, help="Print the result of every photo as JSON, one object per line.")
@recursive_option
@megapixels_option
@device_option
@seed_option
def invert(
    photos: tuple[str, ...],
    model_name: str,
    out: str,
    space: str,
    method: Any,
    steps: int | None,
    init: Any,
    encoder_file: str | None,
    patience: int | None,
    restarts: int,
    noise: Any,
    prior_weight: float,
    delta_weight: float,
    adversarial_weight: float,
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
    batch: int | None,
    video: bool,
    remember_source: bool,
    again: bool,
    as_json: bool,
    recursive: bool,
    device: str,
    seed: int,
) -> None:
    """Find the latent that reproduces each PHOTO (or each image in a folder).

    For every photo it writes NAME.safetensors (the latent), NAME.png (the image it renders), NAME-compare.png (photo, image
    with the optimised noise, image with the model's own noise) and a row of index.csv. If a photo fails, the others are still
    processed. Run the same command again to resume; it skips photos that are done. Ctrl-C keeps the best result so far.
    Started by torchrun, the processes share the photos.

    NAME is the photo's name. Photos that share a name become NAME-ENDING or FOLDER-NAME. A file that would replace a photo, or
    the latent of another photo, becomes NAME-inverted.

    \b
    Example:
      latentedit invert me.jpg --out latents
      latentedit invert photos --out latents --space w
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from latentedit.album.index import Index, Names, key, share
    from latentedit.inversion.options import PIXEL_WEIGHT, InversionOptions, ProjectorSettings
    from latentedit.inversion.pivotal_tuning import TuningOptions
    from latentedit.inversion.preconditioner import PROBES
    from latentedit.inversion.projector import Projector, SearchStep
    from latentedit.inversion.verdict import judge
    from latentedit.io import contact_sheet
    from latentedit.io.images import EXTENSIONS, load_image, open_image, open_reduced, own_path, save_image
    from latentedit.io.video import save_video
    from latentedit.latent.latent_file import describe_source, save_latent
    from latentedit.model.cost import estimate, photos_at_once
    from latentedit.model.native import load_encoder
    from latentedit.photo.alignment import crop_tensor
    from latentedit.photo.checks import foreign, remarks
    from latentedit.photo.landmarks import available

    everything = expand(photos, EXTENSIONS, "images", recursive=recursive, photos=True)
    files = share(everything)
    options = InversionOptions(
        space=space,
        method=method,
        steps=steps,
        init=init,
        patience=patience,
        restarts=restarts,
        noise=noise,
        prior_weight=prior_weight,
        delta_weight=delta_weight,
        adversarial_weight=adversarial_weight,
        seed=seed,
    )
    model = read_model(model_name, device, framing)
    generator = model.generator
    projector = Projector(model, ProjectorSettings(perceptual, perceptual_weights))
    log.remark(projector.perceptual_line)
    if encoder_file:
        load_encoder(encoder_file, model)
    encoded = model.encoder is not None and (init == "encoder" or (init == "auto" and method == "quasi-newton"))
    if init == "encoder" and not encoded:
        raise NotFoundError(f'{model_name} has no encoder; train one with "latentedit encoder train"')
    steps = options.step_count
    if not steps and not encoded:
        raise ArgumentError("--steps 0 needs an encoder")
    if tune and space == "s":
        raise ArgumentError("--tune needs --space w or w+")
    unmeasured = options.needs_preconditioner and not projector.has_curvature()
    if generator.resolution >= LARGE:
        cost = estimate(model, generator.device)
        total = cost.step_seconds * steps * (restarts + 1) / 60
        once = f", plus {cost.step_seconds * PROBES / 60:.2g} minutes once for this model" if unmeasured else ""
        log.remark(f"estimate, within a factor of two: {total:.2g} minutes and {cost.step_gb:.2g} GB per photo{once}")
    if adversarial_weight:
        _ = projector.critic
    if options.needs_preconditioner:
        with progress_bar(PROBES, "measuring the model") if unmeasured else nullcontext() as bar:
            projector.curvature(progress=lambda n: bar.update(n - bar.n) if bar else None)
    domain = projector.domain
    onlooker = onlooker_of(model, domain)
    counts = (load_image(mask, generator.resolution, 1) + 1) / 2 if mask else None
    search: dict[str, Any] = {
        "method": method,
        "steps": steps,
        "patience": patience,
        "restarts": restarts,
        "noise": noise,
        "prior_weight": prior_weight,
        "delta_weight": delta_weight,
        "adversarial_weight": adversarial_weight,
        "seed": seed,
    }
    told = {**search, "space": space, "perceptual": projector.perceptual.name, "model": projector.fingerprint}
    told |= {"mask": mask, "encoder": encoded}
    told |= {
        "tune": tune_steps if tune else 0,
        "crop": crop,
        "aligned": aligned,
        "face": face,
        "landmarks": landmarks,
        "face_detector": face_detector,
        "framing": model.framing,
        "landmarks68": available(),
        "pixel_weight": PIXEL_WEIGHT,
    }
    folder, index = Path(out), Index(out)
    names = Names(index, everything)
    rows: list[contact_sheet.Row] = []
    began, done = time.monotonic(), 0

    together = batch or photos_at_once(model, generator.device, 1 if generator.resolution >= LARGE else BATCH)
    waiting: list[Job] = []
    written: deque[tuple[Path, Future[None]]] = deque()

    def record(**facts: Any) -> None:
        """Print, with --json, one object for every face, or photo, whether it succeeded or not."""
        if as_json:
            click.echo(json.dumps(facts))

    def prepare(path: Path) -> list[Job]:
        """Return the faces of a photo that are still to be done; runs in another thread, so that the model need not wait."""
        own_key = ""
        try:
            # Rectangles and landmarks are in pixels of the photo as it is.
            photo, reduced = (open_image(path), 1) if crop or landmarks else open_reduced(path)
            own_key = key(path, told)
            if crop or aligned:
                quads = [Framed("", quad_of(photo, crop, aligned, str(path)), [])]
            else:
                quads = quads_of(photo, model, str(path), face, landmarks, face_detector)
        except Error as error:
            if len(files) > 1:
                # Without room for the row there may still be some for what went wrong.
                with suppress(Error):
                    failed = f"{names.of(path, found=own_key)}.safetensors"
                    index.add(path, latent=failed, status="failed", remarks=str(error))
            record(photo=str(path), latent=None, status="failed", error=str(error))
            raise
        jobs = []
        for suffix, quad, warnings in quads:
            name = names.of(path, suffix, own_key)
            if not again and index.has(f"{name}.safetensors", own_key):
                log.remark(f"{path.name}: already done")
                record(photo=str(path), latent=f"{name}.safetensors", status="done before")
                continue
            target = crop_tensor(photo, quad, generator.resolution, generator.channels)
            whole = [[x * reduced, y * reduced] for x, y in quad]
            jobs.append(Job(path, name, whole, target, warnings + remarks(photo, quad, target), own_key))
        return jobs

    def collect(jobs: list[Job]) -> None:
        for job in jobs:
            if domain is not None and model.discriminator is not None:
                job.remarks += foreign(domain.distance(model.discriminator, job.target.to(generator.device)))
            for remark in job.remarks:
                log.warn(f"{job.path.name}: {remark}")
            waiting.append(job)
            if len(waiting) == together:
                solve()

    def settle(count: int) -> None:
        """Raise the errors of writing the first ``count`` results that are not checked yet."""
        asked = [written.popleft() for _ in range(count)]
        wrong = [(path, str(error)) for path, future in asked if (error := future.exception()) is not None]
        if wrong:
            raise SeveralError(wrong)

    def solve() -> None:
        jobs = waiting.copy()
        waiting.clear()
        if not jobs:
            return
        started = time.monotonic()
        images = torch.cat([job.target for job in jobs])
        frames: list[Any] = []
        every = max(steps * (restarts + 1) // FRAMES, 1)

        with progress_bar(None, jobs[0].path.name if len(jobs) == 1 else f"{len(jobs)} photos") as bar:

            def tell(step: SearchStep) -> None:
                bar.total = step.total
                bar.update(step.number - bar.n)
                if video and (step.number == 1 or step.number % every == 0):
                    frames.append(step.images.to("cpu", copy=True))

            try:
                result = projector.invert(images, options, mask=counts, on_step=tell)
            except Error as error:
                raise SeveralError([(job.path, str(error)) for job in jobs]) from error
        seconds = (time.monotonic() - started) / len(jobs)
        for number, job in enumerate(jobs):
            finish(job, result, number, seconds, [frame[number] for frame in frames])
        interrupted = bool(result.settings.get("interrupted"))
        try:
            settle(len(written) if interrupted else sum(future.done() for _, future in written))
        except SeveralError as several:
            if not interrupted:
                raise
            for _, message in several.found:
                say(f"latentedit: {message}", err=True)
        if interrupted:
            raise Interrupted("interrupted; the best result so far is kept, run the same command again to resume")

    def finish(job: Job, result: "Inversion", number: int, seconds: float, frames: list[Any]) -> None:
        started, one = time.monotonic(), slice(number, number + 1)
        path = job.path
        latent, shown = result.latent(number), result.image[one]
        if tune and not result.settings.get("interrupted"):
            noise_maps = [map_[one] for map_ in result.noise]
            with progress_bar(tune_steps, f"{path.name}: tuning") as bar, keeping(result):
                tuning = projector.tune(
                    job.target,
                    result.ws[one],
                    noise_maps,
                    TuningOptions(tune_steps),
                    lambda *_: bar.update(1),
                )
                tuning.put_into(latent)
                shown = latent.render(generator).cpu()
        latent.crop = job.quad
        look = None if result.settings.get("interrupted") else onlooker.look(latent)
        verdict = judge(latent.distances, look)
        if look is not None:
            look.put_into(latent)
        seconds += time.monotonic() - started
        written.append((path, writer.submit(attempt, job, latent, result, number, shown, frames, seconds, verdict)))

    def attempt(job: Job, *rest: Any) -> None:
        try:
            write(job, *rest)
        except (Error, OSError) as error:
            record(photo=str(job.path), latent=None, status="failed", error=str(error))
            raise

    def write(
        job: Job,
        latent: Any,
        result: "Inversion",
        number: int,
        shown: "Tensor",
        frames: list[Any],
        seconds: float,
        verdict: "Verdict",
    ) -> None:
        """Write the files of a face; runs in another thread."""
        nonlocal done
        started, one = time.monotonic(), slice(number, number + 1)
        path, name, interrupted = job.path, job.name, bool(result.settings.get("interrupted"))
        latent.source = describe_source(path) if remember_source else None
        save_latent(folder / f"{name}.safetensors", latent)
        save_image(shown, folder / f"{name}.png")
        if video:
            say_video(save_video(folder / f"{name}.mp4", [*frames, *[shown] * HOLD]), folder / f"{name}.mp4")
        pictures, captions = (
            [job.target, result.image[one], result.image_own_noise[one]],
            ["photo", "optimised noise", "own noise"],
        )
        if latent.tuned:
            pictures, captions = [*pictures, shown], [*captions, "tuned"]
        save_image(contact_sheet.sheet([contact_sheet.Row(path.name, pictures, captions)]), folder / f"{name}-compare.png")
        rows.append(contact_sheet.Row(path.name, [*pictures, (job.target - shown).abs() * 2 - 1], [*captions, "difference"]))
        found, seconds = result.distances[number], seconds + time.monotonic() - started
        facts = {"photo": str(path), "latent": f"{name}.safetensors", **found, "seconds": round(seconds, 1)}
        row = {column: value for column, value in facts.items() if column != "photo"}
        index.add(path, **row, status="interrupted" if interrupted else "ok", remarks="; ".join(job.remarks), key=job.key)
        done += 1
        if as_json:
            facts |= {name: value for name, value in latent.distances.items() if name.endswith("_tuned")}
            facts |= {"verdict": str(verdict), "verdict_parts": verdict.facts(), "remarks": job.remarks}
            facts |= {"crop": job.quad, "interrupted": interrupted}
            record(**facts, status="interrupted" if interrupted else "ok")
            return
        say(
            f"{path.name}: {projector.perceptual.name} {found['perceptual']:.4f} / {found['perceptual_own_noise']:.4f}, PSNR"
            f" {found['psnr']:.1f} / {found['psnr_own_noise']:.1f} dB (optimised / own noise); distance from the mean w"
            f" {found['w_distance']:.2f} (random w: about 1; more than {found['w_percentile']:.0f} % of them)"
        )
        say(f"{path.name}: {verdict}")
        if limits := verdict.limits():
            say(f"{path.name}: {limits}")
        if latent.tuned:
            say(
                f"{path.name}: PSNR after tuning {latent.distances['psnr_tuned']:.1f} dB; PSNR between the images with the"
                f" compressed and the full change of the generator {latent.settings['tune_loss_db']:.0f} dB"
            )
        for ending in (".safetensors", ".png", "-compare.png"):
            say_written(folder / f"{name}{ending}")

    def overview() -> None:
        rank = os.environ.get("RANK")
        sheet = own_path(folder / (f"sheet-{rank}.png" if rank else "sheet.png"), "latentedit")
        try:
            save_image(contact_sheet.sheet(rows[:SHEET_ROWS]), sheet)
            say(f"wrote {sheet}", err=as_json)
        except Error as error:  # errors of the photos are reported too
            say(f"latentedit: {error}", err=True)
        log.remark(f"{done} photos, {done / (time.monotonic() - began) * 60:.1f} per minute")

    try:
        with ThreadPoolExecutor(1) as writer, ahead(files, prepare, together) as following:

            def work(path: Path) -> None:
                wrong: list[tuple[Path, str]] = []
                # The last photo also processes those that wait, and its errors must not hide theirs.
                parts: list[Callable[[], None]] = [lambda: collect(following())]
                if path == files[-1]:
                    parts += [solve, lambda: settle(len(written))]
                for part in parts:
                    try:
                        part()
                    except SeveralError as several:
                        wrong += several.found
                    except Interrupted:
                        for _, message in wrong:
                            say(f"latentedit: {message}", err=True)
                        raise
                    except Error as error:
                        wrong.append((path, str(error)))
                if len(wrong) == 1 and wrong[0][0] == path:
                    raise Error(wrong[0][1])
                if wrong:
                    raise SeveralError(wrong)

            each(files, work)
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {done} photos are done and kept, run the same command again to resume") from error
    finally:
        if len(rows) > 1:
            overview()
