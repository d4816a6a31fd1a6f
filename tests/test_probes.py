"""Probes on planted truth: what they recover, against the best that can be had."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from latentedit.directions import (
    Direction,
    LabelledPhotos,
    PhotoClassifier,
    PhotoScores,
    RefineOptions,
    TransferOptions,
    card,
    conditioned,
    fit,
    fit_classes,
    fit_from_photos,
    fit_from_scores,
    leakage,
    load_direction,
    log_odds,
    refine,
)
from latentedit.directions.chance import doubts_about
from latentedit.directions.conditioning import to_keep
from latentedit.directions.direction import renamed
from latentedit.directions.folds import splits
from latentedit.directions.photo_features import render_all
from latentedit.directions.refinement import of_one_sigma
from latentedit.directions.validation import gain_of_doubling, learning_curve, quality, stability
from latentedit.errors import Error
from latentedit.latent.editing import edit, edit_styles
from latentedit.latent.w_statistics import sample_w, sample_z, style_statistics
from latentedit.networks.fingerprint import fingerprint
from tests.helpers import tiny_discriminator, tiny_generator

GENERATOR = tiny_generator()
NUM, DIM = GENERATOR.num_ws, GENERATOR.w_dim
A = torch.nn.functional.normalize(torch.arange(1.0, 13.0) - 5, dim=0)
B = (
    torch.nn.functional.normalize(
        torch.cat([A[6:], -A[:6]]) - (torch.cat([A[6:], -A[:6]]) @ A) * A, dim=0
    )
    * 0.6
    + 0.8 * A
)
"""A unit vector at a cosine of 0.8 from `A`."""


def planted(
    count: int, flipped: float = 0.0, seed: int = 0
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Normal w, labels of A with a share of them flipped, labels of B."""
    rng = np.random.default_rng(seed)
    w = torch.from_numpy(rng.normal(size=(count, DIM)).astype(np.float32))
    a, b = ((w @ v > 0).numpy().astype(float) for v in (A, B))
    return w, np.where(rng.random(count) < flipped, 1 - a, a), b


def direction(
    vector: torch.Tensor, name: str = "d", sigma: float = 1.0, layers: tuple[int, int] | None = None
) -> Direction:
    return Direction(name, vector / vector.norm(), 0.0, sigma, fingerprint(GENERATOR), layers)


@pytest.mark.parametrize("kind", ["svc", "logistic", "lda"])
def test_a_fifth_of_wrong_labels_costs_what_it_must(kind: str) -> None:
    """The mean difference of two normal classes is 2 (1 - 2 f) / sqrt(2 pi), its error sqrt(4 d /
    n): the best possible angle; the best AUC on labels of which a share f is wrong is 1 - f."""
    count, flipped = 2000, 0.2
    w, labels, _ = planted(count, flipped)
    d = fit(w, labels, generator=GENERATOR, kind=kind, strength=0.1)
    best = math.degrees(
        math.atan(
            math.sqrt(4 * (DIM - 1) / count) / (4 * (1 - 2 * flipped) / math.sqrt(2 * math.pi))
        )
    )
    assert math.degrees(math.acos(float(d.vector @ A))) < 1.5 * best
    assert d.report["auc"] == pytest.approx(1 - flipped, abs=0.03)
    low, high = d.report["auc_interval"]
    assert low < 1 - flipped < high
    assert high - low < 0.06


def test_a_correlated_attribute_is_told_apart() -> None:
    w, a, b = planted(3000)
    found = {
        name: fit(w, labels, generator=GENERATOR, strength=1.0, name=name)
        for name, labels in (("a", a), ("b", b))
    }
    assert float(found["a"].vector @ found["b"].vector) == pytest.approx(0.8, abs=0.05)
    alone = conditioned(found["a"], [found["b"]], GENERATOR)
    assert abs(float(alone.vector @ found["b"].vector)) < 1e-5
    # What is left of A when B may not move has a cosine of sqrt(1 - 0.8^2) with it.
    assert alone.report["cosine_with_unconditioned"] == pytest.approx(0.6, abs=0.06)
    assert alone.report["kept"] == ["b"]


def test_conditioning_is_exact_for_several_correlated_ones_and_layers() -> None:
    torch.manual_seed(0)
    common = torch.randn(DIM)
    others = [direction(common + 0.3 * torch.randn(DIM), f"o{i}", sigma=0.5 + i) for i in range(3)]
    others.append(direction(torch.randn(NUM, DIM), "plus"))
    others.append(direction(torch.randn(DIM), "some", layers=(1, 2)))
    ws = torch.randn(4, NUM, DIM)
    bases = [direction(common), direction(torch.randn(NUM, DIM)), direction(common, layers=(2, 4))]
    bases.append(direction(torch.randn(NUM, DIM), layers=(1, 3)))
    refined = [replace(base, step=of_one_sigma(torch.randn(NUM, DIM), base)) for base in bases]
    others.append(replace(others[0], name="refined", layers=(0, 3), step=torch.randn(NUM, DIM)))
    for base in (*bases, *refined):
        base = replace(base, report={"auc": 0.9, "keep": ["o1"]})
        alone = conditioned(base, others, GENERATOR)
        assert alone.name == "d-alone"
        assert set(alone.report) == {"kept", "cosine_with_unconditioned", "leakage"}
        assert set(alone.report["leakage"].values()) == {0}
        assert alone.provenance["conditioned_from"] == "d"
        assert conditioned(base, others, GENERATOR, name="own").name == "own"
        moved = edit(ws, alone, 3.0)
        for other in others:
            torch.testing.assert_close(other.score(moved), other.score(ws), atol=1e-4, rtol=0)
        assert alone.layers == base.layers
        mean = sample_w(GENERATOR).mean(dim=0)[None, None].expand(1, NUM, -1)
        assert float(alone.score(mean)) / alone.sigma == pytest.approx(
            float(base.score(mean)) / base.sigma, abs=1e-3
        )
    with pytest.raises(Error, match="nothing of d is left"):
        conditioned(direction(common), [direction(common, "same")], GENERATOR)
    with pytest.raises(Error, match="name at least one direction to keep"):
        conditioned(direction(common), [], GENERATOR)


def test_leakage_is_what_edits_do() -> None:
    torch.manual_seed(1)
    several = [
        direction(torch.randn(DIM), "a", 0.5),
        direction(torch.randn(NUM, DIM), "b", 2.0),
        direction(torch.randn(DIM), "c", 1.0, (0, 1)),
    ]
    matrix = leakage(several, NUM, DIM)
    ws = torch.randn(1, NUM, DIM)
    for i, d in enumerate(several):
        moved = edit(ws, d, 1.0)
        for j, other in enumerate(several):
            assert float(matrix[i, j]) == pytest.approx(
                float(other.score(moved) - other.score(ws)) / other.sigma, abs=1e-4
            )
    x = direction(torch.eye(DIM)[0], "x")
    near, far, twin = (
        direction(torch.eye(DIM)[0] + torch.eye(DIM)[1], "near"),
        direction(torch.eye(DIM)[2], "far"),
        x,
    )
    assert [d.name for d in to_keep(x, [near, far, twin], NUM, DIM)] == ["near"]


def test_auto_shrinks_for_few_labels() -> None:
    w, labels, _ = planted(200)
    few = np.concatenate([np.flatnonzero(labels == value)[:10] for value in (0, 1)])
    assert fit(w[few], labels[few], generator=GENERATOR).report["probe"] == "logistic"
    assert fit(w, labels, generator=GENERATOR).report["probe"] == "svc"
    assert fit(w, (w @ A).numpy(), generator=GENERATOR).report["probe"] == "ridge"


def test_the_most_confident_make_classes() -> None:
    w, _, _ = planted(1000)
    scores = (w @ A).numpy() + np.random.default_rng(1).normal(size=1000)
    d = fit(w, scores, generator=GENERATOR, kind="svc", confident=0.2, strength=0.1)
    assert (d.report["samples"], d.report["positives"], d.report["confident"]) == (200, 100, 0.2)
    assert float(d.vector @ A) > 0.9
    for share, message in ((0.0, "above 0"), (0.001, "at least 2 are needed")):
        with pytest.raises(Error, match=message):
            fit(w, scores, generator=GENERATOR, confident=share)
    with pytest.raises(Error, match="no most confident"):
        fit(w, scores > 0, generator=GENERATOR, confident=0.5)


def test_one_class_against_the_rest() -> None:
    w, _, _ = planted(900)
    score = (w @ A).numpy()
    labels = np.where(score < -0.5, "low", np.where(score > 0.5, "high", "middle")).tolist()
    labels[:5] = [""] * 5
    found = fit_classes(w, labels, name="level", generator=GENERATOR, strength=0.1)
    assert list(found) == ["high", "low", "middle"]
    assert found["low"].name == "level-low"
    assert float(found["high"].vector @ A) > 0.9
    assert float(found["low"].vector @ A) < -0.9
    assert found["high"].report["samples"] == 895
    with pytest.raises(Error, match="needs two classes"):
        fit_classes(w, ["one"] * 900, generator=GENERATOR)


def test_style_space_and_z() -> None:
    mean, std = style_statistics(GENERATOR)
    w = sample_w(GENERATOR, 800, seed=4)
    ws = w[:, None].expand(-1, NUM, -1)
    styles = torch.cat(GENERATOR.synthesis.styles(ws), dim=1)
    channel = int(std.argmax())
    labels = (styles[:, channel] > mean[channel]).numpy().astype(float)
    d = fit(ws, labels, generator=GENERATOR, space="s", strength=0.1)
    assert d.space == "s"
    assert d.report["auc"] > 0.97
    assert d.vector.shape == std.shape
    offsets = edit_styles(GENERATOR, [], d, 1.0)
    moved = d.score(ws[:1], GENERATOR, offsets) - d.score(ws[:1], GENERATOR)
    assert float(moved) == pytest.approx(d.sigma, rel=1e-3)
    row, sizes = (
        GENERATOR.synthesis.style_layers[0][0],
        [size for _, size in GENERATOR.synthesis.style_layers],
    )
    only = fit(ws, labels, generator=GENERATOR, space="s", layers=(row, row))
    assert not bool(only.vector[sizes[0] :].any())
    z = sample_z(5, GENERATOR.z_dim, 600)
    in_z = fit(z, (z[:, 3] > 0).numpy().astype(float), generator=GENERATOR, space="z", strength=0.1)
    assert in_z.space == "z"
    assert float(in_z.vector[3]) > 0.95
    assert in_z.sigma == pytest.approx(1.0, abs=0.03)
    with pytest.raises(Error, match=r"z must have shape \[N, 12\]"):
        fit(ws, labels, generator=GENERATOR, space="z")
    with pytest.raises(Error, match="in z edits all layers"):
        fit(z, z[:, 3].numpy(), generator=GENERATOR, space="z", layers=(0, 1))


def test_scores_of_any_callable() -> None:
    seen: list[int] = []

    def brightness(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images.mean(dim=(1, 2, 3))

    d = fit_from_scores(brightness, generator=GENERATOR, name="bright", samples=400)
    assert sum(seen) == 400
    assert d.report["samples"] == 200
    w = sample_w(GENERATOR, 64, seed=11)
    step = d.vector * d.sigma * 2
    assert (
        float(render_all(GENERATOR, w + step).mean() - render_all(GENERATOR, w - step).mean())
        > 0.05
    )
    numbers = fit_from_scores(
        brightness, generator=GENERATOR, name="bright", samples=400, kind="ridge"
    )
    assert float(numbers.vector @ d.vector) > 0.5
    with pytest.raises(Error, match="one number per image"):
        fit_from_scores(
            lambda images: images.mean(dim=(2, 3)).repeat(1, 2),
            generator=GENERATOR,
            name="x",
            samples=100,
        )


def test_learning_curve_and_stability() -> None:
    from sklearn.linear_model import LogisticRegression

    estimator = LogisticRegression(C=0.1)
    angles = {}
    for count in (60, 1000):
        w, labels, _ = planted(count, 0.2)
        x = w.double().numpy()
        curve = learning_curve(estimator, x, labels, None, True)
        assert [n for n, _ in curve] == sorted(n for n, _ in curve)
        angles[count] = stability(estimator, x, labels, None)
        if count == 1000:
            assert curve[0][1] < curve[-1][1]
            gain = gain_of_doubling(curve)
            assert gain is not None
            assert 0 <= gain < 0.05
    assert angles[1000] < angles[60] / 2
    assert gain_of_doubling([(10, 0.5), (20, 0.75)]) == pytest.approx(0.125)
    assert gain_of_doubling([(20, 0.75)]) is None


def test_the_interval_is_wider_where_people_are_few() -> None:
    """Labels that belong to people: samples of a person tell the same thing again."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 20)
    centres = rng.normal(size=(20, DIM)) * 2
    x = centres[people] + rng.normal(size=(400, DIM))
    labels = ((centres @ A.double().numpy())[people] + rng.normal(size=400) * 0.5 > 0).astype(float)
    width = {}
    for name, groups in (("samples", None), ("people", list(people))):
        low, high = quality(LogisticRegression(C=0.1), x, labels, groups, True)["auc_interval"]
        width[name] = high - low
    assert width["people"] > 1.5 * width["samples"]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.full(60, np.nan), {}, "all labels are missing"),
        (np.r_[np.inf, np.zeros(59)], {}, "labels must be finite"),
        (np.r_[np.ones(1), np.zeros(59)], {}, "at least 2 samples of every class, got 1"),
        (np.tile([0.0, 1.0], 30), {"layers": (0, 99)}, "layers 0-99 lie outside"),
        (np.tile([0.0, 1.0], 30), {"groups": ["one"] * 60}, "at least 2 groups, got 1"),
        (np.tile([0.0, 1.0], 30), {"space": "x"}, "space must be one of"),
    ],
)
def test_bad_samples(labels: np.ndarray, options: dict[str, object], message: str) -> None:
    w, _, _ = planted(60)
    with pytest.raises(Error, match=message):
        fit(w, labels, generator=GENERATOR, **options)  # type: ignore[arg-type]
    with pytest.raises(Error, match="not finite"):
        fit(torch.full((60, DIM), torch.nan), np.tile([0.0, 1.0], 30), generator=GENERATOR)


def test_layers_tell_where_an_attribute_lives() -> None:
    torch.manual_seed(0)
    ws = torch.randn(300, NUM, DIM)
    labels = (ws[:, 2] @ A + 0.5 * ws[:, 3] @ A > 0).double().numpy()
    report = fit(ws, labels, generator=GENERATOR, space="w+", examine=True).report
    assert len(report["layers_alone"]) == NUM
    assert report["layers_alone"][2] > report["layers_alone"][3] > 0.6
    assert max(report["layers_alone"][:2] + report["layers_alone"][4:]) < 0.6
    inner = fit(ws, labels, generator=GENERATOR, space="w+", layers=(1, 3), examine=True)
    assert inner.report["telling_layers"] == [2, 3]
    assert "`--layers 2-3`" in card(inner)
    assert "layers_alone" not in fit(ws, labels, generator=GENERATOR, examine=True).report


def test_refining_finds_steps_that_pictures_follow() -> None:
    def scores(images: torch.Tensor) -> torch.Tensor:
        left, right = (half.mean(dim=(1, 2, 3)) for half in images.chunk(2, dim=3))
        return torch.stack([8 * (left + right), -8 * (left + right), 8 * (left - right)], dim=1)

    torch.manual_seed(0)
    start = fit_from_scores(
        lambda x: scores(x)[:, 0], generator=GENERATOR, name="bright", samples=60, confident=0.05
    )
    refined = refine(
        start,
        GENERATOR,
        scores,
        RefineOptions(steps=60, hold_light=False),
        discriminator=tiny_discriminator(),
    )
    ws = sample_w(GENERATOR, 100, seed=8)[:, None].expand(-1, NUM, -1)

    def missed(d: Direction) -> tuple[float, float]:
        """What is missing to either end, and by how much the other answer changes."""
        with torch.no_grad():
            zero, up, down = (scores(GENERATOR.synthesis(edit(ws, d, a))) for a in (0.0, 2.0, -2.0))
        ends = torch.nn.functional.softplus(-up[:, 0]) + torch.nn.functional.softplus(-down[:, 1])
        return float(ends.mean()), float(
            (up - zero)[:, 2].abs().mean() + (down - zero)[:, 2].abs().mean()
        )

    before, after = missed(start), missed(refined)
    assert after[0] < 0.9 * before[0]
    assert after[1] < 1.2 * before[1]
    assert torch.equal(refined.vector, start.vector)
    for amount in (-2.0, 1.0):
        gained = refined.score(edit(ws, refined, amount)) - refined.score(ws)
        torch.testing.assert_close(
            gained, torch.full_like(gained, amount * refined.sigma), rtol=1e-4, atol=1e-4
        )
    with pytest.raises(Error, match="only directions in W and W. can be refined"):
        refine(replace(direction(torch.randn(DIM)), space="z"), GENERATOR, scores)


def test_a_refined_direction_is_kept_turned_and_conditioned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain, other = (replace(direction(torch.randn(DIM)), name=name) for name in ("one", "other"))
    step = of_one_sigma(torch.randn(NUM, DIM), plain)
    refined = replace(plain, step=step)
    refined.save(tmp_path / "one.safetensors")
    assert torch.equal(load_direction(tmp_path / "one.safetensors").step, step)  # type: ignore[arg-type]
    ws = torch.randn(2, NUM, DIM)
    torch.testing.assert_close(
        edit(ws, renamed(refined, "back", flip=True), 1.5), edit(ws, refined, -1.5)
    )
    torch.testing.assert_close(edit(ws, refined, 1.0, "1-1")[:, 1:2], (ws + step)[:, 1:2])
    assert torch.equal(edit(ws, refined, 1.0, "1-1")[:, 2:], ws[:, 2:])
    held = conditioned(refined, [other], GENERATOR)
    moved = edit(ws, held, 2.0)
    torch.testing.assert_close(other.score(moved), other.score(ws), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        held.score(moved), held.score(ws) + 2 * held.sigma, rtol=1e-4, atol=1e-4
    )
    with pytest.raises(Error, match="space s cannot have a step"):
        replace(refined, space="s", scale=torch.ones(DIM))


def test_log_odds_are_the_classifier_s_own() -> None:
    images, labels = torch.randn(20, 1, 16, 16), np.tile([0.0, 1.0], 10)
    discriminator = tiny_discriminator()
    classifiers = [
        PhotoClassifier(discriminator, images, v)
        for v in (labels, np.roll(labels, 1) * (np.arange(20) > 4))
    ]
    found = log_odds(classifiers, images)
    for i, one in enumerate(classifiers):
        np.testing.assert_allclose(found[:, i].detach().numpy(), one.score(images)[0], atol=1e-4)


def test_folds_of_numbers_have_two_samples() -> None:
    """A fold of one has no spread, and an R2 that is no number."""
    x, labels = np.random.default_rng(0).normal(size=(9, 3)), np.arange(9.0)
    for count in (4, 5, 7, 9):
        folds = splits(labels[:count], None, binary=False)
        assert all(len(train) >= 2 and len(test) >= 2 for train, test in folds)
        assert np.isfinite(quality(Ridge(), x[:count], labels[:count], None, binary=False)["r2"])
    with pytest.raises(Error, match="at least 4 samples, got 3"):
        splits(labels[:3], None, binary=False)
    with pytest.raises(Error, match="no fold has two samples"):
        splits(labels[:4], list("abcd"), binary=False)
    assert doubts_about({"r2": float("nan"), "r2_interval": [-1.0, 0.5], "samples": 7}) == []


def test_what_cannot_be_told_from_chance_is_said_in_words() -> None:
    said = doubts_about({"auc": 0.68, "auc_interval": [0.47, 0.89], "samples": 30})
    assert said == [
        "the probe may be no better than chance: the interval of its AUC of 0.68 is 0.47 to 0.89;"
        " about 49 labels would be enough, there are 30"
    ]
    assert (
        "about 20 people would be enough, there are 12"
        in doubts_about({"auc": 0.68, "auc_interval": [0.47, 0.89], "samples": 30, "groups": 12})[0]
    )
    assert doubts_about({"auc": 0.68, "auc_interval": [0.55, 0.8], "samples": 30}) == []
    assert (
        "more labels may not help"
        in doubts_about({"auc": 0.45, "auc_interval": [0.3, 0.6], "samples": 30})[0]
    )
    photo = doubts_about(
        {
            "auc": 0.9,
            "auc_interval": [0.8, 0.95],
            "photo_auc": 0.6,
            "photo_auc_interval": [0.4, 0.8],
        }
    )
    assert photo == [
        "the photo classifier may be no better than chance: the interval of its AUC of 0.60 is "
        "0.40 to 0.80"
    ]
    assert (
        "of its R2 of 0.05"
        in doubts_about({"r2": 0.05, "r2_interval": [-0.1, 0.2], "samples": 50})[0]
    )


def test_enough_labels_are_enough() -> None:
    """With as many labels as the words ask for, planted labels can be told from chance."""
    w, labels, _ = planted(30, 0.3)
    few = fit(w, labels, generator=GENERATOR, strength=0.1, examine=True)
    assert doubts_about({**few.report, "auc": 0.6, "auc_interval": [0.4, 0.8]})
    curve = [(12, 0.6), (24, 0.55)]
    assert gain_of_doubling(curve) is None  # not 0.0, as if more labels brought nothing
    w, labels, _ = planted(400, 0.3)
    assert doubts_about(fit(w, labels, generator=GENERATOR, strength=0.1).report) == []


def test_progress_is_shown_from_the_first_photograph_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In equal parts, up to the end: looking at photographs, fits, and random pictures."""
    # another test may have left the random pictures' features, which then come in one part
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path))
    images, labels = torch.randn(40, 1, 16, 16), np.tile([0.0, 1.0], 20)
    images[1::2] += 0.5
    seen: list[tuple[int, int]] = []
    options: dict[str, Any] = {
        "generator": GENERATOR,
        "discriminator": tiny_discriminator(),
        "name": "light",
    }
    options["options"] = TransferOptions(samples=200)
    fit_from_photos(
        LabelledPhotos(images, labels),
        progress=lambda done, total: seen.append((done, total)),
        **options,
    )
    dones = [done for done, _ in seen]
    assert len({total for _, total in seen}) == 1
    assert dones == sorted(dones)
    assert 0 < dones[0] <= seen[0][1] / 10
    assert dones[-1] == seen[-1][1]
    steps = np.diff([0, *dones])
    assert steps.max() <= seen[0][1] / 10


def test_progress_of_classifiers_moves_with_their_photographs() -> None:
    """It stood still for as long as a classifier took, which is minutes for thousands of
    photographs."""
    images, labels = torch.randn(40, 1, 16, 16), np.tile([0.0, 1.0], 20)
    seen: list[tuple[int, int]] = []
    PhotoScores(
        tiny_discriminator(),
        [(images, labels)],
        [(images[:30], labels[:30])],
        lambda *now: seen.append(now),
    )
    dones = [done for done, _ in seen]
    assert dones == sorted(dones)
    assert 0 < dones[0] < seen[0][1] / 4
    assert dones[-1] == seen[-1][1]
    assert len(set(dones)) >= 5
