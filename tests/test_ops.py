"""FIR resampling: properties and gradients of first and second order."""

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latentedit.errors import Error
from latentedit.networks.convolution import differentiated_twice
from latentedit.networks.discriminator import DiscriminatorConfig, build_discriminator
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.ops import (
    downsample2d,
    filter_adjoint,
    fir_filter,
    fir_taps,
    prefers_sums,
    upfirdn2d,
    upsample2d,
)
from latentedit.training.losses import r1_penalty
from latentedit.training.path_length import path_lengths


def by_definition(
    x: torch.Tensor, f: torch.Tensor, up: int, down: int, pad: tuple[int, int, int, int]
) -> torch.Tensor:
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
        [
            torch.stack(
                [(wide[:, :, i : i + kh, j : j + kw] * flipped).sum((2, 3)) for j in columns], -1
            )
            for i in rows
        ],
        -2,
    )


@settings(max_examples=40, deadline=None)
@given(
    up=st.integers(1, 3),
    down=st.integers(1, 3),
    pad=st.tuples(*[st.integers(0, 3)] * 4),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_definition(
    up: int, down: int, pad: tuple[int, int, int, int], size: tuple[int, int], taps: tuple[int, int]
) -> None:
    x = torch.arange(2.0 * size[0] * size[1]).reshape(1, 2, *size).cos()
    f = torch.arange(1.0, taps[0] * taps[1] + 1).reshape(taps)
    if min(size[0] * up + pad[2] + pad[3] - taps[0], size[1] * up + pad[0] + pad[1] - taps[1]) < 0:
        return
    torch.testing.assert_close(
        upfirdn2d(x, f, up, down, pad), by_definition(x, f, up, down, pad), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("up", "down", "pad"),
    [(1, 1, (1, 2, 1, 2)), (2, 1, (2, 1, 2, 1)), (1, 2, (1, 1, 1, 1)), (2, 2, (-1, 3, 0, 2))],
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


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA takes for large pictures."""
    monkeypatch.setattr("latentedit.ops.prefers_sums", lambda device, count: True)


def test_the_rule_looks_at_device_and_size_alone() -> None:
    assert prefers_sums(torch.device("cuda"), 2**20)
    assert not prefers_sums(torch.device("cuda"), 2**20 - 1)
    assert not prefers_sums(torch.device("cpu"), 2**30)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    up=st.integers(1, 3),
    down=st.integers(1, 3),
    pad=st.tuples(*[st.integers(-2, 3)] * 4),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    taps=st.integers(1, 4),
    flip=st.booleans(),
)
# its gradient crops into its own padding
@example(up=1, down=3, pad=(0, 0, 3, -2), size=(3, 3), taps=2, flip=False)
def test_sums_agree_with_the_convolution(
    up: int, down: int, pad: tuple[int, int, int, int], size: tuple[int, int], taps: int, flip: bool
) -> None:
    """Values, gradients and gradients of gradients; and the adjoint that the modulated layer
    takes."""
    if min(size[0] * up + pad[2] + pad[3] - taps, size[1] * up + pad[0] + pad[1] - taps) < 0:
        return
    filter, found = torch.arange(1.0, taps + 1, dtype=torch.float64), []
    x = (
        torch.arange(2.0 * size[0] * size[1], dtype=torch.float64)
        .reshape(1, 2, *size)
        .cos()
        .requires_grad_()
    )
    for summed in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "latentedit.ops.prefers_sums", lambda device, count, summed=summed: summed
            )
            y = upfirdn2d(x, filter, up, down, pad, 0.7, flip)
            (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), x)
            found.append([y, first, second])
            if up == down == 1 and not flip:
                found[-1].append(filter_adjoint(y.detach(), filter, size, pad, 0.7))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(
            other, one, rtol=1e-9, atol=1e-9 * float(one.detach().abs().max())
        )


def test_sums_keep_the_memory_format(sums: None) -> None:
    x, taps = (
        torch.randn(2, 8, 9, 9).contiguous(memory_format=torch.channels_last),
        fir_taps([1, 3, 3, 1]),
    )
    for y in (upsample2d(x, taps), downsample2d(x, taps), upfirdn2d(x, taps, padding=2)):
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig", "stylegan1"])
def test_networks_agree_in_both_forms(architecture: str) -> None:
    """Pictures, and the gradients of both lazy regularisations in every parameter."""
    narrow: dict[str, Any] = {
        "resolution": 16,
        "channels": 3,
        "channel_base": 64,
        "channel_max": 8,
        "architecture": architecture,
    }
    found = []
    for summed in (False, True):
        torch.manual_seed(0)
        g = Generator(
            GeneratorConfig(**{**narrow, "z_dim": 8, "w_dim": 8, "mapping_layers": 1})
        ).double()
        d = build_discriminator(DiscriminatorConfig(**{**narrow, "mbstd_group_size": 2})).double()
        ws, images = (
            torch.randn(2, g.num_ws, 8).double().requires_grad_(),
            torch.randn(2, 3, 16, 16).double().requires_grad_(),
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "latentedit.ops.prefers_sums", lambda device, count, summed=summed: summed
            )
            with differentiated_twice():
                rendered = g.synthesis(ws)
            again = g.synthesis(ws)
            (plain,) = torch.autograd.grad(again.square().sum(), ws)
            path_lengths(rendered, ws, torch.randn_like(rendered)).sum().backward()
            r1_penalty(images, d(images)).sum().backward()
        gradients = [
            p.grad for network in (g, d) for p in network.parameters() if p.grad is not None
        ]
        assert len(gradients) > 10
        found.append([rendered, again, plain, *gradients])
    for one, other in zip(*found, strict=True):
        largest = float(one.detach().abs().max())
        torch.testing.assert_close(other, one, rtol=0, atol=max(1e-5 * largest, 1e-8))
