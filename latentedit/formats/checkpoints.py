"""Files of weights (``.pt``, ``.pth``): whose layout one has, and the plain layout under NVIDIA's
parameter names.

They are read by `latentedit.io.torch_files`, which executes nothing from them.
"""

import io
import os
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from latentedit.errors import FormatError, IncompatibleError, complete, listed
from latentedit.formats import missing
from latentedit.formats.published_encoders import decoder_of, is_published, published_encoder
from latentedit.formats.stylegan3 import is_stylegan3, options_of
from latentedit.io.files import write_bytes
from latentedit.io.torch_files import read_state
from latentedit.model.model import Model
from latentedit.model.weights import with_weights
from latentedit.networks.config import LARGEST, sides_of, width_options
from latentedit.networks.discriminator import DiscriminatorConfig, build_discriminator
from latentedit.networks.generator import Generator, GeneratorConfig

FILTERS = ("resample_filter", "up_filter", "down_filter")
UNSAID = (
    "the file does not contain clamping, mapping learning rate and discriminator groups; the usual "
    "values are used"
)


def load_checkpoint(path: str | os.PathLike[str]) -> Model:
    """Return a ``.pt`` or ``.pth`` in one of the layouts that are known: rosinality's, genforce's,
    NVIDIA's names, or a published encoder with its decoder.

    Raises:
        Error: another layout (lucidrains' by name), or an architecture that cannot be represented.
    """
    from latentedit.formats.genforce import is_genforce, load_genforce
    from latentedit.formats.rosinality import load_rosinality

    found = unwrapped(read_state(path))
    if "GAN" in found or "version" in found:
        raise FormatError(
            "a checkpoint of lucidrains' stylegan2_pytorch, whose networks are of another "
            "architecture (no weights in"
            " common with the published StyleGAN2) and cannot be represented",
            path=path,
        )
    if is_published(found):
        return _load_with_encoder(path, found)

    # Training checkpoints of genforce hold the average and the raw generator.
    parts = {
        name: found[name]
        for name in ("generator_smooth", "generator")
        if is_genforce(found.get(name))
    }
    if parts:  # as genforce's own training writes it
        model = load_genforce(path, next(iter(parts.values())))
        if len(parts) == 2:
            model.raw_generator = load_genforce(path, parts["generator"]).generator
        return model

    if is_genforce(found):
        return load_genforce(path, found)
    if is_plain(found):
        return load_plain(path, {"G_ema": found})
    # Layouts are told by the names of tensors, as all of these files end in .pt or .pth.
    if is_plain(found.get("G_ema")) or is_plain(found.get("G")):
        return load_plain(path, found)
    return load_rosinality(path, found)


def _load_with_encoder(path: str | os.PathLike[str], found: dict[str, Any]) -> Model:
    """Return the decoder of a published encoder, which is a network in rosinality's layout, with
    the encoder."""
    from latentedit.formats.rosinality import load_rosinality

    decoder = decoder_of(found)
    if decoder is None:
        raise FormatError(
            "an encoder without its decoder; name the StyleGAN2 network it was trained for as "
            "the model, and this file as the"
            " encoder",
            path=path,
        )

    model = load_rosinality(path, decoder)
    model.encoder = published_encoder(path, found, model.generator.mapping.w_avg)
    model.provenance = {"layout": f"{model.encoder.config.kind} encoder with its decoder"}
    return model


def load_published_encoder(path: str | os.PathLike[str], model: Model) -> None:
    """Load the encoder of a published checkpoint into ``model``; the decoder beside it, if any, is
    left alone.

    Raises:
        Error: another kind of file, or an encoder for a network of another size.
    """
    found = unwrapped(read_state(path))
    if not is_published(found):
        raise FormatError(
            "expected a state_dict with encoder.*, as e4e, pSp and ReStyle have; found "
            f"{listed(found)}",
            path=path,
        )

    generator = model.generator
    encoder = published_encoder(path, found, generator.mapping.w_avg.cpu())
    # The file does not name its network, so that sizes are all that can be compared.
    expected, actual = (generator.num_ws, generator.w_dim), tuple(encoder.latent_avg.shape)

    if actual != expected:
        reason = (
            f"this encoder predicts {actual[0]} x {actual[1]} numbers, the generator takes "
            f"{expected[0]} x {expected[1]}"
        )
        raise IncompatibleError(reason, path=path, expected=expected, actual=actual)

    model.encoder = encoder.eval().requires_grad_(False).to(generator.device)


WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before the name of every tensor."""


def unwrapped(found: dict[str, Any]) -> dict[str, Any]:
    """Return ``found`` without the wrappers' prefixes, in it and in the dictionaries one level
    down."""
    inside = {
        name: _bare(value) if isinstance(value, dict) else value for name, value in found.items()
    }
    return _bare(inside)


def _bare(state: dict[Any, Any]) -> dict[Any, Any]:
    for prefix in (*WRAPPERS, *WRAPPERS):  # the one within the other, too
        if state and all(isinstance(name, str) and name.startswith(prefix) for name in state):
            bare = {name.removeprefix(prefix): value for name, value in state.items()}
            state = _like(state, bare)
    return state


def _like(state: dict[Any, Any], bare: dict[Any, Any]) -> dict[Any, Any]:
    """Return ``bare`` with what torch keeps beside a ``state_dict``, where `save_plain` puts the
    architecture."""
    metadata = getattr(state, "_metadata", None)
    if metadata is None:
        return bare
    kept = OrderedDict(bare)
    kept._metadata = metadata  # type: ignore[attr-defined]
    return kept


def save_plain(path: str | os.PathLike[str], model: Model) -> None:
    """Write the networks' ``state_dict``s (``G_ema``, ``G``, ``D``) under NVIDIA's parameter names
    as a ``.pt``.

    The metadata that torch keeps with a ``state_dict`` get the architecture as plain values, so
    that variants that shapes do not tell are read again exactly.
    """
    parts = {"G_ema": model.generator, "G": model.raw_generator, "D": model.discriminator}
    document: dict[str, Any] = {}
    for name, network in parts.items():
        if network is not None:
            document[name] = network.state_dict()
            options = network.config.as_dict().items()
            # There torch's own loader leaves it alone, so that other tools still read the file.
            document[name]._metadata[""]["config"] = {
                k: list(v) if isinstance(v, tuple) else v for k, v in options
            }

    buffer = io.BytesIO()
    torch.save(document, buffer)
    write_bytes(path, buffer.getvalue())


def is_plain(state: Any) -> bool:
    """Return whether ``state`` is the ``state_dict`` of a generator under NVIDIA's names."""
    stylegan2 = isinstance(state, dict) and {"synthesis.b4.const", "mapping.fc0.weight"} <= set(
        state
    )
    return stylegan2 or is_stylegan3(state)


def load_plain(path: str | os.PathLike[str], found: dict[str, Any]) -> Model:
    """Return the networks of ``{"G_ema": state_dict, "G": ..., "D": ...}``.

    Where `save_plain` has not written it, the architecture is taken from the shapes, and what they
    do not tell (clamping, the mapping's learning rate) is as published.

    Raises:
        Error: tensors that do not make up a network that can be represented.
    """
    with complete(path, "network"):
        generators = {}
        notes = []
        for name in ("G_ema", "G"):
            if isinstance(found.get(name), dict):
                state = _weights(found[name])
                options = _recorded(found[name])
                if not options:
                    known = (
                        options_of(path, found[name])
                        if is_stylegan3(state)
                        else _generator_options(state)
                    )
                    options = known | _taps(path, found[name])
                    notes.append(UNSAID)

                config = GeneratorConfig(**options)
                averaged = "mapping.w_avg" in state
                if not averaged:
                    state["mapping.w_avg"] = torch.zeros(config.w_dim)
                generators[name] = with_weights(Generator, config, state, path)
                if not averaged:
                    missing.measure_average(generators[name])
                    notes.append(missing.AVERAGE)

        if "G_ema" not in generators:
            generators["G_ema"] = generators.pop("G")
        model = Model(
            generators["G_ema"],
            path=str(path),
            provenance={"layout": "weights under NVIDIA's names"},
        )
        model.raw_generator = generators.get("G")
        for note in notes:
            missing.tell(model, note)
        square = model.generator.config.is_square
        if isinstance(found.get("D"), dict) and not square:
            missing.tell(model, missing.NO_DISCRIMINATOR)
        elif isinstance(found.get("D"), dict):
            state = _weights(found["D"])
            options = _recorded(found["D"]) or _discriminator_options(
                state, generators["G_ema"].config
            )
            model.discriminator = with_weights(
                build_discriminator, DiscriminatorConfig(**options), state, path
            )

    return model


def _recorded(state: Any) -> dict[str, Any]:
    """Return the architecture that `save_plain` put beside the tensors."""
    metadata = getattr(state, "_metadata", None)
    root = metadata.get("") if isinstance(metadata, dict) else None
    config = root.get("config") if isinstance(root, dict) else None
    return (
        {name: value for name, value in config.items() if isinstance(name, str)}
        if isinstance(config, dict)
        else {}
    )


def _weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors without the filters, which NVIDIA's code lists among the buffers."""
    tensors = {
        name: tensor
        for name, tensor in state.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(FILTERS)}


def _taps(path: str | os.PathLike[str], state: dict[str, Any]) -> dict[str, Any]:
    """Return the option for the resampling filter that NVIDIA's code lists among the buffers; none
    where it is not there.

    Raises:
        Error: layers with different filters, or one that is not separable.
    """
    filters = [tensor.float() for name, tensor in state.items() if name.endswith("resample_filter")]
    if not filters:
        return {}
    first = filters[0]
    # A separable filter is the outer product of its row sums, up to their total.
    row = first if first.ndim == 1 else first.sum(dim=0)
    separable = first.ndim == 1 or torch.allclose(
        first, torch.outer(row, row) / row.sum(), atol=1e-6
    )
    if not separable or any(
        filter.shape != first.shape or not torch.equal(filter, first) for filter in filters
    ):
        raise FormatError(
            "its resampling filters are not separable, or differ; cannot be represented", path=path
        )
    return {"resample_filter": tuple(round(float(tap), 6) for tap in row / row.abs().min())}


def _resolutions(state: dict[str, Tensor], prefix: str) -> list[int]:
    names = {
        name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(f"{prefix}b")
    }
    # Longer numbers are no resolutions, and might be anything.
    found = sorted(
        int(name[1:])
        for name in names
        if name[1:].isdecimal() and len(name) <= 1 + len(str(LARGEST))
    )
    if not found:
        raise FormatError("no blocks of any resolution")
    return found


def _generator_options(state: dict[str, Tensor]) -> dict[str, Any]:
    sizes = _resolutions(state, "synthesis.")
    finest = sizes[-1]
    first = state["mapping.fc0.weight"]
    depth = sum(name.startswith("mapping.fc") for name in state) // 2
    w_dim = first.shape[0]
    c_dim = state["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in state else 0
    # Only "skip" has a ToRGB at 4 px, only "resnet" has skip convolutions, only the first StyleGAN
    # has two layers at 4 px.
    architecture = "skip" if "synthesis.b4.torgb.weight" in state else "orig"
    if f"synthesis.b{finest}.skip.weight" in state:
        architecture = "resnet"
    if "synthesis.b4.conv0.bias" in state:
        architecture = "stylegan1"
    return {
        "resolution": finest,
        "channels": state[f"synthesis.b{finest}.torgb.weight"].shape[0],
        "z_dim": first.shape[1] - (w_dim if c_dim else 0),
        "w_dim": w_dim,
        "c_dim": c_dim,
        "mapping_layers": depth,
        "architecture": architecture,
        "first_size": sides_of(state["synthesis.b4.const"]),
        **width_options({r: len(state[f"synthesis.b{r}.conv1.bias"]) for r in sizes}),
    }


def _discriminator_options(state: dict[str, Tensor], generator: GeneratorConfig) -> dict[str, Any]:
    sizes = _resolutions(state, "")
    finest = sizes[-1]
    half = sizes[-1] // 2
    widths = {r: len(state[f"b{r}.conv0.bias"]) for r in sizes if r > 4}
    widths[4] = len(state["b4.conv.bias"])
    architecture = "resnet" if f"b{finest}.skip.weight" in state else "orig"
    if f"b{half}.fromrgb.weight" in state:
        architecture = "stylegan1" if generator.architecture == "stylegan1" else "skip"
    labels = "mapping.embed.weight" in state
    return {
        "resolution": finest,
        "channels": state[f"b{finest}.fromrgb.weight"].shape[1],
        "c_dim": state["mapping.embed.weight"].shape[1] if labels else 0,
        "architecture": architecture,
        "mbstd_channels": state["b4.conv.weight"].shape[1] - widths[4],
        "cmap_dim": state["mapping.fc0.weight"].shape[0] if labels else 0,
        "mapping_layers": sum(name.startswith("mapping.fc") for name in state) // 2 or 8,
        **width_options(widths),
    }
