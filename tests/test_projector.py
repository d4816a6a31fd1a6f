"""The projector: what it owns, what it makes once, what its options refuse, and how a search is
watched and stopped."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import latentedit
from latentedit.errors import Error
from latentedit.inversion.encoder import Encoder, EncoderConfig
from latentedit.inversion.options import InversionChoices, InversionOptions, ProjectorSettings
from latentedit.inversion.perceptual import DiscriminatorDistance
from latentedit.inversion.pivotal_tuning import TuningOptions
from latentedit.inversion.preconditioner import Curvature
from latentedit.inversion.projector import Projector, SearchStep, invert
from latentedit.latent.w_statistics import sample_z
from latentedit.model.model import Model
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.framing import FRAMINGS
from tests.helpers import tiny_discriminator, tiny_generator


@pytest.fixture(scope="module")
def model() -> Model:
    """With everything that a search can start from."""
    generator = tiny_generator()
    torch.manual_seed(2)
    encoder = Encoder(EncoderConfig.of(generator)).eval().requires_grad_(False)
    curvature = Curvature(torch.randn(5, generator.num_ws, generator.w_dim) / 4)
    return Model(
        generator, tiny_discriminator(), FRAMINGS["ffhq"], encoder=encoder, curvature=curvature
    )


@pytest.fixture(scope="module")
def image(model: Model) -> Tensor:
    with torch.no_grad():
        rows = model.generator.mapping(
            torch.randn(1, 12, generator=torch.Generator().manual_seed(4))
        )
        picture: Tensor = model.generator.synthesis(rows)
        return picture


RECORDED: list[tuple[dict[str, Any], list[float]]] = [
    ({"space": "w"}, [0.07616, 0.07616, 0.07616, -1.63586, -1.6688]),
    ({}, [-0.15116, 0.06711, -0.20413, -1.51448, -1.35839]),
    ({"space": "s"}, [-0.15116, 0.06711, -0.20413, -1.51448, -1.46517]),
    (
        {"method": "adam", "initial_noise": 0.2, "learning_rate": 0.05},
        [-0.2049, -0.27307, -0.30003, 2.97027, -1.92786],
    ),
    (
        {"restarts": 1, "patience": 2, "seed": 3, "noise": "frozen"},
        [0.01654, -0.00237, -0.32695, -1.52824, -1.56538],
    ),
    (
        {
            "delta_weight": 0.3,
            "adversarial_weight": 0.2,
            "prior_weight": 0.2,
            "noise_weight": 10.0,
            "pixel_weight": 2.0,
        },
        [-0.27039, -0.25691, -0.28439, -1.56553, -1.59801],
    ),
]
"""Choices, and of the result one number of every second layer of ws, one of a noise map and one
pixel. They were recorded before there was a `Projector`, when all searches were one function; the
same seeds gave the same bits then and after."""


@pytest.mark.parametrize(("choices", "expected"), RECORDED)
def test_the_same_seeds_give_the_same_latents(
    choices: dict[str, Any], expected: list[float], image: Tensor
) -> None:
    generator = tiny_generator()
    parts: dict[str, Any] = {"discriminator": tiny_discriminator(), "perceptual": "discriminator"}
    result = invert(generator, image, steps=4, **parts, **choices)
    found = [
        *result.ws[0, ::2, 3].tolist(),
        float(result.noise[-1][0, 0, 3, 4]),
        float(result.image[0, 0, 5, 6]),
    ]
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_model_is_inverted_with_its_encoder_its_preconditioner_and_its_face(
    model: Model, image: Tensor
) -> None:
    projector = Projector(model, ProjectorSettings("discriminator"))
    assert projector.curvature() is model.curvature
    assert projector.perceptual.name == "discriminator-face"
    options = InversionOptions(steps=0)
    assert torch.equal(projector.invert(image, options).ws, projector.encode(image))
    assert projector.invert(image, options).settings["started_from"] == "given w"

    shortly = latentedit.invert(model, image, steps=3, perceptual="discriminator")
    longly = projector.invert(image, InversionOptions(steps=3))
    assert torch.equal(shortly.ws, longly.ws)
    assert shortly.settings == longly.settings
    mean = projector.invert(image, InversionOptions(steps=3, init="mean"))
    assert "started_from" not in mean.settings
    assert not torch.equal(mean.ws, longly.ws)


def test_the_published_search_begins_at_the_mean_unless_asked(model: Model, image: Tensor) -> None:
    projector = Projector(model, ProjectorSettings("discriminator"))
    adam = InversionOptions(method="adam", steps=1)
    assert "started_from" not in projector.invert(image, adam).settings
    asked = InversionOptions(method="adam", steps=1, init="encoder")
    assert "started_from" in projector.invert(image, asked).settings


def test_parts_are_made_once(
    image: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one projector, and the preconditioner and the domain in the cache folder too."""
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path))
    bare = Model(tiny_generator(), tiny_discriminator())
    settings = ProjectorSettings("discriminator")
    first = Projector(bare, settings)
    assert not first.has_curvature()
    probes: list[int] = []
    found = first.curvature(progress=probes.append)
    assert probes[-1] == 64
    assert first.has_curvature()
    assert first.curvature() is found
    assert first.critic is first.critic
    assert first.statistics is first.statistics

    second = Projector(bare, settings)
    assert second.has_curvature()
    assert torch.equal(
        second.curvature(progress=lambda _: pytest.fail("measured again")).factors, found.factors
    )
    assert first.domain is not None
    with monkeypatch.context() as patch:
        patch.setattr(
            "latentedit.inversion.domain.Domain.of", lambda *_: pytest.fail("measured again")
        )
        assert second.domain is not None
    assert Projector(bare.generator).domain is None


def test_given_parts_are_used(model: Model, image: Tensor) -> None:
    curvature = Curvature(torch.ones(1, model.generator.num_ws, model.generator.w_dim))
    focus = torch.ones(1, 1, 16, 16)
    discriminator = tiny_discriminator(3)
    settings = ProjectorSettings(discriminator=discriminator, curvature=curvature, focus=focus)
    projector = Projector(model, settings)
    assert projector.curvature() is curvature
    assert projector.focus is focus
    assert projector.discriminator is discriminator
    with pytest.raises(Error, match=r"focus must have shape \[1, 1, 16, 16\], got \[1, 1, 8, 8\]"):
        Projector(model, ProjectorSettings(focus=torch.ones(1, 1, 8, 8))).invert(image)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"space": "z"}, 'space must be "w", "w\\+" or "s", got \'z\''),
        ({"method": "sgd"}, "method must be one of quasi-newton, adam, got 'sgd'"),
        ({"init": "random"}, 'init must be "auto", "mean" or "encoder", got \'random\''),
        ({"noise": "some"}, 'noise must be "optimise", "frozen" or "off", got \'some\''),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"steps": math.nan}, "steps must be a whole number, got nan"),
        ({"steps": 10**9}, "steps must be at most 10000000, got 1000000000"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"restarts": math.inf}, "restarts must be a whole number, got inf"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**32}, "seed must be at most 4294967295"),
        *(
            ({name: value}, f"{name} must be a finite number from 0, got {value}")
            for name in (
                "pixel_weight",
                "noise_weight",
                "prior_weight",
                "delta_weight",
                "adversarial_weight",
                "learning_rate",
                "initial_noise",
            )
            for value in (math.nan, math.inf, -1.0)
        ),
    ],
)
def test_options_refuse_by_name(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(Error, match=message):
        InversionOptions(**choices)


def test_settings_and_tuning_refuse_by_name(model: Model, image: Tensor) -> None:
    with pytest.raises(
        Error, match="perceptual distance must be auto, lpips, stlpips or discriminator, got 'l2'"
    ):
        ProjectorSettings("l2")
    wrong: list[dict[str, Any]] = [{"learning_rate": math.nan}, {"locality_weight": math.inf}]
    for choices in wrong:
        with pytest.raises(Error, match=f"{next(iter(choices))} must be a finite number from 0"):
            TuningOptions(**choices)
    with pytest.raises(Error, match="steps must be at least 1, got 0"):
        TuningOptions(0)
    bare = Projector(model.generator, ProjectorSettings(discriminator=model.discriminator))
    with pytest.raises(Error, match="the model has no encoder"):
        bare.invert(image, InversionOptions(init="encoder"))
    with pytest.raises(TypeError, match="unexpected keyword argument 'prior_wieght'"):
        invert(model, image, prior_wieght=1.0)  # type: ignore[call-arg]


def test_the_short_form_takes_every_field() -> None:
    options = {field.name for field in fields(InversionOptions)} - {"space", "steps", "seed"}
    settings = {field.name for field in fields(ProjectorSettings)}
    assert not options & settings
    assert set(InversionChoices.__annotations__) == options | settings | {"start", "mask"}


def test_a_search_is_watched_and_stopped(model: Model, image: Tensor) -> None:
    projector = Projector(model, ProjectorSettings("discriminator"))
    seen: list[tuple[int, int, float]] = []

    def watch(step: SearchStep) -> None:
        assert step.images.shape == image.shape
        assert not step.images.requires_grad
        seen.append((step.number, step.total, step.distance))
        if step.number == 4:
            step.stop()

    result = projector.invert(image, InversionOptions(steps=50), on_step=watch)
    assert [number for number, *_ in seen] == [1, 2, 3, 4]
    assert {total for _, total, _ in seen} == {50}
    assert result.interrupted
    assert result.history["perceptual"][:, 0].tolist() == pytest.approx(
        [distance for *_, distance in seen]
    )
    # The best of the four, with the generator's own noise, which the search had not reached.
    assert result.distances[0]["perceptual"] == pytest.approx(
        min(distance for *_, distance in seen), rel=1e-3
    )
    assert not projector.invert(image, InversionOptions(steps=2)).interrupted


def test_a_result_is_saved(model: Model, image: Tensor, tmp_path: Path) -> None:
    result = Projector(model, ProjectorSettings("discriminator")).invert(
        image, InversionOptions(steps=2)
    )
    result.save(tmp_path / "one.safetensors")
    latent = latentedit.load_latent(tmp_path / "one.safetensors")
    assert torch.equal(latent.render(model.generator), result.image)


def test_restarts_with_the_largest_seed(image: Tensor) -> None:
    """The seed of the second search goes round; NumPy takes none beyond 2^32 - 1."""
    options: dict[str, Any] = {
        "discriminator": tiny_discriminator(),
        "perceptual": "discriminator",
        "noise": "frozen",
    }
    generator = tiny_generator()
    curvature = Curvature(torch.ones(1, generator.num_ws, generator.w_dim))
    found = invert(
        generator, image, steps=2, restarts=1, seed=2**32 - 1, curvature=curvature, **options
    )
    assert len(found.history["pixel"]) == 4


def test_a_label_restricts_what_the_search_knows_of_the_model() -> None:
    """The mean, where searches begin, and the prior are those of the faces with this label."""
    generator = tiny_generator(c_dim=3)
    with torch.no_grad():  # labels far apart
        generator.mapping.embed.weight.mul_(3)
    label = torch.eye(3)[1:2].expand(500, -1)
    expected = generator.mapping.map(sample_z(7, 12, 500), label).mean(dim=0)
    means = []
    for number in (None, 0, 1):
        settings = ProjectorSettings(
            DiscriminatorDistance(tiny_discriminator()), label=number, cache=False
        )
        projector = Projector(generator, settings)
        means.append(projector.statistics.mean)
        assert projector.fingerprint == fingerprint(generator)
    away = [float((mean - expected).norm()) for mean in means]
    assert away[2] < 0.2 * min(away[:2])
    assert generator.label_frequencies is None

    found = projector.invert(torch.zeros(1, 1, 16, 16), InversionOptions(steps=2))
    assert found.settings["class"] == 1
    assert projector.measured.startswith("class1-")
    for number, message in ((3, "label must be from 0 to 2"), (-1, "label must be from 0 to 2")):
        with pytest.raises(Error, match=message):
            Projector(generator, ProjectorSettings(label=number))
    with pytest.raises(Error, match="this network has no labels"):
        Projector(tiny_generator(), ProjectorSettings(label=0))
