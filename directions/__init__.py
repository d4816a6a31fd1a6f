"""Edit directions: finding them with and without labels, measuring them, and storing them in files.

The names load on first use, so that applying a direction does not import scikit-learn.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from latentedit.directions.channels import style_channels
    from latentedit.directions.classifiers import OnnxClassifier
    from latentedit.directions.conditioning import conditioned, leakage
    from latentedit.directions.direction import Direction, save_direction
    from latentedit.directions.effects import effect_of_layers, measure_effect, question
    from latentedit.directions.imported import import_direction
    from latentedit.directions.labelled_latents import LabelledLatents
    from latentedit.directions.labels import LabelTable, read_labels
    from latentedit.directions.pca import principal_components
    from latentedit.directions.photo_classifier import PhotoClassifier, log_odds
    from latentedit.directions.probe import ProbeOptions, fit, fit_classes, fit_probe
    from latentedit.directions.refinement import PhotoScores, RefineOptions, refine
    from latentedit.directions.registry import find_direction, load_direction, shipped
    from latentedit.directions.report import card, plot, with_report
    from latentedit.directions.sefa import factorised
    from latentedit.directions.sweeps import sweep_sheet
    from latentedit.directions.transfer import (
        LabelledPhotos,
        TransferOptions,
        fit_from_inversions,
        fit_from_photos,
        fit_from_scores,
        from_inversions,
        from_photos,
        from_scores,
        inverted_photos,
    )
    from latentedit.directions.validation import propose_layers

_ATTRIBUTES = {
    "channels": ["style_channels"],
    "classifiers": ["OnnxClassifier"],
    "conditioning": ["conditioned", "leakage"],
    "direction": ["Direction", "save_direction"],
    "effects": ["effect_of_layers", "measure_effect", "question"],
    "imported": ["import_direction"],
    "labelled_latents": ["LabelledLatents"],
    "labels": ["LabelTable", "read_labels"],
    "pca": ["principal_components"],
    "photo_classifier": ["PhotoClassifier", "log_odds"],
    "probe": ["ProbeOptions", "fit", "fit_classes", "fit_probe"],
    "refinement": ["PhotoScores", "RefineOptions", "refine"],
    "registry": ["find_direction", "load_direction", "shipped"],
    "report": ["card", "plot", "with_report"],
    "sefa": ["factorised"],
    "sweeps": ["sweep_sheet"],
    "transfer": [
        "LabelledPhotos",
        "TransferOptions",
        "fit_from_inversions",
        "fit_from_photos",
        "fit_from_scores",
        "from_inversions",
        "from_photos",
        "from_scores",
        "inverted_photos",
    ],
    "validation": ["propose_layers"],
}

__all__ = [
    "Direction",
    "LabelTable",
    "LabelledLatents",
    "LabelledPhotos",
    "OnnxClassifier",
    "PhotoClassifier",
    "PhotoScores",
    "ProbeOptions",
    "RefineOptions",
    "TransferOptions",
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
    "fit_probe",
    "from_inversions",
    "from_photos",
    "from_scores",
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

__getattr__, _, _ = lazy_loader.attach(__name__, None, _ATTRIBUTES)


def __dir__() -> list[str]:
    return __all__
