"""Labels that correlate with other columns: detecting this, and making the labels independent of
these columns.

If most people who smile were photographed in front of the same background, a probe of smiles learns
the background, and cross-validation on the same table does not reveal it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from latentedit.directions.labels import LabelTable
from latentedit.errors import ArgumentError, DataError, NotFoundError

TELLING = 0.7
"""AUC from which a column counts as predicting the labels."""
FEWEST = 20
MOST_VALUES = 20
"""Labels, and at most so many values of a column, to say anything at all."""
COPIES = 4
"""How often a sample counts at most where all weigh the same; the larger, the less is lost to
rounding."""

Array = np.ndarray[tuple[int], np.dtype[np.int64]]


def telling_columns(labels: LabelTable) -> list[tuple[str, float]]:
    """Return other columns that predict the labels, with their AUC, the highest first.

    The prediction for one half of the samples is the mean label of the same value in the other
    half, so that rare values do not seem to predict anything.
    """
    found = []
    y = (
        (labels.values > np.median(labels.values)).astype(float)
        if not labels.binary
        else labels.values
    )
    for column, texts in labels.others.items():
        values, place = np.unique(texts, return_inverse=True)
        if len(y) < FEWEST or not 2 <= len(values) <= MOST_VALUES or len(np.unique(y)) < 2:
            continue
        # The column's values are scored on samples that they were not counted on.
        half = np.random.default_rng(0).permutation(len(y)) % 2 == 0
        aucs = [_guessed(y, place, learnt) for learnt in (half, ~half)]
        auc = float(np.mean(aucs))
        if auc >= TELLING:
            found.append((column, round(auc, 3)))

    return sorted(found, key=lambda pair: -pair[1])


def _guessed(y: Any, place: Any, learnt: Any) -> float:
    """AUC of the mean labels ``y`` of every value ``place`` in the half ``learnt`` on the other
    half."""
    size = place.max() + 1
    sums = np.bincount(place[learnt], y[learnt], size)
    # One imaginary sample of the mean label, so that a value seen once is not taken for certain.
    guesses = (sums + y[learnt].mean()) / (np.bincount(place[learnt], minlength=size) + 1)
    if len(np.unique(y[~learnt])) < 2:
        return 0.5
    return float(roc_auc_score(y[~learnt], guesses[place[~learnt]]))


def balanced_rows(
    labels: LabelTable, columns: Sequence[str], copies: int = COPIES, seed: int = 0
) -> Array:
    """Return rows of ``labels``, some of them repeated, among which the labels are independent of
    ``columns``.

    Weights are whole numbers, the counts of a sample. A combination of column values in which all
    labels are the same carries no information and is left out. In every other combination, each
    label is as frequent as in all of them together.

    Args:
        copies: count of a sample that is neither rare nor frequent.

    Raises:
        Error: no such column, numbers instead of classes, or nothing is left.
    """
    for column in columns:
        if column not in labels.others:
            known = ", ".join(labels.others) or "none"
            raise NotFoundError(
                f"no column {column!r} to balance the labels by; the other columns are {known}"
            )

    if len(np.unique(labels.values)) > MOST_VALUES:
        raise ArgumentError("only classes or a few ordered values can be balanced, not numbers")

    strata = np.unique(
        [" / ".join(cells) for cells in zip(*(labels.others[c] for c in columns), strict=True)],
        return_inverse=True,
    )[1]
    classes, place = np.unique(labels.values, return_inverse=True)
    table = np.zeros((strata.max() + 1, len(classes)), dtype=int)
    np.add.at(table, (strata, place), 1)

    # Only where both labels occur can a weight separate the label from the column.
    whole = (table > 0).all(axis=1)
    if not whole.any():
        raise DataError(
            f"cannot balance the labels by {', '.join(columns)}: no value there has samples of "
            "every class"
        )

    kept = table[whole]
    shares = kept.sum(axis=0) / kept.sum()
    random = np.random.default_rng(seed)
    rows: list[int] = []

    for stratum in np.flatnonzero(whole):
        for number in range(len(classes)):
            inside = np.flatnonzero((strata == stratum) & (place == number))
            wanted = max(round(copies * table[stratum].sum() * shares[number]), 1)
            times, rest = divmod(wanted, len(inside))
            rows += [*np.repeat(inside, times), *random.permutation(inside)[:rest]]

    return np.array(sorted(rows))


def balanced(labels: LabelTable, rows: Array) -> LabelTable:
    """Return the table of these ``rows``; copies of a sample are in one group, so that no fold
    separates them."""
    groups = labels.groups or [str(path) for path in labels.paths]
    return LabelTable(
        [labels.paths[i] for i in rows],
        labels.values[rows],
        [groups[i] for i in rows],
        {column: [texts[i] for i in rows] for column, texts in labels.others.items()},
    )
