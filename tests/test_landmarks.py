"""Faces by dlib's 68 landmarks, and what is said where the cascades alone find them doubtful."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

from latentedit.cli.main import main
from latentedit.errors import Error
from latentedit.io.images import open_image
from latentedit.photo import faces, haar, landmarks
from latentedit.photo.alignment import quad_for, quad_from_face
from latentedit.photo.face import DetectedFace
from latentedit.photo.faces import find_by_landmarks, find_faces, warnings_of
from latentedit.photo.framing import FRAMINGS
from latentedit.photo.haar import find_by_cascade
from latentedit.photo.landmarks import EXTRA, centres, describe, find_landmarks, has_landmarks
from tests.helpers import hopper

with_extra = pytest.mark.skipif(
    not has_landmarks(), reason=f"dlib and its predictor are not installed ({EXTRA})"
)


def made_face() -> Any:
    """68 landmarks of an upright face whose eye centres are 100 apart, in round numbers."""
    points = np.zeros((68, 2))
    points[0], points[16] = (-115, 0), (115, 10)
    points[30] = (7, 60)
    for first, x in ((36, -50), (42, 50)):
        # Corners at +-20, lids at +-6: an aspect ratio of 12 / 40.
        points[first : first + 6] = [
            (x - 20, 0),
            (x - 8, -6),
            (x + 8, -6),
            (x + 20, 0),
            (x + 8, 6),
            (x - 8, 6),
        ]
    points[48], points[54] = (-40, 100), (40, 100)
    points[51], points[57] = (0, 95), (0, 125)
    points[61:64] = [(-10, 104), (0, 103), (10, 104)]
    points[65:68] = [(10, 113), (0, 115), (-10, 113)]
    return points


def turned(points: Any, degrees: float, scale: float, shift: tuple[float, float]) -> Any:
    turn = scale * np.exp(1j * np.radians(degrees))
    moved = (points @ [1, 1j]) * turn + complex(*shift)
    return np.stack([moved.real, moved.imag], axis=1)


def test_ffhq_square_of_68_landmarks() -> None:
    """Eyes 100 apart and level, mouth 100 below their middle: half the square is max(2 x 100, 1.8 x
    100)."""
    left, right, mouth = centres(made_face())
    assert left == pytest.approx((-50, 0))
    assert right == pytest.approx((50, 0))
    assert mouth == pytest.approx((0, 100))
    face = DetectedFace((0, 0, 1, 1), left, right, True, mouth)
    expected = np.array([[-200, -190], [200, -190], [200, 210], [-200, 210]])
    assert np.allclose(quad_from_face(face, FRAMINGS["ffhq"]), expected)

    # A mouth farther away decides the size: 1.8 x 150.
    long = DetectedFace((0, 0, 1, 1), left, right, True, (0, 150))
    quad = np.array(quad_from_face(long, FRAMINGS["ffhq"]))
    assert quad[1, 0] - quad[0, 0] == pytest.approx(2 * 1.8 * 150)

    again = centres(turned(made_face(), 20, 3, (400, 300)))
    tilted = np.array(
        quad_from_face(
            DetectedFace((0, 0, 1, 1), again[0], again[1], True, again[2]), FRAMINGS["ffhq"]
        )
    )
    assert np.allclose(tilted, turned(expected, 20, 3, (400, 300)))


def test_what_are_no_landmarks() -> None:
    with pytest.raises(
        Error, match=r"must be 68 points of two numbers, got an array of shape \(5, 2\)"
    ):
        centres(np.zeros((5, 2)))


@with_extra
@pytest.mark.parametrize("scale", [0.3, 1, 4])
def test_landmarks_of_a_portrait_of_any_size(scale: float) -> None:
    photo = open_image(hopper())
    photo = photo.resize(
        (round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS
    )
    (face,) = find_faces(photo)
    assert face.landmarks is not None
    assert face.landmarks.shape == (68, 2)
    assert not face.doubts
    for found, true in ((face.left_eye, (226, 192)), (face.right_eye, (302, 191))):
        assert np.hypot(found[0] / scale - true[0], found[1] / scale - true[1]) < 7


@with_extra
def test_a_small_face_and_the_largest_first() -> None:
    """Two copies of a portrait in a photo of 2400 pixels, the smaller face some 85 pixels wide: too
    small in the first pass."""
    one = open_image(hopper()).convert("RGB")
    photo = Image.new("RGB", (2400, 1600), (90, 110, 130))
    small = one.resize((round(one.width * 0.4), round(one.height * 0.4)), Image.Resampling.LANCZOS)
    photo.paste(small, (100, 100))
    (alone,) = find_landmarks(photo)
    photo.paste(one.resize((one.width * 2, one.height * 2), Image.Resampling.LANCZOS), (1000, 200))
    found = find_by_landmarks(photo)
    assert found[0].left_eye[0] > 1000
    assert centres(alone)[0] == pytest.approx((100 + 226 * 0.4, 100 + 192 * 0.4), abs=4)


@with_extra
def test_a_face_is_known_again() -> None:
    photo = Image.open(hopper()).convert("RGB").crop((130, 40, 420, 330))
    small = [photo.resize((size, size)) for size in (128, 150)]
    one, other = (describe(image) for image in small)
    mirrored = describe(ImageOps.mirror(small[0]))
    assert one is not None
    assert other is not None
    assert mirrored is not None
    assert one.shape == (128,)
    assert np.linalg.norm(one - other) < 0.3
    assert 0 < np.linalg.norm(one - mirrored) < 0.6
    assert describe(Image.new("RGB", (128, 128), (90, 120, 30))) is None


@with_extra
def test_nothing_is_no_face() -> None:
    assert find_landmarks(Image.new("L", (200, 200), 128)) == []
    assert find_faces(Image.new("L", (3, 3000), 128)) == []


def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """dlib cannot be imported, as where the extra was never installed."""
    monkeypatch.setitem(sys.modules, "dlib", None)
    monkeypatch.setattr(landmarks, "_model_file", lambda name: None)
    landmarks._tools.cache_clear()


def test_without_dlib_the_cascades_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    without_extra(monkeypatch)
    assert not has_landmarks()
    (face,) = find_faces(open_image(hopper()))
    assert face.landmarks is None
    assert face.eyes_found
    assert not face.doubts
    assert warnings_of(face) == []
    with pytest.raises(
        Error, match=r'68 landmarks need dlib and its predictor.*pip install "latentedit\[faces\]"'
    ):
        find_landmarks(Image.new("RGB", (100, 100)))
    with pytest.raises(
        Error, match=r'no face found.*; .*; pip install "latentedit\[faces\]" finds more'
    ):
        quad_for(Image.new("L", (200, 200), 128), FRAMINGS["ffhq"])


def test_an_opencv_without_cascades_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    haar._cascade.cache_clear()
    monkeypatch.delattr("cv2.CascadeClassifier")
    with pytest.raises(Error, match=r"OpenCV .* has no cascades.*install opencv-python<5"):
        find_by_cascade(Image.new("RGB", (100, 100)))


def test_where_dlib_sees_nothing_the_cascades_serve_with_a_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faces, "has_landmarks", lambda: True)
    monkeypatch.setattr(faces, "find_landmarks", lambda *_: [])
    (face,) = find_faces(open_image(hopper()))
    assert face.doubts == ("dlib found no face, only OpenCV's cascades did",)
    assert warnings_of(face)[0].endswith("; check the crop, or add landmarks or crop")


def hidden_eyes() -> Image.Image:
    """The portrait with a bar over its eyes."""
    photo = open_image(hopper()).convert("RGB")
    photo.paste((150, 120, 110), (205, 178, 325, 206))
    return photo


def test_doubtful_hits_have_reasons() -> None:
    found = find_by_cascade(hidden_eyes())
    assert found
    assert not found[0].eyes_found
    assert "no eyes found" in found[0].doubts

    tilted = (
        open_image(hopper()).convert("RGB").rotate(24, Image.Resampling.BICUBIC, center=(264, 200))
    )
    assert all(face.doubts for face in find_by_cascade(tilted))


@pytest.mark.parametrize("command", ["align", "invert"])
def test_doubts_are_told_with_the_way_out(
    command: str, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_extra(monkeypatch)
    hidden_eyes().save(tmp_path / "bar.png")
    arguments = [
        command,
        str(tmp_path / "bar.png"),
        "--model",
        str(tiny_file),
        "--out",
        str(tmp_path / "out"),
    ]
    options = ["--steps", "1", "--method", "adam", "--json"] if command == "invert" else []
    result = CliRunner().invoke(main, [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert re.search(r"bar\.png: the face may be framed wrongly: .*no eyes found", result.stderr)
    assert 'pip install "latentedit[faces]" aligns by 68 landmarks' in result.stderr
    if command == "invert":
        remarks = json.loads(result.stdout)["remarks"]
        assert any("no eyes found" in remark for remark in remarks)


@pytest.mark.data
@with_extra
def test_photographs_are_framed_as_ffhq_was(shared_data: Path) -> None:
    """Every sixth of the whole photographs, with the extra; benchmarks/framing.py has the table of
    all."""
    folder = shared_data / "portraits" / "held_out_photos"
    squares = json.loads((folder / "quads.json").read_text())
    offsets = []
    for name in sorted(squares)[::6]:
        square = np.array(squares[name])[[0, 3, 2, 1]]
        quad = np.array(quad_from_face(find_faces(open_image(folder / name))[0], FRAMINGS["ffhq"]))
        offsets.append(
            np.linalg.norm(quad - square, axis=1).mean() / np.linalg.norm(square[1] - square[0])
        )
    assert np.median(offsets) < 0.0075
    assert max(offsets) < 0.05
