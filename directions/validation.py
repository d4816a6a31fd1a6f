"""Quality of a probe on held-out data: cross-validation, interval, learning curve, stability."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone

from latentedit.directions.folds import Array, _rows_of, figure, predictions, splits
from latentedit.errors import DataError

RESAMPLED = 200
"""Draws of the bootstrap."""
CURVE = (0.125, 0.25, 0.5, 1.0)
"""Shares of the labels, or of the groups, at which the learning curve is measured."""
REPEATS = 3
"""Draws of every share but the last."""


def quality(
    estimator: Any,
    x: Array,
    labels: Array,
    groups: Sequence[Any] | None,
    binary: bool,
    fitted_one: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Compute ROC AUC (R2 for numbers) over held-out folds with its 95 % interval, and the same
    with shuffled labels.

    The interval comes from a bootstrap of the held-out scores over samples, or over groups if there
    are any. It does not include the variation from other folds or labels. ``fitted_one`` is called
    after every fit, of which there are up to ten.
    """
    name = "auc" if binary else "r2"
    folds = splits(labels, groups, binary)
    scores = predictions(estimator, x, labels, folds, binary, fitted_one)
    each = [figure(labels[test], s, binary) for (_, test), s in zip(folds, scores, strict=True)]
    rng = np.random.default_rng(0)

    # What a probe reaches with meaningless labels shows how much of its quality is chance.
    shuffled = rng.permutation(labels)
    lost = [
        (train, test)
        for train, test in folds
        if not binary or len(set(shuffled[test])) == len(set(shuffled[train])) == 2
    ]
    baseline = [
        figure(shuffled[test], s, binary)
        for (_, test), s in zip(
            lost, predictions(estimator, x, shuffled, lost, binary, fitted_one), strict=True
        )
    ]

    # Whole groups are drawn, as the samples of one person are not independent.
    members = (
        np.unique(list(groups), return_inverse=True)[1]
        if groups is not None
        else np.arange(len(labels))
    )

    # The held-out scores are resampled and not the training: 200 more fits would take minutes.
    low, high = np.quantile(
        _resampled(labels, folds, scores, members, binary, rng) or [float(np.mean(each))],
        (0.025, 0.975),
    )
    return {
        name: round(float(np.mean(each)), 4),
        f"{name}_interval": [round(float(low), 4), round(float(high), 4)],
        f"{name}_folds": [round(value, 4) for value in each],
        f"{name}_shuffled": round(float(np.mean(baseline)), 4) if baseline else None,
    }


def _resampled(
    labels: Array,
    folds: Sequence[tuple[Array, Array]],
    scores: Sequence[Array],
    members: Array,
    binary: bool,
    rng: np.random.Generator,
) -> list[float]:
    """Return the mean over folds, of samples or groups drawn again with replacement within every
    fold."""
    parts = [
        (labels[test], s, *np.unique(members[test], return_inverse=True))
        for (_, test), s in zip(folds, scores, strict=True)
    ]
    measures = [_weighted_auc(y, s) if binary else _weighted_r2(y, s) for y, s, _, _ in parts]
    found = []

    for _ in range(RESAMPLED):
        values = []
        for (_, _, inside, place), measure in zip(parts, measures, strict=True):
            # How often each was drawn: a sample that was drawn twice counts twice.
            times = np.bincount(
                np.searchsorted(inside, rng.choice(inside, len(inside))), minlength=len(inside)
            )
            value = measure(times[place].astype(np.float64))
            if value is not None:
                values.append(value)
        if values:
            found.append(float(np.mean(values)))

    return found


def _weighted_auc(labels: Array, scores: Array) -> Callable[[Array], float | None]:
    """From weights of the samples to the AUC, None where one class weighs nothing; the scores are
    sorted once."""
    values, place = np.unique(scores, return_inverse=True)

    def auc(weights: Array) -> float | None:
        # Ties count half, as in the definition of the AUC by pairs.
        ones = np.bincount(place, weights * labels, len(values))
        zeros = np.bincount(place, weights * (1 - labels), len(values))
        total = ones.sum() * zeros.sum()
        return float(ones @ (np.cumsum(zeros) - zeros / 2) / total) if total else None

    return auc


def _weighted_r2(labels: Array, scores: Array) -> Callable[[Array], float | None]:
    """From weights of the samples to R2, None where all labels that count are the same."""
    errors = np.square(labels - scores)

    def r2(weights: Array) -> float | None:
        middle = weights @ labels / weights.sum()
        spread = weights @ np.square(labels - middle)
        return float(1 - weights @ errors / spread) if spread > 0 else None

    return r2


def learning_curve(
    estimator: Any, x: Array, labels: Array, groups: Sequence[Any] | None, binary: bool
) -> list[tuple[int, float]]:
    """Return the number of labels and held-out AUC (R2), for shares of the labels, or of the
    groups, of every fold's training part."""
    folds = splits(labels, groups, binary)
    members = (
        np.unique(list(groups), return_inverse=True)[1]
        if groups is not None
        else np.arange(len(labels))
    )
    rng = np.random.default_rng(0)
    curve = []

    for share in CURVE:
        counts = []
        values = []
        for train, test in folds:
            inside = np.unique(members[train])
            for _ in range(REPEATS if share < 1 else 1):
                kept = rng.permutation(inside)[: max(round(share * len(inside)), 1)]
                rows = train[np.isin(members[train], kept)]
                if binary and min(np.bincount(labels[rows].astype(int), minlength=2)) < 1:
                    continue
                if len(rows) < 2:
                    continue

                (scores,) = predictions(estimator, x, labels, [(rows, test)], binary)
                counts.append(len(rows))
                values.append(figure(labels[test], scores, binary))
        if values:
            curve.append((round(float(np.mean(counts))), round(float(np.mean(values)), 4)))

    return curve


def gain_of_doubling(curve: Sequence[tuple[int, float]]) -> float | None:
    """Estimate how much the last figure of a learning curve would rise with twice the labels.

    The estimate assumes that the distance to 1 falls by the same factor with every doubling, as for
    errors that follow a power of the number of samples.
    """
    if len(curve) < 2 or curve[-2][1] >= 1:
        return None
    (before, low), (after, high) = curve[-2:]
    if after <= before:
        return None
    if high <= low:
        return None  # more labels did not help here; that says nothing of still more

    # The last two points need not lie a factor of two apart.
    factor = max((1 - high) / (1 - low), 0.0) ** (np.log(2) / np.log(after / before))
    return round(max(float((1 - high) * (1 - factor)), 0.0), 4)


def stability(
    estimator: Any, x: Array, labels: Array, groups: Sequence[Any] | None, draws: int = 20
) -> float:
    """Return the mean angle in degrees between the weights from all samples and from samples
    (groups) drawn with replacement."""
    members = (
        np.unique(list(groups), return_inverse=True)[1]
        if groups is not None
        else np.arange(len(labels))
    )
    everyone = np.unique(members)
    rng = np.random.default_rng(0)
    whole = np.ravel(clone(estimator).fit(x, labels).coef_)
    angles = []

    for _ in range(draws):
        drawn = rng.choice(everyone, len(everyone))
        rows = _rows_of(members, drawn)
        if len(np.unique(labels[rows])) < 2:
            continue

        other = np.ravel(clone(estimator).fit(x[rows], labels[rows]).coef_)
        cosine = whole @ other / (np.linalg.norm(whole) * np.linalg.norm(other) or 1.0)
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    return round(float(np.mean(angles)), 1) if angles else float("nan")


def by_layer(
    estimator: Any, x: Array, labels: Array, groups: Sequence[Any] | None, binary: bool, layers: int
) -> list[float]:
    """Return the held-out AUC (or R2) of probes of each single layer, ``[layers]``;
    ``x [N, layers * w_dim]``."""
    folds = splits(labels, groups, binary)
    found = []
    for part in np.split(x, layers, axis=1):
        scores = predictions(estimator, part, labels, folds, binary)
        values = [
            figure(labels[test], one, binary) for (_, test), one in zip(folds, scores, strict=True)
        ]
        found.append(round(float(np.mean(values)), 4))

    return found


def propose_layers(effects: Sequence[float], share: float = 0.9) -> tuple[int, int]:
    """Return the shortest range of layers with ``share`` of all effects that have the sign of their
    sum.

    Raises:
        Error: no layer has an effect.
    """
    values = np.asarray(effects, dtype=np.float64)
    values = np.maximum(values if values.sum() >= 0 else -values, 0)
    if not values.sum() > 0:
        raise DataError("no layer has any effect")

    # Shortest first: fewer layers have fewer side effects.
    for length in range(1, len(values) + 1):
        for first in range(len(values) - length + 1):
            if values[first : first + length].sum() >= share * values.sum():
                return first, first + length - 1
    return 0, len(values) - 1
