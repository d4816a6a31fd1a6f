"""A model in memory: a generator with its discriminator, encoder and provenance (docs/formats.md
describes the file)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentedit.inversion.encoder import Encoder
from latentedit.inversion.preconditioner import Curvature
from latentedit.inversion.published_encoder import PublishedEncoder
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.generator import Generator


@dataclass
class Model:
    """The contents of a model file."""

    generator: Generator
    """The moving average of the weights, in evaluation mode."""
    discriminator: Discriminator | None = None
    framing: dict[str, Any] | None = None
    """Framing of the crops that this model was trained on, see docs/formats.md."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Data, images seen, settings, licence of the weights."""
    path: str = ""
    raw_generator: Generator | None = None
    """The generator before averaging, if the file contains it."""
    encoder: Encoder | PublishedEncoder | None = None
    """The encoder in the file itself, or in NAME.encoder.safetensors next to it; native files hold
    no published ones."""
    curvature: Curvature | None = None
    """The Gauss-Newton preconditioner, measured when the encoder was trained."""
    notes: list[str] = field(default_factory=list)
    """Messages to the user about parts that are missing in the file, and their replacements."""

    def __repr__(self) -> str:
        parts = {"discriminator": self.discriminator, "encoder": self.encoder}
        also = "".join(f", {name}" for name, part in parts.items() if part is not None)
        name = repr(Path(self.path).name) if self.path else self.generator.config.kind
        return f"Model({name}, {self.generator.resolution} px{also})"
