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
from torch import Tensor

from latentedit.directions.direction import Direction
from latentedit.directions.labelled_latents import LabelledLatents
from latentedit.directions.photo_classifier import PhotoClassifier, mirrored
from latentedit.directions.photo_features import Array, RandomFeatures, quick_view, render_all
from latentedit.directions.probe import ProbeChoices, ProbeOptions, fit_probe
from latentedit.errors import ArgumentError
from latentedit.inversion.options import InversionOptions, ProjectorSettings
from latentedit.inversion.projector import Projector
from latentedit.latent.w_statistics import sample_w
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.generator import Generator

RANDOM_W = 1000
"""Random images that photos are transferred to; more make directions no better
(docs/directions.md)."""
SCORED_W = 6000
"""Random images that a classifier or a measurement scores."""
CONFIDENT = 0.25
"""Share of the random w, at each end of the scores, to which the probe is fitted."""
TYPICAL = 0.5
"""Share of the random images that are kept, those most similar to the photos; the classifier is
unreliable for others."""
BATCH = 32
RENDERED = 5
"""Time to render an image and to compute its features, relative to the time for the features
alone."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos with the labels of one attribute."""

    images: Tensor
    """``[N, C, H, W]`` in [-1, 1]."""
    labels: Array
    """``[N]``, 0 and 1, or numbers."""
    groups: Sequence[Any] | None = None
    """The person on every photo, so that figures are those for unseen people."""
    mirror: str = "auto"
    """Mirrored copies: "none", "keep" (with the same label), "swap" (with the opposite label: left
    and right) or "auto" (with the same label, of at most 500 photos)."""


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
    samples: int = SCORED_W,
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
    samples: int = SCORED_W,
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
    other images of the generator. The features of the random images are kept in the user's cache,
    for the next attribute.

    ``progress`` is called from the first photo on, with the finished and the total work, in images
    analysed or rendered. The facts contain the classifier's AUC on photos of unseen people
    (``photo_*``).
    """
    work = PhotoClassifier.work(len(photos.images), photos.mirror)
    total = round(work + RENDERED * options.samples)
    reached = 0.0

    def done(share: float) -> None:
        nonlocal reached
        reached += share
        if progress:
            progress(min(round(reached), total), total)

    view = quick_view(discriminator)
    classifier = PhotoClassifier(
        discriminator,
        photos.images,
        photos.labels,
        photos.groups,
        photos.mirror,
        done=done,
        view=view,
    )
    reached = work

    # The classifier transfers its knowledge of photos to images whose w is known exactly, so that
    # no inversion is needed.
    w = sample_w(generator, options.samples, options.seed)
    random = RandomFeatures(generator, discriminator, w, options.seed, view)
    batches = random.batches(lambda count: done(RENDERED * count))
    judged = [classifier.judge(rows) for rows in batches]
    scores, distances = (np.concatenate(column) for column in zip(*judged, strict=True))
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
