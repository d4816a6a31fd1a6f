"""What becomes of an inverted picture along sliders, by looking: it is moved, drawn, and shown to
the discriminator, and to a recogniser of faces."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from latentedit.inversion.domain import Domain
from latentedit.inversion.verdict import AMOUNTS, WHOLE, Look
from latentedit.io.images import to_pil
from latentedit.latent.deltas import expand_deltas, with_deltas
from latentedit.latent.latent_file import Latent, render
from latentedit.latent.spaces import Z, space_of
from latentedit.latent.steps import Movable
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.generator import Generator
from latentedit.networks.noise import Noise
from latentedit.photo.faces import sees_face
from latentedit.photo.landmarks import describe, has_landmarks

SAME = 0.5
"""dlib's distance from the unmoved face up to which a moved one is still this person's.

Discriminators accept more: of eight training people, turned by 2 or 3 sigmas, faces farther than
this were broken or another's.
"""
TOGETHER = 24 * 128**2
"""Pixels of the pictures that are drawn at once, unless the onlooker says otherwise."""

Move = tuple[str, float]
"""A slider's name and an amount in sigmas."""


@dataclass(frozen=True)
class Onlooker:
    """Who looks at the pictures of one model."""

    generator: Generator
    discriminator: Discriminator | None = None
    domain: Domain | None = None
    """Where the model's own pictures lie in the features of ``discriminator``."""
    sliders: Mapping[str, Movable] | None = None
    """Directions of this generator, by name; those in z are left out, as no latent can be moved
    along them."""
    quick: Domain | None = None
    """The same at half the size of the pictures, which judges the moved ones; None: ``domain``."""
    faces: bool = False
    """Whether the model draws faces, which a face finder can look for."""
    together: int = TOGETHER
    """Pixels of the pictures that are drawn at once."""
    pause: Callable[[], None] = lambda: None
    """Called before pictures are drawn; it returns when there is time for them."""

    @torch.no_grad()
    def look(self, latent: Latent) -> Look:
        """Say whether the picture of ``latent`` is one of the model's own, and how far along every
        slider it stays so, and a face the same person's where dlib is installed.

        The largest amount is tried first, and where that breaks the picture, half of it, and then
        half of what is left: the pictures of all sliders that are still in question are drawn
        together. What is whole at an amount is taken to be whole at smaller ones. Nothing is drawn
        that no one would look at.
        """
        discriminator = self.discriminator
        domain = self.domain
        if discriminator is None or domain is None or not bool(latent.ws.isfinite().all()):
            return Look()

        scene = _Scene.of(self.generator, latent)
        unmoved = scene.draw([scene.latent.ws], [scene.latent.styles])
        away = domain.distances(discriminator, unmoved)[0]
        face = sees_face(to_pil(unmoved)) if self.faces else None
        if not away <= WHOLE or face is False:
            # Moved, it would be no better.
            return Look(away, face, dict.fromkeys(self._movable(), (0.0, 0.0)))

        quick = self.quick or domain

        def whole(moves: Sequence[Move]) -> list[bool]:
            found: list[bool] = []
            count = max(self.together // self.generator.resolution**2, 1)
            for start in range(0, len(moves), count):
                self.pause()
                pictures = self._moved(scene, moves[start : start + count])
                distances = quick.distances(discriminator, pictures)
                found += [
                    d <= WHOLE and seen(picture)
                    for d, picture in zip(distances, pictures, strict=True)
                ]

            return found

        before = describe(to_pil(unmoved)) if face and has_landmarks() else None

        def seen(picture: Tensor) -> bool:
            # OpenCV's cascades take longer than the drawing, and know nobody: without dlib the
            # discriminator decides alone.
            if before is None:
                return True
            self.pause()
            after = describe(to_pil(picture[None]))
            return after is not None and float(np.linalg.norm(after - before)) <= SAME

        ends = [(name, sign) for name in self._movable() for sign in (-1.0, 1.0)]
        reached = _farthest(ends, whole)
        return Look(
            away,
            face,
            {name: (-reached[name, -1.0], reached[name, 1.0]) for name in self._movable()},
        )

    def _movable(self) -> list[str]:
        return [
            name for name, slider in (self.sliders or {}).items() if space_of(slider.space) is not Z
        ]

    def _moved(self, scene: "_Scene", moves: Sequence[Move]) -> Tensor:
        """Return the pictures of the scene's latent after each of ``moves``, ``[N, C, H, W]``."""
        assert self.sliders is not None
        rows = []
        styles = []
        latent = scene.latent
        for name, amount in moves:
            slider = self.sliders[name]
            ws, offsets = space_of(slider.space).move(
                self.generator, latent.ws, latent.styles, slider, amount
            )
            rows.append(ws)
            styles.append(offsets)

        return scene.draw(rows, styles)


@dataclass(frozen=True)
class _Scene:
    """A latent, and what it is drawn with."""

    generator: Generator
    """Tuned where the latent is."""
    latent: Latent
    """On the generator's device."""
    noise: Noise

    @classmethod
    def of(cls, generator: Generator, latent: Latent) -> "_Scene":
        device = generator.device
        noise: Noise = (
            "const" if latent.noise is None else [map_.to(device) for map_ in latent.noise]
        )
        ws = latent.rows(generator.num_ws).to(device)
        styles = [offset.to(device) for offset in latent.styles]
        if latent.tuned:
            generator = with_deltas(
                generator, expand_deltas(latent.tuned, dict(generator.synthesis.named_parameters()))
            )
        return cls(generator, replace(latent, ws=ws, styles=styles), noise)

    def draw(self, rows: Sequence[Tensor], styles: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return the pictures ``[N, C, H, W]`` of as many w and style offsets, which may be
        empty."""
        ws = torch.cat(list(rows))
        if not any(styles):
            return render(self.generator, ws, self.noise)

        none = [torch.zeros(1, size) for _, size in self.generator.synthesis.style_layers]
        columns = zip(*(offsets or none for offsets in styles), strict=True)
        return render(
            self.generator,
            ws,
            self.noise,
            [torch.cat([part.to(ws) for part in column]) for column in columns],
        )


def _farthest(
    ends: Sequence[tuple[str, float]], whole: Callable[[Sequence[Move]], list[bool]]
) -> dict[tuple[str, float], float]:
    """Return the largest of `AMOUNTS` at every end (a slider and a sign) that ``whole`` says yes
    to; 0 where there is none."""
    below = dict.fromkeys(ends, -1)
    above = dict.fromkeys(ends, len(AMOUNTS))
    tried = dict.fromkeys(ends, len(AMOUNTS) - 1)
    while tried:
        answers = whole([(name, sign * AMOUNTS[index]) for (name, sign), index in tried.items()])
        for (end, index), yes in zip(tried.items(), answers, strict=True):
            bound = below if yes else above
            bound[end] = index
        tried = {end: (below[end] + above[end]) // 2 for end in ends if above[end] - below[end] > 1}

    return {end: AMOUNTS[index] if index >= 0 else 0.0 for end, index in below.items()}
