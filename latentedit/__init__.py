"""Latent-space editing and inversion with StyleGAN2: invert photos, move attribute sliders, find new directions.

The public names load on first use, so that ``import latentedit`` (and ``latentedit --help``) do not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from latentedit.errors import (
    ArgumentError,
    DataError,
    DivergedError,
    DownloadError,
    Error,
    FormatError,
    IncompatibleError,
    Interrupted,
    NotFoundError,
    OutputError,
)

if TYPE_CHECKING:
    from latentedit import directions, metrics, ops, training
    from latentedit.directions import Direction, load_direction
    from latentedit.formats.load_latent import load_latent
    from latentedit.formats.load_model import load_discriminator, load_generator, load_model
    from latentedit.inversion.options import InversionOptions, ProjectorSettings
    from latentedit.inversion.projector import Projector, invert
    from latentedit.io.images import load_image, save_image
    from latentedit.latent.editing import edit, interpolate, mix
    from latentedit.latent.latent_file import Latent, save_latent
    from latentedit.model.model import Model
    from latentedit.model.native import save_model
    from latentedit.networks.fingerprint import fingerprint
    from latentedit.networks.generator import Generator, GeneratorConfig

_HOMES = {
    "Direction": "directions",
    "load_direction": "directions",
    "edit": "latent.editing",
    "interpolate": "latent.editing",
    "mix": "latent.editing",
    "Generator": "networks.generator",
    "GeneratorConfig": "networks.generator",
    "load_image": "io.images",
    "save_image": "io.images",
    "InversionOptions": "inversion.options",
    "ProjectorSettings": "inversion.options",
    "Projector": "inversion.projector",
    "invert": "inversion.projector",
    "Latent": "latent.latent_file",
    "load_latent": "formats.load_latent",
    "save_latent": "latent.latent_file",
    "Model": "model.model",
    "fingerprint": "networks.fingerprint",
    "load_discriminator": "formats.load_model",
    "load_generator": "formats.load_model",
    "load_model": "formats.load_model",
    "save_model": "model.native",
}
_MODULES = ("directions", "metrics", "ops", "training")

__all__ = [
    "ArgumentError",
    "DataError",
    "Direction",
    "DivergedError",
    "DownloadError",
    "Error",
    "FormatError",
    "Generator",
    "GeneratorConfig",
    "IncompatibleError",
    "Interrupted",
    "InversionOptions",
    "Latent",
    "Model",
    "NotFoundError",
    "OutputError",
    "Projector",
    "ProjectorSettings",
    "directions",
    "edit",
    "fingerprint",
    "interpolate",
    "invert",
    "load_direction",
    "load_discriminator",
    "load_generator",
    "load_image",
    "load_latent",
    "load_model",
    "metrics",
    "mix",
    "ops",
    "save_image",
    "save_latent",
    "save_model",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"latentedit.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"latentedit.{name}")
    raise AttributeError(f"module 'latentedit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
