"""The projector: finds the w (or one w a layer) and noise maps whose picture is nearest to a given one.

After Karras et al. 2020 (StyleGAN2), appendix D, with every sum taken picture by picture.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.discriminator import Discriminator
from latentedit.errors import Error
from latentedit.generator import Generator
from latentedit.latents import Latent, save_latent
from latentedit.models import fingerprint
from latentedit.perceptual import Perceptual, choose, distance
from latentedit.statistics import WStatistics

NOISE_RAMP = 0.75
"""Fraction of the run over which the noise added to w fades."""
RAMP_DOWN, RAMP_UP = 0.25, 0.05
"""Fractions of the run over which the learning rate falls and rises."""
SMALLEST_LEVEL = 8
"""Side of the coarsest level of the noise regulariser's pyramid."""

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass
class Inversion:
    """What `invert` found for ``N`` pictures."""

    ws: Tensor
    """``[N, num_ws, w_dim]``."""
    noise: list[Tensor]
    """Maps ``[N, 1, h, w]``, coarse to fine."""
    image: Tensor
    """``[N, C, H, W]``, rendered one by one with the found noise."""
    image_own_noise: Tensor
    """The same w with the generator's own noise."""
    history: dict[str, Tensor]
    """Perceptual, pixel, noise and prior terms of every step, each ``[steps, N]``."""
    distances: list[dict[str, float]]
    """A picture: perceptual distance and PSNR (dB) with the found and the generator's own noise, distance from its w."""
    space: str
    fingerprint: str
    settings: dict[str, Any] = field(default_factory=dict)

    def latent(self, index: int = 0) -> Latent:
        noise = [map_[index : index + 1].clone() for map_ in self.noise]
        ws = self.ws[index : index + 1].clone()
        return Latent(ws, noise, self.fingerprint, self.space, None, self.settings, self.distances[index])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the latent file of a single picture; for several use ``result.latent(i)``."""
        if len(self.ws) != 1:
            raise Error(f"this result holds {len(self.ws)} pictures; save them one by one with result.latent(i)")
        save_latent(path, self.latent())


def noise_regulariser(maps: list[Tensor]) -> Tensor:
    """How far noise maps ``[N, 1, h, w]`` are from white, picture by picture: ``[N]``.

    The squared autocorrelation at a shift of one pixel, over every level of a pyramid down to 8 x 8 (StyleGAN2,
    appendix D). Levels are averaged 2 x 2 and multiplied by 2 as in the paper, which keeps unit variance at every level;
    the published code leaves the factor out, so that there coarse levels hardly count.
    """
    total = maps[0].new_zeros(maps[0].shape[0])
    for map_ in maps:
        level = map_
        while True:
            for axis in (2, 3):
                total = total + (level * level.roll(1, dims=axis)).mean(dim=(1, 2, 3)).square()
            if level.shape[-1] <= SMALLEST_LEVEL:
                break
            level = F.avg_pool2d(level, 2) * 2
    return total


def schedule(t: float) -> float:
    """Factor on the learning rate at progress ``t`` in [0, 1): linear rise, cosine fall."""
    fall = min(1.0, (1 - t) / RAMP_DOWN)
    return (0.5 - 0.5 * math.cos(math.pi * fall)) * min(1.0, t / RAMP_UP)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures ``[N, C, H, W]`` in [-1, 1]: ``[N]``."""
    return 10 * torch.log10(4 / (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean(dim=(1, 2, 3)).clamp(min=1e-10))


@torch.no_grad()
def _renormalise(maps: list[Tensor]) -> None:
    for map_ in maps:
        map_ -= map_.mean(dim=(1, 2, 3), keepdim=True)
        map_ *= map_.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()


def invert(
    generator: Generator,
    image: Tensor,
    space: str = "w+",
    steps: int = 1000,
    *,
    perceptual: str | Perceptual = "auto",
    discriminator: Discriminator | None = None,
    perceptual_weights: str | os.PathLike[str] | None = None,
    learning_rate: float = 0.1,
    initial_noise: float = 0.05,
    noise_weight: float = 1e5,
    pixel_weight: float = 1.0,
    prior_weight: float = 0.01,
    seed: int = 0,
    statistics: WStatistics | None = None,
    progress: Progress | None = None,
) -> Inversion:
    """Invert pictures by Adam on w and the noise maps, from the mean of 10,000 w.

    Args:
        image: ``[N, C, resolution, resolution]`` in [-1, 1]; every picture is inverted as if it were alone.
        space: "w" (one w) or "w+" (one a layer).
        steps: Adam steps, at least 1.
        perceptual: "auto", "lpips", "discriminator" (see `latentedit.perceptual.choose`) or an object of your own.
        discriminator: of the model; needed for the discriminator's distance.
        initial_noise: standard deviation of the noise added to w at the start, in units of sqrt(E |w - mean|^2).
        noise_weight: weight of `noise_regulariser`.
        pixel_weight: weight of the mean squared difference of pixels.
        prior_weight: weight of the squared Mahalanobis distance of w from the generator's own (over w_dim, averaged over
            rows), without which pictures foreign to the generator end where no edit means anything; the published
            projector has no such term, 0 gives its behaviour.
        progress: called after every step with its number, ``steps`` and the mean terms.

    Raises:
        Error: a wrong shape, space or number of steps, or no perceptual distance to be had.
    """
    expected = (generator.channels, generator.resolution, generator.resolution)
    if image.ndim != 4 or image.shape[1:] != expected:
        raise Error(f"image must have shape [N, {', '.join(map(str, expected))}], got {list(image.shape)}")
    if space not in ("w", "w+"):
        raise Error(f'space must be "w" or "w+", got {space!r}')
    if steps < 1:
        raise Error(f"steps must be at least 1, got {steps}")
    device = generator.device
    image = image.to(device)
    if isinstance(perceptual, str):
        perceptual = choose(perceptual, discriminator, perceptual_weights, device)[0]
    statistics = statistics or WStatistics.of(generator)

    n, rows = len(image), 1 if space == "w" else generator.num_ws
    streams = [torch.Generator().manual_seed(seed) for _ in range(n)]  # a picture's draws do not depend on its neighbours

    def draw(*shape: int) -> Tensor:
        return torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(device)

    with torch.no_grad():
        target = perceptual.features(image)
    mean, whitening = statistics.mean.to(device), statistics.whitening.to(device)
    w = mean.repeat(n, rows, 1).requires_grad_()  # [N, 1 or num_ws, w_dim]
    maps = [draw(*shape[1:]).requires_grad_() for shape in generator.synthesis.noise_shapes]
    optimiser = torch.optim.Adam([w, *maps], lr=learning_rate, betas=(0.9, 0.999))
    weights = {"perceptual": 1.0, "pixel": pixel_weight, "noise": noise_weight, "prior": prior_weight}
    history: dict[str, list[Tensor]] = {name: [] for name in weights}
    for step in range(steps):
        t = step / steps
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * schedule(t)
        jitter = statistics.std * initial_noise * max(0.0, 1 - t / NOISE_RAMP) ** 2
        noisy = w + draw(rows, generator.w_dim) * jitter if jitter else w
        rendered = generator.synthesis(noisy.expand(-1, generator.num_ws, -1), noise=maps)
        terms = {
            "perceptual": distance(perceptual.features(rendered), target),
            "pixel": (rendered - image).square().mean(dim=(1, 2, 3)),
            "noise": noise_regulariser(maps),
            "prior": ((w - mean) @ whitening).square().mean(dim=(1, 2)),
        }
        loss = sum(weights[name] * term for name, term in terms.items())
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
        _renormalise(maps)
        for name, value in terms.items():
            history[name].append(value.detach().cpu())
        if progress:
            progress(step + 1, steps, {name: float(value[-1].mean()) for name, value in history.items()})

    settings = {
        "space": space,
        "steps": steps,
        "perceptual": perceptual.name,
        "learning_rate": learning_rate,
        "initial_noise": initial_noise,
        "noise_weight": noise_weight,
        "pixel_weight": pixel_weight,
        "prior_weight": prior_weight,
        "seed": seed,
    }
    return _finish(
        generator,
        image,
        w.detach().expand(-1, generator.num_ws, -1).contiguous(),
        [map_.detach() for map_ in maps],
        perceptual,
        target,
        statistics,
        {name: torch.stack(values) for name, values in history.items()},
        settings,
    )


@torch.no_grad()
def _finish(
    generator: Generator,
    image: Tensor,
    ws: Tensor,
    maps: list[Tensor],
    perceptual: Perceptual,
    target: Tensor,
    statistics: WStatistics,
    history: dict[str, Tensor],
    settings: dict[str, Any],
) -> Inversion:
    # One by one: the way a latent file is rendered later, so that the bytes agree.
    found = torch.cat([generator.synthesis(ws[i : i + 1], noise=[m[i : i + 1] for m in maps]) for i in range(len(ws))])
    own = torch.cat([generator.synthesis(ws[i : i + 1]) for i in range(len(ws))])
    away = statistics.distance(ws)
    columns = {
        "perceptual": distance(perceptual.features(found), target),
        "psnr": psnr(found, image),
        "perceptual_own_noise": distance(perceptual.features(own), target),
        "psnr_own_noise": psnr(own, image),
        "w_distance": away,
        "w_percentile": torch.tensor([statistics.percentile(float(value)) for value in away]),
    }
    distances = [{name: round(float(column[i]), 5) for name, column in columns.items()} for i in range(len(ws))]
    return Inversion(
        ws.cpu(),
        [map_.cpu() for map_ in maps],
        found.cpu(),
        own.cpu(),
        history,
        distances,
        settings["space"],
        fingerprint(generator),
        settings,
    )
