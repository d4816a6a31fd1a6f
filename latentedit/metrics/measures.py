"""Several metrics of a model at once, for `latentedit metrics` and for snapshots of a training
run."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

import torch
from torch import Tensor

from latentedit.errors import ArgumentError, DataError, Error, IncompatibleError, meant
from latentedit.inversion.options import InversionOptions, ProjectorSettings
from latentedit.inversion.perceptual import choose
from latentedit.inversion.projector import Projector
from latentedit.io.images import from_uint8
from latentedit.latent.w_statistics import random_labels, sample_z
from latentedit.metrics.distances import SUBSETS, fid, kid, precision_recall
from latentedit.metrics.features import Features, Progress, load_features, of_generator, of_pictures
from latentedit.metrics.judge import Judge, load_judge
from latentedit.metrics.path_length import perceptual_path_length
from latentedit.metrics.separability import linear_separability
from latentedit.model.model import Model
from latentedit.training.data import PictureSet

METRICS = ("kid", "fid", "precision")
"""Distances from a training set; "precision" also gives recall."""
OTHERS = ("ppl", "separability", "inversion")
"""Metrics that need no training set: path length, separability by an attribute classifier,
inversion of held-out images."""
BATCH = 32
DURING_TRAINING = 1000
"""Number of images for measuring a snapshot."""


def measure(
    model: Model,
    data: PictureSet,
    features: Features,
    metrics: Sequence[str] = METRICS,
    count: int = 10_000,
    *,
    seed: int = 0,
    mirror: bool = False,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Measure the distances of ``count`` random images from ``data`` with the network ``features``.

    ``progress`` is called with the number of steps since the last call; `steps_of` gives the total.

    Raises:
        Error: an unknown metric, or a training set of another image size.
    """
    check_metrics(metrics)
    generator = model.generator

    # A generator is trained to please that discriminator, so its features would flatter it.
    if features.belongs_to is not None and features.belongs_to == model.provenance.get(
        "started_from"
    ):
        raise IncompatibleError(
            "a generator cannot be measured with the discriminator its training started from; "
            "name another network"
        )

    expected = (generator.channels, generator.resolution, generator.resolution)
    if data.shape != expected:
        raise IncompatibleError(
            f"the model generates images of shape {expected}, the training set has {data.shape}"
        )

    real = of_pictures(features, data, mirror=mirror, progress=progress)
    fake = of_generator(features, generator, count, seed, progress)
    found: dict[str, float] = {}

    for name in metrics:
        if name == "kid":
            found["kid"] = kid(real, fake, seed, progress)
        elif name == "fid":
            found["fid"] = fid(real, fake)
        else:
            found["precision"], found["recall"] = precision_recall(real, fake)

    return found


def steps_of(data: PictureSet, metrics: Sequence[str], count: int) -> int:
    """Return the number of steps of `measure`: one per image, and one per subset of KID, which
    takes about as long."""
    return len(data) + count + (SUBSETS if "kid" in metrics else 0)


def check_metrics(metrics: Sequence[str]) -> None:
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        advice = meant(unknown[0], METRICS) if unknown else ""
        raise ArgumentError(
            f"metrics must be of {', '.join(METRICS)}; got {', '.join(unknown) or 'none'}",
            advice=advice,
        )


def separability_of(
    model: Model, judge: Judge, count: int, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, float]:
    """Compute `linear_separability` in z and w from a classifier's answers for ``count`` random
    images.

    An attribute of several classes counts as one attribute per class. Attributes that all images
    have, or none, are left out.

    Raises:
        Error: no attribute is left.
    """
    generator = model.generator
    z = sample_z(seed, generator.z_dim, count).to(generator.device)
    parts: dict[str, list[Tensor]] = {}

    with torch.no_grad():
        w = generator.mapping.map(z, random_labels(generator, seed, count))
        for some in w.split(BATCH):
            odds = judge(generator.synthesis(some[:, None].expand(-1, generator.num_ws, -1)))
            for name, values in odds.items():
                if values.ndim == 1:
                    parts.setdefault(name, []).append(values)
                    continue
                for index, label in enumerate(judge.heads[name]):
                    # Log odds of one class against all others.
                    others = [i for i in range(values.shape[1]) if i != index]
                    parts.setdefault(f"{name}={label}", []).append(
                        values[:, index] - values[:, others].logsumexp(dim=1)
                    )
            if progress:
                progress(len(some))

    scores = {name: torch.cat(values) for name, values in parts.items()}
    scores = {
        name: odds
        for name, odds in scores.items()
        if bool((odds > 0).any()) and not bool((odds > 0).all())
    }
    if not scores:
        raise DataError("the classifier gives all images the same answers; nothing to separate")
    return {
        f"separability_{space}": linear_separability(x, scores)[0]
        for space, x in (("z", z), ("w", w))
    }


def inversion_of(
    model: Model,
    pictures: PictureSet,
    steps: int,
    *,
    perceptual_weights: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Invert ``pictures`` into W with a `latentedit.Projector` and ``steps``, and return the
    medians of the distances."""
    # The published projector with equal weights for all pixels, as the figure is compared between
    # models.
    settings = ProjectorSettings(perceptual_weights=perceptual_weights, focus=None)
    options = InversionOptions("w", "adam", steps, pixel_weight=1.0, seed=seed)
    projector = Projector(model, settings)
    found: dict[str, list[float]] = {}

    for start in range(0, len(pictures), BATCH):
        rows = range(start, min(start + BATCH, len(pictures)))
        result = projector.invert(
            from_uint8(pictures.read(rows)),
            options,
            on_step=(lambda _: progress(1)) if progress else None,
        )
        if result.interrupted:
            raise KeyboardInterrupt  # a median over searches that were cut off would be none
        for distances in result.distances:
            for name, value in distances.items():
                found.setdefault(name, []).append(value)

    return {f"inversion_{name}": statistics.median(values) for name, values in found.items()}


def path_length_of(
    model: Model,
    count: int,
    *,
    space: Literal["z", "w"] = "w",
    sampling: Literal["full", "end"] = "end",
    crop: bool = False,
    perceptual_weights: str | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Compute `perceptual_path_length` under a name that includes its distance, such as
    ``ppl_lpips_w_end``."""
    distance, _ = choose("auto", model.discriminator, perceptual_weights, model.generator.device)
    name = f"ppl_{distance.name}_{space}_{sampling}{'_crop' * crop}"
    return {
        name: perceptual_path_length(
            model.generator, distance, space, sampling, count, crop=crop, seed=seed
        )
    }


def measure_of(
    metrics: Sequence[str],
    data: PictureSet,
    features: str,
    device: str | torch.device = "cpu",
    *,
    mirror: bool = False,
    held_out: PictureSet | None = None,
) -> Callable[[Model], dict[str, float]]:
    """Return a function for `latentedit.training.train` that measures a snapshot.

    Distances and separability use 1000 random images, path length uses 100 pairs, and inversion
    uses at most 8 ``held_out`` images and 100 steps. The features of ``data`` are computed
    immediately, so that an unsuitable network fails before the training starts.

    Raises:
        Error: unknown metrics, neither kid nor fid among them (the first of these selects the best
            snapshot), or a missing input of one of them.
    """
    metrics = [name.strip() for name in metrics]
    distances = [name for name in metrics if name in METRICS]
    others = [name for name in metrics if name in OTHERS]
    check_metrics([name for name in metrics if name not in OTHERS])

    # The best snapshot is the one with the lowest value, and precision is better if it is higher.
    distances.sort(key=lambda name: name == "precision")
    if distances[0] == "precision":
        raise ArgumentError("the best snapshot is kept by kid or fid; name one of them as well")
    if "inversion" in others and held_out is None:
        raise ArgumentError(
            "inversion needs images that were not used for training", advice="add `held_out`"
        )

    network = load_features(features, device)
    judge = load_judge(features).to(device) if "separability" in others else None
    of_pictures(network, data, mirror=mirror)
    count = min(DURING_TRAINING, max(len(data), 200))

    def found(model: Model) -> dict[str, float]:
        figures = measure(model, data, network, distances, count, mirror=mirror)
        if "ppl" in others:
            figures.update(path_length_of(model, 100))
        if judge is not None:
            with suppress(Error):  # a young generator may draw one answer only
                figures.update(separability_of(model, judge, count))
        if held_out is not None and "inversion" in others:
            rows = (
                [i * len(held_out) // 8 for i in range(8)]
                if len(held_out) > 8
                else list(range(len(held_out)))
            )
            some = PictureSet(
                held_out.read(rows), held_out.labels[rows], [held_out.names[i] for i in rows]
            )
            figures.update(inversion_of(model, some, 100))

        return {f"metric/{name}": value for name, value in figures.items()}

    return found
