"""The domain of a model: how far its own random images lie from one another in the features of its
discriminator."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import Error
from latentedit.io.files import cache_folder
from latentedit.io.native_file import read_tensors, write_tensors
from latentedit.latent.w_statistics import sample_w
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.generator import Generator

FORMAT = "latentedit-domain"
VERSION = 1
SAMPLES = 48
"""Number of the model's random images that a crop is compared with; fewer for large images."""


@dataclass(frozen=True)
class Domain:
    """The distribution of a model's random images in the features of its discriminator."""

    mean: Tensor
    """Mean of the features, ``[K]``."""
    std: Tensor
    """Standard deviation of every feature, ``[K]``."""
    usual: float
    """Distance that 95 % of the model's random images do not reach."""
    halved: bool = False
    """Whether images are reduced to half their size first, which takes a quarter of the time."""

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        generator: Generator,
        discriminator: Discriminator,
        *,
        halved: bool = False,
        pause: Callable[[], None] = lambda: None,
    ) -> "Domain":
        """Render random images and measure how far they lie from one another.

        ``pause`` is called before each; it returns when there is time for it.
        """
        count = max(min(SAMPLES, (SAMPLES * 256**2) // generator.resolution**2), 8)
        rows = sample_w(generator, count)[:, None].expand(-1, generator.num_ws, -1)
        seen = []
        for row in rows:
            pause()
            seen.append(_pooled(discriminator, generator.synthesis(row[None]), halved))
        own = torch.cat(seen)
        mean = own.mean(dim=0)
        std = own.std(dim=0).clamp(min=1e-6)

        # Each against the others, as a picture lies nearer to a mean that it is part of.
        left_out = [_distance(own[i], *_without(own, i)) for i in range(count)]
        return cls(mean, std, float(np.quantile(left_out, 0.95)), halved)

    @classmethod
    def cached(
        cls,
        generator: Generator,
        discriminator: Discriminator,
        fingerprint: str,
        *,
        halved: bool = False,
        pause: Callable[[], None] = lambda: None,
    ) -> "Domain":
        """As `of`, kept in the user's cache under the generator's ``fingerprint`` and the
        discriminator's weights."""
        view = " halved" if halved else ""
        digest = hashlib.sha256(f"{fingerprint} {VERSION} {SAMPLES}{view}".encode())
        for name, tensor in sorted(discriminator.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())

        path = cache_folder() / "domain" / f"{digest.hexdigest()[:32]}.safetensors"
        with suppress(Error, KeyError):
            kept = read_tensors(path, FORMAT, VERSION)[1]
            usual = kept["usual"]
            if (
                all(bool(tensor.isfinite().all()) for tensor in kept.values())
                and usual.numel() == 1
            ):
                return cls(kept["mean"], kept["std"], float(usual), halved)

        found = cls.of(generator, discriminator, halved=halved, pause=pause)
        with suppress(Error):  # a cache that cannot be written is none
            tensors = {"mean": found.mean, "std": found.std, "usual": torch.tensor([found.usual])}
            write_tensors(path, FORMAT, VERSION, {}, tensors)
        return found

    @torch.no_grad()
    def distance(self, discriminator: Discriminator, image: Tensor) -> float:
        """Return the distance of ``image [1, C, H, W]``; 1 is that of the farthest of the model's
        own images."""
        return self.distances(discriminator, image)[0]

    @torch.no_grad()
    def distances(self, discriminator: Discriminator, images: Tensor) -> list[float]:
        """Return the distance of every image of ``images [N, C, H, W]``."""
        return [
            _distance(row, self.mean, self.std) / self.usual
            for row in _pooled(discriminator, images, self.halved)
        ]


def _pooled(discriminator: Discriminator, image: Tensor, halved: bool) -> Tensor:
    seen = F.avg_pool2d(image, 2) if halved else image
    return torch.cat(
        [x.float().mean(dim=(2, 3)) for x in discriminator.features(seen, halved=halved)], dim=1
    ).cpu()


def _without(rows: Tensor, index: int) -> tuple[Tensor, Tensor]:
    others = torch.cat([rows[:index], rows[index + 1 :]])
    return others.mean(dim=0), others.std(dim=0).clamp(min=1e-6)


def _distance(row: Tensor, mean: Tensor, std: Tensor) -> float:
    return float(((row - mean) / std).square().mean().sqrt())
