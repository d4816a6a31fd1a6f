"""Latents with a label each: what a probe is fitted to, whatever the labels come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from latentedit.directions.folds import Array


@dataclass(frozen=True)
class LabelledLatents:
    """Latents of one generator with the labels of one attribute."""

    latents: Tensor
    """``[N, num_ws, w_dim]`` or ``[N, w_dim]``; for a probe in the space "z" ``[N, z_dim]``."""
    labels: Array
    """``[N]`` of float64: 0 and 1, or numbers; NaN marks a missing label."""
    groups: Sequence[Any] | None = None
    """Group of every sample (a person, an image and its mirror image); a group stays together in
    the folds."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How the labels were made; the report of a direction ends with these."""
