"""Takes a picture of every state of the studio, to be looked at, and those of this documentation.

python docs/make_studio.py FOLDER [--photo me.jpg] [--docs]

Opens the studio with `faces128` in a headless Chromium, does what a user does, and writes
FOLDER/NAME-WIDTH-COLOURS.png for every state, width and colour scheme. ``--docs`` writes
docs/studio-*.jpg, too.
"""

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

DOCS = Path(__file__).parent
SIZES = ((1280, 800), (390, 844))
ONCE = ((360, 740), (2560, 1440))
"""Sizes at which only some states are looked at."""
DOCUMENTED = {"photo": "studio-photo", "divider-photo": "studio-edit", "report": "studio-discover"}


class Visit:
    """One server and one page of it.

    Args:
        out: the folder of the session.
        shots: where the pictures go.
    """

    def __init__(self, browser: Any, out: Path, shots: Path, docs: bool) -> None:
        command = [sys.executable, "-u", "-m", "latentedit", "studio", "--no-browser", "--out", out]
        self.server = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        found = re.search(r"http://\S+", self.server.stdout.readline())
        assert found is not None
        self.address = found[0]
        self.shots, self.docs = shots, docs
        self.page = browser.new_page(viewport=dict(zip(("width", "height"), SIZES[0], strict=True)))
        self.page.set_default_timeout(500_000)
        self.page.goto(self.address)
        self.page.wait_for_function("window.socket && window.socket.connected")

    def shoot(self, name: str, once: bool = False) -> None:
        """Take the state's pictures."""
        sizes = SIZES[:1] if self.docs else (*SIZES, *(ONCE if once else ()))
        for width, height in sizes:
            self.page.set_viewport_size({"width": width, "height": height})
            for colours in ("light",) if self.docs else ("light", "dark"):
                self.page.evaluate(
                    "(theme) => { document.documentElement.dataset.theme = theme; }", colours
                )
                self.page.wait_for_timeout(150)
                place = self.shots / f"{name}-{width}-{colours}.png"
                self.page.screenshot(path=place)
                if self.docs and name in DOCUMENTED and (width, colours) == (1280, "light"):
                    with Image.open(place) as image:
                        image.convert("RGB").save(DOCS / f"{DOCUMENTED[name]}.jpg", quality=88)
        self.page.set_viewport_size(dict(zip(("width", "height"), SIZES[0], strict=True)))
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def mode(self, name: str) -> None:
        self.page.locator(f"nav button[data-mode={name}]").click()

    def slide(self, name: str, amount: float) -> None:
        """Move a slider, and wait for its image."""
        before = self.page.locator("#after").get_attribute("data-number")
        self.page.locator(f'.slider[data-name="{name}"] input[type=range]').evaluate(
            """(input, value) => { input.value = value;
            for (const kind of ["input", "change"])
              input.dispatchEvent(new Event(kind, {bubbles: true})); }""",
            amount,
        )
        self.page.wait_for_function(
            "(n) => document.querySelector('#after').dataset.number !== n", arg=before
        )
        self.page.wait_for_timeout(300)

    def end(self) -> None:
        self.page.close()
        self.server.terminate()
        self.server.wait(60)


def photo(visit: Visit, photo_file: Path, scratch: Path) -> None:
    """From the empty page to a face with sliders."""
    page = visit.page
    visit.shoot("empty", once=True)
    page.evaluate("document.body.classList.add('dragging')")
    visit.shoot("dragging")
    page.evaluate("document.body.classList.remove('dragging')")
    (scratch / "notes.png").write_text("no picture")
    page.locator("#file").set_input_files(scratch / "notes.png")
    page.wait_for_selector(".toast.bad")
    visit.shoot("error")
    page.locator(".toast button").click()

    blank = scratch / "blank.png"
    Image.new("RGB", (900, 600), "#8fa3b0").save(blank)
    page.locator("#file").set_input_files(blank)
    page.wait_for_selector(".note.warn", state="visible")
    visit.shoot("no-face")
    with Image.open(photo_file) as one:
        both = Image.new("RGB", (2 * one.width, one.height))
        both.paste(one, (0, 0))
        both.paste(one.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (one.width, 0))
    both.save(scratch / "two.jpg", quality=95)
    page.locator("#file").set_input_files(scratch / "two.jpg")
    page.wait_for_selector("#crop .other")
    visit.shoot("two-faces")
    page.locator("#file").set_input_files(photo_file)
    page.wait_for_selector("#crop .other", state="detached")
    page.wait_for_timeout(1500)
    visit.shoot("photo", once=True)
    page.locator("#crop .crop").focus()
    for key in "]]]]]]]]]]]]]]--":
        page.keyboard.press(key)
    page.wait_for_timeout(1500)
    visit.shoot("crop-by-hand")
    page.locator("#file").set_input_files(photo_file)
    page.wait_for_timeout(2500)
    visit.press("Find this face")
    page.get_by_alt_text("The picture that the search has found so far").wait_for()
    page.wait_for_function("document.querySelector('progress').value > 4")
    visit.shoot("searching")
    if not visit.docs:
        with contextlib.suppress(Exception):  # it may have ended
            page.get_by_role("button", name="Stop, keep the best so far").click(timeout=2000)
    page.wait_for_selector(".slider", state="visible")
    visit.shoot("found")
    page.locator(".busy").first.wait_for(state="hidden")


def sliders(visit: Visit) -> None:
    """What the page of sliders can show."""
    page = visit.page
    visit.slide("smile", 1.5)
    visit.slide("light", 0.5)
    visit.shoot("edited", once=True)
    page.locator(".busy").filter(visible=True).first.wait_for(state="hidden")
    page.locator("#divide").click()
    visit.shoot("divider")
    page.locator('.segments input[value="photo"]').check(force=True)
    page.wait_for_timeout(1500)
    visit.shoot("divider-photo")
    page.locator("#divide").click()
    page.locator('.slider[data-name="turn"] .lock').click()
    page.locator('.slider[data-name="smile"] .open').click()
    visit.slide("grey-hair", 3.0)
    page.locator('.slider[data-name="smile"]').scroll_into_view_if_needed()
    visit.shoot("locked-and-far")
    page.locator('.slider[data-name="smile"] .open').click()
    page.evaluate("document.querySelector('.toast button')?.click()")
    page.keyboard.press("?")
    visit.shoot("keys")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    page.wait_for_selector("#save[open]")
    visit.shoot("save")
    page.locator("#save").get_by_role("button", name="Picture", exact=True).click()
    page.wait_for_selector(".toast a")
    visit.shoot("saved")


def more(visit: Visit) -> None:
    """The other modes."""
    page = visit.page
    visit.mode("paste")
    page.wait_for_selector("img.big", state="visible")
    page.wait_for_timeout(1500)
    visit.shoot("paste")
    visit.mode("mix")
    page.wait_for_timeout(600)
    visit.shoot("mix-empty")
    visit.mode("faces")
    page.wait_for_function("document.querySelectorAll('.tile').length >= 12")
    visit.shoot("faces", once=True)
    page.get_by_role("button", name="Edit the face of seed 3").click()
    page.locator(".slider").first.wait_for()
    visit.mode("mix")
    page.wait_for_timeout(1500)
    visit.shoot("mix", once=True)
    visit.mode("paste")
    page.wait_for_timeout(800)
    visit.shoot("paste-empty")


def grids(visit: Visit) -> None:
    """One slider as a strip, and two as a grid."""
    page = visit.page
    visit.mode("grid")
    page.wait_for_timeout(500)
    visit.shoot("grid-empty")
    visit.press("Draw")
    page.locator(".table .tile").first.wait_for()
    visit.shoot("sweep")
    page.get_by_label("Down").select_option("turn")
    visit.press("Draw")
    page.wait_for_function("document.querySelectorAll('.table .tile').length === 25")
    visit.shoot("grid", once=True)


def discover(visit: Visit) -> None:
    """Labels, the report, and components."""
    page = visit.page
    visit.mode("discover")
    visit.shoot("discover-empty")
    page.locator("#attribute").fill("dark-hair")
    visit.press("Label faces")
    page.wait_for_timeout(3000)
    visit.shoot("generating")
    page.locator("#question").get_by_text("dark-hair?").wait_for()
    page.wait_for_function("document.querySelector('#sample').naturalWidth > 0")
    visit.shoot("labelling", once=True)
    for number in range(40):
        page.wait_for_function(
            "(n) => document.querySelector('#count-left').textContent === n", arg=str(120 - number)
        )
        page.wait_for_function(
            "!document.querySelector('#yes').disabled && document.querySelector('#sample').complete"
        )
        # Dark or not: the middle of the upper edge, where the hair is.
        dark = page.evaluate(
            """() => { const c = document.createElement("canvas"), x = c.getContext("2d");
            x.drawImage(document.querySelector("#sample"), 0, 0, 16, 16);
            const d = x.getImageData(6, 1, 4, 1).data;
            return (d[0] + d[5] + d[10]) / 3 < 75; }"""
        )
        page.keyboard.press("j" if dark else "f")
    page.wait_for_function("document.querySelector('#count-left').textContent === '80'")
    visit.shoot("labelled")
    visit.press("Make the slider")
    page.get_by_text("is a slider now").wait_for()
    visit.shoot("report")
    visit.press("Find by SeFa")
    page.locator("#component").wait_for()
    visit.shoot("components")
    visit.mode("edit")
    page.wait_for_timeout(800)
    page.locator(".group").last.scroll_into_view_if_needed()
    visit.shoot("sliders-of-all-kinds")


def ends(visit: Visit, again: Callable[[], Visit]) -> None:
    """A server that is gone, and the offer to go on."""
    visit.server.kill()
    visit.page.locator(".nicegui-error-popup, #popup").first.wait_for()
    visit.page.wait_for_timeout(500)
    visit.shoot("gone")
    visit.page.close()
    second = again()
    second.page.get_by_text("You were editing").wait_for()
    second.shoot("offer", once=True)
    second.page.goto(second.address.partition("?")[0])
    second.end()


PARTS = {"sliders": sliders, "more": more, "grids": grids, "discover": discover}


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--photo", type=Path, default=DOCS.parent / "latentedit/bundled/portrait.jpg"
    )
    parser.add_argument("--docs", action="store_true", help="write docs/studio-*.jpg, too")
    parser.add_argument("--parts", default=",".join(("photo", *PARTS, "ends")))
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    program = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        scratch = Path(name)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])

        def visit() -> Visit:
            return Visit(browser, scratch / "out", chosen.folder, chosen.docs)

        first = visit()
        try:
            parts = chosen.parts.split(",")
            if "photo" in parts:
                photo(first, chosen.photo, scratch)
            else:
                first.press("Start with a random face")
                first.page.wait_for_selector(".slider", state="visible")
            for name, part in PARTS.items():
                if name in parts:
                    part(first)
            if "ends" in chosen.parts:
                ends(first, visit)
        finally:
            if first.server.poll() is None:
                first.end()
        browser.close()


if __name__ == "__main__":
    main()
