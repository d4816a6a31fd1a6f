"""The encoder: training from the generator's own pictures, its file, searches that start from
it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from latentedit.cli.main import main
from latentedit.errors import Error
from latentedit.formats.load_model import load_model
from latentedit.inversion.encoder import Encoder, EncoderConfig, encode
from latentedit.inversion.preconditioner import Curvature
from latentedit.io.header import read_header
from latentedit.latent.w_statistics import WStatistics
from latentedit.model.model import Model
from latentedit.model.native import load_encoder, save_encoder, save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from latentedit.training.data import PictureSet
from latentedit.training.encoders import train_encoder
from tests.helpers import tiny_discriminator, tiny_generator, trainer


def photographs(count: int = 9, channels: int = 1, side: int = 16) -> PictureSet:
    pixels = torch.randint(
        0,
        256,
        (count, channels, side, side),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    )
    return PictureSet(pixels, torch.zeros(count, 0), [f"{i}.png" for i in range(count)])


def test_learns_to_read_w() -> None:
    generator = tiny_generator()
    training = trainer(generator, 150)
    terms = [training.step() for _ in range(150)]
    first, last = terms[0]["w 0"], sum(term["w 2"] for term in terms[-20::2]) / 10
    assert last < 0.5 * first
    image = generator(torch.randn(16, generator.z_dim, generator=torch.Generator().manual_seed(9)))
    far = (
        (
            generator.synthesis(WStatistics.of(generator).mean.expand(16, generator.num_ws, -1))
            - image
        )
        .square()
        .mean()
    )
    ws = encode(generator, training.averaged, image, "w")
    assert bool((ws == ws[:, :1]).all())
    assert float((generator.synthesis(ws) - image).square().mean()) < 0.7 * float(far)
    plus = encode(generator, training.averaged, image)
    assert not bool((plus == plus[:, :1]).all())


def test_photographs_take_part() -> None:
    training = trainer(tiny_generator(), photos=photographs())
    assert {"w 0 photos", "w 2 photos"} <= training.step().keys()
    with pytest.raises(
        Error, match=r"photos have shape \[3, 16, 16\], the images of the generator \[1, 16, 16\]"
    ):
        trainer(tiny_generator(), photos=photographs(channels=3))


def test_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    generator, photos = tiny_generator(), photographs()
    whole = train_encoder(trainer(generator, 6, photos), tmp_path / "whole.pt")

    def interrupt(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    stopped = trainer(generator, 6, photos)
    train_encoder(stopped, tmp_path / "state.pt", report=interrupt)
    assert stopped.step_number == 3
    assert stopped.interrupted
    going_on = trainer(generator, 6, photos, seed=0)
    again = train_encoder(going_on, tmp_path / "state.pt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    with pytest.raises(
        Error, match=r"state.pt: the training state belongs to another encoder; remove it"
    ):
        train_encoder(trainer(tiny_generator(1), 6), tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"nothing")
    with pytest.raises(Error, match="not a training state of an encoder"):
        train_encoder(trainer(generator, 6), tmp_path / "state.pt")


@pytest.mark.parametrize("architecture", ["skip", "resnet", "stylegan1"])
def test_every_kind_of_generator(architecture: str) -> None:
    generator = tiny_generator(architecture=architecture)
    encoder = Encoder(EncoderConfig.of(generator))
    image = torch.zeros(2, 1, 16, 16)
    assert encode(generator, encoder, image).shape == (2, generator.num_ws, generator.w_dim)
    with pytest.raises(Error, match="a different size"):
        encode(tiny_generator(w_dim=16), encoder, image)


def with_encoder(generator: Generator) -> Model:
    torch.manual_seed(0)
    model = Model(
        generator,
        tiny_discriminator(),
        {"kind": "none"},
        {},
        encoder=Encoder(EncoderConfig.of(generator)),
    )
    model.curvature = Curvature(torch.randn(5, generator.num_ws, generator.w_dim))
    return model


def test_in_the_model_file_and_beside_it(tmp_path: Path) -> None:
    model = with_encoder(tiny_generator())
    assert model.encoder is not None
    inside, alone, beside = (
        tmp_path / "inside.safetensors",
        tmp_path / "a.safetensors",
        tmp_path / "a.encoder.safetensors",
    )
    save_model(inside, model)
    save_encoder(beside, model, {"steps": 1})
    save_model(alone, Model(model.generator, model.discriminator, model.framing))
    assert "e/stem.weight" not in alone.read_bytes().decode("latin1")
    for path in (inside, alone):
        read = load_model(path)
        assert isinstance(read.encoder, Encoder)
        assert isinstance(model.encoder, Encoder)
        assert read.curvature is not None
        torch.testing.assert_close(
            read.encoder.stem.weight, model.encoder.stem.weight, atol=1e-3, rtol=1e-3
        )
        assert read.curvature.factors.shape == (5, 6, 12)
        assert fingerprint(read.generator) == fingerprint(model.generator)
    with pytest.raises(Error, match="contains only an encoder, not a model"):
        load_model(beside)
    with pytest.raises(Error, match="this encoder belongs to the generator"):
        load_encoder(beside, Model(tiny_generator(1)))
    with pytest.raises(Error, match="this model file has no encoder"):
        load_encoder(alone, Model(model.generator))
    assert read_header(beside, "latentedit-model", 1)["provenance"] == {"steps": 1}


def test_the_bundled_encoder(faces128: Model) -> None:
    generator = faces128.generator
    path = Path(faces128.path)
    beside = path.with_name(f"{path.stem}.encoder.safetensors")
    assert isinstance(faces128.encoder, Encoder)
    assert faces128.curvature is not None
    assert beside.stat().st_size + path.stat().st_size <= 24_000_000
    z = torch.randn(16, generator.z_dim, generator=torch.Generator().manual_seed(11))
    image = generator(z, truncation_psi=0.7)
    mean = generator.synthesis(WStatistics.of(generator).mean.expand(16, generator.num_ws, -1))
    for space in ("w", "w+"):
        found = generator.synthesis(encode(generator, faces128.encoder, image, space))
        assert float((found - image).square().mean()) < 0.25 * float((mean - image).square().mean())


def test_commands(tmp_path: Path, tiny_file: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout + result.stderr

    Image.fromarray(np.full((16, 16), 90, np.uint8)).save(tmp_path / "me.png")
    command = ("encoder", "train", str(tiny_file), "--steps", "4", "--batch", "4", "--probes", "8")
    assert "run the same command again to resume" in run(*command, "--max-minutes", "0")
    assert (tmp_path / "tiny.encoder.safetensors.state.pt").is_file()
    assert "wrote" in run(*command)
    assert not (tmp_path / "tiny.encoder.safetensors.state.pt").is_file()
    assert load_model(tiny_file).encoder is not None
    photo = ("invert", str(tmp_path / "me.png"), "--aligned", "--model", str(tiny_file), "--json")
    for number, options in enumerate(
        (("--steps", "0"), ("--steps", "3"), ("--method", "adam", "--steps", "3"), ("--space", "s"))
    ):
        out = run(*photo, *options, "--out", str(tmp_path / str(number)))
        facts = json.loads(out.splitlines()[0])
        assert facts["psnr"] > 0
    styled, plain = tmp_path / "3" / "me.safetensors", tmp_path / "1" / "me.safetensors"
    refused = CliRunner().invoke(
        main,
        [
            "mix",
            str(plain),
            str(styled),
            "--model",
            str(tiny_file),
            "--out",
            str(tmp_path / "x.png"),
        ],
    )
    assert "me.safetensors: has style offsets" in refused.output
    exported = run("latent", "export", str(styled), "--out", str(tmp_path / "w.npz"))
    assert "left out: the style offsets" in exported
    (tmp_path / "tiny.encoder.safetensors").rename(tmp_path / "elsewhere.safetensors")
    refused = CliRunner().invoke(main, [*photo, "--init", "encoder", "--out", str(tmp_path / "x")])
    assert refused.exit_code == 1
    assert "has no encoder" in refused.output
    assert (
        "--steps 0 needs an encoder"
        in CliRunner().invoke(main, [*photo, "--steps", "0", "--out", str(tmp_path / "x")]).output
    )
    run(
        *photo,
        "--steps",
        "0",
        "--encoder",
        str(tmp_path / "elsewhere.safetensors"),
        "--out",
        str(tmp_path / "given"),
    )
    bundled = CliRunner().invoke(main, ["encoder", "train", "faces128", "--steps", "1"])
    assert bundled.exit_code == 1
    assert "name the encoder file with --out" in bundled.output
