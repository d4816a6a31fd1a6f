"""Adaptive discriminator augmentation: its strength is steered by how far the discriminator
overfits (Karras et al. 2020)."""

import torch
from torch import Tensor

ADA_INTERVAL = 4
"""Training steps between two changes of the strength."""


def overfitting(signs: Tensor) -> Tensor:
    """Return the heuristic r_t = E[sign(D(real))] (eq. 1), from the sum and the count of the signs,
    ``[2]``."""
    total, count = signs.unbind()
    return total / count.clamp(min=1)


@torch.no_grad()
def steer(p: Tensor, r_t: Tensor, target: float, batch: int, kimg: float) -> None:
    """Move the strength ``p``, in place, a step up where ``r_t`` lies above ``target``, and down
    where it lies below.

    Args:
        batch: pictures a training step.
        kimg: thousands of pictures in which p can move from 0 to 1.
    """
    # A fixed step towards the target, whatever the distance from it: r_t is too noisy for a
    # proportional one.
    step = batch * ADA_INTERVAL / (kimg * 1000)
    beyond = r_t - target
    p.add_(torch.copysign(torch.full_like(beyond, step), beyond)).clamp_(0, 1)
