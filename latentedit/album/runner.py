"""The runner of an album: inverts photos into a folder of latents, images and an index.

Three photos are in work at the same time: a thread opens and crops the next ones, the calling
thread searches, and another thread writes what was found.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from latentedit.album.ahead import ahead
from latentedit.album.index import Index, Names, keys
from latentedit.album.options import AlbumOptions, resume_facts, resume_facts_before
from latentedit.errors import Error, Interrupted
from latentedit.inversion.pivotal_tuning import TuningOptions
from latentedit.inversion.projector import Projector, SearchStep
from latentedit.inversion.result import Inversion
from latentedit.inversion.verdict import Look, Verdict, judge
from latentedit.io.contact_sheet import Row, sheet
from latentedit.io.images import load_image, open_image, open_reduced, own_path, save_image
from latentedit.io.video import save_video
from latentedit.latent.latent_file import Latent, describe_source, save_latent
from latentedit.model.cost import photos_at_once
from latentedit.photo.alignment import crop_tensor
from latentedit.photo.checks import foreign, remarks
from latentedit.photo.framing import Framed

SHEET_ROWS = 40
"""Rows of the contact sheet."""
LARGE = 256
"""Resolution from which photos are searched one by one."""
BATCH = 8
"""Photos per batch for smaller models."""
FRAMES = 120
"""Frames of a search in its video ..."""
HOLD = 24
"""... and how often the last one is repeated at the end."""

Crops = Callable[[Image.Image, Path], Sequence[Framed]]
"""Finds the crops to invert in a photo that is open."""


class Inspector(Protocol):
    """Who looks at what an inverted photo becomes along sliders (`latentedit.photo.looking`)."""

    def look(self, latent: Latent) -> Look: ...


@dataclass(frozen=True)
class Finished:
    """A face that is done, and written."""

    photo: Path
    name: str
    """Name of its files in the album, without ending."""
    latent: Latent
    distances: dict[str, float]
    """Distances after the search; those after tuning are in the latent."""
    verdict: Verdict
    remarks: list[str]
    """Warnings about the photo and its crop."""
    seconds: float
    """Share of the face in the time of its batch, with tuning and writing."""
    interrupted: bool
    written: list[Path]
    video: Path | None = None
    video_note: str | None = None
    """What the writer of videos has to say, such as that it took another format."""


class Listener:
    """What an album tells of its progress; every method does nothing until a subclass says
    otherwise.

    `warned` and the four around a search are called by the thread that runs the album, the others
    by any.
    """

    def began(self, what: str, total: int | None) -> None:
        """A search or a tuning of ``total`` steps begins; None where they are not known yet."""

    def stepped(self, step: int, total: int) -> None:
        """Step number ``step`` is done."""

    def ended(self) -> None:
        """What `began` is over."""

    def searched(self, step: SearchStep) -> None:
        """A step of a search, with its images."""

    def warned(self, photo: Path, text: str) -> None:
        """A photo or its crop may not invert well."""

    def skipped(self, photo: Path, latent: str) -> None:
        """A face was done before."""

    def failed(self, photo: Path, message: str) -> None:
        """A photo could not be done; `AlbumRunner.failures` has all of these."""

    def finished(self, face: Finished) -> None:
        """A face is done."""

    def overview(self, drawn: Path, faces: int, seconds: float, problem: str | None) -> None:
        """The album is over, ``faces`` are done: its contact sheet is ``drawn``, or there was a
        ``problem`` with it."""


@dataclass
class _Job:
    """A face that waits for its turn."""

    photo: Path
    name: str
    quad: list[list[float]]
    target: Tensor
    remarks: list[str]
    key: str


@dataclass(frozen=True)
class _Found:
    """A face that was searched for and is to be written."""

    job: _Job
    latent: Latent
    target: Tensor
    searched: Tensor
    """Rendered with the optimised noise, ``[1, C, H, W]``."""
    own_noise: Tensor
    shown: Tensor
    """As the latent file renders."""
    distances: dict[str, float]
    frames: list[Tensor]
    verdict: Verdict
    seconds: float
    interrupted: bool


class AlbumRunner:
    """Inverts photos into one folder.

    For every face it writes NAME.safetensors, NAME.png, NAME-compare.png and a row of index.csv,
    and at the end a contact sheet. A photo that fails does not hold up the others. What is done
    already, with the same options and the same contents of all files that they name, is skipped.

    Args:
        folder: of the album.
        crops: finds the crops in a photo.
        onlooker: who looks at the results along sliders; None for no one.
        listener: hears of the progress.
    """

    def __init__(
        self,
        projector: Projector,
        folder: str | os.PathLike[str],
        options: AlbumOptions,
        *,
        crops: Crops,
        onlooker: Inspector | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.projector = projector
        self.folder = Path(folder)
        self.options = options
        self.crops = crops
        self.onlooker = onlooker
        self.listener = listener or Listener()
        self.done = 0
        """Number of faces that were written."""
        self.failures: list[tuple[Path, str]] = []
        """Photos that could not be done, and why."""

        generator = projector.generator
        mask = options.mask
        self._mask = None if mask is None else (load_image(mask, generator.resolution, 1) + 1) / 2
        self._facts = resume_facts(options, projector)
        self._facts_before = resume_facts_before(options, projector)
        usual = 1 if generator.resolution >= LARGE else BATCH
        self._together = options.batch or self._at_once(usual)

        self._index = Index(folder)
        self._writer: ThreadPoolExecutor | None = None
        self._rows: list[Row] = []
        self._waiting: list[_Job] = []
        self._written: deque[tuple[Path, Future[None]]] = deque()

    def run(self, photos: Sequence[Path], everything: Sequence[Path] | None = None) -> None:
        """Invert ``photos``, which may be several processes' share of ``everything``.

        Raises:
            Interrupted: Ctrl-C ended it; what was done before is kept, and so is the best of the
                search that was running.
        """
        names = Names(self._index, everything or photos)
        began = time.monotonic()
        try:
            self._run(photos, names)
        except KeyboardInterrupt as error:
            kept = f"{self.done} photos are done and kept"
            raise Interrupted(
                f"interrupted; {kept}, run the same command again to resume"
            ) from error
        finally:
            if len(self._rows) > 1:
                self._overview(time.monotonic() - began)

    def _run(self, photos: Sequence[Path], names: Names) -> None:
        several = len(photos) > 1

        def prepare(photo: Path) -> list[_Job]:
            return self._prepare(photo, names, several)

        # One writer: rows of the index keep the order of the photos.
        with ThreadPoolExecutor(1) as writer, ahead(photos, prepare, self._together) as following:
            self._writer = writer
            for photo in photos:
                try:
                    self._collect(following())
                except Interrupted:
                    raise
                except Error as error:
                    self._fail(photo, str(error))
            self._solve()
            self._settle(len(self._written))

    def _prepare(self, photo: Path, names: Names, several: bool) -> list[_Job]:
        """Return the faces of a photo that are still to be done; runs in another thread, so that
        the model need not wait."""
        own = ""
        try:
            if self.options.cropping.in_pixels:
                picture = open_image(photo)
                reduced = 1
            else:
                picture, reduced = open_reduced(photo)
            own, before = keys(photo, self._facts, self._facts_before)
            framed = self.crops(picture, photo)
        except Error as error:
            if several:
                # Without room for the row there may still be some for what went wrong.
                with suppress(Error):
                    failed = f"{names.of(photo, found=own)}.safetensors"
                    self._index.add(photo, latent=failed, status="failed", remarks=str(error))
            raise

        jobs = []
        generator = self.projector.generator
        for suffix, quad, warnings in framed:
            name = names.of(photo, suffix, own)
            if not self.options.again and self._is_done(name, own, before):
                self.listener.skipped(photo, f"{name}.safetensors")
                continue
            target = crop_tensor(picture, quad, generator.resolution, generator.channels)
            whole = [[x * reduced, y * reduced] for x, y in quad]
            jobs.append(
                _Job(photo, name, whole, target, warnings + remarks(picture, quad, target), own)
            )

        return jobs

    def _is_done(self, name: str, own: str, before: str) -> bool:
        """Return whether the latent of that name was made of the same photo, with the same options
        and contents of files."""
        latent = f"{name}.safetensors"
        if self._index.has(latent, own):
            return True
        # Rows of older versions know files by their names alone. They count unless such a file was
        # changed since.
        return self._index.has(latent, before) and self._unchanged_since(self.folder / latent)

    def _unchanged_since(self, latent: Path) -> bool:
        try:
            made = latent.stat().st_mtime_ns
            return all(file.stat().st_mtime_ns <= made for file in self.options.named_files)
        except OSError:
            return False

    def _collect(self, jobs: list[_Job]) -> None:
        """Have ``jobs`` wait, and search as soon as enough do."""
        domain = self.projector.domain
        discriminator = self.projector.discriminator
        for job in jobs:
            if domain is not None and discriminator is not None:
                job.remarks += foreign(
                    domain.distance(discriminator, job.target.to(self.projector.device))
                )
            for remark in job.remarks:
                self.listener.warned(job.photo, remark)
            self._waiting.append(job)
            if len(self._waiting) == self._together:
                self._solve()

    def _solve(self) -> None:
        """Search for all faces that wait."""
        jobs = self._waiting.copy()
        self._waiting.clear()
        if not jobs:
            return

        started = time.monotonic()
        frames: list[Tensor] = []
        try:
            # If a batch fails as a whole, all its photos have failed; the next batch may succeed.
            result = self._search(jobs, frames)
        except Error as error:
            for job in jobs:
                self._fail(job.photo, str(error))
            return

        assert self._writer is not None
        seconds = (time.monotonic() - started) / len(jobs)
        for number, job in enumerate(jobs):
            found = self._finish(job, result, number, seconds, [frame[number] for frame in frames])
            self._written.append((job.photo, self._writer.submit(self._write, found)))

        # The writer need not be waited for, unless this is the end.
        self._settle(
            len(self._written)
            if result.interrupted
            else sum(future.done() for _, future in self._written)
        )
        if result.interrupted:
            raise Interrupted(
                "interrupted; the best result so far is kept, run the same command again to resume"
            )

    def _search(self, jobs: Sequence[_Job], frames: list[Tensor]) -> Inversion:
        """Search for the faces of ``jobs`` together; ``frames`` get the images of some of the
        steps."""
        options = self.options.inversion
        every = max(options.step_count * (options.restarts + 1) // FRAMES, 1)

        def tell(step: SearchStep) -> None:
            self.listener.stepped(step.number, step.total)
            self.listener.searched(step)
            if self.options.video and (step.number == 1 or step.number % every == 0):
                frames.append(step.images.to("cpu", copy=True))

        title = jobs[0].photo.name if len(jobs) == 1 else f"{len(jobs)} photos"
        with self._phase(title, None):
            images = torch.cat([job.target for job in jobs])
            return self.projector.invert(images, options, mask=self._mask, on_step=tell)

    def _finish(
        self, job: _Job, result: Inversion, number: int, seconds: float, frames: list[Tensor]
    ) -> _Found:
        """Tune the generator to a face, if that is wanted, and look at it along sliders."""
        started = time.monotonic()
        one = slice(number, number + 1)
        latent = result.latent(number)
        shown = result.image[one]
        if self.options.tune_steps and not result.interrupted:
            shown = self._tuned(job, result, number, latent)

        latent.crop = job.quad
        # After Ctrl-C nothing more is rendered: the user wants the program to end.
        look = None if result.interrupted or self.onlooker is None else self.onlooker.look(latent)
        verdict = judge(latent.distances, look)
        if look is not None:
            look.put_into(latent)
        return _Found(
            job=job,
            latent=latent,
            target=job.target,
            searched=result.image[one],
            own_noise=result.image_own_noise[one],
            shown=shown,
            distances=result.distances[number],
            frames=frames,
            verdict=verdict,
            seconds=seconds + time.monotonic() - started,
            interrupted=result.interrupted,
        )

    def _tuned(self, job: _Job, result: Inversion, number: int, latent: Latent) -> Tensor:
        """Put the tuned generator's change into ``latent``, and return the image; Ctrl-C leaves
        what the search found."""
        one = slice(number, number + 1)
        options = TuningOptions(self.options.tune_steps)
        noise = [map_[one] for map_ in result.noise]

        def tell(step: int, total: int, _: dict[str, float]) -> None:
            self.listener.stepped(step, total)

        try:
            with self._phase(f"{job.photo.name}: tuning", options.steps):
                tuning = self.projector.tune(job.target, result.ws[one], noise, options, tell)
                tuning.put_into(latent)
                return latent.render(self.projector.generator).cpu()
        except KeyboardInterrupt:
            result.settings["interrupted"] = True
            return result.image[one]

    def _write(self, found: _Found) -> None:
        """Write the files of a face and its row of the index; runs in another thread."""
        started = time.monotonic()
        job = found.job
        photo = job.photo
        name = job.name
        latent = found.latent
        latent.source = describe_source(photo) if self.options.remember_source else None

        written = [
            self.folder / f"{name}{ending}" for ending in (".safetensors", ".png", "-compare.png")
        ]
        save_latent(written[0], latent)
        save_image(found.shown, written[1])
        video = self.folder / f"{name}.mp4" if self.options.video else None
        note = None if video is None else save_video(video, [*found.frames, *[found.shown] * HOLD])

        pictures = [found.target, found.searched, found.own_noise]
        captions = ["photo", "optimised noise", "own noise"]
        if latent.tuned:
            pictures = [*pictures, found.shown]
            captions = [*captions, "tuned"]
        save_image(sheet([Row(photo.name, pictures, captions)]), written[2])
        # In [-1, 1]: no difference is black.
        difference = (found.target - found.shown).abs() * 2 - 1
        self._rows.append(Row(photo.name, [*pictures, difference], [*captions, "difference"]))

        seconds = found.seconds + time.monotonic() - started
        self._index.add(
            photo,
            latent=written[0].name,
            **found.distances,
            seconds=round(seconds, 1),
            status="interrupted" if found.interrupted else "ok",
            remarks="; ".join(job.remarks),
            key=job.key,
        )
        self.done += 1
        face = Finished(
            photo=photo,
            name=name,
            latent=latent,
            distances=found.distances,
            verdict=found.verdict,
            remarks=job.remarks,
            seconds=seconds,
            interrupted=found.interrupted,
            written=written,
            video=video,
            video_note=note,
        )
        self.listener.finished(face)

    def _settle(self, count: int) -> None:
        """Note the errors of writing the first ``count`` results that are not checked yet."""
        for photo, future in [self._written.popleft() for _ in range(count)]:
            error = future.exception()
            if isinstance(error, Error | OSError):
                self._fail(photo, str(error))
            elif error is not None:
                raise error

    def _fail(self, photo: Path, message: str) -> None:
        self.failures.append((photo, message))
        self.listener.failed(photo, message)

    @contextmanager
    def _phase(self, what: str, total: int | None) -> Iterator[None]:
        self.listener.began(what, total)
        try:
            yield
        finally:
            self.listener.ended()

    def _at_once(self, usual: int) -> int:
        model = self.projector.model
        return usual if model is None else photos_at_once(model, self.projector.device, usual)

    def _overview(self, seconds: float) -> None:
        rank = os.environ.get("RANK")
        drawn = own_path(self.folder / (f"sheet-{rank}.png" if rank else "sheet.png"), "latentedit")
        problem = None
        try:
            save_image(sheet(self._rows[:SHEET_ROWS]), drawn)
        except Error as error:
            # Told and not raised, as the failures of photos are to be told too.
            problem = str(error)

        self.listener.overview(drawn, self.done, seconds, problem)
