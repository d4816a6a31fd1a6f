"""Draws the pictures of the README and the model card: people of the London set who are in no
training picture.

    PYTHONPATH=recipes:benchmarks python recipes/faces128_pictures.py ../shared/data/portraits

Writes docs/people.png (photograph, inversion tuned as in the demo, four sliders) and
docs/faces128-samples.png (random faces at psi 0.7). The photographs may be shown under CC BY 4.0:
L. DeBruine and B. Jones, figshare 10.6084/m9.figshare.5047666.
"""

import argparse
from pathlib import Path

import torch
from faces128_ship import NAME, ROOT
from inversion import held_out
from torch import Tensor

from latentedit.cli.demo import FIRST, render_moved, search
from latentedit.directions import load_direction
from latentedit.formats.load_model import load_model
from latentedit.inversion.projector import STEPS
from latentedit.io.contact_sheet import Row, sheet
from latentedit.io.images import save_image
from latentedit.latent.w_statistics import sample_z

PEOPLE = ("london-014", "london-045", "london-025")
LARGE = 256
SMALL = 128


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--people", nargs="+", default=list(PEOPLE))
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()

    model = load_model(NAME)
    generator = model.generator
    rows, images = held_out(options.data)
    lines: list[Row] = []
    for person in options.people:
        i = next(
            i
            for i, row in enumerate(rows)
            if row["person"] == person and row["expression"] == "neutral"
        )
        result, tuning = search(model, images[i : i + 1], STEPS["quasi-newton"], 0)
        latent = result.latent()
        assert tuning is not None
        tuning.put_into(latent)
        cells: list[Tensor] = [images[i], latent.render(generator)]
        cells += [
            render_moved(generator, latent, load_direction(name), amount)
            for name, amount in FIRST.items()
        ]
        captions = [
            "photograph",
            "inversion, tuned",
            *(f"{name} {amount:+g}" for name, amount in FIRST.items()),
        ]
        lines.append(Row("", cells, () if lines else captions))
        print(f"{person}: {tuning.after['psnr']:.1f} dB", flush=True)
    save_image(sheet(lines, LARGE), options.out / "people.png")
    print(f"wrote {options.out / 'people.png'}")

    drawn = []
    with torch.no_grad():
        for seed in range(32):
            drawn.append(
                generator.synthesis(
                    generator.mapping(sample_z(seed, generator.z_dim), truncation_psi=0.7)
                )
            )
    save_image(
        sheet([Row("", drawn[i : i + 8]) for i in range(0, 32, 8)], SMALL),
        options.out / "faces128-samples.png",
    )
    print(f"wrote {options.out / 'faces128-samples.png'}")


if __name__ == "__main__":
    main()
