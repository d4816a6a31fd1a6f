"""Shift-Tolerant LPIPS against its package, and sums of distances."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import Error
from latentedit.inversion.perceptual import (
    CombinedDistance,
    DiscriminatorDistance,
    LpipsDistance,
    StlpipsDistance,
    choose,
    distance,
    stlpips_file,
)
from latentedit.inversion.preconditioner import curvature_file
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.runtime.torchvision_stubs import import_with_torchvision
from tests.helpers import tiny_discriminator

installed = pytest.mark.skipif(
    stlpips_file() is None,
    reason="the package stlpips-pytorch is not installed (latentedit[perceptual])",
)


def package(network: str) -> Any:
    """The package's own network with its own weights, in double precision."""
    for needed in ("IPython", "torchsummary"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"stlpips-pytorch's code imports {needed}, which is not installed")
    module = import_with_torchvision("stlpips_pytorch.stlpips")
    reference = module.LPIPS(pretrained=False, net=network, variant="shift_tolerant", verbose=False)
    file = stlpips_file(network)
    assert file is not None
    state = torch.load(file, map_location="cpu", weights_only=True)
    assert not reference.load_state_dict(state, strict=False).unexpected_keys
    return reference.requires_grad_(False).double()


def pictures(height: int, width: int) -> Tensor:
    """A random one, and a smooth one with an edge, as photographs have them:
    ``[2, 3, height, width]``."""
    draws = torch.Generator().manual_seed(height)
    rough = torch.rand(1, 3, height, width, generator=draws) * 2 - 1
    smooth = torch.rand(1, 3, 4, 4, generator=draws) * 2 - 1
    smooth = F.interpolate(smooth, (height, width), mode="bicubic").clamp(-1, 1)
    smooth[:, :, :, width // 3 :] *= -0.5
    return torch.cat([rough, smooth])


@installed
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)
@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_shift_tolerant_lpips_is_that_of_its_package(network: Any) -> None:
    """The distance and its gradient, for even and odd sides; single precision to 1e-5."""
    reference = package(network)
    single = StlpipsDistance(network)
    ours = StlpipsDistance(network)
    ours.network.double()
    sizes = [(64, 64), (33, 40), (48, 35)] if network == "alex" else [(33, 40)]
    for height, width in sizes:
        a = pictures(height, width)
        b = pictures(height, width).flip(0, 3)
        exact = a.double().requires_grad_()
        expected = reference(exact, b.double()).flatten()
        (gradient,) = torch.autograd.grad(expected.sum(), exact)
        again = exact.detach().clone().requires_grad_()
        found = distance(ours.features(again), ours.features(b.double()))
        torch.testing.assert_close(found, expected.detach(), rtol=1e-7, atol=0)
        torch.testing.assert_close(
            torch.autograd.grad(found.sum(), again)[0],
            gradient,
            rtol=1e-4,
            atol=1e-7 * float(gradient.abs().max()),
        )
        torch.testing.assert_close(
            distance(single.features(a), single.features(b)).double(),
            expected.detach(),
            rtol=1e-5,
            atol=0,
        )


@installed
def test_sizes_and_colours_that_the_network_is_not_made_for() -> None:
    measure = StlpipsDistance()
    assert measure.name == "stlpips"
    assert not any(parameter.requires_grad for parameter in measure.network.parameters())
    small = torch.rand(2, 1, 16, 16)
    grey = measure.features(small)
    torch.testing.assert_close(grey, measure.features(small.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(grey[:1], measure.features(small[:1]), rtol=1e-4, atol=1e-6)
    large = torch.rand(1, 3, 512, 512)
    torch.testing.assert_close(measure.features(large), measure.features(F.avg_pool2d(large, 2)))
    flat = torch.zeros(1, 1, 32, 32, requires_grad=True)
    measure.features(flat).square().sum().backward()
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())
    with pytest.raises(Error, match='networks "alex" and "vgg", got \'squeeze\''):
        StlpipsDistance("squeeze")  # type: ignore[arg-type]


def test_a_sum_of_distances() -> None:
    first = DiscriminatorDistance(tiny_discriminator(0))
    second = DiscriminatorDistance(tiny_discriminator(1))
    a = torch.randn(2, 1, 16, 16)
    b = torch.randn(2, 1, 16, 16)
    both = CombinedDistance([(first, 1.0), (second, 0.3)])
    apart = [distance(part.features(a), part.features(b)) for part in (first, second)]
    torch.testing.assert_close(
        distance(both.features(a), both.features(b)), apart[0] + 0.3 * apart[1]
    )
    assert both.name == "discriminator+0.3discriminator"
    assert (
        curvature_file("f" * 64, ReconstructionLoss(both)).name
        == f"{'f' * 32}-discriminator+0.3discriminator-1.safetensors"
    )
    with pytest.raises(Error, match="at least one part"):
        CombinedDistance([])
    with pytest.raises(Error, match="the weight of discriminator must be a positive number, got 0"):
        CombinedDistance([(first, 0)])


@installed
def test_what_auto_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    both, line = choose("auto", tiny_discriminator())
    assert both.name == "discriminator+0.3stlpips"
    assert (
        "own discriminator, and ST-LPIPS (AlexNet), weights 1 and 0.3 (no vgg16-397923af.pth"
        in line
    )
    assert both.features(torch.zeros(1, 1, 16, 16)).shape[0] == 1
    alone, line = choose("auto", None)
    assert alone.name == "stlpips"
    assert "no discriminator in the model file" in line
    assert choose("stlpips", tiny_discriminator())[0].name == "stlpips"


@installed
def test_a_file_with_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "alex.pth"
    torch.save({"weight": torch.zeros(1)}, file)
    monkeypatch.setattr("latentedit.inversion.perceptual.stlpips_file", lambda network="alex": file)
    with pytest.raises(Error, match="expected the weights of ST-LPIPS, found others"):
        StlpipsDistance()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lpips_in_half_precision(dtype: torch.dtype) -> None:
    """Distances agree to 1 %, and gradients point the same way, also those that half precision
    would lose."""
    found = []
    for kind in (torch.float32, dtype):
        torch.manual_seed(0)
        measure = LpipsDistance(None, dtype=kind)
        a, b = torch.rand(2, 1, 3, 64, 64) * 2 - 1
        b = (a + 0.2 * b).requires_grad_()
        value = distance(measure.features(b), measure.features(a))
        found.append((value.detach(), torch.autograd.grad(value.sum(), b)[0]))
    (value, gradient), (half, rough) = found
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, value, rtol=0.01, atol=0)
    assert (
        float(torch.nn.functional.cosine_similarity(gradient.flatten(), rough.flatten(), dim=0))
        > 0.98
    )
    assert float(rough.norm() / gradient.norm()) == pytest.approx(1, abs=0.02)
