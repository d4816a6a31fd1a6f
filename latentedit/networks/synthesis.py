"""The synthesis network w -> picture (Karras et al. 2020, figures 2 and 7)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentedit.errors import ArgumentError
from latentedit.networks.config import DTYPES, GeneratorConfig, Precision, block_dtype
from latentedit.networks.layers import LRELU_GAIN, Conv2d, FullyConnected, Resampling, full, normal
from latentedit.networks.modulation import modulated_layer, prefers_folding
from latentedit.networks.noise import Noise, noise_maps
from latentedit.ops import fir_taps, upsample2d
from latentedit.runtime.devices import exact_rendering

STRIP = 2**22
"""Activations of a layer beyond which a single picture is rendered in strips: measured, 16 MB in
float32."""


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise of a learned strength, bias, leaky ReLU:
    ``[N, I, H, W] -> [N, O, H up, W up]``."""

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
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.up = up
        self.clamp = clamp
        # Styles start at 1, so that an untrained network neither damps nor amplifies its features
        # (StyleGAN, appendix C).
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(normal(out_channels, in_channels, 3, 3))
        # One strength per layer, from 0: the network learns how much noise it can use.
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", normal(*(size or (resolution, resolution))))
        self.register_buffer("resample_filter", fir_taps(resample_filter), persistent=False)

    def forward(self, x: Tensor, styles: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """``styles`` ``[N, I]`` (S space), ``noise`` None or ``[1 or N, 1, H up, W up]``, both
        float32."""
        # The activation's gain is applied to noise and bias before it: leaky ReLU is positively
        # homogeneous, so one multiplication of the activations is saved.
        scale = LRELU_GAIN * gain
        noise = None if noise is None else noise * (self.noise_strength * scale)
        filter = self.resample_filter
        x = modulated_layer(
            x, self.weight, styles, noise, self.bias * scale, up=self.up, filter=filter, gain=scale
        )
        if self.clamp is None:
            return x

        # Networks trained in half precision saw activations clamped here, and draw other images
        # without it.
        limit = self.clamp * gain
        return x.clamp(-limit, limit) if torch.is_grad_enabled() else x.clamp_(-limit, limit)


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution without demodulation: ``[N, I, H, W] -> [N, channels, H, W]``
    float32."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, *, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(normal(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # Equalised learning rate: weights are stored with variance 1 and scaled at run time (Karras
        # et al. 2018, section 4.1).
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        # Output channels are few, so one small weight a picture, applied as a matrix product over
        # positions.
        # [N, C, I]
        weight = (self.weight.flatten(1) * (styles * self.weight_gain)[:, None]).to(x.dtype)
        n, _, h, w = x.shape
        rgb = torch.bmm(weight, x.flatten(2)) if x.is_contiguous() else _pixelwise(weight, x)
        rgb = full(rgb.reshape(n, -1, h, w)) + self.bias[:, None, None]
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


def _pixelwise(weight: Tensor, x: Tensor) -> Tensor:
    """Return ``weight [N, C, I]`` times channels_last ``x [N, I, H, W]`` without moving ``x``:
    ``[N, C, H * W]``."""
    result: Tensor = _Product.apply(x.permute(0, 2, 3, 1).flatten(1, 2), weight)  # type: ignore[no-untyped-call]
    return result.transpose(1, 2)


class _Product(torch.autograd.Function):
    """``x [N, P, I]`` times transposed ``weight [N, C, I]``, with the order of factors that is
    quick where C is 1 or 3."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.bmm(x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight = ctx.needs_input_grad
        for_x = torch.bmm(gradient, weight) if to_x else None
        return for_x, torch.bmm(gradient.transpose(1, 2), x) if to_weight else None


class SynthesisBlock(nn.Module):
    """The layers of one resolution."""

    resample_filter: Tensor

    def __init__(self, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        first = resolution == 4
        last = resolution == config.resolution
        self.architecture = config.architecture
        self.resolution = resolution
        self.size = config.size_at(resolution)
        """Height and width of what leaves the block."""
        out = config.features(resolution)
        layer: dict[str, Any] = {
            "clamp": config.conv_clamp,
            "resample_filter": config.resample_filter,
            "size": config.size_at(resolution),
        }

        if first:
            self.const = nn.Parameter(normal(out, *self.size))
        else:
            self.conv0 = SynthesisLayer(
                config.features(resolution // 2), out, config.w_dim, resolution, up=2, **layer
            )

        self.conv1 = SynthesisLayer(out, out, config.w_dim, resolution, **layer)
        if last or config.architecture == "skip":
            self.torgb = ToRGB(out, config.channels, config.w_dim, clamp=config.conv_clamp)
        # Figure 7c: a residual generator has one ToRGB at the end, and a 1 x 1 convolution around
        # every block.
        if not first and config.architecture == "resnet":
            inputs = config.features(resolution // 2)
            doubled = Resampling(up=2, taps=config.resample_filter)
            self.skip = Conv2d(inputs, out, 1, bias=False, resampling=doubled)

        self.register_buffer("resample_filter", fir_taps(config.resample_filter), persistent=False)

    @property
    def convs(self) -> list[SynthesisLayer]:
        return [self.conv1] if self.resolution == 4 else [self.conv0, self.conv1]

    @property
    def folds(self) -> bool:
        """Whether several pictures are rendered one by one from this block on."""
        weight = self.conv1.weight
        return self.resolution > 4 and prefers_folding(
            weight.numel(), len(weight) * math.prod(self.size)
        )

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
        """``x [N, I, r / 2, r / 2]`` and the picture so far to those of resolution r; the coarsest
        block starts with None."""
        # Strips pay off only where one image would leave the processor's cache, and gradients would
        # have to be summed over the overlaps.
        alone = (
            x is not None and len(x) == 1 and x.device.type == "cpu" and not torch.is_grad_enabled()
        )
        if x is None or not alone or self.strip >= self.size[0]:
            return self._whole(x, image, styles, noise, dtype)
        return self._in_strips(x, image, styles, noise, dtype)

    @property
    def strip(self) -> int:
        """Rows that are rendered at a time, so that what one operation writes is still near when
        the next one reads it."""
        rows = STRIP // (len(self.conv1.weight) * self.size[1])
        return max(1 << rows.bit_length() - 1 if rows else 0, 16)

    def _in_strips(
        self,
        x: Tensor,
        image: Tensor | None,
        styles: Sequence[Tensor],
        noise: Sequence[Tensor | None],
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        height, width = self.size
        half = height // 2
        taps = self.resample_filter.shape[-1]
        before = (taps + 1) // 2 - 1

        # rows of x that a strip's margin would be wrong without
        halo = (max(before + 2, taps - before) + 1) // 2
        features = None
        pictures = []

        for top in range(0, height, self.strip):
            low = max(top // 2 - halo, 0)
            high = min((top + self.strip) // 2 + halo, half)
            # The margins of a strip are computed twice and cut off, which costs less than
            # exchanging them between strips.
            maps = [m if m is None else m[:, :, 2 * low : 2 * high] for m in noise]
            part, picture = self._whole(
                x[:, :, low:high],
                None if image is None else image[:, :, low:high],
                styles,
                maps,
                dtype,
            )
            rows = slice(top - 2 * low, top - 2 * low + self.strip)
            if features is None:
                form = torch.channels_last
                features = torch.empty(
                    (1, part.shape[1], height, width),
                    dtype=dtype,
                    device=x.device,
                    memory_format=form,
                )

            features[:, :, top : top + self.strip] = part[:, :, rows]
            if picture is not None:
                pictures.append(picture[:, :, rows])

        assert features is not None
        return features, torch.cat(pictures, dim=2) if pictures else None

    def _whole(
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
            # Both branches have variance 1; the factor keeps their sum there (figure 7c).
            skip = self.skip(x, gain=math.sqrt(0.5))
            x = self.conv0(x, styles[0], noise[0])
            x = skip + self.conv1(x, styles[1], noise[1], gain=math.sqrt(0.5))
        else:
            x = self.conv1(self.conv0(x, styles[0], noise[0]), styles[1], noise[1])

        if image is not None:
            # Output skips (figure 7b): every resolution adds its contribution to the upsampled
            # image.
            image = upsample2d(image, self.resample_filter)
        if self.has_rgb:
            rgb = self.torgb(x, styles[-1])
            image = rgb if image is None else image + rgb
        return x, image


class SynthesisNetwork(nn.Module):
    """ws and noise to a picture: ``[N, num_ws, w_dim] -> [N, channels, resolution, resolution]``
    float32, about [-1, 1]."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        for resolution in config.block_resolutions:
            setattr(self, f"b{resolution}", SynthesisBlock(config, resolution))
        # A block's ToRGB shares its w with the next block's first convolution, so only the last one
        # adds a row.
        self.num_ws = len(self.layers) + 1
        self.noise_shapes = [(1, 1, *layer.noise_const.shape) for layer in self.layers]

    @property
    def blocks(self) -> list[SynthesisBlock]:
        return [getattr(self, f"b{resolution}") for resolution in self.config.block_resolutions]

    @property
    def layers(self) -> list[SynthesisLayer]:
        """The layers that take noise, coarse to fine."""
        return [layer for block in self.blocks for layer in block.convs]

    @property
    def noise_constants(self) -> list[Tensor]:
        """The noise maps stored in the network, ``[r, r]`` each, coarse to fine."""
        return [layer.noise_const for layer in self.layers]

    @property
    def affines(self) -> list[FullyConnected]:
        """The affine layers w -> style, one for each row of ws; all ToRGBs but the last share their
        w with a convolution."""
        return [*(layer.affine for layer in self.layers), self.blocks[-1].torgb.affine]

    @property
    def style_layers(self) -> list[tuple[int, int]]:
        """For every entry of `styles` the row of ws that drives it and its width; a ToRGB shares
        that of the next block."""
        found = []
        row = 0
        for block in self.blocks:
            affines = [conv.affine for conv in block.convs] + (
                [block.torgb.affine] if block.has_rgb else []
            )
            found += [(row + index, len(affine.bias)) for index, affine in enumerate(affines)]
            row += len(block.convs)

        return found

    def styles(self, ws: Tensor) -> list[Tensor]:
        """S space: the affine output of every layer in order of use, ``num_ws`` convolutions and
        ToRGBs, each ``[N, I]``."""
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.config.w_dim):
            raise ArgumentError.of_shape("ws", f"[N, {self.num_ws}, {self.config.w_dim}]", ws.shape)
        styles = []
        row = 0
        # Taken apart at once: the gradient of a row on its own is a whole ws of zeros around it.
        rows = ws.unbind(1)
        for block in self.blocks:
            for conv in block.convs:
                styles.append(conv.affine(rows[row]))
                row += 1
            if block.has_rgb:
                # `row` has already moved on: a ToRGB uses the w of the next block's first
                # convolution.
                styles.append(block.torgb.affine(rows[row]))

        return styles

    def forward(self, ws: Tensor, noise: Noise = "const", precision: Precision = "fp32") -> Tensor:
        """Render ``ws``.

        Args:
            noise: "const" (the maps stored in the network), "random" (fresh ones), "none", or a
                list of ``[1 or N, 1, h, w]`` maps, coarse to fine.
            precision: "bf16" or "fp16" computes the blocks from 16 x 16 up in that type.

        Outside ``torch.no_grad()`` the result is differentiable to any order in ``ws``, noise and
        parameters.
        """
        return self.synthesize(self.styles(full(ws)), noise, precision)

    def synthesize(
        self, styles: Sequence[Tensor], noise: Noise = "const", precision: Precision = "fp32"
    ) -> Tensor:
        """Render from S space; ``styles`` as `SynthesisNetwork.styles` returns them."""
        if precision not in DTYPES:
            raise ArgumentError.of("precision", "fp32, bf16 or fp16", precision)
        maps = noise_maps(noise, self.noise_constants, len(styles[0]))
        with exact_rendering(styles[0].device):
            return self._run(self.blocks, None, None, styles, maps, precision)

    @property
    def feature_sides(self) -> list[int]:
        """Sides of the activations that `features` returns, coarse to fine."""
        return self.config.block_resolutions

    def features(self, styles: Sequence[Tensor], side: int, noise: Noise = "const") -> Tensor:
        """Compute the activations after the block of ``side`` pixels, ``[N, O, side, side]``
        (in a non-square network, as its block has them), and nothing finer.

        Args:
            styles: as `SynthesisNetwork.styles` returns them.
            side: one of `feature_sides`.
        """
        maps = noise_maps(noise, self.noise_constants, len(styles[0]))
        x: Tensor | None = None
        with exact_rendering(styles[0].device):
            for block in self.blocks[: self.feature_sides.index(side) + 1]:
                convs = len(block.convs)
                count = convs + block.has_rgb
                x, _ = block(x, None, styles[:count], maps[:convs], block.conv1.weight.dtype)
                styles = styles[count:]
                maps = maps[convs:]
        assert x is not None
        return x

    def _run(
        self,
        blocks: Sequence[SynthesisBlock],
        x: Tensor | None,
        image: Tensor | None,
        styles: Sequence[Tensor],
        maps: Sequence[Tensor | None],
        precision: Precision,
    ) -> Tensor:
        batch = len(styles[0])
        # a GPU has no caches to stay in, and likes large batches
        on_cpu = styles[0].device.type == "cpu"
        for index, block in enumerate(blocks):
            if batch > 1 and on_cpu and block.folds and not torch.is_grad_enabled():
                # From here on picture by picture: weights are folded, and activations stay small
                # and near.
                pictures = []
                for i in range(batch):
                    one = slice(i, i + 1)
                    own = [map_ if map_ is None or len(map_) == 1 else map_[one] for map_ in maps]
                    before = None if image is None else image[one]
                    assert x is not None
                    pictures.append(
                        self._run(
                            blocks[index:], x[one], before, [s[one] for s in styles], own, precision
                        )
                    )
                return torch.cat(pictures)

            convs = len(block.convs)
            count = len(block.convs) + block.has_rgb
            dtype = block_dtype(precision, block.resolution, block.conv1.weight.dtype)
            x, image = block(x, image, styles[:count], maps[:convs], dtype)
            styles = styles[count:]
            maps = maps[convs:]

        assert image is not None
        return image.contiguous()
