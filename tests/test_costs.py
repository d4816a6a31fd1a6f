"""What `model info` says that rendering and inverting take."""

import json
import re
from pathlib import Path

import pytest
import torch

from latentedit.inversion.projector import STEPS
from latentedit.io.images import load_image
from latentedit.io.weights import VGG16
from latentedit.model.cost import AT_ONCE, estimate_cost, fitting, photos_at_once
from latentedit.model.model import Model
from latentedit.model.native import save_model
from tests.foreign_files import random_discriminator, random_generator
from tests.helpers import tiny_discriminator, tiny_generator, works


@pytest.fixture(autouse=True)
def no_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("latentedit.model.cost.stlpips_file", lambda: None)


def convolutions(model: Model, channels: int) -> float:
    """FLOP of the generator's convolutions alone, from the sizes of its weights."""
    total = 0.0
    for name, weight in model.generator.synthesis.named_parameters():
        if name.endswith(("conv0.weight", "conv1.weight", "torgb.weight")):
            side = int(name.split(".")[0][1:])
            # A transposed convolution meets every weight once for each of its fewer inputs.
            total += 2 * weight.numel() * (side // 2 if "conv0" in name else side) ** 2
    return total


def test_arithmetic_is_that_of_the_convolutions(tmp_path: Path) -> None:
    model = Model(
        tiny_generator(resolution=64, channel_base=1024),
        tiny_discriminator(resolution=64, channel_base=1024),
    )
    cost = estimate_cost(model, torch.device("cpu"))
    bare = convolutions(model, 1) / 1e9
    # and resampling, affine layers, weights folded with styles
    assert bare <= cost.render_gflop <= 1.5 * bare
    assert cost.perceptual == "discriminator"
    assert cost.step_gflop > 2 * cost.render_gflop
    assert (
        cost.step_gb
        > cost.render_gb
        > sum(p.numel() for p in model.generator.parameters()) * 4 / 1e9
    )
    # Without a discriminator it would be VGG-16, of 15.3 thousand million multiplications at 224
    # px.
    model.discriminator = None
    lpips = estimate_cost(model, torch.device("cpu"))
    assert lpips.perceptual == "lpips"
    assert lpips.step_gflop - 2 * cost.render_gflop == pytest.approx(
        2 * 2 * 15.3 * (64 / 224) ** 2, rel=0.1
    )


def test_shift_tolerant_lpips_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its convolutions, as the network itself counts them at 64 px; the edges cost it more
    there."""
    model = Model(tiny_generator(resolution=64), tiny_discriminator(resolution=64))
    bare = estimate_cost(model, torch.device("cpu"))
    monkeypatch.setattr("latentedit.model.cost.stlpips_file", lambda: Path())
    cost = estimate_cost(model, torch.device("cpu"))
    assert cost.perceptual == "discriminator+stlpips"
    assert 2 * 0.3 < cost.step_gflop - bare.step_gflop < 2 * 0.6
    assert cost.step_gb > bare.step_gb


def test_backbone_in_the_cache_is_what_would_be_used(tmp_path: Path) -> None:
    (tmp_path / "hub" / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "hub" / "checkpoints" / VGG16.file).write_bytes(b"")
    model = Model(tiny_generator(), tiny_discriminator())
    assert estimate_cost(model, torch.device("cpu")).perceptual == "lpips"


def test_told_before_a_long_search(tmp_path: Path, rough: None) -> None:
    sizes = {"resolution": 256, "channel_base": 512, "channel_max": 4}
    save_model(
        tmp_path / "large.safetensors", Model(tiny_generator(**sizes), tiny_discriminator(**sizes))
    )
    works("sample", tmp_path / "large.safetensors", "--seeds", "1", "--out", tmp_path / "a.png")
    search = (
        "--model",
        tmp_path / "large.safetensors",
        "--aligned",
        "--steps",
        "1",
        "--out",
        tmp_path / "out",
    )
    told = works("invert", tmp_path / "a.png", *search).stderr
    cost = r"[\d.e-]+ minutes and [\d.e-]+ GB per photo, plus [\d.e-]+ minutes once for this model"
    assert re.search(rf"estimate, within a factor of two: {cost}", told)


def test_the_first_stylegan_too() -> None:
    cost = estimate_cost(Model(random_generator(), random_discriminator()), torch.device("cpu"))
    assert cost.step_gflop > cost.render_gflop > 0


def test_shown_with_a_grid(tmp_path: Path, tiny_file: Path) -> None:
    shown = works("model", "info", tiny_file, "--grid", tmp_path / "grid.png", "--json").stdout
    facts = json.loads(shown[: shown.rindex("}") + 1])
    inversion = f"inversion_{STEPS['quasi-newton']}_steps_minutes"
    assert set(facts["estimate"]) >= {"render_seconds", "render_gb", inversion, "inversion_gb"}
    assert all(value > 0 for value in facts["estimate"].values() if isinstance(value, float))
    # two lines of eight images, each enlarged to 128 pixels, with its seed above it
    size = 2 * (18 + 128 + 12) + 6, 8 * (128 + 6) + 6
    assert load_image(tmp_path / "grid.png").shape[-2:] == size


def test_a_gpu_searches_as_many_photos_as_fit() -> None:
    assert fitting(80.0, 2.0) == 20
    assert fitting(80.0, 0.1) == AT_ONCE
    assert fitting(1.0, 2.0) == 1
    assert photos_at_once(Model(tiny_generator()), torch.device("cpu"), 8) == 8
