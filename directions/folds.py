"""Cross-validation folds that never split a group, and held-out scores of a probe."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from latentedit.errors import DataError

FOLDS = 5
Array = np.ndarray[Any, np.dtype[Any]]


def splits(labels: Array, groups: Sequence[Any] | None, binary: bool) -> list[tuple[Array, Array]]:
    """Return the train and test indices of up to 5 folds; a group is never in both."""
    if groups is not None:
        count = len(set(groups))
        if count < 2:
            raise DataError(f"cross-validation by group needs at least 2 groups, got {count}")
        parts = min(FOLDS, count)
        # A person's photos resemble one another. Split over train and test, they would measure how
        # well the probe recognises the person.
        by_group = (
            StratifiedGroupKFold(parts, shuffle=True, random_state=0)
            if binary
            else GroupKFold(parts)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a class has fewer samples than there are folds
            folds = list(by_group.split(labels, labels, list(groups)))
    else:
        # With numbers as labels, every fold needs two samples to have a spread.
        smallest = int(np.bincount(labels.astype(int)).min()) if binary else len(labels) // 2
        if smallest < 2:
            needed = (
                f"2 samples of every class, got {smallest}"
                if binary
                else f"4 samples, got {len(labels)}"
            )
            raise DataError(f"cross-validation needs at least {needed}")
        make = StratifiedKFold if binary else KFold
        folds = make(n_splits=min(FOLDS, smallest), shuffle=True, random_state=0).split(
            labels, labels
        )

    if not binary:
        wide = [(train, test) for train, test in folds if len(train) >= 2 and len(test) >= 2]
        if not wide:
            raise DataError("no fold has two samples; larger groups, or none, are needed")
        return wide

    # AUC is undefined for a fold with a single class.
    both = [
        (train, test)
        for train, test in folds
        if len(set(labels[train])) == 2 and len(set(labels[test])) == 2
    ]
    if not both:
        raise DataError("no fold has samples of both classes; more groups, or none, are needed")
    return both


def predictions(
    estimator: Any,
    x: Array,
    labels: Array,
    folds: Sequence[tuple[Array, Array]],
    binary: bool,
    fitted_one: Callable[[], None] = lambda: None,
) -> list[Array]:
    """Return the scores of the held-out samples of every fold; ``fitted_one`` is called after every
    fit."""
    found = []
    for train, test in folds:
        fitted = clone(estimator).fit(x[train], labels[train])
        found.append(
            np.ravel(fitted.decision_function(x[test]) if binary else fitted.predict(x[test]))
        )
        fitted_one()
    return found


def figure(labels: Array, scores: Array, binary: bool) -> float:
    """Return the ROC AUC of two classes, or the R2 of numbers."""
    return float(roc_auc_score(labels, scores) if binary else r2_score(labels, scores))


def held_out(
    estimator: Any, x: Array, labels: Array, groups: Sequence[Any] | None, binary: bool
) -> list[float]:
    """Return the `figure` of every held-out fold; ``x [n, features]``, ``labels [n]``."""
    folds = splits(labels, groups, binary)
    scores = predictions(estimator, x, labels, folds, binary)
    return [figure(labels[test], s, binary) for (_, test), s in zip(folds, scores, strict=True)]


def _rows_of(members: Array, drawn: Array) -> Array:
    """Return the samples of every group in ``drawn``, in order; ``members [n]`` are group numbers
    from 0."""
    order = np.argsort(members, kind="stable")
    counts = np.bincount(members)
    first = np.cumsum(counts) - counts
    lengths = counts[drawn]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows: Array = order[np.repeat(first[drawn], lengths) + within]
    return rows
