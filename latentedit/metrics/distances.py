"""Distances between two sets of features ``[n, D]``: FID, KID, precision and recall.

The arithmetic is that of torchmetrics and torch-fidelity; features come from any network
(`latentedit.metrics.features`).
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentedit.errors import ArgumentError, DataError
from latentedit.runtime.torchvision_stubs import import_with_torchvision

NEIGHBOURS = 3
"""k of precision and recall (Kynkäänniemi et al. 2019)."""
SUBSETS = 100
SUBSET_SIZE = 1000


class _Identity(nn.Module):
    """Stands where torchmetrics expects the feature network."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, x: Tensor) -> Tensor:
        return x


def _check(real: Tensor, fake: Tensor, least: int = 2) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ArgumentError(
            f"features must have shapes [n, D] and [m, D], got {list(real.shape)} and "
            f"{list(fake.shape)}"
        )
    if min(len(real), len(fake)) < least:
        raise DataError(
            f"at least {least} images of either kind are needed, got {len(real)} and {len(fake)}"
        )


def _filled(metric: Any, real: Tensor, fake: Tensor) -> Any:
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute()


def fid(real: Tensor, fake: Tensor) -> float:
    """Compute the Fréchet distance of two Gaussians fitted to the features (Heusel et al. 2017);
    too high for few images."""
    _check(real, fake)
    # Features come from outside, so that the metric downloads no network.
    metric = import_with_torchvision("torchmetrics.image.fid").FrechetInceptionDistance(
        feature=_Identity(real.shape[1])
    )
    return float(_filled(metric.set_dtype(torch.float64), real.double(), fake.double()))


def kid(
    real: Tensor, fake: Tensor, seed: int = 0, progress: Callable[[int], None] | None = None
) -> float:
    """Compute the unbiased squared maximum mean discrepancy with a cubic kernel (Bińkowski et al.
    2018), for small sets too.

    It is the mean over 100 subsets of 1000 images, or of as many as the smaller set has, or over
    all images at once if both sets are that small. ``progress`` is called after every subset.
    """
    _check(real, fake)
    # Subsets as in the KID paper: the estimate is unbiased for any size, and a subset fits into
    # memory.
    size = min(len(real), len(fake), SUBSET_SIZE)
    subsets = 1 if size == len(real) == len(fake) else SUBSETS
    module = import_with_torchvision("torchmetrics.image.kid")

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the metric will store all features
        torch.manual_seed(seed)
        metric = module.KernelInceptionDistance(
            feature=_Identity(real.shape[1]), subsets=1, subset_size=size
        )
        metric.set_dtype(torch.float64)
        metric.update(real.double(), real=True)
        metric.update(fake.double(), real=False)
        total = 0.0
        for _ in range(subsets):
            # A subset at a time, so that a bar can move; the draws are those of all at once.
            metric._computed = None
            total += float(metric.compute()[0])
            if progress:
                progress(1)

        return total / subsets


def precision_recall(
    real: Tensor, fake: Tensor, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Compute precision (generated images in the manifold of real ones) and recall (the reverse;
    Kynkäänniemi et al. 2019)."""
    _check(real, fake, neighbours + 2)
    module = import_with_torchvision("torch_fidelity.metric_prc")
    options = {
        "prc_neighborhood": neighbours,
        "prc_batch_size": 10000,
        "save_cpu_ram": False,
        "verbose": False,
    }
    found = module.prc_features_to_metric(fake, real, **options)
    return float(found["precision"]), float(found["recall"])
