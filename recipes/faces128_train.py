"""Goes on training `faces128` on a CUDA device for a fixed time, with this project's trainer.

    latentedit dataset build ../shared/data/portraits/train --size 128 --out runs/faces128.zip
    python recipes/faces128_train.py runs/faces128.zip --from faces128 --seconds 400 \\
        --out runs/snapshot.safetensors

The learning rate is constant for three quarters of the time and falls to a twentieth over the last
quarter. `faces128-v2` was made so from `faces128-v1` in 393 s on one H200, and `faces128-v3` from
`faces128-v2` in 336 s. recipes/faces128_ship.py makes a model that ships of the snapshot.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from latentedit.formats.load_model import load_model
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.training import Trainer, load_preset
from latentedit.training.data import load_pictures

LEARNING_RATE = 0.002
AUGMENT_P = 0.19
"""Strength of the augmentation that the training before ended with."""
TOGETHER = 32
"""Steps between two looks at the clock."""


class Schedule:
    """Learning rates as tensors, because a captured step repeats the numbers it was captured
    with."""

    def __init__(self, trainer: Trainer) -> None:
        self.groups: list[tuple[dict[str, Any], float]] = []
        for optimizer in (trainer.g_optimizer, trainer.d_optimizer):
            for group in optimizer.param_groups:
                self.groups.append((group, float(group["lr"])))
                group["lr"] = torch.tensor(float(group["lr"]), device=trainer.device)

    def set(self, done: float) -> None:
        """``done`` is the share of the time that is over."""
        factor = min(1.0, max(0.05, (1 - done) / 0.25))
        for group, rate in self.groups:
            group["lr"].fill_(rate * factor)


def stages(before: Model, trainer: Trainer, seconds: float) -> dict[str, Any]:
    """Provenance: what was done before, and this."""
    assert trainer.augment is not None
    stage = {
        "size": trainer.g.resolution,
        "batch": trainer.config.batch,
        "seconds": round(seconds),
        "gamma": trainer.config.r1_gamma,
        "learning_rate": trainer.config.learning_rate,
        "images": trainer.images_seen,
        "images_per_second": round(trainer.images_seen / seconds),
        "p": round(float(trainer.augment.p), 4),
    }
    return {
        **before.provenance,
        "images_seen": before.provenance.get("images_seen", 0) + trainer.images_seen,
        "stages": [*before.provenance.get("stages", []), stage],
        "settings": trainer.config.as_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path)
    parser.add_argument(
        "--from",
        dest="start",
        default="faces128",
        help="model to go on from, best with its raw generator",
    )
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    before = load_model(options.start)
    config = replace(
        load_preset("faces128", 128),
        precision="auto",
        learning_rate=LEARNING_RATE,
        augment_p=AUGMENT_P,
        ema_kimg=20.0,
        ada_kimg=200.0,
    )
    trainer = Trainer(config, load_pictures(options.pictures), "cuda")
    trainer.start_from(before)
    schedule = Schedule(trainer)

    began = time.monotonic()
    with tqdm(total=round(options.seconds), unit="s") as bar:
        while (gone := time.monotonic() - began) < options.seconds:
            schedule.set(gone / options.seconds)
            for _ in range(TOGETHER):
                trainer.step()
            figures = {name: float(value) for name, value in trainer.figures.items()}
            if not all(math.isfinite(value) for value in figures.values()):
                raise SystemExit(f"diverged: {figures}")
            bar.set_postfix(images=trainer.images_seen, loss_d=round(figures["loss_d"], 3))
            bar.update(round(time.monotonic() - began) - bar.n)

    provenance = stages(before, trainer, time.monotonic() - began)
    print(json.dumps(provenance["stages"][-1]))
    model = Model(
        trainer.g_ema.cpu(),
        trainer.d.cpu(),
        before.framing,
        provenance,
        raw_generator=trainer.g.cpu(),
    )
    save_model(options.out, model)


if __name__ == "__main__":
    main()
