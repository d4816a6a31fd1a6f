"""Sheets of pictures: nothing overlaps, long rows go on below, small pictures are enlarged."""

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.io.contact_sheet import (
    CELL,
    COLUMNS,
    LEAST,
    MARGIN,
    TEXT,
    Row,
    grid_sheet,
    mosaic,
    numbered,
    sheet,
)

BLACK = -torch.ones(1, 16, 16)


def dark(image: Image.Image) -> np.ndarray:
    """Where a sheet of black pictures is black: ``[H, W]``, true in pictures and in letters."""
    return np.asarray(image.convert("L")) < 128


def pictures_in(image: Image.Image) -> tuple[int, int]:
    """How many rows and columns of black pictures there are, told by their full lines."""
    inside = dark(image)
    rows = inside.sum(axis=1) >= CELL
    columns = inside.sum(axis=0) >= CELL
    return tuple(int((np.diff(line.astype(int)) == 1).sum()) for line in (rows, columns))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 1)), (COLUMNS, (1, 8)), (11, (2, 6)), (16, (2, 8)), (50, (7, 8))],
)
def test_long_rows_go_on_below(count: int, expected: tuple[int, int]) -> None:
    drawn = sheet([Row("", [BLACK] * count)])
    assert pictures_in(drawn) == expected
    assert drawn.width == expected[1] * (CELL + MARGIN) + MARGIN
    assert drawn.width <= 1080  # of a phone, in pixels


def test_numbers_stand_above_the_pictures() -> None:
    plain = sheet([Row("", [BLACK] * 3)])
    drawn = numbered([BLACK] * 3, [85, 86, 2**32 - 1])
    assert drawn.height == plain.height + TEXT
    top = dark(drawn)[: MARGIN + TEXT]
    for column in range(3):
        left = MARGIN + column * (CELL + MARGIN)
        assert top[:, left : left + CELL].any()
    assert not top[:, MARGIN + CELL : MARGIN + CELL + MARGIN].any()


def test_captions_never_reach_the_next_picture() -> None:
    drawn = sheet([Row("", [BLACK] * 2, ["a caption that is far wider than its picture"] * 2)])
    gap = slice(MARGIN + CELL, MARGIN + CELL + MARGIN)
    assert not dark(drawn)[:, gap].any()


def test_titles_are_wrapped() -> None:
    short = sheet([Row("me.jpg", [BLACK] * 4)])
    long = sheet([Row("one two three four five six " * 9, [BLACK] * 4)])
    assert long.width == short.width
    assert (long.height - short.height) % TEXT == 0
    assert long.height > short.height
    assert sheet([Row("some words for one picture", [BLACK])]).width <= LEAST + 2 * MARGIN


def test_captions_are_not_repeated_below_one_another() -> None:
    row = Row("a", [BLACK] * 2, ["-1", "+1"])
    once = sheet([row, Row("", [BLACK] * 2, ["-1", "+1"])])
    other = sheet([row, Row("", [BLACK] * 2, ["-2", "+2"])])
    assert once.height == other.height - TEXT


def test_tables_have_their_labels_once() -> None:
    drawn = grid_sheet(
        [[BLACK] * 3] * 2, ["-1", "+1"], ["-2", "0", "+2"], "smile across, turn down"
    )
    assert pictures_in(drawn) == (2, 3)
    black = dark(drawn)
    left = drawn.width - 3 * (CELL + MARGIN)
    assert black[: MARGIN + 2 * TEXT].any()  # title and labels of the columns
    assert black[MARGIN + 2 * TEXT :, : left - MARGIN].any()  # labels of the rows
    assert not black[:, left + CELL : left + CELL + MARGIN][MARGIN + 2 * TEXT :].any()


@pytest.mark.parametrize("channels", [1, 3])
def test_small_networks_are_enlarged_by_whole_pixels(channels: int) -> None:
    images = torch.stack([torch.full((channels, 16, 16), value) for value in (-1.0, 1.0, -1.0)])
    drawn = mosaic(images, 2)
    assert drawn.size == (2 * 66 + 2, 2 * 66 + 2)
    assert set(np.unique(np.asarray(drawn))) == {0, 255}
    large = mosaic(torch.zeros(2, channels, 128, 128), 2)
    assert large.size == (2 * 130 + 2, 132)
