"""What is written is read back the same, whatever it is (hypothesis makes it up, the same on every
run)."""

import csv
import io
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from latentedit.album.index import COLUMNS, Index
from latentedit.cli.moves import Move, parse_move
from latentedit.cli.sample import parse_seeds
from latentedit.directions.direction import Direction, read_direction, save_direction, unit
from latentedit.directions.labelling.table import Table
from latentedit.formats.load_latent import load_latent
from latentedit.io.csv_table import read_csv
from latentedit.latent.deltas import compress_deltas, expand_deltas
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.latent.layers import parse_layers
from latentedit.photo.alignment import crop, quad_from_eyes, quad_of_window
from latentedit.training import TrainingConfig, load_preset

few = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

PRINTABLE = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=12
)
FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)
FINGERPRINTS = st.text("0123456789abcdef", min_size=64, max_size=64)
JSON = st.dictionaries(
    PRINTABLE,
    st.none() | st.booleans() | FINITE | PRINTABLE | st.lists(FINITE, max_size=3),
    max_size=3,
)
QUADS = st.lists(st.lists(FINITE, min_size=2, max_size=2), min_size=4, max_size=4)


@st.composite
def tensors(draw: st.DrawFn, *shape: int) -> Tensor:
    """Random numbers of many magnitudes; hypothesis draws their seed, as their values would take it
    long."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-4, 4))
    return torch.from_numpy((random.standard_normal(shape) * scale).astype(np.float32))


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return (
            isinstance(a, Tensor)
            and isinstance(b, Tensor)
            and a.dtype == b.dtype
            and torch.equal(a, b)
        )
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


@st.composite
def latents(draw: st.DrawFn) -> Latent:
    rows = draw(st.integers(1, 6))
    width = draw(st.integers(1, 8))
    space = draw(st.sampled_from(["w", "w+", "s"]))
    maps = [
        draw(tensors(1, 1, size, size)) for size in draw(st.lists(st.integers(1, 4), max_size=12))
    ]
    offsets = [draw(tensors(1, size)) for size in draw(st.lists(st.integers(1, 4), max_size=12))]
    tuned = draw(st.sets(st.sampled_from(["b4/u", "b4/v", "b8.weight"])))
    return Latent(
        ws=draw(tensors(1, rows, width)),
        noise=maps or None,
        fingerprint=draw(FINGERPRINTS),
        space=space,
        crop=draw(st.none() | QUADS),
        settings=draw(JSON),
        distances=draw(st.dictionaries(PRINTABLE, FINITE, max_size=3)),
        source=draw(st.none() | st.fixed_dictionaries({"name": PRINTABLE, "sha256": FINGERPRINTS})),
        styles=offsets if space == "s" else [],
        tuned={name: draw(tensors(2, 3)).half().float() for name in tuned},
    )


@few
@given(latent=latents())
def test_latent_file(folder: Path, latent: Latent) -> None:
    path = folder / "latent.safetensors"
    save_latent(path, latent)
    found = load_latent(path)
    for name, value in vars(latent).items():
        assert same(getattr(found, name), value), name


@st.composite
def directions(draw: st.DrawFn) -> Direction:
    space = draw(st.sampled_from(["w", "w+", "s", "z"]))
    rows, width = draw(st.integers(1, 6)), draw(st.integers(2, 8))
    shape = (rows, width) if space == "w+" else (width,)
    first = draw(st.integers(0, 20))
    return Direction(
        name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)),
        vector=unit(draw(tensors(*shape))),
        intercept=draw(FINITE),
        sigma=draw(st.floats(1e-6, 1e6)),
        fingerprint=draw(FINGERPRINTS),
        layers=draw(st.none() | st.tuples(st.just(first), st.integers(first, 30))),
        report=draw(JSON),
        provenance=draw(JSON),
        space=space,
        scale=draw(tensors(*shape)).abs() if space == "s" else None,
        step=draw(st.none() | tensors(rows, width)) if space in ("w", "w+") else None,
    )


@few
@given(direction=directions())
def test_direction_file(folder: Path, direction: Direction) -> None:
    path = folder / "direction.safetensors"
    save_direction(path, direction)
    found = read_direction(path)
    for name, value in vars(direction).items():
        assert same(getattr(found, name), value), name


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=8)


def rows_of(count: int) -> st.SearchStrategy[list[list[str]]]:
    return st.lists(st.lists(CELLS, min_size=count, max_size=count), min_size=1, max_size=4)


TABLES = st.integers(1, 4).flatmap(rows_of)


def write_csv(path: Path, rows: list[list[str]], delimiter: str) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")


@few
@given(rows=TABLES, delimiter=st.sampled_from([",", ";", "\t"]))
def test_csv_tables_are_read(folder: Path, rows: list[list[str]], delimiter: str) -> None:
    path = folder / "table.csv"
    table = [["file", *[f"column {index}" for index in range(1, len(rows[0]))]], *rows]
    write_csv(path, table, delimiter)
    assert list(read_csv(path, column="file")) == table


@few
@given(rows=TABLES, value=CELLS, data=st.data())
def test_one_cell_of_a_csv_changes_and_no_other(
    folder: Path, rows: list[list[str]], value: str, data: st.DataObject
) -> None:
    path = folder / "labels.csv"
    head = ["file", *[f"column {index}" for index in range(1, len(rows[0]))]]
    write_csv(path, [head, *rows], ",")
    before = path.read_bytes()
    row = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.sampled_from([*head, "new"]))

    Table(path).set(row, column, value)

    index = [*head, "new"].index(column)
    wanted = [[*cells, *[""] * (index + 1 - len(head))] for cells in rows]
    wanted[row][index] = value
    found = list(read_csv(path))
    assert found[1:] == wanted
    if column != "new":
        Table(path).set(row, column, rows[row][index])
        assert list(read_csv(path))[1:] == rows
        assert len(path.read_bytes()) <= len(before)


@few
@given(remarks=st.text(st.sampled_from("'=+-@,\";ab1 é😀"), max_size=8), psnr=FINITE)
def test_index_of_an_album(folder: Path, remarks: str, psnr: float) -> None:
    Index(folder).add(
        folder / "=me.jpg", latent="me.safetensors", status="ok", remarks=remarks, psnr=psnr
    )
    row = Index(folder).rows["me.safetensors"]
    assert set(row) == set(COLUMNS)
    assert (row["photo"], row["status"], row["remarks"]) == ("=me.jpg", "ok", remarks)
    assert float(row["psnr"]) == pytest.approx(psnr, rel=1e-4)


WIDTHS = st.fixed_dictionaries(
    {},
    optional={
        "channel_base": st.integers(1, 4096),
        "channel_widths": st.lists(st.integers(1, 64), max_size=4),
        "conv_clamp": st.none() | st.floats(1, 256),
        "mapping_lr_multiplier": st.floats(1e-9, 1),
    },
)


@few
@given(
    options=st.fixed_dictionaries(
        {"generator": WIDTHS, "discriminator": WIDTHS},
        optional={
            "batch": st.integers(1, 4096),
            "micro_batch": st.none() | st.integers(1, 64),
            "learning_rate": st.floats(1e-12, 1e12),
            "ema_rampup": st.none() | st.floats(0, 1),
            "ada_target": st.none() | st.floats(0, 1),
            "augment": st.sampled_from(["none", "bgc", "bg"]),
            "mirror": st.booleans(),
            "precision": st.sampled_from(["auto", "fp32", "bf16", "fp16"]),
            "seed": st.integers(0, 2**32 - 1),
            "kimg": st.floats(1e-6, 1e15),
        },
    )
)
def test_training_configuration_as_toml(folder: Path, options: dict[str, Any]) -> None:
    config = TrainingConfig(**options)
    path = folder / "preset.toml"
    path.write_text(config.toml(), encoding="utf-8")
    found = load_preset(str(path))
    for table in (config.generator, config.discriminator):
        unset = [name for name, value in table.items() if value is None]
        for name in unset:  # TOML has no null, and what is left out is unset too
            del table[name]
    assert found == config


@few
@given(rows=st.integers(1, 18), data=st.data())
def test_layer_ranges(rows: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, rows - 1))
    last = data.draw(st.integers(first, rows - 1))
    assert parse_layers(f"{first}-{last}", rows) == (first, last)
    assert parse_layers(str(first), rows) == (first, first)
    assert parse_layers("all", rows) == (0, rows - 1)


@few
@given(
    name=st.text(string.ascii_letters + string.digits + "-_./= ", min_size=1, max_size=12),
    amount=st.floats(-1000, 1000),
    layers=st.none() | st.sampled_from(["0-3", "5", "coarse"]),
    absolute=st.booleans(),
)
def test_moves(name: str, amount: float, layers: str | None, absolute: bool) -> None:
    text = f"{name}={':' if absolute else ''}{amount!r}{f'@{layers}' if layers else ''}"
    assert parse_move(text) == Move(name, amount, layers, absolute)


@few
@given(
    ranges=st.lists(
        st.tuples(st.integers(0, 2**32 - 20), st.integers(0, 9)), min_size=1, max_size=5
    )
)
def test_seeds(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in ranges)
    assert parse_seeds(text) == [
        seed for first, more in ranges for seed in range(first, first + more + 1)
    ]


@few
@given(left=st.integers(0, 20), top=st.integers(0, 12), size=st.integers(1, 20))
def test_the_quad_of_a_window_takes_its_pixels(left: int, top: int, size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    found = np.asarray(crop(Image.fromarray(pixels), quad_of_window(left, top, size), size))
    assert np.array_equal(found, pixels[top : top + size, left : left + size])


@few
@given(
    left=st.tuples(FINITE, FINITE),
    across=st.complex_numbers(min_magnitude=1, max_magnitude=1e4),
    framing=st.tuples(
        *[st.floats(0.2, 0.45), st.floats(0.2, 0.8), st.floats(0.55, 0.8), st.floats(0.2, 0.8)]
    ),
)
def test_the_quad_around_eyes_has_them_where_the_framing_says(
    left: tuple[float, float], across: complex, framing: tuple[float, float, float, float]
) -> None:
    right = (left[0] + across.real, left[1] + across.imag)
    places = [[framing[0], framing[1]], [framing[2], framing[3]]]
    corners = [complex(*corner) for corner in quad_from_eyes(left, right, {"eyes": places})]
    for eye, (x, y) in zip((left, right), places, strict=True):
        found = corners[0] + x * (corners[1] - corners[0]) + y * (corners[3] - corners[0])
        assert abs(found - complex(*eye)) <= 1e-6 * max(abs(complex(*eye)), abs(across), 1)


@few
@given(data=st.data(), rows=st.integers(1, 12), inside=st.integers(1, 6), rank=st.integers(1, 3))
def test_differences_of_a_tuned_generator(
    data: st.DataObject, rows: int, inside: int, rank: int
) -> None:
    whole = {"weight": data.draw(tensors(rows, inside, 3, 3)), "bias": data.draw(tensors(rows))}
    # a half holds up to 65504
    whole = {name: delta.clamp(-1e3, 1e3) for name, delta in whole.items()}
    assert same(
        expand_deltas(compress_deltas(whole, None)),
        {name: delta.half().float() for name, delta in whole.items()},
    )

    factors = data.draw(tensors(rows, rank)), data.draw(tensors(rank, inside * 9))
    low = (factors[0] / factors[0].norm()) @ (factors[1] / factors[1].norm())
    stored = compress_deltas({"weight": low.reshape(rows, inside, 3, 3)}, rank)
    found = expand_deltas(stored, {"weight": torch.empty(rows, inside, 3, 3)})["weight"]
    assert found.shape == (rows, inside, 3, 3)
    assert float((found.flatten(1) - low).norm()) <= 2e-3 * float(low.norm())
