"""Random numbers of training, one stream a picture, so that no draw depends on how a batch is cut up."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Draws(Protocol):
    """A source of random numbers for a batch of N pictures."""

    def normal(self, *shape: int) -> Tensor:
        """``[N, *shape]``, standard normal."""
        ...

    def uniform(self, *shape: int) -> Tensor:
        """``[N, *shape]``, in [0, 1)."""
        ...


class Streams:
    """Draws for the pictures ``samples`` of one pass of one step.

    Picture n draws from a generator seeded by ``(seed, step, name, n)`` alone: one process with the whole batch, several
    with a part each, and several rounds of accumulation all give it the same numbers.
    """

    def __init__(
        self,
        seed: int,
        step: int,
        name: str,
        samples: Iterable[int],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device, self.dtype = device, dtype
        seeds = [hashlib.sha256(f"{seed}/{step}/{name}/{sample}".encode()).digest() for sample in samples]
        self.seeds = [int.from_bytes(digest[:8], "little") >> 1 for digest in seeds]
        self.generators = [torch.Generator().manual_seed(number) for number in self.seeds]

    def __len__(self) -> int:
        return len(self.seeds)

    def normal(self, *shape: int) -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators]).to(self.device, self.dtype)

    def uniform(self, *shape: int) -> Tensor:
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators]).to(self.device, self.dtype)

    def integers(self, below: int) -> Tensor:
        """``[N]``, 0 to ``below`` - 1, on the CPU."""
        return torch.stack([torch.randint(below, (), generator=g) for g in self.generators])

    def maps(self, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Normal maps ``[N, *shape]`` for every shape; drawn on the device, where they are many numbers."""
        sizes = [math.prod(shape) for shape in shapes]
        on_cpu = self.device.type == "cpu"
        generators = self.generators if on_cpu else [torch.Generator(self.device).manual_seed(n) for n in self.seeds]
        flat = torch.stack([torch.randn(sum(sizes), generator=g, device=self.device) for g in generators]).to(self.dtype)
        return [part.reshape(len(flat), *shape) for part, shape in zip(flat.split(sizes, dim=1), shapes, strict=True)]


class GlobalDraws:
    """Draws from torch's global generator, for ``batch`` pictures."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.batch, self.device = batch, device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, device=self.device)
