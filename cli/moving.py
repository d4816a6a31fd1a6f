"""Moving pictures: options of their length, and how they are written."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from latentedit.cli.common import Finite, progress_bar, say_video
from latentedit.errors import ArgumentError
from latentedit.io.files import VIDEOS

if TYPE_CHECKING:
    from PIL import Image

F = TypeVar("F", bound=Callable[..., Any])

LOOPS = ("back", "round", "none")
LONGEST = 3600.0
"""Longest video, in seconds."""
MOST_IMAGES = 100_000
STRIP = 50
"""Most images of a strip."""
REMEMBERED = 2**29
"""Bytes of images that are kept for the way back; the others are drawn again."""


def video_options(loops: Sequence[str]) -> Callable[[F], F]:
    """Adds --fps, --seconds and --loop, of which --loop takes ``loops``."""
    ways = {
        "back": "back: forwards, then backwards",
        "round": "round: from the last one on to the first",
        "none": "none: once, forwards",
    }
    text = f"Video: {'; '.join(ways[loop] for loop in loops)}.  [default: back]"

    def decorate(function: F) -> F:
        function = click.option("--loop", type=click.Choice(list(loops)), help=text)(function)
        function = click.option(
            "--seconds",
            type=Finite(0, LONGEST, min_open=True),
            help="Video: its length, instead of a number of images.",
        )(function)
        return click.option(
            "--fps",
            type=Finite(1, 120),
            help="Video: images a second.  [default: 24 with --seconds, otherwise 12]",
        )(function)

    return decorate


@dataclass(frozen=True)
class Timing:
    """How long a video is, and what comes after its last image."""

    fps: float | None = None
    seconds: float | None = None
    loop: str | None = None

    def check(self, out: str | Path) -> None:
        """Raise `Error` if something was given that only a video has, and ``out`` is none."""
        given = {"--fps": self.fps, "--seconds": self.seconds, "--loop": self.loop}
        names = [name for name, value in given.items() if value is not None]
        if is_video(out) or not names:
            return

        verb = "belongs" if len(names) == 1 else "belong"
        raise ArgumentError(
            f"{', '.join(names)} {verb} to a video, whose --out ends in {' or '.join(VIDEOS)}; "
            f"got {out}"
        )

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.fps or (12.0 if self.seconds is None else 24.0)

    @property
    def way(self) -> str:
        return self.loop or "back"

    def count(self, given: int | None, default: int, form: str) -> int:
        """Return the number of different images: as ``given``, or as many as ``seconds`` need.

        Args:
            form: what the message calls the given number.

        Raises:
            Error: both a number and seconds, or less than two images.
        """
        if self.seconds is None:
            return default if given is None else given
        if given is not None:
            raise ArgumentError(
                f"--seconds and {form} both say how many images there are; leave out one of them"
            )

        frames = round(self.seconds * self.rate)
        count = frames // 2 + 1 if self.way == "back" else frames
        if not 2 <= count <= MOST_IMAGES:
            raise ArgumentError(
                f"--seconds {self.seconds:g} at {self.rate:g} images a second are {frames} images;"
                f" a video has 2 to {MOST_IMAGES}"
            )
        return count

    def order(self, count: int) -> list[int]:
        """Return the numbers of the images in the order in which they are shown."""
        forwards = list(range(count))
        return [*forwards, *forwards[-2:0:-1]] if self.way == "back" else forwards


def is_video(out: str | Path) -> bool:
    return Path(out).suffix.lower() in VIDEOS


def write_video(
    out: str | Path, count: int, draw: "Callable[[int], Image.Image]", timing: Timing
) -> None:
    """Write images 0 to ``count`` - 1, as ``draw`` returns them, as the video ``out``.

    Raises:
        Error: as `latentedit.io.video.save_video`.
    """
    from latentedit.io.video import save_video

    order = timing.order(count)
    remembered = _remembered(draw, count)

    with progress_bar(len(order), Path(out).name, unit="image") as bar:

        def shown(number: int) -> "Image.Image":
            picture = remembered(number)
            bar.update()
            return picture

        note = save_video(
            out, (shown(number) for number in order), timing.rate, repeat=timing.way != "none"
        )

    say_video(note, out)


def _remembered(draw: "Callable[[int], Image.Image]", count: int) -> "Callable[[int], Image.Image]":
    first = draw(0)
    size = first.width * first.height * len(first.getbands())
    return functools.lru_cache(maxsize=max(REMEMBERED // size, 1))(
        lambda number: draw(number) if number else first
    )
