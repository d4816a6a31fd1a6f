"""Statistics of a generator's random w: the mean, spread and covariance of 10,000 of them."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentedit.errors import ArgumentError
from latentedit.networks.generator import Generator

SAMPLES = 10_000
STATISTICS_SEED = 0
MANY_LABELS = 1000


def sample_z(seed: int, z_dim: int, count: int = 1) -> Tensor:
    """Draw ``numpy.random.RandomState(seed).randn(count, z_dim)`` as float32, as other StyleGAN
    tools do for a seed."""
    return torch.from_numpy(np.random.RandomState(seed).randn(count, z_dim).astype(np.float32))


def one_hot(classes: Tensor, c_dim: int) -> Tensor:
    return torch.nn.functional.one_hot(classes, c_dim).float()


def of_class(generator: Generator, label: int) -> Generator:
    """Return ``generator``, sharing its weights, as if all its random faces had the label number
    ``label``.

    Raises:
        Error: a network without labels, or a number that none has.
    """
    if not generator.c_dim:
        raise ArgumentError("this network has no labels", argument="label", actual=label)
    if not 0 <= label < generator.c_dim:
        raise ArgumentError.of("label", f"from 0 to {generator.c_dim - 1}", label)
    found = copy.copy(generator)
    found.label_frequencies = [float(number == label) for number in range(generator.c_dim)]
    return found


def random_labels(
    generator: Generator, seed: int | np.random.RandomState, count: int
) -> Tensor | None:
    """Draw one-hot labels ``[count, c_dim]`` on the generator's device; returns None for an
    unconditional network.

    Labels have their training frequencies, or equal ones if these are unknown. ``seed`` may be a
    random stream to continue.
    """
    if not generator.c_dim:
        return None
    # Rare classes would otherwise have as much weight in the statistics as common ones.
    shares = np.array(generator.label_frequencies or [1.0] * generator.c_dim)
    random = np.random.RandomState(seed) if isinstance(seed, int) else seed
    drawn = random.choice(generator.c_dim, size=count, p=shares / shares.sum())
    return one_hot(torch.from_numpy(drawn), generator.c_dim).to(generator.device)


@torch.no_grad()
def sample_w(generator: Generator, count: int = SAMPLES, seed: int = STATISTICS_SEED) -> Tensor:
    """Draw random w ``[count, w_dim]`` at psi 1, on the generator's device."""
    if generator.c_dim > MANY_LABELS:  # one-hot labels of all at once would take gigabytes
        return torch.cat(list(w_chunks(generator, count, seed, MANY_LABELS // 2)))
    z = sample_z(seed, generator.z_dim, count).to(generator.device)
    return generator.mapping.map(z, random_labels(generator, seed, count))


@torch.no_grad()
def w_chunks(generator: Generator, count: int, seed: int, chunk: int) -> Iterator[Tensor]:
    """Yield the w of `sample_w`, at most ``chunk`` at a time."""
    draws = np.random.RandomState(seed)
    labels = np.random.RandomState(seed)
    for start in range(0, count, chunk):
        size = min(chunk, count - start)
        z = torch.from_numpy(draws.randn(size, generator.z_dim).astype(np.float32)).to(
            generator.device
        )
        yield generator.mapping.map(z, random_labels(generator, labels, size))


@dataclass(frozen=True)
class WStatistics:
    """Statistics of 10,000 random w."""

    mean: Tensor
    """``[w_dim]``."""
    std: float
    """The length scale of the projector's noise, sqrt(E |w - mean|^2)."""
    whitening: Tensor
    """``[w_dim, w_dim]``, symmetric: (w - mean) @ whitening has unit covariance."""
    colouring: Tensor
    """Its inverse: mean + u @ colouring is distributed as w where u has unit covariance."""
    distances: Tensor
    """Sorted `distance` of the samples themselves."""

    @classmethod
    def of(cls, generator: Generator) -> "WStatistics":
        """Measure the statistics of ``generator``."""
        w = sample_w(generator).cpu()
        mean = w.mean(dim=0)
        centred = (w - mean).numpy()
        values, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred / len(w))
        # Directions that w never takes have no variance; without a floor, whitening would divide by
        # 0.
        scale = np.sqrt(np.maximum(values, values.max() * 1e-9))
        # Symmetric roots, as they do not depend on the order and signs of the eigenvectors.
        whitening = torch.from_numpy((vectors / scale @ vectors.T).astype(np.float32))
        colouring = torch.from_numpy((vectors * scale @ vectors.T).astype(np.float32))
        std = float((w - mean).square().sum(dim=1).mean().sqrt())
        distances = ((w - mean) @ whitening).square().mean(dim=1).sqrt().sort().values
        return cls(mean, std, whitening, colouring, distances)

    def distance(self, ws: Tensor) -> Tensor:
        """Compute the Mahalanobis distance from the mean, divided by sqrt(w_dim), averaged over
        layers: about 1 for random w.

        ``ws`` is ``[N, num_ws, w_dim]``; the result ``[N]``.
        """
        whitened = (ws.detach().cpu().float() - self.mean) @ self.whitening
        return whitened.square().mean(dim=2).sqrt().mean(dim=1)

    def percentile(self, distance: float) -> float:
        """Return the percentage of random w that are closer to the mean than ``distance``."""
        return 100 * float((self.distances < distance).float().mean())


@torch.no_grad()
def style_statistics(generator: Generator) -> tuple[Tensor, Tensor]:
    """Compute the mean and standard deviation ``[channels]`` of all style channels in order, over
    10,000 random w."""
    count = 0
    total = torch.zeros(())
    squares = torch.zeros(())

    for w in sample_w(generator).split(1000):
        styles = generator.synthesis.styles(w[:, None].expand(-1, generator.num_ws, -1))
        # Sums of squares of thousands of values lose too much in float32.
        values = torch.cat(styles, dim=1).cpu().double()
        count += len(values)
        total = total + values.sum(dim=0)
        squares = squares + values.square().sum(dim=0)

    mean = total / count

    # The difference of two close numbers may fall below 0 by rounding.
    variance = (squares / count - mean.square()).clamp(min=0)
    return mean.float(), variance.sqrt().float()
