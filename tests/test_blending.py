"""Two latents to one: neither's noise maps, tuned generator or settings stay behind unasked."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.latent.blending import interpolated, mixed
from latentedit.latent.deltas import compress_deltas, expand_deltas
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from tests.helpers import run, tiny_generator, works


def tuned_latent(generator: Generator, seed: int, rank: int | None = 1) -> Latent:
    """A latent whose w, noise maps and tuned generator are its own."""
    torch.manual_seed(seed)
    ws = torch.randn(1, generator.num_ws, generator.w_dim)
    noise = [torch.randn(shape) for shape in generator.synthesis.noise_shapes]
    deltas = {
        name: torch.randn_like(p) * 0.05 for name, p in generator.synthesis.named_parameters()
    }
    crop = [[float(seed), 0.0], [seed + 8.0, 0.0], [seed + 8.0, 8.0], [float(seed), 8.0]]
    settings = {"seed": seed, "steps": 100, "edits": [f"turn={seed}"]}
    tuned = {name: tensor.float() for name, tensor in compress_deltas(deltas, rank).items()}
    return Latent(
        ws, noise, fingerprint(generator), "w+", crop, settings, {"psnr": 30.0}, None, tuned
    )


@pytest.mark.parametrize("ranks", [(1, 1), (1, 2), (1, None), (None, None)])
def test_interpolation_ends_at_both_pictures(ranks: tuple[int | None, int | None]) -> None:
    generator = tiny_generator(channel_base=256)
    a, b = tuned_latent(generator, 1, ranks[0]), tuned_latent(generator, 2, ranks[1])
    assert torch.equal(interpolated(generator, a, b, 0.0).render(generator), a.render(generator))
    assert torch.equal(interpolated(generator, a, b, 1.0).render(generator), b.render(generator))

    between = interpolated(generator, a, b, 0.25)
    one, two, found = expand_deltas(a.tuned), expand_deltas(b.tuned), expand_deltas(between.tuned)
    for name, delta in found.items():
        torch.testing.assert_close(delta, 0.75 * one[name] + 0.25 * two[name], atol=1e-5, rtol=1e-5)


def test_one_tuned_latent_fades_out() -> None:
    generator = tiny_generator()
    a = tuned_latent(generator, 1)
    b = replace(tuned_latent(generator, 2), tuned={}, noise=None)
    assert interpolated(generator, a, b, 1.0).tuned == {}
    assert torch.equal(interpolated(generator, a, b, 1.0).render(generator), b.render(generator))
    half = expand_deltas(interpolated(generator, a, b, 0.5).tuned)
    whole = expand_deltas(a.tuned)
    assert all(torch.allclose(half[name], whole[name] / 2, atol=1e-6) for name in whole)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "stylegan1"])
def test_a_mixed_layer_is_wholly_the_others(architecture: str) -> None:
    generator = tiny_generator(architecture=architecture)
    a, b = tuned_latent(generator, 1), tuned_latent(generator, 2)
    last = generator.num_ws - 1
    all_of_b = mixed(generator, a, b, (0, last))
    assert torch.equal(all_of_b.render(generator), b.render(generator))
    assert all_of_b.crop == b.crop

    coarse = mixed(generator, a, b, (0, 1))
    assert coarse.crop == a.crop
    assert coarse.noise is not None
    assert a.noise is not None
    assert b.noise is not None
    assert [torch.equal(x, y) for x, y in zip(coarse.noise, b.noise, strict=True)] == [
        row <= 1 for row in range(len(b.noise))
    ]
    found, one, two = expand_deltas(coarse.tuned), expand_deltas(a.tuned), expand_deltas(b.tuned)
    assert torch.equal(found["b4.conv1.weight"], two["b4.conv1.weight"])
    assert torch.equal(found["b16.conv1.weight"], one["b16.conv1.weight"])
    assert found.keys() == one.keys()
    assert torch.equal(
        mixed(generator, b, a, (2, last)).render(generator), coarse.render(generator)
    )


def test_what_was_found_for_one_w_does_not_stay() -> None:
    generator = tiny_generator()
    a, b = tuned_latent(generator, 1), tuned_latent(generator, 2)
    for latent in (interpolated(generator, a, b, 0.5), mixed(generator, a, b, (0, 1))):
        assert latent.settings == {"edits": ["turn=1"]}
        assert latent.distances == {}
    with pytest.raises(Error, match="style offsets only fit their own w"):
        mixed(generator, a, replace(b, styles=[torch.zeros(1, 4)]), (0, 1))


def test_commands(tmp_path: Path, tiny_file: Path) -> None:
    """The first and last pictures of a strip are those of the two latents; an exported latent tells
    what it loses."""
    from latentedit.formats.load_model import load_generator

    generator = load_generator(tiny_file)
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for seed, file in enumerate(files, 1):
        save_latent(file, tuned_latent(generator, seed))
    common = ("--model", tiny_file, "--out")
    works("mix", *files, "--layers", "all", *common, tmp_path / "all.safetensors")
    assert torch.equal(
        load_latent(tmp_path / "all.safetensors").render(generator),
        load_latent(files[1]).render(generator),
    )
    works("interpolate", *files, "--count", "2", *common, tmp_path / "strip.png")

    whole = replace(load_latent(files[0]), crop_hash="0" * 128, safe={"smile": (-1.0, 1.0)})
    whole.source = {"name": "me.jpg", "sha256": "0" * 64}
    save_latent(tmp_path / "whole.safetensors", whole)
    told = works("latent", "export", tmp_path / "whole.safetensors", "--out", tmp_path / "w.npz")
    assert [line.removeprefix("left out: ") for line in told.stderr.splitlines()] == [
        "the generator's tuning to the photo",
        "the noise maps",
        "the generator's fingerprint",
        "the position of the crop in the photo",
        "the hash of the crop",
        "the photo's name and SHA-256",
        "the safe amounts of sliders",
        "settings and distances",
        '"latentedit latent bake" writes the tuned generator as a model of its own',
    ]
    # What a later version adds to latents must be named here too.
    stored = {field.name for field in fields(Latent)} - {"ws", "space"}
    assert len(stored) == 10, "is the new field named by latentedit.formats.projections.lost?"
    assert np.load(tmp_path / "w.npz")["w"].shape == (1, generator.num_ws, 12)


def test_a_seed_is_not_believed_after_an_edit(tmp_path: Path, tiny_file: Path) -> None:
    """The z of an edited sample is unknown, whatever seed it began with."""
    table = ["file,hat"]
    for seed in range(4):
        works("sample", tiny_file, "--seeds", seed, "--out", tmp_path / f"{seed}.safetensors")
        latent = load_latent(tmp_path / f"{seed}.safetensors")
        latent.settings["edits"] = ["turn=1"]
        save_latent(tmp_path / f"{seed}.safetensors", latent)
        table.append(f"{seed}.safetensors,{seed % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(table))
    fit = (
        "directions",
        "fit",
        tmp_path / "labels.csv",
        "--column",
        "hat",
        "--space",
        "z",
        "--model",
        tiny_file,
    )
    result = run(*fit, "--out", tmp_path / "d.safetensors")
    assert result.exit_code == 1
    assert "its z is unknown" in result.stderr.splitlines()[-1]
