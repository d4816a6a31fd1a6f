"""Model files: a generator, its discriminator, encoder and provenance in one safetensors file
(docs/formats.md)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentedit.errors import ArgumentError, FormatError, IncompatibleError, NotFoundError, complete
from latentedit.inversion.encoder import Encoder, EncoderConfig
from latentedit.inversion.preconditioner import Curvature
from latentedit.io.header import MODEL
from latentedit.io.native_file import read_tensors, write_tensors
from latentedit.model.model import Model
from latentedit.model.weights import with_weights
from latentedit.networks.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    build_discriminator,
)
from latentedit.networks.fingerprint import fingerprint, fingerprint_in
from latentedit.networks.generator import Generator, GeneratorConfig

FORMAT, VERSION = MODEL


@torch.no_grad()
def round_to_half(model: Model) -> None:
    """Round the generator's convolutions and the whole discriminator, in place, to half precision.

    The fingerprint changes. These weights are nearly all of the bytes. The mapping and the styles
    of the generator are not rounded, because an error there changes the whole image.

    Raises:
        Error: a weight that is too large for half precision.
    """
    for prefix, network in _parts(model).items():
        for name, tensor in network.state_dict().items():
            if not _is_halved(f"{prefix}/{name}", tensor):
                continue
            if float(tensor.abs().max()) > torch.finfo(torch.float16).max:
                raise ArgumentError(
                    f"tensor {name} reaches {float(tensor.abs().max()):.3g}, too large for half "
                    "precision"
                )
            tensor.copy_(tensor.half())


def _is_halved(name: str, tensor: Tensor) -> bool:
    """Return whether a file in half precision stores the tensor ``name`` (with its prefix) in half
    precision."""
    return tensor.ndim == 4 or name.startswith("d/")


def _parts(model: Model) -> dict[str, nn.Module]:
    """Return the networks of ``model`` without its encoder, by the prefix of their tensors."""
    parts = {"g_ema": model.generator, "g": model.raw_generator, "d": model.discriminator}
    return {prefix: network for prefix, network in parts.items() if network is not None}


def save_model(path: str | os.PathLike[str], model: Model, *, half: bool = False) -> None:
    """Write ``model`` as a native file, atomically.

    Args:
        half: store most weights in half precision. They must be rounded before (`round_to_half`),
            so that the file contains exactly the generator of its fingerprint.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, network in _parts(model).items():
        tensors.update(
            {f"{prefix}/{name}": tensor for name, tensor in network.state_dict().items()}
        )

    if half:
        tensors = {
            name: tensor.half() if _is_halved(name, tensor) else tensor
            for name, tensor in tensors.items()
        }

    tensors |= _encoder_tensors(model)
    header: dict[str, Any] = {
        "generator": model.generator.config.as_dict(),
        "discriminator": model.discriminator.config.as_dict() if model.discriminator else None,
        "encoder": model.encoder.config.as_dict() if isinstance(model.encoder, Encoder) else None,
        "fingerprint": fingerprint(model.generator),
        "framing": model.framing,
        "provenance": model.provenance,
    }
    write_tensors(path, FORMAT, VERSION, header, tensors)


def _encoder_tensors(model: Model) -> dict[str, Tensor]:
    """Return the encoder's tensors in half precision, which does not affect inversions."""
    if not isinstance(model.encoder, Encoder):  # the published ones stay in files of their own
        return {}
    tensors = {f"e/{name}": tensor.half() for name, tensor in model.encoder.state_dict().items()}
    return tensors | ({"e/curvature": model.curvature.factors.half()} if model.curvature else {})


def save_encoder(path: str | os.PathLike[str], model: Model, provenance: Mapping[str, Any]) -> None:
    """Write only the encoder of ``model``; it is found automatically as NAME.encoder.safetensors
    next to the model's file."""
    assert model.encoder is not None
    header = {
        "generator": None,
        "encoder": model.encoder.config.as_dict(),
        "fingerprint": fingerprint(model.generator),
        "provenance": provenance,
    }
    write_tensors(path, FORMAT, VERSION, header, _encoder_tensors(model))


def load_encoder(path: str | os.PathLike[str], model: Model) -> None:
    """Load the encoder in a file into ``model``.

    Raises:
        Error: the file has no encoder, or the encoder belongs to another generator.
    """
    header, tensors = read_tensors(path, FORMAT, VERSION)
    if not header.get("encoder"):
        raise NotFoundError("this model file has no encoder", path=path)
    own = fingerprint(model.generator)
    if header.get("fingerprint") != own:
        found = fingerprint_in(path, header)
        reason = f"this encoder belongs to the generator {found[:12]}, the model is {own[:12]}"
        raise IncompatibleError(reason, path=path, expected=found, actual=own)

    with complete(path, "model"):
        _take_encoder(model, header, tensors, path)


def _take_encoder(
    model: Model, header: dict[str, Any], tensors: dict[str, Tensor], path: str | os.PathLike[str]
) -> None:
    parts = _part(tensors, "e/")
    factors = parts.pop("curvature", None)
    config = EncoderConfig(**_options(header, "encoder"))
    generator = model.generator
    sizes = (generator.resolution, generator.channels, generator.num_ws, generator.w_dim)
    if (config.resolution, config.channels, config.num_ws, config.w_dim) != sizes:
        raise IncompatibleError("the encoder does not fit the generator", path=path)

    model.encoder = with_weights(Encoder, config, parts, path)
    if factors is not None:
        if (
            factors.ndim != 3
            or factors.shape[1:] != sizes[2:]
            or not bool(factors.isfinite().all())
        ):
            raise IncompatibleError("the curvature does not fit the generator", path=path)
        model.curvature = Curvature(factors.float())


def build_native(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    if header.get("generator") is None and header.get("encoder"):
        raise FormatError(
            "contains only an encoder, not a model", path=path, advice="give it with `encoder`"
        )

    with complete(path, "model"):
        generator = with_weights(
            Generator,
            GeneratorConfig(**_options(header, "generator")),
            _part(tensors, "g_ema/"),
            path,
        )
        raw: Generator | None = None
        if any(name.startswith("g/") for name in tensors):
            raw = with_weights(Generator, generator.config, _part(tensors, "g/"), path)
        discriminator: Discriminator | None = None
        if header.get("discriminator"):
            config = DiscriminatorConfig(**_options(header, "discriminator"))
            discriminator = with_weights(build_discriminator, config, _part(tensors, "d/"), path)
        model = Model(
            generator,
            discriminator,
            header.get("framing"),
            header.get("provenance") or {},
            str(path),
            raw,
        )
        if header.get("encoder"):
            _take_encoder(model, header, tensors, path)

    return model


def _options(header: Mapping[str, Any], name: str) -> dict[str, Any]:
    options = header.get(name)
    if not isinstance(options, dict):
        raise FormatError.of(f"the header's {name}", "an object", options)
    return options


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }
