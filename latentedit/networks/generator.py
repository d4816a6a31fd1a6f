"""The generator: mapping and synthesis together (Karras et al. 2019 and 2020)."""

from typing import Any

import torch
from torch import Tensor, nn

from latentedit.networks.config import GeneratorConfig, Precision
from latentedit.networks.mapping import MappingNetwork
from latentedit.networks.noise import Noise
from latentedit.networks.stylegan1 import AdaINSynthesis
from latentedit.networks.stylegan3 import AliasFreeSynthesis
from latentedit.networks.synthesis import SynthesisNetwork

__all__ = ["Generator", "GeneratorConfig"]


class Generator(nn.Module):
    """Mapping and synthesis together: ``[N, z_dim] -> [N, channels, resolution, resolution]``."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.label_frequencies: list[float] | None = None
        """Share of the training images with each label, if known."""

        # Three classes with the same methods; a common base class would have nothing in it.
        self.synthesis: Any = _synthesis(config)
        """A `SynthesisNetwork`, `AdaINSynthesis` or `AliasFreeSynthesis`; all have ``num_ws``,
        ``styles``, ``synthesize``."""
        self.mapping = MappingNetwork(
            config.z_dim,
            config.c_dim,
            config.w_dim,
            self.synthesis.num_ws,
            num_layers=config.mapping_layers,
            lr_multiplier=config.mapping_lr_multiplier,
            joint_labels=config.joint_labels,
        )

    def __repr__(self) -> str:
        config = self.config
        height, width = config.image_size
        side = f"{width}" if config.is_square else f"{width} x {height}"
        return f"Generator({config.kind}, {side} px, {self.num_ws} x {config.w_dim})"

    @property
    def resolution(self) -> int:
        return self.config.resolution

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images; both are the resolution in square networks."""
        return self.config.image_size

    @property
    def channels(self) -> int:
        return self.config.channels

    @property
    def z_dim(self) -> int:
        return self.config.z_dim

    @property
    def w_dim(self) -> int:
        return self.config.w_dim

    @property
    def c_dim(self) -> int:
        return self.config.c_dim

    @property
    def num_ws(self) -> int:
        return int(self.synthesis.num_ws)

    @property
    def device(self) -> torch.device:
        return self.mapping.w_avg.device

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: Noise = "const",
        precision: Precision = "fp32",
    ) -> Tensor:
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        image: Tensor = self.synthesis(ws, noise, precision)
        return image


def _synthesis(config: GeneratorConfig) -> SynthesisNetwork | AdaINSynthesis | AliasFreeSynthesis:
    if config.architecture == "stylegan3":
        return AliasFreeSynthesis(config)
    return (
        AdaINSynthesis(config) if config.architecture == "stylegan1" else SynthesisNetwork(config)
    )
