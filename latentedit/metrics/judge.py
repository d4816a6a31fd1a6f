"""A judge: a small classifier of pictures, trained on photographs, that is independent of generators and probes."""

import os
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import Error
from latentedit.files import read_tensors, write_tensors

FORMAT, VERSION = "latentedit-judge", 1
WIDTHS = (24, 48, 64, 96)


class Judge(nn.Module):
    """Convolutions with batch normalisation, then one linear layer for several attributes.

    Args:
        channels, resolution: of the pictures ``[N, C, R, R]`` in [-1, 1].
        heads: for every attribute its classes; two classes have one logit (that of the second).
        layers: width, kernel size and stride of every convolution. None means the four of `WIDTHS`,
            3 x 3, each followed by maximum pooling.
        reduction: pictures are first averaged over squares of so many pixels, so that nothing finer
            than that can sway the judge.
        fields: the last activations are averaged over so many fields across and down.
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
        self.channels, self.resolution = channels, resolution
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
        """Activations before the linear layer, ``[N, num_features]``."""
        expected = (self.channels, self.resolution, self.resolution)
        if image.ndim != 4 or image.shape[1:] != expected:
            raise Error(f"this judge takes pictures [N, {', '.join(map(str, expected))}], got {list(image.shape)}")

        x = image if self.reduction == 1 else F.avg_pool2d(image, self.reduction)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
            if self.layers is None:
                x = F.max_pool2d(x, 2)
        return F.adaptive_avg_pool2d(x, self.fields).flatten(1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Logits of every attribute: ``[N]`` for two classes, else ``[N, classes]``."""
        logits = self.head(F.dropout(self.features(image), 0.3, self.training))
        parts = logits.split(self._sizes(), dim=1)
        return {name: part[:, 0] if part.shape[1] == 1 else part for name, part in zip(self.heads, parts, strict=True)}


def save_judge(path: str | os.PathLike[str], judge: Judge, provenance: Mapping[str, object]) -> None:
    """Write a judge; what was trained on, and how, goes into the header."""
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
    """Read a judge, in evaluation mode.

    Raises:
        Error: no such file, or one of another kind.
    """
    header, tensors = read_tensors(path, FORMAT, VERSION)
    try:
        # Files from before there was a choice of layers have none of the last three.
        layers, reduction, fields = (
            header.get("layers"),
            header.get("reduction", 1),
            header.get("fields", 2),
        )
        judge = Judge(header["channels"], header["resolution"], header["heads"], layers, reduction, fields)
        judge.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise Error(f"{path}: does not describe a judge ({str(error).splitlines()[0]})") from error
    return judge.eval().requires_grad_(False)
