"""The fingerprint that a model file states, read without its weights."""

import os

from latentedit.errors import Error
from latentedit.formats.find_model import find_model
from latentedit.io.header import MODEL, read_header


def fingerprint_of(name: str | os.PathLike[str]) -> str:
    """Return the fingerprint of a model's generator; torch is only loaded for files that do not
    state it.

    Raises:
        Error: as `find_model`, and for files that cannot be read.
    """
    path = find_model(name)
    try:
        stated = read_header(path, *MODEL).get("fingerprint")
    except Error:
        stated = None  # a file of another tool, or a damaged one, of which reading it says more

    if isinstance(stated, str):
        return stated

    from latentedit.formats.load_model import load_model
    from latentedit.networks.fingerprint import fingerprint

    return fingerprint(load_model(name).generator)
