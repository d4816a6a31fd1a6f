"""StyleGAN and StyleGAN2 networks in NVIDIA's older layout: pickled TensorFlow networks (``.pkl``
of 2019 and 2020).

The file holds names and arrays; TensorFlow is not needed and the source code in it stays a string.
"""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentedit.errors import FormatError, complete, quoted, shown
from latentedit.formats.pickle_allow_list import Array, TensorflowNetwork
from latentedit.model.model import Model
from latentedit.model.weights import with_weights
from latentedit.networks.config import LONGEST, width_options
from latentedit.networks.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    build_discriminator,
)
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.networks.layers import LRELU_GAIN

DEFAULTS: dict[str, Any] = {
    "num_channels": 3,
    "label_size": 0,
    "latent_size": 512,
    "dlatent_size": 512,
    "mapping_layers": 8,
    "mapping_lrmul": 0.01,
    "resample_kernel": (1, 3, 3, 1),
    "mbstd_group_size": 4,
    "mbstd_num_features": 1,
    "blur_filter": (1, 2, 1),
    "fused_scale": "auto",
}
"""What the published functions take where nothing was recorded."""
LABEL_RATE = 0.01
"""Learning rate multiplier of the layers between label and projection in our discriminators."""
FIRST = ("G_style", "G_mapping", "G_synthesis", "D_basic")
"""Functions that built networks of the first StyleGAN."""
USUAL: dict[str, Any] = {
    "mapping_nonlinearity": "lrelu",
    "nonlinearity": "lrelu",
    "use_wscale": True,
    "mapping_use_wscale": True,
    "normalize_latents": True,
    "use_styles": True,
    "const_input_layer": True,
    "use_noise": True,
    "use_pixel_norm": False,
    "use_instance_norm": True,
}
"""Variants of the published functions, of which only these can be represented."""


def load_tensorflow(path: str | os.PathLike[str], networks: tuple[TensorflowNetwork, ...]) -> Model:
    """G, D and the average Gs of such a file as a `Model`.

    Raises:
        Error: not a StyleGAN2, or a variant that cannot be represented.
    """
    by_kind = {
        kind: network for kind, network in zip(("G", "D", "Gs"), networks, strict=False) if network
    }
    # Gs is the average that the published images are rendered with.
    average = by_kind.get("Gs") or by_kind.get("G")
    if average is None:
        raise FormatError("no generator in this network pickle", path=path)

    first = average.get("build_func_name") == "G_style"
    generator = _first_generator if first else _generator
    model = Model(
        generator(path, average), path=str(path), provenance={"layout": "NVIDIA TensorFlow pickle"}
    )
    if first:
        # what Gs.run does unasked
        model.provenance |= {"truncation_psi": 0.7, "truncation_cutoff": 8}

    if "Gs" in by_kind and "G" in by_kind:
        model.raw_generator = generator(path, by_kind["G"])

    if "D" in by_kind:
        built = by_kind["D"].get("build_func_name")
        model.discriminator = (_first_discriminator if built == "D_basic" else _discriminator)(
            path, by_kind["D"]
        )

    return model


def _variables(network: TensorflowNetwork) -> dict[str, np.ndarray[Any, Any]]:
    """Return the variables of the network and of its components, with the component's name
    first."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for prefix, part in (("", network), *(network.get("components") or {}).items()):
        if not isinstance(part, TensorflowNetwork) or not isinstance(prefix, str):
            raise FormatError("a component that is not a network")
        for name, value in part.get("variables") or []:
            # one without axes may be a numpy scalar
            if isinstance(value, Array | np.generic) and isinstance(name, str):
                found[f"{prefix}/{name}" if prefix else name] = (
                    value.value if isinstance(value, Array) else np.asarray(value)
                )

    return found


def _settings(
    path: str | os.PathLike[str], network: TensorflowNetwork, kind: str
) -> dict[str, Any]:
    built = network.get("build_func_name")
    built = shown(built) if isinstance(built, str) else "something else"
    if kind not in built and not built.startswith(kind[0]):
        raise FormatError(f"expected a {kind}, found a network built by {built}", path=path)

    # Settings of the whole network win over those of its parts.
    given = dict(network.get("static_kwargs") or {})
    for component in (network.get("components") or {}).values():
        given = {**dict(component.get("static_kwargs") or {}), **given}

    settings = {**DEFAULTS, **({"mapping_lrmul": 0.1} if kind == "D" else {}), **given}
    for name, usual in [*DEFAULTS.items(), ("conv_clamp", None)]:
        _check_kind(path, name, settings.get(name), usual)

    for name, usual in USUAL.items():
        if settings.get(name, usual) != usual:
            raise FormatError(
                f"a network whose {name} is not {usual!r} cannot be represented", path=path
            )

    if built in FIRST and settings.get("conv_clamp") is not None:
        raise FormatError(
            "a first StyleGAN with clamped activations cannot be represented", path=path
        )
    return settings


def _check_kind(path: str | os.PathLike[str], name: str, value: Any, usual: Any) -> None:
    """Raise `Error` unless a setting is a number where numbers are usual, and a few numbers where
    those are."""
    several = isinstance(usual, tuple)
    parts = (
        value if several and isinstance(value, tuple | list) and len(value) <= LONGEST else [value]
    )
    words = ("auto",) if usual == "auto" else ()

    for part in parts:
        plain = (
            part is None or part in words
            if isinstance(part, str | None)
            else isinstance(part, int | float | np.number)
        )
        if not plain or (not isinstance(part, str | None) and not abs(part) <= 2**53):
            raise FormatError(
                f"{name} is {quoted(part)}, expected {'numbers' if several else 'a number'}",
                path=path,
            )


EMBEDDINGS = ("mapping/LabelConcat/weight", "mapping/LabelEmbed/weight")
"""Names of the label embedding in networks of 2019 and of 2020."""


def _label_options(
    path: str | os.PathLike[str], settings: dict[str, Any], given: dict[str, np.ndarray[Any, Any]]
) -> dict[str, Any]:
    """Return the options of a generator with labels."""
    if not settings["label_size"]:
        return {}
    names = [name for name in EMBEDDINGS if name in given]
    if not names:
        raise FormatError("a network with labels, but without their embedding", path=path)

    width = given[names[0]].shape[-1]
    if width != int(settings["dlatent_size"]):
        raise FormatError(
            f"labels embedded in {width} numbers, not as many as a w has; this cannot be "
            "represented",
            path=path,
        )
    return {"c_dim": int(settings["label_size"]), "joint_labels": names[0] == EMBEDDINGS[0]}


def _embedding(
    config: GeneratorConfig, given: dict[str, np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors of a generator's label embedding."""
    if not config.c_dim:
        return {}
    if not config.joint_labels:
        return {
            "mapping.embed.weight": given["mapping/LabelEmbed/weight"].T,
            "mapping.embed.bias": given["mapping/LabelEmbed/bias"],
        }

    # In 2019 it had neither a gain, which ours divides by the root of the number of labels, nor a
    # bias.
    weight = given["mapping/LabelConcat/weight"].T * np.sqrt(np.float32(config.c_dim))
    return {
        "mapping.embed.weight": weight,
        "mapping.embed.bias": np.zeros(len(weight), dtype=np.float32),
    }


def _conv(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``[k, k, I, O]`` to ``[O, I, k, k]``."""
    return weight.transpose(3, 2, 0, 1)


def _tensors(found: dict[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in found.items()
    }


def _generator(path: str | os.PathLike[str], network: TensorflowNetwork) -> Generator:
    settings = _settings(path, network, "G")
    given = _variables(network)
    with complete(path, "recorded generator"):
        blocks = sorted(
            {
                int(name.split("/")[1].split("x")[0])
                for name in given
                if name.startswith("synthesis/") and "x" in name
            }
        )
        widths = {
            r: given[f"synthesis/{r}x{r}/{'Conv' if r == 4 else 'Conv1'}/weight"].shape[3]
            for r in blocks
        }
        finest = blocks[-1]
        rgb = [f"synthesis/{r}x{r}/ToRGB/weight" in given for r in blocks]
        architecture = (
            "skip"
            if all(rgb)
            else "resnet"
            if f"synthesis/{finest}x{finest}/Skip/weight" in given
            else "orig"
        )
        config = GeneratorConfig(
            resolution=finest,
            channels=int(settings["num_channels"]),
            z_dim=int(settings["latent_size"]),
            w_dim=int(settings["dlatent_size"]),
            mapping_layers=int(settings["mapping_layers"]),
            mapping_lr_multiplier=float(settings["mapping_lrmul"]),
            **_label_options(path, settings, given),
            architecture=architecture,
            conv_clamp=settings.get("conv_clamp"),
            resample_filter=_taps(settings),
            **width_options(widths),
        )
        # TensorFlow stores matrices as [in, out] and kernels as [k, k, in, out].
        ours: dict[str, np.ndarray[Any, Any]] = {
            "mapping.w_avg": given["dlatent_avg"],
            "synthesis.b4.const": given["synthesis/4x4/Const/const"][0],
        }
        ours |= _embedding(config, given)
        for layer in range(config.mapping_layers):
            ours[f"mapping.fc{layer}.weight"] = given[f"mapping/Dense{layer}/weight"].T
            ours[f"mapping.fc{layer}.bias"] = given[f"mapping/Dense{layer}/bias"]
        index = 0
        for r in blocks:
            theirs = {"conv1": "Conv"} if r == 4 else {"conv0": "Conv0_up", "conv1": "Conv1"}
            for name, other in theirs.items():
                here = f"synthesis.b{r}.{name}"
                there = f"synthesis/{r}x{r}/{other}"
                weight = _conv(given[f"{there}/weight"])
                # The published TensorFlow code turns the kernels of its transposed convolutions.
                ours[f"{here}.weight"] = weight[:, :, ::-1, ::-1] if name == "conv0" else weight
                ours |= _modulation(here, there, given)
                ours[f"{here}.noise_strength"] = given[f"{there}/noise_strength"]
                ours[f"{here}.noise_const"] = given[f"synthesis/noise{index}"][0, 0]
                index += 1
            if f"synthesis/{r}x{r}/ToRGB/weight" in given:
                here = f"synthesis.b{r}.torgb"
                there = f"synthesis/{r}x{r}/ToRGB"
                ours[f"{here}.weight"] = _conv(given[f"{there}/weight"])
                ours |= _modulation(here, there, given)
            if architecture == "resnet" and r > 4:
                ours[f"synthesis.b{r}.skip.weight"] = _conv(
                    given[f"synthesis/{r}x{r}/Skip/weight"]
                )[:, :, ::-1, ::-1]

    return with_weights(Generator, config, _tensors(ours), path)


def _modulation(
    ours: str, theirs: str, given: dict[str, np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    return {
        f"{ours}.bias": given[f"{theirs}/bias"],
        f"{ours}.affine.weight": given[f"{theirs}/mod_weight"].T,
        f"{ours}.affine.bias": given[f"{theirs}/mod_bias"] + 1,  # added when it is used, there
    }


def _discriminator(path: str | os.PathLike[str], network: TensorflowNetwork) -> Discriminator:
    settings = _settings(path, network, "D")
    given = _variables(network)
    with complete(path, "recorded discriminator"):
        blocks = sorted(
            {int(name.split("x")[0]) for name in given if "x" in name.split("/")[0]}, reverse=True
        )
        widths = {
            r: given[f"{r}x{r}/{'Conv' if r == 4 else 'Conv0'}/weight"].shape[3] for r in blocks
        }
        finest = blocks[0]
        several = f"{finest // 2}x{finest // 2}/FromRGB/weight" in given
        architecture = (
            "resnet" if f"{finest}x{finest}/Skip/weight" in given else "skip" if several else "orig"
        )
        config = DiscriminatorConfig(
            resolution=finest,
            channels=int(settings["num_channels"]),
            architecture=architecture,
            conv_clamp=settings.get("conv_clamp"),
            mbstd_group_size=int(settings["mbstd_group_size"]),
            mbstd_channels=int(settings["mbstd_num_features"])
            if int(settings["mbstd_group_size"]) > 1
            else 0,
            resample_filter=_taps(settings),
            **_projection_options(settings, given),
            **width_options(widths),
        )
        ours = _projection(config, settings, given)
        for r in blocks:
            layers = {"conv": "Conv"} if r == 4 else {"conv0": "Conv0", "conv1": "Conv1_down"}
            if f"{r}x{r}/FromRGB/weight" in given:
                layers["fromrgb"] = "FromRGB"
            for name, other in layers.items():
                ours[f"b{r}.{name}.weight"] = _conv(given[f"{r}x{r}/{other}/weight"])
                ours[f"b{r}.{name}.bias"] = given[f"{r}x{r}/{other}/bias"]
            if architecture == "resnet" and r > 4:
                ours[f"b{r}.skip.weight"] = _conv(given[f"{r}x{r}/Skip/weight"])

        ours |= {
            "b4.fc.weight": given["4x4/Dense0/weight"].T,
            "b4.fc.bias": given["4x4/Dense0/bias"],
            "b4.out.weight": given["Output/weight"].T,
            "b4.out.bias": given["Output/bias"],
        }

    return with_weights(Discriminator, config, _tensors(ours), path)


def _projection_options(
    settings: dict[str, Any], given: dict[str, np.ndarray[Any, Any]]
) -> dict[str, Any]:
    """Return the options of a discriminator with labels: those of 2019 have a logit for each, those
    of 2020 project on an embedding."""
    if not settings["label_size"]:
        return {}
    options: dict[str, Any] = {"c_dim": int(settings["label_size"])}
    if "LabelEmbed/weight" not in given:
        return {**options, "label_logits": True}
    layers = sum(name.startswith("Mapping") and name.endswith("/weight") for name in given)
    return {**options, "cmap_dim": given["LabelEmbed/weight"].shape[1], "mapping_layers": layers}


def _projection(
    config: DiscriminatorConfig, settings: dict[str, Any], given: dict[str, np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors of a discriminator's label embedding."""
    if not config.c_dim or config.label_logits:
        return {}
    ours = {
        "mapping.embed.weight": given["LabelEmbed/weight"].T,
        "mapping.embed.bias": given["LabelEmbed/bias"],
    }
    # Their learning rate multiplier is another one than ours, which the weights make up for.
    given_rate = settings["mapping_lrmul"]

    # Effective weights are stored weights times the multiplier, so that the product stays the same.
    factor = np.float32(float(given_rate) / LABEL_RATE)
    for layer in range(config.mapping_layers):
        ours[f"mapping.fc{layer}.weight"] = given[f"Mapping{layer}/weight"].T * factor
        ours[f"mapping.fc{layer}.bias"] = given[f"Mapping{layer}/bias"] * factor
    return ours


def _fused(settings: dict[str, Any], resolution: int) -> bool:
    """Return whether the layer between ``resolution`` and half of it was built in the fused form,
    whose kernels are turned."""
    fused = settings["fused_scale"]
    return bool(resolution >= 128 if fused == "auto" else fused)


def _first_generator(path: str | os.PathLike[str], network: TensorflowNetwork) -> Generator:
    settings = _settings(path, network, "G")
    given = _variables(network)
    with complete(path, "recorded generator"):
        blocks = sorted(
            {
                int(name.split("/")[1].split("x")[0])
                for name in given
                if name.endswith("/Conv1/weight")
            }
            | {4}
        )
        finest = blocks[-1]
        widths = {
            r: given[f"synthesis/{r}x{r}/{'Conv' if r == 4 else 'Conv1'}/weight"].shape[3]
            for r in blocks
        }
        if "synthesis/ToRGB_lod1/weight" not in given:
            raise FormatError(
                "only networks with an RGB output at every resolution can be represented", path=path
            )

        config = GeneratorConfig(
            resolution=finest,
            channels=int(settings["num_channels"]),
            z_dim=int(settings["latent_size"]),
            w_dim=int(settings["dlatent_size"]),
            mapping_layers=int(settings["mapping_layers"]),
            mapping_lr_multiplier=float(settings["mapping_lrmul"]),
            **_label_options(path, settings, given),
            architecture="stylegan1",
            resample_filter=tuple(float(tap) for tap in settings["blur_filter"] or (1.0,)),
            **width_options(widths),
        )
        ours: dict[str, np.ndarray[Any, Any]] = {
            "mapping.w_avg": given["dlatent_avg"],
            "synthesis.lod": given["synthesis/lod"],
            "synthesis.b4.const": given["synthesis/4x4/Const/const"][0],
        }
        ours |= _embedding(config, given)
        for layer in range(config.mapping_layers):
            ours[f"mapping.fc{layer}.weight"] = given[f"mapping/Dense{layer}/weight"].T
            # Our layers multiply by sqrt(2) after the bias, theirs before it.
            ours[f"mapping.fc{layer}.bias"] = given[f"mapping/Dense{layer}/bias"] / np.float32(
                LRELU_GAIN
            )

        for index, r in enumerate(blocks):
            for number, other in enumerate(("Const", "Conv") if r == 4 else ("Conv0_up", "Conv1")):
                here = f"synthesis.b{r}.conv{number}"
                there = f"synthesis/{r}x{r}/{other}"
                if other != "Const":
                    weight = _conv(given[f"{there}/weight"])
                    turned = other == "Conv0_up" and _fused(settings, r)
                    ours[f"{here}.weight"] = weight[:, :, ::-1, ::-1] if turned else weight
                ours |= {
                    f"{here}.bias": given[f"{there}/bias"],
                    f"{here}.noise_strength": given[f"{there}/Noise/weight"],
                    f"{here}.noise_const": given[f"synthesis/noise{2 * index + number}"][0, 0],
                    f"{here}.affine.weight": given[f"{there}/StyleMod/weight"].T,
                    f"{here}.affine.bias": given[f"{there}/StyleMod/bias"],
                }
            # Their levels of detail count from the finest, our blocks from the coarsest.
            there = f"synthesis/ToRGB_lod{len(blocks) - 1 - index}"
            ours[f"synthesis.b{r}.torgb.weight"] = _conv(given[f"{there}/weight"])
            ours[f"synthesis.b{r}.torgb.bias"] = given[f"{there}/bias"]

    return with_weights(Generator, config, _tensors(ours), path)


def _first_discriminator(path: str | os.PathLike[str], network: TensorflowNetwork) -> Discriminator:
    settings = _settings(path, network, "D")
    given = _variables(network)
    with complete(path, "recorded discriminator"):
        blocks = sorted(
            {int(name.split("x")[0]) for name in given if name.endswith("/Conv0/weight")} | {4},
            reverse=True,
        )
        widths = {
            r: given[f"{r}x{r}/{'Conv' if r == 4 else 'Conv0'}/weight"].shape[3] for r in blocks
        }
        config = DiscriminatorConfig(
            resolution=blocks[0],
            channels=int(settings["num_channels"]),
            architecture="stylegan1",
            mbstd_group_size=int(settings["mbstd_group_size"]),
            mbstd_channels=int(settings["mbstd_num_features"])
            if int(settings["mbstd_group_size"]) > 1
            else 0,
            resample_filter=tuple(float(tap) for tap in settings["blur_filter"] or (1.0,)),
            **_projection_options(settings, given),
            **width_options(widths),
        )
        gain = np.float32(LRELU_GAIN)
        ours: dict[str, np.ndarray[Any, Any]] = {"lod": given["lod"]}
        for index, r in enumerate(blocks):
            layers = {"conv": "Conv"} if r == 4 else {"conv0": "Conv0", "conv1": "Conv1_down"}
            for name, other in layers.items():
                ours[f"b{r}.{name}.weight"] = _conv(given[f"{r}x{r}/{other}/weight"])
                ours[f"b{r}.{name}.bias"] = given[f"{r}x{r}/{other}/bias"] / gain
            ours[f"b{r}.fromrgb.weight"] = _conv(given[f"FromRGB_lod{index}/weight"])
            ours[f"b{r}.fromrgb.bias"] = given[f"FromRGB_lod{index}/bias"] / gain

        ours |= {
            "b4.fc.weight": given["4x4/Dense0/weight"].T,
            "b4.fc.bias": given["4x4/Dense0/bias"] / gain,
            "b4.out.weight": given["4x4/Dense1/weight"].T,
            "b4.out.bias": given["4x4/Dense1/bias"],
        }

    return with_weights(build_discriminator, config, _tensors(ours), path)


def _taps(settings: dict[str, Any]) -> tuple[float, ...]:
    return tuple(float(tap) for tap in settings["resample_kernel"] or (1.0,))
