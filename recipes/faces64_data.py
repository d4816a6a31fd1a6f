"""Makes the training set of `faces64` from the photographs in ../shared/data (see their READMEs).

    python recipes/faces64_data.py ../shared/data runs/faces64.zip

CMU pictures give their native 64 x 64 window at (30, 22); ORL pictures are brought to the same scale. The people kept
out of all training, for judging, are left out.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from latentedit.images import open_image
from latentedit.training.data import write_pictures

KEPT_OUT_CMU = ("cheyer", "megak")
KEPT_OUT_ORL = ("s26", "s27", "s28", "s29", "s30")
WINDOW = (30, 22, 94, 86)


def cmu_crop(path: Path) -> Image.Image:
    return open_image(path).crop(WINDOW)


def orl_crop(path: Path) -> Image.Image:
    """92 x 112 to 50 x 61, border extended to 64 x 64."""
    small = open_image(path).resize((50, 61), Image.Resampling.LANCZOS)
    return Image.fromarray(np.pad(np.asarray(small), ((1, 2), (7, 7)), mode="edge"))


def person(path: Path) -> str:
    return path.stem.split("_")[0]


def crops(data: Path, *, kept_out: bool, orl: bool = True) -> Iterator[tuple[str, Image.Image]]:
    """(name, 64 x 64 grey picture) of everyone to train on, or of the people ``kept_out``."""
    for path in sorted((data / "cmu_faces" / "images").glob("*.png")):
        if (person(path) in KEPT_OUT_CMU) == kept_out:
            yield f"cmu/{path.name}", cmu_crop(path)
    if orl:
        for path in sorted((data / "orl_faces" / "images").glob("*.png")):
            if (person(path) in KEPT_OUT_ORL) == kept_out:
                yield f"orl/{path.name}", orl_crop(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without-orl", action="store_true")
    parser.add_argument("--kept-out", action="store_true", help="the other people: a set to judge by, never to train on")
    options = parser.parse_args()
    count = write_pictures(options.out, crops(options.data, kept_out=options.kept_out, orl=not options.without_orl))
    print(f"{options.out}: {count} pictures")


if __name__ == "__main__":
    main()
