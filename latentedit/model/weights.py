"""Networks are filled with tensors whose names and shapes are known to be their own."""

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from latentedit.errors import FormatError, shown
from latentedit.inversion.encoder import Encoder, EncoderConfig
from latentedit.inversion.published_encoder import PublishedEncoder, PublishedEncoderConfig
from latentedit.io.budget import SLACK
from latentedit.io.native_file import check_numbers
from latentedit.networks.discriminator import DiscriminatorConfig
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.networks.stylegan3 import AliasFreeLayer
from latentedit.ops import fir_taps

Network = TypeVar("Network", bound=nn.Module)


Config = TypeVar(
    "Config", GeneratorConfig, DiscriminatorConfig, EncoderConfig, PublishedEncoderConfig
)


def with_weights(
    kind: Callable[[Config], Network],
    config: Config,
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
) -> Network:
    """Return the network ``kind(config)`` filled with ``tensors``; the names and shapes must be
    exactly its own.

    Nothing is allocated before names and shapes are known to fit, whatever sizes a file's header
    speaks of.

    Raises:
        Error: names the first tensor that is missing, too many or of another shape.
    """
    with torch.device("meta"):
        network = kind(config)
    expected = network.state_dict()
    name_of_kind = {Generator: "generator", Encoder: "encoder", PublishedEncoder: "encoder"}.get(
        type(network), "discriminator"
    )
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise FormatError(f"the {name_of_kind} has no tensor {name}", path=path)
        if name not in expected:
            unknown = shown(str(name))
            raise FormatError(
                f"the {name_of_kind} has an unknown tensor {unknown}; its architecture cannot be "
                "represented",
                path=path,
            )

        tensor = tensors[name]
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, expected {list(expected[name].shape)}"
            raise FormatError(f"{name_of_kind} tensor {name} has shape {shapes}", path=path)
        if (
            tensor.layout != torch.strided
            or tensor.device.type != "cpu"
            or tensor.is_complex()
            or tensor.is_quantized
        ):
            raise FormatError(
                f"{name_of_kind} tensor {name} is not a plain tensor of numbers", path=path
            )
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise FormatError(
                f"{name_of_kind} tensor {name} claims more numbers than the file holds", path=path
            )

    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()
    }
    if sum(t.numel() * 4 for t in tensors.values()) > 4 * sum(storages.values()) + SLACK:
        raise FormatError(f"the {name_of_kind}'s tensors share the same numbers", path=path)

    # Copies, as networks of one file may share tensors.
    weights = {
        name: tensor.detach().to(torch.float32, copy=True).contiguous()
        for name, tensor in tensors.items()
    }
    for name, tensor in weights.items():
        check_numbers(path, name, tensor)
    network.load_state_dict(weights, assign=True)
    if isinstance(config, EncoderConfig | PublishedEncoderConfig):
        return network

    filter = fir_taps(config.resample_filter or (1,))  # in no file
    for module in network.modules():
        if "resample_filter" in module._buffers:
            module.resample_filter = filter
        elif isinstance(module, AliasFreeLayer):
            module.build_filters()
    return network
