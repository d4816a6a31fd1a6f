"""What an inversion is said to be worth: by its likeness, its w, and by looking at it along
sliders."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from latentedit.cli.looks import Limits, onlooker_of
from latentedit.directions import Direction, shipped
from latentedit.directions.direction import read_direction
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_model
from latentedit.inversion.domain import Domain
from latentedit.inversion.projector import invert
from latentedit.inversion.verdict import AMOUNTS, Look, judge
from latentedit.io.header import read_header
from latentedit.io.images import to_pil
from latentedit.io.native_file import write_tensors
from latentedit.latent.latent_file import FORMAT, VERSION, Latent, save_latent
from latentedit.latent.w_statistics import WStatistics, sample_w
from latentedit.model.model import Model
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.faces import sees_face
from latentedit.photo.looking import Onlooker, _farthest
from tests.helpers import hopper, tiny_discriminator, tiny_generator, works

QUICK = ("--aligned", "--steps", 1, "--method", "adam", "--perceptual", "discriminator")
FOUND = {
    "perceptual": 0.2,
    "psnr": 28.0,
    "psnr_own_noise": 26.0,
    "perceptual_average": 1.0,
    "w_distance": 0.8,
    "w_percentile": 1.0,
}
"""Distances of a good inversion."""
SEEN = Look(0.7, True, {"smile": (-3.0, 3.0), "turn": (-2.25, 3.0)})
TUNED_AND_BROKEN = Look(0.9, True, dict.fromkeys(("smile", "turn", "beard"), (0.0, 0.0)))


def test_a_good_one() -> None:
    verdict = judge(FOUND, SEEN)
    assert verdict.level == "good"
    assert str(verdict).startswith(
        "sliders mean what they say: the picture resembles the photo (28.0 dB), "
    )
    assert (
        verdict.limits()
        == "sliders leave it whole within these sigmas: turn -2.25 to 3; the others -3 to 3"
    )


@pytest.mark.parametrize(
    ("distances", "look", "level", "words"),
    [
        ({"psnr": 10.9}, SEEN, "poor", "does not resemble the photo (10.9 dB)"),
        ({"psnr": 20.5}, SEEN, "careful", "resembles the photo in part (20.5 dB)"),
        ({"perceptual": 0.9}, SEEN, "poor", "does not resemble the photo (28.0 dB)"),
        ({"w_percentile": 97.0, "w_distance": 1.2}, SEEN, "careful", "w lies at the edge"),
        (
            {"w_percentile": 100.0, "w_distance": 2.5},
            SEEN,
            "poor",
            "w lies far from the model's own",
        ),
        ({"w_percentile": 0.0, "w_distance": 0.1}, SEEN, "careful", "hardly differs from the mean"),
        ({}, replace(SEEN, domain=2.0), "poor", "the picture is not like the model's own"),
        ({}, replace(SEEN, face=False), "poor", "no face is seen"),
        (
            {"psnr_tuned": 35.0, "perceptual_tuned": 0.05},
            TUNED_AND_BROKEN,
            "poor",
            "sliders break it within 1.5 sigmas",
        ),
        ({"psnr": 12.0, "psnr_tuned": 35.0}, SEEN, "good", "resembles the photo (35.0 dB)"),
        ({"psnr": math.nan}, SEEN, "poor", "values that are not numbers"),
        ({"w_distance": math.inf}, SEEN, "poor", "values that are not numbers"),
        ({}, replace(SEEN, domain=math.nan), "poor", "values that are not numbers"),
    ],
)
def test_what_speaks_against_one(
    distances: dict[str, float], look: Look, level: str, words: str
) -> None:
    verdict = judge({**FOUND, **distances}, look)
    assert verdict.level == level
    assert words in str(verdict)
    assert ("sliders mean what they say" in str(verdict)) == (level == "good")
    json.dumps(verdict.facts(), allow_nan=not math.isfinite(verdict.look.domain or 0))


@pytest.mark.parametrize(
    ("psnr", "gone", "w_distance", "w_percentile", "level"),
    [
        (28.25, 0.94, 0.80, 2.28, "good"),
        (29.10, 0.97, 0.86, 10.23, "good"),
        (28.65, 0.98, 0.77, 0.92, "good"),
        (31.73, 0.97, 0.73, 0.16, "good"),
        (16.64, 0.37, 0.24, 0.0, "poor"),
        (16.92, 0.29, 0.31, 0.0, "poor"),
        (18.27, 0.51, 0.32, 0.0, "careful"),
        (17.33, 0.55, 0.31, 0.0, "poor"),
        (31.52, 0.98, 0.77, 0.88, "good"),
        (27.82, 0.97, 0.81, 3.11, "good"),
        (15.22, 0.20, 0.38, 0.0, "poor"),
        (19.41, 0.61, 0.39, 0.0, "careful"),
    ],
)
def test_inversions_of_training_people(
    psnr: float, gone: float, w_distance: float, w_percentile: float, level: str
) -> None:
    """As recorded with faces128-v2 (eight) and faces128-v3: the usual search in W+, and the
    encoder's answer alone."""
    distances = {
        "psnr": psnr,
        "perceptual": 1 - gone,
        "perceptual_average": 1.0,
        "w_distance": w_distance,
        "w_percentile": w_percentile,
    }
    assert judge(distances, SEEN).level == level


def test_some_sliders_break_it() -> None:
    ends = dict.fromkeys("abc", (-3.0, 3.0)) | {"turn": (-0.75, 0.75), "beard": (-3.0, 0.0)}
    verdict = judge(FOUND, Look(0.9, True, ends))
    assert verdict.level == "careful"
    assert "some sliders break it" in str(verdict)


def test_it_says_only_what_it_can() -> None:
    """Parts are missing for a model without discriminator or sliders, and for a latent never
    compared with a photo."""
    blind = judge(FOUND)
    assert blind.level == "good"
    assert "sliders mean what they say" not in str(blind)
    assert "as far as can be told: " in str(blind)
    assert "no discriminator" in str(blind)
    assert blind.limits() == ""

    without = judge(FOUND, Look(0.7, None))
    assert "no slider was tried" in str(without)
    assert "no discriminator" not in str(without)

    assert judge({}).level == "unknown"
    assert "no photo to compare with" in str(judge({}))


def test_likeness_in_the_noise_is_noted() -> None:
    assert "5 dB of the likeness are in the noise" in str(
        judge({**FOUND, "psnr_own_noise": 23.0}, SEEN)
    )
    assert "in the noise" not in str(
        judge({**FOUND, "psnr_own_noise": 23.0, "psnr_tuned": 30.0}, SEEN)
    )


def test_the_farthest_amount_is_found_in_few_looks() -> None:
    limits = {
        ("a", 1.0): 5.0,
        ("a", -1.0): 2.25,
        ("b", 1.0): 1.0,
        ("b", -1.0): 0.1,
        ("c", 1.0): 1.5,
    }
    rounds = []

    def whole(moves: Sequence[tuple[str, float]]) -> list[bool]:
        rounds.append(len(moves))
        return [abs(amount) <= limits[name, math.copysign(1, amount)] for name, amount in moves]

    found = _farthest(list(limits), whole)
    assert found == {
        ("a", 1.0): 3.0,
        ("a", -1.0): 2.25,
        ("b", 1.0): 0.75,
        ("b", -1.0): 0.0,
        ("c", 1.0): 1.5,
    }
    assert rounds == [5, 4, 4]
    assert _farthest([], whole) == {}


class ByBrightness(Domain):
    """Calls a picture whole that is nowhere brighter, or darker, than ``usual``."""

    def distances(self, discriminator: Discriminator, images: Tensor) -> list[float]:
        return [float(image.abs().max()) / self.usual for image in images]


def onlooker(limit: float) -> Onlooker:
    """Return the onlooker of a grey network whose images are in-domain up to a brightness."""
    generator = tiny_generator()
    own = fingerprint(generator)
    vectors = torch.eye(12)[:2]
    sliders = {
        name: Direction(name, vector, 0.0, 1.0, own)
        for name, vector in zip("ab", vectors, strict=True)
    }
    return Onlooker(
        generator, tiny_discriminator(), ByBrightness(torch.zeros(1), torch.ones(1), limit), sliders
    )


def test_along_the_sliders() -> None:
    """Every amount is what the same moves made one by one give."""
    looking = onlooker(1.0)
    generator = looking.generator
    latent = Latent(
        generator.mapping(torch.randn(1, 12, generator=torch.Generator().manual_seed(3))),
        None,
        "",
        "w",
    )

    def brightest(name: str, amount: float) -> float:
        ws = latent.ws + amount * looking.sliders[name].vector  # type: ignore[index]
        return float(generator.synthesis(ws).abs().max())

    middle = sorted(brightest(name, sign * 1.5) for name in "ab" for sign in (-1, 1))[1]
    assert looking.domain is not None
    usual = max(middle, brightest("a", 0.0)) + 1e-3
    looking = replace(looking, domain=replace(looking.domain, usual=usual))
    look = looking.look(latent)
    assert look.face is None
    assert set(look.safe) == {"a", "b"}
    for name, (low, high) in look.safe.items():
        for end, sign in ((low, -1), (high, 1)):
            assert abs(end) in (0.0, *AMOUNTS)
            if end:
                assert brightest(name, end) <= usual
            if abs(end) < AMOUNTS[-1]:
                more = AMOUNTS[(0.0, *AMOUNTS).index(abs(end))]
                assert brightest(name, sign * more) > usual


def test_a_face_stays_the_same_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    looking = replace(onlooker(1e6), faces=True)
    latent = Latent(looking.generator.mapping(torch.zeros(1, 12)), None, "", "w")

    def person(picture: Image.Image) -> NDArray[np.float64]:
        return np.array([np.asarray(picture).mean() / 20])

    def after(name: str, amount: float) -> float:
        ws = latent.ws + amount * looking.sliders[name].vector  # type: ignore[index]
        pictures = [to_pil(looking.generator.synthesis(w)) for w in (latent.ws, ws)]
        return float(np.abs(person(pictures[1]) - person(pictures[0]))[0])

    monkeypatch.setattr("latentedit.photo.looking.sees_face", lambda picture: True)
    monkeypatch.setattr("latentedit.photo.looking.has_landmarks", lambda: True)
    monkeypatch.setattr("latentedit.photo.looking.describe", person)
    ends = {(n, s): after(n, s * 1.5) for n in "ab" for s in (-1, 1)}
    limit = sorted(ends.values())[1] + 1e-6
    monkeypatch.setattr("latentedit.photo.looking.SAME", limit)
    look = looking.look(latent)
    for name, (low, high) in look.safe.items():
        for end, sign in ((low, -1), (high, 1)):
            assert end == 0 or after(name, end) <= limit
            if abs(end) < AMOUNTS[-1]:
                more = AMOUNTS[(0.0, *AMOUNTS).index(abs(end))]
                assert after(name, sign * more) > limit
    assert any(abs(end) < 3 for pair in look.safe.values() for end in pair)

    monkeypatch.setattr("latentedit.photo.looking.describe", lambda picture: None)  # unseen
    assert set(looking.look(latent).safe.values()) == {(-3.0, 3.0)}


def test_looking_pauses_before_every_few_pictures() -> None:
    """What is found does not depend on how many are drawn at once."""
    looking = onlooker(2.0)
    latent = Latent(looking.generator.mapping(torch.zeros(1, 12)), None, "", "w")
    pauses: list[int] = []
    drawn: list[int] = []
    looking.generator.synthesis.register_forward_hook(
        lambda module, inputs, picture: drawn.append(len(picture))
    )
    side = looking.generator.resolution
    patient = replace(looking, together=2 * side**2, pause=lambda: pauses.append(len(drawn)))
    assert patient.look(latent) == looking.look(latent)
    assert pauses
    assert all(count == 1 or drawn[count] <= 2 for count in pauses)
    assert pauses == list(range(1, len(pauses) + 1))  # the first picture is the face itself


def test_moved_pictures_are_judged_by_the_quick_domain() -> None:
    looking = onlooker(1e9)
    latent = Latent(looking.generator.mapping(torch.zeros(1, 12)), None, "", "w")
    blind = ByBrightness(torch.zeros(1), torch.ones(1), 1e-9)
    look = replace(looking, quick=blind).look(latent)
    assert look.domain is not None
    assert look.domain <= 1
    assert look.safe == {"a": (0.0, 0.0), "b": (0.0, 0.0)}


def test_the_quick_domain_sees_pictures_at_half_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its features are is measured on the same pictures, and kept beside those of the
    whole."""
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path))
    monkeypatch.setattr("latentedit.inversion.domain.SAMPLES", 8)
    generator = tiny_generator(resolution=32)
    discriminator = tiny_discriminator(resolution=32)
    quick = Domain.cached(generator, discriminator, "f" * 64, halved=True)
    whole = Domain.cached(generator, discriminator, "f" * 64)
    assert len(list((tmp_path / "domain").iterdir())) == 2
    again = Domain.cached(generator, discriminator, "f" * 64, halved=True)
    assert again.halved
    assert torch.equal(again.mean, quick.mean)
    assert again.usual == pytest.approx(quick.usual)
    assert not torch.allclose(whole.mean, quick.mean)

    w = sample_w(generator, 8)[:, None].expand(-1, generator.num_ws, -1)
    pictures = torch.nn.functional.avg_pool2d(generator.synthesis(w), 2)
    seen = discriminator.features(pictures, halved=True)
    means = torch.cat([x.mean(dim=(2, 3)) for x in seen], dim=1).mean(dim=0)
    torch.testing.assert_close(quick.mean, means, atol=1e-4, rtol=1e-4)


def test_a_tuned_latent_is_drawn_with_its_own_generator() -> None:
    looking = onlooker(1.0)
    ws = looking.generator.mapping(torch.zeros(1, 12))
    latent = Latent(ws, None, "", "w")
    assert looking.domain is not None
    bound = float(looking.generator.synthesis(ws).abs().max()) * 1.01
    looking = replace(looking, domain=replace(looking.domain, usual=bound))
    whole = looking.look(latent)
    assert whole.domain is not None
    assert whole.domain <= 1
    bias = looking.generator.synthesis.state_dict()["b16.torgb.bias"]
    broken = looking.look(replace(latent, tuned={"b16.torgb.bias": torch.full_like(bias, 50.0)}))
    assert broken.domain is not None
    assert broken.domain > 10
    assert broken.safe == {"a": (0.0, 0.0), "b": (0.0, 0.0)}


def test_style_sliders_move_styles() -> None:
    looking = onlooker(1e9)
    sizes = [size for _, size in looking.generator.synthesis.style_layers]
    vector = torch.nn.functional.normalize(torch.ones(sum(sizes)), dim=0)
    channel = Direction("s", vector, 0.0, 1.0, "", space="s", scale=torch.ones(sum(sizes)))
    of_z = Direction("z", torch.eye(12)[0], 0.0, 1.0, "", space="z")
    assert looking.sliders is not None
    looking = replace(looking, sliders={**looking.sliders, "s": channel, "z": of_z})
    latent = Latent(looking.generator.mapping(torch.zeros(1, 12)), None, "", "w")
    assert looking.look(latent).safe == dict.fromkeys("abs", (-3.0, 3.0))
    with_styles = replace(latent, styles=[torch.zeros(1, size) for size in sizes])
    assert looking.look(with_styles).safe == dict.fromkeys("abs", (-3.0, 3.0))


def test_nobody_looks_without_a_discriminator() -> None:
    generator = tiny_generator()
    latent = Latent(generator.mapping(torch.zeros(1, 12)), None, "", "w")
    assert onlooker_of(Model(generator)).look(latent) == Look()
    # none of its sliders ships
    seen = onlooker_of(Model(generator, tiny_discriminator())).look(latent)
    assert seen.domain is not None
    assert seen.safe == {}
    broken = replace(latent, ws=latent.ws * math.nan)
    assert onlooker_of(Model(generator, tiny_discriminator())).look(broken) == Look()


def few(model: Model, names: Sequence[str] = ("smile",)) -> Onlooker:
    """Who looks along a few sliders only."""
    looking = onlooker_of(model)
    assert looking.sliders is not None
    return replace(looking, sliders={name: looking.sliders[name] for name in names})


def test_an_own_picture_of_faces128(faces128: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentedit.inversion.domain.SAMPLES", 12)  # quicker, and roughly the same
    generator = faces128.generator
    ws = generator.mapping(
        torch.randn(1, 256, generator=torch.Generator().manual_seed(1)), None, 0.7
    )
    looking = few(faces128)
    look = looking.look(Latent(ws, None, fingerprint(generator), "w"))
    assert look.face is True
    assert look.safe == {"smile": (-3.0, 3.0)}
    statistics = WStatistics.of(generator)
    away = float(statistics.distance(ws)[0])
    verdict = judge(
        {**FOUND, "w_distance": away, "w_percentile": statistics.percentile(away)}, look
    )
    assert str(verdict).startswith("sliders mean what they say")

    far = Latent(statistics.mean + (ws - statistics.mean) * 6, None, fingerprint(generator), "w")
    seen = looking.look(far)
    assert seen.safe == {"smile": (0.0, 0.0)}
    assert judge(FOUND, seen).level == "poor"


def blob() -> Tensor:
    """A warm spot on blue: ``[1, 3, 128, 128]``."""
    y, x = np.mgrid[0:128, 0:128]
    spot = np.exp(-((x - 64) ** 2 + (y - 70) ** 2) / 1800)
    pixels = np.stack([40 + 200 * spot, 40 + 90 * spot, 120 - 60 * spot])
    return torch.from_numpy((pixels / 127.5 - 1).astype(np.float32))[None]


def test_a_blob_and_few_steps(faces128: Model) -> None:
    """What is no portrait, and a search that was hardly begun."""
    generator = faces128.generator
    result = invert(
        generator,
        blob(),
        steps=2,
        method="adam",
        perceptual="discriminator",
        discriminator=faces128.discriminator,
        noise="frozen",
    )
    assert result.verdict().level == "poor"
    assert "does not resemble the photo" in str(result.verdict())


def test_a_face_is_seen() -> None:
    portrait = Image.open(hopper()).crop((130, 60, 400, 330)).resize((128, 128))
    assert sees_face(portrait)
    assert not sees_face(Image.new("RGB", (128, 128), (90, 120, 30)))


@pytest.fixture
def looked_at(tmp_path: Path, stand_in: Path) -> Latent:
    """A latent of the stand-in, whose file ``me.safetensors`` says that smile is safe to 1.5."""
    generator = load_model(stand_in).generator
    latent = Latent(generator.mapping(torch.zeros(1, 16)), None, fingerprint(generator), "w")
    latent.safe = {"smile": (-0.75, 1.5), "turn": (0.0, 0.0)}
    save_latent(tmp_path / "me.safetensors", latent)
    return latent


def test_edit_warns_beyond_what_is_safe(tmp_path: Path, looked_at: Latent) -> None:
    me, out = tmp_path / "me.safetensors", tmp_path / "out.png"

    def warned(*arguments: str) -> str:
        return works("edit", me, *arguments, "--out", out).stderr

    too_far = "me.safetensors: smile +2 is farther than is safe: the picture was seen to stay whole"
    assert f"{too_far} from -0.75 to 1.5" in warned("--set", "smile=2")
    assert "safe" not in warned("--set", "smile=1.5", "--set", "warmth=9")
    assert "smile +2 is" in warned("--set", "smile=1", "--set", "smile=1")
    assert "safe" not in warned("--set", "smile=2", "--set", "smile=-1")
    assert (
        "turn -0.5 is farther than is safe: this slider was seen to break the picture with less"
        in warned("--set", "turn=-0.5")
    )
    assert "smile +2 is" in warned("--set", "smile=2", "--hold", "warmth")
    swept = warned("--sweep", "smile=-1:3:3", "--sweep", "turn=0:1:2")
    assert swept.count("smile +3 is farther") == 1
    assert swept.count("smile -1 is farther") == 1
    assert swept.count("turn +1 is farther") == 1
    assert "smile +3 is" in warned("--set", "smile=1", "--sweep", "smile=0:2:3")
    assert "safe" not in warned("--set", "smile=2@coarse")  # no one looked at these layers alone


def test_a_direction_of_ones_own_is_not_the_one_that_was_looked_at(
    tmp_path: Path, looked_at: Latent, monkeypatch: pytest.MonkeyPatch
) -> None:
    smile = read_direction(shipped(looked_at.fingerprint)["smile"])
    replace(smile, vector=-smile.vector).save(tmp_path / "own" / "smile.safetensors")
    monkeypatch.setenv("LATENTEDIT_DIRECTIONS", str(tmp_path / "own"))
    shown = works(
        "edit", tmp_path / "me.safetensors", "--set", "smile=2", "--out", tmp_path / "out.png"
    )
    assert "safe" not in shown.stderr
    limits = Limits(looked_at)
    limits.count(smile, 2.0)
    assert len(limits.lines()) == 1


def test_an_edited_latent_is_looked_at_anew(tmp_path: Path, looked_at: Latent) -> None:
    works(
        "edit",
        tmp_path / "me.safetensors",
        "--set",
        "smile=1",
        "--out",
        tmp_path / "new.safetensors",
    )
    found = load_latent(tmp_path / "new.safetensors")
    assert set(found.safe or {}) == set(shipped(looked_at.fingerprint))
    assert found.distances.keys() == {"domain"}


def test_invert_writes_what_is_safe(tmp_path: Path, stand_in: Path) -> None:
    Image.new("RGB", (128, 128), (200, 90, 40)).save(tmp_path / "me.png")
    shown = works("invert", tmp_path / "me.png", *QUICK, "--out", tmp_path / "out", "--json")
    facts = json.loads(shown.stdout)
    parts = facts["verdict_parts"]
    assert parts["level"] == "poor"
    assert set(parts["parts"]) == {"likeness", "w", "picture", "sliders"}
    assert parts["face"] is False
    assert facts["verdict"].startswith("sliders cannot be trusted: ")
    latent = load_latent(tmp_path / "out" / "me.safetensors")
    assert latent.safe == dict.fromkeys(shipped(latent.fingerprint), (0.0, 0.0))
    assert latent.distances["domain"] == pytest.approx(parts["domain"], abs=1e-4)


def test_files_of_before_and_odd_ones(tmp_path: Path) -> None:
    path = tmp_path / "me.safetensors"
    latent = Latent(torch.zeros(1, 6, 12), None, "0" * 64, "w")
    save_latent(path, latent)
    header = read_header(path, FORMAT, VERSION)
    assert header["safe"] is None
    assert load_latent(path).safe is None

    save_latent(path, replace(latent, safe={"smile": (-1.5, 3.0)}))
    assert load_latent(path).safe == {"smile": (-1.5, 3.0)}

    del header["safe"]  # as before there were any
    write_tensors(path, FORMAT, VERSION, header, {"ws": latent.ws})
    assert load_latent(path).safe is None

    for odd in (
        {"smile": [1, 2]},
        {"smile": [-1]},
        {"smile": 3},
        {"smile": [-1, "x"]},
        {"smile": [-(10**400), 1]},
        {"smile": [False, True]},
        {str(i): [0, 0] for i in range(1001)},
    ):
        write_tensors(path, FORMAT, VERSION, {**header, "safe": odd}, {"ws": latent.ws})
        with pytest.raises(
            Error,
            match=r"me.safetensors: (a latent file's safe amounts must be a lowest|safe.* "
            r"expected a finite)",
        ):
            load_latent(path)
    write_tensors(path, FORMAT, VERSION, {**header, "safe": [1]}, {"ws": latent.ws})
    with pytest.raises(Error, match="a latent file's safe must be a dict"):
        load_latent(path)
