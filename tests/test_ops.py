"""FIR resampling: properties and gradients of first and second order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentedit.errors import Error
from latentedit.ops import downsample2d, fir_filter, upfirdn2d, upsample2d


def by_definition(x: torch.Tensor, f: torch.Tensor, up: int, down: int, pad: tuple[int, int, int, int]) -> torch.Tensor:
    """Zero insertion, padding, convolution and decimation, one number at a time."""
    x0, x1, y0, y1 = pad
    n, c, h, w = x.shape
    wide = torch.zeros(n, c, h * up + y0 + y1, w * up + x0 + x1, dtype=x.dtype)
    for i in range(h):
        for j in range(w):
            wide[:, :, i * up + y0, j * up + x0] = x[:, :, i, j]
    kh, kw = f.shape
    rows = range(0, wide.shape[2] - kh + 1, down)
    columns = range(0, wide.shape[3] - kw + 1, down)
    flipped = f.flip(0, 1)
    return torch.stack(
        [torch.stack([(wide[:, :, i : i + kh, j : j + kw] * flipped).sum((2, 3)) for j in columns], -1) for i in rows], -2
    )


@settings(max_examples=40, deadline=None)
@given(
    up=st.integers(1, 3),
    down=st.integers(1, 3),
    pad=st.tuples(*[st.integers(0, 3)] * 4),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_definition(up: int, down: int, pad: tuple[int, int, int, int], size: tuple[int, int], taps: tuple[int, int]) -> None:
    x = torch.arange(2.0 * size[0] * size[1]).reshape(1, 2, *size).cos()
    f = torch.arange(1.0, taps[0] * taps[1] + 1).reshape(taps)
    if min(size[0] * up + pad[2] + pad[3] - taps[0], size[1] * up + pad[0] + pad[1] - taps[1]) < 0:
        return
    torch.testing.assert_close(upfirdn2d(x, f, up, down, pad), by_definition(x, f, up, down, pad), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("up", "down", "pad"), [(1, 1, (1, 2, 1, 2)), (2, 1, (2, 1, 2, 1)), (1, 2, (1, 1, 1, 1)), (2, 2, (-1, 3, 0, 2))]
)
def test_gradients_of_both_orders(up: int, down: int, pad: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    f = torch.randn(4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: upfirdn2d(t, f, up, down, pad), x)
    assert torch.autograd.gradgradcheck(lambda t: upfirdn2d(t, f, up, down, pad).square(), x)


def test_a_learnt_filter_gets_its_gradient() -> None:
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    f = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: upfirdn2d(x, t, 2, 1, (1, 1, 1, 1)), f)


def test_constants_survive_resampling() -> None:
    f = fir_filter([1, 3, 3, 1])
    assert float(f.sum()) == pytest.approx(1)
    x = torch.full((1, 3, 16, 16), 0.7)
    assert torch.allclose(upsample2d(x, f)[:, :, 4:-4, 4:-4], torch.tensor(0.7))
    assert torch.allclose(downsample2d(x, f)[:, :, 2:-2, 2:-2], torch.tensor(0.7))


def test_memory_format_does_not_matter() -> None:
    x, f = torch.randn(2, 8, 9, 9), fir_filter([1, 3, 3, 1])
    nhwc = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(upsample2d(nhwc, f), upsample2d(x, f))


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(Error, match=r"shape \[N, C, H, W\], got \[3, 4\]"):
        upfirdn2d(torch.zeros(3, 4), fir_filter([1, 1]))
    with pytest.raises(Error, match="non-empty list of taps"):
        fir_filter([])
