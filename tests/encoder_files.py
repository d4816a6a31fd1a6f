"""Checkpoints of published encoders, as their projects write them."""

from typing import Any

import torch
from torch import Tensor

from latentedit.inversion.published_encoder import PublishedEncoder, PublishedEncoderConfig
from tests.reference_nets import REFERENCE

TYPES = {
    "psp": "GradualStyleEncoder",
    "e4e": "Encoder4Editing",
    "restyle-psp": "BackboneEncoder",
    "restyle-e4e": "ProgressiveBackboneEncoder",
}


def answers(rows: int = 8) -> Tensor:
    """The w that `checkpoint` plants, ``[rows, 64]``."""
    return torch.randn(rows, 64, generator=torch.Generator().manual_seed(0))


def checkpoint(kind: str = "e4e", rows: int = 8, **options: Any) -> dict[str, Any]:
    """As these projects write it, around rosinality's network of the references; every layer
    answers with its bias."""
    with torch.device("meta"):
        shapes = PublishedEncoder(PublishedEncoderConfig(kind, rows, 64)).state_dict()
    state = {}
    for name, like in shapes.items():
        if name != "latent_avg":
            state[f"encoder.{name}"] = torch.zeros(like.shape, dtype=torch.float16)
        if name.endswith("running_var"):
            state[f"encoder.{name}"] += 1
    for row, answer in enumerate(answers(rows)):
        state[f"encoder.styles.{row}.linear.bias"] = answer.clone()
    state["encoder.body.0.res_layer.0.num_batches_tracked"] = torch.zeros([], dtype=torch.long)
    reference = torch.load(REFERENCE / "rosinality_32.pt", weights_only=True)
    state |= {f"decoder.{name}": tensor for name, tensor in reference["g_ema"].items()}
    average = reference["latent_avg"].reshape(1, -1).expand(rows, -1).clone()
    opts = {
        "encoder_type": TYPES[kind],
        "start_from_latent_avg": True,
        "device": "cuda:0",
        **options,
    }
    return {"state_dict": state, "latent_avg": average, "opts": opts}
