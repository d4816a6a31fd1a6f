"""Networks that were used before: where the file of each is, by the network's fingerprint."""

import json
import logging
import os
from pathlib import Path

import platformdirs

from latentedit.errors import Error
from latentedit.io.budget import read_json
from latentedit.io.files import write_bytes

LOG = logging.getLogger(__name__)
MOST = 200
"""Networks that are remembered; the one that was used least recently goes first."""


def data_folder() -> Path:
    """Return where the list is kept: LATENTEDIT_DATA, or latentedit in the user's data folder."""
    named = os.environ.get("LATENTEDIT_DATA")
    return Path(named) if named else platformdirs.user_data_path("latentedit", appauthor=False)


def networks_file() -> Path:
    return data_folder() / "networks.json"


def networks() -> dict[str, Path]:
    """Return the files of networks by fingerprint, the one used last at the end; a damaged list
    counts as empty."""
    path = networks_file()
    try:
        kept = read_json(path) if path.is_file() else {}
    except (Error, OSError) as error:
        LOG.debug("the list of networks cannot be read: %s", error)
        return {}

    if not isinstance(kept, dict):
        return {}
    return {key: Path(value) for key, value in kept.items() if isinstance(value, str)}


def remember(fingerprint: str, path: str | os.PathLike[str]) -> None:
    """Note that the network of this fingerprint is in the file ``path``; where the list cannot be
    written, nothing happens."""
    known = networks()
    place = Path(os.path.abspath(path))
    if list(known.items())[-1:] == [(fingerprint, place)]:
        return

    known.pop(fingerprint, None)
    known[fingerprint] = place
    kept = {key: str(value) for key, value in list(known.items())[-MOST:]}
    try:
        write_bytes(networks_file(), json.dumps(kept, indent=1).encode())
    except (Error, OSError) as error:
        LOG.debug("the list of networks cannot be written: %s", error)


def remembered(fingerprint: str) -> Path | None:
    """Return the file that the network of this fingerprint was last read from; it may be gone, or
    another by now."""
    return networks().get(fingerprint)
