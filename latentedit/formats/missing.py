"""Replacements for missing parts of network files: measured, or random with a fixed seed, and
always reported."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentedit.latent.w_statistics import SAMPLES, STATISTICS_SEED, w_chunks
from latentedit.model.model import Model
from latentedit.networks.generator import Generator

NOISE_SEED = 0
AVERAGE = (
    f"the file has no running mean of w; the mean of {SAMPLES:,} random w replaces it".replace(
        ",", " "
    )
)
NOISE = (
    f"the file has no noise maps; random maps of seed {NOISE_SEED} replace them, and the details "
    "of images depend on them"
)

NO_DISCRIMINATOR = "left out: the discriminator, as only those of square images can be represented"


def drawn_noise(shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return random maps of these shapes, the same ones every time and everywhere."""
    draws = np.random.RandomState(NOISE_SEED)
    return [torch.from_numpy(draws.randn(*shape).astype(np.float32)) for shape in shapes]


@torch.no_grad()
def measure_average(generator: Generator) -> None:
    """Give ``generator`` the mean of its own random w, which truncation draws to."""
    chunks = w_chunks(generator, SAMPLES, STATISTICS_SEED, 1000)
    total = torch.stack([chunk.double().sum(dim=0) for chunk in chunks]).sum(dim=0)
    generator.mapping.w_avg.copy_(total / SAMPLES)


def tell(model: Model, line: str) -> None:
    """Keep ``line`` in the model's notes, which commands print, and in its provenance, which a
    converted file keeps."""
    if line in model.notes:
        return
    model.notes.append(line)
    model.provenance = {
        **model.provenance,
        "filled_in": [*model.provenance.get("filled_in", []), line],
    }
