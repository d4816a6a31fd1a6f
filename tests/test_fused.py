"""The fused form of layers and filters: its wiring on the CPU by stand-ins, its kernels where
Triton is installed."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.networks.convolution import differentiated_twice
from latentedit.networks.discriminator import DiscriminatorConfig, build_discriminator
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.ops import Geometry, _depthwise, fir_taps, upfirdn2d
from latentedit.runtime import fused
from latentedit.training.losses import r1_penalty
from latentedit.training.path_length import path_lengths


def plain_resample(
    x: Tensor,
    taps: Tensor,
    size: Any,
    geometry: fused.FirGeometry,
    layer: fused.Layer | None = None,
) -> Tensor:
    """What `fused.fir_resample` computes, of PyTorch's operations."""
    up, down, top, left, gain, flip = geometry
    bottom, right = (
        (extent - 1) * down + len(taps) - before - side * up
        for extent, before, side in zip(size, (top, left), x.shape[2:], strict=True)
    )
    y = _depthwise(x, taps, Geometry(up, down, (left, right, top, bottom), gain, flip))
    layer = layer or fused.Layer()
    y = y if layer.factors is None else y * layer.factors[:, :, None, None]
    y = y if layer.bias is None else y + layer.bias[:, None, None]
    y = y if layer.noise is None else y + layer.noise
    return F.leaky_relu(y, layer.slope).contiguous(memory_format=torch.channels_last)


def plain_gradients(
    gradient: Tensor,
    y: Tensor,
    layer: fused.Layer,
    to_noise: bool = False,
    to_factors: bool = True,
    x: Tensor | None = None,
) -> fused.Gradients:
    """What `fused.gradients` computes, of PyTorch's operations."""
    before = torch.where(y > 0, gradient, gradient * layer.slope)
    scaled = before if layer.factors is None else before * layer.factors[:, :, None, None]
    noisy = before * (0 if layer.noise is None or x is not None else layer.noise)
    product = gradient * y if x is None else before * x
    over_channels = before.sum(dim=1, keepdim=True) if to_noise else None
    if not to_factors:
        none = y.new_empty(0)
        return fused.Gradients(scaled, before.sum(dim=(2, 3)), none, none, over_channels)
    return fused.Gradients(
        scaled,
        before.sum(dim=(2, 3)),
        product.sum(dim=(2, 3)),
        noisy.sum(dim=(2, 3)),
        over_channels,
    )


def plain_changes(
    gradient: Tensor, y: Tensor, x: Tensor, layer: fused.Layer, given: tuple[Tensor, Tensor]
) -> fused.Changes:
    """What `fused.changes` computes, of PyTorch's operations."""
    assert layer.factors is not None
    change = given[0]
    slopes = torch.where(y > 0, 1.0, layer.slope)
    factors, weights = (t[:, :, None, None] for t in (layer.factors, given[1]))
    return fused.Changes(
        slopes * (change * factors + x * weights),
        slopes * gradient * weights,
        (slopes * gradient * change).sum(dim=(2, 3)),
    )


def everything(architecture: str, count: int) -> list[Tensor]:
    """Pictures, logits, and gradients of both orders in all that has some, of small networks."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"resolution": 16, "channels": 3, "channel_base": 128, "channel_max": 8}
    shape["architecture"] = architecture
    g = Generator(GeneratorConfig(**shape, z_dim=8, w_dim=8, mapping_layers=2))
    d = build_discriminator(DiscriminatorConfig(**shape, mbstd_group_size=2))
    with torch.no_grad():
        for layer in g.synthesis.layers:
            layer.noise_strength.fill_(0.1)
            layer.bias.normal_()
    ws = torch.randn(count, g.num_ws, 8, requires_grad=True)
    images = torch.randn(count, 3, 16, 16, requires_grad=True)
    noise = [torch.randn(count, *size[1:], requires_grad=True) for size in g.synthesis.noise_shapes]

    with torch.no_grad():
        found = [g.synthesis(ws), d(images)]
    wanted = [ws, *noise, *g.synthesis.parameters(), *d.parameters()]
    found += torch.autograd.grad(d(g.synthesis(ws, noise=noise)).square().sum(), wanted)

    directions = torch.randn_like(images)
    with differentiated_twice():
        lengths = path_lengths(g.synthesis(ws), ws, directions)
    again = path_lengths(g.synthesis(ws), ws, directions)
    (lengths.sum() + again.sum() + r1_penalty(images, d(images)).sum()).backward()
    return found + [
        p.grad for network in (g, d) for p in network.parameters() if p.grad is not None
    ]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_layers_ask_the_kernels_for_the_right_things(
    architecture: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = everything(architecture, count)
    called: list[str] = []

    def counted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            called.append(name)
            return work(*given, **named)

        return call

    monkeypatch.setattr(fused, "available", lambda x, up=1: True)
    monkeypatch.setattr(fused, "fir_resample", counted("resample", plain_resample))
    monkeypatch.setattr(fused, "gradients", counted("gradients", plain_gradients))
    monkeypatch.setattr(fused, "changes", counted("changes", plain_changes))
    found = everything(architecture, count)
    assert set(called) == {"resample", "gradients", "changes"}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one, other, rtol=1e-4, atol=2e-4 * max(float(other.abs().max()), 1e-3)
        )


def test_the_cpu_needs_no_kernels() -> None:
    assert not fused.available(torch.zeros(1, 3, 4, 4))


SCRIPT = """
import torch
from latentedit.runtime import fused
from latentedit.training.philox import ROUNDS, philox, to_normal
from tests.test_fused import plain_changes, plain_gradients, plain_resample

fused.INTERPRETED = True
torch.manual_seed(0)
for programs in (fused.PROGRAMS, 0):  # one row a program, and several
    fused.PROGRAMS = programs
    for form in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 3, 6, 5).contiguous(memory_format=form)
        taps = torch.tensor([1.0, 2, 5, 3]) / 11
        for geometry, size in (
            (fused.FirGeometry(1, 1, 2, 1, 1.5, True), (6, 5)),
            (fused.FirGeometry(1, 1, -1, -2, 1.5, False), (5, 7)),
            (fused.FirGeometry(2, 1, 2, 2, 4.0, False), (12, 10)),
            (fused.FirGeometry(2, 1, 1, 3, 4.0, True), (11, 12)),
            (fused.FirGeometry(4, 3, 5, 2, 4.0, True), (9, 7)),
            (fused.FirGeometry(1, 2, 1, 1, 1.0, True), (3, 2)),
        ):
            found = fused.fir_resample(x, taps, size, geometry)
            expected = plain_resample(x, taps, size, geometry)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
fused.PROGRAMS = 1056
layer = fused.Layer(torch.rand(2, 3), torch.randn(3), torch.randn(1, 1, 6, 5), 0.2)
y = fused.pointwise(x, layer)
one = fused.FirGeometry()
expected = plain_resample(x, torch.ones(1), (6, 5), one, layer)
torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
gradient = torch.randn_like(y)
found = fused.gradients(gradient, y, layer, True)
for one, other in zip(found, plain_gradients(gradient, y, layer, True), strict=True):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
for noise in (layer.noise, None):  # sums that nothing is added to are 0, and not what memory held
    here = layer._replace(noise=noise)
    torch.full((10000,), float("nan"))
    found = fused.gradients(gradient, y, here)
    for one, other in zip(found[:4], plain_gradients(gradient, y, here)[:4], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
given = torch.randn_like(y), torch.randn(2, 3)
for slope in (0.2, 1.0):
    here = fused.Layer(layer.factors, slope=slope)
    found = fused.gradients(gradient, y, here, True, x=x)
    for one, other in zip(found, plain_gradients(gradient, y, here, True, x=x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    found = fused.changes(gradient, y, x, here, given)
    for one, other in zip(found, plain_changes(gradient, y, x, here, given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
found = fused.gradients(gradient, y, fused.Layer(slope=0.2), to_factors=False)
torch.testing.assert_close(found.before, plain_gradients(gradient, y, layer).before)

samples = torch.tensor([0, 5, 2**31 + 7])
step = torch.tensor([2**32 - 3, 1])
key = (2**32 - 2, 77)
stream = fused.Stream(samples, step, key, ROUNDS)
words = philox((torch.arange(100, 500)[None], samples[:, None], *step), key).flatten(1)
assert torch.equal(fused.random_words(stream, 403, 1030), words[:, 3:1033])
found = fused.random_normal(stream, 403, 1030)
torch.testing.assert_close(found, to_normal(words[:, 3:1033], torch.float32))
print("all agree")
"""


def test_kernels_compute_what_is_asked_of_them() -> None:
    """By Triton's interpreter, which runs on the CPU."""
    pytest.importorskip("triton", reason="Triton comes with CUDA builds of PyTorch alone")
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path]),
    }
    line = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(line, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "all agree\n"


def test_a_filter_is_given_to_the_kernel_with_its_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    x, taps = torch.randn(2, 3, 9, 7), fir_taps([1, 2, 5, 3])
    given = [
        (1, 1, (1, 2, 2, 1)),
        (2, 1, (2, 1, 2, 1)),
        (1, 2, (1, 1, 1, 1)),
        (1, 1, (-1, 1, 2, -1)),
    ]
    expected = [upfirdn2d(x, taps, up, down, pad, 1.5) for up, down, pad in given]
    monkeypatch.setattr(fused, "available", lambda x, up=1: True)
    monkeypatch.setattr(fused, "fir_resample", plain_resample)
    for (up, down, pad), y in zip(given, expected, strict=True):
        torch.testing.assert_close(upfirdn2d(x, taps, up, down, pad, 1.5), y)
