"""Edit directions: finding them with and without labels, judging them, keeping them in files."""

from latentedit.directions.channels import style_channels
from latentedit.directions.classifiers import OnnxClassifier
from latentedit.directions.components import factorised, principal_components
from latentedit.directions.conditioning import conditioned, leakage
from latentedit.directions.direction import Direction, find_direction, load_direction, save_direction, shipped
from latentedit.directions.effects import effect_of_layers, measure_effect, question
from latentedit.directions.imported import import_direction
from latentedit.directions.labels import LabelTable, read_labels
from latentedit.directions.probe import fit, fit_classes
from latentedit.directions.refinement import PhotoScores, refine
from latentedit.directions.report import card, plot, with_report
from latentedit.directions.sweeps import sweep_sheet
from latentedit.directions.transfer import (
    PhotoClassifier,
    fit_from_inversions,
    fit_from_photos,
    fit_from_scores,
    inverted_photos,
    log_odds,
)
from latentedit.directions.validation import propose_layers

__all__ = [
    "Direction",
    "LabelTable",
    "OnnxClassifier",
    "PhotoClassifier",
    "PhotoScores",
    "card",
    "conditioned",
    "effect_of_layers",
    "factorised",
    "find_direction",
    "fit",
    "fit_classes",
    "fit_from_inversions",
    "fit_from_photos",
    "fit_from_scores",
    "import_direction",
    "inverted_photos",
    "leakage",
    "load_direction",
    "log_odds",
    "measure_effect",
    "plot",
    "principal_components",
    "propose_layers",
    "question",
    "read_labels",
    "refine",
    "save_direction",
    "shipped",
    "style_channels",
    "sweep_sheet",
    "with_report",
]
