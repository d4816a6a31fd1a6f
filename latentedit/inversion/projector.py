"""The projector: finds the w (or one w per layer) and the noise maps that reproduce a given image.

The loss is that of Karras et al. 2020 (StyleGAN2), appendix D, with every sum computed per image.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from latentedit.errors import Error, check_number
from latentedit.inversion.latent_discriminator import Critic
from latentedit.inversion.perceptual import Perceptual, choose, distance
from latentedit.inversion.preconditioner import Curvature
from latentedit.inversion.search import FIRST_PART, RESTART_PSI, NoiseMode, Search
from latentedit.inversion.verdict import Look, Verdict, judge
from latentedit.latent.latent_file import Latent, render, save_latent
from latentedit.latent.w_statistics import WStatistics
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from latentedit.runtime.devices import tf32

STEPS = {"quasi-newton": 100, "adam": 1000}
"""Default number of steps of every method."""
PIXEL_WEIGHT = 15.0
"""Weight of the mean squared difference of the pixels; docs/photo.md has measurements, also for the weight of the face."""
PRIOR_WEIGHT = 0.1
"""Weight of the squared distance of w from its mean: it lowers fidelity a little and improves editability a lot."""
STYLE_WEIGHT = 0.01
"""Weight of the mean squared style offset, in standard deviations of the style."""

Method = Literal["quasi-newton", "adam"]
Progress = Callable[[int, int, dict[str, float]], None]


@dataclass
class Inversion:
    """The result of `invert` for ``N`` images."""

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
    """Per image: perceptual distance and PSNR (dB) with the optimised and the generator's own noise, perceptual distance of the
    model's average image, and distance in w."""
    space: str
    fingerprint: str
    settings: dict[str, Any] = field(default_factory=dict)
    styles: list[Tensor] = field(default_factory=list)
    """Offsets ``[N, I]`` to add to the styles computed from ``ws``, in the space "s"; empty in other spaces."""

    def verdict(self, index: int = 0, look: Look | None = None) -> Verdict:
        """How far edits of this latent can be trusted; the better known if someone looked (`latentedit.photo.looking`)."""
        return judge(self.distances[index], look)

    def latent(self, index: int = 0) -> Latent:
        noise = [map_[index : index + 1].clone() for map_ in self.noise]
        ws = self.ws[index : index + 1].clone()
        styles = [offset[index : index + 1].clone() for offset in self.styles]
        return Latent(ws, noise, self.fingerprint, self.space, None, self.settings, self.distances[index], styles=styles)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the latent file of a single image; for several use ``result.latent(i)``."""
        if len(self.ws) != 1:
            raise Error(f"this result holds {len(self.ws)} images; save them one by one with result.latent(i)")
        save_latent(path, self.latent())


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio in dB of images ``[N, C, H, W]`` in [-1, 1]: ``[N]``."""
    return 10 * torch.log10(4 / (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean(dim=(1, 2, 3)).clamp(min=1e-10))


def invert(
    generator: Generator,
    image: Tensor,
    space: str = "w+",
    steps: int | None = None,
    *,
    method: Method = "quasi-newton",
    perceptual: str | Perceptual = "auto",
    discriminator: Discriminator | None = None,
    perceptual_weights: str | os.PathLike[str] | None = None,
    start: Tensor | None = None,
    curvature: Curvature | None = None,
    learning_rate: float = 0.1,
    initial_noise: float = 0.05,
    noise_weight: float = 1e5,
    pixel_weight: float = PIXEL_WEIGHT,
    prior_weight: float = PRIOR_WEIGHT,
    delta_weight: float = 0.0,
    adversarial_weight: float = 0.0,
    noise: NoiseMode = "optimise",
    mask: Tensor | None = None,
    focus: Tensor | None = None,
    restarts: int = 0,
    patience: int | None = None,
    seed: int = 0,
    statistics: WStatistics | None = None,
    critic: Critic | None = None,
    progress: Progress | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Inversion:
    """Invert images: search for the w and the noise maps that reproduce them.

    "quasi-newton" takes about 100 steps, scaled by a Gauss-Newton preconditioner: most of them on w with the generator's own
    noise, then some on the noise maps. "adam" is the published projector: a thousand steps on both, with noise that is added to
    w and fades. The result for every image is the step with its smallest loss. Ctrl-C ends the search and returns the best
    result so far, with ``settings["interrupted"]`` set.

    Args:
        image: ``[N, C, resolution, resolution]`` in [-1, 1]; the images of a batch do not influence one another.
        space: "w" (one w), "w+" (one per layer) or "s" (W+, then offsets of every style channel: Wu et al. 2021).
        steps: None for 100, or 1000 with Adam; 0 returns ``start`` as it is.
        start: starting point ``[N, num_ws, w_dim]``, e.g. from `latentedit.inversion.encoder.encode`; None for the mean w.
        curvature: the Gauss-Newton preconditioner of this generator; None measures it, which takes as long as 64 steps.
        learning_rate: learning rate of Adam.
        initial_noise: standard deviation of the noise that Adam adds to w at the start, in units of sqrt(E |w - mean|^2).
        noise_weight: weight of `latentedit.inversion.noise_regulariser.noise_regulariser`.
        pixel_weight: weight of the mean squared difference of pixels.
        prior_weight: weight of the squared Mahalanobis distance of w from its mean (divided by w_dim, averaged over layers).
            Without it, images that are unlike the training data end in latents that cannot be edited. The published projector
            has no such term; 0 gives its behaviour.
        delta_weight: weight of the mean squared distance of the layers' w from their mean, in units of sqrt(E |w - mean|^2).
            It keeps W+ close to W, which improves editability (Tov et al. 2021, section 4.2, do so for an encoder).
        adversarial_weight: weight of the latent discriminator (`latentedit.inversion.latent_discriminator.Critic`), which keeps
            the w realistic.
        noise: "optimise" the maps, keep the generator's own ("frozen"), or render without ("off").
        critic: the latent discriminator for ``adversarial_weight``; None trains one, which takes seconds.
        mask: ``[1 or N, 1, resolution, resolution]``, 1 for pixels that count and 0 for others.
        focus: weights of the pixels, ``[1, 1, resolution, resolution]`` of mean 1 (`latentedit.inversion.face_weights`); None
            for equal weights. A ``perceptual`` that is given by name uses them as well.
        restarts: additional searches from random w; the best result of every image counts.
        patience: stop a search after this many steps without an improvement for any image.
        progress: called after every step with its number, the total number of steps and the mean terms of the loss.
        watch: called after every step with its number and the images rendered in it, ``[N, C, H, W]``.

    Raises:
        Error: a wrong shape, space or number of steps, or no perceptual distance is available.
    """
    expected = (generator.channels, generator.resolution, generator.resolution)
    if image.ndim != 4 or image.shape[1:] != expected:
        raise Error(f"image must have shape [N, {', '.join(map(str, expected))}], got {list(image.shape)}")
    if space not in ("w", "w+", "s"):
        raise Error(f'space must be "w", "w+" or "s", got {space!r}')
    if method not in STEPS:
        raise Error(f"method must be one of {', '.join(STEPS)}, got {method!r}")
    steps = STEPS[method] if steps is None else steps
    fewest = 0 if start is not None else 1
    for name, value, least in (("steps", steps, fewest), ("restarts", restarts, 0), ("patience", patience or 1, 1)):
        if value < least:
            raise Error(f"{name} must be at least {least}, got {value}")
    weights = {
        "noise_weight": noise_weight,
        "pixel_weight": pixel_weight,
        "prior_weight": prior_weight,
        "delta_weight": delta_weight,
        "adversarial_weight": adversarial_weight,
        "learning_rate": learning_rate,
        "initial_noise": initial_noise,
    }
    for name, weight in weights.items():
        check_number(name, weight, 0)
    if noise not in ("optimise", "frozen", "off"):
        raise Error(f'noise must be "optimise", "frozen" or "off", got {noise!r}')
    if mask is not None and (mask.ndim != 4 or mask.shape[1:] != (1, *expected[1:]) or len(mask) not in (1, len(image))):
        raise Error(f"mask must have shape [1 or {len(image)}, 1, {expected[1]}, {expected[2]}], got {list(mask.shape)}")
    if focus is not None and focus.shape != (1, 1, *expected[1:]):
        raise Error(f"focus must have shape [1, 1, {expected[1]}, {expected[2]}], got {list(focus.shape)}")
    rows = (len(image), generator.num_ws, generator.w_dim)
    if start is not None and start.shape != rows:
        raise Error(f"start must have shape {list(rows)}, got {list(start.shape)}")
    device = generator.device
    image = image.to(device)
    if isinstance(perceptual, str):
        perceptual = choose(perceptual, discriminator, perceptual_weights, device, focus)[0]
    statistics = statistics or WStatistics.of(generator)
    settings: dict[str, Any] = {
        "space": space,
        "steps": steps,
        "method": method,
        "perceptual": perceptual.name,
        **({"learning_rate": learning_rate, "initial_noise": initial_noise} if method == "adam" else {}),
        "noise": noise,
        "noise_weight": noise_weight,
        "pixel_weight": pixel_weight,
        "prior_weight": prior_weight,
        "delta_weight": delta_weight,
        "adversarial_weight": adversarial_weight,
        "restarts": restarts,
        "seed": seed,
        **({"masked": True} if mask is not None else {}),
        **({"focus": "face"} if focus is not None else {}),
        **({"started_from": "given w"} if start is not None else {}),
    }
    search = Search(
        generator,
        image,
        perceptual,
        statistics,
        1 if space == "w" else generator.num_ws,
        noise,
        mask=mask,
        focus=focus,
        start=start,
        styles=space == "s",
        critic=(critic or Critic(generator, statistics)) if adversarial_weight else None,
        weights={
            "perceptual": 1.0,
            "pixel": pixel_weight,
            "noise": noise_weight,
            "prior": prior_weight,
            "delta": delta_weight if space != "w" else 0.0,
            "adversarial": adversarial_weight,
            "styles": STYLE_WEIGHT,
        },
    )
    if method == "quasi-newton" and curvature is None and steps:
        with tf32(True, device):
            curvature = Curvature.of(generator, perceptual, statistics, pixel_weight=pixel_weight, focus=focus)
    # What is left after w: the noise maps, unless they were searched with it, and the offsets of styles.
    with_noise = noise == "optimise" and method == "quasi-newton"
    detailed = bool(steps) and (with_noise or space == "s")
    first = max(round(steps * FIRST_PART), 1) if detailed else steps
    total = first * (restarts + 1) + (steps - first if detailed else 0)

    def teller(done: int) -> Callable[[int, dict[str, float]], None]:
        def tell(step: int, terms: dict[str, float]) -> None:
            if watch:
                watch(done + step, search.rendered)
            if progress:
                progress(done + step, total, terms)

        return tell

    try:
        with tf32(True, device):
            if not steps:
                search.take_start()
            for run in range(restarts + 1 if steps else 0):
                psi, tell = RESTART_PSI if run else 0.0, teller(run * first)
                if curvature is not None and method == "quasi-newton":
                    search.quasi_newton(first, curvature, patience, seed + run, psi, tell)
                else:
                    search.adam(first, learning_rate, initial_noise, patience, seed + run, psi, tell)
            if detailed:
                search.details(steps - first, with_noise, patience, teller(first * (restarts + 1)))
    except KeyboardInterrupt:
        if not search.history:
            raise
        settings["interrupted"] = True
    return _finish(search, statistics, settings)


@torch.no_grad()
def _finish(search: Search, statistics: WStatistics, settings: dict[str, Any]) -> Inversion:
    generator, image, perceptual, target = search.generator, search.image, search.perceptual, search.target
    ws = search.best_w.expand(-1, generator.num_ws, -1).contiguous()
    maps, offsets = search.best_maps, search.best_offsets

    def picture(i: int, noise: Any) -> Tensor:
        # One by one: the way a latent file is rendered later, so that the bytes agree.
        one = slice(i, i + 1)
        return render(generator, ws[one], noise, [offset[one] for offset in offsets])

    found = torch.cat([picture(i, [m[i : i + 1] for m in maps]) for i in range(len(ws))])
    own = torch.cat([picture(i, "const") for i in range(len(ws))])
    average = generator.synthesis(statistics.mean.to(generator.device).expand(1, generator.num_ws, -1))
    away = statistics.distance(ws)
    columns = {
        "perceptual": distance(perceptual.features(found), target),
        "psnr": psnr(found, image),
        "perceptual_own_noise": distance(perceptual.features(own), target),
        "psnr_own_noise": psnr(own, image),
        "perceptual_average": distance(perceptual.features(average), target),
        "w_distance": away,
        "w_percentile": torch.tensor([statistics.percentile(float(value)) for value in away]),
    }
    distances = [{name: round(float(column[i]), 5) for name, column in columns.items()} for i in range(len(ws))]
    return Inversion(
        ws.cpu(),
        [map_.cpu() for map_ in maps],
        found.cpu(),
        own.cpu(),
        {name: torch.stack(values) for name, values in search.history.items()},
        distances,
        settings["space"],
        fingerprint(generator),
        settings,
        [offset.cpu() for offset in offsets],
    )
