"""Directions made better by looking at pictures: the probe's direction is only where this search begins."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.directions.direction import Direction
from latentedit.directions.probe import measure_sigma
from latentedit.errors import Error
from latentedit.generator import Generator
from latentedit.statistics import WStatistics, sample_w

STEPS, BATCH, RATE = 120, 12, 0.03
AMOUNT = 2.0
"""Sigmas at which pictures are looked at."""
HOLD = 0.05
"""Weight of the squared change of every other score."""
TYPICAL = 0.1
"""Weight of the squared length of a step, in standard deviations of w."""

Score = Callable[[Tensor], Tensor]


def refine(
    direction: Direction,
    generator: Generator,
    scores: Score,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Direction:
    """Turn a direction in W so that pictures moved by +-2 sigmas along it come to show the attribute, or to lose it.

    Random w are moved both ways, and the direction follows the gradient of what a classifier says of their pictures, while the
    squared changes of other answers and the length of the step are held down. The classifiers must not be the
    judge that the direction is measured by.

    Args:
        scores: pictures ``[N, C, H, W]`` in [-1, 1] to log odds ``[N, 1 + others]``, differentiable: of the attribute itself,
            and of those that should stay.
        steps: of Adam, on ``batch`` pictures each way.

    Raises:
        Error: a direction of another space than W.
    """
    if direction.space != "w":
        raise Error(f"only directions in W can be refined; {direction.name} is in the space {direction.space}")
    device = generator.device
    statistics = WStatistics.of(generator)
    colouring, whitening = statistics.colouring.to(device), statistics.whitening.to(device)
    # In whitened coordinates p: an edit by one sigma of the unit vector v moves w by v |C v|, C being the colouring.
    start = direction.vector.to(device) * float(direction.sigma)
    moved = (start @ whitening).requires_grad_()
    first, last = direction.layers or (0, generator.num_ws - 1)
    rows = torch.zeros(generator.num_ws, 1, device=device)
    rows[first : last + 1] = 1
    optimiser = torch.optim.Adam([moved], lr=RATE * float(moved.detach().norm()), betas=(0.9, 0.99))
    w = sample_w(generator, steps * batch, seed + 17)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * float(moved.detach().norm()) * (1 - step / steps)
        base = w[step * batch : (step + 1) * batch, None].expand(-1, generator.num_ws, -1)
        shift = AMOUNT * rows * _one_sigma(moved @ colouring, colouring)
        there, back = scores(generator.synthesis(torch.cat([base + shift, base - shift]))).chunk(2)
        loss = F.softplus(-there[:, 0]).mean() + F.softplus(back[:, 0]).mean()
        loss = loss + HOLD * (there[:, 1:] - back[:, 1:]).square().mean(dim=0).sum()
        loss = loss + TYPICAL * (shift[first] @ whitening).square().sum() / AMOUNT**2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if progress:
            progress(step + 1, steps)
    with torch.no_grad():
        vector = F.normalize(moved @ colouring, dim=0).cpu()
    sigma = measure_sigma(vector, generator)
    mean = sample_w(generator).mean(dim=0).cpu()[None, None].expand(1, generator.num_ws, -1)
    undecided = float(direction.score(mean)) / direction.sigma
    turned = replace(direction, vector=vector, sigma=sigma, intercept=0.0)
    report = {
        **direction.report,
        "refined_steps": steps,
        "cosine_with_unrefined": round(float(vector @ direction.vector), 4),
    }
    return replace(turned, intercept=undecided * sigma - float(turned.score(mean)), report=report)


def _one_sigma(vector: Tensor, colouring: Tensor) -> Tensor:
    """The step of an edit by one sigma along ``vector``: the unit vector times the standard deviation of its score."""
    unit = F.normalize(vector, dim=0)
    step: Tensor = unit * (unit @ colouring).norm()
    return step
