"""The pointwise part of a layer by kernels, differentiable to any order.

`latentedit.networks.modulation` has one form for gradients and none that could be differentiated
again; this one keeps its input, so that path length regularisation runs by kernels too.
"""

from typing import Any

import torch
from torch import Tensor

from latentedit.networks.convolution import is_differentiated_twice
from latentedit.runtime import fused


def pointwise(
    x: Tensor,
    factors: Tensor,
    noise: Tensor | None = None,
    bias: Tensor | None = None,
    slope: float = 1.0,
) -> Tensor:
    """Return ``lrelu(x * factors + noise + bias)``; `fused.available` must hold.

    Args:
        x: ``[N, C, H, W]``, channels_last.
        factors: ``[N, C]`` float32.
        noise: ``[1 or N, 1, H, W]``.
        bias: ``[C]``.
        slope: that of the leaky ReLU; 1 means no activation.
    """
    y: Tensor = _Pointwise.apply(x, factors, noise, bias, slope)  # type: ignore[no-untyped-call]
    return y


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        factors: Tensor,
        noise: Tensor | None,
        bias: Tensor | None,
        slope: float,
    ) -> Tensor:
        y = fused.pointwise(x, fused.Layer(factors, bias, noise, slope))
        # Without an activation nobody asks for the sign of the output.
        ctx.save_for_backward(x, factors, noise, bias, x if slope == 1 else y)
        ctx.slope = slope
        ctx.twice = is_differentiated_twice()
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, factors, noise, bias, y = ctx.saved_tensors
        _, _, to_noise, to_bias, _ = ctx.needs_input_grad
        for_noise = for_bias = None

        if torch.is_grad_enabled():
            y = y.detach()
            for_x, for_factors = _Gradient.apply(gradient, x, factors, y, ctx.slope)  # type: ignore[no-untyped-call]
            if not ctx.twice and (to_noise or to_bias):
                before = _before(gradient, y, ctx.slope)
                for_noise = _sum_like(before, noise) if to_noise else None
                for_bias = before.sum(dim=(0, 2, 3)) if to_bias else None
            return for_x, for_factors, for_noise, for_bias, None

        layer = fused.Layer(factors, None, None, ctx.slope)
        found = fused.gradients(gradient, y, layer, to_noise, x=x)
        if found.noise is not None:
            for_noise = _sum_like(found.noise, noise).to(noise.dtype)
        if to_bias:
            for_bias = found.before.sum(dim=0).to(bias.dtype)
        return found.scaled, found.product, for_noise, for_bias, None


class _Gradient(torch.autograd.Function):
    """The gradients of `_Pointwise` in input and factors, as functions of what they are computed
    from."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, x: Tensor, factors: Tensor, y: Tensor, slope: float
    ) -> tuple[Tensor, Tensor]:
        found = fused.gradients(gradient, y, fused.Layer(factors, None, None, slope), x=x)
        ctx.save_for_backward(gradient, x, factors, y)
        ctx.slope = slope
        return found.scaled, found.product

    @staticmethod
    def backward(ctx: Any, change: Tensor, of_factors: Tensor) -> tuple[Tensor | None, ...]:
        gradient, x, factors, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            before = _before(gradient, y, ctx.slope)
            scales = factors.to(x.dtype)[:, :, None, None]
            weights = of_factors.to(x.dtype)[:, :, None, None]
            for_gradient = _before(change * scales + x * weights, y, ctx.slope)
            return for_gradient, before * weights, (change * before).sum(dim=(2, 3)), None, None

        layer = fused.Layer(factors, None, None, ctx.slope)
        found = fused.changes(gradient, y, x, layer, (change, of_factors))
        return found.gradient, found.x, found.factors, None, None


def _before(gradient: Tensor, y: Tensor, slope: float) -> Tensor:
    """Return the gradient before the activation, whose slopes the output ``y`` tells."""
    if slope == 1:
        return gradient
    before: Tensor = torch.ops.aten.leaky_relu_backward(gradient, y, slope, True)
    return before


def _sum_like(before: Tensor, noise: Tensor) -> Tensor:
    """Return the gradient of ``noise``, which was broadcast over channels, and over the batch if
    its own is 1."""
    return before.sum(dim=1, keepdim=True).sum_to_size(len(noise), 1, *before.shape[2:])
