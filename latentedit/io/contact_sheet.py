"""Labelled sheets of pictures: a row a title, a cell a caption; and tables of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from latentedit.io.images import opaque, to_pil

CELL = 128
"""Pictures are shown at least this large."""
COLUMNS = 8
"""Pictures beside one another: with `CELL`, as wide as a phone's screen is in pixels."""
MARGIN = 6
TEXT = 18
"""Height of a line of text."""
FONT = 14
CAPTION = 12
LEAST = 260
"""Width that a title may take, however narrow the pictures are."""

Picture = Tensor | Image.Image
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Row:
    """One row of a sheet."""

    title: str
    pictures: Sequence[Picture]
    """Each ``[C, H, W]`` or ``[1, C, H, W]`` in [-1, 1], or a PIL image."""
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class _Line:
    """Pictures beside one another, with what stands above them."""

    titles: list[str]
    cells: list[Image.Image]
    captions: Sequence[str]

    @property
    def height(self) -> int:
        above = TEXT * (len(self.titles) + bool(self.captions))
        return above + max(one.height for one in self.cells) + 2 * MARGIN


def sheet(rows: Sequence[Row], cell: int = CELL, columns: int = COLUMNS) -> Image.Image:
    """A white sheet with ``rows`` below one another.

    Pictures below ``cell`` pixels are enlarged to it. Rows of more than ``columns`` pictures go on
    below, in lines of about the same length; a row without a title that has the captions of the one
    above does not repeat them.
    """
    font, small = ImageFont.load_default(FONT), ImageFont.load_default(CAPTION)
    shown = [[_enlarged(picture, cell) for picture in row.pictures] for row in rows]
    width = max(_width(cells[: _each(cells, columns)]) for cells in shown)
    room = max(width - 2 * MARGIN, LEAST)
    lines: list[_Line] = []
    before: Sequence[str] = ()

    for row, cells in zip(rows, shown, strict=True):
        titles = _wrapped(row.title, room, font) if row.title else []
        each = _each(cells, columns)
        for start in range(0, len(cells), each):
            captions = row.captions[start : start + each]
            repeated = not titles and list(captions) == list(before)
            lines.append(_Line(titles, cells[start : start + each], () if repeated else captions))
            before = captions
            titles = []

    longest = max((_length(title, font) for line in lines for title in line.titles), default=0)
    size = (max(width, longest + 2 * MARGIN), sum(line.height for line in lines) + MARGIN)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    top = MARGIN

    for line in lines:
        y = top
        for title in line.titles:
            draw.text((MARGIN, y), title, fill="black", font=font)
            y += TEXT

        left = MARGIN
        for index, picture in enumerate(line.cells):
            if index < len(line.captions):
                place = (left + picture.width / 2, y + TEXT - 3)
                text = _fitting(line.captions[index], picture.width, small)
                draw.text(place, text, fill="dimgray", font=small, anchor="ms")
            canvas.paste(picture, (left, y + (TEXT if line.captions else 0)))
            left += picture.width + MARGIN

        top += line.height

    return canvas


def grid_sheet(
    pictures: Sequence[Sequence[Picture]],
    down: Sequence[str],
    across: Sequence[str],
    title: str = "",
    cell: int = CELL,
) -> Image.Image:
    """A white sheet of rows and columns, whose labels stand once, at the left and at the top.

    Args:
        pictures: rows of pictures, all of one size.
        down: labels of the rows.
        across: labels of the columns.
    """
    font, small = ImageFont.load_default(FONT), ImageFont.load_default(CAPTION)
    cells = [[_enlarged(picture, cell) for picture in row] for row in pictures]
    first = cells[0][0]
    side = max(_length(label, small) for label in down) + 2 * MARGIN
    width = side + _width(cells[0])
    titles = _wrapped(title, max(width - 2 * MARGIN, LEAST), font) if title else []
    head = MARGIN + TEXT * (len(titles) + 1)
    step = first.height + MARGIN
    longest = max((_length(one, font) for one in titles), default=0) + 2 * MARGIN
    canvas = Image.new("RGB", (max(width, longest), head + step * len(cells)), "white")
    draw = ImageDraw.Draw(canvas)

    for number, text in enumerate(titles):
        draw.text((MARGIN, MARGIN + number * TEXT), text, fill="black", font=font)

    for column, label in enumerate(across):
        middle = side + MARGIN + column * (first.width + MARGIN) + first.width / 2
        text = _fitting(label, first.width, small)
        draw.text((middle, head - 3), text, fill="dimgray", font=small, anchor="ms")

    for row, (label, line) in enumerate(zip(down, cells, strict=True)):
        y = head + row * step
        draw.text((side, y + first.height / 2), label, fill="dimgray", font=small, anchor="rm")
        for column, picture in enumerate(line):
            canvas.paste(picture, (side + MARGIN + column * (first.width + MARGIN), y))

    return canvas


def numbered(pictures: Sequence[Picture], names: Sequence[object], cell: int = CELL) -> Image.Image:
    """A sheet of pictures with a number or name above each, without titles."""
    return sheet([Row("", pictures, [str(name) for name in names])], cell)


def mosaic(pictures: Tensor, columns: int, least: int = 64) -> Image.Image:
    """Pictures ``[N, C, H, W]`` with narrow gaps and without text, as snapshots of trainings are.

    Args:
        columns: pictures in a row.
        least: smaller pictures are enlarged to this side, so that their pixels can be seen.
    """
    cells = [_enlarged(picture, least, Image.Resampling.NEAREST) for picture in pictures]
    gap = 2
    width, height = cells[0].width + gap, cells[0].height + gap
    size = (columns * width + gap, -(-len(cells) // columns) * height + gap)
    canvas = Image.new(cells[0].mode, size, "white")
    for number, picture in enumerate(cells):
        row, column = divmod(number, columns)
        canvas.paste(picture, (gap + column * width, gap + row * height))

    return canvas


def _each(cells: Sequence[Image.Image], columns: int) -> int:
    """Return the number of pictures in a line, so that all lines of a row have about as many."""
    return -(-len(cells) // -(-len(cells) // columns))


def _width(cells: Sequence[Image.Image]) -> int:
    return sum(one.width + MARGIN for one in cells) + MARGIN


def _length(text: str, font: Font) -> int:
    return int(font.getlength(text)) + 1


def _fitting(text: str, width: int, font: Font) -> str:
    """Return ``text``, shortened if it is wider than its picture."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """Return ``text`` in lines that are no wider than ``width``, if its words allow it."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _enlarged(
    picture: Picture, cell: int, how: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    image = to_pil(picture) if isinstance(picture, Tensor) else picture
    if how is not Image.Resampling.NEAREST:
        image = opaque(image).convert("RGB")
    if image.width >= cell:
        return image
    factor = -(-cell // image.width) if how is Image.Resampling.NEAREST else cell / image.width
    return image.resize((round(image.width * factor), round(image.height * factor)), how)
