"""Pixel weights for face crops: people recognise a face by its inside, not by the background."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTH = 4.0
"""Weight of a pixel in the face relative to one in the background."""
ACROSS, ALONG, BELOW = 1.08, 1.28, 0.42
"""Half axes of the face's ellipse, and the distance of its centre below the eyes, in units of the eye distance."""
SOFTNESS = 6.0
"""Steepness of its edge; with 6 the weight falls over about a third of the half axis."""


def face_weights(framing: Mapping[str, Any] | None, size: int, strength: float = STRENGTH) -> Tensor | None:
    """Return weights ``[1, 1, size, size]`` of mean 1, high inside the ellipse of a face; None if the framing is unknown.

    Args:
        framing: the framing of the crops (docs/formats.md), from `latentedit.model.model.Model.framing`.
        size: side of the crops in pixels.
        strength: weight inside over weight outside; 1 gives equal weights.
    """
    if not framing or "eyes" not in framing:
        return None
    (ax, ay), (bx, by) = framing["eyes"]
    apart = bx - ax
    centres = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    across = (x - (ax + bx) / 2) / (ACROSS * apart)
    along = (y - (ay + by) / 2 - BELOW * apart) / (ALONG * apart)
    inside = torch.sigmoid(SOFTNESS * (1 - across**2 - along**2))
    weights = 1 + (strength - 1) * inside
    return (weights / weights.mean())[None, None]


def at_size(weights: Tensor, height: int, width: int) -> Tensor:
    """Average ``weights [1, 1, H, W]`` to ``[1, 1, height, width]``, again with mean 1."""
    found = F.interpolate(weights, size=(height, width), mode="area")
    return found / found.mean()
