"""A linear classifier of photos on what a discriminator sees in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from latentedit.directions.photo_features import (
    WHOLE,
    Array,
    Done,
    View,
    photo_features,
    pooled_features,
)
from latentedit.directions.validation import quality
from latentedit.errors import ArgumentError
from latentedit.networks.discriminator import Discriminator

AXES = 512
ROWS = 1500
"""Principal components that are kept, and photos from which they are computed, at most. With all
components, the AUC on 2,101 portraits is higher by 0.001, and ten times the work.
"""
CHUNK = 256
"""Photos whose features are standardised at once."""
COMPONENTS = 48
NEIGHBOURS = 5
"""Components and photos that the distance of an image from the photos is computed from."""
COPIES = 500
"""Photos with a mirrored copy, at most, where nothing else is asked for; more make directions no
better (docs/directions.md)."""
AXES_WORK = 0.3
FIT = 0.02
"""Time to compute the components, and for one fit, per image, relative to the time for computing
the features of the image."""


def copies_of(mirror: str, count: int) -> int:
    """Return how many of ``count`` photos get a mirrored copy."""
    copies = {"auto": min(count, COPIES), "none": 0, "keep": count, "swap": count}
    if mirror not in copies:
        raise ArgumentError.of("mirror", "auto, none, keep or swap", mirror)
    return copies[mirror]


def mirrored(
    images: Tensor, labels: Array, groups: Sequence[Any] | None, mirror: str
) -> tuple[Tensor, Array, list[Any]]:
    """Add mirrored copies to images, labels and groups; a copy is in the group of its original.

    ``mirror`` is "none", "keep" (a mirrored copy has the same label), "swap" (the opposite label:
    left and right) or "auto" (as "keep", but of at most 500 evenly spaced photos).
    """
    count = copies_of(mirror, len(images))
    members = list(groups) if groups is not None else list(range(len(images)))
    if not count:
        return images, labels, members
    # Exchanges the two labels, and reverses numbers within their range.
    opposite = labels.min() + labels.max() - labels if mirror == "swap" else labels
    rows = np.arange(count) * len(images) // count
    copies = images[torch.from_numpy(rows)].flip(3)
    return (
        torch.cat([images, copies]),
        np.concatenate([labels, opposite[rows]]),
        members + [members[row] for row in rows],
    )


@dataclass(frozen=True)
class Axes:
    """Principal components of standardised features."""

    mean: Array
    """``[features]``."""
    scale: Array
    """``[features]``."""
    vectors: Array
    """``[axes, features]``, orthonormal, the longest axis first."""

    @classmethod
    def of(cls, x: Array, most: int = AXES, rows: int = ROWS) -> "Axes":
        """Compute at most ``most`` components from at most ``rows`` evenly spaced rows of
        ``x [N, features]``.

        They come from the eigenvectors of the products of rows, as there are fewer rows than
        features.
        """
        mean = x.mean(axis=0)
        # In parts, as a copy of all features may take half a gigabyte.
        parts = (x[start : start + CHUNK] - mean for start in range(0, len(x), CHUNK))
        squares = sum(np.square(part).sum(axis=0, dtype=np.float64) for part in parts)
        scale = np.sqrt(squares / len(x)).astype(x.dtype)
        scale[scale < 1e-6] = 1  # what never varies
        chosen = np.unique(np.linspace(0, len(x) - 1, min(rows, len(x))).round().astype(int))
        standard = (x[chosen] - mean) / scale
        values, turns = np.linalg.eigh((standard @ standard.T).astype(np.float64))
        kept = np.flatnonzero(values > 1e-6 * max(values[-1], 1e-12))[::-1][:most]
        vectors = (turns[:, kept] / np.sqrt(values[kept])).T.astype(x.dtype) @ standard
        return cls(mean, scale, vectors)

    def __call__(self, x: Array, count: int | None = None) -> Array:
        """Return the first ``count`` coordinates of ``x [N, features]``, or all: ``[N, count]``
        float64."""
        part = self.vectors[:count] / self.scale
        found: Array = (x @ part.T - part @ self.mean).astype(np.float64)
        return found


class PhotoClassifier:
    """A photo classifier: logistic regression, or ridge regression of numbers, on what a
    discriminator sees.

    The features (`latentedit.directions.photo_features`) are standardised and reduced to 512
    principal components, in which a fit to 2,000 photos takes half a second.

    Args:
        images: ``[N, C, H, W]``.
        labels: ``[N]`` of 0 and 1, or numbers.
        groups: the people, so that the reported AUC is that for unseen people.
        mirror: "none", "keep" (a mirrored copy has the same label), "swap" (the opposite label:
            left and right) or "auto" (as "keep", but of at most 500 photos).
        examine: whether to measure the AUC, which takes some more fits.
        done: called with the amount of work that was just finished; all amounts add up to `work`.
        view: how the discriminator sees images.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        images: Tensor,
        labels: Array,
        groups: Sequence[Any] | None = None,
        mirror: str = "auto",
        examine: bool = True,
        done: Done = lambda share: None,
        view: View = WHOLE,
    ) -> None:
        images, labels, members = mirrored(images, labels, groups, mirror)
        self.discriminator = discriminator
        self.view = view
        self.binary = set(np.unique(labels)) == {0.0, 1.0}
        if self.binary:
            estimator: Any = LogisticRegression(
                C=1e-3, class_weight="balanced", solver="newton-cholesky"
            )
        else:
            estimator = Ridge(alpha=1e3)

        # Features of the model's own discriminator: no other network, and it knows what the model
        # can draw.
        x = pooled_features(discriminator, images, view, done)
        self.axes = Axes.of(x)
        z = self.axes(x)
        done(len(images) * AXES_WORK)

        # Distances between features of thousands of dimensions are all alike; the strongest
        # components tell images apart.
        near = z[:, :COMPONENTS]
        self._spread = np.maximum(near.std(axis=0), 1e-12)
        self._neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(x))).fit(
            near / self._spread
        )
        fit = len(images) * FIT
        self.report = (
            quality(estimator, z, labels, members, self.binary, lambda: done(fit))
            if examine
            else {}
        )
        estimator.fit(z, labels)

        along = np.ravel(estimator.coef_) @ self.axes.vectors
        self.weights: Array = along / self.axes.scale
        """``[features]``; the score is their product with the features, plus `intercept`."""
        self.intercept = float(np.ravel(estimator.intercept_)[0] - self.weights @ self.axes.mean)

    @staticmethod
    def work(images: int, mirror: str) -> float:
        """Return the amount of work for this many photos, in units of computing the features of one
        image."""
        return (images + copies_of(mirror, images)) * (1 + AXES_WORK + 10 * FIT)

    def score(self, images: Tensor) -> tuple[Array, Array]:
        """Return what `judge` does of images: ``[N, C, H, W] -> [N], [N]``."""
        return self.judge(pooled_features(self.discriminator, images, self.view))

    def judge(self, x: Array) -> tuple[Array, Array]:
        """Return the log odds of class 1, or the number, and the distance from the photos:
        ``[N, features] -> [N], [N]``.

        The distance is the mean distance to the five nearest photos in whitened principal
        components of the features.
        """
        scores: Array = (x @ self.weights).astype(np.float64) + self.intercept
        near = self.axes(x, len(self._spread)) / self._spread
        distances: Array = self._neighbours.kneighbors(near)[0].mean(axis=1)
        return scores, distances


def log_odds(classifiers: Sequence[PhotoClassifier], images: Tensor) -> Tensor:
    """Return the log odds of class 1 of every classifier, differentiable in
    ``images [N, C, H, W]``: ``[N, classifiers]``.

    All must use the same discriminator and view; it is run once.
    """
    x = photo_features(classifiers[0].discriminator, images, classifiers[0].view)
    weights = torch.stack([torch.from_numpy(one.weights).to(x) for one in classifiers], dim=1)
    return x @ weights + torch.tensor([one.intercept for one in classifiers]).to(x)
