"""What differs on CUDA, against the CPU; ``bash gpu/check.sh`` runs it, with every other test that
is marked "gpu"."""

from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from PIL import Image

from latentedit.formats.load_model import load_model
from latentedit.inversion.perceptual import DiscriminatorDistance, LpipsDistance, distance
from latentedit.inversion.pivotal_tuning import TuningOptions, tune
from latentedit.inversion.projector import invert
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.inversion.result import psnr
from latentedit.model.model import Model
from latentedit.networks.convolution import differentiated_twice
from latentedit.networks.discriminator import DiscriminatorConfig, build_discriminator
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.ops import fir_taps, upfirdn2d
from latentedit.runtime import fused
from latentedit.runtime.devices import tf32
from latentedit.training import train, write_pictures
from latentedit.training.losses import r1_penalty
from latentedit.training.path_length import path_lengths
from tests.helpers import CONFIG, pictures, tiny_discriminator, tiny_generator, works

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ROUNDING = 8.0
"""What a GPU may be off, in the errors that the CPU's float32 makes."""
ARCHITECTURES = ("resnet", "skip", "orig", "stylegan1")


def networks(architecture: str, resolution: int = 32) -> tuple[Any, Any]:
    """Narrow ones with random weights and noise, the same whenever they are asked for."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "resolution": resolution,
        "channels": 3,
        "channel_base": 1024,
        "channel_max": 32,
    }
    shape["architecture"] = architecture
    g = Generator(GeneratorConfig(**shape, z_dim=16, w_dim=16, mapping_layers=2))
    with torch.no_grad():
        for layer in g.synthesis.layers:
            layer.noise_strength.fill_(0.1)
    return g, build_discriminator(DiscriminatorConfig(**shape, mbstd_group_size=2))


def inputs(g: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    image = torch.randn(4, 3, g.resolution, g.resolution)
    return torch.randn(4, g.num_ws, g.w_dim), image, torch.randn_like(image) / g.resolution


def close(found: torch.Tensor, expected: torch.Tensor, share: float = 1e-3) -> None:
    scale = max(float(expected.abs().max()), 1e-6)
    torch.testing.assert_close(found.cpu().float(), expected, rtol=0, atol=share * scale)


def filter_by(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have CUDA filter by Triton's kernels, where they run, by sums, or by depthwise
    convolutions."""
    if form != "fused":
        monkeypatch.setattr("latentedit.runtime.fused.available", lambda x, up=1: False)
    monkeypatch.setattr(
        "latentedit.ops.prefers_sums",
        lambda device, count: form == "sums" and device.type == "cuda",
    )


@pytest.mark.parametrize("form", ["fused", "sums", "depthwise"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pictures_and_gradients_of_both_orders(
    architecture: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-3, and where gradients nearly cancel out to some times what the CPU's own float32 is
    off."""
    filter_by(form, monkeypatch)
    exact = both_orders(architecture, "cpu", torch.float64)
    here = both_orders(architecture, "cpu", torch.float32)
    with tf32(False, torch.device("cuda")):
        there = both_orders(architecture, "cuda", torch.float32)
    for true, own, other in zip(exact, here, there, strict=True):
        rounding = float((own.double() - true).abs().max())
        allowed = 1e-3 * float(true.abs().max()) + ROUNDING * rounding
        assert float((other.cpu().double() - true).abs().max()) <= allowed


def both_orders(architecture: str, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """Pictures, logits, and gradients of first and second order."""
    g, d = (network.to(device, dtype) for network in networks(architecture))
    ws, images, noise = (tensor.to(device, dtype) for tensor in inputs(g))
    with torch.no_grad():
        rendered, logits = g.synthesis(ws), d(images)
    ws.requires_grad_()
    images.requires_grad_()
    (plain,) = torch.autograd.grad(g.synthesis(ws).square().mean(), ws)
    with differentiated_twice():
        lengths = path_lengths(g.synthesis(ws), ws, noise)
    penalties = r1_penalty(images, d(images))
    (lengths.sum() + penalties.sum()).backward()
    gradients = [p.grad for network in (g, d) for p in network.parameters() if p.grad is not None]
    return [rendered, logits, plain, lengths.detach(), penalties.detach(), *gradients]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_renders_within_40_db(precision: Any, faces128: Model) -> None:
    generator = load_model("faces128", "cuda").generator
    ws = generator.mapping(torch.randn(4, generator.z_dim, device="cuda"))
    with torch.no_grad():
        exact, half = generator.synthesis(ws), generator.synthesis(ws, precision=precision)
        here = faces128.generator.synthesis(ws.cpu())
    close(exact, here)
    assert float(psnr(half, exact).min()) > 40


def test_triton_kernels_run_here() -> None:
    pytest.importorskip("triton")
    assert fused.available(torch.zeros(1, 3, 4, 4, device="cuda"))


@pytest.mark.parametrize("form", ["fused", "sums"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_large_pictures_are_filtered_as_on_the_cpu(
    form: str, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    filter_by(form, monkeypatch)
    x = torch.randn(4, 64, 129, 129).contiguous(memory_format=layout)
    for up, down in ((1, 1), (2, 1), (1, 2)):
        y = upfirdn2d(x.cuda(), fir_taps([1, 3, 3, 1]).cuda(), up, down, (1, 2, 2, 1), 1.5)
        assert y.is_cuda
        close(y, upfirdn2d(x, fir_taps([1, 3, 3, 1]), up, down, (1, 2, 2, 1), 1.5), 1e-5)


@pytest.mark.parametrize("method", ["quasi-newton", "adam"])
@pytest.mark.parametrize("space", ["w", "w+", "s"])
def test_a_search_finds_what_it_finds_on_the_cpu(space: str, method: Any) -> None:
    """The same first steps, and the same picture in the end."""
    found = []
    for device in ("cpu", "cuda"):
        generator, discriminator = tiny_generator().to(device), tiny_discriminator().to(device)
        image = generator(
            torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(3)).to(device)
        )
        perceptual = DiscriminatorDistance(discriminator)
        found.append(invert(generator, image, space, 60, method=method, perceptual=perceptual))
    here, there = found
    assert not there.ws.is_cuda
    close(there.history["perceptual"][:2], here.history["perceptual"][:2], 0.02)
    for one, other in zip(here.distances, there.distances, strict=True):
        assert other["psnr"] > one["psnr"] - 3


def test_tuning_brings_the_picture_nearer() -> None:
    generator, discriminator = tiny_generator().cuda(), tiny_discriminator().cuda()
    image = generator(torch.randn(1, generator.z_dim, device="cuda"))
    ws = generator.mapping(torch.zeros(1, generator.z_dim, device="cuda"))
    loss = ReconstructionLoss(DiscriminatorDistance(discriminator))
    tuning = tune(generator, image, ws, None, loss, TuningOptions(40, learning_rate=1e-2))
    assert tuning.after["psnr"] > tuning.before["psnr"] + 3


def test_lpips_in_half_precision_agrees() -> None:
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        measure = LpipsDistance(None, device)
        a, b = (torch.rand(2, 1, 3, 64, 64) * 2 - 1).to(device)
        found.append(distance(measure.features(a), measure.features(a + 0.2 * b)))
    assert measure.dtype == torch.float16
    close(found[1], found[0], 0.01)


def test_a_resumed_run_goes_on_as_the_whole_one(tmp_path: Path) -> None:
    """To rounding: CUDA adds up gradients of resampling and of weights in no fixed order."""
    config = CONFIG.changed(snapshot_kimg=1.0)
    train(config.changed(kimg=0.08), pictures(), tmp_path / "one", device="cuda")
    train(config.changed(kimg=0.04), pictures(), tmp_path / "two", device="cuda")
    train(config.changed(kimg=0.08), pictures(), tmp_path / "two", device="cuda")
    one, two = (
        torch.load(tmp_path / name / "state.pt", weights_only=True, map_location="cpu")
        for name in ("one", "two")
    )
    assert one["steps"] == two["steps"] == 20
    for name, tensor in one["g"].items():
        close(two["g"][name], tensor.float(), 0.05)
    # and a CPU takes it up
    train(config.changed(kimg=0.088), pictures(), tmp_path / "two", device="cpu")


def test_commands(tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that compute, with --device cuda, one on what the other wrote."""
    if not hasattr(cv2, "CascadeClassifier"):  # no matter here, and such machines have OpenCV 5
        monkeypatch.setattr("latentedit.photo.faces.seen_by_cascades", lambda image: True)
    model, look = (
        ("--model", tiny_file, "--device", "cuda"),
        ("--seeds", "0-1", "--amounts", "-1:1:3"),
    )
    works("sample", tiny_file, "--seeds", "0-3", "--out", tmp_path / "four.png", "--device", "cuda")
    works("sample", tiny_file, "--seeds", "1", "--out", tmp_path / "one.png", "--device", "cuda")
    works(
        "invert",
        tmp_path / "one.png",
        "--aligned",
        "--steps",
        "12",
        "--tune",
        "--tune-steps",
        "5",
        *model,
        "--out",
        tmp_path,
    )
    latent = tmp_path / "one.safetensors"
    works(
        "directions",
        "pca",
        "--count",
        "2",
        "--samples",
        "2000",
        *look,
        *model,
        "--out",
        tmp_path / "pca",
    )
    works("directions", "sefa", "--count", "2", *look, *model, "--out", tmp_path / "sefa")
    works(
        "directions",
        "channels",
        "--count",
        "2",
        "--samples",
        "4",
        *model,
        "--out",
        tmp_path / "channels",
    )
    axis = sorted((tmp_path / "sefa").glob("*.safetensors"))[0]
    works("edit", latent, "--set", f"{axis}=1", *model, "--out", tmp_path / "edited.png")
    works("edit", latent, "--sweep", f"{axis}=-1:1:3", *model, "--out", tmp_path / "strip.png")
    works("mix", latent, latent, "--layers", "0-2", *model, "--out", tmp_path / "mixed.png")
    works("interpolate", latent, latent, "--count", "3", *model, "--out", tmp_path / "between.png")
    squares = ((f"{i}.png", Image.new("L", (16, 16), 20 * i)) for i in range(8))
    write_pictures(tmp_path / "data.zip", squares)
    run = (
        "--preset",
        "tiny",
        "--batch",
        "4",
        "--kimg",
        "0.04",
        "--out",
        tmp_path / "run",
        "--device",
        "cuda",
    )
    works("train", tmp_path / "data.zip", "--dry-run", *run)
    works("train", tmp_path / "data.zip", *run)
    works("train", tmp_path / "data.zip", *run[:-6], "--kimg", "0.08", *run[-4:], "--no-graphs")
    names = ("four", "one", "edited", "strip", "mixed", "between")
    assert all((tmp_path / f"{name}.png").is_file() for name in names)
    assert (tmp_path / "run" / "model.safetensors").is_file()
