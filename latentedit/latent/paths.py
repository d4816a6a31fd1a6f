"""Paths through several points of a latent space, for animations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from latentedit.errors import ArgumentError
from latentedit.latent.blending import interpolated
from latentedit.latent.latent_file import Latent
from latentedit.latent.w_statistics import sample_z
from latentedit.networks.generator import Generator

Kind = Literal["linear", "spline", "z", "spherical"]
KINDS: tuple[Kind, ...] = ("linear", "spline", "z", "spherical")
IN_Z = ("z", "spherical")
"""Paths in z, which only random faces have."""
STRAIGHT = 1e-4
"""Angle in radians from which arcs differ from straight lines, and from which a way around the
sphere is defined."""


@dataclass(frozen=True)
class Course:
    """How a path goes through its points."""

    count: int
    """Number of images, at least 2."""
    kind: Kind = "linear"
    """"linear" and "spline" in w, "z" (straight) and "spherical" (along arcs) in z."""
    closed: bool = False
    """Whether it goes from the last point on to the first; the first point then comes once."""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ArgumentError.of("count", "at least 2", self.count)
        if self.kind not in KINDS:
            raise ArgumentError.of("kind", f"one of {', '.join(KINDS)}", self.kind)

    def positions(self, points: int) -> Tensor:
        """Return where the images are, ``[count]`` float64: the whole part of a position is the
        number of the point before it.

        Raises:
            Error: fewer than two points.
        """
        if points < 2:
            raise ArgumentError(f"a path needs at least 2 points, got {points}")
        if self.closed:
            return torch.arange(self.count, dtype=torch.float64) * points / self.count
        return torch.linspace(0, points - 1, self.count, dtype=torch.float64)


def neighbours(position: float, points: int) -> tuple[int, int, float]:
    """Return the point before ``position``, the one after it, and the share of the way between
    them."""
    first = int(position)
    if first == points - 1 and position == first:
        return first, first, 0.0
    return first % points, (first + 1) % points, position - first


def spline_shares(positions: Tensor, points: int, *, closed: bool) -> Tensor:
    """Shares of the ``points`` in a cubic spline through all of them at ``positions [count]``:
    ``[count, points]``.

    Direction and speed change without jumps. At its ends, an open spline is straight (the natural
    spline).
    """
    from scipy.interpolate import CubicSpline

    corners = np.eye(points)
    if closed:
        corners = np.concatenate([corners, corners[:1]])
    ends = "periodic" if closed else "natural"
    return torch.from_numpy(
        CubicSpline(np.arange(len(corners)), corners, bc_type=ends)(positions.numpy())
    )


def arc(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return the point at ``share`` of the arc from ``a`` to ``b [z_dim]``, at even angular speed
    (Shoemake 1985).

    The length changes evenly too. Where a and b point in the same or in opposite directions, it is
    the straight line.
    """
    lengths = a.norm(), b.norm()
    one = a / lengths[0].clamp(min=1e-12)
    two = b / lengths[1].clamp(min=1e-12)
    angle = torch.acos((one @ two).clamp(-1, 1))
    if not STRAIGHT < float(angle) < torch.pi - STRAIGHT:
        return torch.lerp(a, b, share)

    direction = (torch.sin((1 - share) * angle) * one + torch.sin(share * angle) * two) / torch.sin(
        angle
    )
    found: Tensor = direction * torch.lerp(lengths[0], lengths[1], share)
    return found


Walk = Callable[[int], Latent]
"""From the number of an image to its latent."""


def through_latents(generator: Generator, latents: Sequence[Latent], course: Course) -> Walk:
    """Return a path in w through ``latents``.

    Noise maps and tuned generators go along straight lines in both kinds of path.

    Raises:
        Error: a path in z, fewer than two latents, or style offsets, which only fit their own w.
    """
    if course.kind in IN_Z:
        raise ArgumentError(
            "a path in z goes through random faces: a latent file has no z", argument="kind"
        )

    count = len(latents)
    positions = course.positions(count)
    curve: Tensor | None = None
    if course.kind == "spline":
        # [P, num_ws, w_dim]
        corners = torch.cat([latent.rows(generator.num_ws) for latent in latents])
        shares = spline_shares(positions, count, closed=course.closed).to(corners.dtype)
        curve = torch.einsum("fp,pld->fld", shares, corners)

    def at(number: int) -> Latent:
        first, second, share = neighbours(float(positions[number]), count)
        found = interpolated(generator, latents[first], latents[second], share)
        return found if curve is None else replace(found, ws=curve[number : number + 1])

    return at


@dataclass(frozen=True)
class Seeds:
    """Random faces of a network."""

    numbers: Sequence[int]
    """Seeds of `latentedit.latent.w_statistics.sample_z`."""
    label: Tensor | None = None
    """``[1, c_dim]`` of a labelled network."""
    psi: float = 0.7
    """Truncation."""


def through_seeds(generator: Generator, seeds: Seeds, course: Course) -> Walk:
    """Return a path in z or in w through random faces.

    Raises:
        Error: fewer than two seeds, or no label for a labelled network.
    """
    corners = [sample_z(number, generator.z_dim)[0] for number in seeds.numbers]

    @torch.no_grad()
    def mapped(z: Tensor) -> Latent:
        label = None if seeds.label is None else seeds.label.to(generator.device)
        ws = generator.mapping(z[None].to(generator.device), label, seeds.psi)
        return Latent(ws.cpu(), None, "", "w")

    if course.kind not in IN_Z:
        return through_latents(generator, [mapped(z) for z in corners], course)

    positions = course.positions(len(corners))
    between = arc if course.kind == "spherical" else torch.lerp

    def at(number: int) -> Latent:
        first, second, share = neighbours(float(positions[number]), len(corners))
        return mapped(between(corners[first], corners[second], share))

    return at
