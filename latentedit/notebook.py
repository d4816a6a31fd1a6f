"""Photos and faces for notebooks: from a photo to an edited image that displays itself.

::

    photo = latentedit.Photo("me.jpg")
    face = latentedit.invert(photo, model="faces128")
    face.edit(smile=1).image

It wires nothing anew: `latentedit.Projector` inverts, and what commands do with latents is done
here with the same functions.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image
from torch import Tensor

from latentedit.directions.direction import Direction, check_generator
from latentedit.directions.registry import load_direction, own_directions, shipped
from latentedit.directions.sweeps import move_latent
from latentedit.errors import ArgumentError, NotFoundError
from latentedit.formats.find_model import find_model
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_model
from latentedit.inversion import projector as projectors
from latentedit.inversion.options import sorted_out
from latentedit.inversion.projector import Inversion, InversionOptions, Projector, SearchStep
from latentedit.inversion.verdict import Verdict, judge
from latentedit.io import contact_sheet
from latentedit.io.images import Source, open_image, save_image, to_pil
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.model.model import Model
from latentedit.networks.generator import Generator
from latentedit.photo.alignment import (
    crop_tensor,
    faces_for,
    nth_face,
    quad_from_face,
    quad_of_window,
)
from latentedit.photo.crop_hash import crop_hash
from latentedit.photo.face import DetectedFace
from latentedit.photo.faces import find_faces
from latentedit.photo.pasting import paste_back
from latentedit.runtime.devices import resolve_device

ARGUMENTS = ("crop", "aligned", "face_detector")
"""Arguments of `Photo` that messages about its faces suggest."""
AMOUNTS = (-2.0, -1.0, 0.0, 1.0, 2.0)
MODELS = 2
"""Models that `invert` keeps in memory between calls."""
MODEL_KINDS = "a name, a path, a Model, a Generator or a Projector"


class Photo:
    """A photograph, and which face in it is meant.

    It displays itself in notebooks.

    Args:
        source: a path, a PIL image, or a uint8 array ``[H, W]`` or ``[H, W, 3]``.
        face: which face, 1 for the largest.
        crop: ``(left, top, size)`` in pixels of the square to take, in place of a face.
        aligned: whether the photo is a crop already.
        face_detector: the file of a YuNet network, or "yunet" for the downloaded one.

    Raises:
        Error: the source is of another kind, or cannot be read; a value out of its range.
    """

    def __init__(
        self,
        source: "Source | Photo",
        *,
        face: int = 1,
        crop: Sequence[float] | None = None,
        aligned: bool = False,
        face_detector: str | os.PathLike[str] | None = None,
    ) -> None:
        if isinstance(source, Photo):
            self.image: Image.Image = source.image
            self.name: str = source.name
        else:
            self.image = open_image(source)
            named = isinstance(source, str | os.PathLike)
            self.name = Path(str(source)).name if named else "photo"

        if type(face) is not int or face < 1:
            raise ArgumentError.of("face", "a whole number from 1", face)
        if crop is not None and aligned:
            raise ArgumentError("crop and aligned exclude each other")

        self.face = face
        self.crop = None if crop is None else _checked_crop(crop, self.image)
        self.aligned = aligned
        self.face_detector = face_detector

    @cached_property
    def faces(self) -> list[DetectedFace]:
        """The faces in the photo, the largest first; at least as many as ``face`` says, if smaller
        ones can be found."""
        return find_faces(self.image, self.face_detector, self.face)

    def quad(self, framing: Mapping[str, Any] | None) -> list[list[float]]:
        """Return the corners of the crop for a model of this ``framing``, in pixels.

        Raises:
            Error: no such face; the message says what to do.
        """
        if self.crop is not None:
            return quad_of_window(*self.crop)
        if self.aligned:
            side = min(self.image.size)
            left = (self.image.width - side) // 2
            return quad_of_window(left, (self.image.height - side) // 2, side)

        found = faces_for(
            self.image,
            dict(framing or {}),
            self.name,
            detector=self.face_detector,
            number=self.face,
            ways=ARGUMENTS,
        )
        return quad_from_face(nth_face(found, self.face, self.name), dict(framing or {}))

    def __repr__(self) -> str:
        return f"Photo({self.name!r}, {self.image.width} x {self.image.height})"

    def _repr_png_(self) -> bytes | None:
        return _as_png(self.image)


class Face:
    """A face in the latent space of a model: what `invert` returns for a photo.

    Nothing changes it: `edit` returns another one. It displays itself in notebooks.
    """

    def __init__(self, latent: Latent, projector: Projector, photo: Photo | None = None) -> None:
        self.latent = latent
        """What a latent file stores."""
        self.projector = projector
        self.photo = photo
        """The photo that it was inverted from, if it was."""
        self.moves: list[str] = []
        """Edits since the inversion, as the command line writes them."""

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: "str | os.PathLike[str] | Model | Generator | Projector" = "faces128",
        *,
        photo: "Photo | Source | None" = None,
        device: str = "auto",
    ) -> "Face":
        """Read a latent file.

        Args:
            photo: the photo that it was inverted from, for `paste_back`.

        Raises:
            Error: no latent file, or one of another model.
        """
        projector = _projector(model, device)
        latent = load_latent(path)
        latent.check_generator(projector.fingerprint, _name(projector))
        latent.check_shapes(projector.generator)
        latent.ws = latent.rows(projector.generator.num_ws)
        return cls(latent, projector, None if photo is None else Photo(photo))

    @cached_property
    def image(self) -> Image.Image:
        """The rendered image; PIL images display themselves in notebooks."""
        return to_pil(self.latent.render(self.projector.generator))

    @property
    def sliders(self) -> list[str]:
        """Names of the sliders for this model: your own, and those that ship with it."""
        own = self.projector.fingerprint
        return sorted({*own_directions(own), *shipped(own)})

    @property
    def psnr(self) -> float | None:
        """How near the inversion came to the photo in dB; None for an edited face."""
        return self.latent.distances.get("psnr")

    @property
    def verdict(self) -> Verdict | None:
        """How far edits of the inversion can be trusted; None for an edited face."""
        return judge(self.latent.distances) if self.latent.distances else None

    def score(self, slider: str | Direction) -> float:
        """Return the score of this face under a slider, in sigmas; 0 is where it is undecided."""
        direction = self._direction(slider)
        generator = self.projector.generator
        score = direction.score(self.latent.ws, generator, self.latent.styles)
        return float(score[0]) / direction.sigma

    def edit(
        self,
        amounts: Mapping[str, float] | None = None,
        /,
        *,
        layers: str | tuple[int, int] | None = None,
        **sliders: float,
    ) -> "Face":
        """Return the face with sliders moved: ``face.edit(smile=1, grey_hair=0.5)``.

        Args:
            amounts: amounts by names or files of directions, for names that are no Python names.
            layers: layers to edit, such as "coarse"; None for the sliders' own.
            sliders: amounts in sigmas; 1 is the usual difference between two random faces.

        Raises:
            Error: no such slider, or an amount that is no number.
        """
        latent = self.latent
        wanted = {**(amounts or {}), **sliders}
        if not wanted:
            raise ArgumentError("nothing to edit; give amounts, such as edit(smile=1)")

        found = Face(latent, self.projector, self.photo)
        found.moves = list(self.moves)
        for name, amount in wanted.items():
            if isinstance(amount, bool) or not isinstance(amount, int | float | np.number):
                raise ArgumentError.of(f"the amount of {name}", "a number", amount)
            direction = self._direction(name)
            generator = self.projector.generator
            latent = move_latent(generator, latent, direction, float(amount), layers)
            at = f"@{layers}" if isinstance(layers, str) else ""
            found.moves.append(f"{direction.name}={float(amount):g}{at}")

        edits = [*self.latent.settings.get("edits", []), *found.moves[len(self.moves) :]]
        settings = {**self.latent.settings, "edits": edits}
        found.latent = replace(latent, settings=settings, distances={}, safe=None)
        return found

    def sweep(self, slider: str | Direction, amounts: Sequence[float] = AMOUNTS) -> Image.Image:
        """Return a strip of images along a slider, with their amounts above them.

        Raises:
            Error: no such slider, or no amounts.
        """
        if isinstance(amounts, str) or not isinstance(amounts, Sequence) or not amounts:
            raise ArgumentError.of("amounts", "a sequence of numbers, such as (-2, 0, 2)", amounts)

        direction = self._direction(slider)
        generator = self.projector.generator
        moved = [move_latent(generator, self.latent, direction, float(a)) for a in amounts]
        pictures = [latent.render(generator) for latent in moved]
        captions = [f"{amount:+g}" if amount else "0" for amount in amounts]
        return contact_sheet.sheet([contact_sheet.Row(direction.name, pictures, captions)])

    def paste_back(self, *, difference: bool = False) -> Image.Image:
        """Return the photo with the face as it is now in place of its crop.

        Args:
            difference: add only what the edits changed, and keep the photo's own detail.

        Raises:
            Error: the photo is not known.
        """
        crop = self.latent.crop
        if self.photo is None or crop is None:
            advice = "invert one, or load with `photo`"
            raise NotFoundError("this face does not know its photo", advice=advice)

        before = self._unedited.image if difference else None
        return paste_back(self.photo.image, self.image, crop, before=before)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the image, or the latent file if ``path`` ends in .safetensors."""
        if os.fspath(path).endswith(".safetensors"):
            save_latent(path, self.latent)
        else:
            save_image(self.image, path)

    @cached_property
    def _unedited(self) -> "Face":
        """The face as it was inverted, found by taking the edits back."""
        latent = self.latent
        for move in reversed(self.moves):
            name, _, rest = move.rpartition("=")
            amount, _, layers = rest.partition("@")
            direction = self._direction(name)
            generator = self.projector.generator
            latent = move_latent(generator, latent, direction, -float(amount), layers or None)
        return Face(latent, self.projector, self.photo)

    def _direction(self, slider: str | Direction) -> Direction:
        if isinstance(slider, Direction):
            check_generator(slider, self.projector.fingerprint, _name(self.projector))
            return slider
        if not isinstance(slider, str | os.PathLike):
            raise ArgumentError.of("a slider", "a name, a path or a Direction", slider)

        name = os.fspath(slider)
        spelled = name.replace("_", "-")
        found = spelled if spelled in self.sliders else name
        direction = load_direction(found, self.projector.fingerprint)
        check_generator(direction, self.projector.fingerprint, _name(self.projector))
        return direction

    def __repr__(self) -> str:
        of = f" of {self.photo.name!r}" if self.photo is not None else ""
        edits = f", {', '.join(self.moves)}" if self.moves else ""
        return f"Face({_name(self.projector)}{of}{edits})"

    def _repr_png_(self) -> bytes | None:
        return _as_png(self.image)


@overload
def invert(
    photo: Photo | Source,
    *,
    model: str | os.PathLike[str] | Model | Projector = "faces128",
    space: str = "w+",
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    **choices: Any,
) -> Face: ...


@overload
def invert(
    model: Model | Generator,
    image: Tensor,
    space: str = "w+",
    steps: int | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
    **choices: Any,
) -> Inversion: ...


def invert(photo: Any = None, image: Any = None, *rest: Any, **choices: Any) -> Any:  # type: ignore[misc]
    """Invert a photo: find its face, and the latent that reproduces it.

    ``invert(photo, model="faces128")`` returns a `Face`. With a model or generator and a tensor of
    images, ``invert(model, image)``, this is `latentedit.inversion.projector.invert`, which returns
    an `Inversion`.

    Args:
        photo: a `Photo`, or what one is made of: a path, a PIL image, or a uint8 array.
        model: a bundled or published name, a model file, a `Model`, or a `Projector`.
        space: "w" (one w), "w+" (one per layer) or "s" (W+, then offsets of every style channel).
        steps: None for 100.
        seed: of the noise.
        device: "auto", "cpu", "cuda" or "mps".
        progress: whether to show a bar; None shows one in notebooks and on terminals.
        choices: fields of `InversionOptions`.

    Raises:
        Error: a wrong kind of argument, an unreadable photo, or no face in it.
    """
    if isinstance(photo, Model | Generator) or (photo is None and isinstance(image, Tensor)):
        first = choices.pop("model") if photo is None else photo
        return projectors.invert(first, image, *rest, **choices)
    if image is not None or rest:
        raise ArgumentError(
            "invert takes a photo and names its other arguments, as in invert(photo, model=...), or"
            " a model and a tensor"
        )
    return _inverted(photo, **choices)


def _inverted(
    photo: Any,
    *,
    model: Any = "faces128",
    device: str = "auto",
    progress: bool | None = None,
    space: str = "w+",
    steps: int | None = None,
    seed: int = 0,
    **choices: Any,
) -> Face:
    source = photo if isinstance(photo, Photo) else Photo(photo)
    chosen, parts, given = sorted_out(dict(choices))
    if parts or given:
        named = ", ".join(sorted({**parts, **given}))
        raise ArgumentError(f"{named}: give a Projector with these settings as model")

    options = InversionOptions(space=space, steps=steps, seed=seed, **chosen)
    projector = _projector(model, device)
    generator = projector.generator
    quad = source.quad(projector.framing)
    target = crop_tensor(source.image, quad, generator.resolution, generator.channels)
    with _bar(source.name, progress) as step:
        result = projector.invert(target, options, on_step=step)

    latent = result.latent()
    latent.crop = [[float(x), float(y)] for x, y in quad]
    latent.crop_hash = crop_hash(target)
    return Face(latent, projector, source)


def _checked_crop(crop: Any, image: Image.Image) -> tuple[float, float, float]:
    expected = "(left, top, size) in pixels, within the photo"
    try:
        left, top, size = (float(number) for number in crop)
    except (TypeError, ValueError) as error:
        raise ArgumentError.of("crop", expected, crop) from error

    inside = left < image.width and top < image.height and left + size > 0 and top + size > 0
    if not (1 <= size <= 3 * max(image.size) and inside):
        raise ArgumentError.of("crop", expected, (left, top, size))
    return left, top, size


_kept: dict[tuple[str, int, str], Projector] = {}


def _projector(model: Any, device: str) -> Projector:
    """Return the projector of a model; those of files are kept, as it takes seconds to make one."""
    if isinstance(model, Projector):
        return model
    if isinstance(model, Model | Generator):
        return Projector(model)
    if not isinstance(model, str | os.PathLike):
        raise ArgumentError.of("model", MODEL_KINDS, model)

    path = find_model(model)
    where = resolve_device(device)
    key = (os.fspath(path), path.stat().st_mtime_ns, str(where))
    if key not in _kept:
        while len(_kept) >= MODELS:
            del _kept[next(iter(_kept))]
        _kept[key] = Projector(load_model(model, where))
    return _kept[key]


def _name(projector: Projector) -> str:
    path = projector.model.path if projector.model is not None else ""
    return Path(path).stem or f"a generator of {projector.generator.resolution} px"


@contextmanager
def _bar(name: str, shown: bool | None) -> Iterator[Callable[[SearchStep], None]]:
    """Show a bar of tqdm; one of the notebook's own where its widgets are installed."""
    notebook = "ipykernel" in sys.modules
    if shown is None:
        shown = notebook or sys.stderr.isatty()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of notebooks without widgets
        from tqdm.auto import tqdm

        bar = tqdm(desc=name, unit="step", disable=not shown, mininterval=0.3)

    def step(told: SearchStep) -> None:
        bar.total = told.total
        bar.update(told.number - bar.n)

    with bar:
        yield step


def _as_png(image: Image.Image) -> bytes | None:
    return image._repr_png_()
