"""Random numbers of training, one stream a picture, so that no draw depends on how a batch is cut
up."""

import math
import zlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from latentedit.runtime import fused
from latentedit.training.philox import MASK, ROUNDS, below, philox, to_normal, to_uniform

AHEAD = 256
"""Words a picture that are made at once for the small draws, of which there are dozens in a
pass."""


class Draws(Protocol):
    """A source of random numbers for a batch of N pictures."""

    def normal(self, *shape: int) -> Tensor:
        """Return ``[N, *shape]``, standard normal."""
        ...

    def uniform(self, *shape: int) -> Tensor:
        """Return ``[N, *shape]``, in [0, 1)."""
        ...


class Streams:
    """Draws for the pictures ``samples`` of one pass of one step.

    Word k of picture n in pass ``name`` is one of those that `philox` makes of the counter
    (k // 4, n, step) with the key (seed, name): one process with the whole batch, several with a
    part each, and several rounds of accumulation all give a picture the same numbers. A GPU gives
    those of the CPU up to rounding. Nothing here asks the device for a number, so that the draws
    can be part of a CUDA graph.

    Args:
        step: a tensor of one whole number, which a graph reads anew whenever it runs.
        samples: ``[N]`` whole numbers on the same device, where the numbers are drawn too.
    """

    def __init__(
        self,
        seed: int,
        step: Tensor,
        name: str,
        samples: Tensor,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.key = seed & MASK, zlib.crc32(name.encode())
        # [N, 1]
        self.samples = samples.long()[:, None]
        self.dtype = dtype
        step = step.long()
        self.step = step & MASK, (step >> 32) & MASK
        self._fused: fused.Stream | None = None
        if dtype == torch.float32 and fused.runs_on(samples.device):
            halves = torch.stack(self.step)
            self._fused = fused.Stream(self.samples[:, 0], halves, self.key, ROUNDS)
        self.position = 0
        """Position of the next word."""
        self._made = range(0)
        self._words = torch.empty(0)

    def __len__(self) -> int:
        return len(self.samples)

    def normal(self, *shape: int) -> Tensor:
        count = math.prod(shape)
        even = count + count % 2
        if self._fused is not None:
            numbers = fused.random_normal(self._fused, self.position, even)
            self.position += even
        else:
            numbers = to_normal(self._next(even), self.dtype)
        return numbers[:, :count].reshape(len(self), *shape)

    def uniform(self, *shape: int) -> Tensor:
        return to_uniform(self._next(math.prod(shape)), self.dtype).reshape(len(self), *shape)

    def integers(self, limit: int) -> Tensor:
        """Return ``[N]``, 0 to ``limit`` - 1."""
        return below(self._next(1)[:, 0], limit)

    def maps(self, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Normal maps ``[N, *shape]`` for every shape."""
        sizes = [math.prod(shape) for shape in shapes]
        flat = self.normal(sum(sizes))
        return [
            part.reshape(len(self), *shape)
            for part, shape in zip(flat.split(sizes, dim=1), shapes, strict=True)
        ]

    def _next(self, count: int) -> Tensor:
        """Return the next ``count`` words of every picture, ``[N, count]``."""
        start = self.position
        self.position += count
        if count > AHEAD // 2:
            return self._make(start, count)
        if start < self._made.start or self.position > self._made.stop:
            self._made, self._words = range(start, start + AHEAD), self._make(start, AHEAD)
        return self._words.narrow(1, start - self._made.start, count)

    def _make(self, start: int, count: int) -> Tensor:
        if self._fused is not None:
            return fused.random_words(self._fused, start, count)

        first = start // 4
        beyond = -(-(start + count) // 4)
        blocks = torch.arange(first, beyond, device=self.samples.device)
        words = philox((blocks[None], self.samples, *self.step), self.key)  # [N, blocks, 4]
        return words.flatten(1).narrow(1, start - 4 * first, count)


class GlobalDraws:
    """Draws from torch's global generator, for ``batch`` pictures."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.batch = batch
        self.device = device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, device=self.device)
