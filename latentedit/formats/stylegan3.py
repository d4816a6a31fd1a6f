"""StyleGAN3 generators of NVIDIA's, from pickles and from ``state_dict``s under their names."""

import math
import os
import re
from typing import Any

from torch import Tensor

from latentedit.errors import FormatError
from latentedit.formats.pickle_allow_list import Held, Record
from latentedit.formats.records import number, record_tensors, side, whole
from latentedit.model.weights import with_weights
from latentedit.networks.alias_free import FilteredLayer, filtered_layers
from latentedit.networks.config import AliasFree, GeneratorConfig
from latentedit.networks.generator import Generator

SAME = 1e-6
"""Largest difference between a recorded filter and the one that follows from the design, relative
to its largest tap."""


def stylegan3_generator(record: Record, path: str | os.PathLike[str]) -> Generator:
    """Return the generator that ``record`` is.

    Raises:
        Error: layers that do not follow from the design in `latentedit.networks.alias_free`, or
            filters of another design.
    """
    synthesis = record["_modules"]["synthesis"]
    mapping = record["_modules"]["mapping"]
    modules = synthesis["_modules"]
    names = [
        name
        for name in modules
        if isinstance(name, str) and re.fullmatch(r"L\d{1,3}_\d{1,5}_\d{1,5}", name)
    ]
    first = modules[names[0]]
    given = synthesis.get("_init_kwargs") or {}
    upsampled = [
        layer for layer in (modules[name] for name in names) if whole(layer["up_factor"]) > 1
    ]
    taps = (
        whole(upsampled[0]["up_taps"]) // whole(upsampled[0]["up_factor"])
        if upsampled
        else AliasFree.taps
    )
    rate = max(whole(first["in_sampling_rate"]), whole(first["out_sampling_rate"]))
    config = GeneratorConfig(
        resolution=whole(synthesis["img_resolution"]),
        channels=whole(synthesis["img_channels"]),
        z_dim=whole(mapping["z_dim"]),
        w_dim=whole(mapping["w_dim"]),
        c_dim=whole(mapping["c_dim"]),
        mapping_layers=whole(mapping["num_layers"]),
        mapping_lr_multiplier=number(mapping["_modules"]["fc0"]["bias_gain"]),
        channel_base=whole(given.get("channel_base", 32768)),
        channel_max=whole(given.get("channel_max", 512)),
        architecture="stylegan3",
        conv_clamp=None if first["conv_clamp"] is None else number(first["conv_clamp"]),
        alias_free=AliasFree(
            layers=whole(synthesis["num_layers"]),
            critical=whole(synthesis["num_critical"]),
            first_cutoff=number(first["in_cutoff"]),
            first_stopband=number(given.get("first_stopband", AliasFree.first_stopband)),
            last_stopband=number(given.get("last_stopband_rel", AliasFree.last_stopband)),
            margin=whole(synthesis["margin_size"]),
            kernel=whole(first["conv_kernel"]),
            radial=any(bool(modules[name]["down_radial"]) for name in names),
            taps=taps,
            oversampling=whole(first["tmp_sampling_rate"]) // max(rate, 1),
            output_scale=number(synthesis["output_scale"]),
        ),
    )
    designs = filtered_layers(config)
    if names != [design.name for design in designs]:
        raise FormatError(
            "a StyleGAN3 generator with other layers than its sizes lead to; it cannot be "
            "represented",
            path=path,
        )

    for design in designs:
        _check_layer(modules[design.name], design, config, path)
    return with_weights(Generator, config, without_filters(record_tensors(record)), path)


def _check_layer(
    layer: Record, design: FilteredLayer, config: GeneratorConfig, path: str | os.PathLike[str]
) -> None:
    """Raise `Error` unless what is recorded of a layer is what its design leads to."""
    recorded = {
        "in_size": side(layer["in_size"]),
        "out_size": side(layer["out_size"]),
        "up_factor": whole(layer["up_factor"]),
        "down_factor": whole(layer["down_factor"]),
        "conv_kernel": whole(layer["conv_kernel"]),
        "padding": tuple(whole(value) for value in layer["padding"]),
        "conv_clamp": layer["conv_clamp"]
        if layer["conv_clamp"] is None
        else number(layer["conv_clamp"]),
    }
    expected = {
        "in_size": design.in_size,
        "out_size": design.out_size,
        "up_factor": design.up,
        "down_factor": design.down,
        "conv_kernel": design.kernel,
        "padding": design.padding * 2,
        "conv_clamp": config.conv_clamp,
    }
    for name, value in expected.items():
        if recorded[name] != value:
            raise FormatError(
                f"layer {design.name} has another {name} than its design leads to; it cannot be "
                "represented",
                path=path,
            )

    for name, own in (("up_filter", design.up_filter()), ("down_filter", design.down_filter())):
        held = layer["_buffers"].get(name)
        _check_filter(
            held.value if isinstance(held, Held) else None, own, f"{design.name}.{name}", path
        )


def _check_filter(found: Any, own: Tensor | None, name: str, path: str | os.PathLike[str]) -> None:
    same = (found is None) == (own is None)
    if same and own is not None:
        same = found.shape == own.shape and bool(
            (found.float() - own).abs().max() <= SAME * own.abs().max()
        )

    if not same:
        raise FormatError(
            f"{name} is another filter than the published design; it cannot be represented",
            path=path,
        )


def without_filters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.endswith(("up_filter", "down_filter"))
    }


def options_of(path: str | os.PathLike[str], state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the options of a `GeneratorConfig` for a ``state_dict`` of a network of the published
    design (T or R).

    Raises:
        Error: names of layers that no network of that design has.
    """
    layers = [
        re.fullmatch(r"synthesis\.(L(\d{1,3})_(\d{1,5})_(\d{1,5}))\.weight", name) for name in state
    ]
    found = sorted(
        (int(match[2]), match[1], int(match[3]), int(match[4])) for match in layers if match
    )
    resolution = found[-2][2]
    width = found[-2][3]
    first = state[f"synthesis.{found[0][1]}.weight"]
    mapping = state["mapping.fc0.weight"]
    c_dim = state["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in state else 0
    down = state.get(f"synthesis.{found[0][1]}.down_filter")
    options: dict[str, Any] = {
        "resolution": resolution,
        "channels": found[-1][3],
        "z_dim": mapping.shape[1] - (mapping.shape[0] if c_dim else 0),
        "w_dim": mapping.shape[0],
        "c_dim": c_dim,
        "mapping_layers": sum(
            bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state
        ),
        # The last filtered layer has a cutoff of half the resolution, and no more maps than any
        # other.
        "channel_base": width * resolution,
        "channel_max": max(entry[3] for entry in found),
        "architecture": "stylegan3",
        "conv_clamp": 256,
        "alias_free": {
            "layers": len(found) - 1,
            "margin": (found[0][2] - 2 ** int(math.log2(found[0][2]))) // 2,
            "kernel": first.shape[2],
            "radial": first.shape[2] == 1 if down is None else down.ndim == 2,
        },
    }
    if [design.name for design in filtered_layers(GeneratorConfig(**options))] != [
        entry[1] for entry in found
    ]:
        raise FormatError(
            "the layers of this StyleGAN3 do not follow the published design, and nothing in the "
            "file says which",
            path=path,
        )
    return options


def is_stylegan3(state: Any) -> bool:
    """Return whether ``state`` is the ``state_dict`` of a StyleGAN3 generator under NVIDIA's
    names."""
    return isinstance(state, dict) and {"synthesis.input.freqs", "mapping.fc0.weight"} <= set(state)
