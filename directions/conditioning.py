"""Conditioning of directions on others, and the effect of an edit on the scores of other directions
(leakage)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from latentedit.directions.direction import Direction, unit
from latentedit.directions.refinement import of_one_sigma
from latentedit.directions.sigma import measure_sigma
from latentedit.errors import ArgumentError, DataError
from latentedit.latent.editing import gradient_of_score, step_of
from latentedit.latent.spaces import W_PLUS, W, space_of
from latentedit.latent.w_statistics import sample_w
from latentedit.networks.generator import Generator

LEAKS = 0.2
"""Change of another score, in sigmas per sigma of an edit, from which keeping that score is
suggested."""
SAME = 0.95
"""Leakage, in both directions, from which two directions count as the same attribute."""


def leakage(directions: Sequence[Direction], num_ws: int, w_dim: int) -> Tensor:
    """Return ``[n, n]``: the change of the score of direction j, in its sigmas, for an edit along
    direction i by one sigma."""
    ws = torch.zeros(1, num_ws, w_dim)
    _linear(directions)
    # Scores are linear in ws: what an edit does to them is a scalar product.
    steps = torch.stack([step_of(ws, d) for d in directions]).flatten(1).double()
    gradients = (
        torch.stack([gradient_of_score(ws, d) / d.sigma for d in directions]).flatten(1).double()
    )
    found: Tensor = (steps @ gradients.T).float()
    return found


def to_keep(
    direction: Direction, others: Sequence[Direction], num_ws: int, w_dim: int
) -> list[Direction]:
    """Return those of ``others`` that ``direction`` changes by 0.2 sigmas per sigma or more, except
    for the same attribute."""
    found = []
    for other in others:
        matrix = leakage([direction, other], num_ws, w_dim)
        there = abs(float(matrix[0, 1]))
        back = abs(float(matrix[1, 0]))
        if there >= LEAKS and min(there, back) < SAME:
            found.append(other)
    return found


def conditioned(
    direction: Direction,
    keep: Sequence[Direction],
    generator: Generator,
    *,
    name: str | None = None,
) -> Direction:
    """Return ``direction`` without the part that changes the scores of ``keep``.

    This is InterFaceGAN's conditional manipulation (Shen et al. 2020, section 3.3) for any number
    of attributes at once, and exact for correlated ones. It is also exact for directions of some
    layers and for refined ones, as long as the edit uses the direction's own layers. The point
    where the score is 0 is as many sigmas from the mean w as before. The report of ``direction`` no
    longer applies. The new report has the cosine with the original direction, the directions that
    are kept, and the remaining changes of their scores (`leakage`).

    Args:
        name: name of the new direction; None adds "-alone" to the old name.

    Raises:
        Error: nothing is left, or a direction is not in W or W+.
    """
    _linear([direction, *keep])
    space = space_of(direction.space)
    if not keep:
        raise ArgumentError("name at least one direction to keep")

    ws = torch.zeros(1, generator.num_ws, generator.w_dim)
    gradients = torch.stack([gradient_of_score(ws, d) for d in keep]).double()
    first, last = direction.layers or (0, generator.num_ws - 1)
    moved = gradients[:, first : last + 1]
    constraints = moved.sum(dim=1) if space is W else torch.zeros_like(gradients)
    if space is W_PLUS:
        constraints[:, first : last + 1] = moved

    # An orthonormal basis, as the directions to keep may be correlated or dependent; projecting
    # them away one by one would not keep all of them.
    basis = torch.linalg.svd(constraints.flatten(1), full_matrices=False)
    rows = basis.Vh[1e-6 * basis.S.max().clamp(min=1e-12) < basis.S]
    old = direction.vector.double().flatten()
    new = old - rows.T @ (rows @ old)

    # Scaled back to length 1, a rest this small would be rounding noise.
    if float(new.norm()) < 1e-3:
        raise DataError(
            f"nothing of {direction.name} is left if {', '.join(d.name for d in keep)} must not "
            "change"
        )

    vector = unit(new).reshape(direction.vector.shape)
    sigma = measure_sigma(vector, generator)
    mean = sample_w(generator).mean(dim=0).cpu()[None, None].expand(1, generator.num_ws, -1)

    # Sigma changes with the vector, so the distance from the mean is kept in sigmas and not in raw
    # units.
    before = float(direction.score(mean)) / direction.sigma
    undecided = replace(direction, vector=vector, sigma=sigma, intercept=0.0, step=None)

    if direction.step is not None:
        # Only the direction's own layers move, so that what the others would have held counts for
        # nothing.
        inside = torch.zeros_like(gradients)
        inside[:, first : last + 1] = moved
        held = torch.linalg.svd(inside.flatten(1), full_matrices=False)
        away = held.Vh[1e-6 * held.S.max().clamp(min=1e-12) < held.S]
        step = torch.zeros_like(direction.step, dtype=torch.float64)
        step[first : last + 1] = direction.step[first : last + 1].double()
        flat = step.flatten()
        free = (flat - away.T @ (away @ flat)).reshape(step.shape).float()
        undecided = replace(undecided, step=of_one_sigma(free, undecided))

    found = replace(
        undecided,
        name=name or f"{direction.name}-alone",
        intercept=before * sigma - float(undecided.score(mean)),
        provenance={**direction.provenance, "conditioned_from": direction.name},
    )
    left = leakage([found, *keep], generator.num_ws, generator.w_dim)[0, 1:]
    report = {
        "kept": [d.name for d in keep],
        "cosine_with_unconditioned": round(float(vector.flatten().double() @ old), 4),
        "leakage": {d.name: round(float(left[i]), 3) + 0.0 for i, d in enumerate(keep)},
    }
    return replace(found, report=report)


def _linear(directions: Sequence[Direction]) -> None:
    for direction in directions:
        if not space_of(direction.space).linear:
            raise ArgumentError(
                f"direction {direction.name} is in the space {direction.space}; only those in W "
                "and W+ can be compared so"
            )
