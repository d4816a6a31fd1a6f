"""Trains the encoder of `faces128` from the model's own pictures and the crops it was trained on.

    latentedit dataset build ../shared/data/portraits/train --size 128 --out runs/faces128.zip
    python recipes/faces128_encoder.py runs/faces128.zip --steps 2000

Two thirds of every batch are photographs, which are compared as pictures: pixels at 128 and 32 px, those of the face counting
four times. Ctrl-C keeps the state, and the same command goes on. Held-out people take no part.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from faces128_ship import NAME, ROOT
from torch import Tensor

from latentedit.curvature import Curvature
from latentedit.encoder import EncoderConfig
from latentedit.models import ENCODER, load_model, save_encoder
from latentedit.perceptual import DiscriminatorDistance
from latentedit.statistics import WStatistics
from latentedit.training.data import load_pictures
from latentedit.training.encoders import EncoderTrainer, saved_curvature, train_encoder

PASSES = 2
PROBES = 256
WEIGHT = 5.0
"""Of either mean square of pixels."""
FACE = 4.0
"""How much more a pixel of the face counts than one of the background."""


def face_weights(side: int) -> Tensor:
    """``[1, side, side]`` of mean 1: a soft ellipse where faces lie in an FFHQ crop."""
    centres = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    inside = torch.sigmoid(6 * (1 - ((x - 0.5) / 0.27) ** 2 - ((y - 0.58) / 0.32) ** 2))
    weights = 1 + (FACE - 1) * inside
    return (weights / weights.mean())[None]


class Pixels:
    """Squared differences of pixels at two sizes; quicker than a network, and enough to begin a search."""

    name = "pixels"

    def features(self, image: Tensor) -> Tensor:
        """``[N, C, 128, 128] -> [N, K]``."""
        parts = []
        for side in (image.shape[-1], 32):
            x = F.interpolate(image, size=(side, side), mode="area") if side != image.shape[-1] else image
            parts.append(((WEIGHT / x[0].numel()) * face_weights(side)).sqrt() * x)
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--state", type=Path, default=ROOT / "runs" / "faces128.encoder.state.pt")
    options = parser.parse_args()

    model = load_model(NAME)
    assert model.discriminator is not None
    statistics = WStatistics.of(model.generator)
    curvature = saved_curvature(options.state)
    if curvature is None:
        distance = DiscriminatorDistance(model.discriminator)
        curvature = Curvature.of(
            model.generator, distance, statistics, PROBES, progress=lambda n: print(f"probe {n}", flush=True)
        )
    native = torch.cpu._is_avx512_bf16_supported()
    trainer = EncoderTrainer(
        model.generator,
        Pixels(),
        curvature,
        options.steps,
        config=replace(EncoderConfig.of(model.generator), passes=PASSES),
        photos=load_pictures(options.photos),
        batch=options.batch,
        photo_share=2 / 3,
        learning_rate=2e-3,
        precision="bf16" if native else "fp32",
    )

    def report(step: int, terms: dict[str, float]) -> None:
        if step % 5 < 2:
            print(step, "  ".join(f"{name} {value:.3f}" for name, value in terms.items()), flush=True)

    model.encoder = train_encoder(trainer, options.state, max_minutes=options.minutes, save_minutes=2, report=report)
    model.curvature = curvature
    target = ROOT / "latentedit" / "bundled" / f"{NAME}{ENCODER}"
    save_encoder(
        target, model, {"steps": trainer.step_number, "batch": options.batch, "photographs": len(trainer.photos or [])}
    )
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
