"""Layers with an equalised learning rate (Karras et al. 2018, section 4.1) that both networks are
made of."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.networks.convolution import (
    Form,
    convolution,
    is_differentiated_twice,
    prefers_own_gradients,
)
from latentedit.ops import downsample2d, fir_taps, upfirdn2d, upsample2d
from latentedit.runtime import fused

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2)


def full(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 where it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def normal(*shape: int, std: float = 1.0) -> Tensor:
    """Return random numbers for initial weights; on the meta device nothing, as even asking it for
    some loads torch's compiler."""
    weights = torch.empty(shape)
    return weights if weights.is_meta else weights.normal_(0, std)


def activate(x: Tensor, gain: float = 1.0, clamp: float | None = None) -> Tensor:
    """Leaky ReLU of slope 0.2, times sqrt(2) ``gain`` so that the variance is kept, clamped to
    ``±clamp * gain``."""
    # The published gain is exactly sqrt(2), without the factor sqrt(1 + 0.2^2) that would keep the
    # variance for this slope.
    x = F.leaky_relu(x, LRELU_SLOPE) * (LRELU_GAIN * gain)
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """Return ``[N, D]`` scaled so that the mean square of every row is 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """Linear layer ``[N, in] -> [N, out]``; weights are stored at unit variance and scaled when
    used.

    Args:
        activation: apply the gained leaky ReLU.
        lr_multiplier: learning rate relative to the rest; the mapping network uses 0.01.
        bias_init: initial bias, in units of the output.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: bool = False,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        # Adam's steps have the same length for every weight. Weights that are large and scaled down
        # when they are used therefore learn slowly.
        self.weight = nn.Parameter(normal(out_features, in_features, std=1 / lr_multiplier))
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.bias_gain == 1 else self.bias * self.bias_gain
        x = torch.addmm(bias, x, self.weight.t(), alpha=self.weight_gain)
        return activate(x) if self.activation else x


@dataclass(frozen=True)
class Resampling:
    """How a convolution changes the size of its input: by ``up / down``, with the FIR filter of
    these taps."""

    up: int = 1
    down: int = 1
    taps: tuple[float, ...] = (1, 3, 3, 1)


SAME_SIZE = Resampling()


class Conv2d(nn.Module):
    """Convolution ``[N, in, H, W] -> [N, out, H * up / down, W * up / down]`` with FIR resampling,
    "same" size otherwise.

    The computation runs in the dtype of ``x``; parameters stay float32.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: bool = False,
        resampling: Resampling = SAME_SIZE,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.up = resampling.up
        self.down = resampling.down
        self.clamp = clamp
        self.padding = kernel_size // 2
        self.weight = nn.Parameter(normal(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.register_buffer("resample_filter", fir_taps(resampling.taps), persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        # A gain on the output of a linear layer, and the sqrt(2) of an activated one, cost nothing
        # inside the weights.
        scale = gain * (LRELU_GAIN if self.activation else 1.0)
        weight = (self.weight * (self.weight_gain * scale)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * scale).to(x.dtype)

        # R1 and path length differentiate a gradient, for which PyTorch's own form of a convolution
        # is slow.
        if is_differentiated_twice() and prefers_own_gradients(x.device):
            return self._differentiable(x, weight, bias, gain)

        fast = self.activation and bias is not None and fused.available(x)
        added = None if fast else bias
        k = weight.shape[-1]
        f = self.resample_filter.shape[-1]

        if self.down > 1 and k == 1:
            # A 1 x 1 convolution commutes with the filter; downsampling first leaves a quarter of
            # the pixels.
            x = F.conv2d(downsample2d(x, self.resample_filter, self.down), weight, added)
        elif self.down > 1:
            # The filter's and the kernel's padding are added up, so that the image is padded once.
            before = self.padding + (f - self.down + 1) // 2
            after = self.padding + (f - self.down) // 2
            x = upfirdn2d(x, self.resample_filter, padding=(before, after, before, after))
            x = F.conv2d(x, weight, added, stride=self.down)
        elif self.up > 1:  # 1 x 1 only: the skip of the "resnet" generator
            x = upsample2d(F.conv2d(x, weight, added), self.resample_filter, self.up)
        else:
            x = F.conv2d(x, weight, added, padding=self.padding)

        if fast:
            x = _BiasActivation.apply(x, bias)  # type: ignore[no-untyped-call]
        elif self.activation:
            x = F.leaky_relu_(x, LRELU_SLOPE)

        return x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)

    def _differentiable(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, gain: float
    ) -> Tensor:
        """Return the same by a convolution whose gradients of gradients are quick, and nothing in
        place."""
        k = weight.shape[-1]
        f = self.resample_filter.shape[-1]
        if self.down > 1 and k == 1:
            x = convolution(downsample2d(x, self.resample_filter, self.down), weight, Form())
        elif self.down > 1:
            before = self.padding + (f - self.down + 1) // 2
            after = self.padding + (f - self.down) // 2
            x = upfirdn2d(x, self.resample_filter, padding=(before, after, before, after))
            x = convolution(x, weight, Form(self.down))
        else:
            x = convolution(x, weight, Form(padding=self.padding))

        if bias is not None:
            x = x + bias[:, None, None]
        if self.up > 1:
            x = upsample2d(x, self.resample_filter, self.up)
        if self.activation:
            x = F.leaky_relu(x, LRELU_SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)


class _BiasActivation(torch.autograd.Function):
    """``lrelu(x + bias)`` of ``x [N, C, H, W]`` and ``bias [C]``, one kernel for either
    direction."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        y = fused.pointwise(x, fused.Layer(None, bias, None, LRELU_SLOPE))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        y = ctx.saved_tensors[0].detach()
        # R1 differentiates this again; slopes are constant almost everywhere
        if torch.is_grad_enabled():
            for_x = torch.ops.aten.leaky_relu_backward(gradient, y, LRELU_SLOPE, True)
            return for_x, for_x.sum(dim=(0, 2, 3))
        found = fused.gradients(gradient, y, fused.Layer(slope=LRELU_SLOPE), to_factors=False)
        return found.scaled, found.before.sum(dim=0).to(gradient.dtype)
