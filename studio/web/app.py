"""The studio's page as a whole: its frame, its parts, its end points, and who hears what."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import FileResponse, JSONResponse, Response
from nicegui import Client, app, ui
from starlette.requests import ClientDisconnect

from latentedit.errors import Error
from latentedit.formats.load_latent import ENDINGS
from latentedit.studio.discovery import Discovery
from latentedit.studio.intake import LARGEST_UPLOAD
from latentedit.studio.keeping import Kept
from latentedit.studio.photos import Crop
from latentedit.studio.saving import command_line, save_face, save_picture, suggested_name
from latentedit.studio.session import Session
from latentedit.studio.web.discover import DiscoverPart
from latentedit.studio.web.drag import DragPart
from latentedit.studio.web.edit import EditPart
from latentedit.studio.web.gallery import GalleryPart
from latentedit.studio.web.grid import GridPart
from latentedit.studio.web.labelling import STYLES
from latentedit.studio.web.mix import MixPart
from latentedit.studio.web.paste import PastePart
from latentedit.studio.web.photo import PhotoPart, StartPart
from latentedit.studio.web.questions import end_points
from latentedit.studio.web.server import STATIC, Studio
from latentedit.studio.web.tags import (
    Tag,
    button,
    calls,
    command_box,
    hint,
    icon,
    sign_button,
    text_field,
)
from latentedit.studio.web.view import Files, View

KINDS = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".safetensors": "application/octet-stream",
}
ACCEPTED = ",".join(("image/*", ".heic", ".heif", *ENDINGS))
"""What the page's file chooser shows."""
MODES = {
    "edit": "Edit",
    "drag": "Drag",
    "faces": "Faces",
    "mix": "Mix",
    "grid": "Grid",
    "paste": "Paste",
    "discover": "Discover",
}
SIGNS = {
    "edit": "edit",
    "drag": "drag",
    "faces": "faces",
    "mix": "mix",
    "grid": "grid",
    "paste": "paste",
    "discover": "discover",
}
NEEDING_A_FACE = ("edit", "drag", "mix", "grid", "paste")
KEYS = (
    ("B", "hold: see the face before editing"),
    ("D", "divider between before and after; ← and → move it"),
    ("Ctrl+Z", "undo"),
    ("Ctrl+Shift+Z", "redo"),
    ("Ctrl+S", "save"),
    ("Ctrl+V", "paste a photo"),
    ("← →", "on a slider: small steps; Page Up and Page Down: large ones"),
    ("0", "on a slider: reset"),
    ("L", "on a slider: lock"),
    ("?", "this list"),
)


def build_pages(studio: Studio, session: Session) -> None:
    """Register the studio's page and end points with NiceGUI."""
    files = Files()
    shared = {"discovery": Discovery(session)}
    end_points(app, lambda: shared["discovery"].desk)
    app.add_static_files("/static", STATIC, max_cache_age=60)

    @app.post("/upload")
    async def upload(request: Request) -> Response:
        name = request.query_params.get("name", "photo")[:200]
        try:
            data = await request.body()
        except ClientDisconnect:
            return JSONResponse(
                {
                    "error": f"this file has more than {LARGEST_UPLOAD // 2**20} MB; make it "
                    "smaller first"
                },
                413,
            )
        from nicegui import run

        try:
            face = await run.io_bound(session.upload, data, name)
        except Error as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse({"name": name, "opened": face is not None})

    @app.get("/file/{number}")
    def file(number: str) -> Response:
        path = files.path(number)
        if path is None or not path.is_file():
            return JSONResponse({"error": "there is no such file"}, 404)
        kind = KINDS.get(path.suffix, "application/octet-stream")
        return FileResponse(path, media_type=kind, filename=path.name)

    @ui.page("/", title="latentedit studio", response_timeout=30)
    def page(client: Client) -> None:
        ui.add_head_html(STYLES)
        view = View(session, client, files, shared)
        Frame(view)


class Frame:
    """The frame of the page: the head, the modes, and the part that is open."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.session = view.session
        view.goto = self.goto
        self.modes: dict[str, Tag] = {}
        self.mode = "edit"
        Tag("a", "skip", "To the sliders", href="#panel")
        with Tag("div", "app"):
            self._head()
            self._nav()
            with Tag("main", "main") as self.main:
                self.stage = Tag("div", "stage")
                self.panel = Tag("div", "panel", id="panel", tabindex="-1")
        Tag(
            "input",
            type="file",
            id="file",
            accept=ACCEPTED,
            hidden=True,
            aria_label="Choose a photo or a latent file",
        )
        Tag("div", "toasts", id="toasts")
        with Tag("div", "veil", aria_hidden="true"):
            Tag("span", text="Drop a photo or a latent file")
        self._keys()
        self._saver()

        self.start = StartPart(view, self.stage, self._random)
        self.photo = PhotoPart(view, self.stage, self.panel)
        self.edit = EditPart(view, self.stage, self.panel)
        kinds = {
            "drag": DragPart,
            "faces": GalleryPart,
            "mix": MixPart,
            "grid": GridPart,
            "paste": PastePart,
            "discover": DiscoverPart,
        }
        self.parts: dict[str, Any] = {"edit": self.edit}
        self.parts |= {mode: kind(view, self.stage, self.panel) for mode, kind in kinds.items()}
        view.parts = [self, self.start, self.photo, *self.parts.values()]

        ui.on("studio", lambda event: self._did(event.args))
        view.client.on_delete(self.session.listen(view.told))
        view.client.on_connect(self._connected)
        self._offer()
        self.layout()

    # -- What is always there

    def _head(self) -> None:
        session = self.session
        with Tag("header", "head"):
            with Tag("div", "brand"):
                icon("mark")
                Tag("span", "word", "latentedit")
                self.name = Tag("span", "face-name", "")
            Tag("div", "spring")
            self.undo = sign_button("undo", "Undo (Ctrl+Z)", session.undo)
            self.redo = sign_button("redo", "Redo (Ctrl+Shift+Z)", session.redo)
            sign_button("help", "Keys (?)").on("click", js_handler="() => studio.dialog('#keys')")
            theme = sign_button("theme", "Colours").classes("theme")
            theme.on("click", js_handler="() => studio.nextTheme()")
            button("Open", self._open, sign="open", title="Open a photo or a latent file")
            self.save = button(
                "Save", self._save, kind="primary", sign="save", title="Save (Ctrl+S)"
            )

    def _nav(self) -> None:
        with Tag("nav", "nav", aria_label="Modes"):
            for mode, title in MODES.items():
                with Tag("button", type="button", data_mode=mode) as made:
                    icon(SIGNS[mode])
                    Tag("span", text=title)
                made.click(calls(self.goto, mode))
                self.modes[mode] = made

    def _keys(self) -> None:
        with Tag("dialog", id="keys", aria_labelledby="keys-title"), Tag("div", "body"):
            Tag("h2", text="Keys", id="keys-title")
            with Tag("div", "keys"):
                for key, text in KEYS:
                    with Tag("span"):
                        Tag("kbd", text=key)
                    Tag("span", text=text)
            with Tag("div", "row"):
                Tag("span", "grow")
                button("Close").on("click", js_handler="() => studio.close('#keys')")

    def _saver(self) -> None:
        with Tag("dialog", id="save", aria_labelledby="save-title"), Tag("div", "body"):
            Tag("h2", text="Save", id="save-title")
            self.filename = text_field("Name", self._named, value="", maxlength="80").input
            with Tag("div", "row"):
                button("Picture", lambda: self._write(".png"), kind="primary", title="A PNG file")
                button(
                    "Latent file",
                    lambda: self._write(".safetensors"),
                    title="To go on from later, here or on the command line",
                )
            self.where = Tag("p", "small soft", "")
            self.command = command_box("command", 4)
            hint("It names this session's own copy of the latent, kept as long as the session.")
            with Tag("div", "row"):
                Tag("span", "grow")
                button("Close").on("click", js_handler="() => studio.close('#save')")
        self.chosen = ""

    # -- What the person does

    def _did(self, facts: Any) -> None:
        """Take what the page's script sends; what is none of its messages is ignored."""
        if not isinstance(facts, dict):
            return
        handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "slide": self._slide,
            "settle": lambda _: self.session.settle(),
            "layers": lambda f: self.session.set_layers(str(f["name"]), str(f["layers"]) or None),
            "lock": lambda f: self.session.lock(str(f["name"]), bool(f["on"])),
            "reset": lambda f: self.session.reset(str(f["name"])),
            "undo": lambda _: self.session.undo(),
            "redo": lambda _: self.session.redo(),
            "save": lambda _: self._save(),
            "uploading": lambda _: self.start.reading(True),
            "uploaded": lambda _: self.start.reading(False),
            "opened": lambda _: self._opened(),
            "face": lambda f: self._face(int(f["number"])),
            "crop": lambda f: self._crop(
                Crop(*(float(f[name]) for name in ("x", "y", "side", "angle")))
            ),
        }
        handler = handlers.get(str(facts.get("what")))
        if handler is None:
            for part in self.parts.values():
                if hasattr(part, "did") and part.did(facts):
                    return
            return
        try:
            handler(facts)
        except Error as error:
            self.view.toast(str(error), "bad")
            self.view.told("state")
        except (KeyError, TypeError, ValueError, OverflowError):
            return

    def _slide(self, facts: dict[str, Any]) -> None:
        self.view.seen = int(facts.get("number", 0))
        self.session.slide(str(facts["name"]), float(facts["value"]))

    def _opened(self) -> None:
        self.start.reading(False)
        self.goto("edit")

    def _face(self, number: int) -> None:
        photo = self.session.intake.photo
        if photo is not None and 0 <= number < len(photo.faces):
            self._crop(photo.faces[number])

    def _crop(self, crop: Crop) -> None:
        self.view.start(lambda: self.session.intake.set_crop(crop))

    def _open(self) -> None:
        self.view.js("choose")

    def _random(self) -> None:
        session = self.session

        def first() -> None:
            session.show(session.random_latent(0, 0.7), "face-0", "random face, seed 0")

        self.view.start(first, lambda _: self.goto("edit"))

    def _named(self, text: Any) -> None:
        self.chosen = str(text)[:80]

    def _save(self) -> None:
        if self.session.face is None:
            self.view.toast("There is nothing to save yet: open a photo or a face first.", "bad")
            return
        self.chosen = suggested_name(self.session)
        self.filename.set(value=self.chosen)
        self.where.say(f"Into {self.session.keeper.folder.resolve()}. Nothing is overwritten.")
        self.command.set(value=command_line(self.session, f"{self.chosen}.png"))
        self.view.js("dialog", "#save")

    def _write(self, ending: str) -> None:
        session = self.session
        name = self.chosen

        def write() -> Path:
            return (
                save_face(session, name)
                if ending == ".safetensors"
                else save_picture(session, name, ending)
            )

        self.view.js("close", "#save")
        self.view.start(
            write,
            lambda path: self.view.toast(
                f"Saved {path.name} in {path.parent.resolve()}.", "", path
            ),
        )

    # -- What is open

    def goto(self, mode: str) -> None:
        """Open a mode."""
        if mode in self.parts:
            self.mode = mode
        if (
            self.session.intake.photo is not None
            and self.session.intake.search is None
            and mode != "photo"
        ):
            self.session.intake.photo = None
        self.layout()

    def layout(self) -> None:
        """Show what belongs to the mode, and hide the rest."""
        session = self.session
        photo = session.intake.photo is not None
        empty = session.face is None and self.mode in NEEDING_A_FACE and not photo
        self.start.show(empty)
        self.photo.show(photo)
        for mode, part in self.parts.items():
            part.show(mode == self.mode and not empty and not photo)
        wide = empty or (not photo and getattr(self.parts[self.mode], "panel", None) is None)
        self.main.classes(add="wide" if wide else "", remove="" if wide else "wide")
        self.main.classes(add="photo-open" if photo else "", remove="" if photo else "photo-open")
        self.panel.show(not wide)
        for mode, tag in self.modes.items():
            tag.set(aria_current="page" if mode == self.mode and not photo else None)
            tag.set(disabled=True if session.intake.search or session.dragging else None)
        self.name.say(session.face.name if session.face is not None and not photo else "")
        history = session.history
        self.undo.set(disabled=None if history.can_undo and not session.dragging else True)
        self.redo.set(disabled=None if history.can_redo and not session.dragging else True)
        self.save.set(disabled=None if session.face is not None else True)

    def show(self, on: bool) -> None:
        """The frame is always there."""

    def refresh(self, what: str) -> None:
        if what in ("state", "faces", "photo", "all") or (
            what == "search" and self.session.intake.search is None
        ):
            self.layout()
        if what in ("faces", "look", "all"):
            self._look()

    def _look(self) -> None:
        """Find out, after the picture is there, how far the sliders go."""
        face = self.session.face
        if face is not None and not face.looked and self.session.intake.search is None:
            self.view.start(self.session.look)

    def _connected(self) -> None:
        self.view.js("limit", LARGEST_UPLOAD // 2**20)
        self.view.seen = 0
        self.view.js("fresh")
        self.view.js("paint")
        self.view.told("all")
        self.view.told("picture")
        self.view.told("marks")

    def _offer(self) -> None:
        """Offer the sessions that were left, if none has begun."""
        session = self.session
        if session.face is not None or session.history.can_undo:
            return
        self.start.offer(
            [
                kept
                for kept in session.keeper.sessions()
                if kept.fingerprint == session.fingerprint and kept.history.state.face
            ],
            self._take,
            self._forget,
        )

    def _take(self, kept: Kept) -> None:
        self.view.start(lambda: self.session.restore(kept), lambda _: self.goto("edit"))

    def _forget(self, kept: Kept) -> None:
        self.session.keeper.forget(kept)
        self._offer()
