"""Network pickles of NVIDIA's: the PyTorch layout (stylegan2-ada-pytorch, and what stylegan3's code
writes)."""

import mmap
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentedit.errors import Error, FormatError, complete, shown
from latentedit.formats import missing
from latentedit.formats.pickle_allow_list import Record, TensorflowNetwork, read_pickle
from latentedit.formats.records import number, record_tensors, whole, word
from latentedit.formats.stylegan3 import stylegan3_generator
from latentedit.model.model import Model
from latentedit.model.weights import with_weights
from latentedit.networks.config import sides_of, width_options
from latentedit.networks.discriminator import Discriminator, DiscriminatorConfig
from latentedit.networks.generator import Generator, GeneratorConfig


def load_nvidia(path: str | os.PathLike[str]) -> Model:
    """Return a network file of NVIDIA's as a `Model`: StyleGAN2 or StyleGAN3 in the PyTorch layout,
    or an older network in the TensorFlow one.

    Raises:
        Error: another kind of file or of network.
    """
    try:
        # Pickles are read by an allow list; what is refused may still be a network whose kind can
        # be named.
        data = read_pickle(path)
    except Error as error:
        kind = _mentioned(path)
        if kind is None:
            raise
        text = (
            f"{kind}, by the names in it; only StyleGAN, StyleGAN2 and StyleGAN3 networks can be "
            f"read ({error})"
        )
        raise FormatError(text, path=path) from error

    if isinstance(data, TensorflowNetwork) or (
        isinstance(data, tuple | list)
        and data
        and all(part is None or isinstance(part, TensorflowNetwork) for part in data)
    ):
        from latentedit.formats.tensorflow import load_tensorflow

        with complete(path, "recorded network"):
            return load_tensorflow(
                path, (data,) if isinstance(data, TensorflowNetwork) else tuple(data)
            )

    if not isinstance(data, dict) or not isinstance(data.get("G_ema"), Record):
        raise FormatError(
            "expected a network pickle of NVIDIA's PyTorch layout with a G_ema in it", path=path
        )

    with complete(path, "recorded network"):
        generator = _generator(data["G_ema"], path)
        # G, without the average: training goes on from it.
        raw = _generator(data["G"], path) if isinstance(data.get("G"), Record) else None
        judge = data["D"] if isinstance(data.get("D"), Record) else None
        square = generator.config.is_square
        discriminator = _discriminator(judge, path) if judge is not None and square else None

    provenance = {"source": Path(path).name, "layout": "NVIDIA PyTorch pickle"}
    model = Model(generator, discriminator, None, provenance, str(path), raw_generator=raw)
    if judge is not None and not square:
        missing.tell(model, missing.NO_DISCRIMINATOR)
    return model


MENTIONS = (
    (b"TriPlaneGenerator", "an EG3D network"),
    (b"volumetric_rendering", "an EG3D network"),
    (b"SuperresGenerator", "a StyleGAN-XL network"),
    (b"pg_modules", "a StyleGAN-XL or Projected GAN network"),
)
"""Names in the text of pickles that ask for more than may be read."""


def _mentioned(path: str | os.PathLike[str]) -> str | None:
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return next((kind for name, kind in MENTIONS if view.find(name) >= 0), None)
    except (OSError, ValueError):
        return None


def _check_layers(path: str | os.PathLike[str], blocks: dict[int, Record]) -> None:
    """Raise `Error` unless all convolutions are of one kind, which is that of the published
    networks."""
    layers = [
        part
        for block in blocks.values()
        for name, part in block["_modules"].items()
        if name.startswith("conv")
    ]
    if any(not layer.get("use_noise", True) for layer in layers):
        raise FormatError("layers without noise inputs cannot be represented", path=path)
    if any(layer.get("activation", "lrelu") not in ("lrelu", "linear") for layer in layers):
        raise FormatError(
            "layers with another activation than lrelu cannot be represented", path=path
        )
    if len({_clamp(layer) for layer in layers}) > 1:
        raise FormatError("layers that are clamped differently cannot be represented", path=path)


def _blocks(modules: dict[str, Any]) -> dict[int, Record]:
    """Return the blocks of a network by their resolutions."""
    found = {}
    for name, block in modules.items():
        if isinstance(block, Record) and re.fullmatch(r"b\d{1,5}", name):
            found[int(name[1:])] = block
    return found


def _generator(record: Record, path: str | os.PathLike[str]) -> Generator:
    synthesis = record["_modules"].get("synthesis")
    mapping = record["_modules"].get("mapping")
    kind = _kind(record)
    if kind == "a StyleGAN3 generator":
        return stylegan3_generator(record, path)
    if (
        not isinstance(synthesis, Record)
        or not isinstance(mapping, Record)
        or "b4" not in synthesis["_modules"]
    ):
        raise FormatError(
            f"{kind}; only StyleGAN, StyleGAN2 and StyleGAN3 generators can be read", path=path
        )

    blocks = _blocks(synthesis["_modules"])
    resolution = max(blocks)
    layer = blocks[resolution]["_modules"]["conv1"]
    _check_layers(path, blocks)

    # The file records how the network was built, but its tensors decide: derived projects changed
    # one and not the other.
    tensors = record_tensors(record)

    # Widths are read from the tensors, as many networks do not follow the usual formula.
    widths = {r: tensors[f"synthesis.b{r}.conv1.weight"].shape[0] for r in blocks}
    config = GeneratorConfig(
        resolution=resolution,
        channels=whole(synthesis["img_channels"]),
        z_dim=whole(mapping["z_dim"]),
        w_dim=whole(mapping["w_dim"]),
        c_dim=whole(mapping["c_dim"]),
        mapping_layers=whole(mapping["num_layers"]),
        mapping_lr_multiplier=number(mapping["_modules"]["fc0"]["bias_gain"]),
        architecture=word(blocks[resolution]["architecture"]),
        conv_clamp=_clamp(layer),
        resample_filter=_taps(blocks[resolution], path),
        first_size=sides_of(tensors["synthesis.b4.const"]),
        **width_options(widths),
    )
    return with_weights(Generator, config, _without_filters(tensors), path)


def _kind(record: Record) -> str:
    """Return what a generator is that is not a StyleGAN2, as far as its modules tell."""
    parts = record["_modules"]
    synthesis = parts.get("synthesis")
    mapping = parts.get("mapping")
    layers = list(synthesis["_modules"]) if isinstance(synthesis, Record) else []
    if {"superresolution", "renderer", "backbone"} & set(parts):
        return "an EG3D generator"

    if any(isinstance(name, str) and name.startswith("L0_") for name in layers):
        labels = mapping["_modules"] if isinstance(mapping, Record) else {}
        # StyleGAN-XL embeds classes by features of another network, and grows by a generator within
        # a generator.
        larger = "embed_proj" in labels or record.class_name == "SuperresGenerator"
        return "a StyleGAN-XL generator" if larger else "a StyleGAN3 generator"

    return (
        f"a network of class {shown(record.class_name)}" if record.class_name else "another network"
    )


def _discriminator(record: Record, path: str | os.PathLike[str]) -> Discriminator:
    modules = record["_modules"]
    blocks = _blocks(modules)
    resolution = max(blocks)
    head = modules["b4"]
    _check_layers(path, blocks)
    tensors = record_tensors(record)
    widths = {r: tensors[f"b{r}.conv0.weight"].shape[0] for r in blocks if r > 4}
    widths[4] = tensors["b4.conv.weight"].shape[0]
    mbstd = head["_modules"].get("mbstd")
    labels = modules.get("mapping")
    config = DiscriminatorConfig(
        resolution=resolution,
        channels=whole(record["img_channels"]),
        c_dim=whole(record["c_dim"]),
        architecture=word(blocks[resolution]["architecture"]),
        conv_clamp=_clamp(blocks[resolution]["_modules"]["conv0"]),
        mbstd_group_size=_group(mbstd["group_size"]) if isinstance(mbstd, Record) else 1,
        mbstd_channels=whole(mbstd["num_channels"]) if isinstance(mbstd, Record) else 0,
        cmap_dim=whole(labels["w_dim"]) if isinstance(labels, Record) else 0,
        mapping_layers=whole(labels["num_layers"]) if isinstance(labels, Record) else 8,
        resample_filter=_taps(blocks[resolution], path),
        **width_options(widths),
    )
    return with_weights(Discriminator, config, _without_filters(tensors), path)


def _without_filters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor for name, tensor in tensors.items() if not name.endswith("resample_filter")
    }


def _group(value: Any) -> int:
    return 1 << 30 if value is None else whole(value)  # None stands for the whole batch


def _clamp(layer: Record) -> float | None:
    value = layer.get("conv_clamp")
    return None if value is None else number(value)


def _taps(block: Record, path: str | os.PathLike[str]) -> tuple[float, ...]:
    """Return the separable taps, smallest 1, of the block's resampling filter."""
    filter = block["_buffers"]["resample_filter"].value
    row = filter if filter.ndim == 1 else filter.sum(dim=0)
    # Files hold the normalised square filter; the configuration holds its taps with a smallest one
    # of 1, whatever its gain.
    taps = row / row.abs().min()
    if filter.ndim == 2 and not torch.allclose(
        filter, torch.outer(row, row) / row.sum(), atol=1e-6
    ):
        raise FormatError("the resampling filter is not separable", path=path)
    return tuple(round(float(tap), 6) for tap in taps)
