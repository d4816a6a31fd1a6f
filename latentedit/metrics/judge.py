"""A judge: a small classifier of pictures, trained on photographs, that is independent of generators and probes."""

import itertools
import os
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import Error
from latentedit.files import read_tensors, write_tensors

FORMAT, VERSION = "latentedit-judge", 1
WIDTHS = (24, 48, 64, 96)


class Judge(nn.Module):
    """Four convolutions with batch normalisation and pooling, then one linear layer for several attributes.

    Args:
        channels, resolution: of the pictures ``[N, C, R, R]`` in [-1, 1].
        heads: for every attribute its classes; two classes have one logit (that of the second).
    """

    def __init__(self, channels: int, resolution: int, heads: Mapping[str, tuple[str, ...] | list[str]]) -> None:
        super().__init__()
        self.channels, self.resolution = channels, resolution
        self.heads = {name: tuple(classes) for name, classes in heads.items()}
        widths = (channels, *WIDTHS)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in WIDTHS)
        self.head = nn.Linear(WIDTHS[-1] * 4, sum(self._sizes()))

    def _sizes(self) -> list[int]:
        return [1 if len(classes) == 2 else len(classes) for classes in self.heads.values()]

    @property
    def num_features(self) -> int:
        return WIDTHS[-1] * 4

    def features(self, image: Tensor) -> Tensor:
        """Activations before the linear layer, ``[N, num_features]``."""
        expected = (self.channels, self.resolution, self.resolution)
        if image.ndim != 4 or image.shape[1:] != expected:
            raise Error(f"this judge takes pictures [N, {', '.join(map(str, expected))}], got {list(image.shape)}")
        x = image
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
        return F.adaptive_avg_pool2d(x, 2).flatten(1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Logits of every attribute: ``[N]`` for two classes, else ``[N, classes]``."""
        logits = self.head(F.dropout(self.features(image), 0.3, self.training))
        parts = logits.split(self._sizes(), dim=1)
        return {name: part[:, 0] if part.shape[1] == 1 else part for name, part in zip(self.heads, parts, strict=True)}


def save_judge(path: str | os.PathLike[str], judge: Judge, provenance: Mapping[str, object]) -> None:
    header = {"channels": judge.channels, "resolution": judge.resolution, "heads": judge.heads, "provenance": provenance}
    write_tensors(path, FORMAT, VERSION, header, judge.state_dict())


def load_judge(path: str | os.PathLike[str]) -> Judge:
    """Read a judge, in evaluation mode.

    Raises:
        Error: no such file, or one of another kind.
    """
    header, tensors = read_tensors(path, FORMAT, VERSION)
    try:
        judge = Judge(header["channels"], header["resolution"], header["heads"])
        judge.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise Error(f"{path}: does not describe a judge ({str(error).splitlines()[0]})") from error
    return judge.eval().requires_grad_(False)
