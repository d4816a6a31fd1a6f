"""Turns a snapshot of the `faces64` run into the model that ships, with its directions.

    python recipes/faces64_ship.py runs/faces64/model.safetensors ../shared/data

Writes latentedit/bundled/faces64-v2.safetensors and directions/shipped/faces64-v2/*.safetensors. The directions are made
by `latentedit directions fit`; the commands are printed as they run.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from faces64_data import KEPT_OUT_CMU, KEPT_OUT_ORL

from latentedit.models import load_model, save_model

ROOT = Path(__file__).parent.parent
NAME = "faces64-v2"
PROVENANCE = {
    "name": NAME,
    "licence": "CC BY 4.0, with the attributions in LICENSE-faces64.md",
    "sources": "CMU Face Images (T. Mitchell, 1999); ORL faces (AT&T Laboratories Cambridge, 1992-1994)",
    "kept_out": [*KEPT_OUT_CMU, *KEPT_OUT_ORL],
}
# The labels say left for the person's left: the face then looks to the right of the picture.
DIRECTIONS = {
    "sunglasses": ["--column", "sunglasses"],
    "turn": ["--column", "pose", "--positive", "left", "--negative", "right", "--mirror", "swap"],
    "look-up": ["--column", "pose", "--positive", "up", "--negative", "straight"],
}
REFINED = {
    "sunglasses": ["--column", "sunglasses", "--hold", "pose", "--layers", "0-5"],
    "turn": [*DIRECTIONS["turn"], "--hold", "sunglasses"],
}
"""Those whose pictures the judge finds better for it (docs/directions.md); look-up moves more else when it is refined."""
STEPS = 150


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only-directions", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(DIRECTIONS), help="these directions alone")
    parser.add_argument("--only-refine", action="store_true", help="refine the directions that are there")
    options = parser.parse_args()
    bundled = ROOT / "latentedit" / "bundled" / f"{NAME}.safetensors"
    if not options.only_directions:
        model = load_model(options.snapshot)
        model.provenance = {**model.provenance, **PROVENANCE}
        save_model(bundled, model)
        print(f"{bundled}: {bundled.stat().st_size / 2**20:.1f} MiB")
    labels = str(options.data / "cmu_faces" / "labels.csv")
    common = ["--group", "person", *(part for someone in KEPT_OUT_CMU for part in ("--exclude", someone))]
    common += ["--crop", "30,22,64", "--model", str(bundled)]
    for name in options.only or DIRECTIONS:
        out = str(ROOT / "directions" / "shipped" / NAME / f"{name}.safetensors")
        if not options.only_refine:
            run("fit", labels, *DIRECTIONS[name], "--name", name, *common, "--out", out)
        if name in REFINED:
            run("refine", out, labels, *REFINED[name], "--steps", str(STEPS), *common, "--out", out)


def run(*arguments: str) -> None:
    print("latentedit directions", shlex.join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "latentedit.cli.main", "directions", *arguments], check=True)


if __name__ == "__main__":
    main()
