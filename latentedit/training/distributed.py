"""Several processes on one training run: who they are, and the sums they share.

Gradients are added up explicitly, as one flat vector. Wrappers that hook into the backward pass
give wrong gradients where some parameters have none, which is so in every lazy regularisation pass.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from latentedit.errors import ArgumentError


@dataclass(frozen=True)
class World:
    """The processes of a run; alone by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return ``tensor`` summed over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether ``flag`` is set in any of the processes."""
        return (
            flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag), device=device)) > 0)
        )

    def same(self, values: Tensor) -> bool:
        """Return whether ``values`` are equal in all of the processes."""
        if self.size == 1:
            return True
        bounds = torch.cat([values, -values])
        dist.all_reduce(bounds, op=dist.ReduceOp.MAX)
        return bool((bounds[: len(values)] == -bounds[len(values) :]).all())

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes; one that is missing everywhere
        stays missing."""
        if self.size == 1:
            return
        members = list(parameters)
        present = torch.tensor(
            [float(p.grad is not None) for p in members], device=members[0].device
        )
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in members]
        flat = self.sum(
            torch.cat([*(part.flatten() for part in parts), present.to(parts[0].dtype)])
        )
        sums = flat[: -len(members)]
        counts = flat[-len(members) :].tolist()
        for parameter, part, count in zip(
            members, sums.split([p.numel() for p in members]), counts, strict=True
        ):
            parameter.grad = part.view_as(parameter).clone() if count else None

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def backend(processes: int, gpus: int) -> str:
    """Return what connects as many ``processes`` of one machine: NCCL where each has a GPU of its
    own, else gloo.

    NCCL refuses two processes on one GPU. Gloo adds up tensors of GPUs too, by way of the host.
    """
    return "nccl" if 0 < processes <= gpus else "gloo"


def join_world(device: str = "cpu") -> World:
    """The processes that ``torchrun``, or another launcher that sets RANK, WORLD_SIZE and
    MASTER_ADDR, has started.

    ``device`` "cuda" gives the processes of a machine its GPUs in turn (`backend` says what
    connects them). Without those variables this process is alone.

    Raises:
        Error: the variables are there but do not fit together, or the others cannot be reached.
    """
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    given = [name for name in names if name in os.environ]
    if "WORLD_SIZE" not in given or os.environ["WORLD_SIZE"] == "1":
        return World()
    if len(given) < len(names):
        raise ArgumentError(
            f"WORLD_SIZE is set, but not {', '.join(n for n in names if n not in given)}; start "
            "with torchrun"
        )

    try:
        rank = int(os.environ["RANK"])
        size = int(os.environ["WORLD_SIZE"])
        gpus = torch.cuda.device_count() if device.startswith("cuda") else 0
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        if gpus:
            local_rank %= gpus
        if not dist.is_initialized():
            here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
            dist.init_process_group(backend(here, gpus), rank=rank, world_size=size)
    except (ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"cannot join the other processes ({str(error).splitlines()[0]})"
        ) from error

    return World(rank, size, local_rank)
