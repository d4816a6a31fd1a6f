"""Networks as pickles that NVIDIA's code loads (``legacy.load_network_pkl`` of
stylegan2-ada-pytorch and stylegan3).

NVIDIA's own pickles carry the source code of their modules, which a loader executes. Those written
here hold none: every module names its class in the loader's own source
(``training.networks.Generator``), with its attributes, tensors and the arguments that it is
constructed from.
"""

import math
import os
from collections import OrderedDict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentedit.errors import ArgumentError, IncompatibleError
from latentedit.io.files import replacing
from latentedit.io.pickle_writer import Instance, Name, write_pickle
from latentedit.model.model import Model
from latentedit.networks.alias_free import FilteredLayer, filtered_layers
from latentedit.networks.discriminator import Discriminator, DiscriminatorConfig
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.networks.layers import LRELU_GAIN
from latentedit.ops import fir_filter, fir_taps

Code = Literal["stylegan2-ada", "stylegan3"]
"""Whose loader a file is for."""
USUAL_TAPS = (1.0, 3.0, 3.0, 1.0)
SEPARABLE = 8
"""Number of taps from which NVIDIA's code keeps a filter as one row."""
AVERAGE_DECAY = 0.998
"""Decay of the running mean of w, for training that continues with their code."""
WHOLE_BATCH = 1 << 30

Arguments = dict[str, Any]


def save_nvidia(path: str | os.PathLike[str], model: Model, code: Code | None = None) -> list[str]:
    """Write ``model`` as a network pickle; reading it again keeps the fingerprint.

    Args:
        code: whose loader the file is for. None means stylegan3's for StyleGAN3 networks, and
            stylegan2-ada-pytorch's for StyleGAN2 networks, which stylegan3's loads under other
            names.

    Returns:
        What was left out or added, a line each. The loaders ask for a discriminator; a model
            without one gets a fresh one.

    Raises:
        Error: a network that their code cannot construct (the first StyleGAN, jointly
            normalised labels).
    """
    config = model.generator.config
    alias_free = config.alias_free is not None
    if alias_free and code == "stylegan2-ada":
        raise ArgumentError("the code of stylegan2-ada-pytorch has no StyleGAN3 networks")

    for wrong, what in (
        (config.architecture == "stylegan1", "the first StyleGAN"),
        (not config.is_square, "images that are not square"),
        (config.joint_labels, "labels that are normalised together with z"),
    ):
        if wrong:
            raise IncompatibleError(f"NVIDIA's pickles have no place for {what}")

    code = code or ("stylegan3" if alias_free else "stylegan2-ada")
    notes = []
    discriminator = model.discriminator

    if discriminator is not None:
        problem = _problem(discriminator.config)
        if problem:
            notes.append(
                f"left out: the discriminator, as NVIDIA's pickles have no place for {problem}"
            )
            discriminator = None

    if discriminator is None:
        notes.append(
            "their loader asks for a discriminator, and there is none to write;"
            " the file gets an untrained one (random weights of seed 0)"
        )
        discriminator = _fresh(config)

    if config.channel_widths or discriminator.config.channel_widths:
        notes.append(
            "their programs load and render this network, but cannot construct it anew (to train"
            " on, or with force_fp16): its numbers of feature maps follow no rule"
        )

    build = _StyleGAN3 if alias_free else _StyleGAN2
    averaged = build(model.generator, code).generator()
    raw = averaged if model.raw_generator is None else build(model.raw_generator, code).generator()
    document = {
        "G": raw,
        "D": _Discriminator(discriminator, code).build(),
        "G_ema": averaged,
        "training_set_kwargs": None,
        "augment_pipe": None,
    }
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        write_pickle(stream, document)
    return notes


def _problem(config: DiscriminatorConfig) -> str | None:
    if config.architecture == "stylegan1":
        return "that of the first StyleGAN"
    return "a logit for every label" if config.label_logits else None


def _fresh(config: GeneratorConfig) -> Discriminator:
    """Return an untrained discriminator that goes with a generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Discriminator(
            DiscriminatorConfig(
                config.resolution,
                config.channels,
                config.c_dim,
                max(config.channel_base, config.resolution),
                config.channel_max,
                conv_clamp=config.conv_clamp,
                channel_widths=config.channel_widths,
            )
        )


class _Modules:
    """Describes the modules of one network."""

    def __init__(self, network: nn.Module, file: str) -> None:
        self.state = network.state_dict()
        self.file = file

    def module(
        self,
        kind: str,
        attributes: Arguments,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor | None],
        parts: dict[str, Instance],
    ) -> Instance:
        state = {
            "training": False,
            "_parameters": OrderedDict(
                (k, nn.Parameter(v, requires_grad=False)) for k, v in parameters.items()
            ),
            "_buffers": OrderedDict(buffers),
            "_backward_hooks": OrderedDict(),
            "_forward_hooks": OrderedDict(),
            "_modules": OrderedDict(parts),
            **attributes,
        }
        return Instance(
            Name(f"training.{self.file}", kind), {"_init_args": (), "_init_kwargs": {}, **state}
        )

    def own(self, prefix: str, *names: str) -> dict[str, Tensor]:
        """Return the tensors ``prefix.name``, by name."""
        return {name: self.state[f"{prefix}.{name}"] for name in names}

    def linear(
        self,
        prefix: str,
        *,
        activation: str = "linear",
        multiplier: float = 1.0,
        initial: Arguments | None = None,
    ) -> Instance:
        """``initial`` are options for the initial weights."""
        parameters = self.own(prefix, "weight", "bias")
        outputs, inputs = parameters["weight"].shape
        attributes = {
            "in_features": inputs,
            "out_features": outputs,
            "activation": activation,
            "weight_gain": multiplier / math.sqrt(inputs),
            "bias_gain": multiplier,
        }
        given = {
            "in_features": inputs,
            "out_features": outputs,
            "activation": activation,
            "lr_multiplier": multiplier,
            **(initial or {}),
        }
        return self.module(
            "FullyConnectedLayer", {**attributes, "_init_kwargs": given}, parameters, {}, {}
        )

    def affine(self, prefix: str) -> dict[str, Instance]:
        """Return the affine layer w -> style of the layer ``prefix``."""
        return {"affine": self.linear(f"{prefix}.affine", initial={"bias_init": 1})}

    def mapping(
        self, prefix: str, sizes: Arguments, count: int, multiplier: float, averaged: bool
    ) -> Instance:
        """``sizes`` are z_dim, c_dim, w_dim and num_ws."""
        parts = {
            f"fc{i}": self.linear(f"{prefix}.fc{i}", activation="lrelu", multiplier=multiplier)
            for i in range(count)
        }
        attributes = {
            **sizes,
            "num_layers": count,
            "w_avg_beta": AVERAGE_DECAY if averaged else None,
        }
        if sizes["c_dim"]:
            parts["embed"] = self.linear(f"{prefix}.embed")
        else:
            attributes["embed"] = None

        given = {**sizes, "num_layers": count, "lr_multiplier": multiplier}
        buffers: dict[str, Tensor | None] = (
            {"w_avg": self.state[f"{prefix}.w_avg"]} if averaged else {}
        )
        return self.module(
            "MappingNetwork", {**attributes, "_init_kwargs": given}, {}, buffers, parts
        )


def _filter(taps: tuple[float, ...]) -> Tensor:
    return fir_taps(taps) if len(taps) >= SEPARABLE else fir_filter(taps)


class _StyleGAN2:
    """The generator of a StyleGAN2."""

    def __init__(self, network: Generator, code: Code) -> None:
        self.config = network.config
        self.num_ws = network.num_ws
        self.code = code
        self.modules = _Modules(
            network, "networks" if code == "stylegan2-ada" else "networks_stylegan2"
        )
        self.taps = tuple(network.config.resample_filter)

    def generator(self) -> Instance:
        config = self.config
        sizes = {"z_dim": config.z_dim, "c_dim": config.c_dim, "w_dim": config.w_dim}
        picture = {"img_resolution": config.resolution, "img_channels": config.channels}
        mapping_options = {
            "num_layers": config.mapping_layers,
            "lr_multiplier": config.mapping_lr_multiplier,
        }
        options = {
            "channel_base": config.channel_base,
            "channel_max": config.channel_max,
            "num_fp16_res": 0,
            "architecture": config.architecture,
            "conv_clamp": config.conv_clamp,
            "resample_filter": list(self.taps),
        }
        mapping = self.modules.mapping(
            "mapping",
            {**sizes, "num_ws": self.num_ws},
            config.mapping_layers,
            config.mapping_lr_multiplier,
            True,
        )

        # stylegan3's code takes the options of the synthesis one by one.
        inner = options if self.code == "stylegan3" else {"synthesis_kwargs": options}
        attributes = {
            **sizes,
            **picture,
            "num_ws": self.num_ws,
            "_init_kwargs": {**sizes, **picture, "mapping_kwargs": mapping_options, **inner},
        }
        parts = {"synthesis": self.synthesis(options), "mapping": mapping}
        return self.modules.module("Generator", attributes, {}, {}, parts)

    def synthesis(self, options: Arguments) -> Instance:
        config = self.config
        shared = {
            "w_dim": config.w_dim,
            "img_resolution": config.resolution,
            "img_channels": config.channels,
        }
        attributes = {
            **shared,
            "img_resolution_log2": config.resolution.bit_length() - 1,
            "block_resolutions": config.block_resolutions,
            "num_ws": self.num_ws,
            "num_fp16_res": 0,
            "_init_kwargs": {**shared, **options},
        }
        parts = {f"b{r}": self.block(r) for r in config.block_resolutions}
        return self.modules.module("SynthesisNetwork", attributes, {}, {}, parts)

    def block(self, resolution: int) -> Instance:
        config = self.config
        prefix = f"synthesis.b{resolution}"
        first = resolution == 4
        last = resolution == config.resolution
        inputs = 0 if first else config.features(resolution // 2)
        outputs = config.features(resolution)
        parts = {} if first else {"conv0": self.layer(f"{prefix}.conv0", resolution, up=2)}
        parts["conv1"] = self.layer(f"{prefix}.conv1", resolution, up=1)
        rgb = last or config.architecture == "skip"
        if rgb:
            parts["torgb"] = self.torgb(f"{prefix}.torgb")
        if not first and config.architecture == "resnet":
            parts["skip"] = _plain_convolution(self.modules, f"{prefix}.skip", up=2, taps=self.taps)
        given = {
            "in_channels": inputs,
            "w_dim": config.w_dim,
            "resolution": resolution,
            "img_channels": config.channels,
            "is_last": last,
            "architecture": config.architecture,
            "use_fp16": False,
        }
        attributes = {
            **given,
            "channels_last": False,
            "num_conv": 1 if first else 2,
            "num_torgb": int(rgb),
            "fused_modconv_default": True,
            "_init_kwargs": {
                **given,
                "out_channels": outputs,
                "resample_filter": list(self.taps),
                "conv_clamp": config.conv_clamp,
            },
        }
        parameters = self.modules.own(prefix, "const") if first else {}
        return self.modules.module(
            "SynthesisBlock", attributes, parameters, {"resample_filter": _filter(self.taps)}, parts
        )

    def layer(self, prefix: str, resolution: int, up: int) -> Instance:
        parameters = self.modules.own(prefix, "weight", "noise_strength", "bias")
        outputs, inputs = parameters["weight"].shape[:2]
        given = {
            "in_channels": inputs,
            "out_channels": outputs,
            "w_dim": self.config.w_dim,
            "resolution": resolution,
            "up": up,
            "use_noise": True,
            "activation": "lrelu",
            "conv_clamp": self.config.conv_clamp,
        }

        # Their layers without upsampling have the usual filter, which they do not use.
        taps = self.taps if up > 1 else USUAL_TAPS
        buffers: dict[str, Tensor | None] = {
            "resample_filter": _filter(taps),
            **self.modules.own(prefix, "noise_const"),
        }
        attributes = {
            **given,
            "padding": 1,
            "act_gain": LRELU_GAIN,
            "_init_kwargs": {**given, "resample_filter": list(taps)},
        }
        return self.modules.module(
            "SynthesisLayer", attributes, parameters, buffers, self.modules.affine(prefix)
        )

    def torgb(self, prefix: str) -> Instance:
        parameters = self.modules.own(prefix, "weight", "bias")
        outputs, inputs = parameters["weight"].shape[:2]
        given = {
            "in_channels": inputs,
            "out_channels": outputs,
            "w_dim": self.config.w_dim,
            "conv_clamp": self.config.conv_clamp,
        }
        attributes = {**given, "weight_gain": 1 / math.sqrt(inputs), "_init_kwargs": given}
        return self.modules.module(
            "ToRGBLayer", attributes, parameters, {}, self.modules.affine(prefix)
        )


def _plain_convolution(
    modules: _Modules,
    prefix: str,
    *,
    up: int = 1,
    down: int = 1,
    activation: str = "linear",
    clamp: float | None = None,
    taps: tuple[float, ...] = USUAL_TAPS,
) -> Instance:
    """Return a ``Conv2dLayer``."""
    names = [name for name in ("weight", "bias") if f"{prefix}.{name}" in modules.state]
    parameters = modules.own(prefix, *names)
    outputs, inputs, side = parameters["weight"].shape[:3]
    given = {
        "in_channels": inputs,
        "out_channels": outputs,
        "kernel_size": side,
        "bias": "bias" in names,
        "activation": activation,
        "up": up,
        "down": down,
        "resample_filter": list(taps),
        "conv_clamp": clamp,
    }
    attributes = {
        "in_channels": inputs,
        "out_channels": outputs,
        "activation": activation,
        "up": up,
        "down": down,
        "conv_clamp": clamp,
        "padding": side // 2,
        "weight_gain": 1 / math.sqrt(inputs * side**2),
        "act_gain": LRELU_GAIN if activation == "lrelu" else 1.0,
        "_init_kwargs": given,
    }
    if "bias" not in names:
        attributes["bias"] = None
    return modules.module(
        "Conv2dLayer", attributes, parameters, {"resample_filter": _filter(taps)}, {}
    )


class _Discriminator:
    """The discriminator of a StyleGAN2 or StyleGAN3."""

    def __init__(self, network: Discriminator, code: Code) -> None:
        self.config = network.config
        self.cmap_dim = network.cmap_dim
        self.modules = _Modules(
            network, "networks" if code == "stylegan2-ada" else "networks_stylegan2"
        )
        self.taps = tuple(network.config.resample_filter)
        self.first_layer = 0

    def build(self) -> Instance:
        config = self.config
        group = None if config.mbstd_group_size >= WHOLE_BATCH else config.mbstd_group_size
        given = {
            "c_dim": config.c_dim,
            "img_resolution": config.resolution,
            "img_channels": config.channels,
        }
        options = {
            "architecture": config.architecture,
            "channel_base": config.channel_base,
            "channel_max": config.channel_max,
            "num_fp16_res": 0,
            "conv_clamp": config.conv_clamp,
            "cmap_dim": self.cmap_dim or None,
            "block_kwargs": {"resample_filter": list(self.taps)},
            "mapping_kwargs": {"num_layers": config.mapping_layers},
            "epilogue_kwargs": {
                "mbstd_group_size": group,
                "mbstd_num_channels": config.mbstd_channels,
            },
        }
        parts = {f"b{r}": self.block(r) for r in config.block_resolutions}
        parts["b4"] = self.epilogue(group)
        if self.cmap_dim:
            sizes = {"z_dim": 0, "c_dim": config.c_dim, "w_dim": self.cmap_dim, "num_ws": None}
            parts["mapping"] = self.modules.mapping(
                "mapping", sizes, config.mapping_layers, 0.01, False
            )

        attributes = {
            **given,
            "img_resolution_log2": config.resolution.bit_length() - 1,
            "block_resolutions": config.block_resolutions,
            "_init_kwargs": {**given, **options},
        }
        return self.modules.module("Discriminator", attributes, {}, {}, parts)

    def block(self, resolution: int) -> Instance:
        config = self.config
        prefix = f"b{resolution}"
        inside = config.features(resolution)
        outputs = config.features(resolution // 2)
        first = resolution == config.resolution
        usual: Arguments = {"activation": "lrelu", "clamp": config.conv_clamp}
        parts = {}
        if first or config.architecture == "skip":
            parts["fromrgb"] = _plain_convolution(self.modules, f"{prefix}.fromrgb", **usual)
        parts["conv0"] = _plain_convolution(self.modules, f"{prefix}.conv0", **usual)
        parts["conv1"] = _plain_convolution(
            self.modules, f"{prefix}.conv1", down=2, taps=self.taps, **usual
        )
        if config.architecture == "resnet":
            parts["skip"] = _plain_convolution(
                self.modules, f"{prefix}.skip", down=2, taps=self.taps
            )

        given = {
            "in_channels": 0 if first else inside,
            "resolution": resolution,
            "img_channels": config.channels,
            "first_layer_idx": self.first_layer,
            "architecture": config.architecture,
            "use_fp16": False,
        }
        self.first_layer += len(parts)
        more = {"tmp_channels": inside, "out_channels": outputs, "resample_filter": list(self.taps)}
        attributes = {
            **given,
            "channels_last": False,
            "num_layers": len(parts),
            "_init_kwargs": {**given, **more, "conv_clamp": config.conv_clamp},
        }
        return self.modules.module(
            "DiscriminatorBlock", attributes, {}, {"resample_filter": _filter(self.taps)}, parts
        )

    def epilogue(self, group: int | None) -> Instance:
        config = self.config
        given = {
            "in_channels": config.features(4),
            "cmap_dim": self.cmap_dim,
            "resolution": 4,
            "img_channels": config.channels,
            "architecture": config.architecture,
        }
        more = {
            "mbstd_group_size": group,
            "mbstd_num_channels": config.mbstd_channels,
            "conv_clamp": config.conv_clamp,
        }
        attributes: Arguments = {**given, "_init_kwargs": {**given, **more}}
        parts = {}
        if config.architecture == "skip":
            parts["fromrgb"] = _plain_convolution(self.modules, "b4.fromrgb", activation="lrelu")
        if config.mbstd_channels:
            grouping = {"group_size": group, "num_channels": config.mbstd_channels}
            parts["mbstd"] = self.modules.module(
                "MinibatchStdLayer", {**grouping, "_init_kwargs": grouping}, {}, {}, {}
            )
        else:
            attributes["mbstd"] = None

        parts["conv"] = _plain_convolution(
            self.modules, "b4.conv", activation="lrelu", clamp=config.conv_clamp
        )
        parts["fc"] = self.modules.linear("b4.fc", activation="lrelu")
        parts["out"] = self.modules.linear("b4.out")
        return self.modules.module("DiscriminatorEpilogue", attributes, {}, {}, parts)


class _StyleGAN3:
    """The generator of a StyleGAN3."""

    def __init__(self, network: Generator, code: Code) -> None:
        self.config = network.config
        self.num_ws = network.num_ws
        self.modules = _Modules(network, "networks_stylegan3")

    def generator(self) -> Instance:
        config = self.config
        free = self.config.alias_free
        assert free is not None
        sizes = {"z_dim": config.z_dim, "c_dim": config.c_dim, "w_dim": config.w_dim}
        picture = {"img_resolution": config.resolution, "img_channels": config.channels}
        whole = {
            "num_layers": free.layers,
            "num_critical": free.critical,
            "margin_size": free.margin,
            "output_scale": free.output_scale,
            "num_fp16_res": 0,
        }
        options = {
            "channel_base": config.channel_base,
            "channel_max": config.channel_max,
            **whole,
            "first_cutoff": free.first_cutoff,
            "first_stopband": free.first_stopband,
            "last_stopband_rel": free.last_stopband,
            "conv_kernel": free.kernel,
            "filter_size": free.taps,
            "lrelu_upsampling": free.oversampling,
            "use_radial_filters": free.radial,
            "conv_clamp": config.conv_clamp,
        }
        mapping = self.modules.mapping(
            "mapping",
            {**sizes, "num_ws": self.num_ws},
            config.mapping_layers,
            config.mapping_lr_multiplier,
            True,
        )
        mapping_options = {
            "num_layers": config.mapping_layers,
            "lr_multiplier": config.mapping_lr_multiplier,
        }
        designs = filtered_layers(config)
        parts = {
            "input": self.input(designs[0]),
            **{design.name: self.layer(design) for design in designs},
        }
        synthesis = self.modules.module(
            "SynthesisNetwork",
            {
                "w_dim": config.w_dim,
                "num_ws": self.num_ws,
                **picture,
                **whole,
                "layer_names": [design.name for design in designs],
                "_init_kwargs": {"w_dim": config.w_dim, **picture, **options},
            },
            {},
            {},
            parts,
        )
        attributes = {
            **sizes,
            **picture,
            "num_ws": self.num_ws,
            "_init_kwargs": {**sizes, **picture, "mapping_kwargs": mapping_options, **options},
        }
        return self.modules.module(
            "Generator", attributes, {}, {}, {"synthesis": synthesis, "mapping": mapping}
        )

    def input(self, first: FilteredLayer) -> Instance:
        prefix = "synthesis.input"
        given = {
            "w_dim": self.config.w_dim,
            "channels": first.inputs,
            "size": [first.in_size, first.in_size],
            "sampling_rate": first.in_rate,
            "bandwidth": first.in_cutoff,
        }
        return self.modules.module(
            "SynthesisInput",
            {**given, "_init_kwargs": given},
            self.modules.own(prefix, "weight"),
            {**self.modules.own(prefix, "transform", "freqs", "phases")},
            {
                "affine": self.modules.linear(
                    f"{prefix}.affine", initial={"weight_init": 0, "bias_init": [1, 0, 0, 0]}
                )
            },
        )

    def layer(self, design: FilteredLayer) -> Instance:
        prefix = f"synthesis.{design.name}"
        config = self.config
        given = {
            "w_dim": config.w_dim,
            "is_torgb": design.rgb,
            "is_critically_sampled": design.critical,
            "use_fp16": False,
            "in_channels": design.inputs,
            "out_channels": design.outputs,
            "in_size": [design.in_size, design.in_size],
            "out_size": [design.out_size, design.out_size],
            "in_sampling_rate": design.in_rate,
            "out_sampling_rate": design.out_rate,
            "in_cutoff": design.in_cutoff,
            "out_cutoff": design.out_cutoff,
            "in_half_width": design.in_width,
            "out_half_width": design.out_width,
            "conv_kernel": design.kernel,
            "conv_clamp": config.conv_clamp,
        }
        attributes = {
            **given,
            "tmp_sampling_rate": design.rate,
            "magnitude_ema_beta": 0.999,
            "up_factor": design.up,
            "up_taps": design.up_taps,
            "down_factor": design.down,
            "down_taps": design.down_taps,
            "down_radial": design.radial and not design.critical,
            "padding": [*design.padding, *design.padding],
            "_init_kwargs": {
                **given,
                "filter_size": design.taps,
                "use_radial_filters": design.radial,
            },
        }
        buffers: dict[str, Tensor | None] = {
            **self.modules.own(prefix, "magnitude_ema"),
            "up_filter": design.up_filter(),
            "down_filter": design.down_filter(),
        }
        parameters = self.modules.own(prefix, "weight", "bias")
        return self.modules.module(
            "SynthesisLayer", attributes, parameters, buffers, self.modules.affine(prefix)
        )
