"""Model files: round trips, fingerprint, damage."""

import hashlib
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

from latentedit.errors import Error
from latentedit.formats.load_model import load_discriminator, load_generator, load_model
from latentedit.io.images import load_image
from latentedit.latent.w_statistics import sample_z
from latentedit.model.bundled import LATEST, RETIRED, bundled_with
from latentedit.model.model import Model
from latentedit.model.native import round_to_half, save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.framing import FRAMINGS
from tests.helpers import tiny_discriminator, tiny_generator


def test_half_precision_is_exact_once_rounded(tmp_path: Path) -> None:
    model = Model(tiny_generator(), tiny_discriminator())
    save_model(tmp_path / "whole.safetensors", model)
    mapping = model.generator.mapping.w_avg.clone()
    before = fingerprint(model.generator)
    round_to_half(model)
    assert fingerprint(model.generator) != before
    assert torch.equal(model.generator.mapping.w_avg, mapping)  # only convolutions are rounded
    save_model(tmp_path / "half.safetensors", model, half=True)
    again = load_model(tmp_path / "half.safetensors")
    assert fingerprint(again.generator) == fingerprint(model.generator)
    assert again.discriminator is not None
    assert model.discriminator is not None
    for name, tensor in model.discriminator.state_dict().items():
        assert torch.equal(tensor, again.discriminator.state_dict()[name]), name
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.75 * sizes[1]

    with torch.no_grad():
        model.generator.synthesis.b4.conv1.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(
        Error, match=r"b4.conv1.weight reaches 1e\+06, too large for half precision"
    ):
        round_to_half(model)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    model = Model(
        tiny_generator(),
        tiny_discriminator(),
        {"kind": "none"},
        {"licence": "x"},
        raw_generator=tiny_generator(1),
    )
    save_model(tmp_path / "m.safetensors", model)
    again = load_model(tmp_path / "m.safetensors")
    for ours, theirs in (
        (model.generator, again.generator),
        (model.discriminator, again.discriminator),
    ):
        assert ours is not None
        assert theirs is not None
        assert ours.config == theirs.config
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert again.raw_generator is not None
    assert fingerprint(again.raw_generator) == fingerprint(tiny_generator(1))
    assert (again.framing, again.provenance) == (model.framing, model.provenance)
    assert fingerprint(again.generator) == fingerprint(model.generator)


def test_fingerprint_as_documented() -> None:
    generator = tiny_generator()
    digest = hashlib.sha256()
    tensors = {k: v for k, v in generator.state_dict().items() if k != "mapping.w_avg"}
    assert any(name.endswith("noise_const") for name in tensors)
    for name in sorted(tensors):
        values = tensors[name].flatten().tolist()
        digest.update(name.encode() + b"\0" + struct.pack("<I", tensors[name].ndim))
        digest.update(struct.pack(f"<{tensors[name].ndim}I", *tensors[name].shape))
        digest.update(struct.pack(f"<{len(values)}f", *values))
    assert fingerprint(generator) == digest.hexdigest()


def test_fingerprint_ignores_only_the_mean_of_w() -> None:
    generator = tiny_generator()
    before = fingerprint(generator)
    generator.mapping.w_avg += 1
    assert fingerprint(generator) == before
    generator.synthesis.layers[0].noise_const += 1
    assert fingerprint(generator) != before


def test_without_discriminator(tmp_path: Path) -> None:
    save_model(tmp_path / "g.safetensors", Model(tiny_generator()))
    assert load_generator(tmp_path / "g.safetensors").resolution == 16
    with pytest.raises(Error, match="has no discriminator"):
        load_discriminator(tmp_path / "g.safetensors")


def test_damage_is_named(tmp_path: Path, tiny_file: Path) -> None:
    bundled = "undled models: faces128, faces128-v3;"
    with pytest.raises(Error, match=rf"no such model file; did you mean faces128\? B{bundled}"):
        load_model("faces65")
    with pytest.raises(Error, match=f"no such model file; b{bundled}"):
        load_model("nothing-like-it")
    with pytest.raises(Error, match="no such model file"):
        load_model(tmp_path / "absent.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny_file.read_bytes()[:-100])
    with pytest.raises(Error, match=r"cut.safetensors: not a latentedit-model file, or damaged"):
        load_model(cut)
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    with pytest.raises(Error, match="not a latentedit-model file, or damaged"):
        load_model(text)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(2)}, foreign)
    with pytest.raises(Error, match="a safetensors file of other origin"):
        load_model(foreign)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            b'\\"version\\": 1',
            b'\\"version\\": 9',
            "written in format version 9, this latentedit reads up to 1",
        ),
        (
            b'\\"resolution\\": 16',
            b'\\"resolution\\": 32',
            "the generator has no tensor synthesis.b32",
        ),
        (
            b'\\"w_dim\\": 12',
            b'\\"w_dim\\": 13',
            r"generator tensor mapping.fc0.bias has shape \[12\], expected \[13\]",
        ),
        (b'\\"z_dim\\"', b'\\"y_dim\\"', "the model is incomplete"),
    ],
)
def test_headers_are_checked(
    tmp_path: Path, tiny_file: Path, old: bytes, new: bytes, message: str
) -> None:
    changed = tmp_path / "changed.safetensors"
    data = tiny_file.read_bytes()
    assert old in data
    changed.write_bytes(data.replace(old, new, 1))
    with pytest.raises(Error, match=message):
        load_model(changed)


@pytest.mark.parametrize(
    "name", ["faces64", "faces64-v1", "faces64-v2", "faces128-v1", "faces128-v2"]
)
def test_a_model_that_no_longer_ships_says_what_to_use(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name in RETIRED
    with pytest.raises(
        Error,
        match=rf"^{name}: this model no longer ships; use faces128 .* in the repository's history",
    ):
        load_model(name)
    load_model(RETIRED[name])

    # A file of that name is still a file: whoever kept the old model goes on using it.
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / name, Model(tiny_generator()))
    assert load_model(name).generator.resolution == 16


def test_bundled_model(faces128: Model) -> None:
    generator, discriminator = faces128.generator, faces128.discriminator
    assert (generator.resolution, generator.channels, generator.c_dim) == (128, 3, 0)
    assert discriminator is not None
    assert Path(faces128.path).stat().st_size <= 16 * 2**20
    assert bundled_with(fingerprint(generator)) == LATEST["faces128"] == "faces128-v3"
    # A shipped model never changes.
    assert (
        fingerprint(generator) == "cca4ba3445e26172c5973cb76f454d384248bfcea06ca806ddc736704d44e78b"
    )
    assert faces128.framing == FRAMINGS["ffhq"]
    assert faces128.provenance["images_seen"] > 100_000
    assert "licence" in faces128.provenance

    pictures = generator(sample_z(0, generator.z_dim, 8))
    assert 0.1 < float(pictures.std()) < 1
    # Colours: channels differ, and by more than noise.
    assert float((pictures[:, 0] - pictures[:, 2]).abs().mean()) > 0.05


@pytest.mark.data
def test_bundled_discriminator_tells_photographs_from_pictures(
    faces128: Model, shared_data: Path
) -> None:
    paths = sorted((shared_data / "portraits" / "train").iterdir())[::150]
    photographs = torch.cat([load_image(path, 128) for path in paths])
    drawn = faces128.generator(sample_z(0, faces128.generator.z_dim, len(paths)))
    assert faces128.discriminator is not None
    assert float(faces128.discriminator(photographs).mean()) > float(
        faces128.discriminator(drawn).mean()
    )
