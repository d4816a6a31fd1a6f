"""How long commands take that should answer at once, as the shell sees it.

Each is a process of its own, after one that is not counted. The processor time is the figure to
compare on a busy machine; on an idle one, both are about the same. Python keeps the compiled
modules, as for everybody who installs the package, whatever PYTHONDONTWRITEBYTECODE says. The last
row is the floor of every command that computes.

    python benchmarks/startup.py [--runs 5]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ANSWER = 0.5
EDIT = 2.5
"""Seconds that commands may take on an idle machine."""


ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
OURS = ["-m", "latentedit"]


def commands(folder: Path) -> list[tuple[list[str], float | None]]:
    """Return Python's arguments with the seconds that they may take; an edit needs a latent in
    ``folder``."""
    missing = str(folder / "missing")
    ours: list[tuple[list[str], float]] = [
        (["--help"], ANSWER),
        (["model", "zoo"], ANSWER),
        (["directions", "list"], ANSWER),
        (["directions", "show", "smile"], ANSWER),
        (["edit", f"{missing}.safetensors", "--set", "smile=1", "--out", "x.png"], ANSWER),
        (["invert", f"{missing}.jpg", "--out", missing], ANSWER),
        (["sample", missing, "--out", "x.png"], ANSWER),
        (["edit", str(folder / "a.safetensors"), "--set", "smile=1", "--out", "e.png"], EDIT),
    ]
    return [*(([*OURS, *words], most) for words, most in ours), (["-c", "import torch"], None)]


def timed(words: list[str], folder: Path) -> tuple[float, float]:
    """Run Python with ``words``; return its seconds on the clock and on the processor."""
    before = os.times()
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, check=False
    )
    after = os.times()
    processor = after.children_user + after.children_system
    processor -= before.children_user + before.children_system
    return time.perf_counter() - began, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        latent = ["sample", "faces128", "--seeds", "5", "--out", "a.safetensors"]
        timed([*OURS, *latent], folder)
        print("| command | clock, s | processor, s | at most |\n|---|---|---|---|")
        for words, most in commands(folder):
            timed(words, folder)
            found = [timed(words, folder) for _ in range(runs)]
            clock, processor = (statistics.median(column) for column in zip(*found, strict=True))
            given = words[2:] if words[:2] == OURS else ["python", *words]
            shown = " ".join(Path(word).name if os.sep in word else word for word in given)
            print(f"| {shown} | {clock:.2f} | {processor:.2f} | {most or ''} |", flush=True)


if __name__ == "__main__":
    main()
