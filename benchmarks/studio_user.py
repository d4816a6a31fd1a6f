"""How long a new user takes from a dropped photo to a saved smile, in a real Chromium.

python benchmarks/studio_user.py PHOTO FOLDER [--json figures.json]

The user of this script knows nothing but what the page says: it looks for headings, buttons and
sliders by their words. Every default stays as it is. FOLDER gets an image of every state.
"""

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], name, {type: "image/jpeg"}));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true});
    document.body.dispatchEvent(event);
  }
}"""


class User:
    """Somebody who reads the page, with a watch."""

    def __init__(self, page: Any, shots: Path) -> None:
        self.page = page
        self.shots = shots
        self.began = time.monotonic()
        self.times: dict[str, float] = {}

    def notes(self, what: str) -> None:
        """Note the time of a state, and take its image."""
        self.times[what] = round(time.monotonic() - self.began, 1)
        self.page.screenshot(path=self.shots / f"user-{len(self.times)}-{what}.png")
        print(f"{self.times[what]:6.1f} s  {what}", flush=True)

    def reads(self, words: str) -> None:
        """Wait until the page says something."""
        self.page.get_by_text(re.compile(words, re.IGNORECASE)).filter(
            visible=True
        ).first.wait_for()

    def presses(self, words: str, within: Any = None) -> None:
        """Press the button that is called so."""
        place = self.page if within is None else within
        place.get_by_role("button", name=re.compile(words, re.IGNORECASE)).filter(
            visible=True
        ).first.click()


def smile(page: Any, photo: Path, shots: Path) -> dict[str, float]:
    """Go the whole way, and return the seconds at which every state was reached."""
    user = User(page, shots)
    user.reads("drop a photo")
    user.began = time.monotonic()
    page.evaluate(DROP, [photo.name, base64.b64encode(photo.read_bytes()).decode()])
    user.reads("is the crop right")
    user.notes("crop")

    user.presses("find this face")
    page.get_by_role("button", name=re.compile("stop", re.IGNORECASE)).wait_for()
    user.notes("searching")

    slider = page.get_by_role("slider", name=re.compile("^smile", re.IGNORECASE))
    slider.wait_for()
    picture = page.get_by_role("img", name=re.compile("edited face", re.IGNORECASE))
    page.wait_for_function("document.querySelector('#after').src")
    before = picture.get_attribute("src")
    user.notes("found")

    slider.focus()
    for _ in range(30):  # steps of the slider, as the arrow key makes them
        page.keyboard.press("ArrowRight")
    page.wait_for_function("(src) => document.querySelector('#after').src !== src", arg=before)
    page.wait_for_timeout(1000)
    user.notes("smiling")

    user.presses("^save")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    user.notes("save")
    user.presses("^picture", dialog)
    user.reads("^saved")
    user.notes("saved")
    return user.times


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, help="file for the figures; others in it stay")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as out, sync_playwright() as playwright:
        command = [sys.executable, "-u", "-m", "latentedit", "studio", "--no-browser", "--out", out]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = re.search(r"http://\S+", server.stdout.readline())
            assert address is not None
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(900_000)
            page.goto(address[0])
            times = smile(page, chosen.photo, chosen.folder)
            saved = [path.name for path in Path(out).glob("*.png")]
            browser.close()
        finally:
            server.terminate()
            server.wait(30)
    figures = {"seconds": times, "saved": saved, "load": [round(load, 2), os.getloadavg()[0]]}
    print(json.dumps(figures, indent=2))
    if chosen.json:
        known = json.loads(chosen.json.read_text()) if chosen.json.is_file() else {}
        chosen.json.write_text(json.dumps({**known, "new_user": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
