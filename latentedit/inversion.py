"""The projector: finds the w (or one w a layer) and noise maps whose picture is nearest to a given one.

After Karras et al. 2020 (StyleGAN2), appendix D, with every sum taken picture by picture.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.discriminator import Discriminator
from latentedit.errors import Error
from latentedit.generator import Generator
from latentedit.latents import Latent, save_latent
from latentedit.models import fingerprint
from latentedit.perceptual import Perceptual, choose, distance
from latentedit.statistics import WStatistics, sample_w

NOISE_RAMP = 0.75
"""Fraction of the run over which the noise added to w fades."""
RAMP_DOWN, RAMP_UP = 0.25, 0.05
"""Fractions of the run over which the learning rate falls and rises."""
SMALLEST_LEVEL = 8
"""Side of the coarsest level of the noise regulariser's pyramid."""

PLATEAU = 0.001
"""An improvement of the loss by less than this part of it counts as none."""
RESTART_PSI = 0.5
"""Restarts begin at random w, this far from the mean."""

Progress = Callable[[int, int, dict[str, float]], None]
NoiseMode = Literal["optimise", "frozen", "off"]


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

    def verdict(self, index: int = 0) -> str:
        """How far edits of this latent can be trusted, in a sentence."""
        found = self.distances[index]
        far, gap = found["w_percentile"], found["psnr"] - found["psnr_own_noise"]
        if far <= 95:
            word = "lies where the model's own pictures do: sliders mean what they say"
        elif found["w_distance"] <= 2:
            word = "lies at the edge of the model's own pictures: edit in small amounts"
        else:
            word = "lies far from the model's own pictures: sliders may do something else"
        return word + (f"; {gap:.0f} dB of the likeness are in the noise, which no slider moves" if gap > 3 else "")

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
    delta_weight: float = 0.0,
    noise: NoiseMode = "optimise",
    mask: Tensor | None = None,
    restarts: int = 0,
    patience: int | None = None,
    seed: int = 0,
    statistics: WStatistics | None = None,
    progress: Progress | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Inversion:
    """Invert pictures by Adam on w and the noise maps, from the mean of 10,000 w.

    Of every picture the step with the smallest loss counts, among those after the noise added to w has faded. Ctrl-C ends the
    search and gives what has been found until then, with ``settings["interrupted"]`` set.

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
        delta_weight: weight of the mean squared distance of the rows of w from their mean, in units of sqrt(E |w - mean|^2):
            draws W+ towards W, where edits mean more (Tov et al. 2021, section 4.2, hold an encoder's output near W so).
        noise: "optimise" the maps, keep the generator's own ("frozen"), or render without ("off").
        mask: ``[1 or N, 1, resolution, resolution]``, 1 where the picture counts and 0 where it does not.
        restarts: further searches, from random w; of every picture the best counts.
        patience: end when no picture's loss has improved for so many steps, after the noise added to w has faded.
        progress: called after every step with its number, ``steps`` and the mean terms.
        watch: called after every step with its number and the pictures drawn in it, ``[N, C, H, W]``.

    Raises:
        Error: a wrong shape, space or number of steps, or no perceptual distance to be had.
    """
    expected = (generator.channels, generator.resolution, generator.resolution)
    if image.ndim != 4 or image.shape[1:] != expected:
        raise Error(f"image must have shape [N, {', '.join(map(str, expected))}], got {list(image.shape)}")
    if space not in ("w", "w+"):
        raise Error(f'space must be "w" or "w+", got {space!r}')
    for name, value, least in (("steps", steps, 1), ("restarts", restarts, 0), ("patience", patience or 1, 1)):
        if value < least:
            raise Error(f"{name} must be at least {least}, got {value}")
    if noise not in ("optimise", "frozen", "off"):
        raise Error(f'noise must be "optimise", "frozen" or "off", got {noise!r}')
    if mask is not None and (mask.ndim != 4 or mask.shape[1:] != (1, *expected[1:]) or len(mask) not in (1, len(image))):
        raise Error(f"mask must have shape [1 or {len(image)}, 1, {expected[1]}, {expected[2]}], got {list(mask.shape)}")
    device = generator.device
    image = image.to(device)
    if isinstance(perceptual, str):
        perceptual = choose(perceptual, discriminator, perceptual_weights, device)[0]
    statistics = statistics or WStatistics.of(generator)

    search = _Search(generator, image, perceptual, statistics, 1 if space == "w" else generator.num_ws, noise, mask)
    search.weights = {
        "perceptual": 1.0,
        "pixel": pixel_weight,
        "noise": noise_weight if noise == "optimise" else 0.0,
        "prior": prior_weight,
        "delta": delta_weight if space == "w+" else 0.0,
    }
    settings: dict[str, Any] = {
        "space": space,
        "steps": steps,
        "perceptual": perceptual.name,
        "learning_rate": learning_rate,
        "initial_noise": initial_noise,
        "noise": noise,
        "noise_weight": noise_weight,
        "pixel_weight": pixel_weight,
        "prior_weight": prior_weight,
        "delta_weight": delta_weight,
        "restarts": restarts,
        "seed": seed,
        **({"masked": True} if mask is not None else {}),
    }
    total = steps * (restarts + 1)
    try:
        for run in range(restarts + 1):

            def tell(step: int, terms: dict[str, float], done: int = run * steps) -> None:
                if watch:
                    watch(done + step, search.rendered)
                if progress:
                    progress(done + step, total, terms)

            search.run(steps, learning_rate, initial_noise, patience, seed + run, RESTART_PSI if run else 0.0, tell)
    except KeyboardInterrupt:
        if not search.history:
            raise
        settings["interrupted"] = True
    ws = search.best_w.expand(-1, generator.num_ws, -1).contiguous()
    history = {name: torch.stack(values) for name, values in search.history.items()}
    return _finish(generator, image, ws, search.best_maps, perceptual, search.target, statistics, history, settings)


class _Search:
    """Adam on w and noise maps; remembers the best of every picture over all runs."""

    def __init__(
        self,
        generator: Generator,
        image: Tensor,
        perceptual: Perceptual,
        statistics: WStatistics,
        rows: int,
        noise: NoiseMode,
        mask: Tensor | None,
    ) -> None:
        self.generator, self.image, self.perceptual, self.statistics = generator, image, perceptual, statistics
        self.rows, self.noise, self.n, self.device = rows, noise, len(image), image.device
        self.mask = None if mask is None else mask.to(self.device)
        with torch.no_grad():
            self.target = perceptual.features(image)
        self.mean, self.whitening = statistics.mean.to(self.device), statistics.whitening.to(self.device)
        self.weights: dict[str, float] = {}
        self.history: dict[str, list[Tensor]] = {}
        self.best_loss = torch.full((self.n,), torch.inf, device=self.device)
        self.best_w = torch.empty(0)
        self.best_maps: list[Tensor] = []
        self.rendered = image

    def run(
        self,
        steps: int,
        learning_rate: float,
        initial_noise: float,
        patience: int | None,
        seed: int,
        psi: float,
        progress: Callable[[int, dict[str, float]], None],
    ) -> None:
        generator, n = self.generator, self.n
        streams = [torch.Generator().manual_seed(seed) for _ in range(n)]  # a picture's draws do not depend on its neighbours

        def draw(*shape: int) -> Tensor:
            return torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(self.device)

        w = self.mean.repeat(n, self.rows, 1)  # [N, 1 or num_ws, w_dim]
        if psi:
            start = sample_w(generator, 1, seed).to(self.device)
            w = torch.lerp(w, start.expand_as(w), psi)
        w = w.requires_grad_()
        maps = self._maps(draw)
        free = [w, *maps] if self.noise == "optimise" else [w]
        optimiser = torch.optim.Adam(free, lr=learning_rate, betas=(0.9, 0.999))
        run_best, since = torch.full_like(self.best_loss, torch.inf), 0
        try:
            for step in range(steps):
                t = step / steps
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate * schedule(t)
                jitter = self.statistics.std * initial_noise * max(0.0, 1 - t / NOISE_RAMP) ** 2
                noisy = w + draw(self.rows, generator.w_dim) * jitter if jitter else w
                terms = self._terms(noisy, w, maps)
                loss = self._loss(terms)
                if not jitter:
                    self._remember(loss.detach(), w, maps)
                optimiser.zero_grad(set_to_none=True)
                loss.sum().backward()
                optimiser.step()
                if self.noise == "optimise":
                    _renormalise(maps)
                for name, value in terms.items():
                    self.history.setdefault(name, []).append(value.detach().cpu())
                progress(step + 1, {name: float(value.detach().mean()) for name, value in terms.items()})
                if patience is not None and not jitter:
                    better = loss.detach() < run_best * (1 - PLATEAU)
                    run_best = torch.minimum(run_best, loss.detach())
                    since = 0 if bool(better.any()) else since + 1
                    if since >= patience:
                        break
        finally:  # also where Ctrl-C ends it: the last step has moved once more
            with torch.no_grad():
                self._remember(self._loss(self._terms(w, w, maps)), w, maps)

    def _loss(self, terms: dict[str, Tensor]) -> Tensor:
        return sum((self.weights[name] * term for name, term in terms.items()), torch.zeros(self.n, device=self.device))

    def _maps(self, draw: Callable[..., Tensor]) -> list[Tensor]:
        synthesis = self.generator.synthesis
        if self.noise == "frozen":
            return [layer.noise_const[None, None].repeat(self.n, 1, 1, 1) for layer in synthesis.layers]
        if self.noise == "off":
            return [torch.zeros(self.n, *shape[1:], device=self.device) for shape in synthesis.noise_shapes]
        return [draw(*shape[1:]).requires_grad_() for shape in synthesis.noise_shapes]

    def _terms(self, noisy: Tensor, w: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        """The parts of the loss, ``[N]`` each; rendered from ``noisy``, judged by where ``w`` lies."""
        rendered = self.generator.synthesis(noisy.expand(-1, self.generator.num_ws, -1), noise=maps)
        self.rendered = rendered.detach()
        difference = rendered - self.image
        if self.mask is not None:
            # What does not count is taken from the picture itself, so that no distance can see it.
            difference = difference * self.mask
            rendered = self.image + difference
        zero = torch.zeros(self.n, device=self.device)
        spread = (w - w.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1) / self.statistics.std**2
        return {
            "perceptual": distance(self.perceptual.features(rendered), self.target),
            "pixel": difference.square().mean(dim=(1, 2, 3)),
            "noise": noise_regulariser(maps) if self.noise == "optimise" else zero,
            "prior": ((w - self.mean) @ self.whitening).square().mean(dim=(1, 2)),
            "delta": spread,
        }

    @torch.no_grad()
    def _remember(self, loss: Tensor, w: Tensor, maps: list[Tensor]) -> None:
        if not self.best_maps:
            self.best_w, self.best_maps = w.detach().clone(), [map_.detach().clone() for map_ in maps]
        better = loss < self.best_loss
        self.best_loss = torch.where(better, loss, self.best_loss)
        for best, now in zip([self.best_w, *self.best_maps], [w, *maps], strict=True):
            best[better] = now.detach()[better]


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
