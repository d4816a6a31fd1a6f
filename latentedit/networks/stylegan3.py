"""The alias-free synthesis network of StyleGAN3 (Karras et al. 2021, figure 4 and appendix F)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import ArgumentError
from latentedit.networks.alias_free import FilteredLayer, filtered_layers
from latentedit.networks.config import DTYPES, GeneratorConfig, Precision
from latentedit.networks.filtered_activation import ActivationPlan, filtered_activation
from latentedit.networks.layers import LRELU_GAIN, LRELU_SLOPE, FullyConnected, full, normal
from latentedit.networks.noise import Noise, noise_maps
from latentedit.runtime.devices import exact_rendering

REDUCED = 8
"""Layers of at least this part of the picture's sampling rate are computed in reduced precision, if
that is asked for."""


class FourierInput(nn.Module):
    """The input: sines of fixed frequencies over the picture, turned and moved as a w says (section
    3.2).

    ``styles [N, 4]`` are cosine and sine of the angle, up to a common factor, and the shift to the
    right and down as a share of the picture.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, w_dim: int, first: FilteredLayer) -> None:
        super().__init__()
        self.size = first.in_size
        self.rate = first.in_rate
        self.bandwidth = first.in_cutoff
        channels = first.inputs
        self.affine = FullyConnected(w_dim, 4)
        self.weight = nn.Parameter(normal(channels, channels))
        angles = normal(channels, std=100)
        radii = torch.linspace(0, 1, channels).sqrt() * self.bandwidth  # uniform over a disc
        self.register_buffer(
            "freqs", torch.stack([angles.cos() * radii, angles.sin() * radii], dim=1)
        )
        self.register_buffer("phases", normal(channels))
        self.register_buffer("transform", torch.eye(3))
        if not self.weight.is_meta:
            nn.init.zeros_(self.affine.weight)
            self.affine.bias.data[0] = 1

    def forward(self, styles: Tensor) -> Tensor:
        """Return ``[N, C, size, size]``."""
        cosine, sine, across, down = (styles / styles[:, :2].norm(dim=1, keepdim=True)).unbind(
            dim=1
        )
        zero = torch.zeros_like(cosine)
        one = torch.ones_like(cosine)
        turn = torch.stack(
            [cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1
        ).reshape(-1, 3, 3)
        shift = torch.stack([one, zero, -across, zero, one, -down, zero, zero, one], dim=1).reshape(
            -1, 3, 3
        )

        # [N, 3, 3], from places in the picture to those in the field of sines
        places = turn @ shift @ self.transform
        phases = self.phases + (self.freqs @ places[:, :2, 2:]).squeeze(2)  # [N, C]
        freqs = self.freqs @ places[:, :2, :2]  # [N, C, 2]

        # What a transform moves beyond the band would alias, so it fades.
        beyond = (freqs.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        amplitudes = (1 - beyond).clamp(0, 1)  # [N, C]
        axis = (
            torch.arange(self.size, device=styles.device, dtype=styles.dtype) + 0.5 - self.size / 2
        ) / self.rate
        x, y = (axis[:, None] * freqs[:, None, :, i] for i in (0, 1))  # [N, size, C]
        cycles = x[:, None] + (y + phases[:, None])[:, :, None]  # [N, size, size, C]
        waves = torch.sin(2 * math.pi * cycles) * amplitudes[:, None, None]
        field: Tensor = waves @ (self.weight / math.sqrt(len(self.weight))).t()
        return field.permute(0, 3, 1, 2)  # channels_last


class AliasFreeLayer(nn.Module):
    """Modulated convolution, bias, and an activation between filters:
    ``[N, I, H, W] -> [N, O, H', W']``.

    The output layer has a 1 x 1 convolution without demodulation, and neither activation nor
    filters.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, w_dim: int, design: FilteredLayer, clamp: float | None) -> None:
        super().__init__()
        self.design = design
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, design.inputs, bias_init=1)
        self.weight = nn.Parameter(
            normal(design.outputs, design.inputs, design.kernel, design.kernel)
        )
        self.bias = nn.Parameter(torch.zeros(design.outputs))
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.build_filters()

    def build_filters(self) -> None:
        """Compute the filters, which are in no file, from the design."""
        self.register_buffer("up_filter", self.design.up_filter(), persistent=False)
        self.register_buffer("down_filter", self.design.down_filter(), persistent=False)

    @property
    def resampling(self) -> ActivationPlan:
        design = self.design
        slope, gain = (1.0, 1.0) if design.rgb else (LRELU_SLOPE, LRELU_GAIN)
        return ActivationPlan(design.up, design.down, design.padding, slope, gain, self.clamp)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """``styles`` ``[N, I]`` (S space) float32; the dtype of ``x`` is that of the
        computation."""
        before, after = self._factors(styles)
        x = self._convolve(x, before, after)
        return filtered_activation(x, self.up_filter, self.down_filter, self.resampling)

    def _factors(self, styles: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what multiplies inputs ``[N, I]`` and outputs ``[N, O]`` of the convolution
        (StyleGAN2, eq. 1 to 3), with the input scaled to a mean square of 1 on average over the
        training (appendix F, magnitude averages)."""
        scale = self.magnitude_ema.rsqrt()
        if self.design.rgb:
            return styles * (scale / math.sqrt(self.design.inputs)), None
        # Demodulation cancels any factor on weights or styles; those of mean square 1 keep half
        # precision from overflowing.
        energy = self.weight.square().sum(dim=(2, 3))  # [O, I]
        size = energy.mean(dim=1, keepdim=True) / self.design.kernel**2
        styles = styles * styles.square().mean(dim=1, keepdim=True).rsqrt()
        after = (styles.square() @ (energy / size).t() + 1e-8).rsqrt() * size.rsqrt().t()
        return styles * scale, after

    def _convolve(self, x: Tensor, before: Tensor, after: Tensor | None) -> Tensor:
        """Return a full convolution, whose result is larger than its input by ``kernel - 1``, and
        the bias."""
        padding = self.design.kernel - 1
        bias = self.bias.to(x.dtype)
        if len(x) > 1 and x.device.type != "cpu":
            y = F.conv2d(
                x * before.to(x.dtype)[:, :, None, None], self.weight.to(x.dtype), padding=padding
            )
            y = y if after is None else y * after.to(x.dtype)[:, :, None, None]
            return y + bias[:, None, None]

        # On CPUs the factors cost less inside the weights of one convolution a picture than on
        # activations.
        results = []
        for index in range(len(before)):
            weight = self.weight * before[index, :, None, None]
            weight = weight if after is None else weight * after[index, :, None, None, None]
            weight = weight.to(x.dtype).contiguous(memory_format=torch.channels_last)
            one = x[index : index + 1].contiguous(memory_format=torch.channels_last)
            results.append(F.conv2d(one, weight, bias, padding=padding))

        return results[0] if len(results) == 1 else torch.cat(results)


class AliasFreeSynthesis(nn.Module):
    """ws to a picture: ``[N, num_ws, w_dim] -> [N, channels, resolution, resolution]`` float32,
    about [-1, 1].

    The counterpart of `latentedit.networks.synthesis.SynthesisNetwork`. The first w is that of the
    input, which it turns and moves; every layer has one of its own. There are no noise inputs.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        assert config.alias_free is not None
        self.config = config
        designs = filtered_layers(config)
        self.input = FourierInput(config.w_dim, designs[0])
        self.layer_names = [design.name for design in designs]
        for design in designs:
            setattr(self, design.name, AliasFreeLayer(config.w_dim, design, config.conv_clamp))
        self.num_ws = len(designs) + 1
        self.noise_shapes: list[tuple[int, int, int, int]] = []
        self.noise_constants: list[Tensor] = []

    @property
    def layers(self) -> list[AliasFreeLayer]:
        """The layers, coarse to fine, the output last."""
        return [getattr(self, name) for name in self.layer_names]

    @property
    def affines(self) -> list[FullyConnected]:
        """The affine layers w -> style, one for each row of ws."""
        return [self.input.affine, *(layer.affine for layer in self.layers)]

    @property
    def parameter_rows(self) -> dict[str, int]:
        """For the first part of every parameter's name the row of ws that drives its layer."""
        return {name: row for row, name in enumerate(["input", *self.layer_names])}

    @property
    def style_layers(self) -> list[tuple[int, int]]:
        """For every entry of `styles` the row of ws that drives it and its width."""
        return [(row, len(affine.bias)) for row, affine in enumerate(self.affines)]

    def styles(self, ws: Tensor) -> list[Tensor]:
        """S space: rotation and shift of the input ``[N, 4]``, then the factors of every layer's
        inputs ``[N, I]``."""
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.config.w_dim):
            raise ArgumentError.of_shape("ws", f"[N, {self.num_ws}, {self.config.w_dim}]", ws.shape)
        return [affine(w) for affine, w in zip(self.affines, ws.unbind(1), strict=True)]

    def forward(self, ws: Tensor, noise: Noise = "const", precision: Precision = "fp32") -> Tensor:
        """Render ``ws``; arguments as `latentedit.networks.synthesis.SynthesisNetwork.forward`, but
        there are no noise maps."""
        return self.synthesize(self.styles(full(ws)), noise, precision)

    def synthesize(
        self, styles: Sequence[Tensor], noise: Noise = "const", precision: Precision = "fp32"
    ) -> Tensor:
        """Render from S space; ``styles`` as `AliasFreeSynthesis.styles` returns them."""
        if precision not in DTYPES:
            raise ArgumentError.of("precision", "fp32, bf16 or fp16", precision)
        noise_maps(noise, self.noise_constants, len(styles[0]))
        with exact_rendering(styles[0].device):
            x: Tensor = self.input(styles[0])
            for layer, style in zip(self.layers, styles[1:], strict=True):
                high = (
                    precision != "fp32"
                    and layer.design.out_rate * REDUCED >= self.config.resolution
                )
                x = layer(x.to(DTYPES[precision] if high else layer.weight.dtype), style)

            assert self.config.alias_free is not None
            image: Tensor = full(x).contiguous() * self.config.alias_free.output_scale
            return image

    @property
    def feature_sides(self) -> list[int]:
        """Sides of the activations that `features` returns, coarse to fine."""
        return sorted({layer.design.out_rate for layer in self.layers})

    def features(self, styles: Sequence[Tensor], side: int, noise: Noise = "const") -> Tensor:
        """Compute the activations of the last layer with ``side`` samples, ``[N, O, side, side]``,
        and nothing finer. The margin around the image is cut off.

        Args:
            styles: as `AliasFreeSynthesis.styles` returns them.
            side: one of `feature_sides`.
        """
        noise_maps(noise, self.noise_constants, len(styles[0]))
        layers = [layer for layer in self.layers if layer.design.out_rate <= side]
        with exact_rendering(styles[0].device):
            x: Tensor = self.input(styles[0])
            for layer, style in zip(layers, styles[1:], strict=False):
                if not layer.design.rgb:
                    x = layer(x.to(layer.weight.dtype), style)
        margin = (x.shape[-1] - side) // 2
        return x[:, :, margin : margin + side, margin : margin + side]


def moved_input(styles: Tensor, x: float = 0.0, y: float = 0.0, degrees: float = 0.0) -> Tensor:
    """Return the input's ``styles [N, 4]`` for a picture that is turned about its middle and then
    moved.

    Args:
        x, y: shift to the right and down, as a share of the picture.
        degrees: rotation, anticlockwise.
    """
    length = styles[:, :2].norm(dim=1, keepdim=True)
    cosine, sine, across, down = (styles / length).unbind(dim=1)
    angle = math.radians(degrees)
    c = math.cos(angle)
    s = math.sin(angle)
    # Places of the new picture are those of the old one after the inverse, which is a rotation (c,
    # -s; s, c) and a shift.
    shift = -(c * x - s * y), -(s * x + c * y)
    turned = torch.stack([cosine * c - sine * s, sine * c + cosine * s], dim=1)
    left = across - shift[0], down - shift[1]
    back = torch.stack([c * left[0] + s * left[1], -s * left[0] + c * left[1]], dim=1)
    found: Tensor = torch.cat([turned, back], dim=1) * length
    return found
