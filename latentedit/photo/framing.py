"""The framing of a model: how photos are cropped for it (docs/formats.md)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from latentedit.errors import FormatError, is_number


class Framed(NamedTuple):
    """A crop to take from a photo."""

    suffix: str
    """What to add to the photo's name."""
    quad: list[list[float]]
    """Corners in pixels: upper left, upper right, lower right, lower left."""
    warnings: list[str]
    """Warnings about a face that may be framed wrongly."""
    notes: Sequence[str] = ()
    """What is good to know about the face, such as that there are others."""


def check_framing(framing: Any) -> None:
    """Raise `Error` unless ``framing`` is a valid framing of a model file (docs/formats.md)."""
    if not isinstance(framing, dict | None):
        raise FormatError.of("the header's framing", "an object", framing)

    found = framing or {}
    if "eyes" in found and not _are_eyes(found["eyes"]):
        raise FormatError(
            "the header's framing must give the centres of two eyes, the viewer's left one first"
        )
    if found.get("mouth") is not None and not _is_point(found["mouth"]):
        raise FormatError("the header's framing must give the centre of the mouth as two numbers")

    kind = found.get("kind", "")
    if not isinstance(kind, str):
        raise FormatError.of("the header's framing", "of a kind that has a name", kind)
    if kind == "ffhq" and not (found.get("eyes") and found.get("mouth")):
        raise FormatError(
            "the header's framing of the kind ffhq must give the centres of eyes and mouth"
        )


def _are_eyes(eyes: Any) -> bool:
    """Return whether ``eyes`` are two points, of which the first is further left."""
    return (
        isinstance(eyes, list)
        and len(eyes) == 2
        and all(_is_point(eye) for eye in eyes)
        and eyes[0][0] < eyes[1][0]
    )


def _is_point(point: Any) -> bool:
    """Return whether ``point`` is in or near a crop with sides of 1."""
    return (
        isinstance(point, list) and len(point) == 2 and all(is_number(part, 100) for part in point)
    )


FRAMINGS: dict[str, dict[str, Any]] = {
    "ffhq": {"kind": "ffhq", "eyes": [[0.375, 0.475], [0.625, 0.475]], "mouth": [0.5, 0.74]},
}
"""Published framings. "ffhq" is a square of four eye distances, or more where the mouth is far from
the eyes (Karras et al. 2018, appendix C); its eyes and mouth here are where those of an average
face come to lie.
"""
