"""Pixel weights for face crops: people recognise a face by its inside, not by the background."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTH = 4.0
"""Weight of a pixel in the face relative to one in the background."""
ACROSS = 1.08
ALONG = 1.28
BELOW = 0.42
"""Half axes of the face's ellipse, and the distance of its centre below the eyes, in units of the
eye distance."""
SOFTNESS = 6.0
"""Steepness of its edge; with 6 the weight falls over about a third of the half axis."""


def face_weights(
    framing: Mapping[str, Any] | None, size: int, strength: float = STRENGTH
) -> Tensor | None:
    """Return weights ``[1, 1, size, size]`` of mean 1, high inside the ellipse of a face; None if
    the framing is unknown.

    Args:
        framing: the framing of the crops (docs/formats.md), from
            `latentedit.model.model.Model.framing`.
        size: side of the crops in pixels.
        strength: weight inside over weight outside; 1 gives equal weights.
    """
    axes = _axes(framing, size)
    if axes is None:
        return None
    across, along = axes
    inside = torch.sigmoid(SOFTNESS * (1 - across**2 - along**2))
    weights = 1 + (strength - 1) * inside
    return (weights / weights.mean())[None, None]


def within_face(framing: Mapping[str, Any] | None, size: int, times: float = 1.0) -> Tensor | None:
    """Return which pixels ``[size, size]`` lie in that ellipse, or in one ``times`` as large; None
    where no framing is known."""
    axes = _axes(framing, size)
    return None if axes is None else axes[0] ** 2 + axes[1] ** 2 <= times**2


def _axes(framing: Mapping[str, Any] | None, size: int) -> tuple[Tensor, Tensor] | None:
    """Return how far every pixel ``[size, size]`` lies from the middle of the face, across and
    along, in half axes of its ellipse."""
    if not framing or "eyes" not in framing:
        return None
    (ax, ay), (bx, by) = framing["eyes"]
    apart = bx - ax
    centres = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    across = (x - (ax + bx) / 2) / (ACROSS * apart)
    along = (y - (ay + by) / 2 - BELOW * apart) / (ALONG * apart)
    return across, along


def at_size(weights: Tensor, height: int, width: int) -> Tensor:
    """Average ``weights [1, 1, H, W]`` to ``[1, 1, height, width]``, again with mean 1."""
    found = F.interpolate(weights, size=(height, width), mode="area")
    return found / found.mean()
