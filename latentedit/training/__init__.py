"""Training a generator: data, adaptive augmentation, losses, loop."""

from latentedit.training.augmentation import AugmentPipe
from latentedit.training.config import TrainingConfig, load_preset, presets
from latentedit.training.data import PictureSet, load_pictures, write_pictures
from latentedit.training.loop import Trainer, train

__all__ = [
    "AugmentPipe",
    "PictureSet",
    "Trainer",
    "TrainingConfig",
    "load_pictures",
    "load_preset",
    "presets",
    "train",
    "write_pictures",
]
