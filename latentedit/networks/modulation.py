"""Weight modulation and demodulation (StyleGAN2, equations 1 to 3), with noise, bias and activation
in one operation.

The same function can be computed by scaling activations before and after an ordinary convolution,
or by folding style, demodulation and gain into the weights of one convolution a picture. Scaling
shares one weight gradient over the batch; folding touches no activation, and is taken wherever
there is a single picture.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.networks.convolution import (
    Form,
    convolution,
    is_differentiated_twice,
    prefers_own_gradients,
)
from latentedit.networks.layers import LRELU_SLOPE, full
from latentedit.networks.pointwise import pointwise
from latentedit.ops import Geometry, Padding, filter_adjoint, upfirdn2d
from latentedit.runtime import fused


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """Return ``1 / sqrt(sum_ik (s_i w_oik)^2 + 1e-8)`` (StyleGAN2, eq. 3), weight ``[O, I, k, k]``,
    styles ``[N, I]``: ``[N, O]``."""
    # Styles do not depend on the position within the kernel, so its squares are added up first: one
    # small matrix product instead of a weight per image.
    energy = weight.square().sum(dim=(2, 3))  # [O, I]
    return (styles.square() @ energy.t() + 1e-8).rsqrt()


def modulated_layer(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None,
    bias: Tensor,
    *,
    up: int,
    filter: Tensor,
    gain: float = 1.0,
) -> Tensor:
    """Return ``lrelu(demodulated convolution * gain + noise + bias)`` of slope 0.2; differentiable
    to any order.

    Args:
        x: ``[N, I, H, W]``, its dtype is that of the computation.
        weight: ``[O, I, k, k]`` float32.
        styles: ``[N, I]`` float32.
        noise: None or ``[1 or N, 1, H * up, W * up]``, of the right strength already.
        bias: ``[O]``.
        up: 1 or 2; 2 is a transposed convolution followed by ``filter`` ``[f, f]``.
        gain: factor on the output of the convolution.

    Returns:
        ``[N, O, H * up, W * up]``.
    """
    if x.dtype == torch.float16:
        # Demodulation cancels any common factor; dividing by the largest keeps the products inside
        # half precision.
        weight = weight / (
            weight.abs().amax(dim=(1, 2, 3), keepdim=True) * weight[0].numel() ** 0.5
        )
        styles = styles / styles.abs().amax(dim=1, keepdim=True)

    after = demodulation(weight, styles) * gain
    noise = None if noise is None else noise.to(x.dtype)
    bias = bias.to(x.dtype)

    # The hand-written gradient cannot be differentiated again; path length needs that.
    if is_differentiated_twice():
        return _composed(x, weight, styles, after, noise, bias, up, filter)

    result: Tensor = _Layer.apply(x, weight, styles, after, noise, bias, up, filter)  # type: ignore[no-untyped-call]
    return result


def convolve(
    x: Tensor, weight: Tensor, up: int, filter: Tensor, bias: Tensor | None = None
) -> Tensor:
    """ "Same" convolution ``[N, I, H, W] -> [N, O, H * up, W * up]``, plus ``bias [O]`` where there
    is no ``up``."""
    k = weight.shape[-1]
    if up == 1:
        return F.conv2d(x, weight, bias, padding=k // 2)
    # Three quarters of an image with inserted zeros would be multiplied in vain; the transposed
    # convolution skips them.
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=up)  # [N, O, H * up + k - up, ...]
    return upfirdn2d(x, filter, padding=_margins(k, up, filter), gain=up**2)


def _margins(k: int, up: int, filter: Tensor) -> Padding:
    """Return the margins of the image that ``filter`` runs over after a transposed convolution by
    ``k x k`` weights."""
    f = filter.shape[-1]
    before = (f + up - 1) // 2 - (k - 1) + k // 2
    after = (f - up) // 2 - (k - up) + k // 2
    return before, after, before, after


def _composed(
    x: Tensor,
    weight: Tensor,
    before: Tensor,
    after: Tensor,
    noise: Tensor | None,
    bias: Tensor,
    up: int,
    filter: Tensor,
) -> Tensor:
    """`_Layer` of operations that can be differentiated any number of times."""
    fast = _fusing(x, filter)
    x = pointwise(x, before) if fast else x * before.to(x.dtype)[:, :, None, None]
    weight = weight.to(x.dtype)
    if not prefers_own_gradients(x.device):
        x = convolve(x, weight, up, filter)
    elif up == 1:
        x = convolution(x, weight, Form(padding=weight.shape[-1] // 2))
    else:
        x = convolution(x, weight.transpose(0, 1), Form(up, transposed=True))
        x = upfirdn2d(x, filter, padding=_margins(weight.shape[-1], up, filter), gain=up**2)

    if fast:
        return pointwise(x, after, noise, bias, LRELU_SLOPE)
    x = x * after.to(x.dtype)[:, :, None, None] + bias[:, None, None]
    return F.leaky_relu(x if noise is None else x + noise, LRELU_SLOPE)


def _plain_layer(
    x: Tensor,
    weight: Tensor,
    before: Tensor,
    after: Tensor,
    noise: Tensor | None,
    bias: Tensor,
    up: int,
    filter: Tensor,
) -> Tensor:
    """`_composed` in place, without gradient."""
    if len(x) == 1:
        y = convolve(
            x, _folded(weight, before, after).to(x.dtype), up, filter, bias if up == 1 else None
        )
    else:
        y = convolve(x * before.to(x.dtype)[:, :, None, None], weight.to(x.dtype), up, filter)
        # In place: without gradients, nobody else holds these activations.
        y *= after.to(x.dtype)[:, :, None, None]

    if len(x) > 1 or up > 1:
        y += bias[:, None, None]
    if noise is not None:
        y += noise
    return F.leaky_relu_(y, LRELU_SLOPE)


def _fusing(x: Tensor, filter: Tensor) -> bool:
    """Return whether the pointwise part of a layer, and its filter, run as one kernel."""
    return (
        filter.ndim == 1
        and x.is_contiguous(memory_format=torch.channels_last)
        and fused.available(x)
    )


def _fused_layer(
    x: Tensor,
    weight: Tensor,
    before: Tensor,
    after: Tensor,
    noise: Tensor | None,
    bias: Tensor,
    up: int,
    filter: Tensor,
) -> Tensor:
    """`_plain_layer` of two kernels around the convolution."""
    if len(x) == 1:
        layer = fused.Layer(None, bias, noise, LRELU_SLOPE)
        kernel = _folded(weight, before, after).to(x.dtype)
    else:
        layer = fused.Layer(after, bias, noise, LRELU_SLOPE)
        kernel = weight.to(x.dtype)
        x = fused.pointwise(x, fused.Layer(before))

    if up == 1:
        return fused.pointwise(F.conv2d(x, kernel, padding=kernel.shape[-1] // 2), layer)

    x = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=up)
    geometry = Geometry(1, 1, _margins(kernel.shape[-1], up, filter), up**2, True)
    x = x.contiguous(memory_format=torch.channels_last)
    return fused.fir_resample(
        x, filter, geometry.size(x.shape[2:], filter), geometry.fused(), layer
    )


class _Layer(torch.autograd.Function):
    """``lrelu(convolution(x * before) * after + noise + bias)``.

    Keeps nothing but its input and its output, which is the next layer's input: what stands before
    the activation follows from what stands after it. A gradient that is to be differentiated again
    is that of `_composed`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        before: Tensor,
        after: Tensor,
        noise: Tensor | None,
        bias: Tensor,
        up: int,
        filter: Tensor,
    ) -> Tensor:
        if _fusing(x, filter):
            y = _fused_layer(x, weight, before, after, noise, bias, up, filter)
        else:
            y = _plain_layer(x, weight, before, after, noise, bias, up, filter)

        # No intermediate result: activations are what training at high resolutions runs out of
        # memory for.
        ctx.save_for_backward(x, weight, before, after, noise, bias, filter, y)
        ctx.up = up
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, filter, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Alias the inputs so that gradients are not counted twice: `after` is itself computed
            # from the weight and the styles.
            x, weight, before, after, noise, bias = inputs = [
                None if t is None else t.view_as(t) for t in inputs
            ]
            wanted = [t for t, needed in zip(inputs, ctx.needs_input_grad, strict=False) if needed]
            again = _composed(x, weight, before, after, noise, bias, ctx.up, filter)
            found = iter(torch.autograd.grad(again, wanted, gradient, create_graph=True))
            return (
                *(next(found) if needed else None for needed in ctx.needs_input_grad[:6]),
                None,
                None,
            )

        x, weight, before, after, noise, bias = inputs
        to_x, to_weight, to_before, to_after, to_noise, to_bias = ctx.needs_input_grad[:6]

        # A gradient in another order of memory would be copied by every operation that follows.
        if x.is_contiguous(memory_format=torch.channels_last):
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        fast = _fusing(y, filter)
        one = len(x) == 1
        for_noise = for_after = for_bias = None

        if fast:
            layer = fused.Layer(None if one else after, None, noise, LRELU_SLOPE)
            parts = fused.gradients(gradient, y, layer, to_noise)
            g = parts.scaled
            for_noise = (
                _like(parts.noise, noise).to(noise.dtype) if parts.noise is not None else None
            )
            for_bias = parts.before.sum(dim=0).to(bias.dtype)
            # The convolution's output is not stored: it is (value before the activation - bias -
            # noise) / after.
            for_after = (parts.product - parts.before * bias - parts.noisy) / after
        else:
            g = torch.ops.aten.leaky_relu_backward(gradient, y, LRELU_SLOPE, True)
            for_noise = _like(g.sum(dim=1, keepdim=True), noise) if to_noise else None

        if not fast and (to_after or to_bias):
            over_map = _sums(g)
            for_bias = over_map.sum(dim=0).to(bias.dtype)
            # gradient * y is g times what stood before the activation: the slopes cancel.
            for_after = _sums(gradient * y) - over_map * bias
            if noise is not None:
                for_after = for_after - _sums(g * noise)
            for_after = for_after / after

        if not (to_x or to_weight or to_before):
            return None, None, None, for_after, for_noise, for_bias, None, None

        if not fast and not one:
            g = g * after.to(g.dtype)[:, :, None, None]
        if ctx.up > 1:
            side = [(n - 1) * ctx.up + weight.shape[-1] for n in x.shape[2:]]
            g = filter_adjoint(
                g, filter, side, _margins(weight.shape[-1], ctx.up, filter), gain=ctx.up**2
            )

        scaled = x if one or not to_weight else _times(x, before, fast)
        kernel = _folded(weight, before, after) if one else weight
        for_x, for_weight = _convolution_gradients(
            g, scaled, kernel.to(x.dtype), ctx.up, to_x or to_before, to_weight
        )
        for_before = None

        if fast and not one and to_x:
            parts = fused.gradients(for_x, x, fused.Layer(before))
            for_x = parts.scaled
            for_before = parts.product
        elif to_before:
            for_before = _sums(for_x * x)

        if one:
            if for_before is not None:
                for_before = for_before / _nonzero(before)
            if for_weight is not None:
                for_weight = _folded(for_weight, before, after)
        elif to_x and not fast:
            for_x = for_x * before.to(x.dtype)[:, :, None, None]

        return (
            for_x if to_x else None,
            for_weight,
            for_before,
            for_after,
            for_noise,
            for_bias,
            None,
            None,
        )


def _times(x: Tensor, factors: Tensor, fast: bool) -> Tensor:
    """Return ``x [N, C, H, W]`` times ``factors [N, C]``."""
    return (
        fused.pointwise(x, fused.Layer(factors))
        if fast
        else x * factors.to(x.dtype)[:, :, None, None]
    )


def _nonzero(x: Tensor) -> Tensor:
    """Return ``x`` with a number too small to matter for every 0, so that what was multiplied by it
    can be divided by it."""
    return torch.where(x == 0, torch.full_like(x, 1e-12), x)


def _folded(weight: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Return ``weight [O, I, k, k]`` with the factors ``before [1, I]`` and ``after [1, O]`` of one
    picture inside."""
    return weight * (after.t() * _nonzero(before))[:, :, None, None]


def _sums(x: Tensor) -> Tensor:
    """Over positions, ``[N, C, H, W] -> [N, C]``, in float32 or wider."""
    return x.sum(dim=(2, 3), dtype=full(x[:0]).dtype)


def _like(x: Tensor, other: Tensor) -> Tensor:
    """Return the gradient of ``other``, which was broadcast over the batch if its own is 1."""
    return x if len(x) == len(other) else x.sum(dim=0, keepdim=True)


def _convolution_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, up: int, to_x: bool, to_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of `convolve` without its filter, in ``x`` and in ``weight [O, I, k,
    k]``, as far as they are wanted."""
    pad = 0 if up > 1 else weight.shape[-1] // 2
    kernel = weight.transpose(0, 1) if up > 1 else weight
    for_x, for_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        x,
        kernel,
        None,
        [up] * 2,
        [pad] * 2,
        [1, 1],
        up > 1,
        [0, 0],
        1,
        [to_x, to_weight, False],
    )
    return for_x, full(for_weight.transpose(0, 1) if up > 1 else for_weight) if to_weight else None


def prefers_folding(weight_count: int, activation_count: int) -> bool:
    """The fixed rule for rendering several pictures: fold, one by one, where a picture's
    activations outweigh the weights.

    ``weight_count`` is O * I * k * k, ``activation_count`` O * H * W. Small pictures gain nothing
    from being taken apart.
    """
    return activation_count >= 2**18 and weight_count <= 4 * activation_count
