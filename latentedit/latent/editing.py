"""Arithmetic on ws: edits along directions, mixing, interpolation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from latentedit.errors import ArgumentError, check_number
from latentedit.latent.layers import Layers
from latentedit.latent.spaces import space_of
from latentedit.latent.steps import Movable, move_rows, move_styles, on_rows, row_step
from latentedit.networks.generator import Generator


def edit(ws: Tensor, direction: Movable, amount: float, layers: str | Layers = None) -> Tensor:
    """Move ``ws [N, num_ws, w_dim]`` by ``amount`` sigmas along ``direction``.

    A direction in W ``[w_dim]`` is added to each of its layers. A direction in W+
    ``[num_ws, w_dim]``, or a refined one, has a step of its own for every layer.

    Args:
        amount: in standard deviations of the direction's score over random w, so that sliders are
            comparable.
        layers: layers to edit, as a text for `parse_layers` or (first, last); None uses the
            direction's own.

    Raises:
        Error: shapes that do not fit the network, or layers outside it.
    """
    if not isinstance(ws, Tensor):
        raise ArgumentError.of("ws", "a tensor [N, num_ws, w_dim]", ws)
    _check_linear(direction)
    return move_rows(ws, direction, amount, layers)


def edit_holding(
    ws: Tensor, moves: Sequence[tuple[Movable, float, str | Layers]], held: Sequence[Movable]
) -> Tensor:
    """Move ``ws [N, num_ws, w_dim]`` along several directions at once, and keep the scores of the
    ``held`` directions.

    Every score changes by exactly its own amount, and the scores of ``held`` directions do not
    change.

    To the sum of the plain edits comes the shortest step that corrects the scores (least squares,
    minimum norm). It is exact for any set of correlated directions, as long as none of them follows
    from the others.

    Args:
        moves: (direction, amount in sigmas, layers) as `edit` takes them.

    Raises:
        Error: as for `edit`, or linearly dependent directions.
    """
    for _, amount, _ in moves:
        check_number("an edit's amount", amount)
    steps = [amount * step_of(ws, d, layers) for d, amount, layers in moves]
    step = torch.stack(steps).sum(dim=0).cpu().double()  # small, and not every device has float64
    gradients = (
        torch.stack([gradient_of_score(ws, d) for d in (*(d for d, *_ in moves), *held)])
        .flatten(1)
        .cpu()
        .double()
    )
    wanted = torch.tensor(
        [amount * d.sigma for d, amount, _ in moves] + [0.0] * len(held), dtype=torch.float64
    )

    # Correlations and not products of gradients: the limit must not depend on the lengths of
    # directions.
    lengths = gradients.norm(dim=1)
    correlations = gradients @ gradients.T / lengths[:, None] / lengths
    if float(torch.linalg.eigvalsh(correlations)[0]) < 1e-6:
        raise ArgumentError(
            "these directions cannot be edited and held at the same time: they are linearly "
            "dependent"
        )

    missing = wanted - gradients @ step.flatten()
    correction = gradients.T @ torch.linalg.solve(gradients @ gradients.T, missing)
    return torch.add(ws, (step + correction.reshape(step.shape)).to(ws))


def step_of(ws: Tensor, direction: Movable, layers: str | Layers = None) -> Tensor:
    """Return ``[num_ws, w_dim]``: what an edit by one sigma adds to ws; zero in layers that it does
    not change."""
    _check_linear(direction)
    return row_step(ws, direction, layers)


def gradient_of_score(ws: Tensor, direction: Movable) -> Tensor:
    """Return the gradient of `score` with respect to ws, ``[num_ws, w_dim]``."""
    _check_linear(direction)
    rows = on_rows(ws, direction, direction.vector)
    if direction.vector.ndim == 2:
        return direction.vector.to(ws)
    first, last = direction.layers if direction.layers is not None else (0, ws.shape[1] - 1)
    return rows / (last + 1 - first)


def edit_styles(
    generator: Generator,
    styles: Sequence[Tensor],
    direction: Movable,
    amount: float,
    layers: str | Layers = None,
) -> list[Tensor]:
    """Return style offsets ``[N, I]``, in order of use, moved by ``amount`` sigmas along a
    ``direction`` in style space.

    Every channel is measured in its own standard deviations, as in Wu et al. 2021, "StyleSpace
    Analysis".

    Args:
        styles: the offsets before the edit, as in `latentedit.latent.latent_file.Latent.styles`;
            empty for none.
        layers: layers whose styles to edit; None uses the direction's own.

    Raises:
        Error: a direction of another space or network, or layers outside it.
    """
    if not space_of(direction.space).has_scale:
        raise ArgumentError(f"a direction in the space {direction.space} edits ws, not styles")
    return move_styles(generator, styles, direction, amount, layers)


def interpolate(a: Tensor, b: Tensor, count: int) -> Tensor:
    """Interpolate linearly from ``a`` to ``b``, each ``[1, num_ws, w_dim]``, in ``count`` steps:
    ``[count, num_ws, w_dim]``."""
    steps = torch.linspace(0, 1, count).to(a)[:, None, None]
    return torch.lerp(a, b, steps)


def mix(base: Tensor, other: Tensor, layers: Sequence[int]) -> Tensor:
    """Mix styles: return ``base`` with ``layers`` (first, last) of ``other``, each
    ``[N, num_ws, w_dim]``."""
    first, last = layers
    mixed = base.clone()
    mixed[:, first : last + 1] = other[:, first : last + 1]
    return mixed


def _check_linear(direction: Movable) -> None:
    if not space_of(direction.space).linear:
        raise ArgumentError(
            f"a direction in the space {direction.space} cannot edit ws; use edit_styles for "
            "style space"
        )
