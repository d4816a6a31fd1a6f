"""Editing arithmetic on ws: moving along directions, mixing, interpolating, layer ranges."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from latentedit.errors import Error

NAMED_LAYERS = {"coarse": (0, 3), "middle": (4, 7), "fine": (8, 10**6), "all": (0, 10**6)}
"""Rows of ws: coarse drives 4 x 4 and 8 x 8, middle 16 x 16 and 32 x 32, fine the rest (StyleGAN, section 3.1)."""


class Movable(Protocol):
    """What an edit needs to know of a direction; `latentedit.directions.Direction` is one."""

    @property
    def vector(self) -> Tensor: ...
    @property
    def sigma(self) -> float: ...
    @property
    def layers(self) -> tuple[int, int] | None: ...


def parse_layers(text: str, num_ws: int) -> tuple[int, int]:
    """``"0-3"``, ``"5"``, ``"coarse"``, ``"middle"``, ``"fine"`` or ``"all"`` as the first and last row of ws (inclusive).

    Raises:
        Error: not a range, or outside the network's ``num_ws`` rows.
    """
    if text in NAMED_LAYERS:
        first, last = NAMED_LAYERS[text]
        last = min(last, num_ws - 1)
    else:
        parts = text.split("-")
        if len(parts) not in (1, 2) or not all(part.isdigit() for part in parts):
            raise Error(f"layers must be a range such as 0-3, or one of {', '.join(NAMED_LAYERS)}, got {text!r}")
        first, last = int(parts[0]), int(parts[-1])
    if first > last or last >= num_ws:
        raise Error(f"layers {text} lie outside this network, whose layers are 0-{num_ws - 1}")
    return first, last


def edit(ws: Tensor, direction: Movable, amount: float, layers: str | tuple[int, int] | None = None) -> Tensor:
    """Move ``ws [N, num_ws, w_dim]`` by ``amount`` sigmas along ``direction``.

    A direction in W ``[w_dim]`` is added to every row of its layers, one in W+ ``[num_ws, w_dim]`` row by row.

    Args:
        amount: in standard deviations of the direction's score over random w, so that sliders compare.
        layers: rows to move, as `parse_layers` takes them or (first, last); None takes the direction's own.

    Raises:
        Error: shapes of another network, or layers outside it.
    """
    if ws.ndim != 3:
        raise Error(f"ws must have shape [N, num_ws, w_dim], got {list(ws.shape)}")
    vector, num_ws = direction.vector.to(ws), ws.shape[1]
    if vector.shape not in (ws.shape[2:], ws.shape[1:]):
        raise Error(f"direction of shape {list(vector.shape)} does not fit ws of shape {list(ws.shape)}")
    chosen = layers if layers is not None else direction.layers
    if isinstance(chosen, str):
        chosen = parse_layers(chosen, num_ws)
    first, last = chosen if chosen is not None else (0, num_ws - 1)
    if not 0 <= first <= last < num_ws:
        raise Error(f"layers {first}-{last} lie outside this network, whose layers are 0-{num_ws - 1}")
    mask = torch.zeros(num_ws, 1, dtype=ws.dtype, device=ws.device)
    mask[first : last + 1] = 1
    return ws + amount * direction.sigma * mask * vector


def score(ws: Tensor, direction: Movable, intercept: float = 0.0) -> Tensor:
    """``<v, x> + intercept`` of ``ws [N, num_ws, w_dim]``: ``[N]``; for a W direction the mean over its layers."""
    vector = direction.vector.to(ws)
    if vector.ndim == 2:
        return (ws * vector).sum(dim=(1, 2)) + intercept
    first, last = direction.layers if direction.layers is not None else (0, ws.shape[1] - 1)
    return (ws[:, first : last + 1] @ vector).mean(dim=1) + intercept


def interpolate(a: Tensor, b: Tensor, count: int) -> Tensor:
    """``count`` ws on the straight line from ``a`` to ``b``, each ``[1, num_ws, w_dim]``: ``[count, num_ws, w_dim]``."""
    steps = torch.linspace(0, 1, count).to(a)[:, None, None]
    return torch.lerp(a, b, steps)


def mix(base: Tensor, other: Tensor, layers: Sequence[int]) -> Tensor:
    """``base`` with the rows (first, last) of ``layers`` taken from ``other``, each ``[N, num_ws, w_dim]``: style mixing."""
    first, last = layers
    mixed = base.clone()
    mixed[:, first : last + 1] = other[:, first : last + 1]
    return mixed
