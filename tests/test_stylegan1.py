"""The first StyleGAN: its published numbers, its files, and growing."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import latentedit
from latentedit.errors import Error
from latentedit.formats.genforce import load_genforce
from latentedit.formats.load_model import load_model
from latentedit.io.images import load_image
from latentedit.latent.w_statistics import sample_w
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.discriminator import GrowingDiscriminator
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import GeneratorConfig
from latentedit.networks.progressive import enlarge, shrink, with_lod
from latentedit.networks.stylegan1 import adain
from latentedit.training import PictureSet, Trainer, TrainingConfig
from tests.foreign_files import (
    as_tensorflow,
    pickled,
    published_synthesis,
    random_discriminator,
    random_generator,
)
from tests.helpers import SHARED, complaint, works
from tests.reference_nets import relative_error


def test_matches_the_published_numbers() -> None:
    file = SHARED / "reference" / "stylegan1_32.npz"
    if not file.is_file():
        pytest.skip(f"the large reference file is not here ({file})")
    data = np.load(file)
    generator = load_genforce(
        "reference", {k[2:]: torch.from_numpy(data[k]) for k in data if k.startswith("G/")}
    ).generator
    generator.requires_grad_(False)
    z = torch.from_numpy(data["out/z"])
    assert relative_error(generator.mapping.map(z), data["out/w"]) <= 1e-4
    ws = generator.mapping(z, None, 0.7, 3)
    assert relative_error(ws, data["out/ws_truncated"]) <= 1e-4
    assert relative_error(generator.synthesis(ws), data["out/image"]) <= 1e-4
    assert (
        relative_error(
            generator.synthesis(torch.from_numpy(data["out/wplus"])), data["out/image_wplus"]
        )
        <= 1e-4
    )


def test_synthesis_matches_without_the_large_file(tmp_path: Path) -> None:
    state, data = published_synthesis()
    torch.save(state, tmp_path / "stylegan.pth")
    model = load_model(tmp_path / "stylegan.pth")
    for ws, image in (("ws_truncated", "image"), ("wplus", "image_wplus")):
        rendered = model.generator.synthesis(torch.from_numpy(data[f"out/{ws}"]))
        assert relative_error(rendered, data[f"out/{image}"]) <= 1e-4
    assert (model.provenance["truncation_psi"], model.provenance["truncation_cutoff"]) == (0.7, 3)
    # The mapping as published: gain before the bias.
    x = z = torch.randn(3, 512)
    x = x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    for layer in range(2):
        weight, bias = (
            state[f"mapping.dense{layer}.linear.weight"],
            state[f"mapping.dense{layer}.wscale.bias"],
        )
        x = F.leaky_relu(x @ weight.T * (0.01 * math.sqrt(2 / 512)) + bias * 0.01, 0.2)
    assert relative_error(model.generator.mapping.map(z), x.numpy()) <= 1e-5


def test_half_of_the_numbers_in_reduced_precision() -> None:
    generator = random_generator(
        GeneratorConfig(
            64, channel_base=512, channel_max=16, z_dim=8, w_dim=8, architecture="stylegan1"
        )
    )
    ws = generator.mapping(torch.randn(2, 8))
    full, reduced = generator.synthesis(ws), generator.synthesis(ws, precision="bf16")
    noise = (full - reduced).square().mean()
    assert 10 * math.log10(float(full.square().max() / noise)) > 40


def test_fused_files_are_turned(tmp_path: Path) -> None:
    """A fused layer stores ``[3, 3, I, O]`` for a transposed convolution, which turns it by half a
    turn."""
    state, _ = published_synthesis()
    fused = dict(state)
    for layer in (2, 4, 6):
        fused[f"synthesis.layer{layer}.weight"] = (
            fused.pop(f"synthesis.layer{layer}.conv.weight").flip(2, 3).permute(2, 3, 1, 0)
        )
    a, b = load_genforce("a", state), load_genforce("b", fused)
    assert fingerprint(a.generator) == fingerprint(b.generator)
    # As the published code runs it.
    weight, x = torch.randn(3, 3, 5, 4), torch.randn(1, 5, 6, 6)  # [k, k, I, O]
    padded = F.pad(weight, (0, 0, 0, 0, 1, 1, 1, 1))
    kernel = (padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]).permute(
        2, 3, 0, 1
    )
    theirs = F.conv_transpose2d(x, kernel, stride=2, padding=1)
    assert torch.allclose(
        theirs, F.conv2d(enlarge(x), weight.permute(3, 2, 0, 1).flip(2, 3), padding=1), atol=1e-5
    )


def test_genforces_later_names(tmp_path: Path) -> None:
    """The same network as genforce's code of 2020 names it; at 128 px and more it stores fused
    layers."""
    state, _ = published_synthesis()
    later = {}
    for name, tensor in state.items():
        name = name.replace(".epilogue.style_mod.dense.linear.weight", ".style.weight")
        name = name.replace(".epilogue.style_mod.dense.wscale.bias", ".style.bias").replace(
            ".epilogue", ""
        )
        name = (
            name.replace(".linear.weight", ".weight")
            .replace(".wscale.bias", ".bias")
            .replace(".conv.weight", ".weight")
        )
        name = name.replace("layer0.first_layer", "layer0.const").replace(
            "blur.kernel", "filter.kernel"
        )
        later[name] = tensor
    later.pop("truncation.truncation")
    torch.save({"generator_smooth": later, "generator": later}, tmp_path / "checkpoint.pth")
    model = load_model(tmp_path / "checkpoint.pth")
    assert fingerprint(model.generator) == fingerprint(load_genforce("x", state).generator)
    assert model.raw_generator is not None
    fine = dict(later)
    for layer in (8, 9, 10, 11):  # 64 and 128 px, with the widths of 32 px
        for part in [part for part in later if part.startswith("synthesis.layer7.")]:
            fine[part.replace("layer7", f"layer{layer}")] = later[part]
        side = 4 * 2 ** (layer // 2)
        fine[f"synthesis.layer{layer}.apply_noise.noise"] = torch.zeros(1, 1, side, side)
    for output in (4, 5):
        for part in ("weight", "bias"):
            fine[f"synthesis.output{output}.{part}"] = later[f"synthesis.output3.{part}"]
    weights = load_genforce("x", fine).generator.state_dict()
    stored = later["synthesis.layer7.weight"]
    assert torch.equal(weights["synthesis.b64.conv0.weight"], stored)
    assert torch.equal(weights["synthesis.b128.conv0.weight"], stored.flip(2, 3))
    with pytest.raises(Error, match="a network with labels of this layout"):
        load_genforce("x", {**later, "mapping.label_weight": torch.zeros(3, 512)})


def test_adain_is_instance_normalisation() -> None:
    x, styles = (
        torch.randn(2, 3, 5, 5, dtype=torch.float64) * 4 + 7,
        torch.randn(2, 6, dtype=torch.float64),
    )
    expected = (
        F.instance_norm(x, eps=1e-8) * (1 + styles[:, :3])[..., None, None]
        + styles[:, 3:][..., None, None]
    )
    assert torch.allclose(adain(x, styles), expected)
    x.requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda t: adain(t, styles[:1, :2]), (torch.randn(1, 1, 2, 2).double().requires_grad_(),)
    )


def discriminator_as_tensorflow(ours: GrowingDiscriminator) -> dict[str, Any]:
    state, variables = ours.state_dict(), [("lod", np.float32(0))]
    names = {
        "conv0": "Conv0",
        "conv1": "Conv1_down",
        "conv": "Conv",
        "fc": "Dense0",
        "out": "Dense1",
    }
    for name, tensor in state.items():
        if name == "lod":
            continue
        block, layer, kind = name.split(".")
        r = int(block[1:])
        there = (
            f"FromRGB_lod{[16, 8, 4].index(r)}" if layer == "fromrgb" else f"{r}x{r}/{names[layer]}"
        )
        if kind == "bias" and layer != "out":
            tensor = tensor * math.sqrt(2)
        array = tensor.numpy()
        axes = (2, 3, 1, 0) if array.ndim == 4 else (1, 0) if array.ndim == 2 else (0,)
        variables.append((f"{there}/{kind}", np.ascontiguousarray(array.transpose(axes))))  # type: ignore[arg-type]
    return {
        "static_kwargs": {"num_channels": 3, "resolution": 16, "mbstd_group_size": 2},
        "components": {},
        "build_func_name": "D_basic",
        "variables": variables,
    }


@pytest.mark.parametrize("fused", [False, True])
def test_tensorflow_pickles(tmp_path: Path, network: Any, fused: bool) -> None:
    state, data = published_synthesis()
    g, d = as_tensorflow(state, fused), discriminator_as_tensorflow(random_discriminator())
    model = load_model(pickled(tmp_path / "karras2019stylegan.pkl", network, g, d, g))
    rendered = model.generator.synthesis(torch.from_numpy(data["out/wplus"]))
    assert relative_error(rendered, data["out/image_wplus"]) <= 1e-4
    assert fingerprint(model.generator) == fingerprint(load_genforce("x", state).generator)
    assert model.raw_generator is not None
    assert model.discriminator is not None
    image = torch.randn(4, 3, 16, 16)
    assert torch.allclose(model.discriminator(image), random_discriminator()(image), atol=1e-5)
    assert (model.provenance["truncation_psi"], model.provenance["truncation_cutoff"]) == (0.7, 8)


def test_variants_that_are_refused(tmp_path: Path, network: Any) -> None:
    state, _ = published_synthesis()

    def message(**settings: Any) -> str:
        g = as_tensorflow(state, False)
        g["static_kwargs"] = {**g["static_kwargs"], **settings}
        with pytest.raises(Error) as caught:
            load_model(pickled(tmp_path / "x.pkl", network, g, g, g))
        return str(caught.value)

    assert "a network whose use_pixel_norm is not False cannot be represented" in message(
        use_pixel_norm=True
    )
    assert "a network with labels, but without their embedding" in message(label_size=3)
    cut = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith("synthesis.layer3.epilogue.bias")
    }
    torch.save(cut, tmp_path / "cut.pth")
    assert "the generator is incomplete (KeyError: 'synthesis.layer3.epilogue.bias')" in complaint(
        "sample", tmp_path / "cut.pth", "--out", tmp_path / "x.png"
    )
    last_only = {
        name: tensor for name, tensor in state.items() if not name.startswith("synthesis.output0")
    }
    with pytest.raises(Error, match=r"incomplete|RGB output"):
        load_genforce("x.pth", last_only)


def test_discriminator_is_the_published_function() -> None:
    d: Any = random_discriminator()
    image = torch.randn(4, 3, 16, 16)

    def layer(x: Tensor, conv: Any, down: bool = False) -> Tensor:
        weight = conv.weight * (math.sqrt(2) * conv.weight_gain)
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        x = shrink(x) if down else x
        return F.leaky_relu(x + conv.bias[:, None, None] * math.sqrt(2), 0.2)

    x = layer(image, d.b16.fromrgb)
    taps = torch.tensor([1.0, 2, 1])
    blur = (torch.outer(taps, taps) / 16).expand(8, 1, 3, 3)
    for block in (d.b16, d.b8):
        x = layer(x, block.conv0)
        x = layer(
            F.conv2d(x, blur[: x.shape[1]], padding=1, groups=x.shape[1]), block.conv1, down=True
        )
    assert torch.allclose(d(image), d.b4(x, None), atol=1e-5)


@pytest.mark.parametrize("lod", [0.0, 0.25, 1.0, 1.5, 2.0])
def test_levels_of_detail(lod: float) -> None:
    g: Any = random_generator()
    d = random_discriminator()
    ws = g.mapping(torch.randn(4, 8))
    pictures = []
    for whole in (0, 1, 2):
        g.synthesis.set_lod(whole)
        pictures.append(g.synthesis(ws))
        assert torch.allclose(
            pictures[-1], enlarge(shrink(pictures[-1], 2**whole), 2**whole), atol=1e-6
        )
    whole, share = int(lod), lod - int(lod)
    g.synthesis.set_lod(lod)
    blended = torch.lerp(pictures[whole], pictures[min(whole + 1, 2)], share)
    assert torch.allclose(g.synthesis(ws), blended, atol=1e-6)
    # What the discriminator sees of a picture is what a generator of that level could have drawn.
    d.set_lod(lod)
    image = torch.randn(4, 3, 16, 16)
    if not share:
        assert torch.allclose(d(image), d(with_lod(image, lod)), atol=1e-5)
    else:
        values = []
        for near in (whole, lod, whole + 0.999999):
            d.set_lod(near)
            values.append(d(with_lod(image, lod)))
        assert not torch.allclose(values[0], values[1])
        assert not torch.allclose(values[1], values[2])


def test_lod_is_kept_in_the_file(tmp_path: Path) -> None:
    g: Any = random_generator()
    d = random_discriminator()
    before = fingerprint(g)
    g.synthesis.set_lod(1.25)
    d.set_lod(1.25)
    assert fingerprint(g) != before
    save_model(tmp_path / "half.safetensors", Model(g, d))
    again = load_model(tmp_path / "half.safetensors")
    ws = g.mapping(torch.randn(1, 8))
    assert torch.equal(again.generator.synthesis(ws), g.synthesis(ws))
    image = torch.randn(2, 3, 16, 16)
    assert again.discriminator is not None
    assert torch.equal(again.discriminator(image), d(image))


def test_wrong_configurations() -> None:
    with pytest.raises(Error, match="odd number of taps"):
        GeneratorConfig(16, architecture="stylegan1", resample_filter=(1, 3, 3, 1))
    with pytest.raises(Error, match="no clamped activations"):
        GeneratorConfig(16, architecture="stylegan1", conv_clamp=256)
    with pytest.raises(
        Error, match="channel_widths must name 3 numbers of at least 1, from 4 px up, got 2"
    ):
        GeneratorConfig(16, channel_widths=(8, 8))


def test_plain_weights_there_and_back(tmp_path: Path) -> None:
    save_model(tmp_path / "a.safetensors", Model(random_generator(), random_discriminator()))
    works("model", "convert", tmp_path / "a.safetensors", tmp_path / "b.pt", "--layout", "nvidia")
    works("model", "convert", tmp_path / "b.pt", tmp_path / "c.safetensors")
    a, c = load_model(tmp_path / "a.safetensors"), load_model(tmp_path / "c.safetensors")
    assert fingerprint(a.generator) == fingerprint(c.generator)
    assert a.generator.config == c.generator.config
    assert a.discriminator is not None
    assert c.discriminator is not None
    assert a.discriminator.config == c.discriminator.config
    assert "rosinality's layout has no place for the 'stylegan1' variant" in complaint(
        "model", "convert", tmp_path / "a.safetensors", tmp_path / "x.pt"
    )


def pictures(count: int) -> PictureSet:
    pixels = torch.randint(
        0, 255, (count, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return PictureSet(pixels, torch.zeros(count, 0), [f"{i}.png" for i in range(count)])


def growing(**changes: Any) -> TrainingConfig:
    networks = {"channel_base": 64, "channel_max": 8, "architecture": "stylegan1"}
    options: dict[str, Any] = {
        "generator": {**networks, "z_dim": 8, "w_dim": 8, "mapping_layers": 2},
        "discriminator": {**networks, "mbstd_group_size": 2},
        "batch": 4,
        "path_weight": 0.0,
        "r1_interval": 2,
        "augment": "none",
        "grow_from": 4,
        "grow_kimg": 0.016,
        "fade_kimg": 0.016,
    }
    return TrainingConfig(**{**options, **changes})


def test_schedule_of_growing() -> None:
    config = growing(grow_kimg=10.0, fade_kimg=20.0, grow_from=8)
    levels = {seen: config.lod(seen * 1000, 32) for seen in (0, 10, 20, 30, 40, 45, 60, 1000)}
    assert levels == {0: 2, 10: 2, 20: 1.5, 30: 1, 40: 1, 45: 0.75, 60: 0, 1000: 0}
    assert growing(grow_from=0).lod(0, 32) == 0
    assert growing(grow_kimg=10.0, fade_kimg=0.0, grow_from=8).lod(10_000, 32) == 1


def test_training_grows_and_resumes_exactly(tmp_path: Path) -> None:
    data = pictures(24)
    whole: Any = Trainer(growing(), data)
    first = Trainer(growing(), data)
    levels, fine = [], []
    for step in range(18):
        before = whole.g.state_dict()["synthesis.b16.conv0.weight"].clone()
        whole.step()
        levels.append(round(whole.d.level, 6))
        fine.append(not torch.equal(before, whole.g.state_dict()["synthesis.b16.conv0.weight"]))
        if step < 9:
            first.step()
        elif step == 9:
            torch.save(first.state(), tmp_path / "state.pt")
            first = Trainer(growing(), data)
            first.restore(torch.load(tmp_path / "state.pt", weights_only=True))
            for _ in range(9):
                first.step()
    assert levels[:5] == [2, 2, 2, 2, 2]
    assert levels[5:9] == [1.75, 1.5, 1.25, 1]
    assert levels[-1] == 0
    # The finest layers learn nothing before their size is being faded in, and something ever after.
    assert fine.index(True) == levels.index(0.75)
    assert all(fine[fine.index(True) :])
    for name, tensor in whole.g_ema.state_dict().items():
        assert torch.equal(tensor, first.g_ema.state_dict()[name]), name
    whole.check_weights()
    assert whole.model(None, {}).generator.synthesis.level == 0


def test_real_pictures_have_no_more_detail_than_generated_ones() -> None:
    trainer = Trainer(growing(), pictures(8))
    trainer.step()
    trainer.load()
    ((images, _),) = trainer.real()
    assert torch.allclose(images, enlarge(shrink(images, 4), 4), atol=1e-6)
    assert not torch.allclose(images, enlarge(shrink(images, 8), 8), atol=1e-2)


def test_style_mixing_reaches_the_layers_in_use() -> None:
    """At 4 px two rows of w are in use, so that a mixed picture has another w from the second
    on."""
    trainer = Trainer(growing(style_mixing=1.0), pictures(8))
    trainer._grow()
    _, ws, _ = trainer.generate(trainer._streams("generator", trainer.rounds[0]), keep_rows=True)
    assert bool((ws[:, 0] != ws[:, 1]).any(dim=1).all())


def test_growing_is_checked() -> None:
    with pytest.raises(Error, match="grow_from must be a power of two from 4 to 16, got 32"):
        Trainer(growing(grow_from=32), pictures(4))
    with pytest.raises(Error, match='progressive growing needs the architecture "stylegan1"'):
        Trainer(growing(generator={"channel_base": 64}), pictures(4))


def test_inverted_and_edited_like_the_others(tmp_path: Path) -> None:
    file = tmp_path / "first.safetensors"
    framing = {"kind": "face", "eyes": [[0.36, 0.47], [0.63, 0.47]]}
    save_model(file, Model(random_generator(), random_discriminator(), framing))
    works("sample", file, "--seeds", "3", "--out", tmp_path / "target.png")
    works(
        "invert",
        tmp_path / "target.png",
        "--model",
        file,
        "--aligned",
        "--steps",
        "30",
        "--out",
        tmp_path / "found",
    )
    latent = tmp_path / "found" / "target.safetensors"
    generator = load_model(file).generator
    w = sample_w(generator, 300)
    direction = latentedit.directions.fit(
        w, (w[:, 0] > 0).numpy(), generator=generator, name="first-axis"
    )
    direction.save(tmp_path / "axis.safetensors")
    works(
        "edit",
        latent,
        "--model",
        file,
        "--set",
        f"{tmp_path / 'axis.safetensors'}=2@coarse",
        "--out",
        tmp_path / "edited.png",
    )
    works(
        "mix", latent, latent, "--model", file, "--layers", "0-2", "--out", tmp_path / "mixed.png"
    )
    assert (load_image(tmp_path / "edited.png") != load_image(tmp_path / "mixed.png")).any()
