"""Directions made better by looking at pictures: the probe's direction is only where this search begins.

A probe is linear and looks at w; pictures are neither. Here every row of ws gets a step of its own, and the steps follow the
gradient of what classifiers of photographs say of the moved pictures, as long as other answers, the light and the
discriminator's opinion stay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.directions.direction import Direction
from latentedit.directions.transfer import PhotoClassifier, log_odds
from latentedit.errors import Error
from latentedit.latent.editing import gradient_of_score
from latentedit.latent.w_statistics import WStatistics, sample_w
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.generator import Generator

RATE = 0.05
AMOUNT = 2.0
"""Sigmas at which pictures are looked at."""
MARGIN = 1.0
"""Log odds by which a classifier should be sure."""
LIGHT = 10.0
"""Weight of the squared change of the mean grey value."""
SHIFT, CONTRAST, BRIGHTNESS, GRAIN = 3, 0.2, 0.15, 0.05
"""What pictures are changed by, at random, before classifiers see them, lest the search please them by invisible means."""

Array = np.ndarray[Any, np.dtype[Any]]
Scores = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RefineOptions:
    """How `refine` searches, and what counts how much beside the attribute itself."""

    steps: int = 150
    """Of Adam."""
    batch: int = 12
    """Pictures that are moved either way in a step."""
    hold: float = 1.0
    """Weight of the divergence of every other answer."""
    hold_light: bool = True
    """Whether the mean grey value should stay."""
    real: float = 1.0
    """Weight of what pictures lose in the discriminator's eyes."""
    typical: float = 0.06
    """Weight of the squared length of a row's step, in standard deviations of w."""
    outside: float = 0.0
    """Weight of the mean squared change of pixels outside the region where the attribute is seen."""
    seed: int = 0


class PhotoScores:
    """Classifiers of photographs, through one discriminator's features: scores for `refine`.

    Args:
        ends: images ``[N, C, H, W]`` with 0 and 1, those at the positive end, and the same for the negative end; with mirrored
            copies where those are wanted. Without a second, the negative end is what is not the positive one.
        others: images with 0 and 1, for every answer that should stay.

    Raises:
        Error: labels that are not 0 and 1.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        ends: Sequence[tuple[Tensor, Array]],
        others: Sequence[tuple[Tensor, Array]] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.both = len(ends) == 2
        self.classifiers = []
        wanted = [*ends, *others]
        for images, labels in wanted:
            if set(np.unique(labels)) != {0.0, 1.0}:
                raise Error("refine needs labels of two classes; name the values that mean yes, or give labels of 0 and 1")
            classifier = PhotoClassifier(discriminator, images, labels, mirror="none", examine=False)
            self.classifiers.append(classifier)
            if progress:
                progress(len(self.classifiers), len(wanted))

    def __call__(self, images: Tensor) -> Tensor:
        found = log_odds(self.classifiers, images)
        return found if self.both else torch.cat([found[:, :1], -found[:, :1], found[:, 1:]], dim=1)


DEFAULT = RefineOptions()


def refine(
    direction: Direction,
    generator: Generator,
    scores: Scores,
    options: RefineOptions = DEFAULT,
    *,
    discriminator: Discriminator | None = None,
    base: Tensor | None = None,
    region: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Direction:
    """``direction`` with a step of its own for every row of ws, by which pictures moved by +-2 sigmas come to show the
    attribute, or to lose it.

    The score stays what it was, and an edit by one sigma still moves it by one sigma; what the step does besides is found by
    Adam on pictures of random w, and of ``base``.

    Args:
        scores: pictures ``[N, C, H, W]`` in [-1, 1] to log odds ``[N, 2 + others]``, differentiable: that they are at the
            positive end, at the negative end, and of answers that should stay. The judge that the direction is
            measured by must not be among them.
        discriminator: the generator's; pictures should not become less real in its eyes.
        base: ``[M, num_ws, w_dim]``, such as inversions of photographs, from which every other picture is taken.
        region: ``[1, 1, H, W]`` from 0 to 1, where the attribute is seen; for ``options.outside``.

    Raises:
        Error: a direction of another space than W and W+.
    """
    if direction.space not in ("w", "w+"):
        raise Error(f"only directions in W and W+ can be refined; {direction.name} is in the space {direction.space}")
    device, random = generator.device, torch.Generator().manual_seed(options.seed)
    steps, batch = options.steps, options.batch
    statistics = WStatistics.of(generator)
    colouring, whitening = statistics.colouring.to(device), statistics.whitening.to(device)
    rows = torch.zeros(generator.num_ws, 1, device=device)
    first, last = direction.layers or (0, generator.num_ws - 1)
    rows[first : last + 1] = 1
    start = direction.step if direction.step is not None else direction.sigma * direction.vector
    whitened = (rows * start.to(device)) @ whitening
    moved = whitened.clone().requires_grad_()  # so that all parts of w are as easy to move
    rate = RATE * float(whitened.norm()) / moved.numel() ** 0.5
    optimiser = torch.optim.Adam([moved], lr=rate, betas=(0.9, 0.99))
    w = sample_w(generator, steps * batch, options.seed + 17)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        origin = w[step * batch : (step + 1) * batch, None].repeat(1, generator.num_ws, 1)
        if base is not None:
            chosen = torch.randint(len(base), (batch // 2,), generator=random)
            origin[: batch // 2] = base[chosen].to(device)
        shift = AMOUNT * of_one_sigma(rows * (moved @ colouring), direction)
        pictures = generator.synthesis(torch.cat([origin + shift, origin - shift]))
        with torch.no_grad():
            before = generator.synthesis(origin)
        disturbed = _disturbance(before, random)
        with torch.no_grad():
            plain = scores(disturbed(before))
        there, back = (scores(disturbed(part)) for part in pictures.chunk(2))
        loss = F.softplus(MARGIN - there[:, 0]).mean() + F.softplus(MARGIN - back[:, 1]).mean()
        loss = loss + options.hold * (_divergence(there[:, 2:], plain[:, 2:]) + _divergence(back[:, 2:], plain[:, 2:]))
        loss = loss + options.typical * ((shift @ whitening).square().sum() / (last + 1 - first) / AMOUNT**2)
        if options.outside and region is not None:
            change = (pictures - before.repeat(2, 1, 1, 1)).square().mean(dim=1, keepdim=True)
            loss = loss + options.outside * ((1 - region.to(device)) * change).mean()
        if options.hold_light:
            light = pictures.mean(dim=(1, 2, 3)) - before.mean(dim=(1, 2, 3)).repeat(2)
            loss = loss + LIGHT * light.square().mean()
        if discriminator is not None:
            with torch.no_grad():
                real = discriminator(before)
            lost = [real - discriminator(part) for part in pictures.chunk(2)]
            loss = loss + options.real * sum(F.softplus(part).mean() for part in lost)
        (moved.grad,) = torch.autograd.grad(loss, moved)  # of the networks' parameters none
        optimiser.step()
        if progress:
            progress(step + 1, steps)
    with torch.no_grad():
        found = of_one_sigma(rows * (moved @ colouring), direction).cpu()
    longer = float((found.to(device) @ whitening).norm() / whitened.norm())
    report = {**direction.report, "refined_steps": steps, "refined_length": round(longer, 3)}
    return replace(direction, step=found, report=report)


def of_one_sigma(step: Tensor, direction: Direction) -> Tensor:
    """``step [num_ws, w_dim]`` and so much of the direction's vector that the score moves by one sigma."""
    vector = direction.vector.to(step)
    first, last = direction.layers or (0, len(step) - 1)
    own = torch.zeros_like(step)
    own[first : last + 1] = vector if vector.ndim == 1 else vector[first : last + 1]
    gradient = gradient_of_score(step[None], direction)
    missing = direction.sigma - (gradient * step).sum()
    return step + own * (missing / (gradient * own).sum())


def _divergence(after: Tensor, before: Tensor) -> Tensor:
    """Kullback-Leibler divergence of answers (log odds ``[N, answers]``) from those before: mean over N, sum over answers."""
    p = before.sigmoid()
    crossed = F.binary_cross_entropy_with_logits(after, p, reduction="none")
    return (crossed - F.binary_cross_entropy(p, p, reduction="none")).mean(dim=0).sum()


def _disturbance(like: Tensor, random: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Shifts, changes of contrast and brightness, and grain, the same at every call."""
    n, side = len(like), like.shape[-1]
    reach = min(SHIFT, side // 16)
    x, y = torch.randint(0, 2 * reach + 1, (2,), generator=random).tolist()
    contrast, brightness = torch.randn(2, n, 1, 1, 1, generator=random).to(like)
    grain = torch.randn(like.shape, generator=random).to(like)

    def disturbed(pictures: Tensor) -> Tensor:
        shifted = F.pad(pictures, (reach,) * 4, mode="replicate")[:, :, y : y + side, x : x + side]
        return torch.add(shifted * (1 + CONTRAST * contrast) + BRIGHTNESS * brightness, grain, alpha=GRAIN)

    return disturbed
