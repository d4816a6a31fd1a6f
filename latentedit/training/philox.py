"""A counter-based random generator of tensor operations: the same numbers on every device.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). Integers are kept
in int64, as PyTorch multiplies no unsigned ones of 32 bits; a product that overflows wraps around,
and its upper and lower half are cut out of what is left.
"""

import math

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
"""What is added to the key before every further round."""
MASK = 0xFFFFFFFF

Counter = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Counter, key: tuple[int, int]) -> Tensor:
    """Four random words of 32 bits for every counter.

    Args:
        counter: four int64 tensors of one shape, or of shapes that broadcast, from 0 to 2^32 - 1.
        key: two numbers from 0 to 2^32 - 1.

    Returns:
        int64 ``[..., 4]``, from 0 to 2^32 - 1.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        one = c0 * MULTIPLIERS[0]
        two = c2 * MULTIPLIERS[1]
        c0 = _mixed(two, c1, k0)
        c2 = _mixed(one, c3, k1)
        c1 = two & MASK
        c3 = one & MASK
        k0 = (k0 + WEYL[0]) & MASK
        k1 = (k1 + WEYL[1]) & MASK

    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=-1)


def _mixed(product: Tensor, word: Tensor, key: int) -> Tensor:
    """Return the upper half of ``product``, mixed with a word and the key; the shift fills up with
    signs."""
    mixed = (product >> 32) ^ word
    return mixed.bitwise_xor_(key).bitwise_and_(MASK)


def to_uniform(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers in [0, 1) of the upper 24 bits of ``words``, which float32 holds exactly."""
    return (words >> 8).to(dtype) * 2.0**-24


def to_normal(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the standard normal numbers ``[..., n]`` of words ``[..., n]``, n even (Box and Muller
    1958)."""
    first, second = words.chunk(2, dim=-1)
    # In (0, 1], as zero has no logarithm.
    radius = ((first >> 8) + 1).to(dtype).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
    angle = (second >> 8).to(dtype).mul_(2 * math.pi * 2.0**-24)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)


def below(words: Tensor, limit: int) -> Tensor:
    """Whole numbers from 0 to ``limit`` - 1, ``limit`` being at most 2^31."""
    return (words * limit) >> 32
