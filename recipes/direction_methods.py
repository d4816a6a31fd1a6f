"""Which way from labelled photographs to a direction is better: score transfer, or inverting every photograph?

    python recipes/direction_methods.py ../shared/data --judge runs/judge.safetensors

Fits sunglasses and turn both ways on the same photographs (unmirrored, for time), and lets the judge look at 200 random w
moved by -2 and +2 sigmas: the share of pairs in which it finds the attribute stronger at +2, and the mean change of its
log odds for that attribute and for the other one, which should stay.
"""

import argparse
import time
from pathlib import Path

import torch
from faces64_data import KEPT_OUT_CMU
from faces64_evaluate import judged, rendered

from latentedit.directions import fit_from_inversions, fit_from_photos, read_labels
from latentedit.editing import edit
from latentedit.faces import crop_tensor, quad_of_window
from latentedit.images import open_image
from latentedit.metrics import load_judge
from latentedit.models import load_model
from latentedit.statistics import sample_w

LABELS = {"sunglasses": ("sunglasses", [], []), "turn": ("pose", ["left"], ["right"])}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--judge", type=Path, default=Path("runs/judge.safetensors"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", choices=list(LABELS))
    options = parser.parse_args()
    judge, model = load_judge(options.judge), load_model("faces64")
    generator, discriminator = model.generator, model.discriminator
    assert discriminator is not None
    ws = sample_w(generator, 200, seed=5)[:, None].expand(-1, generator.num_ws, -1)
    for name, (column, yes, no) in LABELS.items():
        if options.only not in (None, name):
            continue
        table = read_labels(
            options.data / "cmu_faces" / "labels.csv", column, positive=yes, negative=no, group="person", exclude=KEPT_OUT_CMU
        )
        images = torch.cat([crop_tensor(open_image(p), quad_of_window(30, 22, 64), 64, 1) for p in table.paths])
        for method in ("transfer", "invert"):
            started = time.monotonic()
            with torch.enable_grad():
                if method == "transfer":
                    direction = fit_from_photos(
                        images, table.values, generator=generator, discriminator=discriminator,
                        name=name, groups=table.groups, mirror="none",
                    )  # fmt: skip
                else:
                    direction = fit_from_inversions(
                        images, table.values, generator=generator, discriminator=discriminator,
                        name=name, groups=table.groups, mirror="none", steps=options.steps,
                    )  # fmt: skip
            low, high = (rendered(generator, edit(ws, direction, amount)) for amount in (-2.0, 2.0))
            change = {attribute: judged(judge, high, attribute) - judged(judge, low, attribute) for attribute in LABELS}
            moved = ", ".join(f"{attribute} {float(c.mean()):+.2f}" for attribute, c in change.items())
            right = float((change[name] > 0).float().mean())
            print(
                f"{name:10} {method:8} {time.monotonic() - started:5.0f} s  pairs right {right:.3f}  log odds {moved}"
                f"  photo AUC {direction.report.get('photo_auc', direction.report['auc'])}",
                flush=True,
            )


if __name__ == "__main__":
    main()
