"""Sliders of `faces64` for what can be measured in pixels: how light the face is, and the background.

    python recipes/faces64_light.py ../shared/data

The probe is fitted to the measurements of random pictures, then refined while classifiers of photographs hold sunglasses and
pose. Writes directions/shipped/faces64-v2/*.safetensors.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from faces64_data import KEPT_OUT_CMU
from faces64_ship import NAME, ROOT
from torch import Tensor

from latentedit.directions import fit_from_scores, read_labels, refine
from latentedit.directions.transfer import PhotoClassifier, log_odds, render_all
from latentedit.faces import crop_tensor, quad_of_window
from latentedit.images import open_image
from latentedit.models import Model, load_model
from latentedit.statistics import sample_w

Measure = Callable[[Tensor], Tensor]


def face(x: Tensor) -> Tensor:
    return x[:, 0, 20:52, 18:46].mean(dim=(1, 2))


def corners(x: Tensor) -> Tensor:
    return torch.cat([x[:, 0, :16, :8], x[:, 0, :16, -8:]], dim=2).mean(dim=(1, 2))


MEASURED: dict[str, tuple[Measure, str]] = {
    "light": (face, "mean grey value of the middle of the picture"),
    "background": (corners, "mean grey value of the upper corners"),
}
POSES = ("left", "right", "straight", "up")


def medians(model: Model, measure: Measure) -> tuple[float, float]:
    """Of 500 random pictures the median, and the standard deviation."""
    values = measure(render_all(model.generator, sample_w(model.generator, 500, seed=5)))
    return float(values.median()), float(values.std())


def held(model: Model, data: Path) -> list[PhotoClassifier]:
    """Classifiers of sunglasses and of every pose."""
    assert model.discriminator is not None
    found = []
    for column, positive in [("sunglasses", []), *(("pose", [pose]) for pose in POSES)]:
        table = read_labels(data / "cmu_faces" / "labels.csv", column, positive=positive, group="person", exclude=KEPT_OUT_CMU)
        images = torch.cat([crop_tensor(open_image(p), quad_of_window(30, 22, 64), 64, 1) for p in table.paths])
        found.append(PhotoClassifier(model.discriminator, images, table.values, mirror="none", examine=False))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(MEASURED))
    parser.add_argument("--out", type=Path, default=ROOT / "directions" / "shipped" / NAME)
    options = parser.parse_args()
    model = load_model("faces64")
    others = held(model, options.data)
    for name in options.only or MEASURED:
        measure, words = MEASURED[name]
        median, deviation = medians(model, measure)

        def scores(x: Tensor, measure: Measure = measure, middle: float = median, scale: float = 2 / deviation) -> Tensor:
            brighter = ((measure(x) - middle) * scale)[:, None]
            return torch.cat([brighter, -brighter, log_odds(others, x)], dim=1)

        start = fit_from_scores(
            measure, generator=model.generator, name=name, kind="ridge", samples=3000, provenance={"measured": words}
        )
        found = refine(start, model.generator, scores, discriminator=model.discriminator, hold_light=False)
        found.save(options.out / f"{name}.safetensors")
        print(name, found.report["r2"], found.report["refined_length"], flush=True)


if __name__ == "__main__":
    main()
