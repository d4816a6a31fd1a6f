"""The encoder: a network that predicts w from an image, in a few passes that each correct the one
before.

After pSp (Richardson et al. 2021), e4e (Tov et al. 2021: one w and offsets from it) and ReStyle
(Alaluf et al. 2021: feedback of the rendered picture).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import ArgumentError, IncompatibleError
from latentedit.latent.spaces import W_PLUS, space_of
from latentedit.latent.w_statistics import WStatistics
from latentedit.networks.config import check_whole
from latentedit.networks.generator import Generator

LARGEST = 256
"""Larger images are reduced to this side."""


@dataclass(frozen=True)
class EncoderConfig:
    """Everything needed to build an encoder; stored with its weights."""

    resolution: int
    channels: int
    num_ws: int
    w_dim: int
    channel_base: int = 1536
    channel_max: int = 160
    """Number of feature maps at a side of r: min(channel_base // r, channel_max)."""
    hidden: int = 256
    passes: int = 3
    """Number of passes, as in training."""

    def __post_init__(self) -> None:
        check_whole("encoder", self, resolution=(8, 16384), passes=(1, 32))
        side = min(self.resolution, LARGEST)
        if side & (side - 1):
            raise ArgumentError.of(
                "encoder config: resolution", "a power of two from 8", self.resolution
            )
        names = ("channels", "num_ws", "w_dim", "channel_base", "channel_max", "hidden")
        check_whole("encoder", self, **dict.fromkeys(names, (1, 65536)))

    def features(self, side: int) -> int:
        return max(min(self.channel_base // side, self.channel_max), 1)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, generator: Generator) -> "EncoderConfig":
        """Return the default size for ``generator``: 3.4 million weights at 128 px and 256
        dimensions."""
        wide = generator.w_dim > 256
        return cls(
            generator.resolution,
            generator.channels,
            generator.num_ws,
            generator.w_dim,
            channel_base=8192 if wide else 1536,
            channel_max=512 if wide else 160,
            hidden=512 if wide else 256,
        )


class _Halving(nn.Module):
    """Residual block ``[N, I, H, W] -> [N, O, H / 2, W / 2]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        with torch.no_grad():
            # A block starts close to its skip connection, which lets a deep encoder train without
            # normalisation.
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))
        skip = self.skip(F.avg_pool2d(x, 2))
        return torch.add(skip, y)


class Encoder(nn.Module):
    """Predicts the step in w towards an image, from the image, the present rendering and its w.

    All w are in whitened coordinates u, with w = mean + u @ `WStatistics.colouring`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        side = min(config.resolution, LARGEST)
        sides = [side >> i for i in range(1, int(math.log2(side)) - 2)]  # half of it, down to 8
        self.stem = nn.Conv2d(8 * config.channels, config.features(side // 2), 3, padding=1)
        self.blocks = nn.ModuleList(
            _Halving(config.features(s), config.features(s // 2)) for s in sides
        )
        self.pictures = nn.Linear(config.features(4) * 16, config.hidden)
        self.position = nn.Linear(config.num_ws * config.w_dim, config.hidden)
        self.middle = nn.Linear(config.hidden, config.hidden)
        self.shared = nn.Linear(config.hidden, config.w_dim)
        self.offsets = nn.Linear(config.hidden, config.num_ws * config.w_dim)
        with torch.no_grad():
            for layer in (self.shared, self.offsets):
                # The first steps are small, so that the first renderings resemble the mean image
                # and not noise.
                layer.weight.mul_(0.1)

    def forward(self, image: Tensor, rendered: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return steps for all layers together ``[N, 1, w_dim]`` and for each
        ``[N, num_ws, w_dim]``, in whitened w.

        Args:
            image, rendered: ``[N, C, resolution, resolution]`` in [-1, 1].
            u: ``[N, num_ws, w_dim]``, the whitened w of ``rendered``.
        """
        # The difference says what is left to correct (ReStyle); the image itself is needed in the
        # first pass, which renders the mean.
        x = torch.cat([image, image - rendered], dim=1)
        if x.shape[-1] > LARGEST:
            x = F.interpolate(x, size=(LARGEST, LARGEST), mode="area")
        # 2 x 2 pixels become channels: full detail enters at a quarter of the cost of a convolution
        # at full size.
        x = self.stem(F.pixel_unshuffle(x, 2))
        for block in self.blocks:
            x = block(x)
        x = self.pictures(F.leaky_relu(x, 0.2).flatten(1)) + self.position(u.flatten(1))
        x = F.leaky_relu(x, 0.2)
        x = F.leaky_relu(x + self.middle(x), 0.2)
        return self.shared(x)[:, None], self.offsets(x).reshape(
            len(u), self.config.num_ws, self.config.w_dim
        )


@torch.no_grad()
def encode(
    generator: Generator,
    encoder: Encoder,
    image: Tensor,
    space: str = "w+",
    *,
    passes: int | None = None,
    statistics: WStatistics | None = None,
) -> Tensor:
    """Predict ws ``[N, num_ws, w_dim]`` of images ``[N, C, resolution, resolution]`` in [-1, 1],
    without any search.

    Args:
        space: "w" gives the same w for all layers.
        passes: number of passes; None for as many as in training.

    Raises:
        Error: the encoder belongs to a generator of a different size.
    """
    config = encoder.config
    sizes = (generator.resolution, generator.channels, generator.num_ws, generator.w_dim)
    if (config.resolution, config.channels, config.num_ws, config.w_dim) != sizes:
        raise IncompatibleError("this encoder was trained for a generator of a different size")

    statistics = statistics or WStatistics.of(generator)
    mean = statistics.mean.to(image.device)
    colouring = statistics.colouring.to(image.device)

    per_layer = space_of(space) is W_PLUS
    u = torch.zeros(len(image), config.num_ws, config.w_dim, device=image.device)
    for _ in range(passes or config.passes):
        rendered = generator.synthesis(mean + u @ colouring)
        shared, offsets = encoder(image, rendered, u)
        u = u + shared + (offsets if per_layer else 0)
    return mean + u @ colouring
