"""Real pictures on their way to the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from latentedit.io.images import from_uint8
from latentedit.training.data import PictureSet

SHARE = 0.25
"""Share of a GPU's free memory that a training set may take, to be kept there as bytes."""


class Feed:
    """The pictures of a batch, and those of the whole set where they fit on the device.

    Where they do, nothing but their numbers travels there; `pictures` then cuts them out, turns and
    scales them by operations that a CUDA graph may hold.

    Args:
        rounds: the pictures of a batch that belong together, as `Trainer` divides it.
    """

    def __init__(
        self,
        data: PictureSet,
        rounds: Sequence[range],
        seed: int,
        mirror: bool,
        device: torch.device,
    ) -> None:
        self.data = data
        self.rounds = rounds
        self.seed = seed
        self.mirror = mirror
        self.period = len(data) * (2 if mirror else 1)
        """Pictures of an epoch, mirrored ones included."""
        self.labels = data.labels_at(torch.arange(self.period), mirror).to(device)
        """``[period, c_dim]``."""
        self.pixels = data.pixels.to(device) if _fits(data, device) else None
        self._rows = [
            torch.zeros(len(samples), dtype=torch.long, device=device) for samples in rounds
        ]
        self._pictures: list[Tensor] = []
        if self.pixels is None:
            shapes = [(len(samples), *data.shape) for samples in rounds]
            self._pictures = [torch.empty(shape, device=device) for shape in shapes]

    def load(self, images_seen: int) -> None:
        """Fetch the batch that follows ``images_seen`` pictures."""
        for index, samples in enumerate(self.rounds):
            positions = range(images_seen + samples.start, images_seen + samples.stop, samples.step)
            _send(
                torch.tensor(self.data.chosen(positions, self.seed, self.mirror)), self._rows[index]
            )
            if self.pixels is None:
                _send(self.data.batch(positions, self.seed, self.mirror)[0], self._pictures[index])

    def pictures(self, index: int) -> tuple[Tensor, Tensor]:
        """Return those of round ``index``, ``[N, C, H, W]`` in [-1, 1], and their labels ``[N,
        c_dim]``."""
        rows = self._rows[index]
        if self.pixels is None:
            return self._pictures[index], self.labels[rows]
        pixels = self.pixels[rows % len(self.data)]
        flipped = (rows >= len(self.data))[:, None, None, None]
        return from_uint8(torch.where(flipped, pixels.flip(3), pixels)), self.labels[rows]


def _send(source: Tensor, target: Tensor) -> None:
    """Copy to the device without waiting for what is being computed there."""
    if target.device.type == "cuda":
        source = source.pin_memory()
    target.copy_(source, non_blocking=True)


def _fits(data: PictureSet, device: torch.device) -> bool:
    """Return whether the set lies in memory, and may lie in that of the device."""
    if data.pixels.shape[1:] != data.shape:
        return False
    if device.type != "cuda":
        return device.type == "cpu"
    free, _ = torch.cuda.mem_get_info(device)
    return data.pixels.numel() <= SHARE * free
