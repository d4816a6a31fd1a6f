"""Directions by name: those in the user's folder, and the bundled ones."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from latentedit.errors import Error, NotFoundError, OutputError, meant, path_text
from latentedit.io.header import DIRECTION, read_header

if TYPE_CHECKING:
    from latentedit.directions.direction import Direction

SHIPPED = Path(__file__).parent / "shipped"


def user_folder() -> Path:
    """Return the folder of the user's own directions: ``LATENTEDIT_DIRECTIONS``, or
    ``~/.latentedit/directions``."""
    named = os.environ.get("LATENTEDIT_DIRECTIONS")
    return Path(named) if named else Path.home() / ".latentedit" / "directions"


def _in_folder(folder: Path, fingerprint: str | None) -> dict[str, Path]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue  # hidden, or being written
        try:
            header = read_header(path, *DIRECTION)
        except Error:
            continue  # a folder may hold other files
        if fingerprint is None or header.get("fingerprint") == fingerprint:
            found[path.stem] = path

    return found


def own_directions(fingerprint: str | None = None) -> dict[str, Path]:
    """Return names and files of the user's own directions, for one generator or for all."""
    return _in_folder(user_folder(), fingerprint)


def shipped(fingerprint: str | None = None) -> dict[str, Path]:
    """Return names and files of the bundled directions, for one generator or for all."""
    found: dict[str, Path] = {}
    for folder in sorted(SHIPPED.iterdir()) if SHIPPED.is_dir() else []:
        found.update(_in_folder(folder, fingerprint))
    return found


def find_direction(name: str | os.PathLike[str], fingerprint: str | None = None) -> Path:
    """Return the file of a direction: a path, a name in the user's folder, or the name of a bundled
    one for ``fingerprint``.

    Raises:
        Error: not found; the message lists the known names.
    """
    text = path_text(name, "a name or a path of a direction")
    if os.path.isfile(text):
        return Path(text)
    own = own_directions(fingerprint)
    ours = shipped(fingerprint)
    for table in (own, ours):
        if text in table:
            return table[text]
    known = sorted({*own, *ours})
    advice = meant(
        text, known, f"the directions of this generator are: {', '.join(known) or 'none'}"
    )
    raise NotFoundError("no direction file or direction of this name", path=text, advice=advice)


def load_direction(name: str | os.PathLike[str], fingerprint: str | None = None) -> "Direction":
    """Load a direction by its name or its file (see `find_direction`)."""
    from latentedit.directions.direction import read_direction

    return read_direction(find_direction(name, fingerprint))


def storage_path(
    direction: "Direction", out: str | os.PathLike[str] | None = None, *, force: bool = False
) -> Path:
    """Return where to store ``direction``: ``out``, or its name in the user's folder.

    Raises:
        Error: without ``force``, the file exists, or a bundled direction has this name.
    """
    path = Path(out) if out is not None else user_folder() / f"{direction.name}.safetensors"
    if not force and path.exists():
        raise OutputError(
            f"{path} exists", advice="choose another name, or replace it with `force=True`"
        )
    if not force and direction.name in shipped(direction.fingerprint):
        advice = "choose another name, or hide that one with `force=True`"
        raise OutputError(f"a bundled direction has the name {direction.name}", advice=advice)
    return path
