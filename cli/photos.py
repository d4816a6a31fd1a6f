"""Photos where a command takes latents: they are inverted first, or their latents come from the
cache."""

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from latentedit.cli import defaults, log
from latentedit.cli.common import (
    FailedItemsError,
    crop_options,
    face_options,
    found_files,
    framing_option,
    is_typed,
    quality_option,
    read_model,
)
from latentedit.cli.looks import onlooker_of
from latentedit.cli.moves import check_model, named_model
from latentedit.errors import ArgumentError, Error
from latentedit.inversion.quality import QUALITIES, Quality

if TYPE_CHECKING:
    from latentedit.album.cropping import Cropping
    from latentedit.latent.latent_file import Latent
    from latentedit.model.model import Model

FACE_OPTIONS = ("crop", "aligned", "face", "landmarks", "face_detector")


@dataclass(frozen=True)
class Inverting:
    """How photos are inverted that are given in place of latents."""

    quality: str
    framing: str | None
    again: bool
    cropping: "Cropping"

    @property
    def choices(self) -> Quality:
        return QUALITIES[self.quality]


def photo_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that take photos in place of latents; the command gets them as
    one argument, ``inverting``."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        from latentedit.album.cropping import Cropping

        quality, framing, again = (options.pop(name) for name in ("quality", "framing", "again"))
        cropping = Cropping(**{name: options.pop(name) for name in FACE_OPTIONS})
        inverting = Inverting(quality, framing, again, cropping)
        return function(*arguments, inverting=inverting, **options)

    text = "Invert photos anew, also those whose latents are in the cache."
    again = click.option("--again", is_flag=True, help=text)
    return quality_option(face_options(crop_options(framing_option(again(call)))))


def is_photo(path: Path) -> bool:
    """Whether a file is a picture and so no latent."""
    from latentedit.io.files import is_picture

    return path.is_file() and is_picture(path)


def expand_sources(paths: Sequence[str], *, recursive: bool = False) -> list[Path]:
    """Return the latents and photos that ``paths`` name.

    A folder stands for the latents in it. If it has none, it stands for the photos in it, without
    what latentedit rendered.
    """
    from latentedit.formats.load_latent import ENDINGS
    from latentedit.io.folders import listing
    from latentedit.io.images import EXTENSIONS

    found: list[Path] = []
    for text in paths:
        folder = Path(text)
        if folder.is_dir() and not listing(folder, ENDINGS, recursive=recursive).files:
            what = "latents or images"
            found += found_files([text], EXTENSIONS, what, recursive=recursive, photos=True)
        else:
            found += found_files([text], ENDINGS, "latent files", recursive=recursive)
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Opened:
    """A latent that a command works on."""

    latent: "Latent"
    model: "Model"
    photo: Path | None
    """The photo that it was inverted from just now, or earlier into the cache."""


class Sources:
    """The latents and photos of one command, with their models.

    Args:
        model_name: as the user names it; None for the one that a latent belongs to, and for photos
            that of the latents beside them, or the default.
        force: whether latents of another generator are accepted.
    """

    def __init__(
        self, model_name: str | None, device: str, inverting: Inverting, *, force: bool
    ) -> None:
        self.model_name = model_name
        self.device = device
        self.inverting = inverting
        self.force = force
        self._inverts = True
        self._models: dict[str, Model] = {}
        self._latents: dict[Path, Path] = {}
        self._failures: dict[Path, str] = {}

    def prepare(
        self, files: Sequence[Path], check: "Callable[[Model], object] | None" = None
    ) -> None:
        """Invert the photos among ``files`` that are not in the cache, all in one go.

        ``check`` is called with the model first: what would fail after minutes fails at once.

        A photo that cannot be inverted is told when it is opened.
        """
        photos = [path for path in files if is_photo(path)]
        self._check_options(photos)
        self._inverts = bool(photos)
        if not photos:
            return

        from latentedit.album.index import key
        from latentedit.album.options import AlbumOptions, resume_facts
        from latentedit.album.runner import AlbumRunner
        from latentedit.album.shelf import LatentCache
        from latentedit.cli.album import Briefly, crops_for
        from latentedit.inversion.options import InversionOptions
        from latentedit.inversion.projector import Projector

        model = self._model_for_photos([path for path in files if path not in photos])
        if check is not None:
            check(model)
        choices = self.inverting.choices
        options = AlbumOptions(
            InversionOptions(
                space=choices.space, steps=choices.steps(), noise=cast(Any, choices.noise)
            ),
            self.inverting.cropping,
            tune_steps=choices.tune_steps,
            again=self.inverting.again,
        )
        projector = Projector(model)
        facts = resume_facts(options, projector)
        cache = LatentCache()
        self._latents = {path: cache.path(key(path, facts)) for path in photos}
        missing = [
            path
            for path, latent in self._latents.items()
            if self.inverting.again or not cache.has(latent.stem)
        ]
        for path in photos:
            if path not in missing:
                log.remark(f"{path.name}: its latent is in the cache")
        if not missing:
            return

        from latentedit.cli.invert import prepare_projector

        log.remark(projector.perceptual_line)
        prepare_projector(projector, options.inversion)
        runner = AlbumRunner(
            projector,
            cache,
            options,
            crops=crops_for(model, options.cropping),
            onlooker=onlooker_of(model, projector.domain),
            listener=Briefly(projector),
        )
        runner.run(missing)
        self._failures = dict(reversed(runner.failures))

    def _check_options(self, photos: Sequence[Path]) -> None:
        """Raise `Error` for options about photos that can mean nothing here."""
        if self.inverting.cropping.face == "all":
            raise ArgumentError(
                "--face all makes several latents of a photo, which is what invert is for; give a "
                "number"
            )
        about_photos = (*FACE_OPTIONS, "quality", "again")
        typed = [name for name in about_photos if is_typed(name)]
        if typed and not photos:
            option = typed[0].replace("_", "-")
            raise ArgumentError(f"--{option} is about photos, and there are none")

    def _model_for_photos(self, latents: Sequence[Path]) -> "Model":
        for path in latents if self.model_name is None else ():
            with suppress(Error):  # which is told when it is opened
                return self.open(path).model
        name = self.model_name or defaults.value_of("model") or "faces128"
        return self._read(name, self.inverting.framing)

    def _read(self, name: str, framing: str | None = None) -> "Model":
        from latentedit.networks.fingerprint import fingerprint

        if name not in self._models:
            model = read_model(name, self.device, framing)
            self._models[name] = model
            self._models.setdefault(fingerprint(model.generator), model)
        return self._models[name]

    def open(self, path: Path, model: "Model | None" = None) -> Opened:
        """Return the latent in ``path``, or that of the photo ``path``, which was prepared.

        Args:
            model: that it must belong to; None for the one that it names.

        Raises:
            Error: it cannot be read, the photo could not be inverted, or the model is another.
        """
        from latentedit.formats.load_latent import load_latent

        if path in self._failures:
            raise FailedItemsError(self._failures[path])
        photo = path if path in self._latents else None
        latent = load_latent(self._latents.get(path, path))
        model = model or self._model_of(latent)
        check_model(latent, model, force=self.force)
        return Opened(latent, model, photo)

    def _model_of(self, latent: "Latent") -> "Model":
        key = self.model_name or latent.fingerprint
        if key not in self._models:
            self._models[key] = named_model(
                latent, self.model_name, self.device, encoder=self._inverts
            )
        return self._models[key]
