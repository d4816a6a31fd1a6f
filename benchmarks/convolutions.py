"""The bare convolutions of a piece of work: what would be left of its time if everything else cost
nothing."""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
FORWARD = aten.convolution.default
BACKWARD = aten.convolution_backward.default


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Recorder(TorchDispatchMode):
    """Keeps the shapes of every convolution that runs in it, forward and backward to whatever
    order, and how often it does.

    Depthwise ones are FIR filters, and count only with ``filters``. Matrix products, such as
    ToRGB's, are not counted.
    """

    def __init__(self, filters: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.filters = filters
        self.calls: dict[str, tuple[Any, tuple[Any, ...], int]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (FORWARD, BACKWARD):
            # convolution(input, weight, bias, ...), convolution_backward(gradient, input, weight,
            # ...)
            x, weight = args[:2] if function is FORWARD else args[1:3]
            if self.filters or weight.shape[1] > 1 or x.shape[1] == 1:
                like = tuple(_Like(a) if isinstance(a, Tensor) else a for a in args)
                key = f"{function} {like}"
                self.calls[key] = (function, like, self.calls.get(key, (None, None, 0))[2] + 1)
        return function(*args, **(kwargs or {}))

    def bare(self) -> float:
        """Seconds of all of them, each alone, on tensors of the same shapes and memory formats."""
        total = 0.0
        for function, like, count in self.calls.values():
            args = [a.made() if isinstance(a, _Like) else a for a in like]
            function(*args)
            total += count * min(seconds(lambda f=function, a=args: f(*a)) for _ in range(3))  # type: ignore[misc]
        return total


def of_synthesis(generator: Any, batch: int, dtype: torch.dtype) -> float:
    """Seconds of the convolutions of a rendering, ToRGB's included: of whole pictures, at one
    weight for the whole batch, each in the faster of the two memory formats.
    """
    total = 0.0
    for block in generator.synthesis.blocks:
        sides = [(conv.weight, conv.up, block.resolution // conv.up) for conv in block.convs]
        sides.append((block.torgb.weight, 1, block.resolution))
        for weight, up, side in sides:
            found = []
            for form in (torch.contiguous_format, torch.channels_last):
                x = torch.randn(batch, weight.shape[1], side, side).to(
                    dtype=dtype, memory_format=form
                )
                w = weight.detach().to(dtype=dtype, memory_format=form)

                def work(x: Tensor = x, w: Tensor = w, up: int = up) -> Tensor:
                    if up == 1:
                        return F.conv2d(x, w, padding=w.shape[-1] // 2)
                    return F.conv_transpose2d(x, w.transpose(0, 1), stride=2)

                work()
                found.append(min(seconds(work) for _ in range(3)))
            total += min(found)
    return total


class _Like:
    """Shape, type and memory format of a tensor."""

    def __init__(self, x: Tensor) -> None:
        self.shape = tuple(x.shape)
        self.stride = tuple(x.stride())
        self.dtype = x.dtype

    def __repr__(self) -> str:
        return f"{self.shape}/{self.stride}/{self.dtype}"

    def made(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype).normal_()
