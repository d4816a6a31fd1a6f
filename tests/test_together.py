"""One generator tuned to several photos."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from latentedit.album.index import Index
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.inversion.perceptual import DiscriminatorDistance
from latentedit.inversion.pivotal_tuning import TuningOptions, tune, tune_together
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.inversion.result import psnr
from latentedit.latent.deltas import expand_deltas, same_difference, with_deltas
from tests.helpers import complaint, run, tiny_discriminator, tiny_generator, works


def case() -> tuple[Any, ReconstructionLoss, Tensor, Tensor]:
    generator = tiny_generator()
    loss = ReconstructionLoss(DiscriminatorDistance(tiny_discriminator()))
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        ws = generator.mapping(torch.randn(2, 12, generator=random))
        others = generator.mapping(torch.randn(2, 12, generator=random))
        return generator, loss, generator.synthesis(others).clamp(-1, 1), ws


def test_one_difference_serves_both_images() -> None:
    generator, loss, images, ws = case()
    options = TuningOptions(80, learning_rate=3e-3)
    found = tune_together(generator, images, ws, None, loss, options)
    assert found[0].stored is found[1].stored
    moved = with_deltas(generator, expand_deltas(found[0].stored))
    for number, one in enumerate(found):
        part = slice(number, number + 1)
        with torch.no_grad():
            picture = moved.synthesis(ws[part])
        assert float(psnr(picture, images[part])) == pytest.approx(one.after["psnr"], abs=1e-2)
        assert one.after["psnr"] > one.before["psnr"] + 1
        assert one.loss_db >= 45
        # What is for one image alone does it better, and leaves the other behind.
        alone = tune(generator, images[part], ws[part], None, loss, options)
        assert alone.after["psnr"] > one.after["psnr"]
        other = slice(1 - number, 2 - number)
        with torch.no_grad():
            picture = with_deltas(generator, alone.deltas).synthesis(ws[other])
        assert float(psnr(picture, images[other])) < found[1 - number].after["psnr"]


def test_of_one_image_it_is_the_tuning_of_one() -> None:
    generator, loss, images, ws = case()
    noise = [torch.randn(2, 1, *shape[2:]) for shape in generator.synthesis.noise_shapes]
    options = TuningOptions(3)
    first = [map_[:1] for map_ in noise]
    one = tune(generator, images[:1], ws[:1], first, loss, options)
    same = tune_together(generator, images[:1], ws[:1], noise, loss, options)[0]
    assert same_difference(one.stored, same.stored)
    with pytest.raises(Error, match="one latent for every image, got 2 images and 1 latents"):
        tune_together(generator, images, ws[:1], None, loss, options)


def test_the_gradient_is_the_sum_over_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of plain gradient descent with two images goes as far as one with each."""
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    monkeypatch.setattr("latentedit.inversion.pivotal_tuning.RANKS", ())
    generator, loss, images, ws = case()
    options = TuningOptions(1, learning_rate=1.0, locality_weight=0)
    both = tune_together(generator, images, ws, None, loss, options)[0].deltas
    first = tune(generator, images[:1], ws[:1], None, loss, options).deltas
    second = tune(generator, images[1:], ws[1:], None, loss, options).deltas
    for name, delta in both.items():
        expected = first[name] + second[name]
        assert torch.allclose(delta, expected, atol=2e-3 * float(expected.abs().max()) + 1e-9), name


def draw(folder: Path, *numbers: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        picture = Image.linear_gradient("L").rotate(50 * number).resize((16, 16))
        picture.save(folder / f"{number}.png")


def test_an_album_of_one_generator(tmp_path: Path, tiny_file: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "family"
    draw(photos, 0, 1)
    command = ("invert", photos, "--model", tiny_file, "--aligned", "--steps", "4", "--out", out)
    together = ("--tune", "--together", "--tune-steps", "15")
    told = works(*command, *together).stdout
    assert told.count("the generator is tuned to 2 photos") == 2
    latents = [load_latent(out / f"{number}.safetensors") for number in range(2)]
    assert same_difference(latents[0].tuned, latents[1].tuned)
    assert latents[0].tuned
    groups = [latent.settings["tune_together"] for latent in latents]
    assert groups[0] == groups[1]
    assert groups[0]["photos"] == 2
    for latent in latents:
        assert latent.distances["psnr_tuned"] > latent.distances["psnr"]
    rows = Index(out).rows
    assert [rows[f"{number}.safetensors"]["status"] for number in range(2)] == ["ok", "ok"]
    assert float(rows["0.safetensors"]["psnr"]) > 0

    # Again: nothing to do.
    before = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    result = works(*command, *together)
    assert result.stderr.count("already done") == 2
    assert "wrote" not in result.stdout
    assert all((out / name).read_bytes() == data for name, data in before.items())

    # With a photo more, that one is searched for; the other pivots stay, the tuning is new.
    draw(photos, 2)
    lines = works(*command, *together, "--json").stdout.splitlines()
    facts = [json.loads(line) for line in lines if line.startswith("{")]
    status = [fact["status"] for fact in facts if fact["latent"] == "0.safetensors"]
    assert status == ["done before", "ok"]
    assert [fact["latent"] for fact in facts].count("2.safetensors") == 2
    three = [load_latent(out / f"{number}.safetensors") for number in range(3)]
    assert torch.equal(three[0].ws, latents[0].ws)
    assert not same_difference(three[0].tuned, latents[0].tuned)
    assert all(same_difference(three[0].tuned, latent.tuned) for latent in three[1:])

    # All go into one model.
    files = [out / f"{number}.safetensors" for number in range(3)]
    works("latent", "bake", *files, "--model", tiny_file, "--out", tmp_path / "model.safetensors")
    # Without the tuning, the photos are to be done anew.
    assert "already done" not in works(*command, "--no-tune").stderr
    assert not load_latent(files[0]).tuned


def test_a_photo_that_fails_is_left_out(tmp_path: Path, tiny_file: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "family"
    draw(photos, 0, 1)
    (photos / "2.png").write_bytes(b"no picture")
    command = ("invert", photos, "--model", tiny_file, "--aligned", "--steps", "2", "--out", out)
    result = run(*command, "--tune", "--together", "--tune-steps", "2")
    assert result.exit_code == 1
    assert "2.png" in result.stderr
    assert load_latent(out / "0.safetensors").settings["tune_together"]["photos"] == 2


def test_wrong_options(tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "photos", 0, 1)
    start = ("invert", tmp_path / "photos", "--model", tiny_file, "--aligned", "--steps", "2")
    command = (*start, "--out", tmp_path / "out")
    assert "--together needs --tune" in complaint(*command, "--together")
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = complaint(*command, "--tune", "--together")
    assert "one generator is tuned to all photos in one process, not several" in said
