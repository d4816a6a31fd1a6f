"""The synthesis network of the first StyleGAN (Karras et al. 2019, figure 1b): adaptive instance
normalisation."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import ArgumentError
from latentedit.networks.config import DTYPES, GeneratorConfig, Precision, block_dtype
from latentedit.networks.layers import LRELU_GAIN, LRELU_SLOPE, Conv2d, FullyConnected, full, normal
from latentedit.networks.noise import Noise, noise_maps
from latentedit.networks.progressive import Growing, enlarge, with_box
from latentedit.ops import fir_taps, upfirdn2d
from latentedit.runtime.devices import exact_rendering


def adain(x: Tensor, styles: Tensor) -> Tensor:
    """Bring every map of ``x [N, C, H, W]`` to mean 0 and variance 1, times 1 + the first half of
    ``styles [N, 2 C]`` plus the second (StyleGAN, eq. 1; the 1 as in the published code).
    """
    # Variances of thousands of pixels overflow or vanish in half precision.
    wide = full(x)
    variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0)  # [N, C]
    scale, shift = styles.chunk(2, dim=1)
    scale = (scale + 1) * (variance + 1e-8).rsqrt()
    return torch.addcmul(
        (shift - mean * scale)[:, :, None, None], wide, scale[:, :, None, None]
    ).to(x.dtype)


class AdaINLayer(nn.Module):
    """3 x 3 convolution (none on the constant input), noise of a strength a channel, bias, leaky
    ReLU, AdaIN."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: int = 1,
        resample_filter: tuple[float, ...] = (1, 2, 1),
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.up = up
        # Scales and shifts of instance normalisation; scales are stored without the 1.
        self.affine = FullyConnected(w_dim, 2 * out_channels)
        # The first layer works on the constant, which has the right width already.
        if in_channels is not None:
            self.weight = nn.Parameter(normal(out_channels, in_channels, 3, 3))
            self.weight_gain = LRELU_GAIN / math.sqrt(in_channels * 9)
        self.noise_strength = nn.Parameter(torch.zeros(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", normal(resolution, resolution))
        self.register_buffer("resample_filter", fir_taps(resample_filter), persistent=False)

    def forward(self, x: Tensor, styles: Tensor, noise: Tensor | None) -> Tensor:
        """``styles`` ``[N, 2 O]`` (S space), ``noise`` None or ``[1 or N, 1, H up, W up]``, both
        float32."""
        bias = self.bias.to(x.dtype)
        if not hasattr(self, "weight"):
            x = x + bias[:, None, None]
        elif self.up == 1:
            x = F.conv2d(x, (self.weight * self.weight_gain).to(x.dtype), bias, padding=1)
        else:
            # Doubling by repetition followed by a convolution is one transposed convolution with a
            # wider kernel.
            kernel = with_box((self.weight * self.weight_gain).flip(2, 3)).to(x.dtype)
            x = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2, padding=1)
            x = (
                upfirdn2d(x, self.resample_filter, padding=self.resample_filter.shape[-1] // 2)
                + bias[:, None, None]
            )

        if noise is not None:
            x = x + (noise * self.noise_strength[:, None, None]).to(x.dtype)
        return adain(F.leaky_relu(x, LRELU_SLOPE, inplace=not torch.is_grad_enabled()), styles)


class AdaINBlock(nn.Module):
    """The layers of one resolution."""

    def __init__(self, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        out = config.features(resolution)
        w_dim = config.w_dim
        taps = config.resample_filter

        if resolution == 4:
            self.const = nn.Parameter(torch.ones(out, 4, 4))
            self.conv0 = AdaINLayer(None, out, w_dim, resolution, resample_filter=taps)
        else:
            self.conv0 = AdaINLayer(
                config.features(resolution // 2), out, w_dim, resolution, up=2, resample_filter=taps
            )

        self.conv1 = AdaINLayer(out, out, w_dim, resolution, resample_filter=taps)
        self.torgb = Conv2d(out, config.channels, 1)

    @property
    def convs(self) -> list[AdaINLayer]:
        return [self.conv0, self.conv1]

    def forward(
        self,
        x: Tensor | None,
        styles: Sequence[Tensor],
        noise: Sequence[Tensor | None],
        dtype: torch.dtype,
    ) -> Tensor:
        if x is None:
            x = self.const[None].expand(len(styles[0]), -1, -1, -1)
        x = x.to(dtype=dtype, memory_format=torch.channels_last)
        for conv, style, map_ in zip(self.convs, styles, noise, strict=True):
            x = conv(x, style, map_)
        return x


class AdaINSynthesis(Growing):
    """ws and noise to a picture: ``[N, num_ws, w_dim] -> [N, channels, resolution, resolution]``
    float32, about [-1, 1].

    The counterpart of `latentedit.networks.synthesis.SynthesisNetwork`. Every layer has a w and a
    noise input of its own. The picture is made by the finest ToRGB that the level of detail uses,
    blended with the next coarser one.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        for resolution in config.block_resolutions:
            setattr(self, f"b{resolution}", AdaINBlock(config, resolution))
        self.num_ws = len(self.layers)
        self.noise_shapes = [(1, 1, layer.resolution, layer.resolution) for layer in self.layers]

    @property
    def blocks(self) -> list[AdaINBlock]:
        return [getattr(self, f"b{resolution}") for resolution in self.config.block_resolutions]

    @property
    def layers(self) -> list[AdaINLayer]:
        """The layers, coarse to fine, each with a noise input."""
        return [layer for block in self.blocks for layer in block.convs]

    @property
    def noise_constants(self) -> list[Tensor]:
        """The noise maps stored in the network, ``[r, r]`` each, coarse to fine."""
        return [layer.noise_const for layer in self.layers]

    @property
    def affines(self) -> list[FullyConnected]:
        """The affine layers w -> style, one for each row of ws."""
        return [layer.affine for layer in self.layers]

    @property
    def style_layers(self) -> list[tuple[int, int]]:
        """For every entry of `styles` the row of ws that drives it and its width."""
        return [(row, len(layer.affine.bias)) for row, layer in enumerate(self.layers)]

    def styles(self, ws: Tensor) -> list[Tensor]:
        """S space: scales (without the 1) and biases of every layer, ``num_ws`` tensors
        ``[N, 2 O]``."""
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.config.w_dim):
            raise ArgumentError.of_shape("ws", f"[N, {self.num_ws}, {self.config.w_dim}]", ws.shape)
        return [layer.affine(w) for layer, w in zip(self.layers, ws.unbind(1), strict=True)]

    def forward(self, ws: Tensor, noise: Noise = "const", precision: Precision = "fp32") -> Tensor:
        """Render ``ws``; arguments as `latentedit.networks.synthesis.SynthesisNetwork.forward`."""
        return self.synthesize(self.styles(full(ws)), noise, precision)

    def synthesize(
        self, styles: Sequence[Tensor], noise: Noise = "const", precision: Precision = "fp32"
    ) -> Tensor:
        """Render from S space; ``styles`` as `AdaINSynthesis.styles` returns them."""
        if precision not in DTYPES:
            raise ArgumentError.of("precision", "fp32, bf16 or fp16", precision)
        maps = noise_maps(noise, self.noise_constants, len(styles[0]))
        with exact_rendering(styles[0].device):
            return self._run(styles, maps, precision)

    @property
    def feature_sides(self) -> list[int]:
        """Sides of the activations that `features` returns, coarse to fine."""
        return self.config.block_resolutions

    def features(self, styles: Sequence[Tensor], side: int, noise: Noise = "const") -> Tensor:
        """Compute the activations after the block of ``side`` pixels, ``[N, O, side, side]``, and
        nothing finer.

        Args:
            styles: as `AdaINSynthesis.styles` returns them.
            side: one of `feature_sides`.
        """
        maps = noise_maps(noise, self.noise_constants, len(styles[0]))
        x: Tensor | None = None
        with exact_rendering(styles[0].device):
            for index, block in enumerate(self.blocks[: self.feature_sides.index(side) + 1]):
                rows = slice(2 * index, 2 * index + 2)
                x = block(x, styles[rows], maps[rows], block.conv1.weight.dtype)
        assert x is not None
        return x

    def _run(
        self, styles: Sequence[Tensor], maps: Sequence[Tensor | None], precision: Precision
    ) -> Tensor:
        level = min(self.level, len(self.blocks) - 1.0)
        whole = int(level)
        share = level - int(level)
        blocks = self.blocks[: len(self.blocks) - whole]
        x: Tensor | None = None
        coarser: Tensor | None = None

        for index, block in enumerate(blocks):
            coarser = x
            rows = slice(2 * index, 2 * index + 2)
            x = block(
                x,
                styles[rows],
                maps[rows],
                block_dtype(precision, block.resolution, block.conv1.weight.dtype),
            )

        assert x is not None
        # Only the finest ToRGB draws: unlike StyleGAN2, the coarser ones are used while the network
        # grows.
        image = full(blocks[-1].torgb(x))
        if share and coarser is not None:
            image = torch.lerp(image, enlarge(full(blocks[-2].torgb(coarser))), share)
        return enlarge(image, 2**whole).contiguous()
