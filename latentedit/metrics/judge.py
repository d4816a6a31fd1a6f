"""The attribute classifier: a small network trained on photos, which is independent of generators
and probes."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import ArgumentError, FormatError, complete, quoted
from latentedit.io.native_file import check_numbers, read_tensors, write_tensors

FORMAT = "latentedit-judge"
VERSION = 1
WIDTHS = (24, 48, 64, 96)
WIDEST = 16384
"""Largest number of channels and largest resolution that are accepted from a file."""


class Judge(nn.Module):
    """The attribute classifier: convolutions with batch normalisation, then one linear layer for
    several attributes.

    Args:
        channels: C of the images ``[N, C, R, R]`` in [-1, 1].
        resolution: R of the images.
        heads: the classes of every attribute; two classes have one logit (that of the second).
        layers: width, kernel size and stride of every convolution. None means the four of `WIDTHS`,
            3 x 3, each followed by maximum pooling.
        reduction: images are first averaged over squares of this many pixels, so that finer detail
            cannot influence the classifier.
        fields: the last activations are averaged over this many fields in each axis.
    """

    def __init__(
        self,
        channels: int,
        resolution: int,
        heads: Mapping[str, tuple[str, ...] | list[str]],
        layers: Sequence[Sequence[int]] | None = None,
        reduction: int = 1,
        fields: int = 2,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.resolution = resolution
        self.heads = {name: tuple(classes) for name, classes in heads.items()}
        self.layers = None if layers is None else [tuple(layer) for layer in layers]
        self.reduction = reduction
        self.fields = fields

        plan = [(width, 3, 1) for width in WIDTHS] if self.layers is None else self.layers
        inputs = (channels, *(width for width, _, _ in plan))
        self.convs = nn.ModuleList(
            nn.Conv2d(before, width, kernel, stride, padding=kernel // 2)
            for before, (width, kernel, stride) in zip(inputs, plan, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in inputs[1:])
        self.num_features = inputs[-1] * fields**2
        self.head = nn.Linear(self.num_features, sum(self._sizes()))

    def _sizes(self) -> list[int]:
        return [1 if len(classes) == 2 else len(classes) for classes in self.heads.values()]

    def features(self, image: Tensor) -> Tensor:
        """Return the activations before the linear layer, ``[N, num_features]``."""
        expected = (self.channels, self.resolution, self.resolution)
        if image.ndim != 4 or image.shape[1:] != expected:
            raise ArgumentError(
                f"this classifier takes images [N, {', '.join(map(str, expected))}], got "
                f"{list(image.shape)}"
            )

        x = image if self.reduction == 1 else F.avg_pool2d(image, self.reduction)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
            if self.layers is None:
                x = F.max_pool2d(x, 2)
        return F.adaptive_avg_pool2d(x, self.fields).flatten(1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits of every attribute: ``[N]`` for two classes, otherwise
        ``[N, classes]``."""
        logits = self.head(F.dropout(self.features(image), 0.3, self.training))
        parts = logits.split(self._sizes(), dim=1)
        return {
            name: part[:, 0] if part.shape[1] == 1 else part
            for name, part in zip(self.heads, parts, strict=True)
        }


def save_judge(
    path: str | os.PathLike[str], judge: Judge, provenance: Mapping[str, object]
) -> None:
    """Write an attribute classifier; ``provenance`` (its training data and method) goes into the
    header."""
    header = {
        "channels": judge.channels,
        "resolution": judge.resolution,
        "heads": judge.heads,
        "layers": judge.layers,
        "reduction": judge.reduction,
        "fields": judge.fields,
        "provenance": provenance,
    }
    write_tensors(path, FORMAT, VERSION, header, judge.state_dict())


def load_judge(path: str | os.PathLike[str]) -> Judge:
    """Read an attribute classifier, in evaluation mode.

    Raises:
        Error: the file does not exist, or is of another kind.
    """
    header, tensors = read_tensors(path, FORMAT, VERSION)
    with complete(path, "judge"):
        judge = _built(header)
        expected = judge.state_dict()
        if {name: tensor.shape for name, tensor in tensors.items()} != {
            name: t.shape for name, t in expected.items()
        }:
            raise FormatError("the tensors do not match the classifier in the header", path=path)

        weights = {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}
        for name, tensor in weights.items():
            check_numbers(path, name, tensor)
        judge.load_state_dict(weights, assign=True)

    return judge.eval().requires_grad_(False)


def _built(header: Mapping[str, Any]) -> Judge:
    """Build the classifier that a header describes; nothing is allocated for its tensors."""
    # Files from before there was a choice of layers have none of the last three.
    layers = header.get("layers")
    reduction = header.get("reduction", 1)
    fields = header.get("fields", 2)
    channels = header["channels"]
    resolution = header["resolution"]
    heads = header["heads"]
    _check_whole(1, WIDEST, channels=channels, resolution=resolution, reduction=reduction)
    _check_whole(1, 64, fields=fields)

    if layers is not None:
        if not isinstance(layers, list) or not 1 <= len(layers) <= 100:
            raise FormatError(f"a classifier has 1 to 100 layers, found {quoted(layers)}")
        for width, kernel, stride in layers:
            _check_whole(1, WIDEST, width=width)
            _check_whole(1, 64, kernel=kernel, stride=stride)

    if not isinstance(heads, dict) or not all(
        isinstance(c, list) and len(c) >= 2 for c in heads.values()
    ):
        raise FormatError("each head of a classifier must have two classes or more")
    if not all(isinstance(name, str) for classes in heads.values() for name in classes):
        raise FormatError("the classes of a classifier must have names")

    with torch.device("meta"):
        return Judge(channels, resolution, heads, layers, reduction, fields)


def _check_whole(least: int, most: int, **values: Any) -> None:
    for name, value in values.items():
        if type(value) is not int or not least <= value <= most:
            raise FormatError.of(
                f"a classifier's {name}", f"a whole number from {least} to {most}", value
            )
