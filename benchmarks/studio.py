"""How long the studio takes from a slider's input to the picture, in a real Chromium.

python benchmarks/studio.py [--steps 40] [--json figures.json]

Starts the studio with a random face, moves a slider step by step, each time until the frame of the
browser with the new picture is painted, then drags it for three seconds as a hand would. Give the
machine nothing else to do; the load average is written beside the figures.

The studio is started after one that is not counted, and Python keeps the compiled modules, as for
everybody who installs the package. "ready_s" is from the start of the process to the line with the
address, "import_s" is what a process takes that only imports the same modules, and
"ready_after_import_s" is the difference.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

IDLE = """() => {
  const busy = [...document.querySelectorAll(".busy")].some((one) => one.offsetParent);
  return !busy && studio.drawn.length > 0;
}"""
"""Nothing else is computed any more: it is known how far the sliders go."""
STEP = """async (value) => {
  const input = document.querySelector(".slider input[type=range]");
  const count = studio.drawn.length;
  const last = count ? studio.drawn[count - 1].number : 0;
  const began = performance.now();
  const painted = new Promise((done) => {
    studio.drawn.push = (one) => {  // told of it, as polling would take time from the page
      if (one.number > last) { delete studio.drawn.push; done(one); }
      return Array.prototype.push.call(studio.drawn, one);
    };
  });
  input.value = value;
  input.dispatchEvent(new Event("input", {bubbles: true}));
  const newest = await painted;
  return [newest.came - began, newest.time - began];
}"""
DRAG = """async (milliseconds) => {
  const input = document.querySelector(".slider input[type=range]");
  const before = studio.drawn.length, began = performance.now();
  let inputs = 0;
  while (performance.now() - began < milliseconds) {
    input.value = 2.5 * Math.sin((performance.now() - began) / 300);
    input.dispatchEvent(new Event("input", {bubbles: true}));
    inputs += 1;
    await new Promise(requestAnimationFrame);
  }
  const ended = performance.now();
  await new Promise((done) => setTimeout(done, 1000));
  const drawn = studio.drawn.slice(before);
  return {inputs, pictures: drawn.length, last: drawn[drawn.length - 1].time - ended};
}"""


IMPORTS = (
    "import latentedit.cli.main; from latentedit.runtime.loading import load_torch; load_torch(); "
    "import nicegui, latentedit.studio.session, latentedit.studio.web.app"
)
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def cpu_seconds(server: int) -> dict[str, float]:
    """Return what the server and the processes of the browser have computed so far; Linux only."""
    found: dict[int, tuple[int, float]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            facts = place.read_text().rpartition(")")[2].split()
            seconds = (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")
            found[int(place.parent.name)] = int(facts[1]), seconds

    def descends(process: int) -> bool:
        parent = found.get(process, (0, 0.0))[0]
        return process == os.getpid() or (parent > 1 and descends(parent))

    own = {process: seconds for process, (_, seconds) in found.items() if descends(process)}
    others = sum(own.values()) - own.get(server, 0.0) - own.get(os.getpid(), 0.0)
    return {"server": own.get(server, 0.0), "browser": others} if found else {}


def started(command: list[str]) -> tuple[subprocess.Popen[str], str, float]:
    """Start the studio; return its process, its address, and the seconds until it was there."""
    began = time.monotonic()
    server = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.search(r"http://\S+", server.stdout.readline())
    if found is None:
        ended(server)
        sys.exit("the studio did not start")
    return server, found[0], time.monotonic() - began


def ended(server: subprocess.Popen[str]) -> None:
    server.terminate()
    server.wait(20)


def measure(steps: int) -> dict[str, Any]:
    """Return the figures of one run."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        sys.exit("there is no chromium here")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-u",
            "-m",
            "latentedit.cli.main",
            "studio",
            "--no-browser",
            "--out",
            folder,
        ]
        for _ in range(2):
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", IMPORTS], env=ENVIRONMENT, check=True)
            imported = time.monotonic() - began
        server, _, _ = started(command)
        ended(server)
        server, address, ready = started(command)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
                tab = browser.new_page(viewport={"width": 1280, "height": 800})
                tab.set_default_timeout(120_000)
                tab.goto(address)
                tab.get_by_role("button", name="Start with a random face").click()
                tab.wait_for_selector(".slider", state="visible")
                tab.wait_for_function(IDLE)
                for value in (0.1, -0.1, 0.2):
                    tab.evaluate(STEP, value)
                spent = cpu_seconds(server.pid)
                times = [
                    tab.evaluate(STEP, 2 * (number % 20) / 20 - 1 + 0.013)
                    for number in range(steps)
                ]
                spent = {key: value - spent[key] for key, value in cpu_seconds(server.pid).items()}
                drag = tab.evaluate(DRAG, 3000)
                browser.close()
        finally:
            ended(server)
    painted = [one[1] for one in times]
    return {
        "ready_s": round(ready, 2),
        "import_s": round(imported, 2),
        "ready_after_import_s": round(ready - imported, 2),
        "median_ms": round(statistics.median(painted), 1),
        "p90_ms": round(quantile(painted, 0.9), 1),
        "worst_ms": round(max(painted), 1),
        "median_until_the_page_has_it_ms": round(statistics.median(one[0] for one in times), 1),
        **{f"cpu_ms_of_{who}": round(1000 * value / len(times), 1) for who, value in spent.items()},
        "drag_pictures_per_second": round(drag["pictures"] / 3, 1),
        "drag_last_picture_ms": round(drag["last"], 1),
        "drag_inputs": drag["inputs"],
        "load": [round(value, 2) for value in os.getloadavg()],
        "processors": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path, help="file for the figures; others in it stay")
    arguments = parser.parse_args()
    figures = measure(arguments.steps)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        known = json.loads(arguments.json.read_text()) if arguments.json.is_file() else {}
        arguments.json.write_text(json.dumps({**known, "slider": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
