"""The JSON header of native files, which says what they are; read without torch, so that listing
files is quick."""

import os
from typing import Any

from latentedit.errors import Error, FormatError, quoted, shown
from latentedit.io.budget import ENTRIES, TEXT, check_finite_json, file_size, parse_json
from latentedit.io.files import is_picture

HEADER = "latentedit"
"""Key of the JSON header among the safetensors metadata."""


MODEL = "latentedit-model", 1
"""Format and newest version of model files."""


DIRECTION = "latentedit-direction", 1
"""Format and newest version of direction files."""


def read_header(path: str | os.PathLike[str], kind: str, version: int) -> dict[str, Any]:
    """Return the JSON header of a native file.

    Raises:
        Error: the file is missing, damaged, of another kind or written by a newer version.
    """
    size = file_size(path)
    if is_picture(path):
        raise FormatError(f"an image, not a {kind} file", path=path)

    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, TEXT):
                raise FormatError(
                    f"a header of {length} bytes, expected at most {max(min(size - 8, TEXT), 0)}"
                )
            table = parse_json(file.read(length))

        if not isinstance(table, dict) or len(table) > ENTRIES:
            raise FormatError(f"a header of more than {ENTRIES} tensors, or of none")

        metadata = table.get("__metadata__") or {}
        text = metadata.get(HEADER, "{}") if isinstance(metadata, dict) else None
        header = parse_json(text) if isinstance(text, str) else None
    except Error as error:
        raise FormatError(f"not a {kind} file, or damaged ({error})", path=path) from error

    if not isinstance(header, dict) or header.get("format") != kind:
        found = header.get("format") if isinstance(header, dict) else None
        named = (
            shown(found)
            if isinstance(found, str) and found
            else "a safetensors file of other origin"
        )
        raise FormatError(
            f"expected a {kind} file, found {named}", path=path, expected=kind, actual=named
        )

    if type(header.get("version")) is not int or header["version"] > version:
        raise FormatError(
            f"written in format version {quoted(header.get('version'))}, this latentedit reads "
            f"up to {version}; upgrade it",
            path=path,
        )

    try:
        # a figure may be undefined, and nothing is computed from it
        check_finite_json(header, but="report")
    except Error as error:
        raise error.at(path) from error

    return header
