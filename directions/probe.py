"""Linear probes: from labelled latents to a direction, with what is known of its worth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from sklearn.svm import LinearSVC
from torch import Tensor

from latentedit.directions.direction import Direction, unit
from latentedit.errors import Error
from latentedit.generator import Generator
from latentedit.models import fingerprint
from latentedit.statistics import SAMPLES, sample_w

Array = np.ndarray[Any, np.dtype[Any]]
FOLDS = 5
KINDS = ("auto", "svc", "logistic", "ridge")


def probe(kind: str, strength: float = 1.0) -> Any:
    """An unfitted scikit-learn estimator; ``strength`` is C of the classifiers and 1 / alpha of ridge."""
    if kind == "svc":
        return LinearSVC(C=strength, class_weight="balanced", max_iter=20_000, random_state=0)
    if kind == "logistic":
        return LogisticRegression(C=strength, class_weight="balanced", max_iter=2_000)
    if kind == "ridge":
        return Ridge(alpha=1 / strength)
    raise Error(f"probe must be one of {', '.join(KINDS)}, got {kind!r}")


def splits(labels: Array, groups: Sequence[Any] | None, binary: bool) -> list[tuple[Array, Array]]:
    """Train and test indices of up to 5 folds; a group is never in both."""
    if groups is not None:
        count = len(set(groups))
        if count < 2:
            raise Error(f"cross-validation by group needs at least 2 groups, got {count}")
        folds = GroupKFold(n_splits=min(FOLDS, count)).split(labels, labels, list(groups))
    else:
        smallest = int(np.bincount(labels.astype(int)).min()) if binary else len(labels)
        if smallest < 2:
            raise Error(f"cross-validation needs at least 2 samples of every class, got {smallest}")
        make = StratifiedKFold if binary else KFold
        folds = make(n_splits=min(FOLDS, smallest), shuffle=True, random_state=0).split(labels, labels)
    if not binary:
        return list(folds)
    both = [(train, test) for train, test in folds if len(set(labels[train])) == 2 and len(set(labels[test])) == 2]
    if not both:
        raise Error("no fold has samples of both classes; more groups, or none, are needed")
    return both


def held_out(estimator: Any, x: Array, labels: Array, groups: Sequence[Any] | None, binary: bool) -> list[float]:
    """ROC AUC (R2 for numbers) of every held-out fold; ``x [n, features]``, ``labels [n]``."""
    figures = []
    for train, test in splits(labels, groups, binary):
        fitted = clone(estimator).fit(x[train], labels[train])
        if binary:
            figures.append(float(roc_auc_score(labels[test], fitted.decision_function(x[test]))))
        else:
            figures.append(float(r2_score(labels[test], fitted.predict(x[test]))))
    return figures


def auc_by_group(estimator: Any, x: Array, labels: Array, groups: Sequence[Any] | None) -> dict[str, Any]:
    """Held-out ROC AUC over folds, and the same with shuffled labels, which should be near 0.5."""
    return _quality(estimator, x, labels, groups, binary=True)


def _quality(estimator: Any, x: Array, labels: Array, groups: Sequence[Any] | None, binary: bool) -> dict[str, Any]:
    figure = "auc" if binary else "r2"
    folds = held_out(estimator, x, labels, groups, binary)
    shuffled = np.random.default_rng(0).permutation(labels)
    baseline = held_out(estimator, x, shuffled, groups, binary)
    return {
        figure: round(float(np.mean(folds)), 4),
        f"{figure}_folds": [round(value, 4) for value in folds],
        f"{figure}_shuffled": round(float(np.mean(baseline)), 4),
    }


def fit(
    ws: Tensor,
    labels: Sequence[float] | Array,
    *,
    generator: Generator,
    name: str = "direction",
    kind: str = "auto",
    space: str = "w",
    groups: Sequence[Any] | None = None,
    layers: tuple[int, int] | None = None,
    strength: float = 0.01,
    provenance: dict[str, Any] | None = None,
) -> Direction:
    """Fit a linear probe to labelled latents and make its normal a direction.

    After InterFaceGAN (Shen et al. 2020, section 3), which discards the intercept; here it is kept, so that a score of 0
    means undecided, and sigma is measured, so that amounts compare.

    Args:
        ws: ``[N, num_ws, w_dim]`` or ``[N, w_dim]``.
        labels: ``[N]``, 0 and 1, or numbers; NaN marks a missing label.
        kind: "svc", "logistic", "ridge" (numbers), or "auto": svc for two classes, else ridge.
        space: "w" (the mean of the rows of ``layers``) or "w+" (all rows).
        groups: ``[N]``; samples of one group (a person, a picture and its mirror image) stay together in the folds.
        strength: C of the probe on coordinates scaled to unit mean square; small values regularise.

    Raises:
        Error: shapes that do not fit, a single class, too few samples.
    """
    x, values, groups = _samples(ws, labels, generator, space, groups, layers)
    binary = set(np.unique(values)) == {0.0, 1.0}
    if len(np.unique(values)) < 2:
        raise Error(f"all {len(values)} labels are the same; a direction needs two classes")
    if kind == "auto":
        kind = "svc" if binary else "ridge"
    if kind != "ridge" and not binary:
        raise Error(f"the {kind} probe needs labels 0 and 1; use ridge for numbers")
    scale = float(np.sqrt(np.square(x - x.mean(axis=0)).mean())) or 1.0
    estimator = probe(kind, strength)
    report: dict[str, Any] = {
        "probe": kind,
        "strength": strength,
        "space": space,
        "samples": len(values),
        "groups": len(set(groups)) if groups is not None else None,
        **({"positives": int(values.sum())} if binary else {}),
        **_quality(estimator, x / scale, values, groups, binary and kind != "ridge"),
    }
    fitted = clone(estimator).fit(x / scale, values)
    weights = torch.from_numpy(np.asarray(fitted.coef_, dtype=np.float64).reshape(-1) / scale)
    norm = float(weights.norm())
    vector = unit(weights)
    if space == "w+":
        vector = vector.reshape(generator.num_ws, generator.w_dim)
    # A score has the units of w: both sides are divided by the norm. Ridge is undecided at the mean of its numbers.
    middle = 0.0 if kind != "ridge" else float(values.mean())
    intercept = (float(np.ravel(fitted.intercept_)[0]) - middle) / norm
    return Direction(
        name=name,
        vector=vector,
        intercept=intercept,
        sigma=measure_sigma(vector, generator),
        fingerprint=fingerprint(generator),
        layers=layers,
        report=report,
        provenance=provenance or {},
    )


def measure_sigma(vector: Tensor, generator: Generator) -> float:
    """Standard deviation of ``<vector, x>`` over 10,000 random w (psi 1, seed 0)."""
    w = sample_w(generator, SAMPLES).cpu()
    flat = vector.reshape(-1, generator.w_dim).sum(dim=0)  # all rows of a random w are equal
    return float((w @ flat).std())


def _samples(
    ws: Tensor,
    labels: Sequence[float] | Array,
    generator: Generator,
    space: str,
    groups: Sequence[Any] | None,
    layers: tuple[int, int] | None,
) -> tuple[Array, Array, Sequence[Any] | None]:
    if space not in ("w", "w+"):
        raise Error(f'space must be "w" or "w+", got {space!r}')
    if ws.ndim == 2:
        ws = ws[:, None].expand(-1, generator.num_ws, -1)
    if ws.ndim != 3 or ws.shape[1:] != (generator.num_ws, generator.w_dim):
        raise Error(
            f"ws must have shape [N, {generator.num_ws}, {generator.w_dim}] or [N, {generator.w_dim}], got {list(ws.shape)}"
        )
    values = np.asarray(labels, dtype=np.float64)
    if values.shape != (len(ws),) or (groups is not None and len(groups) != len(ws)):
        raise Error(f"expected {len(ws)} labels and groups, one a sample, got {values.shape}")
    known = np.isfinite(values)
    first, last = layers or (0, generator.num_ws - 1)
    rows = ws[:, first : last + 1].mean(dim=1) if space == "w" else ws.flatten(1)
    x = rows.double().cpu().numpy()[known]
    kept = [group for group, keep in zip(groups, known, strict=True) if keep] if groups is not None else None
    return x, values[known], kept
