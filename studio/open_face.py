"""A latent that is open in the studio, and what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentedit.latent.latent_file import Latent


@dataclass
class OpenFace:
    """A latent that is open."""

    key: str
    latent: Latent
    name: str
    origin: str = ""
    """Where it comes from, in words."""
    file: Path | None = None
    """The latent file that the user opened; None where the session's own is the only one."""
    photo: Path | None = None
    """The photo that it was made from."""
    before: bytes = b""
    """Its picture without edits, as the page gets it."""
    photographed: bytes = b""
    """The face as its photo has it, once a page has asked for it."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Its scores without edits, in sigmas."""
    seen: dict[str, tuple[float, float]] = field(default_factory=dict)
    """How far sliders that do not ship leave its picture whole, in sigmas."""
    looked: bool = False
    """Whether it is known how far its sliders go, as far as that can be found out."""
    looking: bool = False
    """Whether that is being found out."""

    def facts(self) -> dict[str, Any]:
        """Return what the session's file says of it."""
        photo, file = (None if path is None else str(path) for path in (self.photo, self.file))
        return {"name": self.name, "origin": self.origin, "photo": photo, "file": file}
