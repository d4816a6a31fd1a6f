"""Latent-space editing and inversion with StyleGAN2: invert photos, move attribute sliders, find
new directions.

The public names load on first use, so that ``import latentedit`` (and ``latentedit --help``) do not
import torch.
"""

from typing import TYPE_CHECKING, Any

import lazy_loader

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
    from latentedit.inversion.projector import Projector
    from latentedit.io.images import load_image, save_image
    from latentedit.latent.dragging import DragOptions, Handle, drag
    from latentedit.latent.editing import edit, interpolate, mix
    from latentedit.latent.latent_file import Latent, save_latent
    from latentedit.model.model import Model
    from latentedit.model.native import save_model
    from latentedit.networks.fingerprint import fingerprint
    from latentedit.networks.generator import Generator, GeneratorConfig
    from latentedit.notebook import Face, Photo, invert

    __version__: str

_ATTRIBUTES = {
    "directions": ["Direction", "load_direction"],
    "formats.load_latent": ["load_latent"],
    "formats.load_model": ["load_discriminator", "load_generator", "load_model"],
    "inversion.options": ["InversionOptions", "ProjectorSettings"],
    "inversion.projector": ["Projector"],
    "io.images": ["load_image", "save_image"],
    "latent.dragging": ["DragOptions", "Handle", "drag"],
    "latent.editing": ["edit", "interpolate", "mix"],
    "latent.latent_file": ["Latent", "save_latent"],
    "model.model": ["Model"],
    "model.native": ["save_model"],
    "networks.fingerprint": ["fingerprint"],
    "networks.generator": ["Generator", "GeneratorConfig"],
    "notebook": ["Face", "Photo", "invert"],
}

__all__ = [
    "ArgumentError",
    "DataError",
    "Direction",
    "DivergedError",
    "DownloadError",
    "DragOptions",
    "Error",
    "Face",
    "FormatError",
    "Generator",
    "GeneratorConfig",
    "Handle",
    "IncompatibleError",
    "Interrupted",
    "InversionOptions",
    "Latent",
    "Model",
    "NotFoundError",
    "OutputError",
    "Photo",
    "Projector",
    "ProjectorSettings",
    "directions",
    "drag",
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

_load, _, _ = lazy_loader.attach(
    __name__, ["directions", "metrics", "ops", "training"], _ATTRIBUTES
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("latentedit")
    return _load(name)


def __dir__() -> list[str]:
    return __all__
