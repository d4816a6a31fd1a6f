"""The discriminator: the variants of StyleGAN2 (Karras et al. 2020, figure 7) and the growing one
of the first StyleGAN."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import ArgumentError
from latentedit.networks.config import (
    DEEPEST,
    LABELS,
    LARGEST,
    Precision,
    block_dtype,
    check_architecture,
    check_clamp,
    check_whole,
    check_widths,
    features,
    usual_taps,
)
from latentedit.networks.layers import (
    LRELU_GAIN,
    LRELU_SLOPE,
    Conv2d,
    FullyConnected,
    Resampling,
    full,
)
from latentedit.networks.mapping import MappingNetwork
from latentedit.networks.progressive import Growing, shrink, with_box
from latentedit.ops import downsample2d, fir_taps, upfirdn2d


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Everything needed to build a discriminator; stored in every model file that has one."""

    resolution: int
    channels: int = 3
    c_dim: int = 0
    channel_base: int = 32768
    channel_max: int = 512
    channel_widths: tuple[int, ...] = ()
    """Feature maps at 4, 8, 16 ... px, where they do not follow min(channel_base // r,
    channel_max)."""
    architecture: str = "resnet"
    """"resnet", "orig" or "skip", or "stylegan1"."""
    conv_clamp: float | None = None
    mbstd_group_size: int = 4
    """Pictures that share one minibatch standard deviation."""
    mbstd_channels: int = 1
    cmap_dim: int = 0
    """Width of the label projection; 0 takes the number of channels at 4 x 4. Unused without
    labels."""
    mapping_layers: int = 8
    resample_filter: tuple[float, ...] = ()
    """As in `GeneratorConfig`."""
    label_logits: bool = False
    """Whether there is a logit for every label, of which that of the picture's counts, as the
    networks of 2019 have it."""

    def __post_init__(self) -> None:
        check_architecture(self.resolution, self.architecture, self.channels)
        check_clamp(self.conv_clamp)
        check_widths(self.resolution, self.channel_base, self.channel_widths)
        check_whole(
            "discriminator",
            self,
            mbstd_group_size=(1, 1 << 30),
            mbstd_channels=(0, LARGEST),
            c_dim=(0, LABELS),
        )
        check_whole(
            "discriminator",
            self,
            cmap_dim=(0, LARGEST),
            mapping_layers=(0, DEEPEST),
            channel_max=(1, LARGEST),
        )
        check_whole("discriminator", self, channel_base=(1, LARGEST**2))
        object.__setattr__(self, "channel_widths", tuple(self.channel_widths))
        if not isinstance(self.label_logits, bool):
            raise ArgumentError.of(
                "discriminator config: label_logits", "true or false", self.label_logits
            )
        object.__setattr__(
            self, "resample_filter", usual_taps(self.architecture, self.resample_filter)
        )

    @property
    def block_resolutions(self) -> list[int]:
        """Fine to coarse, without the 4 x 4 head."""
        return [2**i for i in range(int(math.log2(self.resolution)), 2, -1)]

    def features(self, resolution: int) -> int:
        return features(resolution, self.channel_base, self.channel_max, self.channel_widths)

    def as_dict(self) -> dict[str, Any]:
        found = asdict(self)
        # files of other networks are as they were before there was this entry
        if not self.label_logits:
            del found["label_logits"]
        return found


def minibatch_std(x: Tensor, group_size: int, channels: int = 1) -> Tensor:
    """Append the standard deviation over groups of pictures as constant maps (Karras et al. 2018,
    section 3).

    ``[N, C, H, W] -> [N, C + channels, H, W]``. Picture n belongs to group n mod (N / group_size);
    a batch that ``group_size`` does not divide uses the largest smaller group that does.
    """
    n, c, h, w = x.shape
    group = next(g for g in range(min(group_size, n), 0, -1) if n % g == 0)
    # Groups are strided, not consecutive, as in the published code; another order would change
    # logits.
    y = full(x).reshape(group, n // group, channels, c // channels, h, w)
    y = (y - y.mean(dim=0)).square().mean(dim=0)
    # The small number keeps the gradient of the root finite for groups of equal images.
    y = (y + 1e-8).sqrt().mean(dim=(2, 3, 4))  # [N / group, channels]
    y = y[:, :, None, None].repeat(group, 1, h, w).to(x.dtype)
    return torch.cat([x, y], dim=1)


class DiscriminatorBlock(nn.Module):
    """The layers of one resolution; halves it."""

    resample_filter: Tensor

    def __init__(self, config: DiscriminatorConfig, resolution: int) -> None:
        super().__init__()
        self.architecture = config.architecture
        inside = config.features(resolution)
        out = config.features(resolution // 2)
        conv: dict[str, Any] = {"activation": True, "clamp": config.conv_clamp}
        # Downsampling has the generator's low-pass filter, so that neither network can tell images
        # by aliasing alone.
        halved = Resampling(down=2, taps=config.resample_filter)
        if resolution == config.resolution or config.architecture == "skip":
            self.fromrgb = Conv2d(config.channels, inside, 1, **conv)
        self.conv0 = Conv2d(inside, inside, 3, **conv)
        self.conv1 = Conv2d(inside, out, 3, resampling=halved, **conv)
        if config.architecture == "resnet":
            self.skip = Conv2d(inside, out, 1, bias=False, resampling=halved)
        self.register_buffer("resample_filter", fir_taps(config.resample_filter), persistent=False)

    def forward(
        self, x: Tensor | None, image: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        if x is not None:
            x = x.to(dtype)
        if hasattr(self, "fromrgb"):
            assert image is not None
            y = self.fromrgb(image.to(dtype))
            x = y if x is None else x + y
            image = (
                downsample2d(image, self.resample_filter) if self.architecture == "skip" else None
            )

        assert x is not None
        if self.architecture == "resnet":
            skip = self.skip(x, gain=math.sqrt(0.5))
            # As in the generator, sqrt(0.5) keeps the variance of a sum of two branches.
            return skip + self.conv1(self.conv0(x), gain=math.sqrt(0.5)), image
        return self.conv1(self.conv0(x)), image


class GrowingBlock(nn.Module):
    """The layers of one resolution in the first StyleGAN, and the layer that lets the network begin
    here."""

    resample_filter: Tensor

    def __init__(self, config: DiscriminatorConfig, resolution: int) -> None:
        super().__init__()
        inside = config.features(resolution)
        out = config.features(resolution // 2)
        self.fromrgb = Conv2d(config.channels, inside, 1, activation=True)
        self.conv0 = Conv2d(inside, inside, 3, activation=True)
        self.conv1 = Conv2d(inside, out, 3, activation=True)
        self.register_buffer("resample_filter", fir_taps(config.resample_filter), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = upfirdn2d(
            self.conv0(x), self.resample_filter, padding=self.resample_filter.shape[-1] // 2
        )
        assert self.conv1.bias is not None
        # Convolving and then averaging 2 x 2 is one strided convolution; the 4 makes a mean of the
        # sum.
        kernel = with_box(self.conv1.weight * (self.conv1.weight_gain * LRELU_GAIN / 4)).to(x.dtype)
        x = F.conv2d(x, kernel, (self.conv1.bias * LRELU_GAIN).to(x.dtype), stride=2, padding=1)
        return F.leaky_relu(x, LRELU_SLOPE)


class DiscriminatorEpilogue(nn.Module):
    """4 x 4 features to the logit, or to the vector that the label is projected on."""

    def __init__(self, config: DiscriminatorConfig, outputs: int) -> None:
        super().__init__()
        self.group_size = config.mbstd_group_size
        self.mbstd_channels = config.mbstd_channels
        width = config.features(4)
        if config.architecture in ("skip", "stylegan1"):
            self.fromrgb = Conv2d(config.channels, width, 1, activation=True)
        self.conv = Conv2d(
            width + config.mbstd_channels, width, 3, activation=True, clamp=config.conv_clamp
        )
        self.fc = FullyConnected(width * 16, width, activation=True)
        self.out = FullyConnected(width, outputs)

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        # The last layers decide about small differences between images, for which half precision is
        # too coarse.
        x = full(x)
        if image is not None:
            x = x + self.fromrgb(image)
        if self.mbstd_channels:
            x = minibatch_std(x, self.group_size, self.mbstd_channels)
        x = self.conv(x)
        out: Tensor = self.out(self.fc(x.flatten(1)))
        return out


class Discriminator(nn.Module):
    """Picture (and label) to a realness logit:
    ``[N, channels, resolution, resolution] -> [N, 1]``."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        for resolution in config.block_resolutions:
            setattr(self, f"b{resolution}", self._block(resolution))
        projected = config.c_dim > 0 and not config.label_logits
        self.cmap_dim = (config.cmap_dim or config.features(4)) if projected else 0
        if projected:
            self.mapping = MappingNetwork(
                0,
                config.c_dim,
                self.cmap_dim,
                None,
                num_layers=config.mapping_layers,
                track_average=False,
            )

        self.b4 = DiscriminatorEpilogue(
            config, self.cmap_dim or (config.c_dim if config.label_logits else 0) or 1
        )

    def __repr__(self) -> str:
        return f"Discriminator({self.config.resolution} px)"

    def _block(self, resolution: int) -> nn.Module:
        return DiscriminatorBlock(self.config, resolution)

    @property
    def blocks(self) -> list[Any]:
        return [getattr(self, f"b{resolution}") for resolution in self.config.block_resolutions]

    def features(
        self, image: Tensor, precision: Precision = "fp32", *, halved: bool = False
    ) -> list[Tensor]:
        """Return the activations after every block, fine to coarse, for use as a perceptual
        distance.

        Args:
            halved: ``image`` has half the resolution, so that everything in it is half as large as
                in training.
        """
        self._check(image, self.config.resolution // (2 if halved else 1))
        return self._trunk(image, precision)[0]

    def _check(self, image: Tensor, side: int) -> None:
        expected = (self.config.channels, side, side)
        if image.ndim != 4 or image.shape[1:] != expected:
            raise ArgumentError.of_shape(
                "image", f"[N, {', '.join(map(str, expected))}]", image.shape
            )

    def _trunk(self, image: Tensor, precision: Precision) -> tuple[list[Tensor], Tensor | None]:
        x: Tensor | None = None
        remaining: Tensor | None = image.to(memory_format=torch.channels_last)
        features = []
        for resolution, block in zip(self.config.block_resolutions, self.blocks, strict=True):
            x, remaining = block(
                x, remaining, block_dtype(precision, resolution, block.conv0.weight.dtype)
            )
            features.append(x)
        return features, remaining

    def forward(
        self, image: Tensor, c: Tensor | None = None, precision: Precision = "fp32"
    ) -> Tensor:
        self._check(image, self.config.resolution)
        features, remaining = self._trunk(image, precision)
        logits: Tensor = self.b4(features[-1], remaining)
        if self.cmap_dim:
            label = self.mapping(None, c)
            # Projection discriminator (Miyato and Koyama 2018), normalised so that logits do not
            # grow with its width.
            logits = (logits * label).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        elif self.config.c_dim:
            if c is None or c.shape != logits.shape:
                shape = None if c is None else list(c.shape)
                raise ArgumentError.of(
                    "c", f"one-hot labels of shape [{len(logits)}, {self.config.c_dim}]", str(shape)
                )
            # One logit per class, of which that of the image's own class counts, as in the networks
            # of 2019.
            logits = (logits * full(c)).sum(dim=1, keepdim=True)

        return logits


class GrowingDiscriminator(Discriminator, Growing):
    """The discriminator of the first StyleGAN, whose fine blocks can be switched off and faded
    in."""

    def _block(self, resolution: int) -> nn.Module:
        return GrowingBlock(self.config, resolution)

    def _trunk(self, image: Tensor, precision: Precision) -> tuple[list[Tensor], Tensor | None]:
        blocks: list[Any] = [*self.blocks, self.b4]
        level = min(self.level, len(self.blocks) * 1.0)
        first = int(level)
        image = shrink(image, 2**first).to(memory_format=torch.channels_last)
        types = [
            block_dtype(precision, size, self.b4.conv.weight.dtype)
            for size in [*self.config.block_resolutions, 4]
        ]
        x = blocks[first].fromrgb(image.to(types[first]))
        features = []

        for index, block in enumerate(self.blocks[first:], start=first):
            x = block(x.to(types[index]))
            share = level - index
            # While a resolution fades in, its features are mixed with those of the halved image
            # (Karras et al. 2018, figure 2).
            if 0 < share < 1:
                coarser = blocks[index + 1].fromrgb(shrink(image).to(types[index + 1]))
                x = torch.lerp(x.to(coarser.dtype), coarser, share)
            features.append(x)

        return features or [x], None


def build_discriminator(config: DiscriminatorConfig) -> Discriminator:
    """Return the network that ``config`` describes."""
    return (GrowingDiscriminator if config.architecture == "stylegan1" else Discriminator)(config)
