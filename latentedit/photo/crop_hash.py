"""A hash of a crop, by which the photo that it was cut from is known again.

The difference hash tells of 16 x 16 areas whether the neighbours to the right and below are
brighter. Files that were compressed again, reduced or made lighter keep most of these bits; other
photos, of the same person too, do not. Nothing can be seen from the hash that the latent beside it
does not show.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import ArgumentError

AREAS = 16
"""Areas along a side."""
BITS = 2 * AREAS**2
SAME = 0.2
"""Share of the bits up to which two crops are of the same photo (docs/photo.md)."""


def crop_hash(image: Tensor) -> str:
    """Return the difference hash of ``image [1, C, R, R]`` in [-1, 1], as 128 hexadecimal digits.

    Raises:
        ArgumentError: another shape.
    """
    if image.ndim != 4 or len(image) != 1:
        raise ArgumentError.of_shape("image", "[1, C, R, R]", image.shape)
    grey = image.detach().float().mean(dim=1, keepdim=True).cpu()
    means = F.interpolate(grey, size=(AREAS + 1, AREAS + 1), mode="area")[0, 0]
    across = means[:-1, 1:] > means[:-1, :-1]
    down = means[1:, :-1] > means[:-1, :-1]
    bits = torch.cat([across.flatten(), down.flatten()]).tolist()
    number = int("".join("1" if bit else "0" for bit in bits), 2)
    return f"{number:0{BITS // 4}x}"


def hash_distance(a: str, b: str) -> float:
    """Return the share of the bits in which two hashes differ, from 0 to 1."""
    return (int(a, 16) ^ int(b, 16)).bit_count() / BITS
