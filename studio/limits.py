"""How far every slider can move one face before its picture breaks."""

from collections.abc import Callable, Mapping

from latentedit.directions.direction import Direction
from latentedit.inversion.domain import Domain
from latentedit.model.model import Model
from latentedit.photo.looking import Onlooker
from latentedit.studio.open_face import OpenFace
from latentedit.studio.sliders import Slider

TOGETHER = 2 * 128**2
"""Pixels of the pictures that are drawn at once: a slider under the finger waits for no more."""


class SliderLimits:
    """Finds the limits of the sliders of one model.

    Args:
        fingerprint: that of the model's generator.
        pause: called before pictures are drawn; it returns when nobody needs the processor.
    """

    def __init__(
        self, model: Model, fingerprint: str, pause: Callable[[], None] = lambda: None
    ) -> None:
        self.model = model
        self.fingerprint = fingerprint
        self.pause = pause
        self._domain: Domain | None = None

    def domain(self, pause: Callable[[], None] = lambda: None) -> Domain | None:
        """Return where the model's own pictures lie, measured once per model, with a ``pause``
        before each of them; None without a discriminator."""
        if self._domain is None and self.model.discriminator is not None:
            self._domain = Domain.cached(
                self.model.generator, self.model.discriminator, self.fingerprint, pause=pause
            )
        return self._domain

    def measure(self, face: OpenFace, sliders: Mapping[str, Slider]) -> bool:
        """Note in ``face`` how far every slider leaves it whole; takes seconds.

        Returns:
            Whether the latent of the face has new limits, which belong into its file.
        """
        # The user's own sliders can be refitted under their names, so that their limits do not go
        # into the file.
        own = {
            name: slider.direction for name, slider in sliders.items() if slider.group == "Yours"
        }
        new = {name: direction for name, direction in own.items() if name not in face.seen}
        if new:
            safe = self._onlooker(new).look(face.latent).safe
            # Limits of 0 everywhere mean that the face itself is in doubt, which says nothing about
            # these sliders.
            if safe and any(map(any, safe.values())):
                face.seen |= safe

        if face.latent.safe is not None:
            return False

        shipped = {
            name: s.direction for name, s in sliders.items() if s.group not in ("Yours", "Unnamed")
        }
        self._onlooker(shipped).look(face.latent).put_into(face.latent)
        return True

    def _onlooker(self, sliders: Mapping[str, Direction]) -> Onlooker:
        faces = "eyes" in (self.model.framing or {})
        return Onlooker(
            self.model.generator,
            self.model.discriminator,
            domain=self.domain(self.pause),
            sliders=sliders,
            faces=faces,
            together=TOGETHER,
            pause=self.pause,
        )
