"""Agreement with the published implementations: max|difference| <= 1e-4 max|reference|."""

from typing import Any

import pytest
import torch

from latentedit.formats.load_model import load_discriminator, load_generator, load_model
from latentedit.ops import upfirdn2d
from latentedit.training.losses import r1_penalty
from latentedit.training.path_length import path_lengths
from tests.reference_nets import REFERENCE, arrays, networks, relative_error

TOLERANCE = 1e-4
FILES = [
    "stylegan2_32_rgb.npz",
    "stylegan2_32_labels_gray.npz",
    "stylegan2_16_orig_discriminator.npz",
]


@pytest.mark.parametrize("case", range(5))
def test_upfirdn2d(case: int) -> None:
    data = {
        key.split("/")[1]: value
        for key, value in arrays("upfirdn2d.npz").items()
        if key.startswith(f"{case}/")
    }
    y = upfirdn2d(
        torch.from_numpy(data["x"]),
        torch.from_numpy(data["filter"]),
        up=int(data["up"]),
        down=int(data["down"]),
        padding=[int(p) for p in data["padding_x0x1y0y1"]],
        gain=float(data["gain"]),
        flip_filter=bool(data["flip_filter"]),
    )
    assert relative_error(y, data["y"]) <= TOLERANCE


@pytest.mark.parametrize("gradients", [False, True], ids=["rendering", "differentiable"])
@pytest.mark.parametrize("file", FILES)
def test_forward(file: str, gradients: bool) -> None:
    data = arrays(file)
    generator, discriminator = networks(data)
    z, c = torch.from_numpy(data["out/z"]), torch.from_numpy(data["out/c"])
    with torch.set_grad_enabled(gradients):
        ws = generator.mapping(z, c)
        assert relative_error(ws, data["out/ws"]) <= TOLERANCE
        truncated = generator.mapping(z, c, truncation_psi=0.6, truncation_cutoff=3)
        assert relative_error(truncated, data["out/ws_truncated"]) <= TOLERANCE
        image = generator.synthesis(ws)
        assert relative_error(image, data["out/image_const_noise"]) <= TOLERANCE
        assert (
            relative_error(generator.synthesis(ws, noise="none"), data["out/image_no_noise"])
            <= TOLERANCE
        )
        wplus = torch.from_numpy(data["out/wplus"])
        assert relative_error(generator.synthesis(wplus), data["out/image_wplus"]) <= TOLERANCE
        logits = discriminator(torch.from_numpy(data["out/image_const_noise"]), c)
        assert relative_error(logits, data["out/logits"]) <= TOLERANCE


@pytest.mark.parametrize("file", FILES)
def test_r1(file: str) -> None:
    data = arrays(file)
    discriminator = networks(data)[1]
    image = torch.from_numpy(data["out/image_const_noise"]).requires_grad_()
    penalty = r1_penalty(image, discriminator(image, torch.from_numpy(data["out/c"])))
    assert relative_error(penalty, data["out/r1_penalty"]) <= TOLERANCE
    (penalty.mean() / 2).backward()
    assert (
        relative_error(discriminator.b4.fc.weight.grad, data["out/r1_grad_b4_fc_weight"])
        <= TOLERANCE
    )
    first = discriminator.blocks[0].conv0.weight.grad
    assert relative_error(first, data["out/r1_grad_first_conv0_weight"]) <= TOLERANCE


@pytest.mark.parametrize("file", FILES)
def test_path_length(file: str) -> None:
    data = arrays(file)
    generator = networks(data)[0]
    ws = torch.from_numpy(data["out/ws"]).requires_grad_()
    noise = torch.from_numpy(data["out/pl_noise"]) / generator.resolution
    lengths = path_lengths(generator.synthesis(ws), ws, noise)
    assert relative_error(lengths, data["out/path_lengths"]) <= TOLERANCE
    (lengths - 0.5).square().mean().backward()
    blocks: Any = generator.synthesis.blocks
    last = blocks[-1]
    assert relative_error(blocks[0].const.grad, data["out/pl_grad_const"]) <= TOLERANCE
    assert (
        relative_error(last.conv1.weight.grad, data["out/pl_grad_last_conv1_weight"]) <= TOLERANCE
    )
    assert (
        relative_error(last.torgb.affine.weight.grad, data["out/pl_grad_last_torgb_affine_weight"])
        <= TOLERANCE
    )


@pytest.mark.parametrize("name", ["nvidia_32_torch", "nvidia3_32_torch"])
def test_nvidia_pickle(name: str) -> None:
    data = arrays(f"{name}.npz")
    generator = load_generator(REFERENCE / f"{name}.pkl")
    discriminator = load_discriminator(REFERENCE / f"{name}.pkl")
    c = torch.from_numpy(data["c"])
    ws = generator.mapping(torch.from_numpy(data["z"]), c, truncation_psi=0.7)
    assert relative_error(ws, data["ws_psi07"]) <= TOLERANCE
    assert relative_error(generator.synthesis(ws), data["image"]) <= TOLERANCE
    assert (
        relative_error(discriminator(torch.from_numpy(data["image"]), c), data["logits"])
        <= TOLERANCE
    )


@pytest.mark.parametrize("gradients", [False, True], ids=["rendering", "differentiable"])
def test_residual_clamped_generator(gradients: bool) -> None:
    name = "nvidia_32_resnet_generator_clamp"
    data = arrays(f"{name}.npz")
    model = load_model(REFERENCE / f"{name}.pkl")
    assert model.generator.config.architecture == "resnet"
    assert model.generator.config.conv_clamp == 2
    z, c = torch.from_numpy(data["out/z"]), torch.from_numpy(data["out/c"])
    with torch.set_grad_enabled(gradients):
        ws = model.generator.mapping(z, c)
        assert relative_error(ws, data["out/ws"]) <= TOLERANCE
        truncated = model.generator.mapping(z, c, truncation_psi=0.6, truncation_cutoff=3)
        assert relative_error(truncated, data["out/ws_truncated"]) <= TOLERANCE
        assert (
            relative_error(model.generator.synthesis(ws), data["out/image_const_noise"])
            <= TOLERANCE
        )
        assert (
            relative_error(model.generator.synthesis(ws, noise="none"), data["out/image_no_noise"])
            <= TOLERANCE
        )
        wplus = torch.from_numpy(data["out/wplus"])
        assert (
            relative_error(model.generator.synthesis(wplus), data["out/image_wplus"]) <= TOLERANCE
        )
        assert model.discriminator is not None
        logits = model.discriminator(torch.from_numpy(data["out/image_const_noise"]), c)
        assert relative_error(logits, data["out/logits"]) <= TOLERANCE
