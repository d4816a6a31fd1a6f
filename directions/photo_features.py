"""Features of images for classifiers of photos: what a discriminator sees in them.

Images of 128 px or more can be seen at half their size, a quarter of the work. In exchange more
positions are kept: classifiers of 2,101 portraits are better with 8 x 8 positions at half the size
than with 4 x 4 at the full size (docs/directions.md).
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import Error
from latentedit.io.files import cache_folder
from latentedit.io.native_file import read_tensors, write_tensors
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from latentedit.runtime.batches import in_threads, threads_for

LOG = logging.getLogger(__name__)

HALVED = 128
"""Resolution from which images may be seen at half their size."""
BATCH = 16
"""Images that are seen at once."""
ROWS = 256
"""Images whose features are handed over at once."""
FORMAT = "latentedit-features"
VERSION = 1
LEVELS = 255
MOST_KEPT = 2**28
"""Bytes of the features of random images up to which they are kept in the cache."""

Array = np.ndarray[Any, np.dtype[Any]]
Done = Callable[[float], None]


@dataclass(frozen=True)
class View:
    """How images are seen."""

    halved: bool
    """Whether they are reduced to half their size first."""
    positions: int
    """Side to which activations are averaged, so that a classifier also knows positions."""


WHOLE = View(False, 4)
HALF = View(True, 8)


def quick_view(discriminator: Discriminator) -> View:
    """Return the view of a quarter of the work where images are large enough for it."""
    return HALF if discriminator.config.resolution >= HALVED else WHOLE


def photo_features(discriminator: Discriminator, images: Tensor, view: View = WHOLE) -> Tensor:
    """Return the activations after every block, averaged to a few positions:
    ``[N, C, H, W] -> [N, features]``.

    Differentiable in ``images``.
    """
    seen = discriminator.features(
        F.avg_pool2d(images, 2) if view.halved else images, halved=view.halved
    )
    pooled = [F.adaptive_avg_pool2d(x, min(view.positions, x.shape[-1])).flatten(1) for x in seen]
    return torch.cat(pooled, dim=1)


def _threads(discriminator: Discriminator) -> int:
    device = next(discriminator.parameters()).device
    return threads_for(device, discriminator.config.resolution)


def _seen(discriminator: Discriminator, images: Tensor, view: View) -> Array:
    device = next(discriminator.parameters()).device
    found: Array = photo_features(discriminator, images.to(device), view).float().cpu().numpy()
    return found


def pooled_features(
    discriminator: Discriminator,
    images: Tensor,
    view: View = WHOLE,
    done: Done = lambda count: None,
) -> Array:
    """Return `photo_features` computed in batches, float32; ``done`` is called with the number of
    images of every batch."""
    threads = _threads(discriminator)
    found: Array = np.empty((0, 0), dtype=np.float32)
    start = 0
    for rows in in_threads(
        lambda batch: _seen(discriminator, batch, view), images.split(BATCH), threads
    ):
        if not start:
            # Thousands of photos have half a gigabyte of features: not to be held twice.
            found = np.empty((len(images), rows.shape[1]), dtype=np.float32)
        found[start : start + len(rows)] = rows
        start += len(rows)
        done(len(rows))
    return found


def render_all(
    generator: Generator, w: Tensor, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Render ``w [N, w_dim]`` with the generator's own noise: ``[N, C, H, W]``."""
    pictures = []
    size = _at_once(generator)
    threads = threads_for(generator.device, generator.resolution)
    for batch in in_threads(lambda part: _rendered(generator, part), w.split(size), threads):
        pictures.append(batch)
        if progress:
            progress(min(len(pictures) * size, len(w)), len(w))
    return torch.cat(pictures)


def _at_once(generator: Generator) -> int:
    """Return how many images are rendered at once, so few that progress shows more than once a
    second."""
    return max(2 * BATCH * 64**2 // generator.resolution**2, 1)


def _rendered(generator: Generator, w: Tensor) -> Tensor:
    found: Tensor = generator.synthesis(w[:, None].expand(-1, generator.num_ws, -1)).cpu()
    return found


class RandomFeatures:
    """The features of the images of random w, kept in the user's cache between fits of directions
    for one model.

    In the cache they have 8 bits, each feature from its smallest to its largest value.

    Args:
        w: ``[N, w_dim]``, the generator's random w of ``seed``.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        w: Tensor,
        seed: int,
        view: View = WHOLE,
    ) -> None:
        self._generator = generator
        self._discriminator = discriminator
        self._w = w
        self._view = view
        self._shape = len(w), _count(discriminator, view)
        self._path = cached_file(generator, discriminator, len(w), seed, view)
        self._kept = _read(self._path, self._shape)

    @property
    def kept(self) -> bool:
        """Whether the features come from the cache."""
        return self._kept is not None

    def batches(self, done: Done = lambda count: None) -> Iterator[Array]:
        """Yield features ``[n, features]``, N in all; ``done`` is called with amounts that add up
        to N."""
        if self._kept is not None:
            LOG.debug("the features of random images are those of %s", self._path)
            levels, low, step = self._kept
            for part in levels.split(ROWS):
                yield _numbers(part, low, step)
                done(len(part))
            return

        kept = []
        waiting: list[Array] = []
        small = self._shape[0] * self._shape[1] <= MOST_KEPT
        for seen in in_threads(
            lambda w: _seen(self._discriminator, _rendered(self._generator, w), self._view),
            self._w.split(min(_at_once(self._generator), BATCH)),
            _threads(self._discriminator),
        ):
            if small:
                kept.append(seen.astype(np.float16))
            done(len(seen))
            # What follows uses all threads, for which a batch is too little.
            waiting.append(seen)
            if sum(map(len, waiting)) >= ROWS:
                yield np.concatenate(waiting)
                waiting = []
        if waiting:
            yield np.concatenate(waiting)

        found = np.concatenate(kept) if small else None
        if found is not None and np.isfinite(found).all():
            LOG.debug("the features of random images are kept in %s", self._path)
            with suppress(Error):  # a cache that cannot be written is none
                _write(self._path, found)


def _count(discriminator: Discriminator, view: View) -> int:
    """Return how many features `photo_features` gives."""
    config = discriminator.config
    blank = torch.zeros(1, config.channels, config.resolution, config.resolution)
    count: int = pooled_features(discriminator, blank, view).shape[1]
    return count


def cached_file(
    generator: Generator, discriminator: Discriminator, count: int, seed: int, view: View = WHOLE
) -> Path:
    """Return where the features of ``count`` random images of ``seed`` are kept, by the weights of
    both networks."""
    digest = hashlib.sha256(repr(view).encode())
    for name, values in sorted(discriminator.state_dict().items()):
        digest.update(f"{name} {list(values.shape)}".encode())
        digest.update(values.detach().cpu().float().contiguous().numpy().tobytes())
    parts = [fingerprint(generator)[:32], digest.hexdigest()[:16], str(count), str(seed)]
    return cache_folder() / "random" / f"{'-'.join(parts)}.safetensors"


def _write(path: Path, found: Array) -> None:
    starts = range(0, len(found), ROWS)

    def part_at(start: int) -> Array:
        # In parts of single precision: the minimum of half precision takes five times as long.
        part: Array = found[start : start + ROWS].astype(np.float32)
        return part

    low = np.min([part_at(start).min(axis=0) for start in starts], axis=0)
    high = np.max([part_at(start).max(axis=0) for start in starts], axis=0)
    step = np.maximum((high - low) / LEVELS, np.float32(1e-12))
    levels = torch.empty(found.shape, dtype=torch.uint8)
    for start in starts:
        part = ((part_at(start) - low) / step).round().clip(0, LEVELS)
        levels[start : start + ROWS] = torch.from_numpy(part.astype(np.uint8))
    write_tensors(
        path,
        FORMAT,
        VERSION,
        {},
        {"levels": levels, "low": torch.from_numpy(low), "step": torch.from_numpy(step)},
    )


def _read(path: Path, shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return levels, low and step in a file of the cache, or None if it is not there, or not what
    its name says."""
    try:
        tensors = read_tensors(path, FORMAT, VERSION)[1]  # of finite numbers
        levels, low, step = (tensors[name] for name in ("levels", "low", "step"))
    except (Error, KeyError):
        return None
    if (tuple(levels.shape), low.shape, step.shape) != (shape, shape[1:], shape[1:]):
        return None
    if (levels.dtype, low.dtype, step.dtype) != (
        torch.uint8,
        torch.float32,
        torch.float32,
    ) or not bool((step > 0).all()):
        return None
    return levels, low, step


def _numbers(levels: Tensor, low: Tensor, step: Tensor) -> Array:
    found: Array = levels.float().mul_(step).add_(low).numpy()
    return found
