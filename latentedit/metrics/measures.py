"""Several figures of a model at once, for `latentedit metrics` and for snapshots of a training run."""

from collections.abc import Callable, Sequence

import torch

from latentedit.errors import Error
from latentedit.metrics.distances import fid, kid, precision_recall
from latentedit.metrics.features import Features, load_features, of_generator, of_pictures
from latentedit.models import Model
from latentedit.training.data import PictureSet

METRICS = ("kid", "fid", "precision")
"""Distances from a data set; "precision" gives recall as well."""
DURING_TRAINING = 1000
"""Pictures that a snapshot is measured by."""


def measure(
    model: Model,
    data: PictureSet,
    features: Features,
    metrics: Sequence[str] = METRICS,
    count: int = 10_000,
    *,
    seed: int = 0,
    mirror: bool = False,
) -> dict[str, float]:
    """Distances of ``count`` random pictures from ``data`` in the eyes of ``features``.

    Raises:
        Error: an unknown metric, or a set of pictures of another size.
    """
    check_metrics(metrics)
    generator = model.generator
    if features.belongs_to is not None and features.belongs_to == model.provenance.get("started_from"):
        raise Error("a generator is not judged by the discriminator that its training started with; name another network")
    expected = (generator.channels, generator.resolution, generator.resolution)
    if data.shape != expected:
        raise Error(f"the model draws pictures of shape {expected}, the data set has {data.shape}")
    real = of_pictures(features, data, mirror=mirror)
    fake = of_generator(features, generator, count, seed)
    found: dict[str, float] = {}
    for name in metrics:
        if name == "kid":
            found["kid"] = kid(real, fake, seed)
        elif name == "fid":
            found["fid"] = fid(real, fake)
        else:
            found["precision"], found["recall"] = precision_recall(real, fake)
    return found


def check_metrics(metrics: Sequence[str]) -> None:
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise Error(f"metrics are {', '.join(METRICS)}, got {', '.join(unknown) or 'none'}")


def measure_of(
    metrics: Sequence[str], data: PictureSet, features: str, device: str | torch.device = "cpu", *, mirror: bool = False
) -> Callable[[Model], dict[str, float]]:
    """A function for `latentedit.training.train` that measures a snapshot by 1000 pictures.

    The features of ``data`` are taken at once, so that a network that does not fit it fails before the training.
    """
    metrics = [name.strip() for name in metrics]
    check_metrics(metrics)
    network = load_features(features, device)
    # Of precision, more is better: the best snapshot is not kept by it.
    ordered = sorted(metrics, key=lambda name: name == "precision")
    if ordered[0] == "precision":
        raise Error("the best snapshot is kept by kid or fid; name one of them as well")

    of_pictures(network, data, mirror=mirror)

    def found(model: Model) -> dict[str, float]:
        figures = measure(model, data, network, ordered, min(DURING_TRAINING, max(len(data), 200)), mirror=mirror)
        return {f"metric/{name}": value for name, value in figures.items()}

    return found
