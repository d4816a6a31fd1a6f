"""What the commands see of a latent along the sliders that ship, and say of it."""

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentedit.directions import Direction
    from latentedit.inversion.domain import Domain
    from latentedit.latent.latent_file import Latent
    from latentedit.model.model import Model
    from latentedit.photo.looking import Onlooker


HALVED = 128
"""Resolution from which moved pictures are judged at half their size."""


def onlooker_of(model: "Model", domain: "Domain | None" = None) -> "Onlooker":
    """Who looks at pictures of ``model``, with the sliders that ship for it.

    Args:
        domain: of the model, where it has been measured already.
    """
    from latentedit.directions.direction import read_direction
    from latentedit.directions.registry import shipped
    from latentedit.inversion.domain import Domain
    from latentedit.networks.fingerprint import fingerprint
    from latentedit.photo.looking import Onlooker

    own = fingerprint(model.generator)
    if domain is None and model.discriminator is not None:
        domain = Domain.cached(model.generator, model.discriminator, own)

    sliders = {name: read_direction(file) for name, file in shipped(own).items()}
    quick = None
    if sliders and domain is not None and model.generator.resolution >= HALVED:
        assert model.discriminator is not None
        quick = Domain.cached(model.generator, model.discriminator, own, halved=True)
    faces = "eyes" in (model.framing or {})
    return Onlooker(model.generator, model.discriminator, domain, sliders, quick, faces)


class Limits:
    """How far the sliders of one latent are moved, against what its file says of safe amounts.

    Moves of other layers than a slider's own are not counted, as no one looked at those.
    """

    def __init__(self, latent: "Latent") -> None:
        self._safe = latent.safe or {}
        self._moved: dict[str, tuple[Direction, float]] = {}
        self._branches: list[Limits] = []

    def branch(self) -> "Limits":
        """For one of several pictures that begin as moved so far; without branches there is one
        picture."""
        branch = copy.copy(self)
        branch._moved = dict(self._moved)
        branch._branches = []
        self._branches.append(branch)
        return branch

    def count(self, direction: "Direction", amount: float, layers: str | None = None) -> None:
        """Note a move by ``amount`` sigmas."""
        name = direction.name
        if layers is None and name in self._safe:
            before = self._moved[name][1] if name in self._moved else 0.0
            self._moved[name] = direction, before + amount

    def lines(self) -> list[str]:
        """Return a sentence for every slider and way that a picture was moved too far."""
        farthest: dict[tuple[str, bool], tuple[Direction, float]] = {}
        for picture in self._branches or [self]:
            for name, (direction, amount) in picture._moved.items():
                low, high = self._safe[name]
                side = (name, amount > 0)
                if not low <= amount <= high and (
                    side not in farthest or abs(amount) > abs(farthest[side][1])
                ):
                    farthest[side] = direction, amount

        # The user may have a direction of the same name.
        return [
            self._line(name, amount)
            for (name, _), (direction, amount) in farthest.items()
            if _ships(direction)
        ]

    def _line(self, name: str, amount: float) -> str:
        low, high = self._safe[name]
        seen = f"the picture was seen to stay whole from {low:g} to {high:g}"
        if low == high:
            seen = "this slider was seen to break the picture with less"
        return f"{name} {amount:+g} is farther than is safe: {seen}"


def _ships(direction: "Direction") -> bool:
    from latentedit.directions.direction import read_direction
    from latentedit.directions.registry import shipped

    file = shipped(direction.fingerprint).get(direction.name)
    if file is None:
        return False
    vector = read_direction(file).vector
    return vector.shape == direction.vector.shape and bool((vector == direction.vector).all())
