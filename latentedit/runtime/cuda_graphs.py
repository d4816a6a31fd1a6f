"""Work as CUDA graphs: hundreds of kernels by one launch.

A graph repeats the kernels that ran while it was captured, on the same memory. So the work may ask
the device for no number, make no tensor of numbers from the host, and must take what changes from
one run to the next out of tensors that stay where they are.
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Graphs:
    """Runs pieces of work by name; elsewhere than on CUDA, or without ``enabled``, as they are.

    The first run of a piece is an ordinary one, which sets up whatever is set up once. The second
    is captured, and all from then on are replayed. What they compute is the same.
    """

    def __init__(self, device: torch.device, enabled: bool = True) -> None:
        self.active = enabled and device.type == "cuda"
        self._device = device
        self._stream: Any = None
        self._side: Any = None
        self._pool: Any = None
        self._captured: dict[Hashable, Any] = {}
        self._met: set[Hashable] = set()

    def run(self, name: Hashable, work: Callable[[], None]) -> None:
        """Do ``work``, which must be the same for the same ``name``."""
        if not self.active:
            work()
        elif name in self._captured:
            # Capturing runs nothing, so the captured work is replayed once for its result.
            self._captured[name].replay()
        elif name in self._met:
            self._captured[name] = self._capture(work)
            self._captured[name].replay()
        else:
            self._met.add(name)
            self._aside(work)

    def fork(self, work: Callable[[], Result]) -> Result:
        """Do ``work`` beside what follows until `join`, on a stream of its own; where there are no
        graphs, at once.

        What it is given must be kept until then, as memory that one stream lets go is used again
        by what comes next on it.
        """
        if not self.active:
            return work()
        if self._side is None:
            self._side = torch.cuda.Stream(self._device)
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            return work()

    def join(self) -> None:
        """Wait, on the device, for what `fork` began."""
        if self._side is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._side)

    def forget(self) -> None:
        """Capture everything anew, as it refers to memory that is of no use any more."""
        self._captured.clear()
        self._met.clear()
        self._pool = None

    def _aside(self, work: Callable[[], None]) -> None:
        """On the stream of the captures, as what autograd sets up belongs to the stream it ran
        on."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def _capture(self, work: Callable[[], None]) -> Any:
        graph = torch.cuda.CUDAGraph()
        # Other threads decode pictures meanwhile; what they do is none of the capture's business.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            work()
        self._pool = self._pool or graph.pool()
        return graph


class Replayed:
    """A function of tensors of always the same shapes, as a graph where `Graphs` are active.

    Results are overwritten by the next call; whoever keeps them copies them.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], graphs: Graphs) -> None:
        self.function = function
        self.graphs = graphs
        self._inputs: list[Tensor] = []
        self._results: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if not self.graphs.active:
            return self.function(*inputs)
        if not self._inputs:
            self._inputs = [tensor.detach().clone() for tensor in inputs]
        for own, given in zip(self._inputs, inputs, strict=True):
            # Graphs read from fixed addresses: inputs are copied to where the captured kernels
            # look.
            own.copy_(given.detach())

        self.graphs.run(self, self._work)
        return self._results

    def _work(self) -> None:
        self._results = self.function(*self._inputs)
