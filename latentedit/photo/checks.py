"""Warnings about a photo, given before the work starts."""

import numpy as np
from PIL import Image
from torch import Tensor

from latentedit.photo.alignment import Quad

DARK = 0.12
BRIGHT = 0.92
FLAT = 0.04
"""Limits of the mean and standard deviation of brightness (0 to 1) beyond which there is a
warning."""
OUTSIDE = 0.2
"""Share of the crop that may lie outside the photo."""
FOREIGN = 1.5
"""Limit of the distance, in multiples of the usual distance of the model's random images."""


def foreign(distance: float) -> list[str]:
    """Return a warning about a crop at a too large ``distance`` (`latentedit.inversion.domain`); an
    empty list if it is not."""
    if distance <= FOREIGN:
        return []
    return [
        f"unlike this model's images: {distance:.1f} times as far from them as they are from one "
        "another"
    ]


def remarks(photo: Image.Image, quad: Quad, crop: Tensor) -> list[str]:
    """Return warnings about a crop that will not invert well; an empty list if there are none.

    Args:
        photo: the photo, upright.
        quad: the crop's corners in the photo, in pixels.
        crop: the image to invert, ``[1, C, H, W]`` in [-1, 1].
    """
    found = []
    corners = np.array(quad)
    side = float(np.hypot(*(corners[1] - corners[0])))
    size = crop.shape[-1]
    if side < 0.7 * size:
        found.append(f"too small: the crop is {side:.0f} pixels wide and is upsampled to {size}")

    brightness = (crop.mean(dim=1) + 1) / 2
    mean = float(brightness.mean())
    spread = float(brightness.std())

    if mean < DARK:
        found.append(f"too dark: mean brightness {mean:.0%}")
    elif mean > BRIGHT:
        found.append(f"too bright: mean brightness {mean:.0%}")
    elif spread < FLAT:
        found.append(f"too little contrast: brightness varies by {spread:.0%}")

    grid = np.stack(np.meshgrid(np.linspace(0, 1, 21), np.linspace(0, 1, 21)), axis=-1).reshape(
        -1, 2
    )
    points = corners[0] + grid @ np.stack([corners[1] - corners[0], corners[3] - corners[0]])
    outside = float(((points < 0) | (points > photo.size)).any(axis=1).mean())
    if outside > OUTSIDE:
        found.append(f"{outside:.0%} of the crop is outside the photo and is filled by reflection")
    return found
