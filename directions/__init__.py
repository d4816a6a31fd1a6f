"""Edit directions: finding them with and without labels, measuring them, and storing them in files.

The names load on first use, so that applying a direction does not import scikit-learn.
"""

import importlib
from typing import TYPE_CHECKING, Any

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
    from latentedit.directions.probe import ProbeOptions, fit, fit_classes, fit_probe
    from latentedit.directions.refinement import PhotoScores, RefineOptions, refine
    from latentedit.directions.registry import find_direction, load_direction, shipped
    from latentedit.directions.report import card, plot, with_report
    from latentedit.directions.sefa import factorised
    from latentedit.directions.sweeps import sweep_sheet
    from latentedit.directions.transfer import (
        LabelledPhotos,
        PhotoClassifier,
        TransferOptions,
        fit_from_inversions,
        fit_from_photos,
        fit_from_scores,
        from_inversions,
        from_photos,
        from_scores,
        inverted_photos,
        log_odds,
    )
    from latentedit.directions.validation import propose_layers

_HOMES = {
    "Direction": "direction",
    "LabelTable": "labels",
    "LabelledLatents": "labelled_latents",
    "LabelledPhotos": "transfer",
    "OnnxClassifier": "classifiers",
    "PhotoClassifier": "transfer",
    "PhotoScores": "refinement",
    "ProbeOptions": "probe",
    "RefineOptions": "refinement",
    "TransferOptions": "transfer",
    "card": "report",
    "conditioned": "conditioning",
    "effect_of_layers": "effects",
    "factorised": "sefa",
    "find_direction": "registry",
    "fit": "probe",
    "fit_classes": "probe",
    "fit_from_inversions": "transfer",
    "fit_from_photos": "transfer",
    "fit_from_scores": "transfer",
    "fit_probe": "probe",
    "from_inversions": "transfer",
    "from_photos": "transfer",
    "from_scores": "transfer",
    "import_direction": "imported",
    "inverted_photos": "transfer",
    "leakage": "conditioning",
    "load_direction": "registry",
    "log_odds": "transfer",
    "measure_effect": "effects",
    "plot": "report",
    "principal_components": "pca",
    "propose_layers": "validation",
    "question": "effects",
    "read_labels": "labels",
    "refine": "refinement",
    "save_direction": "direction",
    "shipped": "registry",
    "style_channels": "channels",
    "sweep_sheet": "sweeps",
    "with_report": "report",
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'latentedit.directions' has no attribute {name!r}")
    return getattr(importlib.import_module(f"latentedit.directions.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
