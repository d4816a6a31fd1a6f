"""How far the sliders that ship may be moved, and what their two ends mean, in words.

Every slider is moved on random faces until the picture is no longer one of the model's own, or
another person's (`latentedit.photo.looking`; this needs `latentedit[faces]`). The amount up to
which nearly all faces stay whole is the safe one. `latentedit directions list` shows what this
writes beside the sliders.

python recipes/safe_amounts.py [--faces 20]
"""

import argparse
from pathlib import Path

import numpy as np
import tomli_w
import torch

from latentedit.cli.looks import onlooker_of
from latentedit.directions.meaning import ABOUT
from latentedit.directions.registry import shipped
from latentedit.formats.load_model import load_model
from latentedit.latent.latent_file import Latent
from latentedit.latent.w_statistics import sample_z
from latentedit.networks.fingerprint import fingerprint

PSI = 0.7
FIRST_SEED = 500
NEARLY_ALL = 0.9
WORDS = {
    "background": ("dark background", "light background"),
    "bald": ("full hair", "bald"),
    "femininity": ("looks like a man", "looks like a woman"),
    "glasses": ("no glasses", "wears glasses"),
    "grey-hair": ("dark or blond hair", "grey hair"),
    "light": ("shade on the face", "light on the face"),
    "mouth-open": ("mouth closed", "mouth open"),
    "smile": ("serious", "smiles"),
    "turn": ("looks to the left of the image", "looks to the right of the image"),
    "warmth": ("cold light", "warm light"),
}
"""What a negative and a positive amount mean."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--faces", type=int, default=20, help="Random faces to look at.")
    options = parser.parse_args()

    model = load_model("faces128")
    own = fingerprint(model.generator)
    onlooker = onlooker_of(model)
    looks = []
    for seed in range(FIRST_SEED, FIRST_SEED + options.faces):
        with torch.no_grad():
            ws = model.generator.mapping(sample_z(seed, model.generator.z_dim), None, PSI)
        look = onlooker.look(Latent(ws, None, own, "w"))
        print(seed, look.domain, look.face, flush=True)
        if any(low or high for low, high in look.safe.values()):
            looks.append(look)

    files = shipped(own)
    about = {}
    for name in files:
        ends = np.array([look.safe[name] for look in looks])
        low = float(np.quantile(ends[:, 0], NEARLY_ALL, method="higher"))
        high = float(np.quantile(ends[:, 1], 1 - NEARLY_ALL, method="lower"))
        minus, plus = WORDS[name]
        about[name] = {"minus": minus, "plus": plus, "safe": [low, high]}
        print(name, low, high)
    folder = next(iter(files.values())).parent
    (folder / ABOUT).write_text(tomli_w.dumps(about))
    print(f"{len(looks)} of {options.faces} faces; wrote {Path(folder) / ABOUT}")


if __name__ == "__main__":
    main()
