"""Linear probes: from labelled latents to a direction with quality figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC
from torch import Tensor

from latentedit.directions.direction import Direction, unit
from latentedit.directions.folds import Array
from latentedit.directions.sigma import measure_sigma
from latentedit.directions.validation import by_layer, gain_of_doubling, learning_curve, propose_layers, quality, stability
from latentedit.errors import ArgumentError, DataError
from latentedit.latent.w_statistics import style_statistics
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator

KINDS = ("auto", "svc", "logistic", "lda", "ridge")
SPACES = ("z", "w", "w+", "s")
FEW = 50
"""Samples of the smaller class below which "auto" takes logistic regression, the best with few (recipes/few_labels.py)."""
MANY, WIDE = 20_000, 2048
"""Samples beyond which everything is in float32 and "auto" takes logistic regression again, a tenth of the work of svc; and
features up to which its Newton steps, which need their square, are the quickest.
"""


def probe(kind: str, strength: float = 1.0, balanced: bool = True) -> Any:
    """Return an unfitted scikit-learn estimator; ``strength`` is C of svc and logistic and 1 / alpha of ridge."""
    weight = "balanced" if balanced else None
    if kind == "svc":
        return LinearSVC(C=strength, class_weight=weight, max_iter=20_000, random_state=0)
    if kind == "logistic":
        return LogisticRegression(C=strength, class_weight=weight, max_iter=2_000)
    if kind == "lda":
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5] if balanced else None)
    if kind == "ridge":
        return Ridge(alpha=1 / strength)
    raise ArgumentError.of("probe", f"one of {', '.join(KINDS)}", kind)


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
    confident: float = 1.0,
    balanced: bool = True,
    examine: bool = False,
    provenance: dict[str, Any] | None = None,
) -> Direction:
    """Fit a linear probe to labelled latents and return its normal as a direction.

    The method is that of InterFaceGAN (Shen et al. 2020, section 3). Unlike there, the intercept is kept, so that a score of 0
    means undecided, and sigma is measured, so that amounts are comparable.

    Args:
        ws: ``[N, num_ws, w_dim]`` or ``[N, w_dim]``; for the space "z" ``[N, z_dim]``.
        labels: ``[N]``, 0 and 1, or numbers; NaN marks a missing label.
        kind: "svc", "logistic", "lda" (linear discriminant, covariance shrunk after Ledoit and Wolf 2004), "ridge" (numbers),
            or "auto": ridge for numbers, logistic for fewer than 50 labels of the smaller class or more than 20,000 samples,
            else svc.
        space: "w" (the mean of ws over ``layers``), "w+" (these layers one by one), "s" (their styles) or "z".
        groups: ``[N]``; samples of one group (a person, an image and its mirror image) stay together in the folds.
        strength: C of the probe on coordinates scaled to unit mean square; smaller values regularise more.
        confident: share of the samples, those with the lowest and the highest numbers, that become the two classes, as in the
            published training of boundaries (0.02 at each end there is 0.04 here); 1 takes all.
        balanced: whether both classes have equal weight.
        examine: whether to add to the report a learning curve, the angle between directions from resampled labels and, in "w+",
            figures of probes of each layer alone with the range of layers that predict most. This takes some thirty more fits,
            and five more per layer.

    Raises:
        Error: shapes that do not match, a single class, or too few samples.
    """
    x, values, members = _samples(ws, labels, generator, space, groups, layers)
    if len(np.unique(values)) < 2:
        raise DataError(f"all {len(values)} labels are the same; a direction needs two classes")
    chosen = _confident(values, confident)
    binary = chosen is not None or set(np.unique(values)) == {0.0, 1.0}
    if chosen is not None:
        rows, sure = chosen
        x, values, members = x[rows], sure, None if members is None else [members[i] for i in rows]
    if kind == "auto":
        few_or_many = binary and (min(values.sum(), (1 - values).sum()) < FEW or len(values) > MANY)
        kind = "ridge" if not binary else "logistic" if few_or_many else "svc"
    if kind != "ridge" and not binary:
        raise DataError(f"the {kind} probe needs labels 0 and 1; use ridge for numbers, or only the most confident samples")
    scale = float(np.sqrt(x.var(axis=0).mean())) or 1.0
    coordinates = Coordinates.of(generator, space, layers)
    estimator = probe(kind, strength, balanced)
    if len(x) > MANY:
        x = x.astype(np.float32)
        if kind == "logistic" and x.shape[1] <= WIDE:
            estimator.set_params(solver="newton-cholesky")
    x = x / scale
    two = binary and kind != "ridge"
    report: dict[str, Any] = {
        "probe": kind,
        "strength": strength,
        "space": space,
        "samples": len(values),
        "groups": len(set(members)) if members is not None else None,
        **({"positives": int(values.sum())} if binary else {}),
        **({"confident": confident} if chosen is not None else {}),
        **quality(estimator, x, values, members, two),
    }
    if examine:
        curve = learning_curve(estimator, x, values, members, two)
        report["learning_curve"] = curve
        report["gain_of_doubling"] = gain_of_doubling(curve)
        report["angle"] = stability(estimator, x, values, members)
    if examine and space == "w+" and coordinates.last > coordinates.first:
        alone = by_layer(estimator, x, values, members, two, coordinates.last + 1 - coordinates.first)
        report["layers_alone"] = alone
        told = [max(value - 0.5 * two, 0.0) for value in alone]
        if any(told):
            report["telling_layers"] = [coordinates.first + row for row in propose_layers(told)]
    fitted = clone(estimator).fit(x, values)
    weights = torch.from_numpy(np.asarray(fitted.coef_, dtype=np.float64).reshape(-1) / scale)
    norm = float(weights.norm())
    vector = coordinates.embed(unit(weights))
    # A score has the units of w: both sides are divided by the norm. Ridge is undecided at the mean of its numbers.
    middle = 0.0 if kind != "ridge" else float(values.mean())
    intercept = (float(np.ravel(fitted.intercept_)[0]) - middle) / norm
    return Direction(
        name=name,
        vector=vector,
        intercept=intercept,
        sigma=measure_sigma(vector, generator, space, coordinates.scale),
        fingerprint=fingerprint(generator),
        layers=layers if space != "z" else None,
        space=space,
        scale=coordinates.scale,
        report=report,
        provenance=provenance or {},
    )


def fit_classes(ws: Tensor, labels: Sequence[str], *, name: str = "direction", **options: Any) -> dict[str, Direction]:
    """Fit a direction NAME-CLASS for every class against all others; "" marks a missing label. Options are those of `fit`."""
    classes = sorted({label for label in labels if label})
    if len(classes) < 2:
        raise DataError(f"all labels are {classes[0]!r}; a direction needs two classes" if classes else "there are no labels")
    found = {}
    for one in classes:
        values = [np.nan if not label else float(label == one) for label in labels]
        found[one] = fit(ws, values, name=f"{name}-{one}", **options)
    return found


@dataclass(frozen=True)
class Coordinates:
    """Where a probe looks: which part of a latent's numbers, as one row."""

    space: str
    first: int
    last: int
    shape: tuple[int, ...]
    """Of a direction's vector."""
    moved: Tensor
    """Which entries of the flat vector belong to the layers, booleans."""
    scale: Tensor | None = None
    """Of style channels."""

    @classmethod
    def of(cls, generator: Generator, space: str, layers: tuple[int, int] | None) -> "Coordinates":
        if space not in SPACES:
            raise ArgumentError.of("space", f"one of {', '.join(SPACES)}", space)
        first, last = layers or (0, generator.num_ws - 1)
        if not 0 <= first <= last < generator.num_ws:
            raise ArgumentError(f"layers {first}-{last} lie outside this network, whose layers are 0-{generator.num_ws - 1}")
        if space == "z" and layers:
            raise ArgumentError("a direction in z edits all layers")
        if space == "w+":
            shape: tuple[int, ...] = (generator.num_ws, generator.w_dim)
            moved = torch.zeros(shape, dtype=torch.bool)
            moved[first : last + 1] = True
            return cls(space, first, last, shape, moved.flatten())
        if space == "s":
            _, std = style_statistics(generator)
            parts = [
                torch.full((size,), first <= row <= last, dtype=torch.bool) for row, size in generator.synthesis.style_layers
            ]
            # Channels that never vary are left alone.
            return cls(space, first, last, (len(std),), torch.cat(parts) & (std > 0), std.where(std > 0, torch.ones_like(std)))
        width = generator.z_dim if space == "z" else generator.w_dim
        return cls(space, first, last, (width,), torch.ones(width, dtype=torch.bool))

    @torch.no_grad()
    def rows(self, generator: Generator, latents: Tensor) -> Array:
        """``[N, num_ws, w_dim]`` (``[N, z_dim]`` in z) as ``[N, features]``."""
        if self.space == "z":
            x = latents
        elif self.space == "w":
            x = latents[:, self.first : self.last + 1].mean(dim=1)
        elif self.space == "w+":
            x = latents[:, self.first : self.last + 1].flatten(1)
        else:
            assert self.scale is not None
            styles = [
                torch.cat(generator.synthesis.styles(part.to(generator.device).float()), dim=1).cpu()
                for part in latents.split(1000)
            ]
            x = (torch.cat(styles) / self.scale)[:, self.moved]
        found: Array = x.cpu().double().numpy()
        return found

    def embed(self, vector: Tensor) -> Tensor:
        """A vector over the features as one over the whole space."""
        whole = torch.zeros(len(self.moved))
        whole[self.moved] = vector
        return whole.reshape(self.shape)


def _confident(values: Array, share: float) -> tuple[Array, Array] | None:
    """Rows with the lowest and the highest values, and 0 or 1 for them; None where all count."""
    if not 0 < share <= 1:
        raise ArgumentError.of("the confident share", "above 0 and at most 1", share)
    if share == 1:
        return None
    if len(np.unique(values)) == 2:
        raise DataError("a confident share needs scores; labels of two classes have no most confident samples")
    count = int(len(values) * share / 2)
    if count < 2:
        raise DataError(
            f"a confident share of {share} leaves {count} of {len(values)} samples at either end; at least 2 are needed"
        )
    order = np.argsort(values, kind="stable")
    return np.concatenate([order[:count], order[-count:]]), np.repeat([0.0, 1.0], count)


def _samples(
    ws: Tensor,
    labels: Sequence[float] | Array,
    generator: Generator,
    space: str,
    groups: Sequence[Any] | None,
    layers: tuple[int, int] | None,
) -> tuple[Array, Array, list[Any] | None]:
    coordinates = Coordinates.of(generator, space, layers)
    if space == "z":
        expected = f"[N, {generator.z_dim}]"
        fits = ws.ndim == 2 and ws.shape[1] == generator.z_dim
    else:
        expected = f"[N, {generator.num_ws}, {generator.w_dim}] or [N, {generator.w_dim}]"
        if ws.ndim == 2:
            ws = ws[:, None].expand(-1, generator.num_ws, -1)
        fits = ws.ndim == 3 and ws.shape[1:] == (generator.num_ws, generator.w_dim)
    if not fits:
        raise ArgumentError.of_shape(f"{('z' if space == 'z' else 'ws')}", expected, ws.shape)
    values = np.asarray(labels, dtype=np.float64)
    if values.shape != (len(ws),) or (groups is not None and len(groups) != len(ws)):
        raise ArgumentError(f"expected {len(ws)} labels and groups, one per sample, got {values.shape}")
    if np.isinf(values).any():
        raise ArgumentError("labels must be finite; NaN marks a missing one")
    if not bool(torch.isfinite(ws).all()):
        raise ArgumentError("the latents hold values that are not finite")
    known = np.isfinite(values)
    if not known.any():
        raise DataError("all labels are missing")
    x = coordinates.rows(generator, ws[torch.from_numpy(known)])
    kept = [group for group, keep in zip(groups, known, strict=True) if keep] if groups is not None else None
    return x, values[known], kept
