"""What ``edit`` draws of a latent: its picture, the photo around it, strips, grids, and the images
of a video."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentedit.cli.common import Finite, rendering_bar
from latentedit.cli.moves import Move, Sweep
from latentedit.cli.moving import Timing
from latentedit.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from PIL import Image

    from latentedit.latent.latent_file import Latent
    from latentedit.networks.generator import Generator

LARGEST = 1920
"""Longer side of the photos in a strip or a video, in pixels; larger ones are reduced."""
IN_VIDEO = 24
"""Images of a sweep in a video where neither COUNT nor --seconds is given."""


OWN = ""
"""The photo to paste into is the one that is edited."""


def paste_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that paste into a photo; the command gets ``photo``,
    ``difference`` and ``feather``."""
    photo = click.option(
        "--paste-back",
        "photo",
        is_flag=False,
        flag_value=OWN,
        metavar="[PHOTO]",
        help="Paste the edited crop back into the photo it came from. A latent needs the PHOTO.",
    )
    difference = click.option(
        "--difference",
        is_flag=True,
        help="With --paste-back: add only the change, and keep the photo's own detail.",
    )
    feather = click.option(
        "--feather",
        default=0.15,
        show_default=True,
        type=Finite(0, 0.5),
        help="Width of the crop's faded edge, as a share of its side.",
    )
    return photo(difference(feather(function)))


@dataclass(frozen=True)
class Pasted:
    """A photo into which an edit is pasted back."""

    photo: str
    feather: float
    difference: bool
    """Whether only the change is added."""
    force: bool
    """Whether the photo may be another one than the latent was made from."""
    small: bool
    """Whether the photo may be reduced."""


class Scene:
    """Draws latents of one generator, alone or inside the photo."""

    def __init__(self, generator: "Generator") -> None:
        self.generator = generator
        self._paste: Callable[[Image.Image], Image.Image] | None = None

    @classmethod
    def of(cls, generator: "Generator", latent: "Latent", pasted: Pasted) -> "Scene":
        """Open the photo of ``latent``, which is not edited yet.

        Raises:
            Error: the latent has no crop, or was made from another photo.
        """
        from latentedit.io.images import open_image, to_pil
        from latentedit.photo.pasting import check_belongs, paste_back, reduced

        if latent.crop is None:
            raise DataError(
                "this latent has no crop position; --paste-back needs a latent made by "
                "latentedit invert"
            )

        photo = open_image(pasted.photo)
        unedited = latent.render(generator)
        if not pasted.force:
            _check_source(latent, pasted.photo)
            check_belongs(photo, latent, unedited, pasted.photo)
        quad = latent.crop
        if pasted.small:
            photo, quad = reduced(photo, quad, LARGEST)
        before = to_pil(unedited) if pasted.difference else None
        scene = cls(generator)
        scene._paste = lambda drawn: paste_back(
            photo, drawn, quad, feather=pasted.feather, before=before
        )
        return scene

    def draw(self, latent: "Latent") -> "Image.Image":
        """Return the picture of ``latent``, in the photo if there is one."""
        from latentedit.io.images import to_pil

        drawn = to_pil(latent.render(self.generator))
        return drawn if self._paste is None else self._paste(drawn)


def check_grid(swept: Sequence[Sweep]) -> None:
    """Raise `Error` unless ``swept`` can be the rows and columns of a sheet."""
    if len(swept) > 2:
        raise ArgumentError(f"a grid takes two --sweep, got {len(swept)}")
    for sweep in swept:
        if sweep.count is None:
            raise ArgumentError(
                f"--sweep {sweep.name}={sweep.start:g}:{sweep.stop:g} needs a COUNT (:7) in an "
                "image; only videos do without"
            )


def images_of(swept: Sequence[Sweep], timing: Timing) -> int:
    """Return the number of images of a video of ``swept``, before its way back.

    Raises:
        Error: numbers that contradict one another.
    """
    counts = {sweep.count for sweep in swept if sweep.count is not None}
    if len(counts) > 1:
        listed = " and ".join(str(count) for count in sorted(counts))
        raise ArgumentError(f"sliders that move together need the same COUNT, got {listed}")
    return timing.count(counts.pop() if counts else None, IN_VIDEO, "a COUNT in --sweep")


def together(swept: Sequence[Sweep], images: int) -> list[list[Move]]:
    """Return the moves of every image of a video in which all sliders move at once."""
    amounts = [sweep.amounts(images) for sweep in swept]
    return [
        [Move(s.name, a, None) for s, a in zip(swept, step, strict=True)]
        for step in zip(*amounts, strict=True)
    ]


def sheet_of(
    swept: Sequence[Sweep], draw: "Callable[[list[Move]], Image.Image]", name: str
) -> "Image.Image":
    """Return a strip of one sweep, or a grid of two, the first one downwards; ``draw`` gets the
    moves of every image."""
    from latentedit.io import contact_sheet

    *outer, inner = swept
    across = inner.amounts(inner.count or 2)
    down = (
        [[Move(outer[0].name, amount, None)] for amount in outer[0].amounts(outer[0].count or 2)]
        if outer
        else [[]]
    )
    rows = []
    captions = [amount_text(amount) for amount in across]

    with rendering_bar(len(down) * len(across)) as rendered:
        for start in down:
            pictures = []
            for amount in across:
                pictures.append(draw([*start, Move(inner.name, amount, None)]))
                rendered()
            rows.append(pictures)

    slider = Path(inner.name).stem
    if not outer:
        return contact_sheet.sheet([contact_sheet.Row(f"{name}: {slider}", rows[0], captions)])
    title = f"{name}: {slider} across, {Path(outer[0].name).stem} down"
    return contact_sheet.grid_sheet(
        rows, [amount_text(start[0].amount) for start in down], captions, title
    )


def amount_text(amount: float) -> str:
    """Return an amount as pictures show it: with its sign, without zeros that say nothing."""
    return f"{amount:+.2f}".rstrip("0").rstrip(".") if round(amount, 2) else "0"


def _check_source(latent: "Latent", photo: str) -> None:
    """Raise `Error` if the latent remembers its source and ``photo`` is another file."""
    from latentedit.latent.latent_file import describe_source

    if latent.source and latent.source.get("sha256") != describe_source(photo)["sha256"]:
        raise ArgumentError(
            f"{photo}: not the photo that this latent was made from "
            f"({latent.source.get('name')}); use --force to paste anyway"
        )
