"""How long commands take that should answer at once, as the shell sees it.

Each is a process of its own, after one that is not counted. The processor time is the figure to
compare on a busy machine; on an idle one, both are about the same.

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


def commands(folder: Path) -> list[tuple[list[str], float]]:
    """Return commands with what they may take; an edit needs a latent in ``folder``."""
    missing = str(folder / "missing")
    return [
        (["--help"], ANSWER),
        (["model", "zoo"], ANSWER),
        (["directions", "list"], ANSWER),
        (["directions", "show", "smile"], ANSWER),
        (["edit", f"{missing}.safetensors", "--set", "smile=1", "--out", "x.png"], ANSWER),
        (["invert", f"{missing}.jpg", "--out", missing], ANSWER),
        (["sample", missing, "--out", "x.png"], ANSWER),
        (["edit", str(folder / "a.safetensors"), "--set", "smile=1", "--out", "e.png"], EDIT),
    ]


def timed(words: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return its seconds on the clock and on the processor."""
    before = os.times()
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "latentedit", *words], cwd=folder, capture_output=True, check=False
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
        timed(latent, folder)
        print("| command | clock, s | processor, s | at most |\n|---|---|---|---|")
        for words, most in commands(folder):
            timed(words, folder)
            found = [timed(words, folder) for _ in range(runs)]
            clock, processor = (statistics.median(column) for column in zip(*found, strict=True))
            shown = " ".join(Path(word).name if os.sep in word else word for word in words)
            print(f"| {shown} | {clock:.2f} | {processor:.2f} | {most} |", flush=True)


if __name__ == "__main__":
    main()
