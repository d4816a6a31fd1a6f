"""Estimates of the memory and the time of a training run."""

import math
from dataclasses import dataclass

import torch

from latentedit.model.cost import convolution_rate, count_work
from latentedit.networks.discriminator import DiscriminatorConfig, build_discriminator
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.runtime.devices import auto_precision
from latentedit.training.config import TrainingConfig
from latentedit.training.trainer import BESIDE

SHARE = 0.5
"""Part of the arithmetic rate of a bare convolution that a training step is taken to reach."""


@dataclass(frozen=True)
class Estimate:
    parameters_g: int
    parameters_d: int
    gflop_per_image: float
    """Arithmetic of a training step, for every picture of the batch."""
    memory_gb: float
    """Weights, moments, gradients, and the activations that the largest pass keeps."""
    images_per_second: float

    @property
    def hours_per_mimg(self) -> float:
        return 1e6 / self.images_per_second / 3600


def estimate_training(
    config: TrainingConfig,
    shape: tuple[int, ...],
    c_dim: int,
    device: torch.device,
    processes: int = 1,
) -> Estimate:
    """Estimate a run: count the operations of both networks for one image without computing them,
    and time one convolution.

    Args:
        shape: (channels, height, width) of the images.
        c_dim: number of labels.

    The memory includes what autograd keeps at float32. The time is correct within a factor of two.
    """
    sizes = {"resolution": shape[-1], "channels": shape[0], "c_dim": c_dim}
    with torch.device("meta"):
        g = Generator(GeneratorConfig(**{**config.generator, **sizes}))
        d = build_discriminator(DiscriminatorConfig(**{**config.discriminator, **sizes}))
        n = min(config.batch, 4)
        ws = torch.empty(n, g.num_ws, g.w_dim)
        noise = [torch.empty(n, *map_[1:]) for map_ in g.synthesis.noise_shapes]
        images = torch.empty(n, *shape)
        labels = torch.empty(n, c_dim)

    flop_g, kept_g = (amount / n for amount in count_work(lambda: g.synthesis(ws, noise=noise))[:2])
    flop_d, kept_d = (amount / n for amount in count_work(lambda: d(images, labels))[:2])

    # Passes over a picture: forward 1, backward 2 (1 where weights need none), double backward 3
    # forwards more.
    path = 0.5 / config.path_interval * 6 if config.path_weight else 0
    r1 = 6 / config.r1_interval if config.r1_gamma else 0
    flop = flop_g * (3 + 1 + path) + flop_d * (2 + 2 * 3 + r1)
    at_once = config.micro_batch or max(config.batch // processes, 1)
    precision = auto_precision(device) if config.precision == "auto" else config.precision
    reduced = 0.5 if precision != "fp32" else 1.0
    beside = device.type == "cuda" and at_once * math.prod(shape) <= BESIDE
    passes = (
        kept_g + kept_d * (2 if beside else 1),
        2 * kept_d,
        2.5 * kept_d if config.r1_gamma else 0,
        1.25 * kept_g,
    )
    kept = max(passes) * at_once * reduced
    count_g, count_d = (sum(p.numel() for p in network.parameters()) for network in (g, d))
    weights = 4 * (count_g * 5 + count_d * 4)  # weights, two moments, gradients, and the average
    return Estimate(
        count_g,
        count_d,
        flop / 1e9,
        (weights + kept) / 1e9,
        processes * SHARE * convolution_rate(device) / flop,
    )
