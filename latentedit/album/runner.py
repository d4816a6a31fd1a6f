"""The runner of an album: inverts photos, and puts the latents on a shelf.

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
from latentedit.album.index import keys
from latentedit.album.options import AlbumOptions, resume_facts, resume_facts_before
from latentedit.album.shelf import AlbumFolder, Inverted, Job, Shelf
from latentedit.errors import Error, Interrupted
from latentedit.inversion.pivotal_tuning import TuningOptions
from latentedit.inversion.projector import Projector, SearchStep
from latentedit.inversion.result import Inversion
from latentedit.inversion.verdict import Look, Verdict, judge
from latentedit.io.images import load_image, open_image, open_reduced
from latentedit.latent.latent_file import Latent
from latentedit.model.cost import photos_at_once
from latentedit.photo.alignment import crop_tensor
from latentedit.photo.checks import foreign, remarks
from latentedit.photo.crop_hash import crop_hash
from latentedit.photo.framing import Framed

LARGE = 256
"""Resolution from which photos are searched one by one."""
BATCH = 8
"""Photos per batch for smaller models."""
FRAMES = 120
"""Frames of a search in its video."""

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
    notes: Sequence[str]
    """What is good to know about the face, such as that there are others."""
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

    `warned`, `noted` and the four around a search are called by the thread that runs the album,
    the others by any.
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

    def noted(self, photo: Path, text: str) -> None:
        """Something about a photo is good to know, such as that it shows several faces."""

    def skipped(self, photo: Path, latent: str) -> None:
        """A face was done before."""

    def failed(self, photo: Path, message: str) -> None:
        """A photo could not be done; `AlbumRunner.failures` has all of these."""

    def finished(self, face: Finished) -> None:
        """A face is done."""

    def overview(self, drawn: Path, problem: str | None, faces: int, seconds: float) -> None:
        """The album is over, ``faces`` are done: its contact sheet is ``drawn``, or there was a
        ``problem`` with it."""


class AlbumRunner:
    """Inverts photos, and puts what it finds on a shelf.

    A photo that fails does not hold up the others. What is done already, with the same options and
    the same contents of all files that they name, is skipped.

    Args:
        place: a folder, which becomes an album (`latentedit.album.shelf.AlbumFolder`), or another
            shelf.
        crops: finds the crops in a photo.
        onlooker: who looks at the results along sliders; None for no one.
        listener: hears of the progress.
    """

    def __init__(
        self,
        projector: Projector,
        place: str | os.PathLike[str] | Shelf,
        options: AlbumOptions,
        *,
        crops: Crops,
        onlooker: Inspector | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.projector = projector
        self.shelf = AlbumFolder(place, options) if isinstance(place, str | os.PathLike) else place
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

        self._writer: ThreadPoolExecutor | None = None
        self._waiting: list[Job] = []
        self._written: deque[tuple[Path, Future[None]]] = deque()

    def run(self, photos: Sequence[Path], everything: Sequence[Path] | None = None) -> None:
        """Invert ``photos``, which may be several processes' share of ``everything``.

        Raises:
            Interrupted: Ctrl-C ended it; what was done before is kept, and so is the best of the
                search that was running.
        """
        self.shelf.begin(everything or photos)
        began = time.monotonic()
        try:
            self._run(photos)
        except KeyboardInterrupt as error:
            kept = f"{self.done} photos are done and kept"
            raise Interrupted(
                f"interrupted; {kept}, run the same command again to resume"
            ) from error
        finally:
            overview = self.shelf.overview()
            if overview is not None:
                self.listener.overview(*overview, self.done, time.monotonic() - began)

    def _run(self, photos: Sequence[Path]) -> None:
        several = len(photos) > 1

        def prepare(photo: Path) -> list[Job]:
            return self._prepare(photo, several)

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

    def _prepare(self, photo: Path, several: bool) -> list[Job]:
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
                # Without room for the note there may still be some for what went wrong.
                with suppress(Error):
                    self.shelf.fail(photo, own, str(error))
            raise

        jobs = []
        generator = self.projector.generator
        for suffix, quad, warnings, notes in framed:
            name = self.shelf.name(photo, suffix, own)
            if not self.options.again and self.shelf.has(name, own, before):
                self.listener.skipped(photo, f"{name}.safetensors")
                continue
            target = crop_tensor(picture, quad, generator.resolution, generator.channels)
            whole = [[x * reduced, y * reduced] for x, y in quad]
            told = warnings + remarks(picture, quad, target)
            jobs.append(Job(photo, name, whole, target, told, notes, own))

        return jobs

    def _collect(self, jobs: list[Job]) -> None:
        """Have ``jobs`` wait, and search as soon as enough do."""
        domain = self.projector.domain
        discriminator = self.projector.discriminator
        for job in jobs:
            if domain is not None and discriminator is not None:
                job.remarks += foreign(
                    domain.distance(discriminator, job.target.to(self.projector.device))
                )
            for note in job.notes:
                self.listener.noted(job.photo, note)
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

    def _search(self, jobs: Sequence[Job], frames: list[Tensor]) -> Inversion:
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
        self, job: Job, result: Inversion, number: int, seconds: float, frames: list[Tensor]
    ) -> Inverted:
        """Tune the generator to a face, if that is wanted, and look at it along sliders."""
        started = time.monotonic()
        one = slice(number, number + 1)
        latent = result.latent(number)
        shown = result.image[one]
        if self.options.tune_steps and not result.interrupted:
            shown = self._tuned(job, result, number, latent)

        latent.crop = job.quad
        latent.crop_hash = crop_hash(job.target)
        # After Ctrl-C nothing more is rendered: the user wants the program to end.
        look = None if result.interrupted or self.onlooker is None else self.onlooker.look(latent)
        verdict = judge(latent.distances, look)
        if look is not None:
            look.put_into(latent)
        return Inverted(
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

    def _tuned(self, job: Job, result: Inversion, number: int, latent: Latent) -> Tensor:
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

    def _write(self, found: Inverted) -> None:
        """Put a face on the shelf; runs in another thread."""
        job = found.job
        kept = self.shelf.put(found)
        self.done += 1
        face = Finished(
            photo=job.photo,
            name=job.name,
            latent=found.latent,
            distances=found.distances,
            verdict=found.verdict,
            remarks=job.remarks,
            notes=job.notes,
            seconds=kept.seconds,
            interrupted=found.interrupted,
            written=kept.written,
            video=kept.video,
            video_note=kept.video_note,
        )
        self.listener.finished(face)

    def _settle(self, count: int) -> None:
        """Note the errors of writing the first ``count`` results that are not checked yet."""
        for photo, future in [self._written.popleft() for _ in range(count)]:
            error = future.exception()
            if isinstance(error, Error | OSError) and not isinstance(error, BrokenPipeError):
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
