"""A tuned generator as a model of its own renders what its latents rendered before."""

from pathlib import Path

import pytest
import torch

from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_model
from latentedit.latent.deltas import compress_deltas
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.model.baking import bake
from latentedit.model.model import Model
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from tests.helpers import complaint, tiny_generator, works


def tuned(generator: Generator, seed: int = 0, rank: int | None = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    parameters = generator.synthesis.named_parameters()
    return compress_deltas({name: 0.1 * torch.randn_like(p) for name, p in parameters}, rank)


def latent(generator: Generator, seed: int, stored: dict[str, torch.Tensor]) -> Latent:
    torch.manual_seed(seed)
    ws = torch.randn(1, generator.num_ws, generator.w_dim)
    noise = [torch.randn(shape) for shape in generator.synthesis.noise_shapes]
    return Latent(ws, noise, fingerprint(generator), "w+", tuned=stored)


def test_images_stay_as_they_were(tmp_path: Path, tiny_file: Path) -> None:
    model = load_model(tiny_file)
    stored = tuned(model.generator)
    pictures = []
    for seed in range(2):
        one = latent(model.generator, seed, stored)
        save_latent(tmp_path / f"{seed}.safetensors", one)
        pictures.append(load_latent(tmp_path / f"{seed}.safetensors").render(model.generator))
    both = (tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    out = tmp_path / "new" / "family.safetensors"
    works("latent", "bake", *both, "--model", tiny_file, "--out", out)

    family = load_model(out)
    assert fingerprint(family.generator) != fingerprint(model.generator)
    assert family.provenance["baked"] == {"generator": fingerprint(model.generator), "latents": 2}
    assert (family.discriminator is None) == (model.discriminator is None)
    for seed, picture in enumerate(pictures):
        again = load_latent(tmp_path / "new" / f"{seed}-baked.safetensors")
        assert not again.tuned
        assert torch.equal(again.render(family.generator), picture)
        assert not torch.equal(again.render(model.generator), picture)

    # It goes into the other layouts, which have no place for differences.
    works("model", "convert", out, tmp_path / "family.pkl")
    again = load_latent(tmp_path / "new" / "0-baked.safetensors")
    assert torch.equal(again.render(load_model(tmp_path / "family.pkl").generator), pictures[0])


def test_what_cannot_be_baked(tmp_path: Path, tiny_file: Path) -> None:
    generator = load_model(tiny_file).generator
    plain, first, second = (tmp_path / f"{name}.safetensors" for name in ("plain", "one", "two"))
    save_latent(plain, latent(generator, 0, {}))
    save_latent(first, latent(generator, 0, tuned(generator)))
    save_latent(second, latent(generator, 0, tuned(generator, 1)))
    out = ("--model", tiny_file, "--out", tmp_path / "x.safetensors")
    assert "plain.safetensors: this latent has no tuned difference" in complaint(
        "latent", "bake", plain, *out
    )
    said = complaint("latent", "bake", first, second, *out)
    assert "the latents have different tuned generators, and a model file holds one" in said
    said = complaint("latent", "bake", first, *out[:3], tmp_path / "x.pkl")
    assert "x.pkl: --out must end in .safetensors; convert the model afterwards" in said
    save_latent(tmp_path / "other.safetensors", latent(tiny_generator(5), 0, tuned(generator)))
    assert "belongs to the generator" in complaint(
        "latent", "bake", tmp_path / "other.safetensors", *out
    )
    assert not (tmp_path / "x.safetensors").exists()
    with pytest.raises(Error, match="there is no latent"):
        bake(Model(generator), [])
