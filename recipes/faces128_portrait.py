"""Cuts the demo's portrait out of a photograph of the Face Research Lab London Set.

    python recipes/faces128_portrait.py ../shared/data/portraits

L. DeBruine and B. Jones, 2017, figshare 10.6084/m9.figshare.5047666, CC BY 4.0. The person is in no
training picture.
"""

import argparse
from pathlib import Path

from faces128_ship import ROOT
from PIL import Image

from latentedit.io.images import open_image

PERSON = "london-122-neutral.jpg"
BOX = (130, 110, 770, 840)
SIZE = (560, 639)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "latentedit" / "bundled" / "portrait.jpg"
    )
    options = parser.parse_args()
    photo = open_image(options.data / "held_out_photos" / PERSON).convert("RGB")
    photo.crop(BOX).resize(SIZE, Image.Resampling.LANCZOS).save(
        options.out, quality=88, optimize=True
    )
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
