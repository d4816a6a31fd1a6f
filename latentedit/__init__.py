"""Latent-space editing and inversion with StyleGAN2: invert photos, move attribute sliders, find new directions.

The public names load on first use, so that ``import latentedit`` (and ``latentedit --help``) do not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from latentedit.errors import Error

if TYPE_CHECKING:
    from latentedit import directions, metrics, ops, training
    from latentedit.directions import Direction, load_direction
    from latentedit.editing import edit, interpolate, mix
    from latentedit.generator import Generator, GeneratorConfig
    from latentedit.images import load_image, save_image
    from latentedit.inversion import invert
    from latentedit.latents import Latent, load_latent, save_latent
    from latentedit.models import Model, fingerprint, load_discriminator, load_generator, load_model, save_model

_HOMES = {
    "Direction": "directions",
    "load_direction": "directions",
    "edit": "editing",
    "interpolate": "editing",
    "mix": "editing",
    "Generator": "generator",
    "GeneratorConfig": "generator",
    "load_image": "images",
    "save_image": "images",
    "invert": "inversion",
    "Latent": "latents",
    "load_latent": "latents",
    "save_latent": "latents",
    "Model": "models",
    "fingerprint": "models",
    "load_discriminator": "models",
    "load_generator": "models",
    "load_model": "models",
    "save_model": "models",
}
_MODULES = ("directions", "metrics", "ops", "training")

__all__ = [
    "Direction",
    "Error",
    "Generator",
    "GeneratorConfig",
    "Latent",
    "Model",
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
