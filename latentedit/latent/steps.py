"""What one sigma along a direction adds to ws or to styles, and scores; without a look at the
direction's space."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from latentedit.errors import ArgumentError, IncompatibleError, check_number
from latentedit.latent.layers import Layers, layer_range
from latentedit.networks.generator import Generator


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


def row_step(ws: Tensor, direction: Movable, layers: str | Layers = None) -> Tensor:
    """Return ``[num_ws, w_dim]``: what an edit by one sigma adds to ws; zero in layers that it does
    not change."""
    # A refined direction has another step per layer, of which one sigma is the same change of the
    # score.
    own = direction.sigma * direction.vector if direction.step is None else direction.step
    return on_rows(ws, direction, own, layers)


def move_rows(ws: Tensor, direction: Movable, amount: float, layers: str | Layers = None) -> Tensor:
    """Return ``ws [N, num_ws, w_dim]`` moved by ``amount`` sigmas
    (`latentedit.latent.editing.edit`)."""
    check_number("an edit's amount", amount)
    return ws + amount * row_step(ws, direction, layers)


def on_rows(ws: Tensor, direction: Movable, added: Tensor, layers: str | Layers = None) -> Tensor:
    """Return ``added``, for all layers or one row per layer, as ``[num_ws, w_dim]`` with zeros in
    the other layers."""
    if ws.ndim != 3:
        raise ArgumentError.of_shape("ws", "[N, num_ws, w_dim]", ws.shape)
    if added.shape not in (ws.shape[2:], ws.shape[1:]):
        raise IncompatibleError(
            f"direction of shape {list(added.shape)} does not fit ws of shape {list(ws.shape)}"
        )

    first, last = layer_range(layers if layers is not None else direction.layers, ws.shape[1])
    mask = torch.zeros(ws.shape[1], 1, dtype=ws.dtype, device=ws.device)
    mask[first : last + 1] = 1
    return mask * added.to(ws)


def move_styles(
    generator: Generator,
    styles: Sequence[Tensor],
    direction: Movable,
    amount: float,
    layers: str | Layers = None,
) -> list[Tensor]:
    """Return style offsets moved by ``amount`` sigmas (`latentedit.latent.editing.edit_styles`)."""
    check_number("an edit's amount", amount)
    step = amount * direction.sigma * _style_step(generator, direction, layers)
    sizes = [size for _, size in generator.synthesis.style_layers]
    steps = step.split(sizes)

    # An edit of a latent without offsets begins with zeros, which need not be added.
    if not styles:
        return [part[None].clone() for part in steps]
    if [offset.shape[-1] for offset in styles] != sizes:
        raise IncompatibleError("these style offsets do not fit the generator")
    return [offset + part.to(offset) for offset, part in zip(styles, steps, strict=True)]


def _style_step(generator: Generator, direction: Movable, layers: str | Layers = None) -> Tensor:
    """Return what one raw unit of the score adds to all styles, ``[channels]``."""
    if direction.scale is None:
        raise ArgumentError(
            "a direction without the standard deviations of the channels cannot move styles"
        )

    layers_of = generator.synthesis.style_layers
    channels = sum(size for _, size in layers_of)
    if direction.vector.shape != (channels,):
        raise IncompatibleError(
            f"direction of shape {list(direction.vector.shape)} does not fit a generator of "
            f"{channels} style channels"
        )

    first, last = layer_range(layers if layers is not None else direction.layers, generator.num_ws)
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
