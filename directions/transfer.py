"""Directions from labelled photos, by one of two methods: score transfer and inversion.

*Transfer* trains a classifier on discriminator features of the photos, scores images of random w
with it, and fits the probe to the w with the most certain scores. *Inversion* projects every photo
into W and fits the probe to the results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from latentedit.directions.direction import Direction
from latentedit.directions.labelled_latents import LabelledLatents
from latentedit.directions.probe import ProbeChoices, ProbeOptions, fit_probe
from latentedit.directions.validation import quality
from latentedit.errors import ArgumentError
from latentedit.inversion.options import InversionOptions, ProjectorSettings
from latentedit.inversion.projector import Projector
from latentedit.latent.w_statistics import sample_w
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.generator import Generator

POOLED = 4
"""Side to which feature maps are averaged, so that a classifier also knows positions."""
RANDOM_W = 6000
CONFIDENT = 0.25
"""Share of the random w, at each end of the scores, to which the probe is fitted."""
TYPICAL = 0.5
"""Share of the random images that are kept, those most similar to the photos; the classifier is
unreliable for others."""
COMPONENTS = 48
NEIGHBOURS = 5
BATCH = 32

FIT = 0.03
"""Time to fit a classifier, per image, relative to the time for computing the features of the
image."""

Array = np.ndarray[Any, np.dtype[Any]]
Progress = Callable[[int, int], None]


@torch.no_grad()
def pooled_features(
    discriminator: Discriminator, images: Tensor, done: Callable[[int], None] = lambda count: None
) -> Array:
    """Compute the activations of every block averaged to 4 x 4 positions,
    ``[N, C, H, W] -> [N, features]``.

    ``done`` is called with the number of images of every batch.
    """
    rows = []
    for batch in images.split(BATCH):
        pooled = _pooled(discriminator, batch.to(next(discriminator.parameters()).device))
        rows.append(torch.cat(pooled, dim=1).cpu())
        done(len(batch))
    return torch.cat(rows).double().numpy()


def _pooled(discriminator: Discriminator, images: Tensor) -> list[Tensor]:
    return [
        F.adaptive_avg_pool2d(x, min(POOLED, x.shape[-1])).flatten(1)
        for x in discriminator.features(images)
    ]


def mirrored(
    images: Tensor, labels: Array, groups: Sequence[Any] | None, mirror: str
) -> tuple[Tensor, Array, list[Any]]:
    """Add mirrored copies to images, labels and groups; a copy is in the group of its original.

    ``mirror`` is "none", "keep" (a mirrored copy has the same label) or "swap" (the opposite label:
    left and right).
    """
    if mirror not in ("none", "keep", "swap"):
        raise ArgumentError.of("mirror", "none, keep or swap", mirror)
    members = list(groups) if groups is not None else list(range(len(images)))
    if mirror == "none":
        return images, labels, members
    # Exchanges the two labels, and reverses numbers within their range.
    opposite = labels.min() + labels.max() - labels if mirror == "swap" else labels
    return torch.cat([images, images.flip(3)]), np.concatenate([labels, opposite]), members * 2


class PhotoClassifier:
    """A photo classifier: logistic regression, or ridge regression of numbers, on standardised
    discriminator features.

    Args:
        images: ``[N, C, H, W]``.
        labels: ``[N]`` of 0 and 1, or numbers.
        groups: the people, so that the reported AUC is that for unseen people.
        mirror: "none", "keep" (a mirrored copy has the same label) or "swap" (the opposite label:
            left and right).
        examine: whether to measure the AUC, which takes some more fits.
        done: called with the amount of work that was just finished; all amounts add up to `work`.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        images: Tensor,
        labels: Array,
        groups: Sequence[Any] | None = None,
        mirror: str = "keep",
        examine: bool = True,
        done: Callable[[float], None] = lambda share: None,
    ) -> None:
        images, labels, members = mirrored(images, labels, groups, mirror)
        fit = len(images) * FIT
        self.discriminator = discriminator
        self.binary = set(np.unique(labels)) == {0.0, 1.0}
        regression = (
            LogisticRegression(C=1e-3, class_weight="balanced", max_iter=2000)
            if self.binary
            else Ridge(alpha=1e3)
        )
        self.estimator = make_pipeline(StandardScaler(), regression)
        # Features of the model's own discriminator: no other network, and it knows what the model
        # can draw.
        x = pooled_features(discriminator, images, done)
        # Distances between features of thousands of dimensions are all alike; the strongest
        # components tell images apart.
        components = min(COMPONENTS, *x.shape)
        self.space = make_pipeline(
            StandardScaler(), PCA(components, whiten=True, random_state=0)
        ).fit(x)
        self.neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(x))).fit(
            self.space.transform(x)
        )
        self.report = (
            quality(self.estimator, x, labels, members, self.binary, lambda: done(fit))
            if examine
            else {}
        )
        self.estimator.fit(x, labels)

    @staticmethod
    def work(images: int, mirror: str) -> float:
        """Return the amount of work for this many photos, in units of computing the features of one
        image."""
        return images * (1 if mirror == "none" else 2) * (1 + 10 * FIT)

    def score(self, images: Tensor) -> tuple[Array, Array]:
        """Return the log odds of class 1, or the number, and the distance from the photos:
        ``[N, C, H, W] -> [N], [N]``.

        The distance is the mean distance to the five nearest photos in whitened principal
        components of the features.
        """
        x = pooled_features(self.discriminator, images)
        scores: Array = (
            self.estimator.decision_function(x) if self.binary else self.estimator.predict(x)
        )
        distances: Array = self.neighbours.kneighbors(self.space.transform(x))[0].mean(axis=1)
        return scores, distances


def log_odds(classifiers: Sequence[PhotoClassifier], images: Tensor) -> Tensor:
    """Return the log odds of class 1 of every classifier, differentiable in
    ``images [N, C, H, W]``: ``[N, classifiers]``.

    All must use the same discriminator, which is run once.
    """
    x = torch.cat(_pooled(classifiers[0].discriminator, images), dim=1)
    columns = []
    for one in classifiers:
        scaler = one.estimator[0]
        regression = one.estimator[-1]
        mean, scale, weights = (
            torch.from_numpy(np.ravel(a)).to(x)
            for a in (scaler.mean_, scaler.scale_, regression.coef_)
        )
        columns.append(((x - mean) / scale) @ weights + float(regression.intercept_[0]))

    return torch.stack(columns, dim=1)


@torch.no_grad()
def render_all(generator: Generator, w: Tensor, progress: Progress | None = None) -> Tensor:
    """Render ``w [N, w_dim]`` with the generator's own noise: ``[N, C, H, W]``."""
    pictures = []
    # so many that progress shows more than once a second
    size = max(BATCH * 64**2 // generator.resolution**2, 1)
    for start in range(0, len(w), size):
        batch = w[start : start + size]
        pictures.append(generator.synthesis(batch[:, None].expand(-1, generator.num_ws, -1)).cpu())
        if progress:
            progress(min(start + size, len(w)), len(w))
    return torch.cat(pictures)


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos with the labels of one attribute."""

    images: Tensor
    """``[N, C, H, W]`` in [-1, 1]."""
    labels: Array
    """``[N]``, 0 and 1, or numbers."""
    groups: Sequence[Any] | None = None
    """The person on every photo, so that figures are those for unseen people."""
    mirror: str = "keep"
    """Mirrored copies: "none", "keep" (with the same label) or "swap" (with the opposite label:
    left and right)."""


@dataclass(frozen=True)
class TransferOptions:
    """Which random images score transfer uses."""

    samples: int = RANDOM_W
    """Number of random images that are scored."""
    confident: float = CONFIDENT
    """Share of the images, at each end of the scores, to which the probe is fitted."""
    typical: float = TYPICAL
    """Share of the images that is used at all, those most similar to the photos."""
    seed: int = 1
    """Seed of the random images."""


TRANSFER = TransferOptions()


def from_scores(
    score: Callable[[Tensor], Any],
    generator: Generator,
    *,
    samples: int = RANDOM_W,
    seed: int = 1,
    progress: Progress | None = None,
) -> LabelledLatents:
    """Return random w ``[N, w_dim]``, labelled with the scores of their images by any classifier or
    measurement.

    Args:
        score: a function from images ``[N, C, H, W]`` in [-1, 1] to numbers ``[N]``; NaN means no
            score.

    Raises:
        ArgumentError: a wrong number of scores.
    """
    w = sample_w(generator, samples, seed)
    pictures = render_all(generator, w, progress)
    found = np.concatenate(
        [np.asarray(score(batch), dtype=np.float64).reshape(-1) for batch in pictures.split(BATCH)]
    )
    if found.shape != (samples,):
        raise ArgumentError(
            f"a score must give one number per image; got {len(found)} for {samples} images"
        )
    return LabelledLatents(w.cpu(), found, facts={"method": "scores", "random_w": samples})


def fit_from_scores(
    score: Callable[[Tensor], Any],
    *,
    generator: Generator,
    name: str,
    samples: int = RANDOM_W,
    confident: float = CONFIDENT,
    seed: int = 1,
    provenance: dict[str, Any] | None = None,
    progress: Progress | None = None,
    **choices: Unpack[ProbeChoices],
) -> Direction:
    """Fit a direction to the scores of random images by any classifier or measurement
    (`from_scores`).

    Args:
        score: a function from images ``[N, C, H, W]`` in [-1, 1] to numbers ``[N]``; NaN means no
            score.
        confident: share of the images, at each end of the scores, to which the probe is fitted; 0.5
            takes all. The ridge probe, which uses numbers, always takes all.
        choices: fields of `latentedit.directions.ProbeOptions`, except ``confident``.

    Raises:
        Error: a wrong number of scores, or the errors of `latentedit.directions.fit`.
    """
    if not 0 < confident <= 0.5:
        raise ArgumentError.of("the confident share at either end", "from 0 to 0.5", confident)
    probe = ProbeOptions(**choices)
    scored = from_scores(score, generator, samples=samples, seed=seed, progress=progress)
    found = scored.labels

    # yes and no, and nothing between them
    answers = set(np.unique(found[np.isfinite(found)])) <= {0.0, 1.0}
    if confident == 0.5 and probe.kind != "ridge" and not answers:
        halves = np.where(np.isnan(found), np.nan, found > np.nanmedian(found))
        scored = replace(scored, labels=halves)
        answers = True

    share = 1.0 if answers or probe.kind == "ridge" else 2 * confident
    return fit_probe(
        scored, generator, replace(probe, confident=share), name=name, provenance=provenance
    )


def from_photos(
    photos: LabelledPhotos,
    generator: Generator,
    discriminator: Discriminator,
    options: TransferOptions = TRANSFER,
    *,
    progress: Progress | None = None,
) -> LabelledLatents:
    """Return random w ``[N, w_dim]``, labelled with the scores of a classifier of ``photos`` (score
    transfer).

    Of all random images, the share ``options.typical`` that is most similar to the photos is used.
    Without this selection, a probe would learn the difference between the collection of photos and
    other images of the generator.

    ``progress`` is called from the first photo on, with the finished and the total work, in images
    analysed or rendered. The facts contain the classifier's AUC on photos of unseen people
    (``photo_*``).
    """
    work = PhotoClassifier.work(len(photos.images), photos.mirror)
    total = round(work) + 2 * options.samples  # rendered, and looked at
    reached = 0.0

    def done(share: float) -> None:
        nonlocal reached
        reached += share
        if progress:
            progress(min(round(reached), total), total)

    classifier = PhotoClassifier(
        discriminator, photos.images, photos.labels, photos.groups, photos.mirror, done=done
    )
    reached = work

    # The classifier transfers its knowledge of photos to images whose w is known exactly, so that
    # no inversion is needed.
    w = sample_w(generator, options.samples, options.seed)
    parts = []
    for batch in w.split(BATCH):
        pictures = render_all(generator, batch)
        done(len(batch))
        parts.append(classifier.score(pictures))
        done(len(batch))

    scores, distances = (np.concatenate(column) for column in zip(*parts, strict=True))
    # A classifier is only reliable for images like those that it was trained on.
    near = np.argsort(distances, kind="stable")[: max(4, int(len(w) * options.typical))]

    facts = {
        "method": "transfer",
        "photographs": len(photos.images),
        "people": len(set(photos.groups)) if photos.groups is not None else None,
        "mirror": photos.mirror,
        "random_w": options.samples,
        "confident": options.confident,
        "typical": options.typical,
        **{f"photo_{key}": value for key, value in classifier.report.items()},
    }
    return LabelledLatents(w.cpu()[torch.from_numpy(near.copy())], scores[near], facts=facts)


def fit_from_photos(
    photos: LabelledPhotos,
    *,
    generator: Generator,
    discriminator: Discriminator,
    name: str,
    options: TransferOptions = TRANSFER,
    provenance: dict[str, Any] | None = None,
    progress: Progress | None = None,
    **choices: Unpack[ProbeChoices],
) -> Direction:
    """Fit a direction by score transfer (`from_photos`), to the share ``options.confident`` at each
    end of the scores.

    Args:
        choices: fields of `latentedit.directions.ProbeOptions`, except ``confident``. The space
            "w+" needs inversions, as all layers of a random image have the same w.
    """
    probe = ProbeOptions(**choices)
    scored = from_photos(photos, generator, discriminator, options, progress=progress)
    probe = replace(probe, confident=2 * options.confident)
    return fit_probe(scored, generator, probe, name=name, provenance=provenance)


def from_inversions(
    photos: LabelledPhotos,
    generator: Generator,
    discriminator: Discriminator,
    *,
    steps: int = 150,
    progress: Progress | None = None,
) -> LabelledLatents:
    """Return the ws ``[N, num_ws, w_dim]`` of photos, inverted in W with ``steps`` each, with the
    photos' labels."""
    images, labels, members = mirrored(photos.images, photos.labels, photos.groups, photos.mirror)
    ws = inverted_photos(generator, discriminator, images, steps=steps, progress=progress)
    facts = {
        "method": "invert",
        "photographs": len(images),
        "mirror": photos.mirror,
        "steps": steps,
    }
    return LabelledLatents(ws, labels, members, facts)


def fit_from_inversions(
    photos: LabelledPhotos,
    *,
    generator: Generator,
    discriminator: Discriminator,
    name: str,
    steps: int = 150,
    provenance: dict[str, Any] | None = None,
    progress: Progress | None = None,
    **choices: Unpack[ProbeChoices],
) -> Direction:
    """Fit a direction to photos inverted with ``steps`` each (`from_inversions`); arguments as for
    `fit_from_photos`."""
    found = from_inversions(photos, generator, discriminator, steps=steps, progress=progress)
    return fit_probe(found, generator, ProbeOptions(**choices), name=name, provenance=provenance)


def inverted_photos(
    generator: Generator,
    discriminator: Discriminator,
    images: Tensor,
    *,
    space: str = "w",
    steps: int = 150,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Invert photos ``[N, C, H, W]`` in batches and return ws ``[N, num_ws, w_dim]``."""
    projector = Projector(
        generator, ProjectorSettings("discriminator", discriminator=discriminator)
    )
    options = InversionOptions(space, "adam", steps, pixel_weight=1.0, seed=seed)
    found = []

    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        result = projector.invert(batch, options)
        if result.interrupted:
            # A direction of searches that were cut off would be a worse one.
            raise KeyboardInterrupt

        found.append(result.ws)
        if progress:
            progress(start + len(batch), len(images))

    return torch.cat(found)
