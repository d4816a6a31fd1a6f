"""Back into the photo, with a preview of the edge."""

from pathlib import Path
from typing import Any

from PIL import Image

from latentedit.errors import Error
from latentedit.studio.making import Pasting
from latentedit.studio.painter import as_jpeg
from latentedit.studio.photos import SHOWN
from latentedit.studio.saving import suggested_name
from latentedit.studio.web.tags import Tag, button, command_box, hint, icon, range_field
from latentedit.studio.web.view import View, data_url


class PastePart:
    """The edited face in its photo."""

    def __init__(self, view: View, stage: Tag, panel: Tag) -> None:
        self.view = view
        self.feather = 0.15
        self.difference = True
        self.pasting: Pasting | None = None
        self._wanted = 0

        with stage:
            self.stage = Tag("div", "part")
            with self.stage:
                self.empty = Tag("div", "empty")
                with self.empty:
                    icon("paste")
                    self.why = Tag("p", text="")
                self.image = Tag("img", "big", alt="The photo with the edited face", hidden=True)

        with panel:
            self.panel = Tag("section", "part", aria_label="Paste back")
            with self.panel:
                Tag("h2", text="Back into the photo")
                hint(
                    "The edited face replaces the one in the photo. Pixels outside the crop do "
                    "not change."
                )
                self.rest = Tag("div", "rest")
                with self.rest:
                    edge = range_field(
                        "Feathered edge: 15 % of the side", self._feather, 0, 0.5, 0.15
                    )
                    self.feather_text = edge.title
                    with Tag("label", "choice"):
                        check = Tag("input", type="checkbox", checked=True)
                        check.on(
                            "change",
                            lambda e: self._difference(e.args),
                            js_handler="(e) => emit(e.target.checked)",
                        )
                        Tag("b", text="Add only the change")
                        Tag(
                            "span",
                            text="The photo keeps its own sharpness: only what the sliders moved "
                            "is added.",
                        )

                    with Tag("div", "row"):
                        self.save = button(
                            "Save the photo", self._save, kind="primary", sign="save"
                        )
                    self.command = command_box("paste-command", 5)

    def show(self, on: bool) -> None:
        self.stage.show(on)
        self.panel.show(on)
        if on:
            self._open()

    def refresh(self, what: str) -> None:
        if what in ("faces", "picture") and not self.panel._props.get("hidden"):
            self._open()

    def _open(self) -> None:
        session = self.view.session

        def opened() -> Pasting | str:
            if self.pasting is not None and self.pasting.face is session.face:
                return self.pasting
            try:
                return Pasting(session)
            except Error as error:
                return str(error)

        self.view.start(opened, self._opened)

    def _opened(self, found: Pasting | str) -> None:
        self.pasting = None if isinstance(found, str) else found
        there = self.pasting is not None
        self.empty.show(not there)
        self.image.show(there)
        self.rest.show(there)
        if isinstance(found, str):
            self.why.say(f"{found[:1].upper()}{found[1:]}.")
            self.command.set(value="")
        else:
            self._draw()

    def _feather(self, share: Any) -> None:
        if isinstance(share, int | float) and 0 <= share <= 0.5:
            self.feather = float(share)
            self.feather_text.say(f"Feathered edge: {100 * share:.0f} % of the side")
            self._draw()

    def _difference(self, on: Any) -> None:
        self.difference = bool(on)
        self._draw()

    def _draw(self) -> None:
        pasting = self.pasting
        if pasting is None:
            return
        self._wanted += 1
        wanted = self._wanted
        feather = self.feather
        difference = self.difference
        out = f"{suggested_name(self.view.session)}.jpg"
        self.command.set(value=pasting.command(out, feather=feather, difference=difference))

        def draw() -> bytes | None:
            if wanted != self._wanted:
                return None
            whole = pasting.paste(feather=feather, difference=difference)
            whole.thumbnail((SHOWN, SHOWN), Image.Resampling.BILINEAR)
            return as_jpeg(whole, quality=88)

        self.view.start(draw, lambda data: self.image.set(src=data_url(data)) if data else None)

    def _save(self) -> None:
        pasting = self.pasting
        feather = self.feather
        difference = self.difference
        if pasting is None:
            return

        name = f"{suggested_name(self.view.session)}-in-photo"

        def save() -> Path:
            return pasting.save(name, feather=feather, difference=difference)

        self.view.start(
            save,
            lambda path: self.view.toast(
                f"Saved {path.name} in {path.parent.resolve()}.", "", path
            ),
        )
