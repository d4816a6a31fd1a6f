"""Pivotal tuning (Roich et al. 2021): the generator is changed a little, so that it reproduces a
photo from an editable w.

Only the difference to the generator is kept, in half precision and as products of thin matrices
where that loses nothing visible.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentedit.errors import ArgumentError, check_number
from latentedit.inversion.perceptual import distance
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.inversion.result import psnr
from latentedit.latent.deltas import Deltas, compress_deltas, expand_deltas, with_deltas
from latentedit.latent.latent_file import Latent
from latentedit.latent.w_statistics import WStatistics, sample_w
from latentedit.networks.generator import Generator
from latentedit.runtime.cuda_graphs import Graphs, Replayed
from latentedit.runtime.devices import tf32

VISIBLE = 45.0
"""PSNR in dB, between the images with the full and the compressed change, from which no difference
is visible."""
RANKS = (1, 2, 4, 8, 16, 32)
NEARBY = 0.5
"""Distance from the pivot, towards random w, at which images are kept as they were."""

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class TuningOptions:
    """Everything that can be chosen about pivotal tuning.

    Raises:
        Error: fewer than one step, or a number that is negative or not finite.
    """

    steps: int = 200
    learning_rate: float = 1e-3
    locality_weight: float = 0.1
    """Weight of the distance between what the tuned and the untouched generator draw near the pivot
    (Roich et al. 2021, section 3.3); 0 switches it off."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ArgumentError.of("steps", "at least 1", self.steps)
        check_number("learning_rate", self.learning_rate, 0)
        check_number("locality_weight", self.locality_weight, 0)


@dataclass
class Tuning:
    """The change of a generator for one photo."""

    deltas: Deltas
    stored: dict[str, Tensor]
    """The same as files store it: ``NAME`` in half precision, or the factors ``NAME/u`` and
    ``NAME/v`` of a product."""
    loss_db: float
    """PSNR between the images with the compressed and the full change."""
    rank: int | None
    """Rank of the products; None if whole matrices are stored."""
    before: dict[str, float]
    after: dict[str, float]
    """Perceptual distance and PSNR, before and after tuning."""
    steps: int
    """Number of steps that were done."""

    def put_into(self, latent: Latent) -> None:
        """Store the tuning in ``latent``, which must be the pivot."""
        latent.tuned = self.stored
        latent.settings = {
            **latent.settings,
            "tune_steps": self.steps,
            "tune_rank": self.rank,
            "tune_loss_db": self.loss_db,
        }
        latent.distances = {
            **latent.distances,
            **{f"{name}_tuned": value for name, value in self.after.items()},
        }


def tune(
    generator: Generator,
    image: Tensor,
    ws: Tensor,
    noise: list[Tensor] | None,
    loss: ReconstructionLoss,
    options: TuningOptions | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Tune the synthesis network to render ``image [1, C, H, W]`` from the pivot
    ``ws [1, num_ws, w_dim]``.

    Args:
        noise: the pivot's noise maps; None for the generator's own.
        loss: how the image and its rendering are compared.
        progress: called after every step with its number, their total number and the terms of the
            loss.

    Raises:
        Error: more than one image.
    """
    if len(image) != 1 or len(ws) != 1:
        raise ArgumentError(
            f"the generator is tuned to one image at a time, got {len(image)} images and "
            f"{len(ws)} latents"
        )
    return tune_together(generator, image, ws, noise, loss, options, progress)[0]


def tune_together(
    generator: Generator,
    images: Tensor,
    ws: Tensor,
    noise: list[Tensor] | None,
    loss: ReconstructionLoss,
    options: TuningOptions | None = None,
    progress: Progress | None = None,
) -> list[Tuning]:
    """Tune one synthesis network to render all of ``images [N, C, H, W]`` from the pivots
    ``ws [N, num_ws, w_dim]``.

    Every step adds up the gradients of all images, so it takes N times as long as with one.

    Args:
        noise: the pivots' noise maps, ``[N, 1, h, w]`` each; None for the generator's own.
        loss: how images and renderings are compared.
        progress: called after every step with its number, their total number and the mean terms of
            the loss.

    Returns:
        For every image its figures with the same difference; ``loss_db`` is that of the image that
        the compression changes most.

    Raises:
        Error: another number of latents than of images.
    """
    options = options or TuningOptions()
    count = len(images)
    if len(ws) != count or not count:
        raise ArgumentError(f"one latent for every image, got {count} images and {len(ws)} latents")

    device = generator.device
    pivots = [_Pivot.of(images, ws, noise, number, device) for number in range(count)]
    perceptual = loss.perceptual

    tuned = copy.deepcopy(generator)
    own = {name: p.detach().clone() for name, p in tuned.synthesis.named_parameters()}
    parameters = list(tuned.synthesis.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(parameters, lr=options.learning_rate)

    # Pivotal tuning, Roich et al. 2021: w stays, the weights move.
    scale = WStatistics.of(generator).std
    weights = torch.ones(1, device=device) if loss.focus is None else loss.focus.to(device)
    with torch.no_grad():
        targets = [perceptual.features(pivot.image) for pivot in pivots]
        first = [pivot.render(generator) for pivot in pivots]

    def evaluate(
        near: Tensor, ws: Tensor, image: Tensor, target: Tensor, *noise: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the terms of the loss of one image, and its gradients."""
        maps: Any = list(noise) or "const"
        rendered = tuned.synthesis(ws, noise=maps)
        terms = [
            distance(perceptual.features(rendered), target).sum(),
            (weights * (rendered - image).square()).mean(),
        ]
        total = terms[0] + loss.pixel_weight * terms[1]

        # Locality regularisation (section 3.3): images of other w must not change, so that edits
        # still lead where they did.
        if options.locality_weight:
            with torch.no_grad():
                before = generator.synthesis(near, noise=maps)
            after = tuned.synthesis(near, noise=maps)
            features = perceptual.features(torch.cat([before, after]))
            terms.append(
                (distance(features[1:], features[:1]) + (after - before).square().mean()).sum()
            )
            total = total + options.locality_weight * terms[2]

        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        return torch.stack(terms).detach(), *gradients

    def nearby(ws: Tensor, draw: int) -> Tensor:
        """Return a w some way from the pivot towards a random one, where edits go."""
        if not options.locality_weight:
            return ws
        towards = sample_w(generator, 1, (options.seed + 1 + draw) % 2**32)[:, None] - ws
        return ws + towards * (
            NEARBY * scale / towards.square().sum(dim=2, keepdim=True).sqrt().clamp(min=1e-8)
        )

    evaluation = Replayed(evaluate, Graphs(device))
    with tf32(True, device):
        for step in range(options.steps):
            terms = []
            for number, (pivot, target) in enumerate(zip(pivots, targets, strict=True)):
                near = nearby(pivot.ws, step * count + number)
                found, *gradients = evaluation(near, pivot.ws, pivot.image, target, *pivot.noise)
                terms.append(found if count == 1 else found.clone())
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    if count == 1:
                        parameter.grad = gradient
                    elif parameter.grad is None:
                        # The next image's gradients take the place of this one's.
                        parameter.grad = None if gradient is None else gradient.clone()
                    elif gradient is not None:
                        parameter.grad += gradient
                # Else those of the next step would be made beside them.
                del gradients, gradient
            optimiser.step()
            # Freed and not zeroed: the gradients are as large as the network.
            optimiser.zero_grad(set_to_none=True)
            if progress:
                means = torch.stack(terms).mean(dim=0).tolist()
                named = dict(zip(("perceptual", "pixel", "locality"), means, strict=False))
                progress(step + 1, options.steps, named)

    # The smallest change that nobody can tell from the full one.
    with torch.no_grad():
        whole = [pivot.render(tuned) for pivot in pivots]
        deltas = {
            name: (p - own[name]).detach().cpu() for name, p in tuned.synthesis.named_parameters()
        }
        best = None
        # A tuned network has the size of the network. The change is close to low rank, as all of it
        # serves one image.
        for rank in (*RANKS, None):
            stored = compress_deltas(deltas, rank)
            deltas_kept = expand_deltas(stored)
            moved = with_deltas(generator, deltas_kept)
            pictures = [pivot.render(moved) for pivot in pivots]
            worst = min(float(psnr(one, full)) for one, full in zip(pictures, whole, strict=True))
            best = stored, deltas_kept, worst, rank, pictures
            if worst >= VISIBLE:
                break

        assert best is not None

        def figures(picture: Tensor, number: int) -> dict[str, float]:
            off = distance(perceptual.features(picture), targets[number])
            return {
                "perceptual": round(float(off), 5),
                "psnr": round(float(psnr(picture, pivots[number].image)), 3),
            }

        return [
            Tuning(
                best[1],
                best[0],
                round(best[2], 2),
                best[3],
                figures(first[number], number),
                figures(best[4][number], number),
                options.steps,
            )
            for number in range(count)
        ]


@dataclass(frozen=True)
class _Pivot:
    """An image and the latent that it is rendered from."""

    image: Tensor
    ws: Tensor
    noise: list[Tensor]
    """Empty for the generator's own maps."""

    @classmethod
    def of(
        cls,
        images: Tensor,
        ws: Tensor,
        noise: list[Tensor] | None,
        number: int,
        device: torch.device,
    ) -> "_Pivot":
        one = slice(number, number + 1)
        maps = [map_[one].to(device) for map_ in noise or []]
        return cls(images[one].to(device), ws[one].to(device), maps)

    def render(self, generator: Generator) -> Tensor:
        picture: Tensor = generator.synthesis(self.ws, noise=self.noise or "const")
        return picture
