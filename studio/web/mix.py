"""Two faces become one: style mixing, and the way from one to the other."""

from pathlib import Path

from latentedit.studio.making import between, blended, save_sweep
from latentedit.studio.open_face import OpenFace
from latentedit.studio.painter import as_jpeg
from latentedit.studio.web.tags import Field, Tag, button, calls, choices, icon, range_field
from latentedit.studio.web.view import View, data_url

STEPS = 13
WAYS = (
    ("share", "Between the two", "A face on the way from one to the other."),
    ("layers", "Some layers of the other", "Style mixing: its shape, its features or its colours."),
)
LAYERS = (
    ("coarse", "Coarse: pose, shape"),
    ("middle", "Middle: features"),
    ("fine", "Fine: colour, texture"),
)


class MixPart:
    """A second face, and how much of it goes into the first."""

    def __init__(self, view: View, stage: Tag, panel: Tag) -> None:
        self.view = view
        self.other = ""
        self.way = "share"
        self.share = 0.5
        self.layers = "coarse"
        self._wanted = 0
        self._shown: tuple[str, ...] = ()
        with stage:
            self.stage = Tag("div", "part")
            with self.stage, Tag("div", "viewer"), Tag("div", "frame"):
                self.image = Tag("img", alt="The mixture of both faces")

        with panel:
            self.panel = Tag("section", "part", aria_label="Mix")
            with self.panel:
                Tag("h2", text="Mix with another face")
                self.none = Tag("div", "note")
                with self.none:
                    icon("faces")
                    Tag(
                        "p",
                        text="Open a second face: another photo, or one of the gallery. They all "
                        "show up here.",
                    )
                self.gallery = button("Choose one from the gallery", self._gallery, sign="faces")

                self.tiles = Tag("div", "tiles")
                self.rest = Tag("div", "rest")
                with self.rest:
                    choices("mix", "Way of mixing", WAYS, self.way, self._way)
                    share = range_field("Share of the other face: 50 %", self._share, 0, 1, 0.5)
                    self.share_field = share.box
                    self.share_text = share.title
                    layers = Field("Layers of the other face", self._layers, tag="select")
                    layers.options(LAYERS, self.layers)
                    self.layer_field = layers.box.show(False)
                    with Tag("div", "row"):
                        self.take = button("Edit this mixture", self._take, kind="primary")
                        self.gif = button(
                            "Save the way as GIF",
                            lambda: self._save(".gif"),
                            title="There and back",
                        )
                        self.mp4 = button(
                            "MP4", lambda: self._save(".mp4"), title="The same as a film"
                        )

                    self.busy = Tag("span", "busy", "Drawing …", hidden=True, role="status")

    def show(self, on: bool) -> None:
        self.stage.show(on)
        self.panel.show(on)
        if on:
            self._faces()
            self._draw()

    def refresh(self, what: str) -> None:
        if what in ("faces", "all") and not self.panel._props.get("hidden"):
            self._faces()
            self._draw()

    def _pair(self) -> tuple[OpenFace, OpenFace] | None:
        session = self.view.session
        face = session.face
        other = session.faces.get(self.other)
        return (
            (face, other) if face is not None and other is not None and face is not other else None
        )

    def _faces(self) -> None:
        session = self.view.session
        others = [face for face in session.faces.values() if face is not session.face][-24:]
        if self.other not in [face.key for face in others]:
            self.other = others[-1].key if others else ""
        self.none.show(not others)
        self.gallery.show(not others)
        self.rest.show(bool(others))
        for tag in (self.take, self.gif, self.mp4):
            tag.set(disabled=None if others else True)
        self.tiles.clear()
        with self.tiles:
            for face in others:
                pressed = "true" if face.key == self.other else "false"
                with Tag(
                    "button",
                    "tile",
                    type="button",
                    aria_pressed=pressed,
                    aria_label=f"Mix with {face.name}",
                ) as tile:
                    Tag("img", src=data_url(face.before), alt="")
                    Tag("span", "caption", face.name[:16], aria_hidden="true")
                tile.click(calls(self._choose, face.key))

    def _gallery(self) -> None:
        self.view.goto("faces")

    def _choose(self, key: str) -> None:
        self.other = key
        self._faces()
        self._draw()

    def _way(self, key: str) -> None:
        self.way = key
        self.share_field.show(key == "share")
        self.layer_field.show(key == "layers")
        self._draw()

    def _share(self, share: object) -> None:
        if isinstance(share, int | float) and 0 <= share <= 1:
            self.share = float(share)
            self.share_text.say(f"Share of the other face: {share:.0%}".replace("%", " %"))
            self._draw()

    def _layers(self, text: object) -> None:
        self.layers = str(text)
        self._draw()

    def _draw(self) -> None:
        """Draw where the sliders of this page stand; what a newer position overtakes is not
        drawn."""
        session = self.view.session
        pair = self._pair()
        if pair is None:
            self.image.set(src=data_url(session.face.before) if session.face else None)
            return
        self._wanted += 1
        wanted = self._wanted
        share = self.share if self.way == "share" else None
        layers = self.layers

        def draw() -> bytes | None:
            if wanted != self._wanted:
                return None
            return as_jpeg(session.render(blended(session, *pair, share=share, layers=layers)))

        self.view.start(draw, lambda data: self.image.set(src=data_url(data)) if data else None)

    def _take(self) -> None:
        session = self.view.session
        pair = self._pair()
        if pair is None:
            return

        share = self.share if self.way == "share" else None
        layers = self.layers
        name = f"{pair[0].name}-{pair[1].name}"[:60]
        self.view.start(
            lambda: session.show(
                blended(session, *pair, share=share, layers=layers), name, "a mixture"
            ),
            lambda _: self.view.goto("edit"),
        )

    def _save(self, ending: str) -> None:
        session = self.view.session
        pair = self._pair()
        if pair is None:
            return

        self.busy.show(True)

        def save() -> tuple[Path, str]:
            pictures = between(session, *pair, STEPS)
            return save_sweep(
                session, pictures, f"{pair[0].name}-to-{pair[1].name}", ending, [0.0] * STEPS
            )

        def done(found: tuple[Path, str]) -> None:
            self.view.toast(f"Saved {found[0].name}. {found[1]}".strip(), "", found[0])

        self.view.start(save, done, lambda: self.busy.show(False))
