"""Turns a snapshot of the `faces128` training into the model that ships: average and discriminator,
in half precision.

    python recipes/faces128_ship.py ../shared/models/faces128-start.safetensors

Writes latentedit/bundled/faces128-v3.safetensors, and prints by how many grey levels rounding to
half precision changes pictures. Encoder and directions follow (recipes/faces128_encoder.py,
recipes/faces128_directions.py): they belong to the rounded generator.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from latentedit.formats.load_model import load_model
from latentedit.io.images import to_uint8
from latentedit.latent.w_statistics import sample_z
from latentedit.model.native import round_to_half, save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator

ROOT = Path(__file__).parent.parent
NAME = "faces128-v3"
PROVENANCE = {
    "name": NAME,
    "licence": "CC BY 4.0, with the attributions in LICENSE-faces128.md",
    "sources": (
        "official portraits of the Congress of the United States (public domain) and of the "
        "Parliament of the United Kingdom"
        " (CC BY 3.0); Face Research Lab London Set and Young Adult White Faces (DeBruine and "
        "Jones 2017, CC BY 4.0)"
    ),
    "kept_out": "68 people, 88 crops",
}


@torch.no_grad()
def drawn(generator: Generator, count: int = 64) -> Tensor:
    """Bytes ``[count, 3, 128, 128]`` of random pictures, half of them at psi 0.7 and half at psi
    1."""
    pictures = []
    for seed in range(count):
        ws = generator.mapping(
            sample_z(seed, generator.z_dim), truncation_psi=0.7 if seed % 2 else 1.0
        )
        pictures.append(to_uint8(generator.synthesis(ws)))
    return torch.cat(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("snapshot", type=Path)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "latentedit" / "bundled" / f"{NAME}.safetensors"
    )
    options = parser.parse_args()

    model = load_model(options.snapshot)
    model.raw_generator = None
    model.provenance = {
        **model.provenance,
        **PROVENANCE,
        "rounded_from": fingerprint(model.generator),
    }
    before = drawn(model.generator)
    round_to_half(model)
    apart = (drawn(model.generator).int() - before.int()).abs()
    print(
        f"half precision changes {float((apart > 0).float().mean()):.1%} of the bytes, by at "
        f"most {int(apart.max())}"
    )

    save_model(options.out, model, half=True)
    print(
        f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MiB, fingerprint "
        f"{fingerprint(model.generator)}"
    )


if __name__ == "__main__":
    main()
