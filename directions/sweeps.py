"""Contact sheets of sweeps along directions of any space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from latentedit.directions.direction import Direction
from latentedit.errors import ArgumentError, complete
from latentedit.io import contact_sheet
from latentedit.latent.editing import edit_holding
from latentedit.latent.latent_file import Latent
from latentedit.latent.spaces import Z, moved_z, space_of
from latentedit.latent.w_statistics import random_labels, sample_z
from latentedit.networks.generator import Generator

LARGEST = 256
"""Largest side of the images on a sheet, in pixels."""


@dataclass(frozen=True)
class _Base:
    """An image to start from; for a random one with its z and label."""

    latent: Latent
    z: Tensor | None = None
    c: Tensor | None = None


def move_latent(
    generator: Generator,
    latent: Latent,
    direction: Direction,
    amount: float,
    layers: str | tuple[int, int] | None = None,
    hold: Sequence[Direction] = (),
) -> Latent:
    """Return ``latent`` moved by ``amount`` sigmas along a ``direction`` in W, W+ (its ws) or style
    space (its style offsets).

    Args:
        layers: layers to edit; None uses the direction's own.
        hold: directions in W or W+ whose scores do not change
            (`latentedit.latent.editing.edit_holding`).

    Raises:
        Error: a direction in z, because a latent's z is unknown; a style direction together with
            ``hold``; see `edit`.
    """
    check_movable(direction)
    if hold:
        check_holdable([direction, *hold])
        return replace(latent, ws=edit_holding(latent.ws, [(direction, amount, layers)], hold))
    ws, styles = space_of(direction.space).move(
        generator, latent.ws, latent.styles, direction, amount, layers
    )
    return replace(latent, ws=ws, styles=styles)


def check_movable(direction: Direction) -> None:
    """Raise `Error` for a direction that cannot be applied to latents."""
    if space_of(direction.space) is Z:
        raise ArgumentError(
            f"direction {direction.name} is in z, and the z of a latent is unknown; it only "
            "works on random images"
        )


def check_holdable(directions: Sequence[Direction]) -> None:
    """Raise `Error` unless all scores can be edited or held together."""
    for direction in directions:
        if not space_of(direction.space).linear:
            raise ArgumentError(
                f"direction {direction.name} is in the space {direction.space}; only directions "
                "in w and w+ can be held"
            )


def sweep_sheet(
    generator: Generator,
    directions: Sequence[Direction],
    amounts: Sequence[float],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    psi: float = 0.7,
    latent: Latent | None = None,
    hold: Sequence[Direction] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """Draw a contact sheet with one row per direction and base image, which shows all ``amounts``
    (in sigmas).

    Args:
        seeds: seeds of the base images, which are random and truncated to ``psi``.
        latent: a latent that replaces the random base images.
        hold: directions whose scores do not change.
        progress: called with the finished and all images.

    Raises:
        Error: nothing to draw; a direction in z together with ``latent`` or ``hold``; see
            `move_latent`.
    """
    bases = (
        [_Base(latent)]
        if latent is not None
        else [_random_base(generator, seed, psi) for seed in seeds]
    )
    if not directions or not amounts or not bases:
        raise ArgumentError(
            "a contact sheet needs at least one direction, one amount and one image to start from"
        )

    captions = [f"{amount:+g}" if amount else "0" for amount in amounts]
    rows = []
    done = 0

    for direction in directions:
        heading = title(direction)
        for base in bases:
            pictures = []
            for amount in amounts:
                moved = _moved(generator, base, direction, amount, psi, hold)
                pictures.append(_reduced(moved.render(generator)))
                done += 1
                if progress:
                    progress(done, len(directions) * len(bases) * len(amounts))
            rows.append(contact_sheet.Row(heading, pictures, captions))
            heading = ""  # not again for the other base images, which stand below

    return contact_sheet.sheet(rows)


def title(direction: Direction) -> str:
    """Return the name with a short summary of the direction's report."""
    with complete(f"direction {direction.name}", "report"):  # a file may hold one of another form
        return _title(direction)


def _title(direction: Direction) -> str:
    words = []
    report = direction.report
    if "explained" in report:
        words.append(f"{report['explained']:.1%} of the variance of w")

    if "share" in report:
        words.append(f"{report['share']:.1%} of the eigenvalues")

    if "effect" in report and "place" in report:
        row, column = report["place"]
        words.append(
            f"effect {report['effect']:.3f}, locality {report['locality']:.2f}, row {row:.2f}, "
            f"column {column:.2f}"
        )

    if direction.layers is not None:
        first, last = direction.layers
        words.append(f"layers {first}-{last}" if last > first else f"layer {first}")

    return f"{direction.name}: {', '.join(words)}" if words else direction.name


@torch.no_grad()
def _random_base(generator: Generator, seed: int, psi: float) -> _Base:
    z = sample_z(seed, generator.z_dim).to(generator.device)
    c = random_labels(generator, seed, 1)
    return _Base(Latent(generator.mapping(z, c, psi), None, "", "w"), z, c)


@torch.no_grad()
def _moved(
    generator: Generator,
    base: _Base,
    direction: Direction,
    amount: float,
    psi: float,
    hold: Sequence[Direction],
) -> Latent:
    if space_of(direction.space) is not Z or base.z is None or hold:
        return move_latent(generator, base.latent, direction, amount, hold=hold)
    if direction.vector.shape != base.z.shape[1:]:
        raise ArgumentError(
            f"direction of shape {list(direction.vector.shape)} does not fit z of "
            f"{generator.z_dim} numbers"
        )
    ws = generator.mapping(moved_z(base.z, direction, amount), base.c, psi)
    return replace(base.latent, ws=ws)


def _reduced(picture: Tensor) -> Tensor:
    factor = picture.shape[-1] // LARGEST
    return F.avg_pool2d(picture, factor) if factor > 1 else picture
