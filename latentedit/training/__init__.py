"""Training a generator: data, adaptive augmentation, losses, loop."""

from latentedit.training.augmentation import AugmentPipe
from latentedit.training.config import TrainingConfig, load_preset, presets
from latentedit.training.data import PictureSet, load_pictures, write_pictures
from latentedit.training.distributed import World, join_world
from latentedit.training.loop import RunOptions, train
from latentedit.training.trainer import Trainer

__all__ = [
    "AugmentPipe",
    "PictureSet",
    "RunOptions",
    "Trainer",
    "TrainingConfig",
    "World",
    "join_world",
    "load_pictures",
    "load_preset",
    "presets",
    "train",
    "write_pictures",
]
