"""The Gauss-Newton preconditioner: the mean curvature of the projector's loss, which scales the
steps of the search.

The loss is a sum of squares, so its curvature is about J^T J (Gauss-Newton), where J is the
derivative of features and pixels. For a vector v of random signs, E[(J^T v)(J^T v)^T] = J^T J, and
J^T v costs one backward pass (Hutchinson 1990). The mean over the generator's own images also suits
other images, so it is computed only once per model.
"""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latentedit.errors import Error
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.io.files import cache_folder
from latentedit.io.native_file import read_tensors, write_tensors
from latentedit.latent.w_statistics import WStatistics, sample_w
from latentedit.networks.generator import Generator

LOG = logging.getLogger(__name__)
FORMAT = "latentedit-curvature"
VERSION = 1
PROBES = 64
"""Number of backward passes that suffices for a search; more make the search a little faster."""
RANK = 256
"""Largest number of factors that are kept."""
BATCH = 8
DAMPING = 3e-5
"""Smallest curvature assumed for any direction, as a share of the sum over all directions."""
MIXED = 0.5
OFFSET = 0.3
PSI = 0.8
"""Share of the samples that change to another w at some layer, the largest deviation of their rows,
and their truncation."""


def sample_rows(
    generator: Generator,
    statistics: WStatistics,
    count: int,
    draws: torch.Generator,
    mixed: float = MIXED,
    offset: float = OFFSET,
) -> Tensor:
    """Return whitened W+ ``[count, num_ws, w_dim]`` as inversions have them: some change to another
    w at a random layer, and rows deviate by up to ``offset``."""
    device = generator.device
    rows = generator.num_ws
    seed = int(torch.randint(2**31 - 1, (), generator=draws))
    w = sample_w(generator, 2 * count, seed)
    first, second = ((w - statistics.mean.to(device)) @ statistics.whitening.to(device)).chunk(2)

    # Another person's w from some layer on, as in mixed styles.
    cut = torch.randint(1, rows, (count, 1), generator=draws)
    changed = (torch.arange(rows) >= cut) & (torch.rand(count, 1, generator=draws) < mixed)
    u = torch.where(changed[..., None].to(device), second[:, None], first[:, None])

    size = offset * torch.rand(count, 1, 1, generator=draws)
    return u + (size * torch.randn(u.shape, generator=draws)).to(device)


@dataclass(frozen=True)
class Curvature:
    """The curvature of perceptual plus pixel distance, in whitened coordinates
    (`WStatistics.colouring`)."""

    factors: Tensor
    """``[R, num_ws, w_dim]``; the sum of their outer products is the mean of J^T J."""

    @classmethod
    def of(
        cls,
        generator: Generator,
        loss: ReconstructionLoss,
        statistics: WStatistics,
        probes: int = PROBES,
        *,
        batch: int = BATCH,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> "Curvature":
        """Measure the curvature of ``loss`` by ``probes`` backward passes, and keep the strongest
        `RANK` directions.

        ``progress`` is called with the number of probes done after every batch.
        """
        device = generator.device
        mean = statistics.mean.to(device)
        colouring = statistics.colouring.to(device)
        focus = None if loss.focus is None else loss.focus.to(device)
        draws = torch.Generator().manual_seed(seed)
        gradients = []

        for start in range(0, probes, batch):
            count = min(batch, probes - start)
            # Truncated, as photos lie nearer to the mean than random w do.
            u = (PSI * sample_rows(generator, statistics, count, draws)).requires_grad_()
            image = generator.synthesis(mean + u @ colouring)

            features = loss.perceptual.features(image)
            # Hutchinson's estimator: one backward pass of a random combination of all residuals.
            projected = (features * _signs(features, draws)).sum()
            weighted = image if focus is None else image * focus.sqrt()
            projected = (
                projected
                + (weighted * _signs(image, draws)).sum()
                * (loss.pixel_weight / image[0].numel()) ** 0.5
            )

            gradients.append(torch.autograd.grad(projected, u)[0].flatten(1).cpu())
            if progress:
                progress(start + count)

        # The squares of singular values are the curvatures, and float32 would lose the small ones.
        stacked = torch.cat(gradients).double() / probes**0.5

        # The probes number far fewer than the coordinates of W+, so their products have a low rank:
        # the factors hold all that was measured.
        _, strength, directions = torch.linalg.svd(stacked, full_matrices=False)
        factors = strength[:RANK, None] * directions[:RANK]
        return cls(factors.float().reshape(len(factors), generator.num_ws, generator.w_dim))

    @classmethod
    def cached(
        cls,
        generator: Generator,
        loss: ReconstructionLoss,
        statistics: WStatistics,
        fingerprint: str,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> "Curvature":
        """As `of`, kept in the user's cache under the generator's ``fingerprint`` and what the loss
        is made of."""
        path = curvature_file(fingerprint, loss)
        shape = (generator.num_ws, generator.w_dim)
        try:
            factors = read_tensors(path, FORMAT, VERSION)[1]["factors"].float()
            if factors.shape[1:] == shape and bool(factors.isfinite().all()):
                LOG.debug("the preconditioner is that of %s", path)
                return cls(factors)
        except (Error, KeyError):
            pass

        LOG.debug("the preconditioner is measured, and kept in %s", path)
        measured = cls.of(
            generator,
            loss,
            statistics,
            batch=2 if generator.resolution < 256 else 1,
            progress=progress,
        )
        with suppress(Error):  # a cache that cannot be written is none
            write_tensors(path, FORMAT, VERSION, {}, {"factors": measured.factors})
        return measured

    def distance(self, step: Tensor) -> Tensor:
        """Return the predicted distance of the pictures of u and u + ``step [N, num_ws, w_dim]``:
        ``[N]``."""
        return (step.flatten(1) @ self.factors.to(step.device).flatten(1).T).square().sum(dim=1)

    def scaling(self, rows: int, prior: float) -> "Scaling":
        """Return coordinates in which the loss is about as steep in every direction.

        Args:
            rows: 1 for W, num_ws for W+.
            prior: weight of the mean square of u in the loss.
        """
        # A step in W moves all layers alike, so the derivatives of the layers add up.
        factors = self.factors.flatten(1) if rows > 1 else self.factors.sum(dim=1)
        _, strength, directions = torch.linalg.svd(factors.double(), full_matrices=False)
        # 2, as the second derivative of a square.
        curvature = 2 * strength.square()
        least = float(DAMPING * curvature.sum()) + 2 * prior / factors.shape[1]
        return Scaling(directions.float(), (curvature + least).rsqrt().float(), least**-0.5)


@dataclass(frozen=True)
class Scaling:
    """A symmetric matrix: ``scales`` along ``directions``, ``rest`` across them."""

    directions: Tensor
    """``[R, n]``, orthonormal."""
    scales: Tensor
    rest: float

    def to(self, device: torch.device) -> "Scaling":
        return Scaling(self.directions.to(device), self.scales.to(device), self.rest)

    def __call__(self, v: Tensor) -> Tensor:
        """``[N, n]`` to u, flattened."""
        return self._apply(v, self.scales, self.rest)

    def inverse(self, u: Tensor) -> Tensor:
        return self._apply(u, 1 / self.scales, 1 / self.rest)

    def _apply(self, x: Tensor, scales: Tensor, rest: float) -> Tensor:
        directions = self.directions.to(x.device)
        return x * rest + ((x @ directions.T) * (scales.to(x.device) - rest)) @ directions


def curvature_file(fingerprint: str, loss: ReconstructionLoss) -> Path:
    """Return where `Curvature.cached` keeps what it measured."""
    # Everything that the measurement depends on is in the name, so a cached file never has to be
    # invalidated.
    parts = [fingerprint[:32], loss.perceptual.name, f"{loss.pixel_weight:g}"]
    if loss.focus is not None:
        parts.append(hashlib.sha256(loss.focus.cpu().numpy().tobytes()).hexdigest()[:8])
    return cache_folder() / "curvature" / f"{'-'.join(parts)}.safetensors"


def _signs(like: Tensor, draws: torch.Generator) -> Tensor:
    return (torch.randint(0, 2, like.shape, generator=draws, dtype=torch.int8) * 2.0 - 1).to(
        like.device
    )
