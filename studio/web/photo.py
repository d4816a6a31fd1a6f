"""The way in: an empty studio, a photo with its crop, and the search."""

from collections.abc import Callable

from latentedit.studio.keeping import Kept
from latentedit.studio.photos import Crop
from latentedit.studio.searches import QUALITIES
from latentedit.studio.web.tags import Tag, button, calls, choices, icon, sign_button
from latentedit.studio.web.view import View, data_url

ADVICE = (
    "Drag the square, its corners or the knob above it, or use keys. The dashed line joins the eyes"
    " and the mouth."
)
OFFERED = 3
"""Sessions that the page offers to go on with."""


class StartPart:
    """What a new user sees: where to drop a photo, and what else there is."""

    def __init__(self, view: View, stage: Tag, random: Callable[[], None]) -> None:
        self.view = view
        self.panel = None
        with stage:
            self.stage = Tag("div", "part start")
            with self.stage:
                self.restore = Tag("div", "restore", hidden=True)
                with Tag("div", "drop"):
                    icon("photo")
                    Tag("h1", text="Drop a photo of a face")
                    Tag(
                        "p",
                        "soft",
                        "or a latent file. One face, looking at the camera, works best.",
                    )
                    choose = button("Choose a photo", kind="primary large")
                    choose.on("click", js_handler="() => studio.choose()")
                    with Tag("div", "either"):
                        button("Use the example portrait", self._example, sign="photo")
                        button("Start with a random face", random, sign="dice")
                    self.busy = Tag(
                        "span", "busy", "Reading the photo …", hidden=True, role="status"
                    )
                Tag("p", "soft small", "Everything stays on this computer.")

    def _example(self) -> None:
        from latentedit.model.bundled import BUNDLED

        session = self.view.session
        self.reading(True)
        self.view.start(
            lambda: session.intake.open(BUNDLED / "portrait.jpg", "portrait"),
            lambda _: self.reading(False),
        )

    def reading(self, on: bool) -> None:
        self.busy.show(on)

    def offer(
        self, sessions: list[Kept], take: Callable[[Kept], None], forget: Callable[[Kept], None]
    ) -> None:
        """Offer the sessions that were left, the newest first."""
        self.restore.clear()
        with self.restore:
            for number, kept in enumerate(sessions[:OFFERED]):
                first = number == 0
                with Tag("div", "left" if first else "left older"):
                    text = f"You were editing {kept.name}" if first else kept.name
                    with Tag("p"):
                        Tag("b", text=text)
                        Tag("span", "soft small", f"{kept.when}, {step_count(kept)}")
                    button("Continue", calls(take, kept), kind="primary" if first else "")
                    sign_button("reset", f"Remove the session of {kept.name}", calls(forget, kept))
        self.restore.show(bool(sessions))

    def show(self, on: bool) -> None:
        self.stage.show(on)

    def refresh(self, what: str) -> None:
        if what == "photo":
            self.reading(False)


class PhotoPart:
    """A photo: its faces, the crop, the checks, the quality, and the search."""

    def __init__(self, view: View, stage: Tag, panel: Tag) -> None:
        self.view = view
        self.quality = "balanced"
        self._seen = ""
        with stage:
            self.stage = Tag("div", "part")
            with self.stage:
                self.sheet_box = Tag("div", "photo")
                with self.sheet_box:
                    self.sheet = Tag("div", "sheet")
                    with self.sheet:
                        self.image = Tag("img", alt="Your photo")
                        Tag("svg", id="crop", preserveAspectRatio="none")
                self.found = Tag("div", "viewer", hidden=True)
                with self.found, Tag("div", "frame"):
                    self.progress_image = Tag(
                        "img", alt="The picture that the search has found so far"
                    )
        with panel:
            self.panel = Tag("section", "part", aria_label="Photo")
            with self.panel:
                self._prepare()
                self._search()

    def _prepare(self) -> None:
        self.prepare = Tag("div", "steps")
        with self.prepare:
            Tag("h2", text="Is the crop right?")
            with Tag("div", "pair"):
                self.preview = Tag("img", alt="The crop as the search will see it")
                with Tag("div"):
                    Tag("p", "small soft", ADVICE)
                    with Tag("div", "by-keys hide-small", aria_hidden="true"):
                        for key in ("←", "↑", "↓", "→", "+", "-", "[", "]"):
                            Tag("kbd", text=key)
            for of, label, low, high in (("side", "Size", 5, 200), ("angle", "Turn", -45, 45)):
                with Tag("label", "field"):
                    Tag("span", text=label)
                    Tag(
                        "input",
                        "fine",
                        type="range",
                        data_of=of,
                        min=low,
                        max=high,
                        step="0.2",
                        style="accent-color:var(--accent)",
                    )
            self.checks = Tag("div", role="status")
            Tag("h2", text="What matters most?")
            options = [(key, quality.title, quality.text) for key, quality in QUALITIES.items()]
            choices("quality", "Quality", options, self.quality, self._choose)
            with Tag("div", "row last"):
                self.go = button("Find this face", self._go, kind="primary large grow")
                button("Another photo", self._leave, kind="quiet")

    def _search(self) -> None:
        self.searching = Tag("div", "steps", hidden=True)
        with self.searching:
            Tag("h2", text="Finding this face")
            with Tag("div", "pair"):
                self.wanted = Tag("img", alt="The crop that is searched for")
                with Tag("div"):
                    self.phase = Tag("p", text="Preparing")
                    self.left = Tag("p", "soft", "")
            self.bar = Tag("progress", max="100", value="0", aria_label="Search")
            self.halt = button("Stop, keep the best so far", self._stop, sign="stop")
            Tag(
                "p",
                "small soft",
                "The picture on the left gets better as it goes. Stop when it is good enough; it "
                "can be refined later.",
            )

    def _choose(self, key: str) -> None:
        self.quality = key

    def _go(self) -> None:
        session = self.view.session
        quality = self.quality
        self._begin()
        self.view.start(lambda: session.intake.invert(quality), self._done)

    def _begin(self) -> None:
        self.phase.say("Preparing")
        self.left.say("")
        self.bar.set(value="0")
        self.halt.set(disabled=None)
        self._modes(True)

    def _done(self, face: object) -> None:
        self._modes(False)
        if face is not None:
            self.view.session.intake.photo = None
            self.view.goto("edit")

    def _stop(self) -> None:
        self.halt.set(disabled=True)
        self.phase.say("Stopping")
        self.view.session.intake.stop()

    def _leave(self) -> None:
        self.view.session.intake.leave()

    def _modes(self, searching: bool) -> None:
        self.prepare.show(not searching)
        self.searching.show(searching)
        image = self.view.session.intake.progress_image
        self.found.show(searching and bool(image))
        self.sheet_box.show(not (searching and bool(image)))

    def show(self, on: bool) -> None:
        self.stage.show(on)
        self.panel.show(on)

    def refresh(self, what: str) -> None:
        session = self.view.session
        photo = session.intake.photo
        if what in ("photo", "all") and photo is not None:
            width, height = photo.image.size
            if self._seen != str(photo.path):
                self._seen = str(photo.path)
                self.image.set(src=data_url(session.intake.photo_preview()))
                self.sheet.style(f"--ratio:{width / height:.4f}")
                self._modes(session.intake.search is not None)
            self.preview.set(src=data_url(session.intake.crop_preview()))
            self.wanted.set(src=data_url(session.intake.crop_preview()))
            eyes = (session.model.framing or {}).get("eyes")
            mouth = (session.model.framing or {}).get("mouth")
            facts = {
                "square": square_of(photo.crop),
                "size": [width, height],
                "faces": [square_of(face) for face in photo.faces],
                "eyes": [eyes[0], mouth, eyes[1]] if eyes and mouth else eyes,
            }
            self.view.js("crop", facts)
            self._checks()
        if what in ("photo", "all") and photo is None:
            self._seen = ""
        if what in ("search", "all"):
            self._progress()

    def _checks(self) -> None:
        remarks = self.view.session.intake.remarks
        self.checks.clear()
        with self.checks, Tag("div", f"note {'warn' if remarks else 'good'}"):
            icon("warn" if remarks else "check")
            if not remarks:
                Tag("p", text="Nothing speaks against this crop.")
            else:
                with Tag("ul"):
                    for remark in remarks:
                        Tag("li", text=f"{remark[:1].upper()}{remark[1:]}.")

    def _progress(self) -> None:
        session = self.view.session
        progress = session.intake.progress
        if progress is None:
            self._modes(session.intake.search is not None)
            return
        self._modes(True)
        if session.intake.progress_image:
            self.progress_image.set(src=data_url(session.intake.progress_image))
        if session.intake.search is not None and not session.intake.search.stopped.is_set():
            self.phase.say(progress.phase)
        counted = f"step {progress.step} of {progress.total}" if progress.total else ""
        self.left.say(", ".join(part for part in (counted, time_left(progress.left)) if part))
        self.bar.set(value=f"{100 * progress.share:.0f}")


def step_count(kept: Kept) -> str:
    """Return how much there is to go on with."""
    count = len(kept.history.states) - 1
    return f"{count} step{'' if count == 1 else 's'}"


def square_of(crop: Crop) -> dict[str, float]:
    return {"x": crop.x, "y": crop.y, "side": crop.side, "angle": crop.angle}


def time_left(seconds: float | None) -> str:
    """Return the time as a person says it."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {max(round(seconds / 5) * 5, 5):.0f} seconds left"
    return f"about {round(seconds / 60):.0f} minutes left"
