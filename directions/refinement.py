"""Refinement of a direction on images; the probe's direction is only the starting point of this
optimisation.

A probe is linear and only uses w, but images depend on w nonlinearly. Here every layer gets its own
step. The steps follow the gradient of classifiers of photos on the edited images, with penalties
for changes of other answers, of brightness and of the discriminator's output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.directions.direction import Direction
from latentedit.directions.photo_classifier import PhotoClassifier, log_odds
from latentedit.errors import ArgumentError, DataError
from latentedit.latent.editing import gradient_of_score
from latentedit.latent.spaces import space_of
from latentedit.latent.w_statistics import WStatistics, sample_w
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.generator import Generator

RATE = 0.05
"""Learning rate of Adam."""
AMOUNT = 2.0
"""Amount, in sigmas, at which images are evaluated."""
MARGIN = 1.0
"""Log odds that a classifier should reach."""
LIGHT = 10.0
"""Weight of the squared change of the mean grey value."""
SHIFT = 3
CONTRAST = 0.2
BRIGHTNESS = 0.15
GRAIN = 0.05
"""Random changes of images before classification, so that the optimisation cannot exploit invisible
patterns."""

Array = np.ndarray[Any, np.dtype[Any]]
Scores = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RefineOptions:
    """Options of `refine`: the optimiser, and the weights of penalties."""

    steps: int = 150
    """Optimisation steps."""
    batch: int = 12
    """Images per step, each edited in both directions."""
    hold: float = 1.0
    """Weight of the change of every other answer (Kullback-Leibler divergence)."""
    hold_light: bool = True
    """Whether to keep the brightness (the mean grey value)."""
    real: float = 1.0
    """Weight of the decrease of the discriminator's output."""
    typical: float = 0.06
    """Weight of the squared length of a layer's step, in standard deviations of w."""
    outside: float = 0.0
    """Weight of the mean squared change of pixels outside the region where the attribute is
    visible."""
    seed: int = 0


class PhotoScores:
    """Classifiers on the features of one discriminator, trained on photos: the scores for `refine`.

    Args:
        ends: images ``[N, C, H, W]`` with labels 0 and 1 for the positive end, and optionally the
            same for the negative end; include mirrored copies if wanted. Without the second, the
            negative end is the opposite of the positive one.
        others: images with labels 0 and 1, for every attribute that should not change.

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
        works = [PhotoClassifier.work(len(images), "none") for images, _ in wanted]
        total = round(sum(works))
        reached = 0.0

        def done(share: float) -> None:
            nonlocal reached
            reached += share
            if progress:
                progress(min(round(reached), total), total)

        for images, labels in wanted:
            if set(np.unique(labels)) != {0.0, 1.0}:
                raise DataError(
                    "refine needs labels of two classes; name the values that mean yes, or give "
                    "labels of 0 and 1"
                )
            classifier = PhotoClassifier(
                discriminator, images, labels, mirror="none", examine=False, done=done
            )
            self.classifiers.append(classifier)
            done(sum(works[: len(self.classifiers)]) - reached)

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
    """Return ``direction`` with an optimised step for every layer, so that edits by +-2 sigmas add
    or remove the attribute.

    The score does not change, and an edit by one sigma still changes it by one sigma. Adam
    optimises the rest of the step on images of random w, and of ``base``.

    Args:
        scores: a differentiable function from images ``[N, C, H, W]`` in [-1, 1] to log odds
            ``[N, 2 + others]``: of the positive end, of the negative end, and of attributes that
            should not change. Do not use the attribute classifier with which you measure the
            direction.
        discriminator: the generator's; its output for the images should not decrease.
        base: ``[M, num_ws, w_dim]``, such as inversions of photos, used for every second image.
        region: ``[1, 1, H, W]`` from 0 to 1, where the attribute is visible; for
            ``options.outside``.

    Raises:
        Error: a direction that is not in W or W+.
    """
    if not space_of(direction.space).linear:
        raise ArgumentError(
            f"only directions in W and W+ can be refined; {direction.name} is in the space "
            f"{direction.space}"
        )

    device = generator.device
    random = torch.Generator().manual_seed(options.seed)
    steps = options.steps
    batch = options.batch
    statistics = WStatistics.of(generator)
    colouring = statistics.colouring.to(device)
    whitening = statistics.whitening.to(device)
    rows = torch.zeros(generator.num_ws, 1, device=device)
    first, last = direction.layers or (0, generator.num_ws - 1)
    # Only the direction's own layers may move.
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
        loss = loss + options.hold * (
            _divergence(there[:, 2:], plain[:, 2:]) + _divergence(back[:, 2:], plain[:, 2:])
        )
        loss = loss + options.typical * (
            (shift @ whitening).square().sum() / (last + 1 - first) / AMOUNT**2
        )
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
    """Return ``step [num_ws, w_dim]`` and so much of the direction's vector that the score moves by
    one sigma."""
    vector = direction.vector.to(step)
    first, last = direction.layers or (0, len(step) - 1)
    own = torch.zeros_like(step)
    own[first : last + 1] = vector if vector.ndim == 1 else vector[first : last + 1]
    gradient = gradient_of_score(step[None], direction)
    missing = direction.sigma - (gradient * step).sum()
    return step + own * (missing / (gradient * own).sum())


def _divergence(after: Tensor, before: Tensor) -> Tensor:
    """Kullback-Leibler divergence of answers (log odds ``[N, answers]``) from those before: mean
    over N, sum over answers."""
    p = before.sigmoid()
    crossed = F.binary_cross_entropy_with_logits(after, p, reduction="none")
    return (crossed - F.binary_cross_entropy(p, p, reduction="none")).mean(dim=0).sum()


def _disturbance(like: Tensor, random: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Shifts, changes of contrast and brightness, and grain, the same at every call."""
    n = len(like)
    side = like.shape[-1]
    reach = min(SHIFT, side // 16)
    x, y = torch.randint(0, 2 * reach + 1, (2,), generator=random).tolist()
    contrast, brightness = torch.randn(2, n, 1, 1, 1, generator=random).to(like)
    grain = torch.randn(like.shape, generator=random).to(like)

    def disturbed(pictures: Tensor) -> Tensor:
        shifted = F.pad(pictures, (reach,) * 4, mode="replicate")[:, :, y : y + side, x : x + side]
        return torch.add(
            shifted * (1 + CONTRAST * contrast) + BRIGHTNESS * brightness, grain, alpha=GRAIN
        )

    return disturbed
