"""Pivotal tuning: nearer to the photo, elsewhere as before, and small in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_generator
from latentedit.inversion.perceptual import DiscriminatorDistance
from latentedit.inversion.pivotal_tuning import TuningOptions, tune
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.inversion.result import psnr
from latentedit.io.images import load_image
from latentedit.latent.deltas import compress_deltas, expand_deltas, with_deltas
from tests.helpers import tiny_discriminator, tiny_generator, works


def case() -> tuple[Any, ReconstructionLoss, Tensor, Tensor]:
    generator, loss = (
        tiny_generator(),
        ReconstructionLoss(DiscriminatorDistance(tiny_discriminator())),
    )
    with torch.no_grad():
        ws = generator.mapping(torch.randn(1, 12, generator=torch.Generator().manual_seed(3)))
        other = generator.mapping(torch.randn(1, 12, generator=torch.Generator().manual_seed(5)))
        return generator, loss, generator.synthesis(other).clamp(-1, 1), ws


def test_comes_nearer_and_is_stored_small() -> None:
    generator, loss, image, ws = case()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    found = tune(generator, image, ws, None, loss, TuningOptions(80, learning_rate=3e-3))
    assert found.after["psnr"] > found.before["psnr"] + 3
    assert found.after["perceptual"] < found.before["perceptual"]
    assert found.loss_db >= 45
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    with torch.no_grad():
        again = with_deltas(generator, expand_deltas(found.stored)).synthesis(ws)
    assert float(psnr(again, image)) == pytest.approx(found.after["psnr"], abs=1e-2)
    stored = sum(tensor.numel() * tensor.element_size() for tensor in found.stored.values())
    whole = sum(tensor.numel() * tensor.element_size() for tensor in found.deltas.values())
    assert stored <= whole / 2
    assert all(tensor.dtype == torch.float16 for tensor in found.stored.values())


def test_locality_keeps_other_pictures() -> None:
    generator, loss, image, ws = case()
    with torch.no_grad():
        far = generator.mapping(torch.randn(8, 12, generator=torch.Generator().manual_seed(8)))

    def changed(weight: float) -> float:
        options = TuningOptions(60, learning_rate=3e-3, locality_weight=weight)
        found = tune(generator, image, ws, None, loss, options)
        with torch.no_grad():
            return float(
                (with_deltas(generator, found.deltas).synthesis(far) - generator.synthesis(far))
                .square()
                .mean()
            )

    assert changed(3.0) < changed(0.0)


def test_products_of_thin_matrices() -> None:
    torch.manual_seed(0)
    thin = (torch.randn(16, 2) @ torch.randn(2, 16 * 9)).reshape(16, 16, 3, 3)
    stored = compress_deltas({"b8.conv0.weight": thin, "b8.conv0.bias": torch.randn(16)}, 2)
    assert set(stored) == {"b8.conv0.weight/u", "b8.conv0.weight/v", "b8.conv0.bias"}
    assert stored["b8.conv0.weight/v"].shape == (2, 16, 3, 3)
    assert torch.allclose(expand_deltas(stored)["b8.conv0.weight"], thin, atol=2e-2)
    assert set(compress_deltas({"b8.conv0.weight": thin}, None)) == {"b8.conv0.weight"}
    # no smaller as a product
    assert set(compress_deltas({"b8.conv0.weight": thin}, 16)) == {"b8.conv0.weight"}


def test_what_does_not_fit() -> None:
    generator, loss, image, ws = case()
    with pytest.raises(Error, match="does not fit this generator"):
        with_deltas(generator, {"b8.conv9.weight": torch.zeros(1)})
    with pytest.raises(Error, match="does not fit this generator"):
        with_deltas(generator, {"b8.conv0.bias": torch.zeros(3)})
    with pytest.raises(Error, match="is incomplete"):
        expand_deltas({"b8.conv0.weight/u": torch.zeros(3, 2)})
    with pytest.raises(Error, match="tuned to one image at a time"):
        tune(generator, image.repeat(2, 1, 1, 1), ws, None, loss)
    with pytest.raises(Error, match="steps must be at least 1"):
        TuningOptions(0)


def test_from_photo_to_edit(tmp_path: Path, tiny_file: Path) -> None:
    y, x = np.mgrid[0:16, 0:16]
    Image.fromarray((128 + 100 * np.sin(x / 3) * np.cos(y / 4)).astype(np.uint8)).save(
        tmp_path / "me.png"
    )
    arguments = ("invert", tmp_path / "me.png", "--model", tiny_file, "--aligned", "--steps", "20")
    works(*arguments, "--out", tmp_path / "plain")
    told = works(*arguments, "--tune", "--tune-steps", "60", "--out", tmp_path / "tuned").stdout
    assert "me.png: PSNR after tuning" in told
    latent = load_latent(tmp_path / "tuned" / "me.safetensors")
    assert latent.tuned
    assert latent.distances["psnr_tuned"] > latent.distances["psnr"]
    target = load_image(tmp_path / "me.png", channels=1)
    near, far = (load_image(tmp_path / name / "me.png", channels=1) for name in ("tuned", "plain"))
    assert float(psnr(near, target)) > float(psnr(far, target))
    generator = load_generator(tiny_file)
    w = torch.randn(200, 12)
    from latentedit.directions import fit

    fit(w, (w[:, 0] > 0).numpy(), generator=generator, name="x").save(tmp_path / "x.safetensors")
    edit = (
        "edit",
        tmp_path / "tuned" / "me.safetensors",
        "--model",
        tiny_file,
        "--set",
        f"{tmp_path / 'x.safetensors'}=1",
    )
    works(*edit, "--out", tmp_path / "edited.safetensors")
    works(*edit, "--out", tmp_path / "edited.png")
    edited = load_latent(tmp_path / "edited.safetensors")
    assert edited.tuned.keys() == latent.tuned.keys()
    again = edited.render(generator).clamp(-1, 1)
    assert float((again - load_image(tmp_path / "edited.png", channels=1)).abs().max()) < 0.01
