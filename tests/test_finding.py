"""Which faces of a photo are found, and what is said of them: several, small, and turned ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentedit.io.images import open_image
from latentedit.photo import faces as faces_module
from latentedit.photo.alignment import quad_for, quad_from_face
from latentedit.photo.face import DetectedFace
from latentedit.photo.faces import find_by_landmarks, find_faces, notes_on
from latentedit.photo.framing import FRAMINGS
from latentedit.photo.haar import find_by_cascade
from latentedit.photo.landmarks import EXTRA, has_landmarks
from latentedit.photo.turning import TURNS, turned, turned_back
from tests.helpers import complaint, hopper, run, works

with_extra = pytest.mark.skipif(not has_landmarks(), reason=f"dlib is not installed ({EXTRA})")
FFHQ = FRAMINGS["ffhq"]


def scene(*places: tuple[float, int, int], size: tuple[int, int] = (1200, 800)) -> Image.Image:
    """A soft background with the portrait of a person at each of ``places``: scale, left and
    top."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    soft = 128 + 50 * np.sin(x / 700) + 40 * np.cos(y / 500)
    picture = Image.fromarray(soft.astype(np.uint8)).convert("RGB")
    portrait = open_image(hopper())
    for scale, left, top in places:
        sides = (round(portrait.width * scale), round(portrait.height * scale))
        picture.paste(portrait.resize(sides, Image.Resampling.LANCZOS), (left, top))
    return picture


@pytest.fixture(params=["cascades", pytest.param("landmarks", marks=with_extra)])
def finder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Faces are found by one way of finding them."""
    monkeypatch.setattr(faces_module, "has_landmarks", lambda: request.param == "landmarks")
    return str(request.param)


@pytest.mark.parametrize("degrees", TURNS)
def test_places_are_turned_back(degrees: int) -> None:
    """Single bright pixels are where the turned face's places say, once these are turned back."""
    pixels = np.zeros((30, 50), np.uint8)
    places = {"left_eye": (12, 9), "right_eye": (31, 8), "mouth": (20, 22)}
    for number, (x, y) in enumerate(places.values(), 1):
        pixels[y, x] = number
    view = np.asarray(turned(Image.fromarray(pixels), degrees))
    seen = []
    for number in (1, 2, 3):
        (row,), (column,) = np.nonzero(view == number)
        seen.append((column + 0.5, row + 0.5))
    box = (2.0, 3.0, 10.0, 4.0)
    marks = np.array(seen * 22 + seen[:2])
    face = turned_back(DetectedFace(box, seen[0], seen[1], True, seen[2], marks), degrees, (50, 30))
    for name, (x, y) in places.items():
        assert getattr(face, name) == (x + 0.5, y + 0.5)
    assert face.landmarks is not None
    assert face.landmarks[2].tolist() == [20.5, 22.5]
    assert face.turned == degrees

    # The box: what is cut out of the turned image is what is cut out of the image as it is.
    cut = view[3:7, 2:12]
    left, top, width, height = (round(side) for side in face.box)
    own = pixels[top : top + height, left : left + width]
    assert np.array_equal(np.asarray(turned(Image.fromarray(own), degrees)), cut)


@pytest.mark.slow
@pytest.mark.parametrize("degrees", TURNS)
def test_photos_on_their_side_and_upside_down(finder: str, degrees: int) -> None:
    photo = open_image(hopper())
    upright = np.array(quad_for(photo, FFHQ))
    view = turned(photo, 360 - degrees)  # so that it has to be turned by degrees to be upright
    found = find_faces(view)
    assert found[0].turned == degrees
    quad = np.array(quad_from_face(found[0], FFHQ))
    # The corners, turned as the photo was, are those of the upright photo.
    points = [
        turned_back(
            DetectedFace((0, 0, 1, 1), (x, y), (x, y), True), 360 - degrees, photo.size
        ).left_eye
        for x, y in quad.tolist()
    ]
    side = np.linalg.norm(upright[1] - upright[0])
    assert np.abs(np.array(points) - upright).max() < 0.05 * side
    how = "is upside down" if degrees == 180 else "lies on its side"
    assert notes_on(found, 1) == [
        f"the photo {how}; the face was found after turning it by {degrees} degrees"
    ]


def test_an_upright_face_is_left_as_it_is(finder: str) -> None:
    (face, *_) = find_faces(open_image(hopper()))
    assert face.turned == 0
    assert notes_on([face], 1) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "find", [find_by_cascade, pytest.param(find_by_landmarks, marks=with_extra)]
)
def test_faces_of_a_thirtieth_of_the_shorter_side(
    find: Callable[[Image.Image], list[DetectedFace]],
) -> None:
    scale = 90 / find_by_cascade(open_image(hopper()))[0].box[2]
    photo = scene((scale, 2900, 1500), size=(3600, 2600))
    (face, *_) = find(photo)
    eyes = np.array([face.left_eye, face.right_eye])
    expected = np.array([(226, 192), (302, 191)]) * scale + (2900, 1500)
    assert np.abs(eyes - expected).max() < 0.12 * 90
    assert face.certain


@pytest.mark.slow
def test_several_faces_are_counted_and_said(finder: str, tmp_path: Path, tiny_file: Path) -> None:
    path = tmp_path / "three.jpg"
    model = ["--model", tiny_file]
    scene((0.5, 30, 100), (1.0, 350, 80), (0.6, 900, 300)).save(path, quality=95)
    told = works("align", path, *model, "--out", tmp_path / "crops").stderr
    assert "three.jpg: 3 faces; took the largest, --face 2 for the next\n" in told
    assert "3 faces" not in works("-q", "align", path, *model, "--out", tmp_path / "quiet").stderr
    words = ["align", path, *model, "--face", "2", "--out", tmp_path / "second"]
    assert "took the largest" not in works(*words).stderr
    first, second = find_faces(open_image(path))[:2]
    assert first.box[2] > second.box[2] > 0.5 * first.box[2]
    a, b = ((tmp_path / name / "three.png").read_bytes() for name in ("crops", "second"))
    assert a != b
    said = complaint("align", path, *model, "--face", "4", "--out", tmp_path / "none")
    assert "face 4 does not exist, only 3 found" in said


@pytest.mark.slow
def test_a_smaller_face_is_looked_for_when_it_is_asked_for(finder: str) -> None:
    """The larger face is found at the first look, which is too coarse for the other."""
    photo = scene((1.6, 100, 100), (0.45, 2700, 1500), size=(3200, 2200))
    assert len([face for face in find_faces(photo) if face.certain]) == 1
    both = find_faces(photo, number=2)
    assert both[1].left_eye == pytest.approx((226 * 0.45 + 2700, 192 * 0.45 + 1500), abs=6)


def test_an_inversion_says_what_it_took(finder: str, tmp_path: Path) -> None:
    photo = tmp_path / "head.png"
    turned(open_image(hopper()), 180).save(photo)
    result = run("invert", photo, "--steps", "0", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "head.png: the photo is upside down; the face was found after turning" in result.stderr
