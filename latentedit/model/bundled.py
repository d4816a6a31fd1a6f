"""Models that come with latentedit."""

import os
from pathlib import Path

from latentedit.io.header import MODEL, read_header

BUNDLED = Path(__file__).parent.parent / "bundled"


ENCODER = ".encoder.safetensors"
"""Ending of a file next to a model that contains only its encoder."""


LATEST = {"faces128": "faces128-v3"}
"""What a bundled name without a version stands for."""


RETIRED = dict.fromkeys(
    ("faces64", "faces64-v1", "faces64-v2", "faces128-v1", "faces128-v2"), "faces128"
)
"""Bundled models that no longer ship, and what takes their place. Nothing else is ever called by
these names."""


def bundled_file(name: str) -> Path | None:
    """Return the file of the bundled model ``name``; None where that is none."""
    if os.sep in name or name.endswith((".safetensors", ".pkl", ".pt", ".pth")):
        return None
    file = BUNDLED / f"{LATEST.get(name, name)}.safetensors"
    return file if os.path.isfile(file) else None


def bundled_names() -> list[str]:
    """Return the names that `bundled_file` knows, with and without a version."""
    return sorted([*LATEST, *(path.stem for path in _files())])


def _files() -> list[Path]:
    return sorted(path for path in BUNDLED.glob("*.safetensors") if not path.name.endswith(ENCODER))


def bundled_with(own: str) -> str | None:
    """Return the name of the bundled model whose generator has the fingerprint ``own``."""
    for path in _files():
        if read_header(path, *MODEL).get("fingerprint") == own:
            return path.stem
    return None
