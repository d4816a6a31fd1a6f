"""What a judge sees of an edit, reports, and labels from anywhere."""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.directions import (
    Direction,
    OnnxClassifier,
    card,
    conditioned,
    effect_of_layers,
    fit_from_scores,
    load_direction,
    measure_effect,
    plot,
    propose_layers,
    question,
    read_labels,
    with_report,
)
from latentedit.directions.effects import Effect, moved_pictures
from latentedit.directions.report import compared
from latentedit.errors import Error
from latentedit.latent.editing import edit
from latentedit.latent.latent_file import Latent, render, save_latent
from latentedit.latent.w_statistics import sample_w, sample_z, style_statistics
from latentedit.metrics import Judge, save_judge
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from tests.helpers import complaint, onnx_mean, tiny_discriminator, tiny_generator, works

GENERATOR = tiny_generator()
NUM, DIM = GENERATOR.num_ws, GENERATOR.w_dim
WS = sample_w(GENERATOR, 24, seed=2)[:, None].expand(-1, NUM, -1)


@cache
def middle() -> float:
    """Return the mean brightness of the images of `WS`."""
    with torch.no_grad():
        return float(render(GENERATOR, WS).mean())


def brightness(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(1, 2, 3)) - middle()


@pytest.fixture(scope="module")
def bright() -> Direction:
    return fit_from_scores(brightness, generator=GENERATOR, name="bright", samples=600)


def test_effect_of_a_slider(bright: Direction) -> None:
    def darkness(images: torch.Tensor) -> torch.Tensor:
        return -brightness(images)

    effect = measure_effect(
        GENERATOR,
        bright,
        WS,
        brightness,
        others={"dark": darkness, "never": lambda x: -torch.ones(len(x))},
        discriminator=tiny_discriminator(),
        amounts=(-2, 2),
    )
    assert effect.amounts == (-2.0, 0.0, 2.0)
    share, count = effect.brought_over(2.0)
    by_hand = [moved_pictures(GENERATOR, bright, WS, a) for a in (0.0, 2.0)]
    other = brightness(by_hand[0]) <= 0
    assert count == int(other.sum())
    assert share == pytest.approx(float((brightness(by_hand[1]) > 0)[other].float().mean()))
    assert share > 0.5
    # What one calls bright the other calls not dark, so both change in the same pictures.
    changed = float(((brightness(by_hand[0]) > 0) != (brightness(by_hand[1]) > 0)).float().mean())
    assert effect.side_effects(2.0) == {"dark": pytest.approx(changed), "never": 0.0}
    assert effect.whole() is not None
    assert effect.recognised is not None
    assert effect.recognised[1] == 1.0
    facts = effect.summary()
    assert facts["yes"] == sorted(facts["yes"])
    with pytest.raises(Error, match=r"not measured at 1.0"):
        effect.brought_over(1.0)


def test_pictures_are_whole_as_long_as_few_are_broken() -> None:
    # shares at -3 ... 3; what lies beyond a gap does not count
    broken = np.array([0.9, 0.15, 0.0, 0.0, 0.12, 0.5, 0.0])
    domain = np.array([[2.0] * round(100 * b) + [0.5] * (100 - round(100 * b)) for b in broken])
    amounts = tuple(float(a) for a in range(-3, 4))
    effect = Effect(amounts, np.zeros((7, 100)), {}, domain)
    assert effect.whole() == (-1.0, 0.0)
    assert Effect(amounts, np.zeros((7, 100)), {}, None).whole() is None


def test_moved_pictures_in_every_space(bright: Direction) -> None:
    torch.testing.assert_close(
        moved_pictures(GENERATOR, bright, WS[:1], 1.5),
        GENERATOR.synthesis(edit(WS[:1], bright, 1.5)),
    )
    _, std = style_statistics(GENERATOR)
    one = torch.zeros(len(std)).index_fill(0, std.argmax(), 1.0)
    styled = Direction("s", one, 0.0, 1.0, bright.fingerprint, space="s", scale=std.clamp(min=1e-6))
    torch.testing.assert_close(
        moved_pictures(GENERATOR, styled, WS[:2], 0.0), GENERATOR.synthesis(WS[:2])
    )
    assert not torch.allclose(
        moved_pictures(GENERATOR, styled, WS[:2], 2.0), GENERATOR.synthesis(WS[:2]), atol=1e-4
    )
    z = sample_z(3, GENERATOR.z_dim, 2)
    in_z = Direction("z", torch.eye(GENERATOR.z_dim)[0], 0.0, 1.0, bright.fingerprint, space="z")
    moved = z.clone()
    moved[:, 0] += 2
    torch.testing.assert_close(
        moved_pictures(GENERATOR, in_z, z, 2.0), GENERATOR.synthesis(GENERATOR.mapping(moved))
    )


def test_where_in_the_network_it_lives(bright: Direction) -> None:
    effects = effect_of_layers(GENERATOR, bright, WS, brightness)
    assert len(effects) == NUM
    row = int(np.argmax(effects))
    alone = float(
        brightness(GENERATOR.synthesis(edit(WS, bright, 2.0, (row, row)))).mean()
        - brightness(GENERATOR.synthesis(WS)).mean()
    )
    assert effects[row] == pytest.approx(alone, abs=1e-3)
    assert propose_layers([0.0, 0.1, 2.0, 1.0, 0.05]) == (2, 3)
    assert propose_layers([0.0, -2.0, 0.5, -1.0]) == (1, 3)
    assert propose_layers([1.0, 1.0, 1.0]) == (0, 2)
    with pytest.raises(Error, match="no layer has any effect"):
        propose_layers([0.0, 0.0])


def test_questions_to_a_judge() -> None:
    torch.manual_seed(0)
    judge = Judge(1, 16, {"glasses": ("no", "yes"), "pose": ("straight", "left", "right")}).eval()
    images = torch.randn(5, 1, 16, 16)
    logits = judge(images)
    assert torch.equal(question(judge, "glasses")(images), logits["glasses"])
    assert torch.equal(question(judge, "glasses", "no")(images), -logits["glasses"])
    assert torch.equal(
        question(judge, "pose", "left", "right")(images),
        logits["pose"][:, 1] - logits["pose"][:, 2],
    )
    against_all = question(judge, "pose", "left")(images)
    odds = torch.softmax(logits["pose"], dim=1)[:, 1]
    torch.testing.assert_close(against_all, torch.log(odds / (1 - odds)))
    for head, yes, message in (
        ("hair", None, "this classifier has the attributes glasses, pose"),
        ("pose", "up", "the classes straight"),
        ("pose", None, "choose one"),
    ):
        with pytest.raises(Error, match=message):
            question(judge, head, yes)


def test_report_card_and_curves(bright: Direction, tmp_path: Path) -> None:
    effect = measure_effect(
        GENERATOR,
        bright,
        WS,
        brightness,
        others={"x": lambda i: i[:, 0, 0, 0]},
        discriminator=tiny_discriminator(),
        amounts=(-2, 2),
    )
    other = Direction(
        "other",
        torch.nn.functional.normalize(bright.vector + 0.5 * torch.eye(DIM)[0], dim=0),
        0.0,
        1.0,
        bright.fingerprint,
    )
    by_layer = [0.0, 1.0, 3.0, *[0.0] * (NUM - 3)]
    d = with_report(bright, GENERATOR, others=[bright, other], effect=effect, by_layer=by_layer)
    assert set(d.report["leakage"]) == {"other"}
    text = card(d)
    for piece in (
        "# bright",
        "AUC of the probe",
        "success rate at +2 sigmas",
        "side effects at",
        "other +",
        "nine tenths of the effect | 1-2",
        "identity preservation",
    ):
        assert piece in text, piece
    assert math.prod(plot(d).size) > math.prod(plot(bright).size)
    d.save(tmp_path / "d.safetensors")
    assert load_direction(tmp_path / "d.safetensors").report == json.loads(json.dumps(d.report))
    table = compared([d, other], GENERATOR)
    assert "| bright | w | AUC" in table
    assert table.count("+1.00") == 2  # a sigma moves one's own score by a sigma


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTEDIT_DIRECTIONS", str(tmp_path / "mine"))
    model, judge = tmp_path / "tiny.safetensors", tmp_path / "judge.safetensors"
    save_model(model, Model(GENERATOR, tiny_discriminator(), None, {}))
    torch.manual_seed(0)
    save_judge(
        judge,
        Judge(1, 16, {"smile": ("no", "yes"), "pose": ("straight", "left", "right")}).eval(),
        {},
    )
    own = fingerprint(GENERATOR)
    ws = sample_w(GENERATOR, 40, seed=6)
    rows = ["file,person,smile,hair"]
    for i, w in enumerate(ws):
        save_latent(
            tmp_path / f"{i}.safetensors",
            Latent(w[None, None].repeat(1, NUM, 1), None, own, "w", settings={"seed": i}),
        )
        rows.append(
            f"{i}.safetensors,p{i % 8},{int(w[0] > ws[:, 0].median())},"
            f"{'long' if w[1] > ws[:, 1].median() else 'short'}"
        )
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    table, mine = tmp_path / "labels.csv", tmp_path / "mine"
    mine.mkdir()
    told = works(
        "directions",
        "fit",
        table,
        "--column",
        "smile",
        "--model",
        model,
        "--out",
        mine / "smile.safetensors",
    ).output
    for piece in ("probe logistic", "auc_interval", "learning_curve", "angle"):
        assert piece in " ".join(told.split()), piece
    works(
        "directions",
        "fit",
        table,
        "--column",
        "hair",
        "--order",
        "short,long",
        "--model",
        model,
        "--keep",
        "smile",
        "--group",
        "person",
        "--out",
        mine / "hair.safetensors",
    )
    assert load_direction(mine / "hair.safetensors").report["kept"] == ["smile"]
    for space in ("w+", "s", "z"):
        works(
            "directions",
            "fit",
            table,
            "--column",
            "smile",
            "--model",
            model,
            "--space",
            space,
            "--probe",
            "svc",
            "--out",
            tmp_path / f"{space}.safetensors",
        )
        assert load_direction(tmp_path / f"{space}.safetensors").space == space
    works(
        "directions",
        "fit",
        table,
        "--column",
        "hair",
        "--each",
        "--model",
        model,
        "--out",
        tmp_path / "each",
    )
    assert {p.name for p in (tmp_path / "each").iterdir()} == {
        "hair-long.safetensors",
        "hair-short.safetensors",
    }
    told = works(
        "directions",
        "report",
        "smile",
        "--model",
        model,
        "--judge",
        judge,
        "--pictures",
        6,
        "--out",
        tmp_path / "r",
    ).output
    assert "effect" in told
    for ending in ("safetensors", "md", "png"):
        assert (tmp_path / "r" / f"smile.{ending}").is_file()
    assert "hair" in (tmp_path / "r" / "smile.md").read_text()
    assert "changes" in works("directions", "compare", "smile", "hair", "--model", model).output
    works(
        "directions",
        "condition",
        "smile",
        "--keep",
        "hair",
        "--model",
        model,
        "--out",
        tmp_path / "alone.safetensors",
    )
    twin = Direction("far", torch.eye(DIM)[0], 0.0, 1.0, own)
    away = conditioned(
        twin,
        [load_direction(mine / "smile.safetensors"), load_direction(mine / "hair.safetensors")],
        GENERATOR,
    )
    away.save(tmp_path / "far.safetensors")
    told = works(
        "directions",
        "condition",
        tmp_path / "far.safetensors",
        "--keep",
        "auto",
        "--model",
        model,
        "--out",
        tmp_path / "same.safetensors",
    ).output
    assert "nothing to keep" in told
    assert torch.equal(load_direction(tmp_path / "same.safetensors").vector, away.vector)
    for words, message in [
        (("fit", "--out", "x.safetensors"), "give either labels"),
        (
            (
                "fit",
                table,
                "--column",
                "hair",
                "--each",
                "--order",
                "a,b",
                "--model",
                model,
                "--out",
                "x",
            ),
            "--each fits every class",
        ),
        (
            (
                "fit",
                table,
                "--column",
                "hair",
                "--order",
                "long",
                "--model",
                model,
                "--out",
                "x.safetensors",
            ),
            "not in the order long",
        ),
        (
            (
                "fit",
                "--classifier",
                "absent.onnx",
                "--name",
                "x",
                "--model",
                model,
                "--out",
                "x.safetensors",
            ),
            "no such file",
        ),
        (("fit", table, "--out", "x.safetensors"), "name it with --column"),
        (
            ("condition", "smile", "--keep", "smile", "--model", model, "--out", "x.safetensors"),
            "nothing of smile is left",
        ),
        (
            ("condition", "smile", "--keep", "absent", "--model", model, "--out", "x.safetensors"),
            "direction of this name",
        ),
        (
            ("report", "smile", "--model", model, "--judge", judge, "--ask", "beard", "--out", "x"),
            "this classifier has the attributes smile, pose",
        ),
        (
            ("report", "smile", "--model", model, "--judge", judge, "--ask", "pose", "--out", "x"),
            "choose one",
        ),
        (("report", "hair", "--out", "x"), "no direction"),
    ]:
        assert message in complaint("directions", *words), words


def test_labels_from_folders_and_degrees(tmp_path: Path) -> None:
    for side in ("left", "right"):
        (tmp_path / "sides" / side).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (8, 8)).save(tmp_path / "sides" / side / f"{i}.png")
    table = read_labels(tmp_path / "sides", positive=["left"])
    assert table.values.tolist() == [1, 1, 0, 0]
    assert [p.parent.name for p in table.paths] == ["left", "left", "right", "right"]
    with pytest.raises(Error, match="neither columns nor groups"):
        read_labels(tmp_path / "sides", "pose")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Error, match="two or more sub-folders"):
        read_labels(tmp_path / "empty")
    for i in range(4):
        Image.new("L", (8, 8)).save(tmp_path / f"{i}.png")
    csv = tmp_path / "labels.csv"
    csv.write_text("file,hair\n0.png,none\n1.png,long\n2.png,short\n3.png,nan\n0.png,none\n")
    assert read_labels(csv, "hair", order=("none", "short", "long")).values.tolist() == [0, 2, 1]
    csv.write_text("file,hair\n0.png,none\n1.png,long\n0.png,long\n")
    with pytest.raises(Error, match=r"line 4: 0.png is 'long' here and 'none' before"):
        read_labels(csv, "hair", positive=["long"])
    csv.write_text("file,hair\n0.png,inf\n1.png,3\n")
    with pytest.raises(Error, match="not a finite number"):
        read_labels(csv, "hair")


def test_a_classifier_in_an_onnx_file(tmp_path: Path) -> None:
    onnx_mean(tmp_path / "mean.onnx", 16)
    classifier = OnnxClassifier(tmp_path / "mean.onnx", size=16, prepare="signed", channels=1)
    images = moved_pictures(
        GENERATOR, fit_from_scores(classifier, generator=GENERATOR, name="x", samples=50), WS, 0.0
    )
    np.testing.assert_allclose(
        classifier(images), images.clamp(-1, 1).mean(dim=(1, 2, 3)).numpy(), atol=1e-5
    )
    unit = OnnxClassifier(tmp_path / "mean.onnx", size=16, prepare="unit", channels=1)
    np.testing.assert_allclose(unit(images), (classifier(images) + 1) / 2, atol=1e-5)
    with pytest.raises(Error, match="there is no output 3"):
        OnnxClassifier(tmp_path / "mean.onnx", output=3, size=16, prepare="unit", channels=1)(
            images
        )
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(Error, match="not an ONNX network, or damaged"):
        OnnxClassifier(tmp_path / "bad.onnx")
    model = tmp_path / "tiny.safetensors"
    save_model(model, Model(GENERATOR, tiny_discriminator(), None, {}))
    works(
        "directions",
        "fit",
        "--classifier",
        tmp_path / "mean.onnx",
        "--name",
        "bright",
        "--size",
        16,
        "--grey",
        "--prepare",
        "signed",
        "--samples",
        200,
        "--model",
        model,
        "--out",
        tmp_path / "bright.safetensors",
    )
    found = load_direction(tmp_path / "bright.safetensors")
    assert found.provenance["classifier"] == "mean.onnx"
    assert float(brightness(moved_pictures(GENERATOR, found, WS, 2.0)).mean()) > float(
        brightness(moved_pictures(GENERATOR, found, WS, -2.0)).mean()
    )
