"""Builds our networks from the arrays in tests/reference, whose README says what each array is."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentedit.networks.discriminator import Discriminator, DiscriminatorConfig
from latentedit.networks.generator import Generator, GeneratorConfig

REFERENCE = Path(__file__).parent / "reference"
Arrays = dict[str, Any]


def arrays(name: str) -> Arrays:
    with np.load(REFERENCE / name) as file:
        return {key: file[key] for key in file.files}


def configs(data: Arrays) -> tuple[GeneratorConfig, DiscriminatorConfig]:
    meta = {key[5:]: value.item() for key, value in data.items() if key.startswith("meta/")}
    clamp = meta["conv_clamp"] if meta["conv_clamp"] > 0 else None
    shared = dict(
        resolution=meta["img_resolution"],
        channels=meta["img_channels"],
        c_dim=meta["c_dim"],
        channel_base=meta["channel_base"],
        channel_max=meta["channel_max"],
        conv_clamp=clamp,
    )
    generator = GeneratorConfig(
        **shared,
        z_dim=meta["z_dim"],
        w_dim=meta["w_dim"],
        mapping_layers=meta["mapping_layers"],
        architecture=meta["g_architecture"],
    )
    discriminator = DiscriminatorConfig(
        **shared, architecture=meta["d_architecture"], mbstd_group_size=meta["mbstd_group_size"]
    )
    return generator, discriminator


def networks(data: Arrays) -> tuple[Generator, Discriminator]:
    g_config, d_config = configs(data)
    generator, discriminator = Generator(g_config), Discriminator(d_config)
    for network, prefix in ((generator, "G/"), (discriminator, "D/")):
        state = {
            key[2:]: torch.from_numpy(np.array(value))
            for key, value in data.items()
            if key.startswith(prefix) and not key.endswith("resample_filter")
        }
        network.load_state_dict(state)
    return generator, discriminator


def relative_error(ours: torch.Tensor | None, reference: np.ndarray[Any, Any]) -> float:
    """max|difference| / max|reference|."""
    expected = torch.from_numpy(np.array(reference))
    assert ours is not None
    assert ours.shape == expected.shape
    return float((ours.detach() - expected).abs().max() / expected.abs().max())
