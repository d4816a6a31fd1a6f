"""Generator and discriminator: forms that must agree, independence within a batch, clear errors."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from latentedit.errors import Error
from latentedit.inversion.result import psnr
from latentedit.networks.convolution import differentiated_twice
from latentedit.networks.discriminator import DiscriminatorConfig, minibatch_std
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.networks.modulation import (
    _composed,
    _Layer,
    demodulation,
    modulated_layer,
    prefers_folding,
)
from latentedit.ops import fir_filter
from tests.helpers import tiny_discriminator, tiny_generator

ARCHITECTURES = ["skip", "resnet", "orig"]
FIR = fir_filter([1, 3, 3, 1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rendering_agrees_with_the_differentiable_form(architecture: str) -> None:
    generator = tiny_generator(architecture=architecture, conv_clamp=2.0)
    ws = generator.mapping(torch.randn(3, 12))
    slow = generator.synthesis(ws.requires_grad_())
    with torch.no_grad():
        together = generator.synthesis(ws)
        alone = torch.cat([generator.synthesis(ws[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, slow.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone, slow.detach(), atol=1e-4, rtol=1e-4)


def test_large_pictures_of_a_batch_are_folded_one_by_one() -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(
        resolution=128,
        channels=1,
        z_dim=8,
        w_dim=8,
        mapping_layers=1,
        channel_base=2048,
        channel_max=16,
    )
    generator = Generator(config).eval().requires_grad_(False)
    assert [block.folds for block in generator.synthesis.blocks] == [False] * 5 + [True]
    ws = generator.mapping(torch.randn(2, 8))
    noise = [torch.randn(2, *shape[1:]) for shape in generator.synthesis.noise_shapes]
    for layer in generator.synthesis.layers:
        layer.noise_strength.fill_(0.3)
    slow = generator.synthesis(ws.requires_grad_(), noise=noise).detach()
    with torch.no_grad():
        torch.testing.assert_close(generator.synthesis(ws, noise=noise), slow, atol=1e-4, rtol=1e-4)


def test_folding_rule() -> None:
    assert not prefers_folding(512 * 512 * 9, 512 * 16 * 16)  # weights outweigh activations
    assert prefers_folding(64 * 64 * 9, 64 * 256 * 256)
    assert not prefers_folding(16 * 16 * 9, 16 * 64 * 64)  # small pictures


def test_equation_3() -> None:
    weight, styles, x = torch.randn(5, 4, 3, 3), torch.randn(2, 4), torch.randn(2, 4, 8, 8)
    modulated = weight * styles[1][None, :, None, None]
    demodulated = modulated / (modulated.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
    norms = (
        (modulated * demodulation(weight, styles)[1, :, None, None, None])
        .square()
        .sum(dim=(1, 2, 3))
    )
    torch.testing.assert_close(norms, torch.ones(5))
    expected = F.leaky_relu(2 * F.conv2d(x[1:], demodulated, padding=1), 0.2)
    for one in (slice(0, 2), slice(1, 2)):
        found = modulated_layer(
            x[one], weight, styles[one], None, torch.zeros(5), up=1, filter=FIR, gain=2.0
        )
        torch.testing.assert_close(found[-1:], expected)


def test_half_precision_normalisation_cancels() -> None:
    weight, styles, x, bias = (
        torch.randn(5, 4, 3, 3),
        torch.randn(2, 4),
        torch.randn(2, 4, 8, 8),
        torch.zeros(5),
    )
    single = modulated_layer(x, weight, styles, None, bias, up=2, filter=FIR)
    half = modulated_layer(x.half(), weight, styles * 1e4, None, bias, up=2, filter=FIR)
    assert float((half.float() - single).abs().max()) < 0.02 * float(single.abs().max())


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("maps", [None, 1, 2])
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_of_a_layer(
    batch: int, up: int, maps: int | None, form: torch.memory_format
) -> None:
    """Those written by hand, and theirs, are those of PyTorch's own operations."""
    x, before, after = (
        torch.randn(batch, 3, 4, 4),
        torch.randn(batch, 3),
        torch.rand(batch, 5) + 0.5,
    )
    before[0, 0] = 0  # what is divided by
    noise = None if maps is None else torch.randn(min(maps, batch), 1, 4 * up, 4 * up)
    given = [
        x.contiguous(memory_format=form),
        torch.randn(5, 3, 3, 3),
        before,
        after,
        noise,
        torch.randn(5),
    ]
    inputs = [None if t is None else t.double().requires_grad_() for t in given]
    wanted = [t for t in inputs if t is not None]
    seed = torch.randn(batch, 5, 4 * up, 4 * up).double()
    results = []
    layers: list[Any] = [_Layer.apply, _composed]
    for layer in layers:
        y = layer(*inputs, up, FIR.double())
        once = torch.autograd.grad(y, wanted, seed, retain_graph=True)
        length = torch.stack(
            [g.square().sum() for g in torch.autograd.grad(y, wanted, seed, create_graph=True)]
        ).sum()
        twice = torch.autograd.grad(length, wanted, allow_unused=True, materialize_grads=True)
        results.append([y.detach(), *once, *twice])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_of_gradients_do_not_depend_on_how_they_are_announced() -> None:
    generator = tiny_generator().requires_grad_()
    lengths = []
    contexts: list[Any] = [nullcontext, differentiated_twice]
    for context in contexts:
        ws = (
            generator.mapping(torch.randn(2, 12, generator=torch.Generator().manual_seed(1)))
            .detach()
            .requires_grad_()
        )
        with context():
            image = generator.synthesis(ws)
        (gradient,) = torch.autograd.grad(image.square().sum(), ws, create_graph=True)
        generator.zero_grad()
        gradient.square().sum().backward()
        lengths.append(
            [p.grad.clone() for p in generator.synthesis.parameters() if p.grad is not None]
        )
    assert len(lengths[0]) == len(lengths[1]) > 10
    for one, other in zip(*lengths, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 1), (1,) * 12])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_strips_are_the_whole(
    architecture: str, taps: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = tiny_generator(resolution=64, architecture=architecture, resample_filter=taps)
    for layer in generator.synthesis.layers:
        layer.noise_strength.data.fill_(0.5)
        layer.bias.data.normal_()
    ws = generator.mapping(torch.randn(1, 12))
    with torch.no_grad():
        whole = generator.synthesis(ws)
        monkeypatch.setattr("latentedit.networks.synthesis.STRIP", 1)
        assert [block.strip for block in generator.synthesis.blocks] == [16] * 5
        strips = generator.synthesis(ws)
    torch.testing.assert_close(strips, whole, atol=1e-5 * float(whole.abs().max()), rtol=0)


@pytest.mark.parametrize("gradients", [False, True])
def test_bf16_is_within_40_db(gradients: bool) -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(
        resolution=64, channels=3, z_dim=64, w_dim=64, channel_base=4096, channel_max=64
    )
    generator = Generator(config).eval().requires_grad_(False)
    ws = generator.mapping(torch.randn(2, 64)).requires_grad_(gradients)
    with torch.set_grad_enabled(gradients):
        exact, rough = (
            generator.synthesis(ws).detach(),
            generator.synthesis(ws, precision="bf16").detach(),
        )
    span = exact.abs().max()
    assert not torch.equal(exact, rough)
    assert float(psnr(rough / span, exact / span).min()) >= 40


def test_pictures_of_a_batch_do_not_depend_on_each_other() -> None:
    generator = tiny_generator()
    ws = generator.mapping(torch.randn(4, 12))
    other = ws.clone()
    other[1:] += 1
    assert torch.equal(generator.synthesis(ws)[0], generator.synthesis(other)[0])


def test_truncation() -> None:
    generator = tiny_generator()
    z = torch.randn(2, 12)
    full, none = generator.mapping(z), generator.mapping(z, truncation_psi=0.0)
    assert torch.allclose(none, generator.mapping.w_avg.expand_as(none))
    cut = generator.mapping(z, truncation_psi=0.0, truncation_cutoff=2)
    assert torch.equal(cut[:, 2:], full[:, 2:])
    assert torch.allclose(cut[:, :2], none[:, :2])


def test_noise() -> None:
    generator = tiny_generator()
    ws = generator.mapping(torch.randn(2, 12))
    shapes = [(1, 1, 4, 4), (1, 1, 8, 8), (1, 1, 8, 8), (1, 1, 16, 16), (1, 1, 16, 16)]
    assert generator.synthesis.noise_shapes == shapes
    maps = [layer.noise_const[None, None] for layer in generator.synthesis.layers]
    assert torch.equal(generator.synthesis(ws, noise=maps), generator.synthesis(ws))
    zeros = [torch.zeros(shape) for shape in shapes]
    torch.testing.assert_close(
        generator.synthesis(ws, noise=zeros), generator.synthesis(ws, noise="none")
    )
    assert not torch.equal(
        generator.synthesis(ws, noise="random"), generator.synthesis(ws, noise="random")
    )
    with pytest.raises(Error, match="expected 5 noise maps"):
        generator.synthesis(ws, noise=maps[:2])
    with pytest.raises(Error, match=r"shape \[1 or 2, 1, 4, 4\], got \[1, 1, 5, 5\]"):
        generator.synthesis(ws, noise=[torch.zeros(1, 1, 5, 5), *maps[1:]])
    with pytest.raises(Error, match='"const", "random", "none"'):
        generator.synthesis(ws, noise="loud")


def test_running_mean_of_w() -> None:
    mapping = tiny_generator().mapping
    before, w = mapping.w_avg.clone(), torch.randn(8, 12)
    mapping.update_average(w)
    torch.testing.assert_close(mapping.w_avg, before * 0.998 + w.mean(dim=0) * 0.002)


def test_minibatch_standard_deviation() -> None:
    x = torch.zeros(4, 2, 3, 3)
    # with groups of 2, picture n is compared with picture n + 2: deviation 1 everywhere
    x[2:] = 2.0
    y = minibatch_std(x, group_size=2)
    assert y.shape == (4, 3, 3, 3)
    torch.testing.assert_close(y[:, 2], torch.ones(4, 3, 3))
    assert minibatch_std(torch.randn(3, 2, 3, 3), group_size=2).shape == (3, 3, 3, 3)  # groups of 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_discriminator_architectures(architecture: str) -> None:
    discriminator = tiny_discriminator(architecture=architecture, c_dim=2)
    image, c = torch.randn(4, 1, 16, 16), torch.eye(2).repeat(2, 1)
    assert discriminator(image, c).shape == (4, 1)
    assert [tuple(x.shape[1:]) for x in discriminator.features(image)] == [(16, 8, 8), (16, 4, 4)]
    swapped = discriminator(image, c.flip(1))
    assert not torch.allclose(discriminator(image, c), swapped)


def test_shapes_are_checked() -> None:
    generator, discriminator = tiny_generator(), tiny_discriminator()
    with pytest.raises(Error, match=r"z must have shape \[N, 12\], got \[2, 13\]"):
        generator.mapping(torch.zeros(2, 13))
    with pytest.raises(Error, match=r"ws must have shape \[N, 6, 12\], got \[2, 12\]"):
        generator.synthesis(torch.zeros(2, 12))
    with pytest.raises(
        Error, match=r"image must have shape \[N, 1, 16, 16\], got \[1, 3, 16, 16\]"
    ):
        discriminator(torch.zeros(1, 3, 16, 16))
    with pytest.raises(Error, match=r"conditional: c must be one-hot labels of shape \[N, 3\]"):
        tiny_generator(c_dim=3).mapping(torch.zeros(2, 12))
    with pytest.raises(Error, match="precision must be"):
        generator.synthesis(torch.zeros(1, 6, 12), precision="fp8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 48}, "power of two from 8 to 16384, got 48"),
        ({"resolution": 4}, "power of two from 8 to 16384, got 4"),
        (
            {"resolution": 16, "architecture": "tree"},
            r"skip, resnet, orig(, stylegan1)? or stylegan[13], got 'tree'",
        ),
        ({"resolution": 16, "channels": 0}, "channels must be at least 1"),
    ],
)
def test_configurations_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(Error, match=message):
        GeneratorConfig(**options)  # type: ignore[arg-type]
    with pytest.raises(Error, match=message):
        DiscriminatorConfig(**options)  # type: ignore[arg-type]
