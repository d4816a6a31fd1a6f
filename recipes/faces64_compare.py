"""Whether one `faces64` is better than another: in the eyes of the judge, and at inverting people neither has seen.

    PYTHONPATH=recipes python recipes/faces64_compare.py ../shared/data faces64-v1 faces64-v2 --set runs/faces64.zip

For three seeds: KID, precision and recall of random pictures by the judge's features, and inversions of 33 photographs of the
kept-out people into W, whose distance is taken by the judge's features too (the projector descends on the discriminator of its
own model, which is therefore no measure) and in dB. Figures are added to --out, a model at a time, so that it can be resumed.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from faces64_evaluate import chosen

from latentedit.images import to_tensor
from latentedit.inversion import invert
from latentedit.metrics import load_features, load_judge, measure
from latentedit.models import fingerprint, load_model
from latentedit.training import load_pictures

SEEDS, PICTURES = 3, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--set", type=Path, default=Path("runs/faces64.zip"), help="what both were trained on")
    parser.add_argument("--judge", type=Path, default=Path("runs/judge.safetensors"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("docs/faces64-compared.json"))
    options = parser.parse_args()
    judge, features, pictures = load_judge(options.judge), load_features(str(options.judge)), load_pictures(options.set)
    images = torch.cat([to_tensor(image) for _, image in chosen(options.data)])
    found = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for name in options.models:
        model = load_model(name)
        figures: dict[str, list[float]] = {}
        for seed in range(SEEDS):
            measured = measure(model, pictures, features, ["kid", "precision"], PICTURES, seed=seed * 1_000_003, mirror=True)
            result = invert(
                model.generator,
                images,
                "w",
                options.steps,
                method="adam",
                perceptual="discriminator",
                discriminator=model.discriminator,
                seed=seed,
            )
            with torch.no_grad():
                gap = judge.features(result.image_own_noise) - judge.features(images)
            measured["inversion_judge_distance"] = float(gap.square().sum(dim=1).sqrt().median())
            measured["inversion_psnr"] = statistics.median(d["psnr_own_noise"] for d in result.distances)
            for key, value in measured.items():
                figures.setdefault(key, []).append(round(value, 5))
            print(name, seed, json.dumps(measured), flush=True)
        found[Path(name).stem] = {"fingerprint": fingerprint(model.generator), "steps": options.steps, **figures}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
