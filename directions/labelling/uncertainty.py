"""Which sample to ask about next: the one that a probe of the answers so far is least sure of."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latentedit.directions.folds import FOLDS, held_out
from latentedit.directions.probe import probe
from latentedit.errors import IncompatibleError
from latentedit.formats.load_latent import load_latent
from latentedit.io.images import open_image

Array = np.ndarray[Any, np.dtype[Any]]
Report = Callable[[int, int], None]
SIDE = 16
COMPONENTS = 32
"""Photographs are compared as grey pictures of 16 x 16, in their 32 main components."""
STRENGTH = 0.1
"""C of the probe, on features of unit mean square."""


def latent_features(paths: Sequence[Path], progress: Report | None = None) -> Array:
    """Return ``[n, w_dim]``: the mean row of every latent file's ws, of mean 0 and mean square 1.

    Raises:
        Error: a latent that cannot be read, or of another generator than the first one.
    """
    rows: list[Array] = []
    first = ""
    for i, path in enumerate(paths):
        latent = load_latent(path)
        first = first or latent.fingerprint
        if latent.fingerprint != first or (rows and latent.ws.shape[-1] != len(rows[0])):
            raise IncompatibleError(
                f"belongs to the generator {latent.fingerprint[:12]}, {paths[0]} to {first[:12]}",
                path=path,
            )

        rows.append(latent.ws[0].double().mean(dim=0).numpy())
        if progress is not None:
            progress(i + 1, len(paths))

    return _scaled(np.stack(rows))


def picture_components(paths: Sequence[Path], progress: Report | None = None) -> Array:
    """Return ``[n, up to 32]``: the main components of small grey pictures, each of mean 0 and
    deviation 1 before."""
    rows = []
    for i, path in enumerate(paths):
        grey = open_image(path).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        pixels = np.asarray(grey, dtype=np.float64).ravel()
        rows.append((pixels - pixels.mean()) / max(float(pixels.std()), 1.0))
        if progress is not None:
            progress(i + 1, len(paths))

    x = np.stack(rows)
    left, sizes, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    return _scaled((left * sizes)[:, :COMPONENTS])


def _scaled(x: Array) -> Array:
    centred: Array = x - x.mean(axis=0)
    scale = float(np.sqrt(np.square(centred).mean()))
    return centred / scale if scale > 0 else centred


def ranking(x: Array, labels: Array) -> list[int]:
    """Return every sample, the most uncertain first: ordered by the distance from the boundary of a
    shrunken logistic regression, which is the order of the distance of the probability from 0.5.

    Args:
        x: ``[n, features]``.
        labels: ``[n]``, 0 and 1, both of them present; NaN where there is none.
    """
    known = np.isfinite(labels)
    fitted = probe("logistic", STRENGTH).fit(x[known], labels[known])
    return [int(i) for i in np.argsort(np.abs(fitted.decision_function(x)), kind="stable")]


def accuracy(x: Array, labels: Array) -> float | None:
    """Return the mean ROC AUC of five held-out parts of the labelled samples; None below five of
    each class.

    Where uncertain samples were asked first these are the hard ones, and random ones would be told
    apart better.
    """
    known = np.isfinite(labels)
    counts = np.bincount(labels[known].astype(int), minlength=2)
    if counts.min() < FOLDS:
        return None
    return float(
        np.mean(held_out(probe("logistic", STRENGTH), x[known], labels[known], None, binary=True))
    )
