"""Where in pictures a direction acts: on the face, or on what is behind it.

A probe learns whatever goes along with its labels. Where those who smile stood before another
backdrop than the rest, the slider moves the backdrop, and folds of the same photographs praise it.
Its own pictures give it away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from latentedit.directions.direction import Direction
from latentedit.directions.effects import moved_pictures
from latentedit.inversion.face_weights import within_face
from latentedit.latent.spaces import space_of
from latentedit.networks.generator import Generator

PICTURES = 8
PIXELS = 8 * 256**2
"""Pictures that are moved, and how many pixels they have at most, but for two pictures."""
AROUND = 2.0
"""Half axes of the ellipse that holds head and hair, in those of the face; what lies outside is
border."""
MAINLY = 1.5
"""Times the change of a pixel of the face from which on a pixel of the border is said to change
more. Of the sliders that ship, hair (`bald`) reaches 1.0 and `background` 2.6.
"""
SEED = 7


@dataclass(frozen=True)
class Places:
    """Mean change of a pixel between the ends of a direction, -1 and +1 sigma, in grey levels."""

    face: float
    border: float

    @property
    def mainly_behind(self) -> bool:
        """Whether a pixel of the border changes much more than one of the face."""
        return self.border > MAINLY * self.face


@torch.no_grad()
def places(
    generator: Generator, direction: Direction, framing: Mapping[str, Any] | None
) -> Places | None:
    """Return what ``direction`` changes in random pictures, by area; None where ``framing`` does
    not say where faces are."""
    face = within_face(framing, generator.resolution)
    head = within_face(framing, generator.resolution, AROUND)
    if face is None or head is None or not face.any() or head.all():
        return None
    count = max(min(PICTURES, PIXELS // generator.resolution**2), 2)
    latents = space_of(direction.space).random(generator, count, SEED)
    low, high = (moved_pictures(generator, direction, latents, amount) for amount in (-1.0, 1.0))
    change = (high - low).abs().mean(dim=(0, 1)) * 127.5
    return Places(round(float(change[face].mean()), 2), round(float(change[~head].mean()), 2))
