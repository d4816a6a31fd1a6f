"""Weight modulation and demodulation (StyleGAN2, equations 1 to 3) in the two forms that are fast.

The same function can be computed by scaling activations before and after an ordinary convolution, or by folding style,
demodulation and gain into the weights of one convolution a picture. Scaling shares one weight gradient over the batch
and is cheap where gradients are wanted; folding touches no activation, which is what rendering is bound by.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.ops import upfirdn2d


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """``1 / sqrt(sum_ik (s_i w_oik)^2 + 1e-8)`` (StyleGAN2, eq. 3), weight ``[O, I, k, k]``, styles ``[N, I]``: ``[N, O]``."""
    energy = weight.square().sum(dim=(2, 3))  # [O, I]
    return (styles.square() @ energy.t() + 1e-8).rsqrt()


def scaled_conv2d(
    x: Tensor, weight: Tensor, styles: Tensor, *, up: int, filter: Tensor, demodulate: bool = True, gain: float = 1.0
) -> Tensor:
    """Modulated convolution by scaling activations; differentiable to any order.

    Args:
        x: ``[N, I, H, W]``, its dtype is that of the computation.
        weight: ``[O, I, k, k]`` float32.
        styles: ``[N, I]`` float32.
        up: 1 or 2; 2 is a transposed convolution followed by ``filter`` ``[f, f]``.
        gain: factor on the output.

    Returns:
        ``[N, O, H * up, W * up]``.
    """
    if demodulate and x.dtype == torch.float16:
        # Demodulation cancels any common factor; dividing by the largest keeps the products inside half precision.
        weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) * weight[0].numel() ** 0.5)
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    x = x * styles.to(x.dtype)[:, :, None, None]
    x = convolve(x, weight.to(x.dtype), up, filter, gain=1.0 if demodulate else gain)
    if demodulate:
        x = x * (demodulation(weight, styles) * gain).to(x.dtype)[:, :, None, None]
    return x


def folded_weight(weight: Tensor, styles: Tensor, *, demodulate: bool = True, gain: float = 1.0) -> Tensor:
    """``weight [O, I, k, k]`` with the ``styles [1, I]`` of one picture, demodulation and ``gain`` inside."""
    factors = styles * gain  # [1, I]
    if demodulate:
        factors = demodulation(weight, styles).t() * factors  # [O, I]
    return weight * factors[:, :, None, None]


def convolve(x: Tensor, weight: Tensor, up: int, filter: Tensor, *, bias: Tensor | None = None, gain: float = 1.0) -> Tensor:
    """ "Same" convolution ``[N, I, H, W] -> [N, O, H * up, W * up]``, plus ``bias [O]``, times ``gain`` before the bias."""
    k = weight.shape[-1]
    if up == 1:
        return F.conv2d(x, weight if gain == 1 else weight * gain, bias, padding=k // 2)
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=up)  # [N, O, H * up + k - up, ...]
    f = filter.shape[-1]
    before, after = (f + up - 1) // 2 - (k - 1) + k // 2, (f - up) // 2 - (k - up) + k // 2
    x = upfirdn2d(x, filter, padding=(before, after, before, after), gain=gain * up**2)
    return x if bias is None else x.add_(bias[:, None, None])


def prefers_folding(weight_count: int, activation_count: int) -> bool:
    """The fixed rule for rendering several pictures: fold, one by one, where a picture's activations outweigh the weights.

    ``weight_count`` is O * I * k * k, ``activation_count`` O * H * W. Small pictures gain nothing from being taken apart.
    """
    return activation_count >= 2**18 and weight_count <= 4 * activation_count
