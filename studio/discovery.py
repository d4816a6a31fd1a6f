"""New sliders: from generated faces that are labelled by hand, or from what varies most, without
labels."""

import os
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from latentedit.directions.chance import doubts_about
from latentedit.directions.direction import NAME, Direction, renamed
from latentedit.directions.labelling.desk import Desk
from latentedit.directions.labelling.samples import LABELS, write_samples
from latentedit.directions.labelling.session import Labelling, labelled_alone
from latentedit.directions.labels import read_labels
from latentedit.directions.pca import principal_components
from latentedit.directions.places import places
from latentedit.directions.probe import fit
from latentedit.directions.report import with_report
from latentedit.directions.sefa import factorised
from latentedit.errors import ArgumentError, DataError, NotFoundError
from latentedit.formats.load_latent import load_latent
from latentedit.studio.keeping import free_file
from latentedit.studio.making import Report
from latentedit.studio.session import Session
from latentedit.studio.sliders import Slider, slider_of

FACES = 120
"""Faces that are generated to be labelled; far fewer answers suffice for many attributes."""
LEAST = 2
"""Answers of each kind that a fit needs."""
COMPONENTS = 10
PCA_SAMPLES = 20_000
UNNAMED = "unnamed"


class Discovery:
    """What one session finds; its files are in the session's chosen folder.

    Labels are in ``labels/NAME/labels.csv``, sliders in ``directions/NAME.safetensors``.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.desk: Desk | None = None
        self.name = ""
        self.found: Slider | None = None
        """The slider that was fitted last."""
        self._held = ExitStack()
        self._lock = threading.Lock()

    def folder(self, name: str) -> Path:
        """Return the folder of an attribute's faces and labels; raise `Error` for a name that no
        slider can have."""
        if not NAME.fullmatch(name) or name in ("file", "picture"):
            raise ArgumentError(
                "a name has letters, digits, - and _, for example earrings or long-hair"
            )
        return self.session.keeper.folder / "labels" / name

    def begin(
        self, name: str, *, count: int = FACES, psi: float = 0.8, report: Report | None = None
    ) -> Desk:
        """Generate the faces for an attribute, or find those of before, and open the labelling.

        Raises:
            Error: a name that no slider can have, or another process labels them.
        """
        folder = self.folder(name)
        table = folder / LABELS
        model = self.session.model

        if not table.is_file():
            write_samples(
                model.generator,
                self.session.fingerprint,
                folder,
                count,
                psi=psi,
                seed=1000,
                attributes=[name],
                progress=report,
            )

        self.leave()
        with ExitStack() as stack:
            stack.enter_context(labelled_alone(table))
            desk = Desk(Labelling(table, name))
            self._held = stack.pop_all()

        self.desk = desk
        self.name = name
        return desk

    def leave(self) -> None:
        """End the labelling; every answer is in the table already."""
        desk = self.desk
        self.desk = None
        if desk is not None:
            desk.settled()
        self._held.close()
        self._held = ExitStack()

    def begun(self) -> list[str]:
        """Return the attributes that have faces and labels in this session's folder."""
        found = []
        for table in sorted((self.session.keeper.folder / "labels").glob(f"*/{LABELS}")):
            if NAME.fullmatch(table.parent.name):
                found.append(table.parent.name)
        return found

    def fit(self) -> Slider:
        """Fit a direction to the answers so far, with its report, save it, and add its slider.

        Raises:
            Error: no labelling is open, or too few answers of either kind.
        """
        desk = self.desk
        name = self.name
        session = self.session
        if desk is None:
            raise ArgumentError("label some faces first")

        state = desk.state()
        if min(state["yes"], state["no"]) < LEAST:
            raise DataError(
                f"a slider needs at least {LEAST} faces of each kind; there are {state['yes']} "
                f"yes and {state['no']} no"
            )

        generator = session.model.generator
        labels = read_labels(self.folder(name) / LABELS, name)
        latents = [load_latent(path) for path in labels.paths]
        for latent in latents:
            latent.check_generator(session.fingerprint, session.model_name)
        rows = torch.cat([latent.rows(generator.num_ws) for latent in latents])
        provenance: dict[str, Any] = {"labels": LABELS, "column": name}
        direction = fit(
            rows, labels.values, generator=generator, name=name, examine=True, provenance=provenance
        )
        others = [
            slider.direction for slider in session.sliders.values() if slider.group != "Unnamed"
        ]
        direction = with_report(direction, generator, others=others)
        self.found = self.keep(direction)
        return self.found

    def remarks(self, direction: Direction) -> list[str]:
        """Return what an honest report has to warn of; an empty list if nothing is."""
        found = [f"{text[:1].upper()}{text[1:]}." for text in doubts_about(direction.report)]
        where = places(self.session.model.generator, direction, self.session.model.framing)
        if where is not None and where.mainly_behind:
            found.append(
                "It moves mainly the background: the answers may go along with something behind "
                "the faces."
            )
        return found

    def keep(self, direction: Direction) -> Slider:
        """Save a direction into the session's folder, and add its slider; one of its name there is
        replaced by a new file."""
        folder = self.session.keeper.folder / "directions"
        known = self.session.sliders
        if direction.name in known and known[direction.name].group not in ("Yours", "Unnamed"):
            raise ArgumentError(f"a bundled slider is called {direction.name}; choose another name")

        place = free_file(folder, direction.name, ".safetensors")
        name = place.stem
        if name != direction.name:
            direction = replace(direction, name=name)
        direction.save(place)
        slider = slider_of(direction, file=place, group="Yours", by_name=False)
        self.session.add_slider(slider)
        return slider

    def components(self, kind: str, report: Report | None = None) -> list[Slider]:
        """Add the components of "pca" or "sefa" as unnamed sliders.

        Raises:
            Error: another kind.
        """
        generator = self.session.model.generator
        if kind == "pca":
            found = principal_components(
                generator, COMPONENTS, samples=PCA_SAMPLES, progress=report
            )
        elif kind == "sefa":
            found = factorised(generator, COMPONENTS)
        else:
            raise ArgumentError(f"components are of pca or sefa, got {kind!r}")

        folder = self.session.keeper.hidden / UNNAMED
        sliders = []
        for direction in found:
            place = folder / f"{direction.name}.safetensors"
            if not place.is_file():
                direction.save(place)
            sliders.append(slider_of(direction, file=place, group="Unnamed", by_name=False))

        for slider in sliders:
            self.session.add_slider(slider, quiet=True)
        self.session.tell("sliders")
        return sliders

    def name_component(self, old: str, new: str) -> Slider:
        """Save an unnamed slider under a name; where it is moved, the new one is.

        Raises:
            Error: no such slider, or a name that no slider can have.
        """
        self.folder(new)
        session = self.session
        slider = session.sliders.get(old)
        if slider is None or slider.group != "Unnamed":
            raise NotFoundError(f"there is no unnamed slider {old!r}")
        named = self.keep(renamed(slider.direction, new))
        session.rename_moves(old, named.name)
        return named

    def drop_components(self) -> None:
        """Remove the unnamed sliders that no step of the session needs."""
        session = self.session
        needed = {
            name for state in session.history.states for name in (*state.settings, *state.locks)
        }
        for name, slider in list(session.sliders.items()):
            if slider.group == "Unnamed" and name not in needed:
                session.remove_slider(name)
                if (
                    slider.file is not None
                    and slider.file.parent == session.keeper.hidden / UNNAMED
                ):
                    os.unlink(slider.file)
