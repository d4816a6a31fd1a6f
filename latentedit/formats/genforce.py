"""StyleGAN networks (2019) as genforce's PyTorch ports store them (``.pth``): InterFaceGAN's, and
its later code's."""

import math
import os
import re
from typing import Any

import torch
from torch import Tensor

from latentedit.errors import FormatError, complete
from latentedit.formats import missing
from latentedit.model.model import Model
from latentedit.model.weights import with_weights
from latentedit.networks.config import DEEPEST, LARGEST, width_options
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.networks.layers import LRELU_GAIN

AVERAGE = "truncation.w_avg"
FUSED_FROM = 128
"""Pixels from which the later code stores its upsampling layers in the fused form."""


def is_genforce(found: Any) -> bool:
    return isinstance(found, dict) and (
        "synthesis.layer0.first_layer" in found or "synthesis.layer0.const" in found
    )


def _under_older_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the names of genforce's later code (2020) as those of InterFaceGAN's (2019)."""
    if "synthesis.layer0.const" not in state:
        return state
    found = {}
    for name, tensor in state.items():
        for pattern, new in LATER_NAMES:
            name = re.sub(pattern, new, name)
        layer = re.fullmatch(r"synthesis\.layer(\d{1,2})\.conv\.weight", name)
        if layer and int(layer[1]) % 2 == 0 and 4 * 2 ** (int(layer[1]) // 2) >= FUSED_FROM:
            tensor = tensor.flip(2, 3)  # stored for a transposed convolution
        found[name] = tensor

    return found


LATER_NAMES = (
    (r"^(mapping\.dense\d+)\.weight$", r"\1.linear.weight"),
    (r"^(mapping\.dense\d+)\.bias$", r"\1.wscale.bias"),
    (r"^synthesis\.layer0\.const$", "synthesis.layer0.first_layer"),
    (r"^(synthesis\.layer\d+)\.weight$", r"\1.conv.weight"),
    (r"^(synthesis\.layer\d+)\.(bias|apply_noise\.\w+)$", r"\1.epilogue.\2"),
    (r"^(synthesis\.layer\d+)\.style\.weight$", r"\1.epilogue.style_mod.dense.linear.weight"),
    (r"^(synthesis\.layer\d+)\.style\.bias$", r"\1.epilogue.style_mod.dense.wscale.bias"),
    (r"^(synthesis\.output\d+)\.weight$", r"\1.conv.weight"),
    (r"^(synthesis\.layer\d+)\.(?:filter|blur)\.kernel$", r"\1.blur.kernel"),
)


def load_genforce(path: str | os.PathLike[str], state: dict[str, Any]) -> Model:
    """Return the generator in ``state``, the contents of such a file.

    Raises:
        Error: an incomplete network, or a variant that cannot be represented.
    """
    with complete(path, "generator"):
        state = _under_older_names(
            {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
        )
        if any("label" in name for name in state):
            raise FormatError(
                "a network with labels of this layout cannot be represented", path=path
            )
        generator = _generator(path, state)

    provenance: dict[str, Any] = {"layout": "genforce StyleGAN"}
    rows = state.get("truncation.truncation")
    if isinstance(rows, Tensor) and rows.numel() == generator.num_ws:
        psi = rows.flatten()
        used = int((psi != 1).sum())
        if used:
            provenance |= {"truncation_psi": round(float(psi[0]), 6), "truncation_cutoff": used}

    model = Model(generator, path=str(path), provenance=provenance)
    if AVERAGE not in state:
        missing.measure_average(generator)
        missing.tell(model, missing.AVERAGE)

    if "synthesis.lod" not in state:
        missing.tell(
            model, "the file does not say how far the network has grown; taken is all of it"
        )
    return model


def _generator(path: str | os.PathLike[str], state: dict[str, Tensor]) -> Generator:
    levels = sum(
        name.startswith("synthesis.output") and name.endswith(".conv.weight") for name in state
    )
    depth = sum(
        name.startswith("mapping.dense") and name.endswith("linear.weight") for name in state
    )
    if not 1 <= levels <= LARGEST.bit_length() or not 1 <= depth <= DEEPEST:
        raise FormatError(
            f"{levels} outputs and {depth} mapping layers are no network of this kind", path=path
        )

    resolution = 2 ** (levels + 1)
    widths = {
        4 * 2**index: state[f"synthesis.output{index}.conv.weight"].shape[1]
        for index in range(levels)
    }
    if f"synthesis.layer{2 * levels - 1}.epilogue.bias" not in state:
        raise FormatError(
            "only networks with an RGB output at every resolution can be represented", path=path
        )

    config = GeneratorConfig(
        resolution=resolution,
        channels=state["synthesis.output0.conv.weight"].shape[0],
        z_dim=state["mapping.dense0.linear.weight"].shape[1],
        w_dim=state[f"mapping.dense{depth - 1}.linear.weight"].shape[0],
        mapping_layers=depth,
        architecture="stylegan1",
        resample_filter=_taps(path, state),
        **width_options(widths),
    )
    ours = {
        "mapping.w_avg": state.get(
            AVERAGE, torch.zeros(len(state[f"mapping.dense{depth - 1}.linear.weight"]))
        ),
        "synthesis.lod": state.get("synthesis.lod", torch.zeros([])),
        "synthesis.b4.const": state["synthesis.layer0.first_layer"][0],
    }
    for layer in range(depth):
        ours[f"mapping.fc{layer}.weight"] = state[f"mapping.dense{layer}.linear.weight"]
        # Our layers multiply by sqrt(2) after the bias, theirs before it.
        ours[f"mapping.fc{layer}.bias"] = state[f"mapping.dense{layer}.wscale.bias"] / LRELU_GAIN

    for index, block in enumerate(config.block_resolutions):
        for number in (0, 1):
            here = f"synthesis.b{block}.conv{number}"
            there = f"synthesis.layer{2 * index + number}"
            if index or number:
                ours[f"{here}.weight"] = _weight(state, there)
            ours |= {
                f"{here}.bias": state[f"{there}.epilogue.bias"],
                f"{here}.noise_strength": state[f"{there}.epilogue.apply_noise.weight"],
                f"{here}.noise_const": state[f"{there}.epilogue.apply_noise.noise"][0, 0],
                f"{here}.affine.weight": state[f"{there}.epilogue.style_mod.dense.linear.weight"],
                f"{here}.affine.bias": state[f"{there}.epilogue.style_mod.dense.wscale.bias"],
            }
        for part, name in (("weight", "conv.weight"), ("bias", "bias")):
            ours[f"synthesis.b{block}.torgb.{part}"] = state[f"synthesis.output{index}.{name}"]

    return with_weights(Generator, config, ours, path)


def _weight(state: dict[str, Tensor], layer: str) -> Tensor:
    """Return ``[O, I, 3, 3]``; the fused form is stored as ``[3, 3, I, O]`` and turned by its
    transposed convolution."""
    if f"{layer}.conv.weight" in state:
        return state[f"{layer}.conv.weight"]
    return state[f"{layer}.weight"].permute(3, 2, 0, 1).flip(2, 3)


def _taps(path: str | os.PathLike[str], state: dict[str, Tensor]) -> tuple[float, ...]:
    """Return the taps of the blur, which must be the same in all layers."""
    kernels = [tensor[0, 0] for name, tensor in state.items() if name.endswith("blur.kernel")]
    if not kernels:
        return (1.0,)
    row = kernels[0].sum(dim=0)
    same = all(
        k.shape == kernels[0].shape
        and torch.allclose(k, torch.outer(row, row) / row.sum(), atol=1e-6)
        for k in kernels
    )
    if not same or not math.isclose(float(row.sum()), 1.0, abs_tol=1e-5):
        raise FormatError("layers blur in ways that cannot be represented", path=path)
    return tuple(round(float(tap), 6) for tap in row / row.abs().min())
