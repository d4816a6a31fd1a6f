"""A direction and its file (docs/formats.md)."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from latentedit.directions.facts import facts_in
from latentedit.errors import ArgumentError, DataError, IncompatibleError, complete, quoted
from latentedit.io.header import DIRECTION
from latentedit.io.native_file import check_numbers, read_tensors, write_tensors
from latentedit.latent.latent_file import versions
from latentedit.latent.spaces import SPACES, space_of
from latentedit.networks.generator import Generator

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")


def check_name(name: Any) -> None:
    """Raise `Error` unless a direction can be called ``name``."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ArgumentError(f"a direction's name has letters, digits, - and _, got {quoted(name)}")


def name_from(text: str) -> str:
    """Return ``text``, such as the name of a column or of a class, with what no direction's name
    can have replaced by "-"."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:200] or "direction"


@dataclass(frozen=True)
class Direction:
    """A unit vector in a generator's latent space along which one attribute changes."""

    name: str
    vector: Tensor
    """``[w_dim]`` (space "w"), ``[num_ws, w_dim]`` ("w+"), one number per style channel ("s") or
    ``[z_dim]`` ("z"); its Frobenius norm is 1."""
    intercept: float
    """The score is ``<vector, x> + intercept``; it is 0 where the probe is undecided. In "s", x is
    divided by ``scale``."""
    sigma: float
    """Standard deviation of the score over 10,000 random w: the unit of an edit's amount."""
    fingerprint: str
    """Fingerprint of its generator."""
    layers: tuple[int, int] | None = None
    """First and last layer that it edits; None for all."""
    report: dict[str, Any] = field(default_factory=dict)
    """Figures of the probe on held-out data, and others."""
    provenance: dict[str, Any] = field(default_factory=dict)
    space: str = ""
    """"w", "w+", "s" or "z"; "" means "w" or "w+", according to the vector's shape."""
    scale: Tensor | None = None
    """Standard deviation of every style channel over 10,000 random w; only in the space "s"."""
    step: Tensor | None = None
    """``[num_ws, w_dim]``: an edit by one sigma adds this to ws instead of ``sigma * vector`` (made
    by `refine`)."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.vector.ndim not in (1, 2):
            raise ArgumentError.of_shape(
                "a direction", "[w_dim] or [num_ws, w_dim]", self.vector.shape
            )

        if not self.space:
            object.__setattr__(self, "space", "w" if self.vector.ndim == 1 else "w+")

        if self.space not in SPACES:
            raise ArgumentError.of("a direction's space", '"z", "w", "w+" or "s"', self.space)

        space = SPACES[self.space]
        if (self.vector.ndim == 2) != space.per_layer:
            raise ArgumentError(
                f"a direction in the space {self.space} cannot have shape {list(self.vector.shape)}"
            )
        if (self.scale is not None) != space.has_scale or (
            self.scale is not None and self.scale.shape != self.vector.shape
        ):
            raise ArgumentError(
                "a direction in the space s needs the standard deviation of every channel, no "
                "other has them"
            )
        if not abs(float(self.vector.norm()) - 1) <= 1e-3:  # a NaN neither
            raise ArgumentError(
                f"a direction must have norm 1, got {float(self.vector.norm()):.4g}"
            )
        if self.step is not None and (
            not space.linear or self.step.shape[1:] != self.vector.shape[-1:]
        ):
            raise ArgumentError(
                f"a direction in the space {self.space} cannot have a step of shape "
                f"{list(self.step.shape)}"
            )
        if not 0 < self.sigma < math.inf:
            raise ArgumentError.of("a direction's sigma", "greater than 0", self.sigma)
        if not math.isfinite(self.intercept):
            raise ArgumentError.of("a direction's intercept", "a finite number", self.intercept)
        if self.layers is not None and not _are_layers(self.layers):
            raise ArgumentError(
                "a direction's layers must be two whole numbers, the first and the last layer"
            )

    def __repr__(self) -> str:
        layers = "" if self.layers is None else f", layers {self.layers[0]}-{self.layers[1]}"
        return f"Direction({self.name!r}, {self.space}{layers}, sigma {self.sigma:.3g})"

    def score(
        self, ws: Tensor, generator: Generator | None = None, styles: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return the score of ``ws [N, num_ws, w_dim]``, ``[N]``, in raw units of the probe; divide
        by ``sigma`` for sigmas.

        Args:
            generator: required in the space "s", to compute styles from ws.
            styles: style offsets ``[N, I]``, if the latent has any.
        """
        space = space_of(self.space)
        if space.has_scale and generator is None:
            raise ArgumentError(
                f"direction {self.name} is in style space; its scores need the generator"
            )
        return space.score(generator, ws, styles, self, self.intercept)

    def save(self, path: str | os.PathLike[str]) -> None:
        save_direction(path, self)


def _are_layers(layers: tuple[Any, ...]) -> bool:
    whole = len(layers) == 2 and all(type(layer) is int for layer in layers)
    return whole and 0 <= layers[0] <= layers[1] < 1 << 20


def save_direction(path: str | os.PathLike[str], direction: Direction) -> None:
    """Write a direction file, atomically."""
    header = {
        "name": direction.name,
        "space": direction.space,
        "layers": list(direction.layers) if direction.layers else None,
        "intercept": direction.intercept,
        "sigma": direction.sigma,
        "fingerprint": direction.fingerprint,
        "report": direction.report,
        "provenance": direction.provenance,
        "versions": versions(),
    }
    tensors = {"vector": direction.vector.float()}
    if direction.scale is not None:
        tensors["scale"] = direction.scale.float()

    if direction.step is not None:
        tensors["step"] = direction.step.float()

    write_tensors(path, *DIRECTION, header, tensors)


def read_direction(path: str | os.PathLike[str]) -> Direction:
    """Read a direction file; raise `Error` if it is missing, damaged or another kind of file."""
    header, tensors = read_tensors(path, *DIRECTION)
    with complete(path, "direction"):
        facts = facts_in(header)
        floats = {
            name: tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point()
        }
        for name, tensor in floats.items():  # again, as a number can be too large for the kind
            check_numbers(path, name, tensor)
        return Direction(
            name=facts.name,
            vector=floats["vector"],
            intercept=facts.intercept,
            sigma=facts.sigma,
            fingerprint=facts.fingerprint,
            layers=facts.layers,
            space=facts.space,
            scale=floats.get("scale"),
            step=floats.get("step"),
            report=facts.report,
            provenance=facts.provenance,
        )


def check_generator(
    direction: Direction, own: str, name: str, *, force: bool | None = None
) -> None:
    """Raise `Error` unless ``own`` is the fingerprint of the direction's generator; ``force`` is
    None if it is no option."""
    if direction.fingerprint != own and not force:
        found_on = (
            f"direction {direction.name} was found on the generator {direction.fingerprint[:12]}"
        )
        reason = f"{found_on}, {name} is {own[:12]}"
        advice = "" if force is None else "use `force=True` to apply it anyway"
        raise IncompatibleError(reason, expected=direction.fingerprint, actual=own, advice=advice)


def renamed(
    direction: Direction, name: str, *, flip: bool = False, layers: tuple[int, int] | None = None
) -> Direction:
    """Return ``direction`` under another name; its provenance records the old name.

    Args:
        flip: reverse the direction; scores change their sign.
        layers: first and last layer that it edits; None leaves them.

    Raises:
        Error: an invalid name, or a style channel outside ``layers``.
    """
    own = direction.layers
    if (
        space_of(direction.space).has_scale
        and layers is not None
        and own is not None
        and not layers[0] <= own[0] <= own[1] <= layers[1]
    ):
        raise ArgumentError(
            f"direction {direction.name} is in layers {own[0]}-{own[1]}, outside of "
            f"{layers[0]}-{layers[1]}"
        )

    sign = -1.0 if flip else 1.0
    return replace(
        direction,
        name=name,
        vector=direction.vector * sign,
        step=None if direction.step is None else direction.step * sign,
        intercept=direction.intercept * sign,
        layers=layers if layers is not None else own,
        provenance={**direction.provenance, "named_from": direction.name, "flipped": flip},
    )


def unit(vector: Tensor) -> Tensor:
    """Return ``vector`` scaled to Frobenius norm 1, float32."""
    norm = float(vector.double().norm())
    if not norm > 0:
        raise DataError("the probe found no direction: all its weights are zero")
    return (vector.double() / norm).to(torch.float32)
