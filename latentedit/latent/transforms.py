"""Rotation and translation of pictures by a network whose input can be turned and moved
(StyleGAN3)."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latentedit.errors import ArgumentError, IncompatibleError
from latentedit.latent.latent_file import Latent
from latentedit.networks.generator import Generator
from latentedit.networks.stylegan3 import AliasFreeSynthesis, moved_input

FARTHEST = 10.0
MOST_TURNED = 3600.0


@dataclass(frozen=True)
class Transform:
    """A rotation about the picture's middle, and then a translation."""

    x: float = 0.0
    """To the right, as a share of the picture's side."""
    y: float = 0.0
    """Down."""
    degrees: float = 0.0
    """Anticlockwise."""

    def __post_init__(self) -> None:
        far = max(abs(self.x), abs(self.y)) if math.isfinite(self.x + self.y) else math.inf
        if far > FARTHEST or not abs(self.degrees) <= MOST_TURNED:
            limits = (
                f"shares of at most {FARTHEST:g} and an angle of at most {MOST_TURNED:g} degrees"
            )
            raise ArgumentError(
                f"a transform takes {limits}, got {self.x:g}, {self.y:g} and {self.degrees:g}"
            )

    @classmethod
    def parse(cls, text: str) -> "Transform":
        """Parse ``"X,Y,DEGREES"``."""
        parts = text.split(",")
        try:
            values = [float(part) for part in parts]
        except ValueError:
            values = []
        if len(values) != 3:
            raise ArgumentError(f"a transform is X,Y,DEGREES, such as 0.1,0,-15, got {text!r}")
        return cls(*values)


@torch.no_grad()
def transform_offsets(
    generator: Generator, ws: Tensor, transform: Transform, styles: list[Tensor] | None = None
) -> list[Tensor]:
    """Style offsets, ``[N, I]`` each, with which ``ws [N, num_ws, w_dim]`` renders its picture
    turned and moved.

    The input of StyleGAN3 takes rotation and translation from its style (Karras et al. 2021,
    section 3.2), so that a transform is a change of that style alone, and all that it brings into
    the picture is generated.

    Args:
        styles: offsets that the latent has before; None for none.

    Raises:
        Error: a network of another kind.
    """
    if not isinstance(generator.synthesis, AliasFreeSynthesis):
        raise IncompatibleError(
            "only StyleGAN3 networks can turn and move their pictures; this one has a constant "
            "input"
        )

    offsets = list(styles or [])
    own = generator.synthesis.styles(ws.to(generator.device))
    if not offsets:
        offsets = [torch.zeros_like(style) for style in own]
    before = own[0] + offsets[0].to(own[0].device)
    offsets[0] = moved_input(before, transform.x, transform.y, transform.degrees) - own[0]
    return offsets


def transformed(generator: Generator, latent: Latent, transform: Transform) -> Latent:
    """Return ``latent`` with its picture turned and moved; see `transform_offsets`."""
    ws = latent.rows(generator.num_ws)
    offsets = transform_offsets(generator, ws, transform, latent.styles)
    return replace(latent, ws=ws, space="s", styles=[offset.cpu() for offset in offsets])
