"""Editing arithmetic."""

import pytest
import torch

from latentedit.directions import Direction
from latentedit.errors import Error
from latentedit.latent.editing import edit, edit_holding, edit_styles, interpolate, mix
from latentedit.latent.latent_file import render
from latentedit.latent.layers import parse_layers
from latentedit.latent.steps import score
from latentedit.latent.w_statistics import sample_w, style_statistics
from tests.helpers import tiny_generator

UNIT = torch.zeros(4).index_fill(0, torch.tensor([1]), 1.0)


def direction(
    vector: torch.Tensor = UNIT, sigma: float = 0.5, layers: tuple[int, int] | None = None
) -> Direction:
    return Direction("d", vector, 0.25, sigma, "f" * 64, layers)


def test_one_sigma_moves_the_score_by_sigma() -> None:
    ws = torch.randn(3, 6, 4)
    wplus = torch.randn(6, 4)
    for d in (direction(), direction(layers=(1, 3)), direction(wplus / wplus.norm())):
        moved = edit(ws, d, 2.0)
        torch.testing.assert_close(d.score(moved) - d.score(ws), torch.full((3,), 2 * 0.5))
        assert float(score(ws, d, 0.25)[0]) == pytest.approx(float(d.score(ws)[0]))


def test_layers() -> None:
    ws = torch.zeros(1, 10, 4)
    for layers, rows in [
        ("0-3", range(4)),
        ("coarse", range(4)),
        ("middle", range(4, 8)),
        ("fine", range(8, 10)),
        ("5", [5]),
    ]:
        moved = edit(ws, direction(), 1.0, layers)
        assert moved[0, :, 1].nonzero().flatten().tolist() == list(rows)
        assert float(moved.sum()) == pytest.approx(0.5 * len(rows))
    assert edit(ws, direction(layers=(2, 2)), 1.0)[0, :, 1].nonzero().flatten().tolist() == [2]
    assert torch.equal(ws, torch.zeros(1, 10, 4))


@pytest.mark.parametrize("text", ["a", "3-1", "0-10", "-1", "1-2-3", ""])
def test_bad_layers(text: str) -> None:
    with pytest.raises(Error, match="layers"):
        parse_layers(text, 10)


def test_shapes_are_checked() -> None:
    with pytest.raises(
        Error, match=r"direction of shape \[4\] does not fit ws of shape \[1, 6, 5\]"
    ):
        edit(torch.zeros(1, 6, 5), direction(), 1.0)
    with pytest.raises(Error, match="layers 0-9 lie outside"):
        edit(torch.zeros(1, 6, 4), direction(layers=(0, 9)), 1.0)
    with pytest.raises(Error, match="norm 1, got 2"):
        direction(UNIT * 2)
    with pytest.raises(Error, match="sigma must be greater than 0"):
        direction(sigma=0.0)
    with pytest.raises(Error, match="letters, digits"):
        Direction("a b", UNIT, 0.0, 1.0, "f")


def test_mixing_and_interpolation() -> None:
    a, b = torch.zeros(1, 6, 4), torch.ones(1, 6, 4)
    mixed = mix(a, b, (2, 3))
    assert mixed[0, :, 0].tolist() == [0, 0, 1, 1, 0, 0]
    line = interpolate(a, b, 3)
    assert line[:, 0, 0].tolist() == [0, 0.5, 1]
    assert line.shape == (3, 6, 4)


def test_held_scores_stay_and_the_others_move_by_their_amounts() -> None:
    torch.manual_seed(0)
    ws = torch.randn(3, 6, 4)
    a = torch.tensor([1.0, 0, 0, 0])
    b, c = torch.tensor([0.8, 0.6, 0, 0]), torch.randn(6, 4)  # b is correlated with a at 0.8
    moved_by = {
        "a": direction(a, 0.5),
        "b": direction(b, 2.0, (1, 3)),
        "c": direction(c / c.norm(), 0.7),
    }
    moved = edit_holding(
        ws, [(moved_by["a"], 2.0, None), (moved_by["c"], -1.0, None)], [moved_by["b"]]
    )
    for name, amount in (("a", 2.0), ("b", 0.0), ("c", -1.0)):
        d = moved_by[name]
        torch.testing.assert_close(
            d.score(moved) - d.score(ws), torch.full((3,), amount * d.sigma), atol=1e-5, rtol=0
        )
    # Nothing to correct: the plain edit.
    other = direction(torch.tensor([0, 0, 0, 1.0]))
    torch.testing.assert_close(
        edit_holding(ws, [(moved_by["a"], 1.5, None)], [other]), edit(ws, moved_by["a"], 1.5)
    )
    # W stays W.
    w = ws[:, :1].expand(-1, 6, -1)
    held = edit_holding(w, [(direction(a), 1.0, None)], [direction(b)])
    torch.testing.assert_close(held, held[:, :1].expand(-1, 6, -1))
    with pytest.raises(Error, match="linearly dependent"):
        edit_holding(ws, [(moved_by["a"], 1.0, None)], [moved_by["a"]])


@pytest.mark.parametrize("architecture", ["skip", "resnet", "stylegan1"])
def test_style_directions_move_styles_by_sigmas(architecture: str) -> None:
    generator = tiny_generator(architecture=architecture)
    _, std = style_statistics(generator)
    torch.manual_seed(1)
    vector = torch.randn(len(std)) * (std > 0)
    vector /= vector.norm()
    ws = sample_w(generator, 2)[:, None].expand(-1, generator.num_ws, -1)
    scale = std.clamp(min=1e-6)
    d = Direction("d", vector, 0.25, 0.5, "f" * 64, space="s", scale=scale)
    moved = edit_styles(generator, [], d, 2.0)
    torch.testing.assert_close(
        d.score(ws, generator, moved) - d.score(ws, generator),
        torch.full((2,), 1.0),
        atol=1e-4,
        rtol=0,
    )
    again = edit_styles(generator, moved, d, -2.0)
    assert max(float(offset.abs().max()) for offset in again) < 1e-5
    # Rows that do not move: only styles that row 1 drives.
    one = edit_styles(generator, [], d, 2.0, "1")
    rows = [row for row, _ in generator.synthesis.style_layers]
    assert [bool(offset.any()) for offset in one] == [row == 1 for row in rows]
    assert [s.shape[1] for s in generator.synthesis.styles(ws)] == [
        size for _, size in generator.synthesis.style_layers
    ]
    assert not torch.equal(render(generator, ws, "const", moved), render(generator, ws))
    with pytest.raises(Error, match="space s cannot edit ws"):
        edit(ws, d, 1.0)
    with pytest.raises(Error, match="needs? the generator"):
        d.score(ws)
    with pytest.raises(Error, match="standard deviation of every channel"):
        Direction("d", vector, 0.0, 1.0, "f", space="s")


def test_the_row_of_a_style_is_the_one_that_moves_it() -> None:
    for architecture in ("skip", "resnet", "stylegan1"):
        generator = tiny_generator(architecture=architecture)
        ws = sample_w(generator, 1)[:, None].repeat(1, generator.num_ws, 1)
        before = generator.synthesis.styles(ws)
        for row in range(generator.num_ws):
            other = ws.clone()
            other[:, row] += 1
            changed = [
                not torch.equal(a, b)
                for a, b in zip(before, generator.synthesis.styles(other), strict=True)
            ]
            assert changed == [r == row for r, _ in generator.synthesis.style_layers]
