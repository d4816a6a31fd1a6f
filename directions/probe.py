"""Linear probes: from labelled latents to a direction with quality figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC
from torch import Tensor

from latentedit.directions.direction import Direction, unit
from latentedit.directions.folds import Array
from latentedit.directions.labelled_latents import LabelledLatents
from latentedit.directions.validation import (
    by_layer,
    gain_of_doubling,
    learning_curve,
    propose_layers,
    quality,
    stability,
)
from latentedit.errors import ArgumentError, DataError
from latentedit.latent.spaces import Coordinates, space_of
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator

KINDS = ("auto", "svc", "logistic", "lda", "ridge")
FEW = 50
"""Samples of the smaller class below which "auto" takes logistic regression, the best with few
(recipes/few_labels.py)."""
MANY = 20_000
WIDE = 2048
"""Samples beyond which everything is in float32 and "auto" takes logistic regression again, a tenth
of the work of svc; and features up to which its Newton steps, which need their square, are the
quickest.
"""


def probe(kind: str, strength: float = 1.0, balanced: bool = True) -> Any:
    """Return an unfitted scikit-learn estimator; ``strength`` is C of svc and logistic and 1 /
    alpha of ridge."""
    weight = "balanced" if balanced else None
    if kind == "svc":
        return LinearSVC(C=strength, class_weight=weight, max_iter=20_000, random_state=0)
    if kind == "logistic":
        return LogisticRegression(C=strength, class_weight=weight, max_iter=2_000)
    if kind == "lda":
        return LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage="auto", priors=[0.5, 0.5] if balanced else None
        )
    if kind == "ridge":
        return Ridge(alpha=1 / strength)
    raise ArgumentError.of("probe", f"one of {', '.join(KINDS)}", kind)


@dataclass(frozen=True)
class ProbeOptions:
    """What kind of probe is fitted, and to what."""

    kind: str = "auto"
    """"svc", "logistic", "lda" (linear discriminant, covariance shrunk after Ledoit and Wolf 2004),
    "ridge" (numbers), or "auto": ridge for numbers, logistic for fewer than 50 labels of the
    smaller class or more than 20,000 samples, else svc."""
    space: str = "w"
    """"w" (the mean of ws over ``layers``), "w+" (these layers one by one), "s" (their styles) or
    "z"."""
    layers: tuple[int, int] | None = None
    """First and last layer that the probe sees and the direction edits; None for all."""
    strength: float = 0.01
    """C of the probe on coordinates scaled to unit mean square; smaller values regularise more."""
    confident: float = 1.0
    """Share of the samples, those with the lowest and the highest numbers, that become the two
    classes, as in the published training of boundaries (0.02 at each end there is 0.04 here); 1
    takes all."""
    balanced: bool = True
    """Whether both classes have equal weight."""
    examine: bool = False
    """Whether to add to the report a learning curve, the angle between directions from resampled
    labels and, in "w+", figures of probes of each layer alone with the range of layers that predict
    most. This takes some thirty more fits, and five more per layer."""

    def __post_init__(self) -> None:
        space_of(self.space)
        if self.kind not in KINDS:
            raise ArgumentError.of("probe", f"one of {', '.join(KINDS)}", self.kind)
        if not 0 < self.confident <= 1:
            raise ArgumentError.of("the confident share", "above 0 and at most 1", self.confident)


DEFAULT = ProbeOptions()


class ProbeChoices(TypedDict, total=False):
    """Fields of `ProbeOptions`, except ``confident``."""

    kind: str
    space: str
    layers: tuple[int, int] | None
    strength: float
    balanced: bool
    examine: bool


class FitChoices(ProbeChoices, total=False):
    """Further arguments of `fit`: the fields of `ProbeOptions`."""

    confident: float


def fit(
    ws: Tensor,
    labels: Sequence[float] | Array,
    *,
    generator: Generator,
    name: str = "direction",
    groups: Sequence[Any] | None = None,
    provenance: dict[str, Any] | None = None,
    **choices: Unpack[FitChoices],
) -> Direction:
    """Fit a linear probe to labelled latents and return its normal as a direction.

    This is the short form of `fit_probe`.

    Args:
        ws: ``[N, num_ws, w_dim]`` or ``[N, w_dim]``; for the space "z" ``[N, z_dim]``.
        labels: ``[N]``, 0 and 1, or numbers; NaN marks a missing label.
        groups: ``[N]``; samples of one group (a person, an image and its mirror image) stay
            together in the folds.
        choices: fields of `ProbeOptions`, such as ``kind``, ``space``, ``layers`` and ``strength``.

    Raises:
        Error: shapes that do not match, a single class, or too few samples.
    """
    samples = LabelledLatents(ws, np.asarray(labels, dtype=np.float64), groups)
    return fit_probe(samples, generator, ProbeOptions(**choices), name=name, provenance=provenance)


def fit_probe(
    samples: LabelledLatents,
    generator: Generator,
    options: ProbeOptions = DEFAULT,
    *,
    name: str = "direction",
    provenance: dict[str, Any] | None = None,
) -> Direction:
    """Fit a linear probe to labelled latents and return its normal as a direction.

    The method is that of InterFaceGAN (Shen et al. 2020, section 3). Unlike there, the intercept is
    kept, so that a score of 0 means undecided, and sigma is measured, so that amounts are
    comparable. The report ends with ``samples.facts``.

    Raises:
        Error: shapes that do not match, a single class, or too few samples.
    """
    space = space_of(options.space)
    at = space.coordinates(generator, options.layers)
    x, values, members = _rows(samples, generator, options.space, at)
    if len(np.unique(values)) < 2:
        raise DataError(f"all {len(values)} labels are the same; a direction needs two classes")

    chosen = _confident(values, options.confident)
    binary = chosen is not None or set(np.unique(values)) == {0.0, 1.0}
    if chosen is not None:
        rows, sure = chosen
        x = x[rows]
        values = sure
        members = None if members is None else [members[i] for i in rows]

    kind = options.kind
    if kind == "auto":
        few_or_many = binary and (min(values.sum(), (1 - values).sum()) < FEW or len(values) > MANY)
        kind = "ridge" if not binary else "logistic" if few_or_many else "svc"

    if kind != "ridge" and not binary:
        raise DataError(
            f"the {kind} probe needs labels 0 and 1; use ridge for numbers, or only the most "
            "confident samples"
        )

    # One factor for all coordinates: the strength of the regularisation then means the same for
    # every network, and the probe's normal keeps its direction.
    scale = float(np.sqrt(x.var(axis=0).mean())) or 1.0
    estimator = probe(kind, options.strength, options.balanced)
    if len(x) > MANY:
        # Half the memory, and the estimators work in the type that they get.
        x = x.astype(np.float32)
        if kind == "logistic" and x.shape[1] <= WIDE:
            estimator.set_params(solver="newton-cholesky")

    x = x / scale
    two = binary and kind != "ridge"

    # Quality is measured by cross-validation with probes of their own; the direction is fitted to
    # all samples.
    report: dict[str, Any] = {
        "probe": kind,
        "strength": options.strength,
        "space": options.space,
        "samples": len(values),
        "groups": len(set(members)) if members is not None else None,
        **({"positives": int(values.sum())} if binary else {}),
        **({"confident": options.confident} if chosen is not None else {}),
        **quality(estimator, x, values, members, two),
    }
    if options.examine:
        curve = learning_curve(estimator, x, values, members, two)
        report["learning_curve"] = curve
        report["gain_of_doubling"] = gain_of_doubling(curve)
        report["angle"] = stability(estimator, x, values, members)

    if options.examine and space.per_layer and at.last > at.first:
        alone = by_layer(estimator, x, values, members, two, at.last + 1 - at.first)
        report["layers_alone"] = alone
        # An AUC of 0.5 is chance; R2 starts at 0.
        told = [max(value - 0.5 * two, 0.0) for value in alone]
        if any(told):
            report["telling_layers"] = [at.first + row for row in propose_layers(told)]

    report.update(samples.facts)

    # A clone: the estimators of the folds must not leave their state in it.
    fitted = clone(estimator).fit(x, values)
    weights = torch.from_numpy(np.asarray(fitted.coef_, dtype=np.float64).reshape(-1) / scale)
    norm = float(weights.norm())
    vector = at.embed(unit(weights))

    # A score has the units of w: both sides are divided by the norm. Ridge is undecided at the mean
    # of its numbers.
    middle = 0.0 if kind != "ridge" else float(values.mean())
    intercept = (float(np.ravel(fitted.intercept_)[0]) - middle) / norm
    return Direction(
        name=name,
        vector=vector,
        intercept=intercept,
        sigma=space.sigma(generator, vector, at.scale),
        fingerprint=fingerprint(generator),
        layers=options.layers if space.has_layers else None,
        space=options.space,
        scale=at.scale,
        report=report,
        provenance=provenance or {},
    )


def fit_classes(
    ws: Tensor,
    labels: Sequence[str],
    *,
    generator: Generator,
    name: str = "direction",
    groups: Sequence[Any] | None = None,
    provenance: dict[str, Any] | None = None,
    **choices: Unpack[FitChoices],
) -> dict[str, Direction]:
    """Fit a direction NAME-CLASS for every class against all others; arguments are those of `fit`.

    Args:
        labels: ``[N]``, the name of every sample's class; "" marks a missing label.
    """
    classes = sorted({label for label in labels if label})
    if len(classes) < 2:
        raise DataError(
            f"all labels are {classes[0]!r}; a direction needs two classes"
            if classes
            else "there are no labels"
        )

    found = {}
    for one in classes:
        values = [np.nan if not label else float(label == one) for label in labels]
        # One against all others: classes need no order.
        samples = LabelledLatents(ws, np.array(values), groups)
        found[one] = fit_probe(
            samples, generator, ProbeOptions(**choices), name=f"{name}-{one}", provenance=provenance
        )

    return found


def _confident(values: Array, share: float) -> tuple[Array, Array] | None:
    """Return the rows with the lowest and the highest values, and 0 or 1 for them; None where all
    count."""
    if share == 1:
        return None
    if len(np.unique(values)) == 2:
        raise DataError(
            "a confident share needs scores; labels of two classes have no most confident samples"
        )

    count = int(len(values) * share / 2)
    if count < 2:
        raise DataError(
            f"a confident share of {share} leaves {count} of {len(values)} samples at either "
            "end; at least 2 are needed"
        )

    # Stable, so that equal scores are chosen in the same order everywhere.
    order = np.argsort(values, kind="stable")
    return np.concatenate([order[:count], order[-count:]]), np.repeat([0.0, 1.0], count)


@torch.no_grad()
def _rows(
    samples: LabelledLatents, generator: Generator, space: str, at: Coordinates
) -> tuple[Array, Array, list[Any] | None]:
    """Return features ``[n, features]``, labels ``[n]`` and groups of the samples that have a
    label."""
    where = space_of(space)
    latents = where.whole(generator, samples.latents)
    values = samples.labels
    groups = samples.groups
    if values.shape != (len(latents),) or (groups is not None and len(groups) != len(latents)):
        raise ArgumentError(
            f"expected {len(latents)} labels and groups, one per sample, got {values.shape}"
        )
    if np.isinf(values).any():
        raise ArgumentError("labels must be finite; NaN marks a missing one")
    if not bool(torch.isfinite(latents).all()):
        raise ArgumentError("the latents hold values that are not finite")

    known = np.isfinite(values)
    if not known.any():
        raise DataError("all labels are missing")

    x: Array = where.rows(generator, latents[torch.from_numpy(known)], at).cpu().double().numpy()
    kept = (
        [group for group, keep in zip(groups, known, strict=True) if keep]
        if groups is not None
        else None
    )
    return x, values[known], kept
