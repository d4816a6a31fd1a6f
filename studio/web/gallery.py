"""Random faces as a gallery, to begin with or to mix."""

from latentedit.studio.painter import as_jpeg
from latentedit.studio.web.tags import Field, Tag, button, hint, range_field
from latentedit.studio.web.view import View, data_url

COUNT = 12
"""Faces of one gallery page."""
MOST = 2**32 - 1


class GalleryPart:
    """Random faces by seed and truncation."""

    def __init__(self, view: View, stage: Tag, panel: Tag) -> None:
        self.view = view
        self.seed = 0
        self.psi = 0.7
        self._drawn: tuple[int, float] | None = None
        self._run = 0

        with stage:
            self.stage = Tag("div", "part")
            with self.stage:
                with Tag("div", "headline"):
                    Tag("h2", text="Random faces")
                    self.busy = Tag("span", "busy", "Drawing …", hidden=True, role="status")
                self.tiles = Tag("div", "tiles")

        with panel:
            self.panel = Tag("section", "part", aria_label="Gallery")
            with self.panel:
                Tag("h2", text="Gallery")
                hint(
                    "People who do not exist. Choose one to edit it. A seed always gives the "
                    "same face."
                )
                with Tag("div", "row"):
                    numbers = {
                        "type": "number",
                        "min": "0",
                        "max": str(MOST),
                        "step": "1",
                        "value": "0",
                    }
                    self.seeds = Field("First seed", self._seed, **numbers).input
                    variety = range_field(
                        "Variety (psi) 0.7", self._psi, 0, 1.2, 0.7, event="change", step="0.05"
                    )
                    variety.box.classes("grow")
                    self.psi_text = variety.title

                hint("Small: typical faces, few faults. 1: as varied as the training photos.")
                with Tag("div", "row"):
                    button("Previous", lambda: self._turn(-COUNT))
                    button("More faces", lambda: self._turn(COUNT), kind="primary", sign="dice")

    def show(self, on: bool) -> None:
        self.stage.show(on)
        self.panel.show(on)
        if on and self._drawn != (self.seed, self.psi):
            self._draw()

    def refresh(self, what: str) -> None:
        """Nothing in the session changes a gallery."""

    def _seed(self, text: object) -> None:
        self.seed = int(min(max(_number(text, self.seed), 0), MOST - COUNT))
        self._draw()

    def _psi(self, text: object) -> None:
        self.psi = round(min(max(_number(text, self.psi), 0), 1.2), 2)
        self.psi_text.say(f"Variety (psi) {self.psi:g}")
        self._draw()

    def _turn(self, by: int) -> None:
        self.seed = min(max(self.seed + by, 0), MOST - COUNT)
        self.seeds.set(value=str(self.seed))
        self._draw()

    def _draw(self) -> None:
        """Draw one face after another, so that the first is there at once."""
        self._drawn = self.seed, self.psi
        self._run += 1
        self.tiles.clear()
        self.busy.show(True)
        self._next(self._run, 0)

    def _next(self, run: int, number: int) -> None:
        if run != self._run or number >= COUNT:
            self.busy.show(False)
            return
        session = self.view.session
        seed = self.seed + number
        psi = self.psi

        def draw() -> bytes:
            return as_jpeg(session.render(session.random_latent(seed, psi)))

        def place(data: bytes) -> None:
            if run == self._run:
                with (
                    self.tiles,
                    Tag(
                        "button", "tile", type="button", aria_label=f"Edit the face of seed {seed}"
                    ) as tile,
                ):
                    Tag("img", src=data_url(data), alt="")
                    Tag("span", "caption", str(seed), aria_hidden="true")
                tile.click(lambda: self._open(seed, psi))

            self._next(run, number + 1)

        self.view.start(draw, place)

    def _open(self, seed: int, psi: float) -> None:
        session = self.view.session
        name = f"face-{seed}"
        self.view.start(
            lambda: session.show(
                session.random_latent(seed, psi), name, f"random face, seed {seed}, psi {psi:g}"
            ),
            lambda _: self.view.goto("edit"),
        )


def _number(text: object, otherwise: float) -> float:
    try:
        found = float(str(text))
    except ValueError:
        return otherwise
    return found if abs(found) < 1e12 else otherwise
