"""Edit directions: finding them from labels, judging them, keeping them in files."""

from latentedit.directions.direction import Direction, find_direction, load_direction, save_direction, shipped
from latentedit.directions.imported import import_direction
from latentedit.directions.labels import LabelTable, read_labels
from latentedit.directions.probe import auc_by_group, fit
from latentedit.directions.transfer import PhotoClassifier, fit_from_inversions, fit_from_photos, inverted_photos

__all__ = [
    "Direction",
    "LabelTable",
    "PhotoClassifier",
    "auc_by_group",
    "find_direction",
    "fit",
    "fit_from_inversions",
    "fit_from_photos",
    "import_direction",
    "inverted_photos",
    "load_direction",
    "read_labels",
    "save_direction",
    "shipped",
]
