"""Linear separability (Karras et al. 2019, section 4.2): how well a plane in latent space predicts
a classifier's answers."""

import math
import warnings

import numpy as np
from torch import Tensor

from latentedit.errors import ArgumentError, DataError


def conditional_entropy(
    predicted: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    truth: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
) -> float:
    """H(truth | predicted) in nats."""
    entropy = 0.0
    for p in (False, True):
        inside = predicted == p
        for t in (False, True):
            joint = float(np.mean(inside & (truth == t)))
            if joint > 0:
                entropy -= joint * math.log(joint / float(np.mean(inside)))
    return entropy


def linear_separability(
    latents: Tensor, scores: dict[str, Tensor], keep: float = 0.5
) -> tuple[float, dict[str, float]]:
    """Return exp of the sum of the attributes' conditional entropies given the answers of a linear
    SVM; 1 is the best.

    Args:
        latents: z or w, ``[n, D]``.
        scores: a classifier's log odds of every attribute, ``[n]``, for the images of those
            latents.
        keep: share of the images to use, those with the most confident answers.

    Returns:
        The score, and every attribute's conditional entropy in nats.

    Raises:
        Error: shapes that do not match, or an attribute that all images have, or none.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    x = latents.detach().cpu().numpy().astype(np.float64)
    entropies = {}

    for name, values in scores.items():
        odds = values.detach().cpu().numpy().astype(np.float64)
        if odds.shape != (len(x),):
            raise ArgumentError.of_shape(f"scores of {name!r}", f"[{len(x)}]", odds.shape)
        chosen = np.argsort(-np.abs(odds), kind="stable")[: max(int(len(odds) * keep), 2)]
        truth = odds[chosen] > 0
        if truth.all() or not truth.any():
            raise DataError(
                f"the classifier gives all images the same answer for {name!r}; nothing to separate"
            )

        scaled = StandardScaler().fit_transform(x[chosen])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            predicted = LinearSVC(max_iter=2000).fit(scaled, truth).predict(scaled).astype(bool)
        entropies[name] = conditional_entropy(predicted, truth)

    return math.exp(sum(entropies.values())), entropies
