"""One tuned generator for all photos of an album."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentedit.album.index import COLUMNS
from latentedit.album.options import AlbumOptions
from latentedit.album.runner import AlbumRunner, Crops, Finished, Inspector, Listener
from latentedit.album.shelf import AlbumFolder
from latentedit.errors import ArgumentError, IncompatibleError, Interrupted
from latentedit.formats.load_latent import load_latent
from latentedit.inversion.pivotal_tuning import TuningOptions
from latentedit.inversion.projector import Projector
from latentedit.inversion.verdict import judge
from latentedit.io.contact_sheet import Row, sheet
from latentedit.io.images import open_image, save_image
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.photo.alignment import crop_tensor

SETTING = "tune_together"
"""Of a latent: how many photos share its difference, and the digest of which."""


@dataclass(frozen=True)
class AlbumFace:
    """A face of the album, whose latent was found or is to be found."""

    photo: Path
    name: str
    """Name of its files, without ending."""
    key: str
    """What its row of the index gets once the generator is tuned."""


class SharedFolder(AlbumFolder):
    """An album whose latents will share a tuned generator.

    A latent that is tuned together with others already is still what the search found, so that
    nothing is searched for again when a photo is added.
    """

    def __init__(self, folder: str | os.PathLike[str], options: AlbumOptions, steps: int) -> None:
        super().__init__(folder, options)
        self.steps = steps
        self.faces: dict[str, AlbumFace] = {}
        self.tuned: list[Row] = []

    def name(self, photo: Path, suffix: str, key: str) -> str:
        name = super().name(photo, suffix, key)
        self.faces[name] = AlbumFace(photo, name, self.key(key))
        return name

    def key(self, own: str) -> str:
        """Return the key of a photo with the search's key ``own``, once it is tuned with others."""
        settings = hashlib.sha256(f"{own[16:]} together {self.steps}".encode()).hexdigest()
        return own[:16] + settings[:16]

    def has(self, name: str, key: str, before: str) -> bool:
        return super().has(name, key, before) or self._index.has(
            f"{name}.safetensors", self.key(key)
        )

    @property
    def found(self) -> list[AlbumFace]:
        """The faces whose latents are there; those whose search failed are not."""
        faces = sorted(self.faces.values(), key=lambda face: face.name)
        return [face for face in faces if self._index.is_there(f"{face.name}.safetensors")]

    def is_tuned(self, face: AlbumFace) -> bool:
        return self._index.has(f"{face.name}.safetensors", face.key)

    def put_tuned(self, face: AlbumFace, latent: Latent, pictures: Sequence[Tensor]) -> list[Path]:
        """Write the files of a face again; ``pictures`` are the photo, the image before, and after
        tuning."""
        endings = (".safetensors", ".png", "-compare.png")
        written = [self.folder / f"{face.name}{ending}" for ending in endings]
        save_latent(written[0], latent)
        save_image(pictures[2], written[1])
        captions = ["photo", "before", f"tuned to {latent.settings[SETTING]['photos']}"]
        save_image(sheet([Row(face.photo.name, list(pictures), captions)]), written[2])
        # In [-1, 1]: no difference is black.
        difference = (pictures[0] - pictures[2]).abs() * 2 - 1
        self.tuned.append(Row(face.photo.name, [*pictures, difference], [*captions, "difference"]))
        row = self._index.rows.get(written[0].name, {})
        kept: dict[str, Any] = {name: _number(row.get(name, "")) for name in COLUMNS[2:]}
        kept |= {"latent": written[0].name, "status": "ok", "key": face.key}
        self._index.add(face.photo, **kept)
        return written

    def overview(self) -> tuple[Path, str | None] | None:
        self._rows = self.tuned
        return super().overview()


class SharedAlbum:
    """Inverts photos into a folder, and then tunes one generator to all of them.

    The search is that of `latentedit.album.runner.AlbumRunner` without tuning. Then the latents in
    the folder are the pivots. Each gets the same difference, so that every file renders by itself.
    What is tuned to the same photos already stays as it is.

    Args:
        folder: for the latents.
        options: of the album; ``tune_steps`` must be at least 1.
        crops, onlooker, listener: as of `AlbumRunner`.

    Raises:
        Error: no steps of tuning.
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
        if options.tune_steps < 1:
            raise ArgumentError("one generator for all photos needs tune_steps of at least 1")
        self.projector = projector
        self.options = options
        self.onlooker = onlooker
        self.listener = listener or Listener()
        search = replace(options, tune_steps=0)
        self.folder = SharedFolder(folder, search, options.tune_steps)
        self.runner = AlbumRunner(
            projector,
            self.folder,
            search,
            crops=crops,
            onlooker=onlooker,
            listener=self.listener,
        )

    @property
    def failures(self) -> list[tuple[Path, str]]:
        """Photos that could not be done, and why."""
        return self.runner.failures

    def run(self, photos: Sequence[Path], everything: Sequence[Path] | None = None) -> None:
        """Invert ``photos`` and tune the generator to them.

        Raises:
            Error: ``everything`` has photos that other processes do.
            Interrupted: Ctrl-C ended it; what was found before is kept.
        """
        if everything is not None and len(photos) != len(everything):
            raise ArgumentError("one generator is tuned to all photos in one process, not several")
        self.runner.run(photos)
        faces = self.folder.found
        if not faces:
            return
        try:
            self._tune(faces)
        except KeyboardInterrupt as error:
            raise Interrupted(
                "interrupted; the photos are inverted and kept, run the same command again to tune"
            ) from error

    def _tune(self, faces: Sequence[AlbumFace]) -> None:
        folder = self.folder.folder
        latents = [load_latent(folder / f"{face.name}.safetensors") for face in faces]
        group = {"photos": len(faces), "set": _digest(faces)}
        done = all(
            latent.settings.get(SETTING) == group and latent.tuned and self.folder.is_tuned(face)
            for face, latent in zip(faces, latents, strict=True)
        )
        if done and not self.options.again:
            return

        started = time.monotonic()
        generator = self.projector.generator
        targets = [self._target(face, one) for face, one in zip(faces, latents, strict=True)]
        for latent in latents:
            latent.tuned = {}
        before = [latent.render(generator).cpu() for latent in latents]
        self._tune_latents(latents, torch.cat(targets))

        each = (time.monotonic() - started) / len(faces)
        for face, latent, target, old in zip(faces, latents, targets, before, strict=True):
            began = time.monotonic()
            latent.settings[SETTING] = group
            shown = latent.render(generator).cpu()
            look = None if self.onlooker is None else self.onlooker.look(latent)
            if look is not None:
                look.put_into(latent)
            written = self.folder.put_tuned(face, latent, [target, old, shown])
            self.listener.finished(
                Finished(
                    photo=face.photo,
                    name=face.name,
                    latent=latent,
                    distances=latent.distances,
                    verdict=judge(latent.distances, look),
                    remarks=[],
                    notes=(),
                    seconds=each + time.monotonic() - began,
                    interrupted=False,
                    written=written,
                )
            )
        overview = self.folder.overview()
        if overview is not None:
            self.listener.overview(*overview, len(faces), time.monotonic() - started)

    def _target(self, face: AlbumFace, latent: Latent) -> Tensor:
        """Return the crop of the photo that the latent was made from, ``[1, C, H, W]``."""
        if latent.crop is None:
            raise IncompatibleError("the latent names no crop of its photo", path=face.name)
        generator = self.projector.generator
        photo = open_image(face.photo)
        return crop_tensor(photo, latent.crop, generator.resolution, generator.channels)

    def _tune_latents(self, latents: Sequence[Latent], targets: Tensor) -> None:
        generator = self.projector.generator
        options = TuningOptions(self.options.tune_steps)
        own = [map_[None, None].cpu() for map_ in generator.synthesis.noise_constants]
        maps = [own if latent.noise is None else latent.noise for latent in latents]
        noise = [torch.cat(level) for level in zip(*maps, strict=True)]
        ws = torch.cat([latent.rows(generator.num_ws) for latent in latents])

        def tell(step: int, total: int, _: dict[str, float]) -> None:
            self.listener.stepped(step, total)

        self.listener.began(f"tuning to {len(latents)} photos", options.steps)
        try:
            found = self.projector.tune_together(targets, ws, noise or None, options, tell)
        finally:
            self.listener.ended()
        for latent, tuning in zip(latents, found, strict=True):
            tuning.put_into(latent)


def _digest(faces: Sequence[AlbumFace]) -> str:
    """Return 16 hexadecimal digits that change with the photos, their names and what is done."""
    text = json.dumps([(face.key, face.name) for face in faces])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _number(text: str) -> float | str:
    """Return a cell of the index as `Index.add` takes it."""
    try:
        return float(text)
    except ValueError:
        return text
