"""Networks of other shapes: images that are not square, and images with transparency."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.errors import Error
from latentedit.formats.load_model import load_generator, load_model
from latentedit.inversion.projector import Projector
from latentedit.latent.w_statistics import sample_z
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks import synthesis
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator, GeneratorConfig
from tests.helpers import complaint, tiny_discriminator, tiny_generator, works


@pytest.mark.parametrize("first_size", [(4, 2), (2, 4), (3, 5), (4, 8)])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_images_have_the_shape_of_the_constant(
    first_size: tuple[int, int], architecture: str
) -> None:
    """As in the forks whose blocks are named as if the constant were 4 x 4."""
    generator = tiny_generator(first_size=first_size, architecture=architecture)
    height, width = 4 * first_size[0], 4 * first_size[1]
    assert generator.image_size == (height, width)
    image = generator(sample_z(0, 12, 2))
    assert image.shape == (2, 1, height, width)
    assert tuple(generator.synthesis.b4.const.shape[1:]) == first_size
    assert generator.synthesis.noise_shapes[-1] == (1, 1, height, width)
    noise = [torch.zeros(shape) for shape in generator.synthesis.noise_shapes]
    ws = generator.mapping(sample_z(0, 12))
    silent = generator.synthesis(ws, noise="none")
    assert torch.allclose(generator.synthesis(ws, noise=noise), silent, atol=1e-5)
    alone = generator.synthesis(ws)
    assert torch.allclose(alone, image[:1], atol=1e-4)


def test_a_wide_network_is_a_square_one_of_the_same_weights_seen_through_a_wider_window() -> None:
    """Away from the borders, a constant that repeats gives an image that repeats."""
    square = tiny_generator(resolution=32)
    wide = Generator(replace(square.config, first_size=(4, 12)))
    state = square.state_dict()
    repeated = {
        name: tensor.repeat(1, 1, 3) if name.endswith(".const") else tensor.repeat(1, 3)
        for name, tensor in state.items()
        if name.endswith((".const", "noise_const"))
    }
    wide.load_state_dict({**state, **repeated})
    wide.eval().requires_grad_(False)
    ws = square.mapping(sample_z(1, 12))
    image = wide.synthesis(ws)
    assert image.shape == (1, 1, 32, 96)
    middle = image[..., 32:64]
    assert not torch.allclose(middle, image[..., :32], atol=1e-3)  # the border
    assert float((middle - square.synthesis(ws)).abs()[..., 14:18].max()) < float(image.std())


def test_strips_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny_generator(resolution=64, first_size=(5, 3))
    ws = generator.mapping(sample_z(0, 12))
    whole = generator.synthesis(ws)
    monkeypatch.setattr(synthesis, "STRIP", 1)
    assert torch.allclose(generator.synthesis(ws), whole, atol=1e-5)


def test_what_is_no_shape() -> None:
    for size in ((0, 4), (4,), (4, 65), "44", (4, 4.0)):
        with pytest.raises(Error, match="first_size must be a height and a width from 1 to 64"):
            tiny_generator(first_size=size)
    with pytest.raises(Error, match="has a constant input of 4 x 4 only"):
        tiny_generator(first_size=(4, 8), architecture="stylegan1")
    with pytest.raises(Error, match="images of more than 16384 pixels"):
        GeneratorConfig(resolution=4096, first_size=(64, 64))


def test_layouts_that_can_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = tiny_generator(first_size=(4, 8), channels=3)
    save_model("wide.safetensors", Model(generator))
    assert load_generator("wide.safetensors").config == generator.config
    works("model", "convert", "wide.safetensors", "rosinality.pt")
    works("model", "convert", "wide.safetensors", "plain.pt", "--layout", "nvidia")
    state = torch.load("rosinality.pt", weights_only=True)
    assert list(state["g_ema"]["input.input"].shape) == [1, 16, 4, 8]
    for name in ("rosinality.pt", "plain.pt"):
        assert fingerprint(load_generator(name)) == fingerprint(generator), name
    assert "no place for images that are not square" in complaint(
        "model", "convert", "wide.safetensors", "wide.pkl"
    )
    # A discriminator beside it would be one of non-square images.
    state["d"] = {"convs.0.0.weight": torch.zeros(1)}
    torch.save(state, "with-d.pt")
    found = load_model("with-d.pt")
    assert found.discriminator is None
    assert any("left out: the discriminator" in note for note in found.notes)


def test_a_wide_network_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("wide.safetensors", Model(tiny_generator(first_size=(4, 8), channels=3)))
    model = ("--model", "wide.safetensors")
    works("sample", "wide.safetensors", "--seeds", "0-3", "--out", "grid.png")
    works("sample", "wide.safetensors", "--seeds", "5", "--out", "five.safetensors")
    np.save("x.npy", np.eye(12)[0])
    works("directions", "import", "x.npy", *model, "--out", "x.safetensors")
    works("edit", "five.safetensors", *model, "--set", "x.safetensors=2", "--out", "edited.png")
    works("edit", "five.safetensors", *model, "--sweep", "x.safetensors=-1:1:3", "--out", "s.png")
    works("interpolate", "--seeds", "1,2", *model, "--count", "3", "--out", "way.gif")
    works("model", "info", "wide.safetensors")
    sizes = {}
    for name in ("grid.png", "edited.png", "way.gif"):
        with Image.open(name) as file:
            sizes[name] = file.size
    # the grid is a sheet: every image is enlarged to 128 pixels and has its seed above it
    grid = 6 + 4 * (128 + 6), 18 + 64 + 12 + 6
    assert sizes == {"grid.png": grid, "edited.png": (32, 16), "way.gif": (512, 256)}
    Image.new("RGB", (32, 32)).save("me.png")
    assert "draws images of 32 x 16 pixels; only square images can be inverted" in complaint(
        "invert", "me.png", "--aligned", *model, "--out", "out"
    )


def test_a_transparent_network_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = tiny_generator(channels=4)
    save_model("clear.safetensors", Model(generator, tiny_discriminator(channels=4)))
    model = ("--model", "clear.safetensors")
    works("sample", "clear.safetensors", "--seeds", "5", "--out", "one.png")
    image = generator.synthesis(generator.mapping(sample_z(5, 12), None, 0.7))
    with Image.open("one.png") as file:
        assert file.mode == "RGBA"
        alpha = np.asarray(file)[..., 3]
    expected = ((image[0, 3].clamp(-1, 1) + 1) * 127.5).round().numpy()
    assert np.array_equal(alpha, expected.astype(np.uint8))
    works("sample", "clear.safetensors", "--seeds", "5", "--out", "one.jpg")
    works("sample", "clear.safetensors", "--seeds", "0-3", "--out", "grid.png")
    works("interpolate", "--seeds", "1,2", *model, "--count", "3", "--out", "way.gif")
    works("interpolate", "--seeds", "1,2", *model, "--count", "3", "--out", "strip.png")
    with Image.open("one.jpg") as file:
        over_white = np.asarray(file).astype(float)
    clear = alpha == 0
    if clear.any():
        assert over_white[clear].mean() > 200
    works("model", "convert", "clear.safetensors", "plain.pt", "--layout", "nvidia")
    assert load_generator("plain.pt").channels == 4
    assert "no place for 4 channels" in complaint("model", "convert", "clear.safetensors", "r.pt")
    with pytest.raises(Error, match="draws transparent images; only RGB and greyscale images"):
        Projector(generator)
