"""What a StyleGAN2 generator is built from: its configuration, and the precisions it computes in."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from latentedit.errors import Error

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LOWEST_REDUCED = 16
"""Blocks below this resolution stay float32 whatever the precision: they cost nothing and carry the composition."""


def block_dtype(precision: Precision, resolution: int, parameters: torch.dtype) -> torch.dtype:
    """The type that a block computes in: that of its ``parameters`` unless a reduced one is asked for and the block large."""
    return DTYPES[precision] if precision != "fp32" and resolution >= LOWEST_REDUCED else parameters


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything needed to build a generator; stored in every model file."""

    resolution: int
    """Picture side in pixels, a power of two of at least 8."""
    channels: int = 3
    """1 (grey) or 3 (RGB), or any other number of output channels."""
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    """Number of labels, 0 for an unconditional network."""
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    channel_base: int = 32768
    """Feature maps at resolution r: min(channel_base // r, channel_max)."""
    channel_max: int = 512
    architecture: str = "skip"
    """"skip", "resnet" or "orig" (StyleGAN2, figure 7)."""
    conv_clamp: float | None = None
    """Activations are clamped to this magnitude; 256 in networks trained in half precision."""
    resample_filter: tuple[float, ...] = (1, 3, 3, 1)

    def __post_init__(self) -> None:
        check_architecture(self.resolution, self.architecture, self.channels)
        for name in ("z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max"):
            if getattr(self, name) < 1:
                raise Error(f"generator config: {name} must be at least 1, got {getattr(self, name)}")
        check_widths(self.resolution, self.channel_base)
        object.__setattr__(self, "resample_filter", tuple(self.resample_filter))

    @property
    def block_resolutions(self) -> list[int]:
        return [2**i for i in range(2, int(math.log2(self.resolution)) + 1)]

    def features(self, resolution: int) -> int:
        return min(self.channel_base // resolution, self.channel_max)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_architecture(resolution: int, architecture: str, channels: int) -> None:
    """Raise `Error` unless the values that both networks share can be built."""
    if resolution < 8 or resolution & (resolution - 1):
        raise Error(f"resolution must be a power of two of at least 8, got {resolution}")
    if architecture not in ("skip", "resnet", "orig"):
        raise Error(f"architecture must be skip, resnet or orig, got {architecture!r}")
    if channels < 1:
        raise Error(f"channels must be at least 1, got {channels}")


def check_widths(resolution: int, channel_base: int) -> None:
    if channel_base < resolution:
        raise Error(f"channel_base must be at least the resolution, {resolution}, got {channel_base}")
