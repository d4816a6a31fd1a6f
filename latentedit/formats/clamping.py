"""What a clamp of activations changes; networks trained in half precision have one (Karras et al.
2020, ADA)."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentedit.latent.w_statistics import one_hot, sample_z
from latentedit.model.model import Model

SAMPLES = 8
"""Random images (psi 1, seeds from 0) on which the effect is measured."""

Progress = Callable[[int, int], None]


@dataclass
class ClampEffect:
    """How far the activations of a network without its clamp go beyond it, on `SAMPLES` random
    images."""

    limit: float
    """The clamp."""
    largest: float = 0.0
    """Largest magnitude of an activation."""
    beyond: int = 0
    """Number of activations beyond the clamp ..."""
    count: int = 0
    """... of this many."""
    change: float = 0.0
    """Largest change of the results if the clamp is left out: of images in [-1, 1], or of
    logits."""

    @property
    def reached(self) -> bool:
        return self.beyond > 0

    def watch(self, network: nn.Module) -> None:
        """Take the clamp out of ``network``, and look from now on at every result that it was
        applied to."""

        def look(module: nn.Module, inputs: Any, options: dict[str, Any], result: Tensor) -> None:
            size = result.abs() / options.get("gain", 1.0)
            self.largest = max(self.largest, float(size.max()))
            self.beyond += int((size > self.limit).sum())
            self.count += size.numel()

        module: Any
        for module in network.modules():
            if getattr(module, "clamp", None) is not None:
                module.clamp = None
                module.register_forward_hook(look, with_kwargs=True)


@torch.no_grad()
def clamp_effects(
    model: Model, progress: Progress | None = None
) -> tuple[ClampEffect | None, ClampEffect | None]:
    """Measure what the clamps of a StyleGAN2's generator and discriminator do; None for a network
    without one.

    Args:
        progress: called with the number of images done and their total number.
    """
    generator = model.generator
    discriminator = model.discriminator
    free = copy.deepcopy(generator)
    free_d = copy.deepcopy(discriminator)
    effect = None
    effect_d = None
    if generator.config.conv_clamp is not None:
        effect = ClampEffect(generator.config.conv_clamp)
        effect.watch(free)
    if (
        discriminator is not None
        and free_d is not None
        and discriminator.config.conv_clamp is not None
    ):
        effect_d = ClampEffect(discriminator.config.conv_clamp)
        effect_d.watch(free_d)

    for index in range(SAMPLES if effect or effect_d else 0):
        label = torch.tensor([index % max(generator.c_dim, 1)])
        c = one_hot(label, generator.c_dim).to(generator.device) if generator.c_dim else None
        ws = generator.mapping(sample_z(index, generator.z_dim).to(generator.device), c)
        image = free.synthesis(ws)
        if effect and effect.reached:  # before that, the two are equal
            clamped = generator.synthesis(ws)
            effect.change = max(effect.change, float((image - clamped).abs().max()))
            image = clamped
        if effect_d and discriminator is not None and free_d is not None:
            logits = free_d(image, c)
            if effect_d.reached:
                effect_d.change = max(
                    effect_d.change, float((logits - discriminator(image, c)).abs().max())
                )

        if progress:
            progress(index + 1, SAMPLES)

    return effect, effect_d


def effect_line(effect: ClampEffect, what: str, unit: str, scale: float = 1.0) -> str:
    """One line: what is left out, and what that changes."""
    start = f"the clamp of {what} at {effect.limit:g}"
    on = f"{SAMPLES} random images (psi 1)"
    if not effect.reached:
        return (
            f"{start}, which changes nothing in {on}: the largest of their activations is "
            f"{effect.largest:.3g}"
        )

    share = f"{100 * effect.beyond / effect.count:.2g} %"
    return (
        f"{start}; {share} of the activations of {on} go beyond it, and the {unit} change by up to "
        f"{effect.change * scale:.2g}"
    )
