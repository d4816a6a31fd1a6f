"""The published encoders: their numbers, their checkpoints, and what an inversion makes of them."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import Error, FormatError
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import add_encoder, load_model
from latentedit.formats.published_encoders import published_encoder
from latentedit.inversion import published_encoder as encoders
from latentedit.inversion.published_encoder import (
    PublishedEncoder,
    PublishedEncoderConfig,
    encode_published,
)
from latentedit.io.images import load_image
from latentedit.networks.fingerprint import fingerprint
from tests.encoder_files import TYPES, answers, checkpoint
from tests.helpers import complaint, hopper, works
from tests.reference.encoder_weights import weight
from tests.reference_nets import REFERENCE, arrays, relative_error


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["e4e", "psp"])
def test_matches_the_published_numbers(kind: str) -> None:
    data = arrays("encoders_256.npz")
    seed, names = int(data["seed"]), json.loads(str(data[f"{kind}_names"]))
    state = {
        f"encoder.{name}": torch.from_numpy(
            np.asarray(weight(name, tuple(shape), seed), dtype=np.float32)
        )
        for name, shape in names.items()
        if not name.endswith("num_batches_tracked")
    }
    options = {"encoder_type": TYPES[kind], "start_from_latent_avg": False}
    encoder = published_encoder("reference", {"state_dict": state, "opts": options}, None).eval()
    picture = (
        np.random.default_rng([seed, 1])
        .standard_normal((1, 3, 256, 256))
        .astype(np.float32)
        .clip(-1, 1)
    )
    with torch.no_grad():
        assert relative_error(encoder(torch.from_numpy(picture)), data[kind]) <= 1e-4


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short backbone."""
    monkeypatch.setattr(
        encoders, "STAGES", ((64, 64, 1), (64, 128, 6), (128, 256, 14), (256, 512, 3))
    )


@pytest.mark.parametrize("kind", ["psp", "e4e"])
def test_answers_are_relative_to_the_mean(kind: str, tmp_path: Path) -> None:
    found = checkpoint(kind)
    torch.save(found, tmp_path / "x.pt")
    model = load_model(tmp_path / "x.pt")
    plain = load_model(REFERENCE / "rosinality_32.pt")
    assert fingerprint(model.generator) == fingerprint(plain.generator)
    assert isinstance(model.encoder, PublishedEncoder)
    image = torch.zeros(1, 3, 32, 32)
    rows, mean = answers(), plain.generator.mapping.w_avg
    expected = rows if kind == "psp" else torch.cat([rows[:1], rows[:1] + rows[1:]])
    ws = encode_published(model.generator, model.encoder, image)
    assert torch.allclose(ws[0], mean + expected, atol=1e-5)
    same = encode_published(model.generator, model.encoder, image, "w")
    one = expected.mean(dim=0) if kind == "psp" else expected[0]
    assert torch.allclose(same[0], (mean + one).expand(8, -1), atol=1e-5)


def test_restyle_sees_what_it_has_drawn(small: None) -> None:
    generator = load_model(REFERENCE / "rosinality_32.pt").generator
    encoder = (
        PublishedEncoder(PublishedEncoderConfig("restyle-psp", 8, 64, passes=3))
        .eval()
        .requires_grad_(False)
    )
    encoder.latent_avg.copy_(generator.mapping.w_avg.expand(8, -1))
    seen = []

    def forward(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.full((1, 8, 64), 0.1)

    encoder.forward = forward  # type: ignore[method-assign]
    image = generator.synthesis(generator.mapping(torch.ones(1, 64)))
    ws = encode_published(generator, encoder, image)
    assert torch.allclose(ws, encoder.latent_avg + 0.3, atol=1e-5)
    assert len(seen) == 3
    assert torch.equal(seen[0][:, :3], seen[2][:, :3])
    for number, x in enumerate(seen):
        drawn = generator.synthesis(encoder.latent_avg[None] + 0.1 * number)
        assert torch.allclose(x[:, 3:], F.adaptive_avg_pool2d(drawn, 256), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("psp", {"encoder_type": None}, "do not say encoder_type"),
        (
            "psp",
            {"encoder_type": "GradualStyleBlock9"},
            "an encoder of the type GradualStyleBlock9; known are",
        ),
        ("psp", {"encoder_type": "BackboneEncoder"}, "takes 6 channels; this one takes 3"),
        ("restyle-psp", {"n_iters_per_batch": 1000}, "passes must be a whole number from 1 to 32"),
    ],
)
def test_options_that_do_not_fit(
    kind: str, changes: dict[str, Any], message: str, small: None
) -> None:
    with pytest.raises(FormatError, match=message):
        published_encoder("x.pt", checkpoint(kind, 1, **changes), None)


def test_other_backbones(small: None) -> None:
    found = checkpoint("psp", 1)
    del found["state_dict"]["encoder.input_layer.0.weight"]
    with pytest.raises(FormatError, match=r"x.pt: an encoder with another backbone than IR-SE-50"):
        published_encoder("x.pt", found, None)
    found = checkpoint("psp", 1)
    del found["latent_avg"]
    with pytest.raises(FormatError, match=r"x.pt: no latent_avg"):
        published_encoder("x.pt", found, None)


@pytest.mark.slow
def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path / "cache"))
    found = checkpoint()
    found["opts"] = argparse.Namespace(**found["opts"])
    torch.save(found, "e4e.pt")
    search = ("invert", hopper(), "--crop", "100,20,300", "--perceptual", "discriminator")
    network = REFERENCE / "rosinality_32.pt"  # the same network with its discriminator
    works(*search, "--model", network, "--encoder", "e4e.pt", "--steps", "0", "--out", "found")
    latent = load_latent("found/grace_hopper.safetensors")
    mean = load_model(network).generator.mapping.w_avg
    assert torch.allclose(latent.ws[0, 0], mean + answers()[0], atol=1e-5)
    assert torch.allclose(latent.ws[0, 5], mean + answers()[0] + answers()[5], atol=1e-5)
    told = works("model", "info", "e4e.pt").output
    assert re.search(r"^encoder\n  kind +e4e$", told, re.MULTILINE), told
    assert (
        "left out: the e4e encoder" in works("model", "convert", "e4e.pt", "x.safetensors").stderr
    )
    assert load_model("x.safetensors").encoder is None
    line = complaint(
        *search, "--model", REFERENCE / "nvidia_32_torch.pkl", "--encoder", "e4e.pt", "--out", "x"
    )
    assert "this encoder predicts 8 x 64 numbers, the generator takes" in line
    found["state_dict"] = {
        name: value for name, value in found["state_dict"].items() if name.startswith("encoder.")
    }
    torch.save(found, "alone.pt")
    line = complaint(*search, "--model", "alone.pt", "--out", "x")
    assert (
        "alone.pt: an encoder without its decoder; name the StyleGAN2 network it was trained for "
        "as the model" in line
    )
    with pytest.raises(Error, match=r"expected a state_dict with encoder"):
        add_encoder(network, load_model(network))
    assert load_image(hopper(), 32).shape == (1, 3, 32, 32)
