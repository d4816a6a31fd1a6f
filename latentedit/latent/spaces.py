"""The latent spaces Z, W, W+ and S: what a point of each is, which part of it a probe sees, and how
an edit moves it.

Z holds the normal vectors that the mapping network takes, W its outputs, W+ one w per layer, and S
(StyleSpace, Wu et al. 2021) the styles, one number per channel, that the layers compute from w.
Directions and latent files name their space by a text, such as "w+"; `space_of` finds the object
for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentedit.errors import ArgumentError
from latentedit.latent.layers import Layers, layer_range
from latentedit.latent.steps import Movable, move_rows, move_styles, score, style_score
from latentedit.latent.w_statistics import SAMPLES, sample_w, sample_z, style_statistics
from latentedit.networks.generator import Generator

CHUNK = 1000
"""Samples whose styles are computed at a time; all of 10,000 would take gigabytes."""


@dataclass(frozen=True)
class Coordinates:
    """The numbers of a latent that a probe sees, and where they lie in the vector of a
    direction."""

    first: int
    last: int
    shape: tuple[int, ...]
    """Shape of a direction's vector."""
    seen: Tensor
    """Booleans: the entries of the flattened vector that belong to the layers."""
    scale: Tensor | None = None
    """Standard deviation of every style channel, in S."""

    def embed(self, features: Tensor) -> Tensor:
        """Return the vector of shape ``shape`` with ``features`` at the entries that are seen, and
        0 elsewhere."""
        whole = torch.zeros(len(self.seen))
        whole[self.seen] = features
        return whole.reshape(self.shape)


class Space(ABC):
    """One latent space. The properties say what the others have in common; the methods do what
    differs."""

    name: str
    """Its name in files and options."""
    linear = False
    """Whether an edit adds to ws and a score is linear in ws (W and W+)."""
    per_layer = False
    """Whether a direction has a vector of its own for every layer (W+)."""
    has_layers = True
    """Whether an edit can be limited to layers (all but Z)."""
    has_scale = False
    """Whether every coordinate is measured in standard deviations of its own (S)."""

    @abstractmethod
    def coordinates(self, generator: Generator, layers: Layers = None) -> Coordinates:
        """Return what a probe of these layers sees.

        Raises:
            ArgumentError: layers outside the network, or any layers in Z.
        """

    @abstractmethod
    def rows(self, generator: Generator, latents: Tensor, at: Coordinates) -> Tensor:
        """Return latents ``[N, num_ws, w_dim]`` (in Z ``[N, z_dim]``) as the features that a probe
        sees, ``[N, features]``."""

    @abstractmethod
    def sigma(self, generator: Generator, vector: Tensor, scale: Tensor | None = None) -> float:
        """Compute the standard deviation of ``<vector, x>`` over 10,000 random latents (psi 1, seed
        0)."""

    @abstractmethod
    def move(
        self,
        generator: Generator,
        latents: Tensor,
        styles: Sequence[Tensor],
        direction: Movable,
        amount: float,
        layers: str | Layers = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Move latents by ``amount`` sigmas and return ws ``[N, num_ws, w_dim]`` and style offsets
        ``[N, I]``.

        Args:
            latents: ``[N, num_ws, w_dim]``, in Z ``[N, z_dim]``.
            styles: style offsets before the edit, empty for none.
            layers: layers to edit; None uses the direction's own.
        """

    def score(
        self,
        generator: Generator | None,
        ws: Tensor,
        styles: Sequence[Tensor],
        direction: Movable,
        intercept: float = 0.0,
    ) -> Tensor:
        """Return the score ``<v, x> + intercept`` of ``ws [N, num_ws, w_dim]`` with style offsets,
        ``[N]``.

        Args:
            generator: required in S, to compute styles from ws.
        """
        return score(ws, direction, intercept)

    def random(self, generator: Generator, count: int, seed: int) -> Tensor:
        """Draw random latents as `move` takes them, at psi 1."""
        return sample_w(generator, count, seed)[:, None].expand(-1, generator.num_ws, -1)

    def search_rows(self, generator: Generator) -> int:
        """Return how many w an inversion searches: one, or one per layer."""
        return generator.num_ws

    def shape(self, generator: Generator) -> str:
        """Return the expected shape of `rows`' latents, for messages."""
        return f"[N, {generator.num_ws}, {generator.w_dim}] or [N, {generator.w_dim}]"

    def whole(self, generator: Generator, latents: Tensor) -> Tensor:
        """Return ``latents`` with one w per layer where they have one for all.

        Raises:
            ArgumentError: the shape does not fit the generator.
        """
        full = latents[:, None].expand(-1, generator.num_ws, -1) if latents.ndim == 2 else latents
        if full.ndim != 3 or full.shape[1:] != (generator.num_ws, generator.w_dim):
            raise ArgumentError.of_shape("ws", self.shape(generator), full.shape)
        return full


class _Z(Space):
    name = "z"
    has_layers = False

    def coordinates(self, generator: Generator, layers: Layers = None) -> Coordinates:
        first, last = layer_range(layers, generator.num_ws)
        if layers:
            raise ArgumentError("a direction in z edits all layers")
        return Coordinates(
            first, last, (generator.z_dim,), torch.ones(generator.z_dim, dtype=torch.bool)
        )

    def rows(self, generator: Generator, latents: Tensor, at: Coordinates) -> Tensor:
        return latents

    def sigma(self, generator: Generator, vector: Tensor, scale: Tensor | None = None) -> float:
        return float((sample_z(0, generator.z_dim, SAMPLES) @ vector).std())

    def move(
        self,
        generator: Generator,
        latents: Tensor,
        styles: Sequence[Tensor],
        direction: Movable,
        amount: float,
        layers: str | Layers = None,
    ) -> tuple[Tensor, list[Tensor]]:
        return generator.mapping(moved_z(latents, direction, amount)), list(styles)

    def random(self, generator: Generator, count: int, seed: int) -> Tensor:
        return sample_z(seed, generator.z_dim, count)

    def shape(self, generator: Generator) -> str:
        return f"[N, {generator.z_dim}]"

    def whole(self, generator: Generator, latents: Tensor) -> Tensor:
        if latents.ndim != 2 or latents.shape[1] != generator.z_dim:
            raise ArgumentError.of_shape("z", self.shape(generator), latents.shape)
        return latents


class _Linear(Space):
    """What W and W+ share: an edit adds to ws."""

    linear = True

    def sigma(self, generator: Generator, vector: Tensor, scale: Tensor | None = None) -> float:
        flat = vector.reshape(-1, generator.w_dim).sum(dim=0)  # all rows of a random w are equal
        return float((sample_w(generator).cpu() @ flat).std())

    def move(
        self,
        generator: Generator,
        latents: Tensor,
        styles: Sequence[Tensor],
        direction: Movable,
        amount: float,
        layers: str | Layers = None,
    ) -> tuple[Tensor, list[Tensor]]:
        return move_rows(latents, direction, amount, layers), list(styles)


class _W(_Linear):
    name = "w"

    def coordinates(self, generator: Generator, layers: Layers = None) -> Coordinates:
        first, last = layer_range(layers, generator.num_ws)
        return Coordinates(
            first, last, (generator.w_dim,), torch.ones(generator.w_dim, dtype=torch.bool)
        )

    def rows(self, generator: Generator, latents: Tensor, at: Coordinates) -> Tensor:
        return latents[:, at.first : at.last + 1].mean(dim=1)

    def search_rows(self, generator: Generator) -> int:
        return 1


class _WPlus(_Linear):
    name = "w+"
    per_layer = True

    def coordinates(self, generator: Generator, layers: Layers = None) -> Coordinates:
        first, last = layer_range(layers, generator.num_ws)
        shape = (generator.num_ws, generator.w_dim)
        seen = torch.zeros(shape, dtype=torch.bool)
        # The vector covers all layers in any case, so that an edit may be limited to other layers
        # later.
        seen[first : last + 1] = True
        return Coordinates(first, last, shape, seen.flatten())

    def rows(self, generator: Generator, latents: Tensor, at: Coordinates) -> Tensor:
        return latents[:, at.first : at.last + 1].flatten(1)


class _S(Space):
    name = "s"
    has_scale = True

    def coordinates(self, generator: Generator, layers: Layers = None) -> Coordinates:
        first, last = layer_range(layers, generator.num_ws)
        _, std = style_statistics(generator)
        inside = [
            torch.full((size,), first <= row <= last)
            for row, size in generator.synthesis.style_layers
        ]

        # Channels that never vary are left alone.
        varies = std > 0
        return Coordinates(
            first,
            last,
            (len(std),),
            torch.cat(inside) & varies,
            std.where(varies, torch.ones_like(std)),
        )

    @torch.no_grad()
    def rows(self, generator: Generator, latents: Tensor, at: Coordinates) -> Tensor:
        assert at.scale is not None
        styles = [
            torch.cat(generator.synthesis.styles(part.to(generator.device).float()), dim=1).cpu()
            for part in latents.split(CHUNK)
        ]
        return (torch.cat(styles) / at.scale)[:, at.seen]

    @torch.no_grad()
    def sigma(self, generator: Generator, vector: Tensor, scale: Tensor | None = None) -> float:
        assert scale is not None
        parts = []
        for part in sample_w(generator).cpu().split(CHUNK):
            ws = part[:, None].expand(-1, generator.num_ws, -1).to(generator.device)
            parts.append(torch.cat(generator.synthesis.styles(ws), dim=1))
        return float(((torch.cat(parts).cpu() / scale) @ vector).std())

    def move(
        self,
        generator: Generator,
        latents: Tensor,
        styles: Sequence[Tensor],
        direction: Movable,
        amount: float,
        layers: str | Layers = None,
    ) -> tuple[Tensor, list[Tensor]]:
        return latents, move_styles(generator, styles, direction, amount, layers)

    def score(
        self,
        generator: Generator | None,
        ws: Tensor,
        styles: Sequence[Tensor],
        direction: Movable,
        intercept: float = 0.0,
    ) -> Tensor:
        if generator is None:
            raise ArgumentError(
                "a direction in style space needs the generator for its scores",
                argument="generator",
            )
        return style_score(generator, ws, styles, direction, intercept)


Z = _Z()
W = _W()
W_PLUS = _WPlus()
S = _S()

SPACES: dict[str, Space] = {space.name: space for space in (Z, W, W_PLUS, S)}


def space_of(name: str) -> Space:
    """Return the space with this name.

    Raises:
        ArgumentError: there is none.
    """
    if name not in SPACES:
        raise ArgumentError.of("space", f"one of {', '.join(SPACES)}", name)
    return SPACES[name]


def space_of_latent(ws: Tensor, styles: Sequence[Tensor]) -> Space:
    """Return the space in which a latent lies: S with style offsets, W if all layers have the same
    w, and W+ if not."""
    if styles:
        return S
    return W if bool((ws == ws[:, :1]).all()) else W_PLUS


def moved_z(z: Tensor, direction: Movable, amount: float) -> Tensor:
    """Return ``z [N, z_dim]`` moved by ``amount`` sigmas along a direction in Z."""
    return z + amount * direction.sigma * direction.vector.to(z)
