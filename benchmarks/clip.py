"""A made-up clip: the bundled portrait, panned, zoomed, flickering in brightness, and noisy.

``python benchmarks/clip.py clip`` writes its frames; docs/photo.md compares inversions of it.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

PORTRAIT = Path(__file__).parents[1] / "latentedit" / "bundled" / "portrait.jpg"
FRAMES = 10
WIDTH = 400
NOISE = 3.0
"""Standard deviation of the noise, in grey levels."""


def frame(photo: Image.Image, share: float, draws: np.random.RandomState) -> Image.Image:
    """The picture at ``share`` of the clip's length, from 0 to 1."""
    zoom = 1 + 0.12 * share
    width = photo.width * 0.86 / zoom
    height = photo.height * 0.86 / zoom
    x = photo.width * (0.47 + 0.06 * share)
    y = photo.height * (0.5 - 0.03 * share)
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    size = WIDTH, WIDTH * photo.height // photo.width
    pixels = np.asarray(photo.resize(size, Image.Resampling.LANCZOS, box=box)).astype(np.float64)
    pixels = pixels * (1 + 0.03 * np.sin(4 * share)) + NOISE * draws.randn(*pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.RandomState(0)
    with Image.open(PORTRAIT) as file:
        photo = file.convert("RGB")
    for number in range(FRAMES):
        frame(photo, number / (FRAMES - 1), draws).save(folder / f"{number + 1}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "clip"))
