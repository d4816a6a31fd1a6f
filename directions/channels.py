"""Single style channels with a local effect (StyleSpace, Wu et al. 2021), found without labels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.directions.components import Layers, Progress, check_count, check_layers
from latentedit.directions.direction import Direction
from latentedit.errors import ArgumentError
from latentedit.latent.latent_file import render
from latentedit.latent.w_statistics import random_labels, sample_w, style_statistics
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator

GRID = 8
"""The picture is looked at in 8 x 8 places."""
SCREENED = 8
"""Random pictures that the derivatives of all channels are taken of."""
SHORTLIST = 3
"""Times as many channels as are wanted are measured by rendering."""
BATCH = 8


@dataclass(frozen=True)
class Sampling:
    """Which images style channels are measured on, and how far the channels are moved."""

    samples: int = 32
    """Number of random images."""
    amount: float = 3.0
    """Standard deviations by which a channel is moved in both directions."""
    psi: float = 0.7
    """Truncation of the images. Places in the image are only comparable if images have a common
    layout."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.amount > 0:
            counts = f"{self.samples} and {self.amount}"
            raise ArgumentError(
                f"style channels need at least 1 sample and an amount above 0, got {counts}"
            )


SAMPLING = Sampling()


def style_channels(
    generator: Generator,
    count: int = 20,
    *,
    discriminator: Discriminator | None = None,
    sampling: Sampling = SAMPLING,
    layers: Layers = None,
    progress: Progress | None = None,
) -> list[Direction]:
    """Find the ``count`` style channels with the strongest local effect (StyleSpace, Wu et al.
    2021, section 4).

    All channels are screened by derivatives (`screen`). The best of them are measured on images
    with the channel moved by ``sampling.amount`` standard deviations in both directions. Both rank
    by ``effect * ((locality - 1/4) / (3/4))^2``. A channel that changes the whole image, such as
    brightness, has the rank 0. Locality weighs more than effect, because a larger amount makes a
    weak effect stronger, but nothing makes a global effect local.

    Args:
        discriminator: if given, reports contain ``realism``, the (negative) change of its logits at
            ``sampling.amount``.
        sampling: the images of the measurement, and the ``amount``.
        layers: first and last layer whose channels are analysed; None for all.
        progress: called with the number of finished steps and of all steps.

    Returns:
        Directions in the space "s" named ``s-LL-CCC`` by style layer and channel. Reports contain
        ``effect``, the root mean square change of the image (in [-1, 1]) for one standard
        deviation; ``locality``, the share of the squared change inside the quarter of the 8 x 8
        places where it is largest (1: local, 0.25: everywhere); and ``place``, row and column of
        its centre in fractions of the image.

    Raises:
        Error: too many channels, no samples, layers outside the network, or a discriminator of a
            different size.
    """
    mean, std = style_statistics(generator)
    sizes = [size for _, size in generator.synthesis.style_layers]
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))  # [channels]
    first, last = check_layers(generator, layers)
    row_of = torch.tensor([row for row, _ in generator.synthesis.style_layers])[owner]
    alive = (row_of >= first) & (row_of <= last) & (std > 0)
    check_count(
        generator, count, int(alive.sum()), "style channels that vary in these layers", layers
    )
    samples = sampling.samples
    seed = sampling.seed

    # Truncated images have a common layout: eyes and mouths are in the same places.
    w = torch.lerp(generator.mapping.w_avg, sample_w(generator, samples, seed), sampling.psi)
    screened = w[:SCREENED]
    passes = -(-len(screened) // BATCH) * GRID**2
    chosen = min(SHORTLIST * count, int(alive.sum()))
    total = passes + chosen * -(-samples // BATCH)

    def step(done: int) -> None:
        if progress:
            progress(done, total)

    # Rendering each of thousands of channels would take hours; derivatives rank them in minutes.
    worth = _worth(screen(generator, screened, std, seed=seed, progress=step)) * alive
    best = worth.argsort(descending=True, stable=True)

    # More than are wanted, as derivatives only tell about small amounts.
    shortlist = best[alive[best]][:chosen].tolist()
    labels = random_labels(generator, seed, samples)
    energy, realism = _measure(
        generator,
        w,
        labels,
        [(c, int(owner[c])) for c in shortlist],
        std,
        sampling.amount,
        discriminator,
        lambda n: step(passes + n),
    )
    order = _worth(energy).argsort(descending=True, stable=True)[:count].tolist()
    sigmas = _spread(generator, shortlist, std)
    own = fingerprint(generator)
    found = []
    starts = np.cumsum([0, *sizes])

    for i in order:
        channel = shortlist[i]
        layer = int(owner[shortlist[i]])
        report = {
            "effect": float(energy[i].mean().sqrt()),
            "locality": float(_locality(energy[i])),
            "place": _centre(energy[i]),
            "samples": samples,
            "amount": sampling.amount,
            "psi": sampling.psi,
            **({"realism": realism[i]} if discriminator is not None else {}),
        }
        found.append(
            Direction(
                name=f"s-{layer:02d}-{channel - starts[layer]:03d}",
                vector=F.one_hot(torch.tensor(channel), len(std)).float(),
                intercept=-float(mean[channel] / std[channel]),
                sigma=sigmas[i],
                fingerprint=own,
                layers=(int(row_of[channel]), int(row_of[channel])),
                space="s",
                # a channel that never varies is not moved
                scale=std.where(std > 0, torch.ones_like(std)),
                report=report,
                provenance={"method": "style channel", "seed": seed},
            )
        )

    return found


def screen(
    generator: Generator,
    w: Tensor,
    std: Tensor,
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """First-order estimate of what every style channel changes: ``[channels, 8, 8]``, float64.

    Entry [c, i, j] is the mean square change of the pixels in place (i, j) when channel c moves by
    its standard deviation ``std [channels]``, over the pictures of ``w [N, w_dim]``. With random
    signs r on the pixels of one place, and 0 elsewhere, the mean of ``(r^T dx/ds_c)^2`` is the sum
    of ``(dx/ds_c)^2`` over that place (Hutchinson 1989). One backward pass a place gives this for
    all channels at once, where forward mode would take a pass a channel, of which there are up to
    9000.
    """
    random = torch.Generator().manual_seed(seed)
    energy = torch.zeros(len(std), GRID, GRID, dtype=torch.float64)
    done = 0

    for batch in w.split(BATCH):
        with torch.no_grad():
            own = generator.synthesis.styles(batch[:, None].expand(-1, generator.num_ws, -1))
        styles = [s.detach().requires_grad_() for s in own]
        with torch.enable_grad():
            image = generator.synthesis.synthesize(styles)
        signs = (torch.randint(2, image.shape, generator=random) * 2 - 1).to(image)
        side = image.shape[-1] // GRID
        for place in range(GRID**2):
            i, j = divmod(place, GRID)
            window = (..., slice(i * side, i * side + side), slice(j * side, j * side + side))
            probe = torch.zeros_like(image)
            probe[window] = signs[window]
            gradients = torch.autograd.grad(image, styles, probe, retain_graph=place < GRID**2 - 1)
            energy[:, i, j] += torch.cat(gradients, dim=1).square().sum(dim=0).cpu().double()
            done += 1
            if progress:
                progress(done)

    pixels = generator.channels * generator.resolution**2 // GRID**2
    return energy * std.double().square()[:, None, None] / (len(w) * pixels)


@torch.no_grad()
def _measure(
    generator: Generator,
    w: Tensor,
    labels: Tensor | None,
    channels: list[tuple[int, int]],
    std: Tensor,
    amount: float,
    discriminator: Discriminator | None,
    progress: Callable[[int], None],
) -> tuple[Tensor, list[float]]:
    """Return what `screen` estimates, of some ``channels`` (index and layer), by rendering; and the
    mean change of the logits."""
    energy = torch.zeros(len(channels), GRID, GRID, dtype=torch.float64)
    realism = [0.0] * len(channels)
    sizes = [size for _, size in generator.synthesis.style_layers]
    starts = np.cumsum([0, *sizes])
    done = 0

    for start in range(0, len(w), BATCH):
        ws = w[start : start + BATCH, None].expand(-1, generator.num_ws, -1)
        c = None if labels is None else labels[start : start + BATCH]
        own = generator.synthesis.styles(ws)
        base = discriminator(render(generator, ws), c) if discriminator is not None else None
        for index, (channel, layer) in enumerate(channels):
            ends = []
            for side in (-amount, amount):
                moved = own[layer].clone()
                moved[:, channel - starts[layer]] += side * float(std[channel])
                ends.append(
                    generator.synthesis.synthesize([*own[:layer], moved, *own[layer + 1 :]])
                )
                if discriminator is not None and base is not None:
                    realism[index] += float((discriminator(ends[-1], c) - base).sum()) / (
                        2 * len(w)
                    )

            change = ((ends[1] - ends[0]) / (2 * amount)).square().mean(dim=1, keepdim=True)
            places = F.avg_pool2d(change, change.shape[-1] // GRID).sum(dim=(0, 1))
            energy[index] += places.cpu().double() / len(w)
            done += 1
            progress(done)

    return energy, realism


def _locality(energy: Tensor) -> Tensor:
    """``[..., 8, 8]`` to ``[...]``; 1 where there is no energy at all."""
    flat = energy.flatten(-2)
    total = flat.sum(dim=-1)
    strongest = flat.topk(GRID**2 // 4).values.sum(dim=-1)
    return torch.where(total > 0, strongest / total.clamp(min=1e-300), 1.0)


def _worth(energy: Tensor) -> Tensor:
    """What channels are ranked by, ``[..., 8, 8]`` to ``[...]``."""
    return energy.mean(dim=(-2, -1)).sqrt() * ((_locality(energy) - 0.25) / 0.75).square()


def _centre(energy: Tensor) -> list[float]:
    """Row and column of the centre of gravity of ``energy [8, 8]``, in fractions of the picture."""
    middles = (torch.arange(GRID, dtype=energy.dtype) + 0.5) / GRID
    total = float(energy.sum()) or 1.0
    return [round(float((energy.sum(dim=1 - axis) * middles).sum()) / total, 3) for axis in (0, 1)]


@torch.no_grad()
def _spread(generator: Generator, channels: list[int], std: Tensor) -> list[float]:
    """Sigma of one-hot directions: 1 but for the correction of the sample's standard deviation."""
    values = []
    for w in sample_w(generator).split(1000):
        styles = torch.cat(
            generator.synthesis.styles(w[:, None].expand(-1, generator.num_ws, -1)), dim=1
        )
        values.append(styles[:, channels].cpu() / std[channels])
    return [float(value) for value in torch.cat(values).std(dim=0)]
