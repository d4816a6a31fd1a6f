"""Trains the encoder of `faces128` from the model's own pictures and the crops it was trained on.

    latentedit dataset build ../shared/data/portraits/train --size 128 --out runs/faces128.zip
    python recipes/faces128_encoder.py runs/faces128.zip --steps 2000

Two thirds of every batch are photographs, which are compared as pictures: pixels at 128 and 32 px,
those of the face counting four times. Ctrl-C keeps the state, and the same command goes on.
Held-out people take no part. ``--from`` begins at the encoder of an earlier version of the model,
whose w mean nearly the same, and then takes a fifth of the steps.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from faces128_ship import NAME, ROOT
from torch import Tensor

from latentedit.formats.load_model import load_model
from latentedit.inversion.encoder import Encoder, EncoderConfig
from latentedit.inversion.face_weights import face_weights
from latentedit.inversion.options import ProjectorSettings
from latentedit.inversion.preconditioner import Curvature
from latentedit.inversion.projector import Projector
from latentedit.io.header import MODEL
from latentedit.io.native_file import read_tensors
from latentedit.model.bundled import ENCODER
from latentedit.model.model import Model
from latentedit.model.native import save_encoder
from latentedit.training.data import load_pictures
from latentedit.training.encoders import (
    EncoderTrainer,
    EncoderTraining,
    saved_curvature,
    train_encoder,
)

PASSES = 2
PROBES = 256
WEIGHT = 5.0
"""Weight of both mean squared differences of pixels."""


class Pixels:
    """Squared differences of pixels at two sizes; quicker than a network, and enough to begin a
    search."""

    name = "pixels"

    def __init__(self, framing: dict[str, Any] | None) -> None:
        self.framing = framing

    def features(self, image: Tensor) -> Tensor:
        """``[N, C, 128, 128] -> [N, K]``."""
        parts = []
        for side in (image.shape[-1], 32):
            x = (
                F.interpolate(image, size=(side, side), mode="area")
                if side != image.shape[-1]
                else image
            )
            focus = face_weights(self.framing, side)
            assert focus is not None
            focus = focus.to(x.device)
            parts.append((WEIGHT / x[0].numel() * focus).sqrt() * x)
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def measured(model: Model) -> Curvature:
    """That of the loss which `latentedit invert` descends on without any extra."""
    kept = ROOT / "runs" / f"curvature-{NAME}.pt"
    if kept.is_file():
        return Curvature(torch.load(kept, weights_only=True))
    projector = Projector(model, ProjectorSettings("discriminator"))
    found = Curvature.of(
        model.generator,
        projector.loss(),
        projector.statistics,
        PROBES,
        progress=lambda n: print(f"probe {n} of {PROBES}", flush=True),
    )
    found = Curvature(found.factors.cpu())
    torch.save(found.factors, kept)
    return found


def begin_at(path: Path, encoder: Encoder) -> None:
    """Give ``encoder`` the weights in the file ``path``, whichever generator they belong to."""
    _, tensors = read_tensors(path, *MODEL)
    weights = {
        name.removeprefix("e/"): tensor.float()
        for name, tensor in tensors.items()
        if name.startswith("e/") and name != "e/curvature"
    }
    encoder.load_state_dict(weights)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate at the beginning")
    parser.add_argument("--from", type=Path, dest="start", help="encoder to begin at")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--state", type=Path, default=ROOT / "runs" / f"{NAME}.encoder.state.pt")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    model = load_model(NAME, options.device)
    curvature = saved_curvature(options.state) or measured(model)
    native = options.device != "cpu" or torch.cpu._is_avx512_bf16_supported()
    trainer = EncoderTrainer(
        model.generator,
        Pixels(model.framing),
        curvature,
        EncoderTraining(
            options.steps,
            batch=options.batch,
            photo_share=2 / 3,
            learning_rate=options.rate,
            precision="bf16" if native else "fp32",
        ),
        config=replace(EncoderConfig.of(model.generator), passes=PASSES),
        photos=load_pictures(options.photos),
    )

    if options.start is not None:
        begin_at(options.start, trainer.encoder)
        begin_at(options.start, trainer.averaged)

    def report(step: int, terms: dict[str, float]) -> None:
        if step % 5 < 2:
            print(
                step, "  ".join(f"{name} {value:.3f}" for name, value in terms.items()), flush=True
            )

    model.encoder = train_encoder(
        trainer, options.state, max_minutes=options.minutes, save_minutes=2, report=report
    )
    model.curvature = measured(model)
    model.encoder.cpu()
    model.generator.cpu()
    target = ROOT / "latentedit" / "bundled" / f"{NAME}{ENCODER}"
    save_encoder(
        target,
        model,
        {
            "steps": trainer.step_number,
            "batch": options.batch,
            "photographs": len(trainer.photos or []),
            **({} if options.start is None else {"from": options.start.name}),
        },
    )
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
