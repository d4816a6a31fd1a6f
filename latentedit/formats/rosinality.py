"""Checkpoints in the layout of rosinality's StyleGAN2 (``.pt``), read and written.

The networks are the same; names and a few shapes differ, and the architecture has to be inferred
from the shapes.
"""

import io
import math
import os
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from latentedit.errors import FormatError, IncompatibleError, complete, listed, quoted, shown
from latentedit.formats import missing
from latentedit.formats.clamping import Progress, clamp_effects, effect_line
from latentedit.io.files import write_bytes
from latentedit.model.model import Model
from latentedit.model.weights import with_weights
from latentedit.networks.config import DEEPEST, LARGEST, sides_of, width_options
from latentedit.networks.discriminator import Discriminator, DiscriminatorConfig
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.ops import fir_filter

RESAMPLE = (1, 3, 3, 1)


def load_rosinality(path: str | os.PathLike[str], found: dict[str, Any]) -> Model:
    """Return the checkpoint ``found`` in the file ``path`` as a `Model`: ``g_ema``, and ``g`` and
    ``d`` where they are there.

    Raises:
        Error: another kind of checkpoint, or an architecture that cannot be represented.
    """
    state = found.get("g_ema")
    if not _is_generator(state):
        raise FormatError(
            "expected a checkpoint of rosinality's (with a g_ema), of genforce's StyleGAN or of "
            "plain weights;"
            f" it has {listed(found)}",
            path=path,
        )

    assert isinstance(state, dict)
    config = _generator_config(path, state)

    # The mean w is beside the network there, and not in it.
    average = found.get("latent_avg")
    if not isinstance(average, Tensor | None):
        raise FormatError(f"expected latent_avg to be a tensor, found {quoted(average)}", path=path)

    model = Model(
        _generator(path, state, config, average),
        path=str(path),
        provenance={"layout": "rosinality"},
    )
    if _is_generator(found.get("g")):
        model.raw_generator = _generator(path, found["g"], config, average)

    if average is None:
        missing.tell(model, missing.AVERAGE)

    if not _has_noise(state):
        missing.tell(model, missing.NOISE)

    if isinstance(found.get("d"), dict):
        if config.is_square:
            model.discriminator = _discriminator(path, found["d"], config)
        else:
            missing.tell(model, missing.NO_DISCRIMINATOR)
    return model


def save_rosinality(
    path: str | os.PathLike[str], model: Model, progress: Progress | None = None
) -> list[str]:
    """Write ``model`` as a checkpoint of that layout; reading it again keeps the fingerprint.

    The layout has no clamp of activations. A clamp is left out, and what that changes is measured
    on random images.

    Args:
        progress: called while this is measured, with the number of images done and their total
            number.

    Returns:
        What was left out, a line each: clamps, a discriminator that the layout cannot hold.

    Raises:
        Error: a network that the layout cannot hold (labels, variants other than the usual, grey
            pictures).
    """
    config = model.generator.config
    for wrong, what in (
        (config.c_dim, "labels"),
        (config.architecture != "skip", f"the {config.architecture!r} variant"),
        (config.channels != 3, f"{config.channels} channels"),
        (config.z_dim != config.w_dim, "a z of another width than w"),
        (tuple(config.resample_filter) != RESAMPLE, "another resampling filter"),
        (
            config.mapping_lr_multiplier != 0.01,
            f"a mapping with the learning rate multiplier {config.mapping_lr_multiplier}",
        ),
    ):
        if wrong:
            raise IncompatibleError(f"rosinality's layout has no place for {what}")

    document: dict[str, Any] = {
        "g_ema": _rename_generator(model.generator),
        "latent_avg": model.generator.mapping.w_avg.clone(),
    }
    if model.raw_generator is not None:
        document["g"] = _rename_generator(model.raw_generator)

    left_out = []
    kept = model
    if model.discriminator is not None:
        d = replace(model.discriminator.config, conv_clamp=None)
        expected = _discriminator_config(config)
        if d == expected:
            document["d"] = _rename_discriminator(model.discriminator)
        else:
            ours = d.as_dict()
            theirs = expected.as_dict()
            different = ", ".join(name for name in ours if ours[name] != theirs[name])
            left_out.append(f"the discriminator, as the layout has no place for its {different}")
            kept = replace(model, discriminator=None)

    effect, effect_d = clamp_effects(kept, progress)
    if effect_d:
        left_out.insert(0, effect_line(effect_d, "the discriminator's activations", "logits"))
    if effect:
        left_out.insert(0, effect_line(effect, "the activations", "grey levels", 127.5))

    buffer = io.BytesIO()
    torch.save(document, buffer)
    write_bytes(path, buffer.getvalue())
    return left_out


def _is_generator(state: Any) -> bool:
    return isinstance(state, dict) and {
        "input.input",
        "conv1.conv.weight",
        "style.1.weight",
    } <= set(state)


def _has_noise(state: dict[str, Tensor]) -> bool:
    return any(name.startswith("noises.") for name in state)


def _generator_config(path: str | os.PathLike[str], state: dict[str, Tensor]) -> GeneratorConfig:
    with complete(path, "generator"):
        depth = sum(name.startswith("style.") and name.endswith(".weight") for name in state)
        blocks = (
            sum(name.startswith("convs.") and name.endswith(".conv.weight") for name in state) // 2
        )
        if blocks > LARGEST.bit_length() or depth > DEEPEST:
            raise FormatError(
                f"{blocks} blocks and {depth} mapping layers are no network of this kind", path=path
            )

        resolution = 4 * 2**blocks
        widths = {4: state["conv1.conv.weight"].shape[1]}
        for index in range(int(math.log2(resolution)) - 2):
            widths[8 * 2**index] = state[f"convs.{2 * index + 1}.conv.weight"].shape[1]
        w_dim, z_dim = state["style.1.weight"].shape
        return GeneratorConfig(
            resolution=resolution,
            channels=state["to_rgb1.conv.weight"].shape[1],
            z_dim=z_dim,
            w_dim=w_dim,
            mapping_layers=depth,
            first_size=sides_of(state["input.input"]),
            **width_options(widths),
        )


def _layers(resolution: int) -> list[tuple[str, str]]:
    """(ours, theirs) for every modulated convolution, without ToRGB."""
    pairs = [("synthesis.b4.conv1", "conv1")]
    for index in range(int(math.log2(resolution)) - 2):
        pairs += [(f"synthesis.b{8 * 2**index}.conv{i}", f"convs.{2 * index + i}") for i in (0, 1)]
    return pairs


def _generator_names(config: GeneratorConfig) -> dict[str, str]:
    """Our names to theirs."""
    names = {"synthesis.b4.const": "input.input"}
    for layer in range(config.mapping_layers):
        for part in ("weight", "bias"):
            names[f"mapping.fc{layer}.{part}"] = f"style.{layer + 1}.{part}"

    for index, (ours, theirs) in enumerate(_layers(config.resolution)):
        names |= {
            f"{ours}.weight": f"{theirs}.conv.weight",
            f"{ours}.affine.weight": f"{theirs}.conv.modulation.weight",
            f"{ours}.affine.bias": f"{theirs}.conv.modulation.bias",
            f"{ours}.noise_strength": f"{theirs}.noise.weight",
            f"{ours}.bias": f"{theirs}.activate.bias",
            f"{ours}.noise_const": f"noises.noise_{index}",
        }

    for index, resolution in enumerate(config.block_resolutions):
        ours = f"synthesis.b{resolution}.torgb"
        theirs = "to_rgb1" if index == 0 else f"to_rgbs.{index - 1}"
        names |= {
            f"{ours}.weight": f"{theirs}.conv.weight",
            f"{ours}.bias": f"{theirs}.bias",
            f"{ours}.affine.weight": f"{theirs}.conv.modulation.weight",
            f"{ours}.affine.bias": f"{theirs}.conv.modulation.bias",
        }

    return names


def _discriminator_names(config: DiscriminatorConfig) -> dict[str, str]:
    names = {"fromrgb.weight": "convs.0.0.weight", "fromrgb.bias": "convs.0.1.bias"}
    names = {f"b{config.resolution}.{ours}": theirs for ours, theirs in names.items()}
    for index, resolution in enumerate(config.block_resolutions):
        names |= {
            f"b{resolution}.conv0.weight": f"convs.{index + 1}.conv1.0.weight",
            f"b{resolution}.conv0.bias": f"convs.{index + 1}.conv1.1.bias",
            f"b{resolution}.conv1.weight": f"convs.{index + 1}.conv2.1.weight",
            f"b{resolution}.conv1.bias": f"convs.{index + 1}.conv2.2.bias",
            f"b{resolution}.skip.weight": f"convs.{index + 1}.skip.1.weight",
        }

    return names | {
        "b4.conv.weight": "final_conv.0.weight",
        "b4.conv.bias": "final_conv.1.bias",
        "b4.fc.weight": "final_linear.0.weight",
        "b4.fc.bias": "final_linear.0.bias",
        "b4.out.weight": "final_linear.1.weight",
        "b4.out.bias": "final_linear.1.bias",
    }


def _generator(
    path: str | os.PathLike[str],
    state: dict[str, Tensor],
    config: GeneratorConfig,
    average: Tensor | None,
) -> Generator:
    with torch.device("meta"):
        expected = Generator(config)
    if not _has_noise(state):  # older files: the maps were drawn when the network was built
        maps = missing.drawn_noise(expected.synthesis.noise_shapes)
        state = {**state, **{f"noises.noise_{index}": map_ for index, map_ in enumerate(maps)}}
    tensors = _renamed(path, state, _generator_names(config), expected.state_dict())
    tensors["mapping.w_avg"] = torch.zeros(config.w_dim) if average is None else average.reshape(-1)
    generator = with_weights(Generator, config, tensors, path)
    if average is None:  # training does not need it, and rosinality's own trainer writes none
        missing.measure_average(generator)
    return generator


def _discriminator_config(g: GeneratorConfig) -> DiscriminatorConfig:
    """Return the one discriminator that goes with a generator in this layout."""
    return DiscriminatorConfig(
        g.resolution,
        g.channels,
        channel_base=g.channel_base,
        channel_max=g.channel_max,
        channel_widths=g.channel_widths,
        mbstd_group_size=4,
    )


def _discriminator(
    path: str | os.PathLike[str], state: dict[str, Tensor], g: GeneratorConfig
) -> Discriminator:
    config = _discriminator_config(g)
    with torch.device("meta"):
        expected = Discriminator(config).state_dict()
    return with_weights(
        Discriminator, config, _renamed(path, state, _discriminator_names(config), expected), path
    )


def _renamed(
    path: str | os.PathLike[str],
    state: dict[str, Tensor],
    names: dict[str, str],
    expected: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Their tensors under our names; leading and trailing axes of size 1 are fitted, anything
    unknown is refused."""
    known = set(names.values())
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise FormatError(f"expected tensors by name, found the name {quoted(name)}", path=path)
        if name.endswith("kernel"):
            usual = fir_filter(RESAMPLE)
            if not isinstance(tensor, Tensor):
                raise FormatError(
                    f"expected {shown(name)} to be a tensor, found {quoted(tensor)}", path=path
                )
            kernel = tensor.float()
            if kernel.shape != usual.shape or not torch.allclose(
                kernel / kernel.sum(), usual, atol=1e-4
            ):
                raise FormatError(
                    f"{shown(name)} is another resampling filter than 1, 3, 3, 1; cannot be "
                    "represented",
                    path=path,
                )
        elif name not in known:
            raise FormatError(
                f"unknown tensor {shown(name)}; its architecture cannot be represented", path=path
            )

    found = {}
    for ours, theirs in names.items():
        if theirs not in state:
            raise FormatError(f"the tensor {theirs} is missing", path=path)
        tensor = state[theirs]
        if not isinstance(tensor, Tensor) or tensor.numel() != expected[ours].numel():
            raise FormatError(
                f"{theirs} has shape {list(getattr(tensor, 'shape', []))}, expected "
                f"{list(expected[ours].shape)}",
                path=path,
            )
        found[ours] = tensor.reshape(expected[ours].shape)

    return found


def _rename_generator(generator: Generator) -> dict[str, Tensor]:
    state = generator.state_dict()
    found: dict[str, Tensor] = {}
    for ours, theirs in _generator_names(generator.config).items():
        tensor = state[ours].detach().cpu()
        if theirs.endswith("conv.weight") or theirs == "input.input":
            tensor = tensor[None]
        elif theirs.endswith("noise.weight"):
            tensor = tensor.reshape(1)
        elif theirs.startswith("noises."):
            tensor = tensor[None, None]
        elif (
            theirs.startswith("to_rgb") and theirs.endswith(".bias") and "modulation" not in theirs
        ):
            tensor = tensor.reshape(1, -1, 1, 1)
        found[theirs] = tensor.clone()

    kernel = fir_filter(RESAMPLE) * 4
    for index in range(len(generator.config.block_resolutions) - 1):
        found[f"convs.{2 * index}.conv.blur.kernel"] = kernel.clone()
        found[f"to_rgbs.{index}.upsample.kernel"] = kernel.clone()

    return found


def _rename_discriminator(discriminator: Discriminator) -> dict[str, Tensor]:
    state = discriminator.state_dict()
    found = {
        theirs: state[ours].detach().cpu().clone()
        for ours, theirs in _discriminator_names(discriminator.config).items()
    }
    for index in range(len(discriminator.config.block_resolutions)):
        for layer in ("conv2", "skip"):
            found[f"convs.{index + 1}.{layer}.0.kernel"] = fir_filter(RESAMPLE)
    return found
