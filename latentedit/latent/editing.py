"""Arithmetic on ws: edits along directions, mixing, interpolation, layer ranges."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from latentedit.errors import ArgumentError, IncompatibleError, check_number, meant
from latentedit.networks.generator import Generator

NAMED_LAYERS = {"coarse": (0, 3), "middle": (4, 7), "fine": (8, 10**6), "all": (0, 10**6)}
"""Layers by name: coarse is 4 x 4 and 8 x 8, middle is 16 x 16 and 32 x 32, fine is the rest
(StyleGAN, section 3.1)."""


class Movable(Protocol):
    """The attributes of a direction that an edit needs; `latentedit.directions.Direction` has
    them."""

    @property
    def vector(self) -> Tensor: ...
    @property
    def sigma(self) -> float: ...
    @property
    def layers(self) -> tuple[int, int] | None: ...
    @property
    def space(self) -> str: ...
    @property
    def scale(self) -> Tensor | None: ...
    @property
    def step(self) -> Tensor | None: ...


def parse_layers(text: str, num_ws: int) -> tuple[int, int]:
    """Parse ``"0-3"``, ``"5"``, ``"coarse"``, ``"middle"``, ``"fine"`` or ``"all"`` into the first
    and the last layer.

    Raises:
        Error: not a range, or outside the network's ``num_ws`` layers.
    """
    if text in NAMED_LAYERS:
        first, last = NAMED_LAYERS[text]
        last = min(last, num_ws - 1)
    else:
        parts = text.split("-")
        if len(parts) not in (1, 2) or not all(part.isdigit() for part in parts):
            expected = f"a range such as 0-3, or one of {', '.join(NAMED_LAYERS)}"
            raise ArgumentError.of("layers", expected, text, advice=meant(text, NAMED_LAYERS))
        first = int(parts[0])
        last = int(parts[-1])
    if first > last:
        raise ArgumentError(f"layers go from low to high: write {last}-{first} instead of {text}")
    if last >= num_ws:
        raise ArgumentError(
            f"layers {text} lie outside this network, whose layers are 0-{num_ws - 1}"
        )
    return first, last


def edit(
    ws: Tensor, direction: Movable, amount: float, layers: str | tuple[int, int] | None = None
) -> Tensor:
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
    check_number("an edit's amount", amount)
    return ws + amount * step_of(ws, direction, layers)


def edit_holding(
    ws: Tensor,
    moves: Sequence[tuple[Movable, float, str | tuple[int, int] | None]],
    held: Sequence[Movable],
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


def step_of(ws: Tensor, direction: Movable, layers: str | tuple[int, int] | None = None) -> Tensor:
    """Return ``[num_ws, w_dim]``: what an edit by one sigma adds to ws; zero in layers that it does
    not change."""
    own = direction.sigma * direction.vector if direction.step is None else direction.step
    return _on_rows(ws, direction, own, layers)


def _on_rows(
    ws: Tensor, direction: Movable, added: Tensor, layers: str | tuple[int, int] | None = None
) -> Tensor:
    if direction.space not in ("w", "w+"):
        raise ArgumentError(
            f"a direction in the space {direction.space} cannot edit ws; use edit_styles for "
            "style space"
        )
    if ws.ndim != 3:
        raise ArgumentError.of_shape("ws", "[N, num_ws, w_dim]", ws.shape)
    if added.shape not in (ws.shape[2:], ws.shape[1:]):
        raise IncompatibleError(
            f"direction of shape {list(added.shape)} does not fit ws of shape {list(ws.shape)}"
        )
    first, last = _range(layers if layers is not None else direction.layers, ws.shape[1])
    mask = torch.zeros(ws.shape[1], 1, dtype=ws.dtype, device=ws.device)
    mask[first : last + 1] = 1
    return mask * added.to(ws)


def _range(chosen: str | tuple[int, int] | None, num_ws: int) -> tuple[int, int]:
    if isinstance(chosen, str):
        return parse_layers(chosen, num_ws)
    first, last = chosen if chosen is not None else (0, num_ws - 1)
    if not 0 <= first <= last < num_ws:
        raise ArgumentError(
            f"layers {first}-{last} lie outside this network, whose layers are 0-{num_ws - 1}"
        )
    return first, last


def gradient_of_score(ws: Tensor, direction: Movable) -> Tensor:
    """Return the gradient of `score` with respect to ws, ``[num_ws, w_dim]``."""
    rows = _on_rows(ws, direction, direction.vector)
    if direction.vector.ndim == 2:
        return direction.vector.to(ws)
    first, last = direction.layers if direction.layers is not None else (0, ws.shape[1] - 1)
    return rows / (last + 1 - first)


def edit_styles(
    generator: Generator,
    styles: Sequence[Tensor],
    direction: Movable,
    amount: float,
    layers: str | tuple[int, int] | None = None,
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
    check_number("an edit's amount", amount)
    step = amount * direction.sigma * _style_step(generator, direction, layers)
    sizes = [size for _, size in generator.synthesis.style_layers]
    steps = step.split(sizes)
    if not styles:
        return [part[None].clone() for part in steps]
    if [offset.shape[-1] for offset in styles] != sizes:
        raise IncompatibleError("these style offsets do not fit the generator")
    return [offset + part.to(offset) for offset, part in zip(styles, steps, strict=True)]


def _style_step(
    generator: Generator, direction: Movable, layers: str | tuple[int, int] | None = None
) -> Tensor:
    """Return what one raw unit of the score adds to all styles, ``[channels]``."""
    if direction.space != "s" or direction.scale is None:
        raise ArgumentError(f"a direction in the space {direction.space} edits ws, not styles")
    layers_of = generator.synthesis.style_layers
    channels = sum(size for _, size in layers_of)
    if direction.vector.shape != (channels,):
        raise IncompatibleError(
            f"direction of shape {list(direction.vector.shape)} does not fit a generator of "
            f"{channels} style channels"
        )
    first, last = _range(layers if layers is not None else direction.layers, generator.num_ws)
    moved = torch.cat([torch.full((size,), float(first <= row <= last)) for row, size in layers_of])
    return moved * direction.vector * direction.scale


@torch.no_grad()
def style_score(
    generator: Generator,
    ws: Tensor,
    styles: Sequence[Tensor],
    direction: Movable,
    intercept: float = 0.0,
) -> Tensor:
    """Return ``<v, s / scale> + intercept``, ``[N]``; s are the styles of ``ws [N, num_ws, w_dim]``
    plus ``styles``."""
    _style_step(generator, direction)  # for its checks
    own = generator.synthesis.styles(ws.to(generator.device))
    if styles:
        own = [s + offset.to(s) for s, offset in zip(own, styles, strict=True)]
    assert direction.scale is not None
    # dead channels have no scale
    scaled = torch.where(direction.scale > 0, torch.cat(own, dim=1).cpu() / direction.scale, 0)
    values: Tensor = scaled @ direction.vector + intercept
    return values


def score(ws: Tensor, direction: Movable, intercept: float = 0.0) -> Tensor:
    """Return the score ``<v, x> + intercept`` of ``ws [N, num_ws, w_dim]``, ``[N]``; in W, x is the
    mean over the layers."""
    vector = direction.vector.to(ws)
    if vector.ndim == 2:
        return (ws * vector).sum(dim=(1, 2)) + intercept
    first, last = direction.layers if direction.layers is not None else (0, ws.shape[1] - 1)
    return (ws[:, first : last + 1] @ vector).mean(dim=1) + intercept


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
