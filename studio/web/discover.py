"""New sliders: label generated faces with two keys, or name what varies most."""

from typing import Any

from latentedit.studio.discovery import FACES, LEAST, Discovery
from latentedit.studio.sliders import Slider
from latentedit.studio.web.labelling import question_form
from latentedit.studio.web.tags import Field, Tag, button, calls, hint, icon, text_field
from latentedit.studio.web.view import View

INVITATION = (
    "Name something that faces have or lack: earrings, a hat, freckles. You say yes or no to "
    "some dozen generated faces,"
    " and the studio makes a slider of it."
)


class DiscoverPart:
    """Labels, fits, and the components of the network."""

    def __init__(self, view: View, stage: Tag, panel: Tag) -> None:
        self.view = view
        self.discovery: Discovery = view.shared["discovery"]
        self.attribute = ""
        self.new_name = ""
        self._listed: list[str] = []

        with stage:
            self.stage = Tag("div", "part")
            with self.stage:
                self.empty = Tag("div", "empty")
                with self.empty:
                    icon("discover")
                    Tag("p", text=INVITATION)
                self.question = Tag("div", hidden=True, style="display:contents")
                self.report = Tag("div", hidden=True)

        with panel:
            self.panel = Tag("section", "part", aria_label="Discover")
            with self.panel:
                Tag("h2", text="A slider from your labels")
                name = text_field(
                    "What to look for",
                    self._named,
                    placeholder="for example earrings",
                    maxlength="40",
                    id="attribute",
                )
                name.input.on("keydown.enter", lambda _: self._begin(), js_handler="() => emit()")
                with Tag("div", "row"):
                    self.go = button("Label faces", self._begin, kind="primary")
                    self.fit = button("Make the slider", self._fit, disabled=True)
                hint(
                    f"Generates {FACES} faces, which takes a minute. Every answer is saved at "
                    "once: come back any time."
                )
                self.bar = Tag(
                    "progress", max="100", value="0", aria_label="Generating faces", hidden=True
                )
                self.busy = Tag("span", "busy", "Fitting …", hidden=True, role="status")
                self.begun = Tag("div", "row")
                Tag("hr")
                Tag("h2", text="Sliders without labels")
                hint(
                    "What varies most in this network. Try them under Unnamed, and name what "
                    "means something."
                )
                with Tag("div", "row"):
                    self.pca = button(
                        "Find by PCA",
                        lambda: self._components("pca"),
                        title="Principal components (GANSpace)",
                    )
                    self.sefa = button(
                        "Find by SeFa",
                        lambda: self._components("sefa"),
                        title="Eigenvectors of the styles",
                    )

                self.names = Tag("div", "choices", hidden=True)
                with self.names:
                    self.which = Field("Component", self._which, tag="select", id="component")
                    text_field("Its name", self._new, maxlength="40", id="component-name")
                    with Tag("div", "row"):
                        button("Save under this name", self._name, kind="primary")
                        button(
                            "Remove the unnamed",
                            lambda: view.start(self.discovery.drop_components),
                            kind="quiet",
                        )

        self.chosen = ""

    def show(self, on: bool) -> None:
        self.stage.show(on)
        self.panel.show(on)
        if on:
            self._list()
            self._unnamed()

    def refresh(self, what: str) -> None:
        if what in ("sliders", "all"):
            self._unnamed()

    def did(self, facts: dict[str, Any]) -> bool:
        """Hear of answers, which the page's script sends by itself."""
        if facts.get("what") != "labelled":
            return False
        enough = min(_count(facts, "yes"), _count(facts, "no")) >= LEAST
        self.fit.set(disabled=None if enough else True)
        if facts.get("done"):
            self.view.start(self.discovery.leave, lambda _: self._close())
        return True

    # -- Labels

    def _named(self, text: Any) -> None:
        self.attribute = str(text)[:40].strip().lower().replace(" ", "-")

    def _list(self) -> None:
        begun = self.discovery.begun()
        if begun == self._listed:
            return
        self._listed = begun
        self.begun.clear()
        with self.begun:
            if begun:
                Tag("span", "soft small", "Begun before:")
            for name in begun[:12]:
                button(name, calls(self._begin, name), kind="quiet")

    def _begin(self, name: str = "") -> None:
        name = name or self.attribute
        if not name:
            self.view.toast("Say first what to look for, for example earrings.", "bad")
            return
        view = self.view
        discovery = self.discovery
        self.go.set(disabled=True)
        self.bar.set(value="0").show(True)

        def report(done: int, total: int) -> None:
            view.loop.call_soon_threadsafe(lambda: self.bar.set(value=f"{100 * done / total:.0f}"))

        def opened(_: Any) -> None:
            self.empty.show(False)
            self.report.show(False)
            self.question.clear()
            with self.question:
                question_form()
            self.question.show(True)
            self._list()
            view.js("label.open", False)

        def last() -> None:
            self.bar.show(False)
            self.go.set(disabled=None)

        view.start(lambda: discovery.begin(name, report=report), opened, last)

    def _close(self) -> None:
        self.question.clear()
        self.question.show(False)
        self.empty.show(self.discovery.found is None)
        self.fit.set(disabled=True)

    def _fit(self) -> None:
        discovery = self.discovery
        self.busy.show(True)
        self.fit.set(disabled=True)

        def work() -> tuple[Slider, list[str]]:
            slider = discovery.fit()
            return slider, discovery.remarks(slider.direction)

        def last() -> None:
            self.busy.show(False)
            self.fit.set(disabled=None)

        self.view.start(work, lambda found: self._reported(*found), last)

    def _reported(self, slider: Slider, remarks: list[str]) -> None:
        self.question.show(False)
        self.report.clear()
        self.report.show(True)

        with (
            self.report,
            Tag("div", "report-card", style="max-width:38rem;margin:auto;background:var(--card)"),
        ):
            Tag("h2", text=f"{slider.title} is a slider now")
            for text in remarks:
                with Tag("div", "note warn"):
                    icon("warn")
                    Tag("p", text=text)
            if not remarks:
                with Tag("div", "note good"):
                    icon("check")
                    Tag("p", text="Better than chance on answers that the fit did not see.")
            with Tag("table"):
                for name, value in report_lines(slider):
                    with Tag("tr"):
                        Tag("td", text=name)
                        Tag("td", text=value)

            with Tag("div", "row"):
                button("Try it", lambda: self.view.goto("edit"), kind="primary")
                button("Label more", self._again, kind="quiet")

    def _again(self) -> None:
        self.report.show(False)
        self.question.show(True)

    # -- Components

    def _components(self, kind: str) -> None:
        view = self.view
        discovery = self.discovery
        for tag in (self.pca, self.sefa):
            tag.set(disabled=True)
        self.bar.set(value="0").show(True)

        def report(done: int, total: int) -> None:
            view.loop.call_soon_threadsafe(
                lambda: self.bar.set(value=f"{100 * done / max(total, 1):.0f}")
            )

        def last() -> None:
            self.bar.show(False)
            for tag in (self.pca, self.sefa):
                tag.set(disabled=None)

        def found(sliders: list[Slider]) -> None:
            view.toast(f"{len(sliders)} unnamed sliders are at the end of the list.")

        view.start(lambda: discovery.components(kind, report), found, last)

    def _unnamed(self) -> None:
        names = [
            name for name, slider in self.view.session.sliders.items() if slider.group == "Unnamed"
        ]
        self.names.show(bool(names))
        self.chosen = self.chosen if self.chosen in names else next(iter(names), "")
        self.which.options([(name, name) for name in names], self.chosen)

    def _which(self, text: Any) -> None:
        self.chosen = str(text)

    def _new(self, text: Any) -> None:
        self.new_name = str(text)[:40].strip().lower().replace(" ", "-")

    def _name(self) -> None:
        discovery = self.discovery
        chosen = self.chosen
        name = self.new_name
        if not name:
            self.view.toast("Give the component a name first.", "bad")
            return
        self.view.start(lambda: discovery.name_component(chosen, name), self._said)

    def _said(self, slider: Slider) -> None:
        self.view.toast(f"{slider.title} is among your sliders now.")


def report_lines(slider: Slider) -> list[tuple[str, str]]:
    """Return the figures of a fitted slider's report, as a person reads them."""
    report = slider.direction.report
    found = []
    for key, name in (("auc", "AUC on held-out answers"), ("r2", "R² on held-out answers")):
        if isinstance(report.get(key), int | float):
            low, high = report.get(f"{key}_interval") or (None, None)
            found.append(
                (
                    name,
                    f"{report[key]:.2f}"
                    + (f" ({low:.2f} to {high:.2f})" if low is not None else ""),
                )
            )
            if isinstance(report.get(f"{key}_shuffled"), int | float):
                found.append(("The same with shuffled answers", f"{report[f'{key}_shuffled']:.2f}"))

    if report.get("samples"):
        found.append(("Answers", str(report["samples"])))
    if isinstance(report.get("angle"), int | float):
        found.append(("Angle between sliders from resampled answers", f"{report['angle']:.0f}°"))
    leaks = report.get("leakage") or {}
    moved = sorted((n for n, v in leaks.items() if abs(v) >= 0.2), key=lambda n: -abs(leaks[n]))
    if moved:
        found.append(
            (
                "Moves along, sigmas per sigma",
                ", ".join(f"{name} {leaks[name]:+.1f}" for name in moved[:5]),
            )
        )

    return found


def _count(facts: dict[str, Any], name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) else 0
