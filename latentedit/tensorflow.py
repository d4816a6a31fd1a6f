"""StyleGAN2 networks in NVIDIA's older layout: pickled TensorFlow networks (``.pkl`` of 2019 and 2020).

The file holds names and arrays; TensorFlow is not needed and the source code in it stays a string.
"""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentedit.discriminator import Discriminator, DiscriminatorConfig
from latentedit.errors import Error
from latentedit.generator import Generator, GeneratorConfig
from latentedit.models import Model, load_weights
from latentedit.pickles import Array, TensorflowNetwork, channels

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
}
"""What the published functions take where nothing was recorded."""


def load_tensorflow(path: str | os.PathLike[str], networks: tuple[TensorflowNetwork, ...]) -> Model:
    """G, D and the average Gs of such a file as a `Model`.

    Raises:
        Error: not a StyleGAN2, or a variant that cannot be represented.
    """
    by_kind = {kind: network for kind, network in zip(("G", "D", "Gs"), networks, strict=False) if network}
    average = by_kind.get("Gs") or by_kind.get("G")
    if average is None:
        raise Error(f"{path}: no generator in this network pickle")
    model = Model(_generator(path, average), path=str(path), provenance={"layout": "NVIDIA TensorFlow pickle"})
    if "Gs" in by_kind and "G" in by_kind:
        model.raw_generator = _generator(path, by_kind["G"])
    if "D" in by_kind:
        model.discriminator = _discriminator(path, by_kind["D"])
    return model


def _variables(network: TensorflowNetwork, prefix: str = "") -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, value in network.get("variables") or []:
        if isinstance(value, Array):
            found[prefix + str(name)] = value.value
    for name, component in (network.get("components") or {}).items():
        if isinstance(component, TensorflowNetwork):
            found.update(_variables(component, f"{prefix}{name}/"))
    return found


def _settings(path: str | os.PathLike[str], network: TensorflowNetwork, kind: str) -> dict[str, Any]:
    built = str(network.get("build_func_name"))
    names = [built, *(str(c.get("build_func_name")) for c in (network.get("components") or {}).values())]
    if any(name in ("G_style", "D_basic", "G_synthesis") for name in names) and built != "G_main":
        raise Error(f"{path}: a network of the first StyleGAN ({built}), which cannot be represented yet")
    if kind not in built and not built.startswith(kind[0]):
        raise Error(f"{path}: expected a {kind}, found a network built by {built}")
    given = dict(network.get("static_kwargs") or {})
    for component in (network.get("components") or {}).values():
        given = {**dict(component.get("static_kwargs") or {}), **given}
    settings = {**DEFAULTS, **given}
    if settings["label_size"]:
        raise Error(f"{path}: a TensorFlow network with labels cannot be represented")
    return settings


def _conv(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``[k, k, I, O]`` to ``[O, I, k, k]``."""
    return weight.transpose(3, 2, 0, 1)


def _tensors(found: dict[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in found.items()}


def _generator(path: str | os.PathLike[str], network: TensorflowNetwork) -> Generator:
    settings, given = _settings(path, network, "G"), _variables(network)
    try:
        blocks = sorted(
            {int(name.split("/")[1].split("x")[0]) for name in given if name.startswith("synthesis/") and "x" in name}
        )
        widths = {r: given[f"synthesis/{r}x{r}/{'Conv' if r == 4 else 'Conv1'}/weight"].shape[3] for r in blocks}
        finest = blocks[-1]
        rgb = [f"synthesis/{r}x{r}/ToRGB/weight" in given for r in blocks]
        architecture = "skip" if all(rgb) else "resnet" if f"synthesis/{finest}x{finest}/Skip/weight" in given else "orig"
        base, most = channels(widths, path)
        config = GeneratorConfig(
            resolution=finest,
            channels=int(settings["num_channels"]),
            z_dim=int(settings["latent_size"]),
            w_dim=int(settings["dlatent_size"]),
            mapping_layers=int(settings["mapping_layers"]),
            mapping_lr_multiplier=float(settings["mapping_lrmul"]),
            channel_base=base,
            channel_max=most,
            architecture=architecture,
            resample_filter=_taps(settings),
        )
        ours: dict[str, np.ndarray[Any, Any]] = {
            "mapping.w_avg": given["dlatent_avg"],
            "synthesis.b4.const": given["synthesis/4x4/Const/const"][0],
        }
        for layer in range(config.mapping_layers):
            ours[f"mapping.fc{layer}.weight"] = given[f"mapping/Dense{layer}/weight"].T
            ours[f"mapping.fc{layer}.bias"] = given[f"mapping/Dense{layer}/bias"]
        index = 0
        for r in blocks:
            theirs = {"conv1": "Conv"} if r == 4 else {"conv0": "Conv0_up", "conv1": "Conv1"}
            for name, other in theirs.items():
                here, there = f"synthesis.b{r}.{name}", f"synthesis/{r}x{r}/{other}"
                weight = _conv(given[f"{there}/weight"])
                # The published TensorFlow code turns the kernels of its transposed convolutions.
                ours[f"{here}.weight"] = weight[:, :, ::-1, ::-1] if name == "conv0" else weight
                ours |= _modulation(here, there, given)
                ours[f"{here}.noise_strength"] = given[f"{there}/noise_strength"]
                ours[f"{here}.noise_const"] = given[f"synthesis/noise{index}"][0, 0]
                index += 1
            if f"synthesis/{r}x{r}/ToRGB/weight" in given:
                here, there = f"synthesis.b{r}.torgb", f"synthesis/{r}x{r}/ToRGB"
                ours[f"{here}.weight"] = _conv(given[f"{there}/weight"])
                ours |= _modulation(here, there, given)
            if architecture == "resnet" and r > 4:
                ours[f"synthesis.b{r}.skip.weight"] = _conv(given[f"synthesis/{r}x{r}/Skip/weight"])[:, :, ::-1, ::-1]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        if isinstance(error, Error):
            raise
        raise Error(f"{path}: the recorded generator is incomplete ({type(error).__name__}: {error})") from error
    generator = Generator(config)
    load_weights(generator, _tensors(ours), path)
    return generator


def _modulation(ours: str, theirs: str, given: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    return {
        f"{ours}.bias": given[f"{theirs}/bias"],
        f"{ours}.affine.weight": given[f"{theirs}/mod_weight"].T,
        f"{ours}.affine.bias": given[f"{theirs}/mod_bias"] + 1,  # added when it is used, there
    }


def _discriminator(path: str | os.PathLike[str], network: TensorflowNetwork) -> Discriminator:
    settings, given = _settings(path, network, "D"), _variables(network)
    try:
        blocks = sorted({int(name.split("x")[0]) for name in given if "x" in name.split("/")[0]}, reverse=True)
        widths = {r: given[f"{r}x{r}/{'Conv' if r == 4 else 'Conv0'}/weight"].shape[3] for r in blocks}
        base, most = channels(widths, path)
        finest = blocks[0]
        several = f"{finest // 2}x{finest // 2}/FromRGB/weight" in given
        architecture = "resnet" if f"{finest}x{finest}/Skip/weight" in given else "skip" if several else "orig"
        config = DiscriminatorConfig(
            resolution=finest,
            channels=int(settings["num_channels"]),
            channel_base=base,
            channel_max=most,
            architecture=architecture,
            mbstd_group_size=int(settings["mbstd_group_size"]),
            mbstd_channels=int(settings["mbstd_num_features"]) if int(settings["mbstd_group_size"]) > 1 else 0,
            resample_filter=_taps(settings),
        )
        ours: dict[str, np.ndarray[Any, Any]] = {}
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
    except (KeyError, IndexError, ValueError, TypeError) as error:
        if isinstance(error, Error):
            raise
        raise Error(f"{path}: the recorded discriminator is incomplete ({type(error).__name__}: {error})") from error
    discriminator = Discriminator(config)
    load_weights(discriminator, _tensors(ours), path)
    return discriminator


def _taps(settings: dict[str, Any]) -> tuple[float, ...]:
    return tuple(float(tap) for tap in settings["resample_kernel"] or (1.0,))
