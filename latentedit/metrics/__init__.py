"""Quality measures of a generator: distances between feature distributions, path length,
separability, inversion of images."""

from latentedit.metrics.distances import fid, kid, precision_recall
from latentedit.metrics.features import (
    Features,
    discriminator_features,
    efficientnet_features,
    inception_features,
    load_features,
    of_generator,
    of_pictures,
)
from latentedit.metrics.judge import Judge, load_judge, save_judge
from latentedit.metrics.measures import METRICS, measure, measure_of
from latentedit.metrics.path_length import perceptual_path_length
from latentedit.metrics.separability import linear_separability

__all__ = [
    "METRICS",
    "Features",
    "Judge",
    "discriminator_features",
    "efficientnet_features",
    "fid",
    "inception_features",
    "kid",
    "linear_separability",
    "load_features",
    "load_judge",
    "measure",
    "measure_of",
    "of_generator",
    "of_pictures",
    "perceptual_path_length",
    "precision_recall",
    "save_judge",
]
