"""What an inversion is worth, in words: how like the photo it is, where its w lies, and what was
seen along sliders.

The bounds were chosen on training people of ``faces128-v1``, on pictures that show no face, and on
searches of two steps. On ``faces128-v2`` and ``faces128-v3`` they lie in the middle between good
and poor inversions of training people; docs/photo.md has the figures, and those of held-out people.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentedit.latent.latent_file import Latent

AMOUNTS = (0.75, 1.5, 2.25, 3.0)
"""Sigmas that a picture is moved by to be looked at, either way along every slider."""
WHOLE = 1.0
"""Distance from the generator's own pictures (`latentedit.inversion.domain.Domain`) up to which a
picture counts as whole."""
LIKE = 23.0
UNLIKE = 18.0
"""PSNR in dB from which on a picture is like the photo, and below which it is not."""
TOLD = 0.7
UNTOLD = 0.4
"""The share of the perceptual distance between the photo and the model's average picture that is
gone, likewise."""
AVERAGE = 0.3
"""Distance of w below which a picture is hardly anyone's in particular."""
USUAL = 95.0
FAR = 2.0
"""Per cent of the model's own w that may lie nearer to the mean, and the distance that is far by
any measure."""
NOISE = 3.0
"""dB of the likeness that the noise maps may bring without a word."""
EARLY = 1.5
"""Sigmas at which sliders should be whole; ..."""
MANY = 0.25
MOST = 0.6
"""... the shares of their ends from which on that is some of them, and as good as all."""

UNKNOWN, GOOD, CAREFUL, POOR = LEVELS = ("unknown", "good", "careful", "poor")
LEADS = {
    GOOD: "sliders mean what they say",
    CAREFUL: "edit in small amounts",
    POOR: "sliders cannot be trusted",
}


@dataclass(frozen=True)
class Look:
    """What was seen of a latent's picture, and of it moved along sliders; by default nothing."""

    domain: float | None = None
    """Distance of the picture from the model's own; 1 is as far as the farthest of those."""
    face: bool | None = None
    """Whether there is a face in it; None where no one asked."""
    safe: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The lowest and highest amount in sigmas, of those in `AMOUNTS`, up to which a slider leaves
    the picture whole."""

    def put_into(self, latent: Latent) -> None:
        """Note in ``latent``, whose picture was looked at, what was seen."""
        latent.safe = dict(self.safe) or None
        if self.domain is not None:
            latent.distances = {**latent.distances, "domain": round(self.domain, 5)}


@dataclass(frozen=True)
class Part:
    """One thing that a verdict rests on."""

    level: str
    """"good", "careful", "poor", or "unknown"."""
    words: str


@dataclass(frozen=True)
class Verdict:
    """How far edits of a latent can be trusted."""

    parts: Mapping[str, Part]
    """"likeness", "w", "picture" and "sliders"."""
    look: Look
    note: str = ""
    """What else is worth a word."""

    @property
    def level(self) -> str:
        """The worst of the parts' levels; "unknown" where no part has any."""
        return max((part.level for part in self.parts.values()), key=LEVELS.index)

    def __str__(self) -> str:
        """Return the level in words, and the parts that it comes from."""
        level = self.level
        telling = ", ".join(part.words for part in self.parts.values() if part.level == level)
        told = [f"{LEADS[level]}: {telling}" if level in LEADS else telling]
        if level == GOOD and (
            missing := [part.words for part in self.parts.values() if part.level == UNKNOWN]
        ):
            told = [f"{telling}, as far as can be told: {', '.join(missing)}"]
        return "; ".join([*told, self.note] if self.note else told)

    def limits(self) -> str:
        """Return how far every slider was seen to leave the picture whole, in a sentence; "" where
        nothing was seen."""
        ends = self.look.safe
        most = (-AMOUNTS[-1], AMOUNTS[-1])
        near = [
            f"{name} {range_in_words(pair)}" for name, pair in ends.items() if tuple(pair) != most
        ]
        if not ends:
            return ""
        if not near:
            return f"every slider leaves it whole {range_in_words(most)} sigmas"

        others = f"; the others {range_in_words(most)}" if len(near) < len(ends) else ""
        return f"sliders leave it whole within these sigmas: {', '.join(near)}{others}"

    def facts(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {
            "level": self.level,
            "parts": {
                name: {"level": part.level, "words": part.words}
                for name, part in self.parts.items()
            },
            "domain": self.look.domain,
            "face": self.look.face,
            "safe": {name: list(pair) for name, pair in self.look.safe.items()},
        }


def range_in_words(ends: tuple[float, float]) -> str:
    """Return a range of amounts."""
    return f"{ends[0]:g} to {ends[1]:g}"


def judge(distances: Mapping[str, float], look: Look | None = None) -> Verdict:
    """Say what an inversion is worth.

    Args:
        distances: as `latentedit.latent.latent_file.Latent.distances`; of a tuned latent, those
            with the tuned generator count.
        look: what was seen; None where nobody looked.
    """
    look = look or Look()
    numbers = [value for value in (*distances.values(), look.domain) if value is not None]
    if not all(math.isfinite(value) for value in numbers):
        return Verdict(
            {"likeness": Part(POOR, "the search gave values that are not numbers")}, look
        )

    parts = {
        "likeness": _likeness(distances),
        "w": _place(distances),
        "picture": _picture(look),
        "sliders": _sliders(look),
    }
    return Verdict(parts, look, _note(distances))


def _likeness(distances: Mapping[str, float]) -> Part:
    psnr = distances.get("psnr_tuned", distances.get("psnr"))
    if psnr is None:
        return Part(UNKNOWN, "no photo to compare with")

    told = 1.0
    if average := distances.get("perceptual_average"):
        told = 1 - distances.get("perceptual_tuned", distances["perceptual"]) / average

    words = f"({psnr:.1f} dB)"
    if psnr < UNLIKE or told < UNTOLD:
        return Part(POOR, f"the picture does not resemble the photo {words}")
    if psnr < LIKE or told < TOLD:
        return Part(CAREFUL, f"the picture resembles the photo in part {words}")
    return Part(GOOD, f"the picture resembles the photo {words}")


def _place(distances: Mapping[str, float]) -> Part:
    if "w_distance" not in distances:
        return Part(UNKNOWN, "where its w lies was not measured")
    far = distances["w_distance"]
    if far > FAR:
        return Part(POOR, "w lies far from the model's own")
    if distances.get("w_percentile", 0.0) > USUAL:
        return Part(CAREFUL, "w lies at the edge of the model's own")
    if far < AVERAGE:
        return Part(
            CAREFUL, "w hardly differs from the mean, so that little of the photo can be in it"
        )
    return Part(GOOD, "w lies where the model's own do")


def _picture(look: Look) -> Part:
    if look.face is False:
        return Part(POOR, "no face is seen in the picture")
    if look.domain is None:
        return Part(UNKNOWN, "the model's file has no discriminator that could look at the picture")
    if look.domain > WHOLE:
        return Part(POOR, "the picture is not like the model's own")
    return Part(GOOD, "the picture is one of the model's own")


def _sliders(look: Look) -> Part:
    ends = [abs(end) for pair in look.safe.values() for end in pair]
    if not ends:
        return Part(UNKNOWN, "no slider was tried")
    early = sum(end < EARLY for end in ends) / len(ends)
    if early > MOST:
        return Part(POOR, f"sliders break it within {EARLY:g} sigmas")
    if early > MANY:
        return Part(CAREFUL, f"some sliders break it within {EARLY:g} sigmas")
    return Part(GOOD, "it stays so along the sliders")


def _note(distances: Mapping[str, float]) -> str:
    gap = (
        0.0
        if "psnr_tuned" in distances
        else distances.get("psnr", 0.0) - distances.get("psnr_own_noise", math.inf)
    )
    return (
        f"{gap:.0f} dB of the likeness are in the noise, which no slider moves"
        if gap > NOISE
        else ""
    )
