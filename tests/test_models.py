"""Model files: round trips, fingerprint, damage."""

import hashlib
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

from latentedit.errors import Error
from latentedit.faces import crop_tensor, quad_of_window
from latentedit.images import open_image
from latentedit.models import (
    LATEST,
    Model,
    bundled_with,
    fingerprint,
    load_discriminator,
    load_generator,
    load_model,
    save_model,
)
from latentedit.statistics import sample_z
from tests.conftest import tiny_discriminator, tiny_generator


def test_round_trip_is_exact(tmp_path: Path) -> None:
    model = Model(tiny_generator(), tiny_discriminator(), {"kind": "none"}, {"licence": "x"}, raw_generator=tiny_generator(1))
    save_model(tmp_path / "m.safetensors", model)
    again = load_model(tmp_path / "m.safetensors")
    for ours, theirs in ((model.generator, again.generator), (model.discriminator, again.discriminator)):
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
    with pytest.raises(Error, match=r"no such model file; models that come with latentedit: faces64"):
        load_model("faces65")
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
        (b'\\"version\\": 1', b'\\"version\\": 9', "written in format version 9, this latentedit reads up to 1"),
        (b'\\"resolution\\": 16', b'\\"resolution\\": 32', "the generator has no tensor synthesis.b32"),
        (b'\\"w_dim\\": 12', b'\\"w_dim\\": 13', r"generator tensor mapping.fc0.bias has shape \[12\], expected \[13\]"),
        (b'\\"z_dim\\"', b'\\"y_dim\\"', "the model is incomplete"),
    ],
)
def test_headers_are_checked(tmp_path: Path, tiny_file: Path, old: bytes, new: bytes, message: str) -> None:
    changed = tmp_path / "changed.safetensors"
    data = tiny_file.read_bytes()
    assert old in data
    changed.write_bytes(data.replace(old, new, 1))
    with pytest.raises(Error, match=message):
        load_model(changed)


def test_bundled_model(faces64: Model) -> None:
    generator, discriminator = faces64.generator, faces64.discriminator
    assert (generator.resolution, generator.channels, generator.c_dim) == (64, 1, 0)
    assert discriminator is not None
    assert Path(faces64.path).stat().st_size <= 8 * 2**20
    assert bundled_with(fingerprint(generator)) == LATEST["faces64"] == "faces64-v2"
    first = load_generator("faces64-v1")  # a shipped model never changes, and stays loadable
    assert fingerprint(first) == "594f9341abd6de2c86c181f464ddb4c6e9a6eb21497a6f973a7d20df1257ca24"
    assert faces64.provenance["started_from"] == fingerprint(first)
    assert faces64.framing is not None
    assert faces64.framing["kind"] == "face"
    assert faces64.provenance["images_seen"] > 100_000
    assert "licence" in faces64.provenance
    w = generator.mapping(torch.randn(64, generator.z_dim))
    pictures = generator.synthesis(w)
    assert 0.1 < float(pictures.std()) < 1


@pytest.mark.data
def test_bundled_discriminator_tells_photographs_from_pictures(faces64: Model, shared_data: Path) -> None:
    paths = sorted((shared_data / "cmu_faces" / "images").glob("an2i_*.png"))
    photographs = torch.cat([crop_tensor(open_image(path), quad_of_window(30, 22, 64), 64, 1) for path in paths])
    drawn = faces64.generator(sample_z(0, faces64.generator.z_dim, len(paths)))
    assert faces64.discriminator is not None
    assert float(faces64.discriminator(photographs).mean()) > float(faces64.discriminator(drawn).mean())
