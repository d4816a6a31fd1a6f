"""The page of sliders: the picture, before and after, and a panel of what can be moved."""

from typing import Any

from latentedit.studio.sliders import GROUPS, Slider
from latentedit.studio.web.tags import Tag, button, calls, icon, sign_button
from latentedit.studio.web.view import View, data_url

BEFORE = (
    ("rendering", "Rendering", "What the model draws with every slider at rest"),
    ("photo", "Photo", "The photo itself"),
)
"""What a face can be compared with, what the page calls it, and what it is."""


class EditPart:
    """The picture and the sliders."""

    def __init__(self, view: View, stage: Tag, panel: Tag) -> None:
        self.view = view
        self.was = "rendering"
        self.shown: tuple[str, ...] = ()
        with stage:
            self.stage = Tag("div", "part edit-stage")
            with self.stage:
                self._picture()

        with panel:
            self.panel = Tag("section", "part", aria_label="Sliders")
            with self.panel:
                with Tag("div", "headline"):
                    Tag("h2", text="Sliders")
                    self.refine = button(
                        "Refine",
                        lambda: view.start(self._refine),
                        kind="quiet",
                        title="Search on from here",
                    )
                    self.all = button(
                        "Reset all",
                        lambda: view.attempt(view.session.reset),
                        kind="quiet",
                        sign="reset",
                    )
                self.verdict = Tag("div")
                self.groups = Tag("div")
                with Tag("p", "legend"):
                    with Tag("span"):
                        Tag("i", "l-whole", aria_hidden="true")
                        self.whole = Tag("span", text="")
                    with Tag("span"):
                        Tag("i", "l-mark", aria_hidden="true")
                        Tag("span", text="measured on this face, where it differs")

    def _picture(self) -> None:
        with Tag("div", "viewer"), Tag("div", "frame", id="frame"):
            self.after = Tag("img", id="after", alt="The edited face", draggable="false")
            self.before = Tag(
                "img", "before", id="before", alt="The face before editing", draggable="false"
            )
            Tag("span", "plate was", "Before", aria_hidden="true")
            Tag("span", "plate is", "After", aria_hidden="true")
            Tag(
                "div",
                "divider",
                id="divider",
                role="slider",
                tabindex="0",
                aria_label="Divider between before and after",
                aria_valuemin="0",
                aria_valuemax="100",
                aria_valuenow="50",
            )

        with Tag("div", "tools"):
            with Tag(
                "button",
                "button",
                type="button",
                id="hold",
                aria_pressed="false",
                title="Hold, or hold the key B",
            ):
                Tag("span", "text", "Hold for before")
                Tag("kbd", "hide-small", "B", aria_hidden="true")
            with Tag(
                "button",
                "button",
                type="button",
                id="divide",
                aria_pressed="false",
                title="Divider between before and after (D)",
            ) as divide:
                icon("compare")
                Tag("span", "text hide-narrow", "Divider")
                Tag("kbd", "hide-small", "D", aria_hidden="true")
            divide.on("click", js_handler="() => studio.divide()")
            self._kinds()

    def _kinds(self) -> None:
        """What the face is compared with, where it comes from a photo."""
        self.kinds = Tag("div", "compare", hidden=True)
        with self.kinds:
            Tag("span", "soft small hide-small", "Compare with", id="compare")
            with Tag("div", "segments", role="radiogroup", aria_labelledby="compare"):
                for kind, text, title in BEFORE:
                    with Tag("label", title=title):
                        radio = Tag("input", type="radio", name="before", value=kind)
                        radio.set(checked=kind == self.was)
                        radio.on("change", calls(self._compare, kind), js_handler="() => emit()")
                        Tag("span", text=text)

    def show(self, on: bool) -> None:
        self.stage.show(on)
        self.panel.show(on)

    def refresh(self, what: str) -> None:
        session = self.view.session
        if what in ("sliders", "faces", "all"):
            self._sliders()
        if what in ("faces", "all") and session.face is not None:
            self._before()
        if what in ("state", "sliders", "faces", "all"):
            self._values()
        if what in ("faces", "sliders", "all"):
            self._verdict()

    def _refine(self) -> None:
        session = self.view.session
        session.intake.refine(session.face)

    def _compare(self, kind: str, _: Any = None) -> None:
        self.was = kind
        self._before()

    def _before(self) -> None:
        """Show what the face is compared with: its picture without edits, or the photo itself."""
        session = self.view.session
        face = session.face
        there = session.intake.has_photo(face)
        self.kinds.show(there)
        if face is None:
            return
        if there and self.was == "photo":
            self.view.start(
                lambda: session.intake.photographed(face),
                lambda data: self.view.js("before", data_url(data), "Your photo", "Photo"),
            )
        else:
            self.view.js("before", data_url(face.before), "The face before editing", "Before")

    def _verdict(self) -> None:
        session = self.view.session
        face = session.face
        self.verdict.clear()
        self.refine.show(session.intake.can_refine(face))
        if face is None:
            return

        with self.verdict:
            if not face.looked:
                Tag("span", "busy", "Finding out how far each slider goes …", role="status")
            elif found := session.verdict():
                level, words = found
                kind = "good" if level == "good" else "warn" if level != "unknown" else ""
                head, _, rest = words.partition(": ")
                with Tag("div", f"note {kind}"):
                    icon("check" if level == "good" else "warn")
                    with Tag("details", open=kind == "warn"):
                        Tag("summary", text=f"{head[:1].upper()}{head[1:]}")
                        Tag("p", text=f"{rest[:1].upper()}{rest[1:]}." if rest else "")

        seen = any(slider.whole for slider in session.sliders.values())
        self.whole.say("stays a whole picture" if seen else "safe range not known yet")

    def _sliders(self) -> None:
        """Build the rows anew where there are other sliders than before."""
        sliders = self.view.session.sliders
        names = tuple(f"{slider.group}/{name}" for name, slider in sliders.items())
        if names == self.shown:
            self._reports(sliders)
            return

        self.shown = names
        self.groups.clear()
        self.reports: dict[str, Tag] = {}
        with self.groups:
            if not sliders:
                with Tag("div", "empty"):
                    icon("edit")
                    Tag(
                        "p",
                        text="No sliders ship for this model. Discover finds some: from your "
                        "labels, or without any.",
                    )
            for group in GROUPS:
                members = [slider for slider in sliders.values() if slider.group == group]
                if members:
                    with Tag("div", "group", role="group", aria_label=group):
                        Tag("h3", text=group)
                        for slider in members:
                            self._row(slider)

    def _row(self, slider: Slider) -> None:
        name = slider.name
        place = f"s-{name}"
        with Tag("div", "slider", data_name=name):
            with Tag("div", "line"):
                Tag("label", text=slider.title, for_=place, title=slider.title)
                Tag("output", text="0", for_=place)
                sign_button("reset", f"Reset {slider.title}").classes("reset")
                if slider.holdable:
                    hint = f"Lock {slider.title}: other sliders leave it as it is"
                    sign_button("lock", hint, aria_pressed="false").classes("lock")
                else:
                    Tag("span", "lock", hidden=True)
                sign_button("more", f"More of {slider.title}", aria_expanded="false").classes(
                    "open"
                )
            with Tag("div", "track"):
                Tag("span", "whole")
                Tag("span", "zero")
                Tag("span", "fill")
                Tag("span", "mark")
                Tag("input", type="range", id=place, min="-3", max="3", step="0.05")
            with Tag("div", "more", hidden=True):
                with Tag("label", "field"):
                    Tag("span", text="In sigmas")
                    Tag("input", "exact", type="number", step="0.1", min="-1000", max="1000")
                with Tag("label", "field"):
                    Tag("span", text="Layers")
                    with Tag("select", "layers"):
                        for value, text in self._layers():
                            Tag("option", text=text, value=value)
                self.reports[name] = Tag("p", "report", report_of(slider))

    def _layers(self) -> list[tuple[str, str]]:
        count = self.view.session.model.generator.num_ws
        named = [("", "Its own"), ("coarse", "Coarse: pose, shape"), ("middle", "Middle: features")]
        if count > 8:
            named.append(("fine", "Fine: colour, texture"))
        ranges = [f"{first}-{min(first + 1, count - 1)}" for first in range(0, count, 2)]
        return [*named, *((text, f"Layers {text}") for text in ranges)]

    def _reports(self, sliders: dict[str, Slider]) -> None:
        for name, tag in self.reports.items():
            tag.say(report_of(sliders[name]))

    def _values(self) -> None:
        session = self.view.session
        state = session.state
        marks = session.marks
        facts: dict[str, dict[str, Any]] = {}
        for name, slider in session.sliders.items():
            setting = state.settings.get(name)
            amount = setting.amount if setting else 0.0
            low, high = slider.whole or (None, None)
            facts[name] = {
                "v": amount,
                "layers": setting.layers if setting else None,
                "locked": name in state.locks,
                "lo": low,
                "hi": high,
                "reach": max(slider.reach, abs(amount)),
            }
            if marks.state == state:
                facts[name]["m"] = round(marks.moved.get(name, 0.0), 3)

        self.view.js("apply", facts, self.view.seen)
        self.all.set(disabled=None if state.settings or state.locks else True)


def report_of(slider: Slider) -> str:
    """Return what is known of a slider, in a sentence or two."""
    words = []
    if slider.whole is not None:
        low, high = slider.whole
        if low == high:
            words.append("Seen to break this picture with less than 0.75 sigma.")
        else:
            words.append(f"Pictures were seen to stay whole from {low:+g} to {high:+g} sigmas.")
    else:
        words.append("Nobody has looked yet how far it can go.")

    report = slider.direction.report
    for key, figure in (("auc", "AUC"), ("r2", "R²"), ("r", "correlation")):
        if isinstance(report.get(key), int | float):
            words.append(f"{figure} on held-out data {report[key]:.2f}.")
            break

    leaks = report.get("leakage")
    if isinstance(leaks, dict):
        moved = sorted(
            (name for name, v in leaks.items() if isinstance(v, int | float) and abs(v) >= 0.2),
            key=lambda n: -abs(leaks[n]),
        )
        if moved:
            words.append(
                "Moves along: "
                + ", ".join(f"{name} {leaks[name]:+.1f}" for name in moved[:4])
                + "."
            )

    return " ".join(words)
