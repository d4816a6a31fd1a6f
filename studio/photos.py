"""A photo on its way in: its faces, the crop that will be inverted, and what the checks say of
it."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from latentedit.errors import ArgumentError
from latentedit.inversion.domain import Domain
from latentedit.io.images import open_reduced
from latentedit.model.model import Model
from latentedit.photo.alignment import Quad, crop, crop_tensor, quad_from_face, quad_of_window
from latentedit.photo.checks import foreign, remarks
from latentedit.photo.faces import find_faces, notes_on, warnings_of

SHOWN = 1600
"""Pixels of the longer side of the photo as the page gets it."""
LEAST = 16.0
"""Pixels of the smallest crop."""


@dataclass(frozen=True)
class Crop:
    """A square in a photo, in pixels of the photo."""

    x: float
    """Horizontal position of the centre."""
    y: float
    """Vertical position of the centre."""
    side: float
    angle: float = 0.0
    """Degrees, clockwise."""

    def quad(self) -> Quad:
        """Return the corners: upper left, upper right, lower right, lower left."""
        turn = complex(math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle)))
        corners = [
            complex(self.x, self.y) + self.side / 2 * turn * c
            for c in (-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j)
        ]
        return [[corner.real, corner.imag] for corner in corners]

    @classmethod
    def of(cls, quad: Quad) -> "Crop":
        """Return the square with these corners."""
        corners = [complex(*corner) for corner in quad]
        centre = sum(corners) / 4
        along = corners[1] - corners[0]
        return cls(
            centre.real, centre.imag, abs(along), math.degrees(math.atan2(along.imag, along.real))
        )

    def within(self, width: int, height: int) -> "Crop":
        """Return the square kept to a photo of this size: its centre inside, its side no more than
        twice the photo's.

        Raises:
            Error: numbers that are none.
        """
        numbers = (self.x, self.y, self.side, self.angle)
        if not all(math.isfinite(number) for number in numbers):
            raise ArgumentError("a crop is four finite numbers")
        side = min(max(self.side, LEAST), 2.0 * max(width, height))
        angle = (self.angle + 180) % 360 - 180
        return Crop(min(max(self.x, 0), width), min(max(self.y, 0), height), side, angle)


@dataclass
class OpenPhoto:
    """An opened photo."""

    path: Path
    name: str
    """As the user calls it, without its ending."""
    image: Image.Image
    """Upright."""
    reduced: int
    """How many times smaller than the file it was read."""
    faces: list[Crop] = field(default_factory=list)
    """Crops around the faces that were found, the largest first."""
    doubts: list[list[str]] = field(default_factory=list)
    """What is doubtful about each, and what is good to know."""
    crop: Crop = field(default_factory=lambda: Crop(0, 0, LEAST))

    def quad_in_file(self) -> Quad:
        """Return the chosen crop in pixels of the file."""
        return [[x * self.reduced, y * self.reduced] for x, y in self.crop.quad()]


def open_photo(path: str | os.PathLike[str], model: Model, name: str = "") -> OpenPhoto:
    """Open a photo through the project's reader, find its faces, and choose the crop around the
    largest.

    Without a face, or a framing that says where faces are, the crop is the largest square in the
    middle.

    Raises:
        Error: as `latentedit.io.images.open_reduced`.
    """
    image, reduced = open_reduced(path)
    photo = OpenPhoto(Path(path), name or Path(path).stem, image, reduced)
    framing = model.framing or {}
    if "eyes" in framing:
        faces = find_faces(image)
        for number, face in enumerate(faces, 1):
            photo.faces.append(Crop.of(quad_from_face(face, framing)))
            photo.doubts.append([*notes_on(faces, number, ()), *warnings_of(face, ())])
    side = float(min(image.size))
    middle = Crop.of(quad_of_window((image.width - side) / 2, (image.height - side) / 2, side))
    photo.crop = photo.faces[0] if photo.faces else middle
    return photo


def remarks_on(photo: OpenPhoto, model: Model, domain: Domain | None) -> list[str]:
    """Return what is doubtful about the chosen crop; an empty list if nothing is."""
    generator = model.generator
    quad = photo.crop.quad()
    target = crop_tensor(photo.image, quad, generator.resolution, generator.channels)
    found = []
    if "eyes" in (model.framing or {}) and not photo.faces:
        found.append(
            "no face was found: place the square by hand, eyes and mouth as on the example"
        )
    if photo.crop in photo.faces:
        found += photo.doubts[photo.faces.index(photo.crop)]
    found += remarks(photo.image, quad, target)
    if domain is not None and model.discriminator is not None:
        found += foreign(domain.distance(model.discriminator, target.to(generator.device)))
    return found


def preview(photo: OpenPhoto, size: int = 256) -> Image.Image:
    """Return the chosen crop as the search will see it."""
    return crop(photo.image, photo.crop.quad(), size)


def as_shown(photo: OpenPhoto) -> Image.Image:
    """Return the photo at the size at which the page shows it."""
    image = photo.image.copy()
    image.info.clear()
    image.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
    return image


def photographed(path: Path, quad: Quad, size: int = 640) -> Image.Image:
    """Return what a photo shows in ``quad``, which is in pixels of the file.

    Raises:
        Error: the photo is gone, or is none.
    """
    image, reduced = open_reduced(path)
    return crop(image, [[x / reduced, y / reduced] for x, y in quad], size)
