"""The result of an inversion: latents, noise maps, images, and how near they came."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentedit.errors import ArgumentError
from latentedit.inversion.verdict import Look, Verdict, judge
from latentedit.latent.latent_file import Latent, save_latent


@dataclass
class Inversion:
    """The result of `latentedit.invert` for ``N`` images."""

    ws: Tensor
    """``[N, num_ws, w_dim]``."""
    noise: list[Tensor]
    """Maps ``[N, 1, h, w]``, coarse to fine."""
    image: Tensor
    """``[N, C, H, W]``, rendered one by one with the optimised noise."""
    image_own_noise: Tensor
    """The same w with the generator's own noise."""
    history: dict[str, Tensor]
    """Terms of the loss (perceptual, pixel, noise, prior) at every step, each ``[steps, N]``."""
    distances: list[dict[str, float]]
    """Per image: perceptual distance and PSNR (dB) with the optimised and the generator's own
    noise, perceptual distance of the model's average image, and distance in w."""
    space: str
    fingerprint: str
    settings: dict[str, Any] = field(default_factory=dict)
    styles: list[Tensor] = field(default_factory=list)
    """Offsets ``[N, I]`` to add to the styles computed from ``ws``, in the space "s"; empty in
    other spaces."""

    def __repr__(self) -> str:
        found = [f"{one['psnr']:.1f}" for one in self.distances[:3] if "psnr" in one]
        more = ", ..." if len(self.distances) > 3 else ""
        reached = f", PSNR {', '.join(found)}{more} dB" if found else ""
        count = f"{len(self.ws)} image{'s' if len(self.ws) > 1 else ''}"
        return f"Inversion({count}, {self.space}{reached})"

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or `SearchStep.stop` ended the search early; the latents are the best
        until then."""
        return bool(self.settings.get("interrupted"))

    def verdict(self, index: int = 0, look: Look | None = None) -> Verdict:
        """Return how far edits of this latent can be trusted; the better known if someone looked
        (`latentedit.photo.looking`)."""
        return judge(self.distances[index], look)

    def latent(self, index: int = 0) -> Latent:
        """One of the images as a latent, which knows its generator and its space."""
        one = slice(index, index + 1)
        return Latent(
            self.ws[one].clone(),
            [map_[one].clone() for map_ in self.noise],
            self.fingerprint,
            self.space,
            None,
            self.settings,
            self.distances[index],
            styles=[offset[one].clone() for offset in self.styles],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the latent file of a single image; for several use ``result.latent(i)``."""
        if len(self.ws) != 1:
            raise ArgumentError(
                f"this result holds {len(self.ws)} images; save them one by one with "
                "result.latent(i)"
            )
        save_latent(path, self.latent())


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio in dB of images ``[N, C, H, W]`` in [-1, 1]:
    ``[N]``."""
    return 10 * torch.log10(
        4 / (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean(dim=(1, 2, 3)).clamp(min=1e-10)
    )
