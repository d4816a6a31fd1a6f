"""Random numbers of training: Philox by its published vectors, and streams that no division of a
batch changes."""

import math

import pytest
import torch

from latentedit.training.philox import MASK, below, philox, to_normal, to_uniform
from latentedit.training.streams import AHEAD, Streams

PI = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0]
VECTORS = {
    "zeros": ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    "ones": ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    "pi": (PI[:4], PI[4:], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
}
"""Counter, key and words of Philox4x32-10 as its authors publish them (Random123, kat_vectors)."""


@pytest.mark.parametrize("case", VECTORS)
def test_known_answers(case: str) -> None:
    counter, key, expected = VECTORS[case]
    c0, c1, c2, c3 = (torch.tensor([word]) for word in counter)
    assert philox((c0, c1, c2, c3), (key[0], key[1])).tolist() == [expected]


def streams(
    samples: range = range(6), seed: int = 1, step: int = 2, name: str = "generator"
) -> Streams:
    return Streams(seed, torch.tensor(step), name, torch.tensor(list(samples)))


def everything(draws: Streams) -> list[torch.Tensor]:
    """Small and large draws, more than are made at once, and odd ones."""
    small = [draws.normal(3) if i % 2 else draws.uniform(2) for i in range(AHEAD // 2)]
    return [
        *small,
        draws.integers(10)[:, None],
        *draws.maps([(1, 5, 5), (1, 9, 9)]),
        draws.uniform(),
        draws.normal(AHEAD),
    ]


@pytest.mark.parametrize("part", [range(0, 6, 2), range(1, 6, 2), range(4, 6)])
def test_a_part_of_a_batch_draws_what_the_whole_does(part: range) -> None:
    for whole, own in zip(everything(streams()), everything(streams(part)), strict=True):
        assert torch.equal(own, whole[list(part)])


def test_words_do_not_depend_on_what_is_made_at_once() -> None:
    one, many = streams(), streams()
    words = one._make(0, 4 * AHEAD)
    found = [many._next(count) for count in (1, 2, 130, 5, 255, 3, 200, 100)]
    assert torch.equal(torch.cat(found, dim=1), words[:, : many.position])


def test_seed_step_pass_and_picture_tell_streams_apart() -> None:
    changed = [
        streams(),
        streams(seed=2),
        streams(step=3),
        streams(step=2 + 2**32),
        streams(name="path"),
    ]
    drawn = torch.cat([draws.uniform(8) for draws in changed])  # and the pictures' own
    assert len({tuple(row.tolist()) for row in drawn}) == len(drawn)


def test_distributions() -> None:
    draws = streams(range(100))
    x, u = draws.normal(2000), draws.uniform(2000)
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.square().mean()) - 1) < 0.01
    assert abs(float(x.pow(4).mean()) - 3) < 0.05
    # the two that one pair of words makes
    assert abs(float((x[:, :1000] * x[:, 1000:]).mean())) < 0.01
    assert float(x.abs().max()) > 4
    assert 0 <= float(u.min()) < 1e-4
    assert 1 - 1e-4 < float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 0.005
    counts = torch.bincount(torch.cat([draws.integers(7) for _ in range(200)]), minlength=7)
    assert len(counts) == 7
    assert float((counts / counts.sum() - 1 / 7).abs().max()) < 0.01


def test_extreme_words() -> None:
    words = torch.tensor([[0, MASK, 0, MASK], [MASK, 0, MASK, 0]])
    for dtype in (torch.float32, torch.float64):
        assert bool(torch.isfinite(to_normal(words, dtype)).all())
        assert to_uniform(words, dtype).dtype == dtype
        assert float(to_uniform(words, dtype).max()) < 1
    assert float(to_normal(words, torch.float64).abs().max()) <= math.sqrt(48 * math.log(2))
    assert below(words, 2**31).flatten().unique().tolist() == [0, 2**31 - 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_numbers_of_the_cpu() -> None:
    samples = torch.arange(6, device="cuda")
    there = Streams(1, torch.tensor(2, device="cuda"), "generator", samples)
    for own, other in zip(everything(there), everything(streams()), strict=True):
        torch.testing.assert_close(own.cpu(), other, rtol=1e-5, atol=1e-6)
