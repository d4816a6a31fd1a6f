"""The losses of StyleGAN2, every one a value a picture, so that no picture of a batch influences
another's."""

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss -log sigmoid(D(G(z))) (Goodfellow et al. 2014):
    ``[N, 1] -> [N, 1]``."""
    return F.softplus(-fake_logits)


def fake_loss(fake_logits: Tensor) -> Tensor:
    """Return the discriminator's loss on generated images: -log(1 - sigmoid(D(G(z)))),
    ``[N, 1] -> [N, 1]``."""
    return F.softplus(fake_logits)


def real_loss(real_logits: Tensor) -> Tensor:
    """Return the discriminator's loss on real images: -log sigmoid(D(x)), ``[N, 1] -> [N, 1]``."""
    return F.softplus(-real_logits)


def r1_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Return the squared gradient norm |dD/dx|^2 of every picture (Mescheder et al. 2018, eq. 9):
    ``[N]``.

    ``images [N, C, H, W]`` must require gradients and have led to ``logits``; the result can be
    differentiated again.
    """
    # The sum has the gradients of all images at once, as no logit depends on another's image.
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))
