"""A session of the studio: the face, its sliders, what can be undone, and what is drawn. It knows
nothing of pages."""

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from latentedit.errors import ArgumentError, Error, IncompatibleError, NotFoundError
from latentedit.formats.load_latent import ENDINGS, load_latent
from latentedit.inversion.verdict import Look, judge
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.latent.layers import parse_layers
from latentedit.latent.w_statistics import random_labels, sample_z
from latentedit.model.model import Model
from latentedit.networks.fingerprint import fingerprint
from latentedit.studio.history import History, State
from latentedit.studio.intake import Intake, short_name
from latentedit.studio.keeping import Keeper, Kept
from latentedit.studio.limits import SliderLimits
from latentedit.studio.open_face import OpenFace
from latentedit.studio.painter import Newest, Painter, as_jpeg, scores, with_sliders
from latentedit.studio.sliders import Slider, in_order, sliders_of, with_ranges

QUIET = 2.0
"""Seconds without a slider's move until somebody looks, or looks on, how far sliders go."""
FARTHEST = 1000.0
"""Sigmas beyond which a slider's amount is a typing error, as on the command line."""


@dataclass(frozen=True)
class Picture:
    """What was drawn for one position of the sliders."""

    number: int
    """Counts up; a page shows no picture older than the one it has."""
    data: bytes
    state: State
    seconds: float


@dataclass(frozen=True)
class Marks:
    """How far every slider's own score has moved from the face without edits, in sigmas, at one
    position of the sliders."""

    state: State
    moved: Mapping[str, float] = field(default_factory=dict)


class Session:
    """What one person does with one model; safe to call from several threads.

    Args:
        model_name: as ``--model`` takes it.
        keeper: where the session is kept, and the folder that files are saved in.
        live: draw in a thread of its own; False draws at once, for tests.
    """

    def __init__(self, model: Model, model_name: str, keeper: Keeper, *, live: bool = True) -> None:
        self.model = model
        self.model_name = model_name
        self.keeper = keeper
        self.fingerprint = fingerprint(model.generator)
        self.painter = Painter(model.generator)
        self.faces: dict[str, OpenFace] = {}
        self.history = History()
        self.live = self.history.state
        self.picture: Picture | None = None
        self.marks = Marks(self.live)
        self.dragging = False
        """Whether a drag runs (`latentedit.studio.dragging`)."""
        self.trouble = ""
        """What went wrong last, in a sentence."""
        self._own = self._read_sliders()
        self.limits = SliderLimits(model, self.fingerprint, self._wait_for_quiet)
        self.intake = Intake(model, keeper, self.limits.domain, self.show, self.tell)
        self._listeners: list[Callable[[str], None]] = []
        self._lock = threading.RLock()
        self._number = 0
        self._touched = time.monotonic()
        self._drawer = Newest(self._draw) if live else None
        self._writer = Newest(self._write_now, "keeper") if live else None
        self._closed = False

    # -- Who is told

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call ``listener`` with the name of what changes, from any thread; returns a function that
        ends this.

        Names: "picture", "marks", "state", "faces", "photo", "search", "sliders", "look", "drag",
        "trouble".
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def tell(self, what: str) -> None:
        """Call the listeners."""
        for listener in list(self._listeners):
            listener(what)

    def fail(self, error: BaseException) -> None:
        """Note what went wrong, and tell."""
        self.trouble = (
            str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
        )
        self.tell("trouble")

    def close(self) -> None:
        """End the threads; a search keeps nothing."""
        self._closed = True
        self.intake.end()
        if self._drawer is not None:
            self._drawer.close()
        if self._writer is not None:
            self._writer.wait()
            self._writer.close()

    @property
    def closed(self) -> bool:
        """Whether the session has ended, so that nothing is opened any more."""
        return self._closed

    # -- The face

    @property
    def face(self) -> OpenFace | None:
        return self.faces.get(self.live.face)

    @property
    def sliders(self) -> dict[str, Slider]:
        """The sliders, with the ranges of the open face."""
        face = self.face
        return (
            with_ranges(self._own, face.latent, face.seen) if face is not None else dict(self._own)
        )

    @property
    def state(self) -> State:
        return self.live

    def _read_sliders(self) -> dict[str, Slider]:
        named = self.keeper.folder / "directions"
        unnamed = self.keeper.hidden / "unnamed"
        return sliders_of(self.fingerprint, (named, "Yours"), (unnamed, "Unnamed"))

    def add_slider(self, slider: Slider, *, quiet: bool = False) -> None:
        """Add a slider, or replace that of its name, and find out how far it goes on the open face.

        Args:
            quiet: tell nobody, as more follow.
        """
        with self._lock:
            self._own = in_order({**self._own, slider.name: slider})
            for face in self.faces.values():
                face.scores = scores(self.model.generator, face.latent, self._own)
                face.looked = face.looked and quiet
        if not quiet:
            self.tell("sliders")
            self.tell("look")

    def remove_slider(self, name: str) -> None:
        """Remove a slider; no step of the session may need it."""
        with self._lock:
            self._own = {key: slider for key, slider in self._own.items() if key != name}
        self.tell("sliders")

    def rename_moves(self, old: str, new: str) -> None:
        """Move slider ``new`` where ``old`` was moved, as a step that can be undone."""
        state = self.live
        if old in state.settings:
            setting = state.settings[old]
            self._push(
                state.layered(old, None)
                .moved(old, 0.0)
                .moved(new, setting.amount)
                .layered(new, setting.layers)
            )
            self.draw()

    def open_latent(self, path: str | os.PathLike[str]) -> OpenFace:
        """Open a latent file of this model.

        Raises:
            Error: another kind of file, or a latent of another generator.
        """
        latent = load_latent(path)
        self.check(latent)
        latent.ws = latent.rows(self.model.generator.num_ws)
        return self.show(latent, Path(path).stem, f"from {Path(path).name}", file=Path(path))

    def upload(self, data: bytes, name: str) -> OpenFace | None:
        """Open a photo or a latent file that the browser sent.

        Returns:
            The face of a latent file; None for a photo, whose crop is to be chosen.

        Raises:
            Error: too many bytes or pixels, neither a photo nor a latent of this model, or a search
                runs.
        """
        if self.intake.search is not None:
            raise ArgumentError("a search runs; stop it first")
        stem, ending = os.path.splitext(os.path.basename(name.replace("\\", "/")))
        if ending.lower() not in ENDINGS:
            self.intake.upload(data, name)
            return None

        place = self.keeper.add_upload(data, ending.lower())
        try:
            latent = load_latent(place)
            self.check(latent)
        except Error as error:
            raise type(error)(f"{short_name(name)}: {error.reason}") from error
        finally:
            with suppress(OSError):  # where a file that is mapped cannot be removed, it goes later
                place.unlink()
        latent.ws = latent.rows(self.model.generator.num_ws)
        if self.intake.photo is not None:
            self.intake.leave()
        return self.show(latent, stem or "latent", f"from {name}")

    def check(self, latent: Latent) -> None:
        """Raise `Error` unless ``latent`` belongs to this model."""
        latent.check_generator(self.fingerprint, self.model_name)
        latent.check_shapes(self.model.generator)

    def random_latent(self, seed: int, psi: float) -> Latent:
        """Return the latent of a random face, that of
        ``latentedit sample --seeds SEED --psi PSI``."""
        generator = self.model.generator
        labels = random_labels(generator, seed, 1)
        with torch.no_grad():
            ws = generator.mapping(
                sample_z(seed, generator.z_dim).to(generator.device), labels, psi
            ).cpu()
        return Latent(ws, None, self.fingerprint, "w", None, {"seed": seed, "psi": psi})

    def show(
        self,
        latent: Latent,
        name: str,
        origin: str,
        *,
        file: Path | None = None,
        photo: Path | None = None,
        keep: bool = False,
    ) -> OpenFace:
        """Open ``latent`` as the face, keep it, and draw it.

        Args:
            keep: leave the sliders where they are, as after a refined search.
        """
        with self._lock:
            self.keeper.prepare()
            if not self.faces:  # the session of before is not gone on with
                self.keeper.begin(photo)
            key = self.keeper.add(latent)
            face = self._known(OpenFace(key, latent, name, origin, file, photo))
            self.faces[key] = face
            state = replace(self.live, face=key) if keep else State(key)
            self._push(state)
        self.tell("faces")
        self.draw()
        return face

    def _known(self, face: OpenFace) -> OpenFace:
        """Add a face's own picture and scores."""
        face.before = as_jpeg(self.painter.paint(face.latent))
        face.scores = scores(self.model.generator, face.latent, self._own)
        return face

    # -- Sliders

    def slide(self, name: str, amount: float) -> None:
        """Move a slider while it is dragged; `settle` makes it a step that can be undone."""
        self._slider(name)
        if not math.isfinite(amount) or abs(amount) > FARTHEST:
            raise ArgumentError(
                f"an amount lies between -{FARTHEST:g} and {FARTHEST:g} sigmas, got {amount}"
            )
        with self._lock:
            if name in self.live.locks:
                raise ArgumentError(f"{name} is locked")
            self.live = self.live.moved(name, round(amount, 4))
            self._touched = time.monotonic()
        self.draw()

    def settle(self) -> None:
        """Make where the sliders stand a step that can be undone, and write it."""
        self._push(self.live)

    def set_layers(self, name: str, layers: str | None) -> None:
        """Limit a slider to ``layers``; None for its own.

        Raises:
            Error: not a range of this network's layers.
        """
        self._slider(name)
        if layers:
            parse_layers(layers, self.model.generator.num_ws)
        self._push(self.live.layered(name, layers or None))
        self.draw()

    def lock(self, name: str, on: bool) -> None:
        """Hold the score of a slider, or no longer.

        Raises:
            Error: a direction in style space, whose score cannot be held.
        """
        if on and not self._slider(name).holdable:
            raise IncompatibleError(
                f"{name} is a direction in style space, whose score cannot be held"
            )
        self._push(self.live.locked(name, on))
        self.draw()

    def reset(self, name: str | None = None) -> None:
        """Set one slider to 0, or all of them, locks included."""
        if name is None:
            self._push(self.live.at_rest())
        else:
            self._push(self.live.layered(name, None).moved(name, 0.0))
        self.draw()

    def undo(self) -> None:
        """Go one step back."""
        with self._lock:
            self.live = self.history.undo()
        self._written()

    def redo(self) -> None:
        """Go one step forward."""
        with self._lock:
            self.live = self.history.redo()
        self._written()

    def _written(self) -> None:
        self._write()
        self.tell("faces")
        self.tell("state")
        self.draw()

    def _slider(self, name: str) -> Slider:
        if name not in self._own:
            raise NotFoundError(f"there is no slider {name!r} for this model")
        return self._own[name]

    def _push(self, state: State) -> None:
        with self._lock:
            self.live = state
            changed = self.history.push(state)
        if changed:
            self._write()
        self.tell("state")

    def _write(self) -> None:
        """Have the session written: in a thread, as a disk may take its time, and at once where
        there is none."""
        if self._writer is None:
            self._write_now(None)
        else:
            self._writer.put(None)

    def _write_now(self, _: None) -> None:
        with self._lock:
            history = History()
            history.states = list(self.history.states)
            history.place = self.history.place
            needed = history.faces()
            facts = {key: face.facts() for key, face in self.faces.items() if key in needed}
        try:
            self.keeper.write(self.fingerprint, history, facts)
        except Error as error:
            self.fail(error)

    def restore(self, kept: Kept) -> None:
        """Go on with a session that was left.

        Raises:
            Error: one of another model, or its latents are gone.
        """
        if kept.fingerprint != self.fingerprint:
            raise IncompatibleError("that session belongs to another model")
        faces = {}
        for key in sorted(kept.history.faces()):
            facts = kept.faces.get(key, {})
            latent = self.keeper.latent(key)
            latent.check_shapes(self.model.generator)
            photo, file = (
                Path(facts[name]) if facts.get(name) else None for name in ("photo", "file")
            )
            face = OpenFace(
                key,
                latent,
                str(facts.get("name") or "face"),
                str(facts.get("origin") or ""),
                file,
                photo,
            )
            faces[key] = self._known(face)
        with self._lock:
            self.keeper.take(kept)
            self.faces = faces
            self.history = kept.history
            self.live = self.history.state
        self.tell("faces")
        self.tell("state")
        self.draw()

    def verdict(self) -> tuple[str, str] | None:
        """Return the level and the words of the verdict on the open face; None for a face of no
        photo."""
        face = self.face
        if face is None or "psnr" not in face.latent.distances:
            return None
        distances = face.latent.distances
        found = judge(distances, Look(distances.get("domain"), None, face.latent.safe or {}))
        return found.level, str(found)

    # -- Drawing

    def draw(self) -> None:
        """Ask for the picture of where the sliders stand."""
        state = self.live
        if not state.face:
            return
        if self._drawer is None:
            self._draw(state)
        else:
            self._drawer.put(state)

    @property
    def dropped(self) -> int:
        """How many positions were overtaken by newer ones before they were drawn."""
        return self._drawer.dropped if self._drawer is not None else 0

    def edited(self, state: State | None = None) -> Latent:
        """Return the latent with the sliders where they stand.

        Raises:
            Error: no face is open.
        """
        state = state or self.live
        face = self.faces.get(state.face)
        if face is None:
            raise ArgumentError("open a photo or a face first")
        return with_sliders(self.model.generator, face.latent, state, self._own)

    def render(self, latent: Latent) -> Tensor:
        """Draw one latent, ``[1, C, H, W]`` in [-1, 1]."""
        return self.painter.paint(latent)

    def _draw(self, state: State) -> None:
        began = time.monotonic()
        try:
            face = self.faces[state.face]
            latent = self.edited(state)
            data = as_jpeg(self.painter.paint(latent)) if latent is not face.latent else face.before
            self._number += 1
            self.picture = Picture(self._number, data, state, time.monotonic() - began)
            self.tell("picture")
            # The picture is on its way to the page before anything else is computed.
            now = scores(self.model.generator, latent, self._own)
            self.marks = Marks(
                state, {name: value - face.scores.get(name, value) for name, value in now.items()}
            )
            self.tell("marks")
        # the page has to be able to say it, and the next position may be fine
        except Exception as error:
            self.fail(error)

    # -- Dragging

    def begin_drag(self) -> None:
        """Note that a drag runs.

        Raises:
            Error: another one runs, or a search does.
        """
        with self._lock:
            if self.dragging or self.intake.search is not None:
                raise ArgumentError("a search or a drag runs already; stop it first")
            self.dragging = True
        self.tell("state")
        self.tell("drag")

    def end_drag(self) -> None:
        """Note that the drag has ended."""
        self.dragging = False
        self.tell("state")
        self.tell("drag")

    def look(self) -> None:
        """Find out how far every slider leaves the open face whole, and keep it in the latent;
        takes seconds."""
        face = self.face
        if face is None or face.looked or face.looking:
            return
        face.looking = True
        self._wait_for_quiet()
        try:
            if self.limits.measure(face, self._own) and not self._closed:
                save_latent(self.keeper.latent_file(face.key), face.latent)
        except Exception as error:
            self.fail(error)
        finally:
            face.looked = True
            face.looking = False
            self.tell("sliders")

    def _wait_for_quiet(self) -> None:
        """Return when no slider has been moved for `QUIET` seconds: looking takes the processor
        that a slider under the finger needs."""
        while (
            self._drawer is not None
            and not self._closed
            and time.monotonic() - self._touched < QUIET
        ):
            time.sleep(QUIET / 10)
