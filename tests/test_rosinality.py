"""Rosinality's layout against its own numbers, there and back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentedit.errors import Error
from latentedit.formats.checkpoints import load_checkpoint
from latentedit.formats.load_model import load_model
from latentedit.formats.rosinality import save_rosinality
from latentedit.latent.w_statistics import sample_w, sample_z
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.synthesis import SynthesisLayer, ToRGB
from tests.helpers import complaint, tiny_discriminator, tiny_generator, works
from tests.reference_nets import REFERENCE, arrays, relative_error

FILE = REFERENCE / "rosinality_32.pt"
DATA = arrays("rosinality_32.npz")


def document() -> Any:
    return torch.load(FILE, weights_only=True)


def test_matches_its_own_numbers() -> None:
    model = load_model(FILE)
    z = torch.from_numpy(DATA["z"])
    assert relative_error(model.generator.mapping(z), DATA["ws"]) <= 1e-4
    assert relative_error(model.generator(z), DATA["image"]) <= 1e-4
    assert relative_error(model.generator(z, truncation_psi=0.6), DATA["image_truncated"]) <= 1e-4
    assert model.discriminator is not None
    assert (
        relative_error(model.discriminator(torch.from_numpy(DATA["image"])), DATA["logits"]) <= 1e-4
    )
    assert model.raw_generator is not None


def test_there_and_back(tmp_path: Path) -> None:
    """To native and back: the same tensors, name by name, and the same fingerprint."""
    native, again = tmp_path / "native.safetensors", tmp_path / "again.pt"
    first = works("model", "convert", FILE, native).stdout.splitlines()[0]
    assert works("model", "convert", native, again).stdout.splitlines()[0] == first
    before, after = torch.load(FILE, weights_only=True), torch.load(again, weights_only=True)
    for part in ("g_ema", "g", "d"):
        assert before[part].keys() == after[part].keys()
        for name, tensor in before[part].items():
            assert torch.equal(tensor, after[part][name]), name
    assert torch.equal(before["latent_avg"].flatten(), after["latent_avg"])
    plain = tmp_path / "plain.pt"
    works("model", "convert", native, plain, "--layout", "nvidia")
    weights = torch.load(plain, weights_only=True)
    assert {"G_ema", "G", "D"} == weights.keys()
    assert "synthesis.b8.conv0.affine.weight" in weights["G_ema"]


def test_only_some_parts(tmp_path: Path) -> None:
    whole = torch.load(FILE, weights_only=True)
    state = {
        name: tensor for name, tensor in whole["g_ema"].items() if not name.startswith("noises.")
    }
    torch.save({"g_ema": state}, tmp_path / "old.pt")
    model = load_checkpoint(tmp_path / "old.pt")
    assert model.discriminator is None
    assert model.raw_generator is None


def test_what_is_missing_is_measured_or_drawn_and_told(tmp_path: Path) -> None:
    """Rosinality's own trainer writes no running mean, its older versions no noise maps: neither
    becomes zero."""
    state = {
        name: tensor
        for name, tensor in document()["g_ema"].items()
        if not name.startswith("noises.")
    }
    torch.save({"g_ema": state}, tmp_path / "old.pt")
    result = works("model", "convert", tmp_path / "old.pt", tmp_path / "new.safetensors")
    assert (
        "old.pt: the file has no running mean of w; the mean of 10 000 random w replaces it"
        in result.stderr
    )
    assert "old.pt: the file has no noise maps; random maps of seed 0 replace them" in result.stderr

    one, two = load_model(tmp_path / "old.pt"), load_model(tmp_path / "new.safetensors")
    assert fingerprint(one.generator) == fingerprint(two.generator)
    assert two.provenance["filled_in"] == one.notes
    for generator in (one.generator, two.generator):
        assert torch.allclose(generator.mapping.w_avg, sample_w(generator).mean(dim=0), atol=1e-4)
        assert torch.equal(generator.mapping.w_avg, one.generator.mapping.w_avg)
        maps = torch.cat([layer.noise_const.flatten() for layer in generator.synthesis.layers])
        assert abs(float(maps.std()) - 1) < 0.05

    # The mean of random w is where the field's mean is too: truncated pictures agree.
    truncated = one.generator.mapping(torch.from_numpy(DATA["z"]), truncation_psi=0.0)
    whole = load_model(FILE)
    assert whole.notes == []
    assert float((truncated[:, 0] - one.generator.mapping.w_avg).abs().max()) == 0
    assert "filled_in" not in whole.provenance


def test_what_is_refused(tmp_path: Path) -> None:
    path, whole = tmp_path / "x.pt", torch.load(FILE, weights_only=True)

    def message(document: object) -> str:
        torch.save(document, path)
        with pytest.raises(Error) as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "lucidrains" in message({"GAN": {}, "version": "1.8"})
    assert (
        "expected a checkpoint of rosinality's (with a g_ema), of genforce's StyleGAN or of "
        "plain weights; it has state_dict" in message({"state_dict": {}})
    )
    assert "expected a dictionary of weights, found a list" in message([torch.zeros(1)])
    g = whole["g_ema"]
    assert "unknown tensor extra.weight" in message(
        {"g_ema": {**g, "extra.weight": torch.zeros(1)}}
    )
    assert "tensor conv1.noise.weight is missing" in message(
        {"g_ema": {k: v for k, v in g.items() if k != "conv1.noise.weight"}}
    )
    assert "convs.0.activate.bias has shape [7]" in message(
        {"g_ema": {**g, "convs.0.activate.bias": torch.zeros(7)}}
    )
    kernel = {**g, "convs.0.conv.blur.kernel": torch.ones(4, 4)}
    assert "another resampling filter" in message({"g_ema": kernel})
    narrow = {**g, "convs.1.conv.weight": torch.zeros(1, 7, 24, 3, 3)}
    assert "convs.0.conv.weight has shape [1, 24, 24, 3, 3], expected [7, 24, 3, 3]" in message(
        {"g_ema": narrow}
    )
    assert "asks for __builtin__.print, which is more than tensors" in message(
        {"g_ema": g, "optimizer": print}
    )
    path.write_bytes(FILE.read_bytes()[:5000])
    assert "not a file of weights" in complaint("model", "info", path)


def test_what_the_layout_cannot_hold(tmp_path: Path) -> None:
    save_model(tmp_path / "grey.safetensors", Model(tiny_generator(), tiny_discriminator()))
    line = complaint("model", "convert", tmp_path / "grey.safetensors", tmp_path / "x.pt")
    assert "rosinality's layout has no place for 1 channels" in line
    assert "OUT must end in .safetensors, .pt or .pkl" in complaint(
        "model", "convert", tmp_path / "grey.safetensors", tmp_path / "x.onnx"
    )
    slow = Model(tiny_generator(channels=3, mapping_lr_multiplier=0.5))
    with pytest.raises(
        Error, match=r"no place for a mapping with the learning rate multiplier 0.5"
    ):
        save_rosinality(tmp_path / "x.pt", slow)
    other = tiny_discriminator(channels=3, architecture="orig", conv_clamp=256.0)
    save_model(tmp_path / "other.safetensors", Model(tiny_generator(channels=3), other))
    told = works("model", "convert", tmp_path / "other.safetensors", tmp_path / "other.pt").stderr
    assert "left out: the discriminator, as the layout has no place for its architecture" in told
    (tmp_path / "other.pt").unlink()
    labelled = Model(tiny_generator(c_dim=2, channels=3))
    with pytest.raises(Error, match="no place for labels"):
        save_rosinality(tmp_path / "x.pt", labelled)
    assert not (tmp_path / "x.pt").exists()


def test_a_clamp_is_left_out_and_what_that_changes_is_told(tmp_path: Path) -> None:
    """As in ADA's networks. The largest activation of the images is found here by rendering them
    layer by layer."""
    generator = tiny_generator(channels=3)
    sizes: list[Tensor] = []
    watched = tiny_generator(channels=3)
    for module in watched.modules():
        if isinstance(module, SynthesisLayer | ToRGB):
            module.register_forward_hook(
                lambda module, inputs, result: sizes.append(result.abs().flatten())
            )
    images = torch.cat([watched(sample_z(seed, 12)) for seed in range(8)])
    every = torch.cat(sizes)
    for clamp in (256.0, float(every.quantile(0.99))):
        clamped = tiny_generator(channels=3, conv_clamp=clamp)
        discriminator = tiny_discriminator(channels=3, conv_clamp=256.0)
        save_model(tmp_path / "ada.safetensors", Model(clamped, discriminator))
        told = works("model", "convert", tmp_path / "ada.safetensors", tmp_path / "out.pt").stderr
        assert (
            "left out: the clamp of the discriminator's activations at 256, which changes "
            "nothing in 8 random images" in told
        )
        if clamp == 256:
            line = (
                "the clamp of the activations at 256, which changes nothing in 8 random images "
                "(psi 1):"
            )
            line += f" the largest of their activations is {float(every.max()):.3g}"
        else:
            change = max(
                float((clamped(sample_z(s, 12)) - images[s : s + 1]).abs().max()) for s in range(8)
            )
            line = "1 % of the activations of 8 random images (psi 1) go beyond it,"
            line += f" and the grey levels change by up to {127.5 * change:.2g}"
        assert line in told, told
        back = load_model(tmp_path / "out.pt")
        assert fingerprint(back.generator) == fingerprint(clamped) == fingerprint(generator)
        assert back.generator.config.conv_clamp is None
        assert back.discriminator is not None
        assert torch.equal(back.discriminator(images), tiny_discriminator(channels=3)(images))


def test_half_precision(tmp_path: Path) -> None:
    document = torch.load(FILE, weights_only=True)
    document = {
        part: {name: tensor.half() for name, tensor in state.items()}
        if isinstance(state, dict)
        else state.half()
        for part, state in document.items()
    }
    torch.save(document, tmp_path / "half.pt")
    ours, theirs = load_model(tmp_path / "half.pt").generator, load_model(FILE).generator
    difference = (
        (
            ours.state_dict()["synthesis.b8.conv0.weight"]
            - theirs.state_dict()["synthesis.b8.conv0.weight"]
        )
        .abs()
        .max()
    )
    assert 0 < float(difference) < 1e-2


def test_fingerprint_is_of_the_weights(tmp_path: Path) -> None:
    model = Model(tiny_generator(channels=3), tiny_discriminator(channels=3))
    save_rosinality(tmp_path / "x.pt", model)
    assert fingerprint(load_model(tmp_path / "x.pt").generator) == fingerprint(model.generator)
