"""The path length regulariser (StyleGAN2, section 3.2)."""

import torch
from torch import Tensor


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """|J_w^T y| of every picture (StyleGAN2, eq. 4): ``[N]``.

    ``noise`` is y, shaped like ``images [N, C, H, W]`` and already divided by the resolution;
    ``ws [N, num_ws, w_dim]``.
    """
    # J_w^T y without the Jacobian: the gradient of the scalar product of image and y (section 3.2).
    (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
