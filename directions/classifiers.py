"""Scores from a classifier in an ONNX file, by OpenCV's own reader of such files."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import Error

PREPARATIONS = {
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "signed": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and deviation taken off colours in [0, 1]: "unit" leaves them, "signed" gives [-1, 1]."""


class OnnxClassifier:
    """Pictures ``[N, C, H, W]`` in [-1, 1] to one output of a network that takes ``[N, 3 or 1, size, size]``.

    Args:
        path: the ``.onnx`` file; nothing in it is executed but the operations that OpenCV knows.
        output: which of the numbers that it gives for a picture; negative ones count from the end.
        size: side of the pictures it takes.
        prepare: one of `PREPARATIONS`.
        channels: 3, or 1 for networks that take grey pictures.

    Raises:
        Error: no such file, not to be read, or fewer outputs.
    """

    def __init__(
        self, path: str | os.PathLike[str], output: int = -1, size: int = 224, prepare: str = "imagenet", channels: int = 3
    ) -> None:
        if prepare not in PREPARATIONS:
            raise Error(f"preparation must be one of {', '.join(PREPARATIONS)}, got {prepare!r}")
        if channels not in (1, 3):
            raise Error(f"a classifier takes images of 1 or 3 channels, got {channels}")
        if not Path(path).is_file():
            raise Error(f"{path}: no such file")
        self.path, self.output, self.size, self.prepare, self.channels = path, output, size, prepare, channels
        try:
            self.network: Any = cv2.dnn.readNetFromONNX(os.fspath(path))
        except cv2.error as error:
            raise Error(f"{path}: OpenCV cannot read it as an ONNX network ({_first_line(error)})") from error

    def __call__(self, images: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        """``[N]``."""
        x = F.interpolate(images.float(), size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        x = ((x + 1) / 2).clamp(0, 1)
        if x.shape[1] != self.channels:
            x = x.expand(-1, 3, -1, -1) if self.channels == 3 else x.mean(dim=1, keepdim=True)
        mean, std = (np.array(part, dtype=np.float32)[: self.channels, None, None] for part in PREPARATIONS[self.prepare])
        found = []
        for picture in x.numpy():  # one by one, as many files have a batch of 1 written into them
            try:
                self.network.setInput(np.ascontiguousarray(((picture - mean) / std)[None]))
                numbers = np.ravel(self.network.forward())
            except cv2.error as error:
                raise Error(f"{self.path}: fails on an image of {self.size} pixels ({_first_line(error)})") from error
            if not -len(numbers) <= self.output < len(numbers):
                raise Error(f"{self.path}: gives {len(numbers)} numbers per image; there is no output {self.output}")
            found.append(float(numbers[self.output]))
        return np.array(found, dtype=np.float64)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:120]
