"""The parts of the search: quasi-Newton steps, curvature, whitening, the critic."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.inversion.latent_discriminator import Critic
from latentedit.inversion.lbfgs import QuasiNewton
from latentedit.inversion.noise_regulariser import noise_regulariser, whiten
from latentedit.inversion.perceptual import DiscriminatorDistance
from latentedit.inversion.preconditioner import PSI, Curvature, curvature_file, sample_rows
from latentedit.inversion.projector import invert
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.latent.latent_file import save_latent
from latentedit.latent.w_statistics import WStatistics
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from tests.helpers import tiny_discriminator, tiny_generator


def minimise(loss: "Loss", start: Tensor, steps: int) -> QuasiNewton:
    minimiser = QuasiNewton(start)
    for _ in range(steps):
        x = minimiser.point.requires_grad_()
        value = loss(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        minimiser.tell(value.detach(), gradient)
    return minimiser


class Loss:
    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Quadratic(Loss):
    """Quadratic losses of N problems with their own minima and second derivatives between 1 and
    100."""

    def __init__(self, n: int = 3, size: int = 12) -> None:
        torch.manual_seed(0)
        self.minimum = torch.randn(n, size, dtype=torch.float64)
        self.scales = torch.logspace(0, 2, size, dtype=torch.float64)

    def __call__(self, x: Tensor) -> Tensor:
        return ((x - self.minimum).square() * self.scales).sum(dim=1) / 2


class Valley(Loss):
    """Rosenbrock's, with second derivatives of a moderate size."""

    def __call__(self, x: Tensor) -> Tensor:
        return (1 - x[:, 0]).square() + 2 * (x[:, 1] - x[:, 0].square()).square()


def test_quasi_newton_finds_minima() -> None:
    quadratic = Quadratic()
    found = minimise(quadratic, torch.zeros(3, 12, dtype=torch.float64), 60)
    torch.testing.assert_close(found.best, quadratic.minimum, atol=1e-5, rtol=0)
    starts = torch.tensor([[-1.2, 1.0], [0.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(
        minimise(Valley(), starts, 120).best,
        torch.ones(2, 2, dtype=torch.float64),
        atol=1e-4,
        rtol=0,
    )


def test_quasi_newton_never_gets_worse_and_problems_are_apart() -> None:
    valley = Valley()
    minimiser = QuasiNewton(torch.tensor([[-1.2, 1.0], [2.0, -3.0]]))
    losses = []
    for _ in range(30):
        x = minimiser.point.requires_grad_()
        value = valley(x)
        minimiser.tell(value.detach(), torch.autograd.grad(value.sum(), x)[0])
        losses.append(minimiser.loss)
    fell = torch.stack(losses).diff(dim=0)
    assert bool((fell <= 0).all())
    other = minimise(valley, torch.tensor([[-1.2, 1.0], [5.0, 5.0]]), 30)
    assert torch.equal(other.best[0], minimiser.best[0])
    assert not torch.equal(other.best[1], minimiser.best[1])


def test_quasi_newton_survives_what_is_no_number() -> None:
    class Cliff(Loss):
        def __call__(self, x: Tensor) -> Tensor:
            return (x - 0.5).square().sum(dim=1).masked_fill(x[:, 0] > 0.7, torch.nan)

    found = minimise(Cliff(), torch.full((2, 3), -2.0), 60)
    assert float(found.loss.max()) < 1e-6


@pytest.fixture(scope="module")
def parts() -> tuple[Generator, DiscriminatorDistance, WStatistics]:
    generator = tiny_generator()
    return generator, DiscriminatorDistance(tiny_discriminator()), WStatistics.of(generator)


def test_curvature_is_the_mean_of_the_squared_derivative(
    parts: tuple[Generator, DiscriminatorDistance, WStatistics],
) -> None:
    generator, perceptual, statistics = parts
    measured = Curvature.of(generator, ReconstructionLoss(perceptual), statistics, 2000, seed=1)
    factors = measured.factors.flatten(1)
    estimated = factors.T @ factors
    exact = torch.zeros_like(estimated)
    rows = PSI * sample_rows(generator, statistics, 12, torch.Generator().manual_seed(5))

    def pictures(u: Tensor) -> Tensor:
        image = generator.synthesis(statistics.mean + u @ statistics.colouring)
        pixels = image.flatten(1) / image[0].numel() ** 0.5
        return torch.cat([perceptual.features(image), pixels], dim=1)

    for u in rows:
        steps = 1e-2 * torch.eye(u.numel()).reshape(-1, *u.shape)
        derivative = (pictures(u + steps) - pictures(u - steps)) / 2e-2
        exact += derivative @ derivative.T / len(rows)
    assert float((estimated - exact).norm() / exact.norm()) < 0.25
    assert float(estimated.trace()) == pytest.approx(float(exact.trace()), rel=0.1)


def test_scaling_makes_the_loss_equally_steep(
    parts: tuple[Generator, DiscriminatorDistance, WStatistics],
) -> None:
    generator, perceptual, statistics = parts
    curvature = Curvature.of(generator, ReconstructionLoss(perceptual), statistics, 64)
    for rows in (1, generator.num_ws):
        scaling = curvature.scaling(rows, prior=0.01)
        v = torch.randn(2, rows * generator.w_dim)
        torch.testing.assert_close(scaling.inverse(scaling(v)), v, atol=1e-3, rtol=1e-3)
        factors = curvature.factors.sum(dim=1) if rows == 1 else curvature.factors.flatten(1)
        matrix = scaling(torch.eye(v.shape[1]))
        steepness = torch.linalg.eigvalsh(matrix @ (2 * factors.T @ factors) @ matrix)
        assert float(steepness.max()) <= 1 + 1e-3
        assert float(steepness.max()) > 0.9


def test_curvature_is_measured_once(
    parts: tuple[Generator, DiscriminatorDistance, WStatistics],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path))
    generator, perceptual, statistics = parts
    loss = ReconstructionLoss(perceptual)
    seen: list[int] = []
    first = Curvature.cached(generator, loss, statistics, "f" * 64, progress=seen.append)
    assert seen[-1] == 64
    assert curvature_file("f" * 64, loss).is_file()
    again = Curvature.cached(
        generator, loss, statistics, "f" * 64, progress=lambda _: pytest.fail("measured again")
    )
    assert torch.equal(first.factors, again.factors)
    curvature_file("f" * 64, loss).write_bytes(b"broken")
    assert torch.equal(
        Curvature.cached(generator, loss, statistics, "f" * 64).factors, first.factors
    )


def test_whitening_leaves_nothing_to_the_regulariser() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 1, side, side) for side in (8, 16, 64)]
    maps[2] += 0.3 * maps[2].roll(1, dims=2)
    before = noise_regulariser(maps)
    first = [map_.clone() for map_ in maps]
    whiten(maps, 30)
    assert float(noise_regulariser(maps).max()) < 1e-5 < float(before.min()) / 100
    for map_, old in zip(maps, first, strict=True):
        torch.testing.assert_close(map_.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            map_.square().mean(dim=(1, 2, 3)), torch.ones(2), atol=1e-4, rtol=0
        )
        assert float((map_ * old).mean()) > 0.8  # still the same noise


def test_critic_knows_the_models_own_w() -> None:
    generator = tiny_generator(mapping_layers=8)
    statistics = WStatistics.of(generator)
    critic = Critic(generator, statistics)
    own = sample_rows(generator, statistics, 200, torch.Generator().manual_seed(3), 0.0, 0.0)
    normal = torch.randn(own[:, :1].shape, generator=torch.Generator().manual_seed(4)).expand_as(
        own
    )
    assert float(critic.penalty(own).mean()) < 0.7 * float(critic.penalty(normal).mean())
    again = Critic(generator, statistics)
    assert torch.equal(again.penalty(own), critic.penalty(own))


def test_adversarial_weight_keeps_w_among_the_models_own() -> None:
    generator, discriminator = tiny_generator(mapping_layers=8), tiny_discriminator()
    statistics = WStatistics.of(generator)
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    critic = Critic(generator, statistics)
    penalties = []
    for weight in (0.0, 0.3):
        found = invert(
            generator,
            image,
            steps=40,
            discriminator=discriminator,
            noise="frozen",
            prior_weight=1e-6,
            adversarial_weight=weight,
        )
        penalties.append(float(critic.penalty((found.ws - statistics.mean) @ statistics.whitening)))
    assert penalties[1] < 0.7 * penalties[0]


def test_beats_the_published_search_in_a_fraction_of_its_steps() -> None:
    shape = {"resolution": 32, "channels": 3}
    generator, discriminator = tiny_generator(**shape), tiny_discriminator(**shape)
    z = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        target = generator(z, noise="random") * 0.9
    loss: dict[str, Any] = {
        "discriminator": discriminator,
        "pixel_weight": 1.0,
        "prior_weight": 0.01,
    }
    ours = invert(generator, target, "w", 40, **loss)
    theirs = invert(generator, target, "w", 160, method="adam", **loss)
    for a, b in zip(ours.distances, theirs.distances, strict=True):
        assert a["perceptual_own_noise"] < 0.8 * b["perceptual_own_noise"]
        assert a["psnr"] > b["psnr"]
    assert float(noise_regulariser(ours.noise).max()) * 1e5 < 1


def test_style_space_comes_nearer_and_survives_its_file(tmp_path: Path) -> None:
    generator, discriminator = tiny_generator(), tiny_discriminator()
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    options = {"discriminator": discriminator, "noise": "frozen"}
    plus = invert(generator, image, "w+", 30, **options)  # type: ignore[arg-type]
    styles = invert(generator, image, "s", 60, **options)  # type: ignore[arg-type]
    for index in range(2):
        assert styles.distances[index]["perceptual"] < plus.distances[index]["perceptual"]
    assert [offset.shape[1] for offset in styles.styles] == [
        s.shape[1] for s in generator.synthesis.styles(styles.ws)
    ]
    path = tmp_path / "s.safetensors"
    save_latent(path, styles.latent(1))
    again = load_latent(path)
    assert again.space == "s"
    assert torch.equal(again.render(generator), styles.image[1:])
    with pytest.raises(Error, match="style offsets do not fit"):
        again.render(tiny_generator(channel_max=8))


def test_starts_where_it_is_told() -> None:
    generator, discriminator = tiny_generator(), tiny_discriminator()
    ws = generator.mapping(
        torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(1))
    )
    image = generator.synthesis(ws)
    untouched = invert(generator, image, "w+", 0, discriminator=discriminator, start=ws)
    assert torch.equal(untouched.ws, ws)
    assert untouched.distances[0]["psnr"] > 100
    assert untouched.fingerprint == fingerprint(generator)
    moved = invert(generator, image, "w+", 3, discriminator=discriminator, start=ws)
    assert moved.distances[0]["psnr_own_noise"] > 35
    with pytest.raises(Error, match=r"start must have shape \[2, 6, 12\], got \[1, 6, 12\]"):
        invert(generator, image, discriminator=discriminator, start=ws[:1])
    with pytest.raises(Error, match="steps must be at least 1, got 0"):
        invert(generator, image, steps=0, discriminator=discriminator)
