"""The sliders of a model: its directions, with titles, groups and ranges."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latentedit.directions.direction import Direction, read_direction
from latentedit.directions.registry import own_directions, shipped
from latentedit.errors import Error
from latentedit.latent.latent_file import Latent
from latentedit.latent.spaces import Z, space_of

REACH = 3.0
"""Sigmas that a slider goes to either side, if nothing asks for more."""
GROUPS = ("Expression", "Pose", "Face", "Hair and beard", "Picture", "More", "Yours", "Unnamed")
_WORDS = {
    "Expression": (
        "smile",
        "mouth",
        "surprise",
        "anger",
        "sad",
        "happy",
        "laugh",
        "frown",
        "eyes-open",
        "gaze",
        "wink",
    ),
    "Pose": ("turn", "yaw", "pitch", "roll", "tilt", "nod", "pose"),
    "Hair and beard": ("hair", "bald", "beard", "moustache", "bangs", "fringe"),
    "Face": (
        "age",
        "femin",
        "masc",
        "gender",
        "glasses",
        "face",
        "width",
        "nose",
        "lip",
        "chin",
        "cheek",
        "makeup",
        "skin",
    ),
    "Picture": ("light", "warm", "background", "contrast", "bright", "exposure", "sharp", "blur"),
}


@dataclass(frozen=True)
class Slider:
    """A direction as the studio shows it."""

    name: str
    """The direction's, as ``--set`` takes it."""
    title: str
    group: str
    direction: Direction
    file: Path | None = None
    """Where the direction is stored; None where it is not yet."""
    by_name: bool = True
    """Whether the command line finds it by its name; else by its file."""
    whole: tuple[float, float] | None = None
    """Lowest and highest amount in sigmas at which pictures stayed whole; None where nobody
    looked."""

    @property
    def option(self) -> str:
        """What ``--set`` has to say: the name, or the file of a direction that is found by no
        name."""
        return self.name if self.by_name or self.file is None else str(self.file)

    @property
    def holdable(self) -> bool:
        """Whether its score can be held, and moved while others are."""
        return space_of(self.direction.space).linear

    @property
    def reach(self) -> float:
        """Sigmas that the slider goes to either side."""
        return max(REACH, *(abs(end) for end in self.whole or (0.0,)))


def title_of(name: str) -> str:
    """Return a slider's name as a person writes it."""
    text = name.replace("-", " ").replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def group_of(name: str) -> str:
    """Return the group that a bundled slider's name belongs to."""
    for group, words in _WORDS.items():
        if any(word in name for word in words):
            return group
    return "More"


def reported_range(direction: Direction) -> tuple[float, float] | None:
    """Return the amounts at which pictures were measured to stay whole, as the direction's report
    has them."""
    effect = direction.report.get("effect")
    whole: Any = effect.get("whole") if isinstance(effect, dict) else None
    if (
        not isinstance(whole, list | tuple)
        or len(whole) != 2
        or not all(isinstance(end, int | float) for end in whole)
    ):
        return None

    low, high = (float(min(max(end, -1000), 1000)) for end in whole)
    return (low, high) if low <= 0 <= high else None


def sliders_of(fingerprint: str, *folders: tuple[Path, str]) -> dict[str, Slider]:
    """Return the sliders that fit the generator with ``fingerprint``: those that ship, then the
    user's own, by group.

    Args:
        folders: more folders of direction files, and the group of each.
    """
    found: dict[str, Slider] = {}
    files = [(name, file, group_of(name), True) for name, file in shipped(fingerprint).items()]
    files += [(name, file, "Yours", True) for name, file in own_directions(fingerprint).items()]
    for folder, group in folders:
        files += [(file.stem, file, group, False) for file in sorted(folder.glob("*.safetensors"))]
    for name, file, group, by_name in files:
        try:
            direction = read_direction(file)
        except Error:
            continue  # a damaged file is no slider
        # A latent's z is not known.
        movable = space_of(direction.space) is not Z
        if (
            movable
            and direction.fingerprint == fingerprint
            and not (name in found and group == "Unnamed")
        ):
            found[name] = slider_of(direction, name=name, file=file, group=group, by_name=by_name)

    return in_order(found)


def in_order(sliders: Mapping[str, Slider]) -> dict[str, Slider]:
    """Return the sliders by group and title."""
    order = sorted(sliders.values(), key=lambda slider: (GROUPS.index(slider.group), slider.title))
    return {slider.name: slider for slider in order}


def slider_of(
    direction: Direction,
    *,
    name: str = "",
    file: Path | None = None,
    group: str = "Yours",
    by_name: bool = True,
) -> Slider:
    """Return the slider of one direction."""
    name = name or direction.name
    return Slider(name, title_of(name), group, direction, file, by_name, reported_range(direction))


def with_ranges(
    sliders: Mapping[str, Slider],
    latent: Latent | None,
    seen: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Slider]:
    """Return the sliders with the ranges that were seen on ``latent``, where somebody looked.

    Args:
        seen: ranges of sliders that do not ship, which a latent file does not list.

    A picture that is not whole to begin with says nothing about how far sliders go.
    """
    safe = (latent.safe if latent is not None else None) or {}
    if not any(low or high for low, high in safe.values()):
        return dict(sliders)
    ships = {name for name, slider in sliders.items() if slider.group not in ("Yours", "Unnamed")}
    ranges = {**{name: ends for name, ends in safe.items() if name in ships}, **(seen or {})}
    return {
        name: replace(slider, whole=ranges[name]) if name in ranges else slider
        for name, slider in sliders.items()
    }
