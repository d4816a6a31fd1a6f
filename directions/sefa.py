"""SeFa: directions without labels, from the weights of the affine layers only."""

import torch
import torch.nn.functional as F

from latentedit.directions.components import Layers, _directions, _eigenvectors, check_count
from latentedit.directions.direction import Direction
from latentedit.latent.w_statistics import sample_w
from latentedit.networks.generator import Generator


def factorised(generator: Generator, count: int = 20, *, layers: Layers = None) -> list[Direction]:
    """Find the ``count`` directions in W that change the styles most (SeFa, Shen and Zhou 2021,
    section 3).

    They are the eigenvectors of ``A^T A``. The rows of A are those of the affine layers
    ``w -> style``, with one affine layer for each layer of ws: that of its convolution, for the
    last layer of StyleGAN2 that of the last ToRGB (the other ToRGBs share their w with a
    convolution), and for the first layer of StyleGAN3 that of the input. Every row of A is scaled
    to length 1, as in the authors' code. The reason: if a channel's row and bias are multiplied by
    a number, and the weights that it modulates are divided by it, the network does not change. So
    the length of a row has no meaning. The gain of `latentedit.networks.layers.FullyConnected`
    cancels for the same reason.

    Args:
        layers: first and last layer whose affine layers are used, and that the directions edit;
            None for all.

    Returns:
        Directions ``sefa-00``, ``sefa-01``, ... by decreasing eigenvalue; signs and scores as in
        `principal_components`. Reports contain ``eigenvalue``, the sum of squared changes over the
        channels for a step of length 1, and ``share``, its share of the total.

    Raises:
        Error: more directions than w has dimensions, or layers outside the network.
    """
    first, last = check_count(generator, count, generator.w_dim, "dimensions of w", layers)
    affines = generator.synthesis.affines[first : last + 1]
    weights = torch.cat([affine.weight.detach().cpu().double() for affine in affines])
    rows = F.normalize(weights, dim=1)  # a row of zeros stays one

    # The largest eigenvectors of A^T A maximise |A n| over unit vectors n (SeFa, eq. 8).
    values, vectors = _eigenvectors(rows.T @ rows)
    reports = [
        {"eigenvalue": float(value), "share": float(value / values.sum())}
        for value in values[:count]
    ]
    mean = sample_w(generator).cpu().double().mean(dim=0)
    return _directions(
        generator, "sefa", vectors[:count], mean, layers, reports, {"method": "sefa"}
    )
