"""Model files: a generator, its discriminator and what is known of them in one safetensors file (docs/formats.md)."""

from dataclasses import dataclass, field
from typing import Any

from latentedit.inversion.encoder import Encoder
from latentedit.inversion.preconditioner import Curvature
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.generator import Generator


@dataclass
class Model:
    """What a model file holds."""

    generator: Generator
    """The moving average of the weights, in evaluation mode."""
    discriminator: Discriminator | None = None
    framing: dict[str, Any] | None = None
    """How photographs are cropped for this model: see docs/formats.md."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Data, images seen, settings, licence of the weights."""
    path: str = ""
    raw_generator: Generator | None = None
    """The generator before averaging, where the file has it."""
    encoder: Encoder | None = None
    """From the file itself, or from NAME.encoder.safetensors beside it."""
    curvature: Curvature | None = None
    """Measured when the encoder was trained."""
    notes: list[str] = field(default_factory=list)
    """Sentences for whoever uses it: what its file leaves out, and what takes its place."""
