"""Dragging a face by its landmarks and the sliders of its model.

The features of a small network do not tell where a lip or a nose has gone: whatever followed them
ended two pixels beside lips that had moved by two (docs/drag.md). dlib's landmarks do, and the
sliders of a model are ways in which its faces move. So here each handle moves with the landmarks
around it, and the amounts of the sliders are found that bring the handles to their targets: a
regularised least-squares problem, whose derivatives are measured by moving every slider to either
side (Gauss-Newton, with a prior that amounts are standard normal).
"""

from collections import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentedit.directions.direction import Direction, read_direction
from latentedit.directions.registry import own_directions, shipped
from latentedit.io.images import to_pil
from latentedit.latent.dragging import WITHIN, DragOptions, DragStep, Handle, check_handles
from latentedit.latent.editing import edit
from latentedit.latent.latent_file import Latent
from latentedit.latent.spaces import space_of
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from latentedit.photo.landmarks import find_landmarks, has_landmarks

Array = NDArray[np.float64]
Finder = Callable[[Tensor], Array | None]
"""From an image ``[1, C, H, W]`` to its landmarks ``[68, 2]`` in pixels (0, 0 is the centre of the
first one); None without a face."""

MEASURED = 1.2
"""Sigmas that a slider is moved to either side to measure what it moves."""
PRIORS = (3.0, 1.0)
"""Weights of squared amounts against squared pixels, tried one after another until the handles
have arrived: the smallest change that brings them there."""
ROUNDS = 2
"""Gauss-Newton steps for every weight."""
FARTHEST = 2.5
"""Sigmas that a slider is moved at most."""
NEAREST = 3
"""Landmarks that a handle moves with."""
REACH = 0.08
"""Distance from its nearest landmark at which a handle still belongs to the face, as a share of
the image's side."""
CLOSE = 0.3
"""Share of its way that a handle may be away from its target in the end, but for a pixel: within 2
pixels of a target 4 pixels away it would only be half there."""
MOST = 24
"""Directions that are used at most; every one takes two images."""


@dataclass(frozen=True)
class Guide:
    """What a drag of a face follows, and how it may move."""

    finder: Finder
    moves: Tensor
    """``[K, num_ws, w_dim]``: what a sigma of every slider adds to w."""
    names: tuple[str, ...] = ()
    """Those of the sliders, by which a latent knows how far each is safe."""

    @property
    def steps(self) -> int:
        """Steps of a drag at most."""
        return len(self.moves) + ROUNDS * len(PRIORS)


def landmarks_of(image: Tensor) -> Array | None:
    """Return the landmarks of the largest face in ``image [1, C, H, W]``; None without one."""
    found = find_landmarks(to_pil(image).convert("RGB"), looks=1)
    return found[0] - 0.5 if found else None


def guide_for(generator: Generator) -> Guide | None:
    """Return the guide of the known sliders of ``generator``; None without the extra for
    landmarks, or without sliders that move w."""
    if not has_landmarks():
        return None
    own = fingerprint(generator)
    files = {**own_directions(own), **shipped(own)}
    directions = [read_direction(path) for path in files.values()]
    chosen = [one for one in directions if space_of(one.space).linear][:MOST]
    if not chosen:
        return None
    moves = torch.stack([_move(direction, generator) for direction in chosen])
    return Guide(landmarks_of, moves, tuple(direction.name for direction in chosen))


def _move(direction: Direction, generator: Generator) -> Tensor:
    ws = torch.zeros(1, generator.num_ws, generator.w_dim)
    return edit(ws, direction, 1.0)[0] - ws[0]


def face_drag(
    generator: Generator,
    latent: Latent,
    handles: Sequence[Handle],
    guide: Guide,
    steps: int = DragOptions().steps,
) -> "abc.Generator[DragStep, None, None] | None":
    """Return the steps of a drag by landmarks, as `latentedit.latent.dragging.drag_steps` gives
    them; None where the image shows no face, a handle is not on it, or it takes more than
    ``steps``.

    Raises:
        Error: handles outside the image, or a latent of another generator.
    """
    check_handles(handles, generator.image_size)
    latent.check_shapes(generator)
    if steps < guide.steps:
        return None
    face = guide.finder(latent.render(generator))
    if face is None or not on_face(face, handles, REACH * generator.resolution):
        return None
    return _Drag(generator, latent, handles, guide, face).steps()


def on_face(face: Array, handles: Sequence[Handle], reach: float) -> bool:
    """Return whether every handle begins within ``reach`` pixels of a landmark."""
    starts = np.array([handle.start for handle in handles])
    apart = np.linalg.norm(starts[:, None] - face[None], axis=2)
    return bool((apart.min(axis=1) <= reach).all())


class _Drag:
    """The problem: amounts of sliders, and where they bring the handles."""

    def __init__(
        self,
        generator: Generator,
        latent: Latent,
        handles: Sequence[Handle],
        guide: Guide,
        face: Array,
    ) -> None:
        self.generator = generator
        self.latent = latent
        self.guide = guide
        self.face = face
        self.ws = latent.rows(generator.num_ws).cpu()
        self.starts = np.array([handle.start for handle in handles])  # [P, 2]
        self.targets = np.array([handle.target for handle in handles])
        self.weights = _weights(face, self.starts)  # [P, 68]
        way = float(np.linalg.norm(self.targets - self.starts, axis=1).max())
        self.close = min(max(1.0, CLOSE * way), WITHIN)
        self.done = 0
        # Beyond what is safe, the face breaks, or becomes another person's.
        safe = latent.safe or {}
        if not any(end for ends in safe.values() for end in ends):
            # Of an image that is not the model's own, no slider is safe; it may be dragged still.
            safe = {}
        names = guide.names or ("",) * len(guide.moves)
        limits = np.array([safe.get(name, (-FARTHEST, FARTHEST)) for name in names])
        self.lowest, self.highest = limits.clip(-FARTHEST, FARTHEST).T

    def moved(self, amounts: Array) -> Tensor:
        """``[1, num_ws, w_dim]``."""
        change = torch.einsum("k,kij->ij", torch.from_numpy(amounts).float(), self.guide.moves)
        return self.ws + change

    def seen(self, amounts: Array) -> Array | None:
        """Return where the handles are then, ``[P, 2]``; None without a face."""
        image = replace(self.latent, ws=self.moved(amounts)).render(self.generator)
        face = self.guide.finder(image)
        return None if face is None else self.starts + self.weights @ (face - self.face)

    def state(self, amounts: Array, points: Array) -> DragStep:
        apart = np.linalg.norm(self.targets - points, axis=1)
        return DragStep(
            self.done,
            self.guide.steps,
            self.moved(amounts),
            tuple((float(x), float(y)) for x, y in points),
            tuple(float(value) for value in apart),
        )

    def steps(self) -> "abc.Generator[DragStep, None, None]":
        count = len(self.guide.moves)
        amounts = np.zeros(count)
        start = points = self.starts
        yield self.state(amounts, points)

        columns = []
        for number in range(count):
            columns.append(self._derivative(number))
            self.done += 1
            yield self.state(amounts, start)

        derivative = np.stack(columns, axis=1)  # [2 P, K]
        normal = derivative.T @ derivative
        for weight in PRIORS:
            for _ in range(ROUNDS):
                left = (self.targets - points).ravel()
                matrix = normal + weight * np.eye(count)
                step = np.linalg.solve(matrix, derivative.T @ left - weight * amounts)
                tried = (amounts + step).clip(self.lowest, self.highest)
                seen = self.seen(tried)
                self.done += 1
                if seen is None:  # it has left what the network knows
                    return
                amounts = tried
                points = seen
                state = self.state(amounts, points)
                yield state
                if state.farthest <= self.close:
                    return

    def _derivative(self, number: int) -> Array:
        """Return the motion of the handles for a sigma of a slider, ``[2 P]``."""
        ends = []
        for side in (-MEASURED, MEASURED):
            amounts = np.zeros(len(self.guide.moves))
            amounts[number] = side
            seen = self.seen(amounts)
            if seen is not None:
                ends.append((side, seen))
        if len(ends) < 2:
            ends.append((0.0, self.starts))
        (one, first), (other, second) = ends[0], ends[-1]
        if one == other:
            return np.zeros(2 * len(self.starts))
        motion: Array = (second - first).ravel() / (other - one)
        return motion


def _weights(face: Array, starts: Array) -> Array:
    """Return what every landmark counts for every handle, ``[P, 68]``: its nearest ones, by their
    nearness."""
    apart = np.linalg.norm(starts[:, None] - face[None], axis=2)
    weights = np.zeros_like(apart)
    for row, distances in zip(weights, apart, strict=True):
        nearest = distances.argsort(kind="stable")[:NEAREST]
        row[nearest] = 1 / (distances[nearest] + 1)
    total: Array = weights / weights.sum(axis=1, keepdims=True)
    return total


def goes_by_landmarks(options: DragOptions, mask: Tensor | None) -> bool:
    """Return whether a drag with these options can go by landmarks: whoever chooses layers, a mask
    or radii asks for the search by features."""
    plain = DragOptions(steps=options.steps)
    return mask is None and options == plain
