"""The way of a photo into the studio: it is opened, its crop is chosen, and a search finds its
latent."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from latentedit.errors import ArgumentError, DataError, Error, NotFoundError
from latentedit.inversion.domain import Domain
from latentedit.latent.latent_file import Latent
from latentedit.latent.spaces import W, space_of
from latentedit.model.model import Model
from latentedit.photo.alignment import crop_tensor
from latentedit.photo.crop_hash import crop_hash
from latentedit.studio.keeping import Keeper
from latentedit.studio.open_face import OpenFace
from latentedit.studio.painter import as_jpeg
from latentedit.studio.photos import (
    Crop,
    OpenPhoto,
    as_shown,
    open_photo,
    photographed,
    preview,
    remarks_on,
)
from latentedit.studio.searches import QUALITIES, STEPS, PhotoSearch, SearchProgress

LARGEST_UPLOAD = 40 * 2**20
"""Bytes of an uploaded photo."""
PHOTOS = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".avif",
    ".heic",
    ".heif",
)
"""Endings that the copy of an upload keeps."""


class Show(Protocol):
    """Opens a latent as the face of the session (`Session.show`)."""

    def __call__(
        self,
        latent: Latent,
        name: str,
        origin: str,
        *,
        photo: Path | None = None,
        keep: bool = False,
    ) -> OpenFace: ...


class Intake:
    """The photo that is being prepared, and the search for its latent; safe to call from several
    threads.

    Args:
        keeper: keeps copies of uploads.
        domain: returns where the model's own pictures lie, or None.
        show: opens the latent that was found.
        tell: called with "photo" and "search" when these change.
    """

    def __init__(
        self,
        model: Model,
        keeper: Keeper,
        domain: Callable[[], Domain | None],
        show: Show,
        tell: Callable[[str], None],
    ) -> None:
        self.model = model
        self.keeper = keeper
        self.photo: OpenPhoto | None = None
        self.remarks: list[str] = []
        """What is doubtful about the chosen crop."""
        self.search: PhotoSearch | None = None
        self.progress: SearchProgress | None = None
        self.progress_image = b""
        self._domain = domain
        self._show = show
        self._tell = tell
        self._lock = threading.Lock()
        self._ended = False

    # -- The photo and its crop

    def open(self, path: str | os.PathLike[str], name: str = "") -> OpenPhoto:
        """Open a photo and choose the crop around its largest face.

        Raises:
            Error: not a photo, or one that is too large.
        """
        photo = open_photo(path, self.model, name)
        self.photo = photo
        self._check_crop()
        self._tell("photo")
        return photo

    def upload(self, data: bytes, name: str) -> OpenPhoto:
        """Open a photo that the browser sent; the session's folder keeps a copy, as long as the
        session needs it.

        Raises:
            Error: too many bytes or pixels, or not a photo.
        """
        if len(data) > LARGEST_UPLOAD:
            raise DataError(
                f"this file has more than {LARGEST_UPLOAD // 2**20} MB; make it smaller first"
            )
        stem, ending = os.path.splitext(os.path.basename(name.replace("\\", "/")))
        ending = ending.lower() if ending.lower() in PHOTOS else ".jpg"

        place = self.keeper.add_upload(data, ending)
        try:
            return self.open(place, stem or "photo")
        except Error as error:
            place.unlink(missing_ok=True)
            # Neither the place of the copy nor an option of the command line means anything to
            # someone who drops a file.
            raise type(error)(f"{short_name(name)}: {error.reason}") from error

    def set_crop(self, crop: Crop) -> None:
        """Choose the crop by hand."""
        photo = self._opened()
        photo.crop = crop.within(*photo.image.size)
        self._check_crop()
        self._tell("photo")

    def crop_preview(self) -> bytes:
        """Return the chosen crop as a picture for the page."""
        return as_jpeg(preview(self._opened()), quality=88)

    def photo_preview(self) -> bytes:
        """Return the photo as a picture for the page."""
        return as_jpeg(as_shown(self._opened()), quality=88)

    def has_photo(self, face: OpenFace | None) -> bool:
        """Return whether the photo that ``face`` was made from is still there."""
        return bool(face and face.photo and face.latent.crop and face.photo.is_file())

    def photographed(self, face: OpenFace) -> bytes:
        """Return the face as its photo has it, in the crop of the search, for the page.

        Raises:
            Error: its photo is gone.
        """
        if not face.photographed:
            if not self.has_photo(face) or face.photo is None or face.latent.crop is None:
                raise NotFoundError("the photo of this face is not there any more")
            face.photographed = as_jpeg(photographed(face.photo, face.latent.crop), quality=90)
        return face.photographed

    def leave(self) -> None:
        """Leave the photo that is being prepared."""
        self.photo = None
        self._tell("photo")

    def _check_crop(self) -> None:
        self.remarks = remarks_on(self._opened(), self.model, self._domain())

    def _opened(self) -> OpenPhoto:
        if self.photo is None:
            raise ArgumentError("open a photo first")
        return self.photo

    # -- The search

    def invert(
        self, quality: str, *, steps: int = STEPS, start: OpenFace | None = None
    ) -> OpenFace | None:
        """Search for the chosen crop's latent and open it; takes seconds to minutes. `stop` keeps
        the best so far.

        Args:
            quality: a key of `QUALITIES`.
            start: the open face, to go on from it and leave its sliders where they are.

        Raises:
            Error: no photo is open, or a search runs already.
        """
        photo = self._opened()
        if quality not in QUALITIES:
            raise ArgumentError(f"there is no quality {quality!r}")
        chosen = QUALITIES[quality]
        generator = self.model.generator
        target = crop_tensor(
            photo.image, photo.crop.quad(), generator.resolution, generator.channels
        )
        first = None if start is None else start.latent.ws

        with self._lock:
            if self.search is not None:
                raise ArgumentError("a search runs already; stop it first")
            self.progress_image = b""
            search = PhotoSearch(
                self.model, target, chosen, self._progressed, start=first, steps=steps
            )
            self.search = search

        try:
            latent = search.run()
            if self._ended:
                return None
            latent.crop = photo.quad_in_file()
            latent.crop_hash = crop_hash(target)
            origin = f"{photo.name}, {chosen.title.lower()}"
            return self._show(latent, photo.name, origin, photo=photo.path, keep=start is not None)
        finally:
            self.search = None
            self.progress = None
            self._tell("search")

    def can_refine(self, face: OpenFace | None) -> bool:
        """Return whether ``face`` comes from a photo that is still there, so that a search can go
        on from it; it would take back what was dragged."""
        dragged = face is not None and bool(face.latent.settings.get("edits"))
        return self.has_photo(face) and self.search is None and not dragged

    def refine(self, face: OpenFace | None) -> OpenFace | None:
        """Search on from the open face for its photo; its sliders stay where they are.

        Raises:
            Error: its photo is gone.
        """
        if (
            face is None
            or not self.can_refine(face)
            or face.photo is None
            or face.latent.crop is None
        ):
            raise NotFoundError(
                "the photo of this face is not there any more, so that it cannot be refined"
            )
        photo = open_photo(face.photo, self.model, face.name)
        photo.crop = Crop.of([[x / photo.reduced, y / photo.reduced] for x, y in face.latent.crop])
        self.photo = photo
        self.remarks = []
        self._tell("photo")

        one_w = space_of(face.latent.space) is W
        quality = "likeness" if face.latent.tuned else "edits" if one_w else "balanced"
        try:
            return self.invert(quality, start=face)
        finally:
            self.leave()

    def stop(self) -> None:
        """Stop the search; the best so far becomes the face."""
        search = self.search
        if search is not None:
            search.stop()

    def end(self) -> None:
        """Stop the search, and open nothing that it finds."""
        self._ended = True
        self.stop()

    def _progressed(self, progress: SearchProgress) -> None:
        self.progress = progress
        if progress.image is not None:
            self.progress_image = as_jpeg(progress.image, quality=90)
        self._tell("search")


def short_name(name: str) -> str:
    """Return the name of an upload as messages have it: without folders, and of a length that can
    be read."""
    last = os.path.basename(name.replace("\\", "/")) or "this file"
    return last if len(last) <= 40 else f"{last[:28]}…{last[-11:]}"
