"""The file of a model by its name; torch is not loaded for it."""

import os
from pathlib import Path

from latentedit.errors import FormatError, NotFoundError, meant, path_text
from latentedit.model.bundled import RETIRED, bundled_file, bundled_names


def find_model(name: str | os.PathLike[str], *, verified: bool = True) -> Path:
    """Return the file of a bundled name, a path, or the name of a published network
    (`latentedit.formats.zoo`).

    Args:
        verified: compute the checksum of a published network, which takes a second, and compare it.

    Raises:
        Error: no such model, one that no longer ships or is not downloaded yet, or a file that has
            changed.
    """
    text = path_text(name, "a name or a path of a model")
    bundled = bundled_file(text)
    if bundled is not None:
        return bundled
    if os.path.isdir(text):
        raise FormatError("a folder, not a model file", path=text)

    if not os.path.isfile(text):
        from latentedit.formats import zoo

        published = zoo.cached_network(text, verified=verified)
        if published is not None:
            return published
        if text in RETIRED:
            raise NotFoundError(
                f"this model no longer ships; use {RETIRED[text]} (128 px, colour) in its place. "
                "Latents and directions"
                f" of {text} need its own file, which is in the repository's history, in "
                "latentedit/bundled",
                path=text,
            )

        bundled_ones = bundled_names()
        names = [*bundled_ones, *zoo.catalogue()]
        otherwise = (
            f'bundled models: {", ".join(bundled_ones)}; "latentedit model zoo" lists published '
            "ones"
        )
        raise NotFoundError("no such model file", path=text, advice=meant(text, names, otherwise))

    return Path(text)
