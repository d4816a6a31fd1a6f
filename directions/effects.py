"""The effect of a slider on images, measured with an independent attribute classifier."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import Tensor

from latentedit.directions.direction import Direction
from latentedit.directions.photo_features import pooled_features
from latentedit.errors import ArgumentError, NotFoundError
from latentedit.inversion.domain import Domain
from latentedit.latent.editing import edit
from latentedit.latent.latent_file import render
from latentedit.latent.spaces import space_of
from latentedit.metrics.judge import Judge
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.generator import Generator
from latentedit.networks.noise import Noise

AMOUNTS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
WHOLE = 1.0
"""Distance from the generator's own images (`latentedit.inversion.domain.Domain`) up to which an
image is in-domain."""
MOST_BROKEN = 0.1
"""An amount is within the in-domain range if at most this share more images are out of domain than
at amount 0."""
BATCH = 32

Score = Callable[[Tensor], Tensor]
"""Pictures ``[N, C, H, W]`` in [-1, 1] to numbers ``[N]``, above 0 for yes."""


def question(judge: Judge, head: str, yes: str | None = None, no: str | None = None) -> Score:
    """Return a score: the log odds of the attribute classifier ``judge`` that an image is ``yes``
    (and not ``no``).

    A head of two classes needs neither; for a head of several, the score is ``yes`` against ``no``,
    or against all others.

    Raises:
        Error: no such head or class.
    """
    if head not in judge.heads:
        raise ArgumentError(
            f"this classifier has the attributes {', '.join(judge.heads)}; not {head}"
        )

    classes = judge.heads[head]
    for one in (yes, no):
        if one is not None and one not in classes:
            raise ArgumentError(
                f"{head} of this classifier has the classes {', '.join(classes)}; not {one}"
            )

    if len(classes) == 2:
        sign = -1.0 if yes == classes[0] else 1.0
        return lambda images: sign * judge(images)[head]
    if yes is None:
        raise ArgumentError(
            f"{head} of this classifier has the classes {', '.join(classes)}; choose one, such "
            f"as {head}:{classes[-1]}"
        )

    here = classes.index(yes)
    if no is not None:
        there = classes.index(no)
        return lambda images: judge(images)[head][:, here] - judge(images)[head][:, there]
    # Log odds of one class against the sum of all others.
    others = [i for i in range(len(classes)) if i != here]
    return lambda images: (
        judge(images)[head][:, here] - judge(images)[head][:, others].logsumexp(dim=1)
    )


@torch.no_grad()
def moved_pictures(
    generator: Generator,
    direction: Direction,
    ws: Tensor,
    amount: float,
    *,
    styles: Sequence[Tensor] = (),
    noise: Noise = "const",
) -> Tensor:
    """Render ``ws [N, num_ws, w_dim]`` (z ``[N, z_dim]`` for a direction in z) moved by ``amount``
    sigmas: ``[N, C, H, W]``."""
    space = space_of(direction.space)
    pictures = []
    for start in range(0, len(ws), BATCH):
        part = ws[start : start + BATCH].to(generator.device)
        offsets = [offset[start : start + BATCH].to(generator.device) for offset in styles]
        if amount or not space.has_scale:  # styles that do not move have no offsets
            part, offsets = space.move(generator, part, offsets, direction, amount)
            offsets = [offset.to(part) for offset in offsets]
        pictures.append(render(generator, part, noise, offsets).cpu())

    return torch.cat(pictures)


@dataclass(frozen=True)
class Effect:
    """The effect of one direction on the same images at several amounts."""

    amounts: tuple[float, ...]
    scores: np.ndarray[Any, np.dtype[np.float64]]
    """``[amounts, N]``: log odds of the direction's own attribute; above 0 means yes."""
    others: dict[str, np.ndarray[Any, np.dtype[np.float64]]]
    """The same for other attributes."""
    domain: np.ndarray[Any, np.dtype[np.float64]] | None
    """``[amounts, N]``: distance from the generator's own images."""
    recognised: np.ndarray[Any, np.dtype[np.float64]] | None = None
    """``[amounts]``: identity preservation, the share of images whose closest image at amount 0 is
    their own."""

    def _at(self, amount: float) -> int:
        if amount not in self.amounts:
            raise NotFoundError(
                f"not measured at {amount}; there are {', '.join(map(str, self.amounts))}"
            )
        return self.amounts.index(amount)

    def brought_over(self, amount: float) -> tuple[float, int]:
        """Return the success rate: the share of the images without the attribute that show it at
        ``amount``, and their number.

        For a negative amount, it is the share of the images with the attribute that lose it.
        """
        # A negative amount is to remove the attribute, so "without" and "with" change places.
        sign = 1.0 if amount > 0 else -1.0
        other = sign * self.scores[self._at(0.0)] <= 0
        there = sign * self.scores[self._at(amount)] > 0
        return (float(there[other].mean()) if other.any() else float("nan")), int(other.sum())

    def side_effects(self, amount: float) -> dict[str, float]:
        """Return, for every other attribute, the share of images whose answer changes."""
        at = self._at(amount)
        zero = self._at(0.0)
        return {
            name: float(((s[at] > 0) != (s[zero] > 0)).mean()) for name, s in self.others.items()
        }

    def whole(self) -> tuple[float, float] | None:
        """Return the in-domain range: the amounts around 0 at which hardly more images are out of
        domain than at 0."""
        if self.domain is None:
            return None
        broken = (self.domain > WHOLE).mean(axis=1)
        zero = self._at(0.0)
        # Compared with the unmoved images, some of which are out of domain already.
        fine = broken <= broken[zero] + MOST_BROKEN
        low = high = zero
        while low > 0 and fine[low - 1]:
            low -= 1
        while high + 1 < len(fine) and fine[high + 1]:
            high += 1
        return self.amounts[low], self.amounts[high]

    def summary(self) -> dict[str, Any]:
        """Return the figures as a report stores them."""
        facts: dict[str, Any] = {
            "pictures": self.scores.shape[1],
            "amounts": list(self.amounts),
            "log_odds": [round(float(row.mean()), 3) for row in self.scores],
            "yes": [round(float((row > 0).mean()), 3) for row in self.scores],
        }
        ends = [a for a in (-2.0, 2.0) if a in self.amounts]
        facts["brought_over"] = {
            f"{a:+g}": [round(share, 3), of]
            for a in ends
            for share, of in [self.brought_over(a)]
            if of
        }
        if self.others:
            facts["side_effects"] = {
                f"{a:+g}": {name: round(share, 3) for name, share in self.side_effects(a).items()}
                for a in ends
            }

        if self.domain is not None:
            facts["whole"] = list(self.whole() or ())
        if self.recognised is not None:
            facts["recognised"] = [round(float(share), 3) for share in self.recognised]
        return facts


@torch.no_grad()
def measure_effect(
    generator: Generator,
    direction: Direction,
    ws: Tensor,
    judge: Score,
    *,
    others: Mapping[str, Score] | None = None,
    discriminator: Discriminator | None = None,
    amounts: Sequence[float] = AMOUNTS,
    progress: Callable[[int, int], None] | None = None,
) -> Effect:
    """Measure ``direction`` on images of ``ws`` at all ``amounts``, rendered with the generator's
    own noise.

    Args:
        ws: ``[N, num_ws, w_dim]``, or z ``[N, z_dim]`` for a direction in z.
        judge: scores the direction's own attribute.
        others: scores of attributes that should not change.
        discriminator: the generator's, to measure the in-domain range and identity preservation.
    """
    ordered = tuple(sorted({0.0, *map(float, amounts)}))
    # Measured on the same generator, so that 1 means the same for every network.
    domain = Domain.of(generator, discriminator) if discriminator is not None else None
    scores, side, away, features = [], {name: [] for name in others or {}}, [], []  # type: ignore[var-annotated]

    for number, amount in enumerate(ordered):
        pictures = moved_pictures(generator, direction, ws, amount)
        scores.append(judge(pictures).double().numpy())
        for name, other in (others or {}).items():
            side[name].append(other(pictures).double().numpy())
        if domain is not None and discriminator is not None:
            away.append(
                np.array(
                    [
                        d
                        for part in pictures.split(BATCH)
                        for d in domain.distances(discriminator, part)
                    ]
                )
            )
            features.append(pooled_features(discriminator, pictures).astype(np.float64))

        if progress:
            progress(number + 1, len(ordered))

    return Effect(
        ordered,
        np.stack(scores),
        {name: np.stack(rows) for name, rows in side.items()},
        np.stack(away) if away else None,
        _recognised(features, ordered.index(0.0)) if features else None,
    )


def _recognised(features: Sequence[np.ndarray[Any, Any]], zero: int) -> np.ndarray[Any, Any]:
    """Return, for features ``[N, features]`` at every amount, the share closest to their own at the
    amount number ``zero``."""
    # Unit vectors of standardised features: a scalar product is a cosine, which brightness alone
    # does not change.
    space = make_pipeline(StandardScaler(), Normalizer()).fit(features[zero])
    own = space.transform(features[zero])
    return np.array(
        [
            ((space.transform(x) @ own.T).argmax(axis=1) == np.arange(len(x))).mean()
            for x in features
        ]
    )


def effect_of_layers(
    generator: Generator, direction: Direction, ws: Tensor, judge: Score, amount: float = 2.0
) -> list[float]:
    """Return, for every layer, how much an edit of that layer alone changes the mean log odds of
    ``judge``."""
    if not space_of(direction.space).linear:
        raise ArgumentError(
            f"direction {direction.name} is in the space {direction.space}, which has no layers "
            "to measure"
        )

    def mean(pictures: Tensor) -> float:
        return float(judge(pictures).mean())

    with torch.no_grad():
        zero = mean(moved_pictures(generator, direction, ws, 0.0))
        found = []
        for row in range(generator.num_ws):
            parts = [
                render(generator, edit(p.to(generator.device), direction, amount, (row, row))).cpu()
                for p in ws.split(BATCH)
            ]
            found.append(round(mean(torch.cat(parts)) - zero, 4))

    return found
