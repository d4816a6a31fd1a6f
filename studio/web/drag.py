"""The page on which points of the face are dragged."""

from typing import Any

from latentedit.errors import Error
from latentedit.studio.dragging import MOST_STEPS, Dragging, handles_of, mask_of
from latentedit.studio.open_face import OpenFace
from latentedit.studio.painter import as_jpeg
from latentedit.studio.web.tags import Tag, button, choices, command_box, hint, range_field
from latentedit.studio.web.view import View, data_url

TOOLS = (
    ("points", "Points", "Click what shall move, then where it shall go. Or press and pull."),
    ("brush", "Brush", "Paint what may change. The rest is held."),
    ("rectangle", "Rectangle", "Pull a rectangle around what may change."),
    ("erase", "Eraser", "Take away from what may change."),
)
STEPS = 100


class DragPart:
    """The face with its points, and a panel with tools, start and stop."""

    def __init__(self, view: View, stage: Tag, panel: Tag) -> None:
        self.view = view
        self.dragging: Dragging = view.shared.setdefault("dragging", Dragging(view.session))
        self.steps = STEPS
        with stage:
            self.stage = Tag("div", "part edit-stage")
            with self.stage:
                self._picture()
        with panel:
            self.panel = Tag("section", "part", aria_label="Drag")
            with self.panel:
                self._tools()

    def _picture(self) -> None:
        words = (
            "The face. Arrow keys move the cursor, Shift makes larger steps, Enter sets a point and"
            " then its target, Delete removes the last one."
        )
        with Tag("div", "viewer"), Tag("div", "frame drag-frame"):
            self.image = Tag("img", id="drag-image", alt="The face", draggable="false")
            Tag("canvas", id="drag-mask", aria_hidden="true")
            Tag("svg", id="drag", tabindex="0", role="application", aria_label=words)

    def _tools(self) -> None:
        with Tag("div", "headline"):
            Tag("h2", text="Drag")
            Tag("button", "button quiet", type="button", id="drag-clear", text="Clear")
        hint("Drag the nose aside and the head turns.")
        choices("drag-tool", "Tool", TOOLS, "points", lambda key: self.view.js("drag.tool", key))
        size = range_field("Size of the brush", lambda _: None, 1, 30, 8, step="1", id="drag-size")
        size.box.classes("drag-size")
        Tag("h3", text="Points")
        hint("In pixels, from the upper left corner. A point that is its own target stays there.")
        Tag("div", "drag-pairs", id="drag-pairs", role="group", aria_label="Points")
        with Tag("div", "row"):
            self.go = button("Drag", kind="primary large grow", id="drag-go")
            self.halt = button("Stop", self._stop, sign="stop", kind="large", hidden=True)
        self.steps_field = range_field("At most 100 steps", self._steps, 10, 300, STEPS, step="10")
        self.bar = Tag("progress", max="100", value="0", aria_label="Drag", hidden=True)
        self.said = Tag("p", "soft", "", role="status")
        self.command_box = Tag("div", "part-inner choices", hidden=True)
        with self.command_box:
            self.command = command_box("drag-command", 4)

    def show(self, on: bool) -> None:
        self.stage.show(on)
        self.panel.show(on)
        if on:
            self._face()

    def refresh(self, what: str) -> None:
        if what in ("faces", "state", "all"):
            self._face()
        if what in ("drag", "all"):
            self._progress()

    def did(self, facts: dict[str, Any]) -> bool:
        """Take what the page's script sends; says whether it was meant for this part."""
        if facts.get("what") != "drag":
            return False
        session = self.view.session
        if not session.model.generator.config.is_square:
            self.view.toast("This page drags square images; the command drags others, too.", "bad")
            return True
        try:
            handles = handles_of(facts.get("pairs"))
            mask = mask_of(facts.get("mask"), session.model.generator.resolution)
        except Error as error:
            self.view.toast(str(error), "bad")
            return True
        self.said.say("")
        steps = self.steps
        self.view.start(lambda: self.dragging.run(handles, mask, steps), self._done, self._progress)
        return True

    def _stop(self) -> None:
        self.halt.set(disabled=True)
        self.dragging.stop()

    def _steps(self, count: Any) -> None:
        if isinstance(count, int | float) and 1 <= count <= MOST_STEPS:
            self.steps = int(count)
            self.steps_field.title.say(f"At most {self.steps} steps")

    def _face(self) -> None:
        """Show the face as its sliders have it, unless a drag shows its own images."""
        session = self.view.session
        if session.dragging or session.face is None or self.panel._props.get("hidden"):
            return
        self.view.start(lambda: as_jpeg(session.render(session.edited())), self._shown)

    def _shown(self, data: bytes) -> None:
        if not self.view.session.dragging:
            self.image.set(src=data_url(data))
            self.view.js(
                "drag.open",
                self.view.session.model.generator.resolution,
                self.view.session.state.face,
            )

    def _progress(self) -> None:
        session = self.view.session
        running = session.dragging
        progress = self.dragging.progress
        self.go.show(not running)
        self.halt.show(running)
        self.bar.show(running)
        if not running:
            self.halt.set(disabled=None)
        if not running or progress is None:
            return
        step = progress.step
        self.image.set(src=data_url(progress.image))
        self.bar.set(value=f"{100 * step.number / step.total:.0f}")
        self.said.say(f"Step {step.number}, {max(step.distances):.1f} pixels left")
        self.view.js("drag.at", [list(point) for point in step.points])

    def _done(self, face: OpenFace | None) -> None:
        progress = self.dragging.progress
        if face is None or progress is None:
            return
        step = progress.step
        left = ", ".join(f"{distance:.1f}" for distance in step.distances)
        end = "Arrived" if step.arrived else "Ended before all points arrived"
        self.said.say(
            f"{end} after {step.number} steps; pixels left: {left}. Undo brings the face back."
        )
        self.command.set(value=self.dragging.command)
        self.command_box.show(True)
        self.view.js("drag.done", face.key, [list(point) for point in step.points], step.arrived)
