"""Scores from a classifier in an ONNX file, by OpenCV's own reader of such files."""

import os
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import ArgumentError, FormatError
from latentedit.io.onnx import read_onnx, run

PREPARATIONS = {
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "signed": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and deviation taken off colours in [0, 1]: "unit" leaves them, "signed" gives [-1, 1]."""


class OnnxClassifier:
    """A score from an ONNX network that takes ``[N, 3 or 1, size, size]``; its input here is
    ``[N, C, H, W]`` in [-1, 1].

    Args:
        path: the ``.onnx`` file; only operations that OpenCV knows are executed.
        output: index of the network's output; negative ones count from the end.
        size: side of its input images.
        prepare: one of `PREPARATIONS`.
        channels: 3, or 1 for networks that take greyscale images.

    Raises:
        Error: the file does not exist or cannot be read (`latentedit.io.onnx.read_onnx`).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        output: int = -1,
        size: int = 224,
        prepare: str = "imagenet",
        channels: int = 3,
    ) -> None:
        if prepare not in PREPARATIONS:
            raise ArgumentError.of("preparation", f"one of {', '.join(PREPARATIONS)}", prepare)
        if channels not in (1, 3):
            raise ArgumentError(f"a classifier takes images of 1 or 3 channels, got {channels}")

        self.path = path
        self.output = output
        self.size = size
        self.prepare = prepare
        self.channels = channels
        self.network = read_onnx(path, (channels, size, size))

    def __call__(self, images: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return ``[N]``."""
        x = F.interpolate(
            images.float(),
            size=(self.size, self.size),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        x = ((x + 1) / 2).clamp(0, 1)
        if x.shape[1] != self.channels:
            x = x.expand(-1, 3, -1, -1) if self.channels == 3 else x.mean(dim=1, keepdim=True)

        mean, std = (
            np.array(part, dtype=np.float32)[: self.channels, None, None]
            for part in PREPARATIONS[self.prepare]
        )
        found = []
        for picture in x.numpy():  # one by one, as many files have a batch of 1 written into them
            numbers = np.ravel(
                run(self.path, self.network, np.ascontiguousarray(((picture - mean) / std)[None]))
            )
            if not -len(numbers) <= self.output < len(numbers):
                raise FormatError(
                    f"gives {len(numbers)} numbers per image; there is no output {self.output}",
                    path=self.path,
                )
            if not np.isfinite(numbers[self.output]):
                raise FormatError(
                    f"gives {numbers[self.output]} for an image, expected a finite number",
                    path=self.path,
                )
            found.append(float(numbers[self.output]))

        return np.array(found, dtype=np.float64)
