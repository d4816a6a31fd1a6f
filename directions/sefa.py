"""SeFa: directions without labels, from the weights of the affine layers alone."""

import torch
import torch.nn.functional as F

from latentedit.directions.components import Layers, _directions, _eigenvectors, check_count
from latentedit.directions.direction import Direction
from latentedit.latent.w_statistics import sample_w
from latentedit.networks.generator import Generator
from latentedit.networks.synthesis import ToRGB


def factorised(generator: Generator, count: int = 20, *, layers: Layers = None) -> list[Direction]:
    """The ``count`` directions in W that move the styles most (SeFa, Shen and Zhou 2021, section 3), from the weights alone.

    They are the eigenvectors of ``A^T A``, the rows of A being those of the affine layers ``w -> style``, a layer for a row of
    ws: its convolution's, and for the last row of StyleGAN2 the last ToRGB's; other ToRGBs share their row with a convolution
    and are left out. Every row of A is scaled to length 1, as in the authors' code, and with reason: a network stays the same
    when a channel's row and bias are multiplied by a number and the weights it modulates divided by it, so a row's length says
    nothing of its channel. The gain of `latentedit.networks.layers.FullyConnected` cancels likewise.

    Args:
        layers: first and last row of ws whose affine layers are taken, and that the directions move; None for all.

    Returns:
        ``sefa-00``, ``sefa-01``, ... by falling eigenvalue, signs and scores as in `principal_components`. Reports say
        ``eigenvalue``, the sum of squared changes over the channels for a step of length 1, and ``share``, that of all.

    Raises:
        Error: more directions than w has dimensions, or layers outside the network.
    """
    first, last = check_count(generator, count, generator.w_dim, "dimensions of w", layers)
    synthesis = generator.synthesis
    affines = [layer.affine.weight for layer in synthesis.layers]
    last_rgb = synthesis.blocks[-1].torgb
    if isinstance(last_rgb, ToRGB):  # the first StyleGAN's has no w
        affines.append(last_rgb.affine.weight)
    weights = torch.cat([weight.detach().cpu().double() for weight in affines[first : last + 1]])
    rows = F.normalize(weights, dim=1)  # a row of zeros stays one
    values, vectors = _eigenvectors(rows.T @ rows)
    reports = [{"eigenvalue": float(value), "share": float(value / values.sum())} for value in values[:count]]
    mean = sample_w(generator).cpu().double().mean(dim=0)
    return _directions(generator, "sefa", vectors[:count], mean, layers, reports, {"method": "sefa"})
