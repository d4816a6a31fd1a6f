"""What the commands see of a latent along the sliders that ship, and say of it."""

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentedit.directions import Direction
    from latentedit.latent.latent_file import Latent
    from latentedit.model.model import Model
    from latentedit.photo.checks import Domain
    from latentedit.photo.looking import Onlooker


def onlooker_of(model: "Model", domain: "Domain | None" = None) -> "Onlooker":
    """Who looks at pictures of ``model``, with the sliders that ship for it.

    Args:
        domain: of the model, where it has been measured already.
    """
    from latentedit.directions.direction import read_direction
    from latentedit.directions.registry import shipped
    from latentedit.networks.fingerprint import fingerprint
    from latentedit.photo.checks import Domain
    from latentedit.photo.looking import Onlooker

    own = fingerprint(model.generator)
    if domain is None and model.discriminator is not None:
        domain = Domain.cached(model.generator, model.discriminator, own)
    sliders = {name: read_direction(file) for name, file in shipped(own).items()}
    faces = "eyes" in (model.framing or {})
    return Onlooker(model.generator, model.discriminator, domain, sliders, faces)


class Limits:
    """How far the sliders of one latent are moved, against what its file says of safe amounts.

    Moves of other layers than a slider's own are not counted, as no one looked at those.
    """

    def __init__(self, latent: "Latent") -> None:
        self._safe = latent.safe or {}
        self._moved: dict[str, float] = {}
        self._beyond: dict[tuple[str, bool], tuple[Direction, float]] = {}

    def branch(self) -> "Limits":
        """For one of several pictures that begin as moved so far."""
        branch = copy.copy(self)
        branch._moved = dict(self._moved)
        return branch

    def count(self, direction: "Direction", amount: float, layers: str | None = None) -> None:
        """Note a move by ``amount`` sigmas."""
        name = direction.name
        if layers is not None or name not in self._safe:
            return
        total = self._moved.get(name, 0.0) + amount
        self._moved[name] = total
        low, high = self._safe[name]
        side = (name, total > 0)
        farthest = self._beyond.get(side, (direction, 0.0))[1]
        if not low <= total <= high and abs(total) > abs(farthest):
            self._beyond[side] = direction, total

    def lines(self) -> list[str]:
        """A sentence for every slider and way that was moved too far."""
        found = []
        for (name, _), (direction, amount) in self._beyond.items():
            # The user may have a direction of the same name.
            if not _ships(direction):
                continue
            ends = self._safe[name]
            seen = f"the picture was seen to stay one of the model's own from {ends[0]:g} to {ends[1]:g}"
            if not any(ends):
                seen = "this slider was seen to break the picture with less"
            found.append(f"{name} {amount:+g} is farther than is safe: {seen}")
        return found


def _ships(direction: "Direction") -> bool:
    from latentedit.directions.direction import read_direction
    from latentedit.directions.registry import shipped

    file = shipped(direction.fingerprint).get(direction.name)
    if file is None:
        return False
    vector = read_direction(file).vector
    return vector.shape == direction.vector.shape and bool((vector == direction.vector).all())
