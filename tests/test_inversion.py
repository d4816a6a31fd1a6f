"""The projector: what it optimises, what it reports, what it keeps."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.inversion.noise_regulariser import noise_regulariser
from latentedit.inversion.perceptual import DiscriminatorDistance, LpipsDistance, choose, distance
from latentedit.inversion.projector import Inversion, invert, psnr
from latentedit.inversion.search import schedule
from latentedit.latent.latent_file import save_latent
from latentedit.latent.w_statistics import WStatistics, sample_w
from latentedit.model.model import Model
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from latentedit.runtime.torchvision_stubs import import_with_torchvision
from tests.helpers import tiny_discriminator, tiny_generator


def pictures(generator: Generator, count: int) -> torch.Tensor:
    torch.manual_seed(7)
    image: torch.Tensor = generator.synthesis(
        generator.mapping(torch.randn(count, generator.z_dim))
    )
    return image


def test_noise_regulariser_in_closed_form() -> None:
    # Columns alternate: correlation -1 along x, +1 along y at the finest level; averaged 2 x 2
    # nothing is left.
    stripes = torch.ones(1, 1, 16, 16)
    stripes[..., 1::2] = -1
    assert float(noise_regulariser([stripes])) == pytest.approx(2.0)
    # A constant map of 16 x 16: 1 + 1 there, and at 8 x 8 its value is doubled: 4 * 4 squared,
    # twice.
    assert float(noise_regulariser([torch.ones(1, 1, 16, 16)])) == pytest.approx(2 + 2 * 16)
    assert float(noise_regulariser([torch.ones(1, 1, 4, 4)])) == pytest.approx(2)


def test_white_noise_keeps_its_variance_down_the_pyramid() -> None:
    torch.manual_seed(0)
    white = torch.randn(4, 1, 64, 64)
    assert noise_regulariser([white]).shape == (4,)
    assert float(noise_regulariser([white]).max()) < 0.2


def test_schedule() -> None:
    assert schedule(0.0) == 0
    assert schedule(0.025) == pytest.approx(0.5)
    assert schedule(0.5) == pytest.approx(1)
    assert schedule(0.875) == pytest.approx(0.5)
    assert schedule(1 - 1e-9) == pytest.approx(0, abs=1e-6)


def test_psnr() -> None:
    assert float(psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.2))) == pytest.approx(20)


def test_finds_what_the_generator_drew() -> None:
    shape = {"resolution": 32, "channels": 3}
    generator, discriminator = tiny_generator(**shape), tiny_discriminator(**shape)
    target = pictures(generator, 1)
    result = invert(generator, target, "w", 150, discriminator=discriminator)
    start = psnr(
        generator.synthesis(WStatistics.of(generator).mean.expand(1, generator.num_ws, -1)), target
    )
    assert result.distances[0]["psnr_own_noise"] > float(start) + 5
    assert bool((result.ws == result.ws[:, :1]).all())
    assert result.history["perceptual"].shape == (150, 1)
    assert float(result.history["perceptual"][-1]) < 0.5 * float(result.history["perceptual"][0])
    for map_ in result.noise:
        assert float(map_.mean()) == pytest.approx(0, abs=1e-4)
        assert float(map_.square().mean()) == pytest.approx(1, abs=1e-3)


def test_finds_what_the_bundled_model_drew(faces128: Model) -> None:
    """A few steps on a trained network, whose pictures answer to w otherwise than those of random
    weights."""
    generator = faces128.generator
    target = pictures(generator, 1)
    mean = WStatistics.of(generator).mean.expand(1, generator.num_ws, -1)
    result = invert(
        generator,
        target,
        "w",
        12,
        discriminator=faces128.discriminator,
        curvature=faces128.curvature,
        start=mean,
    )
    assert (
        result.distances[0]["psnr_own_noise"] > float(psnr(generator.synthesis(mean), target)) + 2
    )


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    generator, discriminator = tiny_generator(), tiny_discriminator()
    targets = pictures(generator, 3)
    together = invert(generator, targets, "w+", 5, discriminator=discriminator)
    other = torch.cat([targets[:1], -targets[1:]])
    assert torch.equal(
        together.ws[0], invert(generator, other, "w+", 5, discriminator=discriminator).ws[0]
    )
    alone = invert(generator, targets[:1], "w+", 5, discriminator=discriminator)
    torch.testing.assert_close(alone.ws[0], together.ws[0], atol=1e-3, rtol=1e-3)


def test_a_seed_repeats() -> None:
    generator, discriminator = tiny_generator(), tiny_discriminator()
    target = pictures(generator, 1)
    runs = [
        invert(generator, target, "w+", 5, method="adam", discriminator=discriminator, seed=seed)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(runs[0].image, runs[1].image)
    assert not torch.equal(runs[0].image, runs[2].image)


def test_latent_file_renders_the_same_bytes(tmp_path: Path) -> None:
    generator, discriminator = tiny_generator(), tiny_discriminator()
    result = invert(generator, pictures(generator, 2), "w+", 4, discriminator=discriminator)
    for index in range(2):
        latent = result.latent(index)
        latent.crop = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
        save_latent(tmp_path / "l.safetensors", latent)
        again = load_latent(tmp_path / "l.safetensors")
        assert torch.equal(again.render(generator)[0], result.image[index])
        assert (again.crop, again.space, again.source) == (latent.crop, "w+", None)
        assert again.fingerprint == fingerprint(generator)
        assert again.distances == result.distances[index]
    with pytest.raises(Error, match="holds 2 images"):
        result.save(tmp_path / "both.safetensors")


def test_statistics_of_w() -> None:
    generator = tiny_generator()
    statistics, w = WStatistics.of(generator), sample_w(generator)
    assert statistics.std == pytest.approx(
        float((w - w.mean(0)).square().sum(1).mean().sqrt()), rel=1e-4
    )
    distances = statistics.distance(w[:, None].expand(-1, 2, -1))
    assert float(distances.square().mean()) == pytest.approx(1, abs=0.01)
    assert statistics.percentile(float(distances.median())) == pytest.approx(50, abs=1)
    assert float(statistics.distance(statistics.mean[None, None])) == 0


def test_arguments_are_checked() -> None:
    generator, discriminator = tiny_generator(), tiny_discriminator()
    image = torch.zeros(1, 1, 16, 16)
    with pytest.raises(Error, match=r"shape \[N, 1, 16, 16\], got \[1, 3, 16, 16\]"):
        invert(generator, torch.zeros(1, 3, 16, 16), discriminator=discriminator)
    with pytest.raises(Error, match='space must be "w", "w\\+" or "s", got \'z\''):
        invert(generator, image, "z", discriminator=discriminator)
    with pytest.raises(Error, match="steps must be at least 1"):
        invert(generator, image, steps=0, discriminator=discriminator)


def test_choice_of_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("latentedit.inversion.perceptual.stlpips_file", lambda network="alex": None)
    discriminator = tiny_discriminator()
    measure, line = choose("auto", discriminator)
    assert measure.name == "discriminator"
    assert 'no vgg16-397923af.pth, which "latentedit model fetch vgg16" downloads' in line
    assert 'pip install "latentedit[perceptual]" adds a distance' in line
    assert "pip" not in choose("discriminator", discriminator)[1]
    with pytest.raises(
        Error, match=r"needs the package stlpips-pytorch .*latentedit\[perceptual\]"
    ):
        choose("stlpips", discriminator)
    with pytest.raises(Error, match="must be auto, lpips, stlpips or discriminator, got 'l2'"):
        choose("l2", discriminator)
    with pytest.raises(
        Error,
        match=r'needs vgg16-397923af.pth; "latentedit model fetch vgg16" downloads it \(528 MB\)',
    ):
        choose("lpips", discriminator)
    with pytest.raises(Error, match="gone.pth: no such file; LPIPS needs it; .*fetch vgg16"):
        choose("auto", discriminator, tmp_path / "gone.pth")
    with pytest.raises(Error, match="has no discriminator.*fetch vgg16"):
        choose("auto", None)
    wrong = tmp_path / "weights.pth"
    wrong.write_bytes(b"something else")
    with pytest.raises(
        Error,
        match="its SHA-256 is [0-9a-f]{64}, that of vgg16-397923af.pth is 397923af[0-9a-f]{56}",
    ):
        choose("auto", discriminator, wrong)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)
def test_lpips_agrees_with_its_package() -> None:
    torch.manual_seed(0)
    ours = LpipsDistance(None)
    a, b = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    expected = ours.network(a, b).flatten()  # the package's own forward pass
    torch.testing.assert_close(
        distance(ours.features(a), ours.features(b)), expected, rtol=1e-4, atol=1e-6
    )
    assert import_with_torchvision("lpips").LPIPS is type(ours.network)
    flat = torch.zeros(1, 1, 64, 64, requires_grad=True)
    distance(ours.features(flat), ours.features(b[:1])).sum().backward()
    assert flat.grad is not None
    assert math.isfinite(float(flat.grad.abs().sum()))


def test_discriminator_distance() -> None:
    measure = DiscriminatorDistance(tiny_discriminator())
    a = torch.randn(2, 1, 16, 16)
    features = measure.features(a)
    # unit vectors, averaged
    torch.testing.assert_close(features.square().sum(dim=1), torch.ones(2))
    assert distance(features, measure.features(a)).tolist() == [0, 0]


def test_prior_keeps_w_near_the_generators_own() -> None:
    shape = {"resolution": 32, "channels": 3}
    generator, discriminator = tiny_generator(**shape), tiny_discriminator(**shape)
    torch.manual_seed(1)
    foreign = torch.rand(1, 3, 32, 32) * 2 - 1
    near, far = (
        invert(
            generator, foreign, "w", 40, discriminator=discriminator, prior_weight=weight
        ).distances[0]
        for weight in (0.1, 0.0)
    )
    assert near["w_distance"] < 0.8 * far["w_distance"]


def small_case() -> tuple[Generator, Discriminator, Tensor]:
    generator, discriminator = tiny_generator(), tiny_discriminator()
    with torch.no_grad():
        ws = generator.mapping(torch.randn(2, 12, generator=torch.Generator().manual_seed(4)))
        return generator, discriminator, generator.synthesis(ws)


def test_noise_frozen_and_off() -> None:
    generator, discriminator, image = small_case()
    frozen = invert(generator, image, steps=5, discriminator=discriminator, noise="frozen")
    own: list[Any] = [layer.noise_const for layer in generator.synthesis.layers]
    assert all(
        torch.equal(found[0, 0], map_) for found, map_ in zip(frozen.noise, own, strict=True)
    )
    assert torch.equal(frozen.image, frozen.image_own_noise)
    off = invert(generator, image, steps=5, discriminator=discriminator, noise="off")
    assert all(float(m.abs().max()) == 0 for m in off.noise)
    with torch.no_grad():
        assert torch.allclose(
            off.image[:1], generator.synthesis(off.ws[:1], noise="none"), atol=1e-6
        )


def test_the_best_of_every_picture_counts() -> None:
    """More searches never make a picture's loss worse, and each picture takes the search that suits
    it."""
    generator, discriminator, image = small_case()
    options: dict[str, Any] = {
        "steps": 30,
        "discriminator": discriminator,
        "noise": "frozen",
        "space": "w",
    }
    alone = [invert(generator, image, seed=seed, **options) for seed in (0,)]
    three = invert(generator, image, restarts=2, **options)

    def loss(result: Inversion, index: int) -> float:
        away = result.distances[index]["w_distance"] ** 2 * 0.01
        pixel = float((result.image[index] - image[index]).square().mean())
        return result.distances[index]["perceptual"] + pixel + away

    for index in range(2):
        assert loss(three, index) <= loss(alone[0], index) + 1e-4
    assert len(three.history["pixel"]) == 90


def test_ends_on_a_plateau() -> None:
    generator, discriminator, image = small_case()
    seen: list[int] = []
    result = invert(
        generator,
        image,
        steps=400,
        patience=3,
        learning_rate=1e-7,
        initial_noise=0.0,
        discriminator=discriminator,
        method="adam",
        noise="frozen",
        progress=lambda step, *_: seen.append(step),
    )
    assert len(seen) < 20
    assert len(result.history["pixel"]) == len(seen)


def test_delta_weight_draws_w_plus_to_w() -> None:
    generator, discriminator, image = small_case()

    def spread(weight: float) -> float:
        found = invert(
            generator,
            image,
            "w+",
            steps=60,
            discriminator=discriminator,
            delta_weight=weight,
            prior_weight=0.0,
        )
        return float((found.ws - found.ws.mean(dim=1, keepdim=True)).square().sum())

    assert spread(10.0) < 0.2 * spread(0.0)


def test_ctrl_c_keeps_the_best_so_far() -> None:
    generator, discriminator, image = small_case()

    def press(step: int, *_: object) -> None:
        if step == 7:
            raise KeyboardInterrupt

    result = invert(generator, image, steps=100, discriminator=discriminator, progress=press)
    assert result.settings["interrupted"] is True
    assert len(result.history["pixel"]) == 7
    assert all(distance["psnr"] > 5 for distance in result.distances)
    with pytest.raises(KeyboardInterrupt):
        invert(
            generator,
            image,
            steps=100,
            discriminator=discriminator,
            perceptual=Interrupting(),
            progress=press,
        )


class Interrupting:
    """Ctrl-C before the first step is over."""

    name = "none"
    calls = 0

    def features(self, image: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 1:
            raise KeyboardInterrupt
        return image.flatten(1)


def test_masks() -> None:
    generator, discriminator, image = small_case()
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    spoiled = image.clone()
    spoiled[..., 8:] = 1.0
    result = invert(
        generator, spoiled, steps=40, discriminator=discriminator, mask=mask, noise="frozen"
    )
    plain = invert(generator, spoiled, steps=40, discriminator=discriminator, noise="frozen")

    def left(found: Inversion) -> float:
        return float((found.image - image)[..., :8].square().mean())

    assert left(result) < left(plain)
    with pytest.raises(
        Error, match=r"mask must have shape \[1 or 2, 1, 16, 16\], got \[3, 1, 16, 16\]"
    ):
        invert(
            generator, image, steps=1, discriminator=discriminator, mask=torch.zeros(3, 1, 16, 16)
        )
    with pytest.raises(Error, match='noise must be "optimise", "frozen" or "off"'):
        invert(generator, image, steps=1, discriminator=discriminator, noise="some")  # type: ignore[arg-type]
    with pytest.raises(Error, match="patience must be at least 1"):
        invert(generator, image, steps=1, discriminator=discriminator, patience=-1)
