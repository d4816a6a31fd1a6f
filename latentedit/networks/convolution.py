"""Convolutions whose gradients of every order run in the library's own gradient kernels.

PyTorch computes the gradient of a weight's gradient by a convolution whose kernel is as large as
the feature map, for which CUDA has no quick form: 5 such calls took 8 % of 16 training steps of
`faces128` on an H200. Every derivative of a convolution is a convolution, a transposed one, or the
gradient of a weight, so that three kinds suffice. CPUs are quicker with PyTorch's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

_twice: ContextVar[bool] = ContextVar("twice", default=False)


@contextmanager
def differentiated_twice() -> Iterator[None]:
    """What is computed inside is meant for gradients of gradients: those work outside too, but take
    longer.

    The gradient that is differentiated again must be one in images, w or styles. On CUDA that of
    weights, noise and biases is left out there; they get theirs from the second gradient.
    """
    token = _twice.set(True)
    try:
        yield
    finally:
        _twice.reset(token)


def is_differentiated_twice() -> bool:
    """Return whether the caller runs inside `differentiated_twice`."""
    return _twice.get()


def prefers_own_gradients(device: torch.device) -> bool:
    """The fixed rule for what is differentiated twice: `convolution` on CUDA, PyTorch's own
    elsewhere."""
    return device.type == "cuda"


class Form(NamedTuple):
    """What kind of convolution: ``weight`` is ``[O, I, k, k]``, or ``[I, O, k, k]`` of a transposed
    one."""

    stride: int = 1
    padding: int = 0
    transposed: bool = False
    output_padding: tuple[int, int] = (0, 0)

    def reverse(self, size: tuple[int, int], out: tuple[int, int], kernel: int) -> "Form":
        """Return the form of the gradient in the input, from pictures of size ``out`` back to
        ``size``."""
        if self.transposed:
            return Form(self.stride, self.padding)

        high, wide = (
            n - ((m - 1) * self.stride - 2 * self.padding + kernel)
            for n, m in zip(size, out, strict=True)
        )
        return Form(self.stride, self.padding, True, (high, wide))


def convolution(x: Tensor, weight: Tensor, form: Form) -> Tensor:
    """Convolve ``x [N, I, H, W]``; differentiable to any order in ``x`` and ``weight``."""
    y: Tensor = _Convolution.apply(x, weight, form)  # type: ignore[no-untyped-call]
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, form: Form) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.form = form
        # Autograd tells no function of ours which of its gradients are wanted, but for what could
        # have one at all; weights took a third of the time of path lengths in vain.
        ctx.twice = is_differentiated_twice()
        stride = [form.stride] * 2
        padding = [form.padding] * 2
        more = list(form.output_padding)
        y: Tensor = torch.ops.aten.convolution(
            x, weight, None, stride, padding, [1, 1], form.transposed, more, 1
        )
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, _ = ctx.needs_input_grad
        for_x = for_weight = None
        if to_x:
            back = ctx.form.reverse(x.shape[2:], gradient.shape[2:], weight.shape[-1])
            for_x = convolution(gradient, weight, back)
        if to_weight and not (ctx.twice and torch.is_grad_enabled()):
            for_weight = _WeightGradient.apply(gradient, x, weight.shape, ctx.form)  # type: ignore[no-untyped-call]
        return for_x, for_weight, None


class _WeightGradient(torch.autograd.Function):
    """The gradient of a convolution in its weight; linear in the gradient, and in the input."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, shape: torch.Size, form: Form) -> Tensor:
        ctx.save_for_backward(gradient, x)
        ctx.form = form
        if x.is_contiguous(memory_format=torch.channels_last):
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        weight = x.new_empty(shape)  # its numbers do not matter
        stride = [form.stride] * 2
        padding = [form.padding] * 2
        more = list(form.output_padding)
        only_weight = [False, True, False]
        _, found, _ = torch.ops.aten.convolution_backward(
            gradient,
            x,
            weight,
            None,
            stride,
            padding,
            [1, 1],
            form.transposed,
            more,
            1,
            only_weight,
        )
        for_weight: Tensor = found
        return for_weight

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        gradient, x = ctx.saved_tensors
        to_gradient, to_x = ctx.needs_input_grad[:2]
        for_gradient = convolution(x, change, ctx.form) if to_gradient else None
        for_x = None
        if to_x:
            back = ctx.form.reverse(x.shape[2:], gradient.shape[2:], change.shape[-1])
            for_x = convolution(gradient, change, back)
        return for_gradient, for_x, None, None
