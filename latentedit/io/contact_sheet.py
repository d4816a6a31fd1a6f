"""Labelled sheets of pictures: a row a title, a cell a caption."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from latentedit.io.images import opaque, to_pil

CELL = 128
"""Pictures are shown at least this large."""
MARGIN = 6
TEXT = 14


@dataclass(frozen=True)
class Row:
    """One row of a sheet."""

    title: str
    pictures: Sequence[Tensor | Image.Image]
    """Each a PIL image, or ``[C, H, W]`` or ``[1, C, H, W]`` in [-1, 1]."""
    captions: Sequence[str] = ()


def sheet(rows: Sequence[Row], cell: int = CELL) -> Image.Image:
    """Return a white sheet with ``rows`` below one another; pictures below ``cell`` pixels are
    enlarged to it."""
    cells = [[_enlarged(picture, cell) for picture in row.pictures] for row in rows]
    width = max(sum(one.width + MARGIN for one in line) for line in cells) + MARGIN
    heights = [
        TEXT * (bool(row.title) + bool(row.captions)) + line[0].height + 2 * MARGIN
        for row, line in zip(rows, cells, strict=True)
    ]
    font = ImageFont.load_default(TEXT - 2)
    longest = max(int(font.getlength(row.title)) for row in rows) + 2 * MARGIN
    canvas = Image.new("RGB", (max(width, longest), sum(heights) + MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    top = MARGIN

    for row, line, height in zip(rows, cells, heights, strict=True):
        y = top
        left = MARGIN
        if row.title:
            draw.text((left, y), row.title, fill="black", font=font)
            y += TEXT
        for index, shown in enumerate(line):
            if index < len(row.captions):
                draw.text(
                    (left + shown.width / 2, y),
                    row.captions[index],
                    fill="dimgray",
                    font=font,
                    anchor="ma",
                )
            canvas.paste(
                opaque(shown).convert("RGB"), (left, y + (TEXT if row.captions else 0) + 2)
            )
            left += shown.width + MARGIN

        top += height

    return canvas


def _enlarged(picture: Tensor | Image.Image, cell: int) -> Image.Image:
    image = to_pil(picture) if isinstance(picture, Tensor) else picture
    if image.width >= cell:
        return image
    return image.resize((cell, round(image.height * cell / image.width)), Image.Resampling.BICUBIC)
