"""One slider as a film, two sliders as a grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from latentedit.studio.making import amounts, crossed, save_grid, save_sweep, swept
from latentedit.studio.painter import as_jpeg
from latentedit.studio.web.tags import Field, Tag, button, calls, hint, icon
from latentedit.studio.web.view import View, data_url

REST = "(none)"
NUMBERS = (
    ("low", "From", "-2", "-10", "10", "0.5"),
    ("high", "To", "2", "-10", "10", "0.5"),
    ("count", "Steps", "5", "2", "9", "1"),
)


class GridPart:
    """A grid of pictures along one or two sliders, which can be opened and saved."""

    def __init__(self, view: View, stage: Tag, panel: Tag) -> None:
        self.view = view
        self.across = ""
        self.down = REST
        self.low = -2.0
        self.high = 2.0
        self.count = 5
        self.rows: list[list[Tensor]] = []
        self._run = 0
        self._names: tuple[str, ...] = ()

        with stage:
            self.stage = Tag("div", "part")
            with self.stage:
                self.empty = Tag("div", "empty")
                with self.empty:
                    icon("grid")
                    Tag(
                        "p",
                        text="See a face along one slider, or along two at once. Choose them, "
                        "then draw.",
                    )
                self.table = Tag("div", "table", hidden=True)

        with panel:
            self.panel = Tag("section", "part", aria_label="Grid")
            with self.panel:
                Tag("h2", text="Grid and sweep")
                self.first = Field("Across", calls(self._set, "across"), tag="select")
                self.second = Field("Down", calls(self._set, "down"), tag="select")
                with Tag("div", "row"):
                    for name, label, value, low, high, step in NUMBERS:
                        facts = {
                            "type": "number",
                            "value": value,
                            "min": low,
                            "max": high,
                            "step": step,
                        }
                        Field(label, calls(self._set, name), **facts)

                self.go = button("Draw", self._draw, kind="primary large", sign="grid")
                self.bar = Tag("progress", max="100", value="0", aria_label="Drawing", hidden=True)
                self.saves = Tag("div", "row", hidden=True)
                with self.saves:
                    button("Save as picture", lambda: self._save(".png"))
                    self.gif = button("GIF", lambda: self._save(".gif"), title="Forth and back")
                    self.mp4 = button("MP4", lambda: self._save(".mp4"), title="Forth and back")
                hint(
                    "The other sliders stay where they are. Click a picture of the grid to edit it."
                )

    def show(self, on: bool) -> None:
        self.stage.show(on)
        self.panel.show(on)
        if on:
            self._options()

    def refresh(self, what: str) -> None:
        if what in ("sliders", "all"):
            self._options()

    def _options(self) -> None:
        sliders = self.view.session.sliders
        if tuple(sliders) == self._names:
            return
        self._names = tuple(sliders)
        names = list(sliders)
        self.across = (
            self.across
            if self.across in sliders
            else next((n for n in ("smile", *names) if n in sliders), "")
        )
        self.down = self.down if self.down in sliders else REST
        titles = [(name, sliders[name].title) for name in names]
        self.first.options(titles, self.across)
        self.second.options([(REST, "Nothing: one slider alone"), *titles], self.down)
        self.go.set(disabled=None if names else True)

    def _set(self, name: str, text: Any) -> None:
        if name in ("across", "down"):
            setattr(self, name, str(text))
            return
        try:
            value = float(text)
        except (TypeError, ValueError):
            return

        setattr(
            self,
            name,
            int(min(max(value, 2), 9)) if name == "count" else min(max(value, -1000.0), 1000.0),
        )

    def _draw(self) -> None:
        session = self.view.session
        across = self.across
        down = self.down
        self._run += 1
        run = self._run
        steps = self.view.attempt(lambda: amounts(self.low, self.high, self.count))
        if not isinstance(steps, list):
            return

        def show(share: float) -> None:
            if run == self._run:
                self.bar.set(value=f"{share:.0f}")

        def report(done: int, total: int) -> None:
            self.view.loop.call_soon_threadsafe(show, 100 * done / total)

        def draw() -> list[list[Tensor]]:
            if down == REST:
                return [swept(session, across, steps, report)]
            return crossed(session, across, down, steps, steps, report)

        self.bar.set(value="0").show(True)
        self.go.set(disabled=True)
        self.view.start(draw, lambda rows: self._place(rows, steps, across, down), self._rest)

    def _rest(self) -> None:
        self.bar.show(False)
        self.go.set(disabled=None)

    def _place(
        self, rows: list[list[Tensor]], steps: Sequence[float], across: str, down: str
    ) -> None:
        self.rows, self.steps, self.drawn = rows, steps, (across, down)
        self.empty.show(False)
        self.saves.show(True)
        single = len(rows) == 1
        for tag in (self.gif, self.mp4):
            tag.show(single)
        sliders = self.view.session.sliders
        columns = len(steps)
        self.table.clear()
        head = "" if single else "minmax(2.4rem,auto) "
        self.table.style(f"grid-template-columns:{head}repeat({columns},minmax(0,1fr))")
        self.table.style(
            f"max-width:calc((100dvh - 9rem) * {columns} / {max(len(rows), 1)} + 3rem)"
        )
        self.table.show(True)

        with self.table:
            Tag(
                "p",
                "axis-title",
                f"{sliders[across].title} →" + ("" if single else f"   {sliders[down].title} ↓"),
            )
            if not single:
                Tag("span")
            for x in steps:
                Tag("span", "axis", signed(x))
            for y, row in zip(steps, rows, strict=False):
                if not single:
                    Tag("span", "axis side", signed(y))
                for x, picture in zip(steps, row, strict=True):
                    words = f"{sliders[across].title} {x:+.1f}" + (
                        "" if single else f", {sliders[down].title} {y:+.1f}"
                    )
                    with Tag(
                        "button", "tile", type="button", aria_label=f"Edit {words}", title=words
                    ) as tile:
                        Tag("img", src=data_url(as_jpeg(picture)), alt="")
                    tile.click(calls(self._take, x, y))

    def _take(self, x: float, y: float) -> None:
        session = self.view.session
        across, down = self.drawn

        def take() -> None:
            session.slide(across, x)
            if down != REST:
                session.slide(down, y)
            session.settle()

        self.view.attempt(take)
        self.view.goto("edit")

    def _save(self, ending: str) -> None:
        session = self.view.session
        rows = self.rows
        steps = self.steps
        across, down = self.drawn
        face = session.face.name if session.face is not None else "face"

        def save() -> tuple[Path, str]:
            if down == REST:
                return save_sweep(session, rows[0], f"{face}-{across}", ending, steps)
            titles = (session.sliders[across].title, session.sliders[down].title)
            return save_grid(session, rows, f"{face}-{across}-{down}", steps, steps, titles), ""

        self.view.start(
            save,
            lambda found: self.view.toast(
                f"Saved {found[0].name}. {found[1]}".strip(), "", found[0]
            ),
        )


def signed(amount: float) -> str:
    """Return an amount as the sliders show it."""
    return f"{amount:+.2f}".rstrip("0").rstrip(".") if abs(amount) >= 0.005 else "0"
