"""The StyleGAN2 generator: mapping network z -> w and synthesis network w -> picture (Karras et al. 2020)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import Error
from latentedit.layers import LRELU_GAIN, LRELU_SLOPE, Conv2d, FullyConnected, normalize_2nd_moment
from latentedit.modulation import convolve, folded_weight, prefers_folding, scaled_conv2d
from latentedit.ops import fir_filter, upsample2d

Noise = Literal["const", "random", "none"] | Sequence[Tensor]
Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LOWEST_REDUCED = 16
"""Blocks below this resolution stay float32 whatever the precision: they cost nothing and carry the composition."""


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


class MappingNetwork(nn.Module):
    """z and label to w: ``[N, z_dim], [N, c_dim] -> [N, num_ws, w_dim]``.

    With ``num_ws`` None the result is ``[N, w_dim]`` (the label mapping of the discriminator, where ``z_dim`` is 0).
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        *,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
        track_average: bool = True,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.num_layers = z_dim, c_dim, w_dim, num_ws, num_layers
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        for index in range(num_layers):
            inputs = z_dim + (w_dim if c_dim else 0) if index == 0 else w_dim
            setattr(self, f"fc{index}", FullyConnected(inputs, w_dim, activation=True, lr_multiplier=lr_multiplier))
        if track_average:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def map(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        """w before broadcasting and truncation, ``[N, w_dim]``."""
        parts = []
        if self.z_dim:
            if z is None or z.ndim != 2 or z.shape[1] != self.z_dim:
                raise Error(f"z must have shape [N, {self.z_dim}], got {None if z is None else list(z.shape)}")
            parts.append(normalize_2nd_moment(z.float()))
        if self.c_dim:
            if c is None or c.ndim != 2 or c.shape[1] != self.c_dim:
                raise Error(
                    f"this network is conditional: c must be one-hot labels of shape [N, {self.c_dim}],"
                    f" got {None if c is None else list(c.shape)}"
                )
            parts.append(normalize_2nd_moment(self.embed(c.float())))
        x = torch.cat(parts, dim=1)
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        return x

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """w for every layer; ``truncation_psi`` draws the first ``truncation_cutoff`` (None: all) to the mean."""
        w = self.map(z, c)
        if self.num_ws is None:
            return w
        ws = w[:, None].expand(-1, self.num_ws, -1)  # [N, num_ws, w_dim]
        if truncation_psi == 1:
            return ws.contiguous()
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([torch.lerp(self.w_avg, ws[:, :cutoff], truncation_psi), ws[:, cutoff:]], dim=1)

    @torch.no_grad()
    def update_average(self, w: Tensor, beta: float = 0.998) -> None:
        """Move the running mean towards the mean of ``w [N, w_dim]``; ``beta`` a call, as in training."""
        self.w_avg.lerp_(w.float().mean(dim=0), 1 - beta)


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise of a learned strength, bias, leaky ReLU: ``[N, I, H, W] -> [N, O, H up, W up]``."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: int = 1,
        clamp: float | None = None,
        resample_filter: tuple[float, ...] = (1, 3, 3, 1),
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.clamp = resolution, up, clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", fir_filter(resample_filter), persistent=False)

    def forward(self, x: Tensor, styles: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """``styles`` ``[N, I]`` (S space), ``noise`` None or ``[1 or N, 1, H up, W up]``, both float32."""
        scale = LRELU_GAIN * gain
        if not torch.is_grad_enabled():
            x = self.render(x, styles, noise, scale)
            return x if self.clamp is None else x.clamp_(-self.clamp * gain, self.clamp * gain)
        x = scaled_conv2d(x, self.weight, styles, up=self.up, filter=self.resample_filter, gain=scale)
        offset = (self.bias * scale)[None, :, None, None].to(x.dtype)
        x = x + offset if noise is None else x + (noise * (self.noise_strength * scale)).to(x.dtype) + offset
        x = F.leaky_relu(x, LRELU_SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)

    def render(self, x: Tensor, styles: Tensor, noise: Tensor | None, scale: float) -> Tensor:
        bias = (self.bias * scale).to(x.dtype)
        if len(x) == 1:
            weight = folded_weight(self.weight, styles, gain=scale).to(x.dtype)
            y = convolve(x, weight, self.up, self.resample_filter, bias=bias)
        else:
            y = scaled_conv2d(x, self.weight, styles, up=self.up, filter=self.resample_filter, gain=scale)
            y += bias[:, None, None]
        if noise is not None:
            y += (noise * (self.noise_strength * scale)).to(x.dtype)
        return F.leaky_relu_(y, LRELU_SLOPE)


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution without demodulation: ``[N, I, H, W] -> [N, channels, H, W]`` float32."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        # Output channels are few, so one small weight a picture, applied as a matrix product over positions.
        weight = (self.weight.flatten(1) * (styles * self.weight_gain)[:, None]).to(x.dtype)  # [N, C, I]
        n, _, h, w = x.shape
        rgb = torch.bmm(weight, x.flatten(2)) if x.is_contiguous() else _pixelwise(weight, x)
        rgb = rgb.reshape(n, -1, h, w).float() + self.bias[:, None, None]
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


def _pixelwise(weight: Tensor, x: Tensor) -> Tensor:
    """``weight [N, C, I]`` times channels_last ``x [N, I, H, W]`` without moving ``x``: ``[N, C, H * W]``."""
    return torch.bmm(x.permute(0, 2, 3, 1).flatten(1, 2), weight.transpose(1, 2)).transpose(1, 2)


class SynthesisBlock(nn.Module):
    """The layers of one resolution."""

    resample_filter: Tensor

    def __init__(self, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        first, last = resolution == 4, resolution == config.resolution
        self.architecture, self.resolution = config.architecture, resolution
        out = config.features(resolution)
        layer: dict[str, Any] = {"clamp": config.conv_clamp, "resample_filter": config.resample_filter}
        if first:
            self.const = nn.Parameter(torch.randn(out, 4, 4))
        else:
            self.conv0 = SynthesisLayer(config.features(resolution // 2), out, config.w_dim, resolution, up=2, **layer)
        self.conv1 = SynthesisLayer(out, out, config.w_dim, resolution, **layer)
        if last or config.architecture == "skip":
            self.torgb = ToRGB(out, config.channels, config.w_dim, clamp=config.conv_clamp)
        if not first and config.architecture == "resnet":
            inputs = config.features(resolution // 2)
            self.skip = Conv2d(inputs, out, 1, bias=False, up=2, resample_filter=config.resample_filter)
        self.register_buffer("resample_filter", fir_filter(config.resample_filter), persistent=False)

    @property
    def convs(self) -> list[SynthesisLayer]:
        return [self.conv1] if self.resolution == 4 else [self.conv0, self.conv1]

    @property
    def folds(self) -> bool:
        """Whether several pictures are rendered one by one from this block on."""
        weight = self.conv1.weight
        return self.resolution > 4 and prefers_folding(weight.numel(), len(weight) * self.resolution**2)

    @property
    def has_rgb(self) -> bool:
        return hasattr(self, "torgb")

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        styles: Sequence[Tensor],
        noise: Sequence[Tensor | None],
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        if x is None:
            x = self.const[None].expand(len(styles[0]), -1, -1, -1)
        x = x.to(dtype=dtype, memory_format=torch.channels_last)
        if self.resolution == 4:
            x = self.conv1(x, styles[0], noise[0])
        elif self.architecture == "resnet":
            skip = self.skip(x, gain=math.sqrt(0.5))
            x = self.conv0(x, styles[0], noise[0])
            x = skip + self.conv1(x, styles[1], noise[1], gain=math.sqrt(0.5))
        else:
            x = self.conv1(self.conv0(x, styles[0], noise[0]), styles[1], noise[1])
        if image is not None:
            image = upsample2d(image, self.resample_filter)
        if self.has_rgb:
            rgb = self.torgb(x, styles[-1])
            image = rgb if image is None else image + rgb
        return x, image


class SynthesisNetwork(nn.Module):
    """ws and noise to a picture: ``[N, num_ws, w_dim] -> [N, channels, resolution, resolution]`` float32, about [-1, 1]."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        for resolution in config.block_resolutions:
            setattr(self, f"b{resolution}", SynthesisBlock(config, resolution))
        # A block's ToRGB shares its w with the next block's first convolution, so only the last one adds a row.
        self.num_ws = len(self.layers) + 1
        self.noise_shapes = [(1, 1, layer.resolution, layer.resolution) for layer in self.layers]

    @property
    def blocks(self) -> list[SynthesisBlock]:
        return [getattr(self, f"b{resolution}") for resolution in self.config.block_resolutions]

    @property
    def layers(self) -> list[SynthesisLayer]:
        """The layers that take noise, coarse to fine."""
        return [layer for block in self.blocks for layer in block.convs]

    def styles(self, ws: Tensor) -> list[Tensor]:
        """S space: the affine output of every layer in order of use, ``num_ws`` convolutions and ToRGBs, each ``[N, I]``."""
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.config.w_dim):
            raise Error(f"ws must have shape [N, {self.num_ws}, {self.config.w_dim}], got {list(ws.shape)}")
        styles, row = [], 0
        for block in self.blocks:
            for conv in block.convs:
                styles.append(conv.affine(ws[:, row]))
                row += 1
            if block.has_rgb:
                styles.append(block.torgb.affine(ws[:, row]))
        return styles

    def forward(self, ws: Tensor, noise: Noise = "const", precision: Precision = "fp32") -> Tensor:
        """Render ``ws``.

        Args:
            noise: "const" (the maps stored in the network), "random" (fresh ones), "none", or a list of
                ``[1 or N, 1, h, w]`` maps, coarse to fine.
            precision: "bf16" or "fp16" computes the blocks from 16 x 16 up in that type.

        Outside ``torch.no_grad()`` the result is differentiable to any order in ``ws``, noise and parameters.
        """
        return self.synthesize(self.styles(ws.float()), noise, precision)

    def synthesize(self, styles: Sequence[Tensor], noise: Noise = "const", precision: Precision = "fp32") -> Tensor:
        """Render from S space; ``styles`` as `SynthesisNetwork.styles` returns them."""
        if precision not in DTYPES:
            raise Error(f"precision must be fp32, bf16 or fp16, got {precision!r}")
        maps = self.noise_maps(noise, len(styles[0]), styles[0].device)
        return self._run(self.blocks, None, None, styles, maps, DTYPES[precision])

    def _run(
        self,
        blocks: Sequence[SynthesisBlock],
        x: Tensor | None,
        image: Tensor | None,
        styles: Sequence[Tensor],
        maps: Sequence[Tensor | None],
        dtype: torch.dtype,
    ) -> Tensor:
        batch = len(styles[0])
        for index, block in enumerate(blocks):
            if batch > 1 and block.folds and not torch.is_grad_enabled():
                # From here on picture by picture: weights are folded, and activations stay small and near.
                pictures = []
                for i in range(batch):
                    one = slice(i, i + 1)
                    own = [map_ if map_ is None or len(map_) == 1 else map_[one] for map_ in maps]
                    before = None if image is None else image[one]
                    assert x is not None
                    pictures.append(self._run(blocks[index:], x[one], before, [s[one] for s in styles], own, dtype))
                return torch.cat(pictures)
            convs, count = len(block.convs), len(block.convs) + block.has_rgb
            x, image = block(
                x, image, styles[:count], maps[:convs], dtype if block.resolution >= LOWEST_REDUCED else torch.float32
            )
            styles, maps = styles[count:], maps[convs:]
        assert image is not None
        return image.contiguous()

    def noise_maps(self, noise: Noise, batch: int, device: torch.device) -> list[Tensor | None]:
        """The maps that ``noise`` stands for, one a noise input."""
        layers = self.layers
        if isinstance(noise, str):
            if noise == "none":
                return [None] * len(layers)
            if noise == "const":
                return [layer.noise_const[None, None] for layer in layers]
            if noise == "random":
                return [torch.randn(batch, *shape[1:], device=device) for shape in self.noise_shapes]
            raise Error(f'noise must be "const", "random", "none" or a list of maps, got {noise!r}')
        if len(noise) != len(layers):
            raise Error(f"expected {len(layers)} noise maps, coarse to fine, got {len(noise)}")
        for map_, shape in zip(noise, self.noise_shapes, strict=True):
            if map_.shape[1:] != shape[1:] or map_.shape[0] not in (1, batch):
                raise Error(
                    f"noise map must have shape [1 or {batch}, {', '.join(map(str, shape[1:]))}], got {list(map_.shape)}"
                )
        return list(noise)


class Generator(nn.Module):
    """Mapping and synthesis together: ``[N, z_dim] -> [N, channels, resolution, resolution]``."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(config)
        self.mapping = MappingNetwork(
            config.z_dim,
            config.c_dim,
            config.w_dim,
            self.synthesis.num_ws,
            num_layers=config.mapping_layers,
            lr_multiplier=config.mapping_lr_multiplier,
        )

    @property
    def resolution(self) -> int:
        return self.config.resolution

    @property
    def channels(self) -> int:
        return self.config.channels

    @property
    def z_dim(self) -> int:
        return self.config.z_dim

    @property
    def w_dim(self) -> int:
        return self.config.w_dim

    @property
    def c_dim(self) -> int:
        return self.config.c_dim

    @property
    def num_ws(self) -> int:
        return self.synthesis.num_ws

    @property
    def device(self) -> torch.device:
        return self.mapping.w_avg.device

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: Noise = "const",
        precision: Precision = "fp32",
    ) -> Tensor:
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        image: Tensor = self.synthesis(ws, noise, precision)
        return image
