"""Finding and cropping faces."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentedit.errors import Error
from latentedit.io.images import open_image
from latentedit.photo.alignment import (
    crop,
    quad_for,
    quad_from_eyes,
    quad_from_face,
    quad_of_window,
)
from latentedit.photo.face import DetectedFace
from latentedit.photo.faces import find_faces
from latentedit.photo.framing import FRAMINGS
from latentedit.photo.haar import find_by_cascade
from tests.helpers import hopper
from tests.onnx_files import yunet

FRAMING = {"kind": "face", "eyes": [[0.36, 0.47], [0.64, 0.47]]}


def test_finds_the_face_and_eyes_of_a_hopper() -> None:
    photo = open_image(hopper())
    face = find_faces(photo)[0]
    assert face.eyes_found
    for found, true in ((face.left_eye, (226, 192)), (face.right_eye, (302, 191))):
        assert np.hypot(found[0] - true[0], found[1] - true[1]) < 10
    quad = quad_for(photo, FRAMING)
    small = crop(photo, quad, 64)
    assert small.size == (64, 64)
    again = find_faces(small)[0]
    assert again.left_eye[0] / 64 == pytest.approx(0.36, abs=0.06)
    assert again.right_eye[1] / 64 == pytest.approx(0.47, abs=0.06)


def test_a_smaller_copy_gives_the_same_crop() -> None:
    photo = open_image(hopper())
    half = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.LANCZOS)
    full, small = (np.array(quad_for(p, FRAMING)) for p in (photo, half))
    side = np.linalg.norm(small[1] - small[0])
    assert np.abs(full / 2 - small).max() < 0.06 * side


def test_small_faces_of_large_photos() -> None:
    """A face of some 180 pixels in a photo of 3000 x 2000, which is 9 % of its shorter side."""
    portrait = open_image(hopper())
    true = find_by_cascade(portrait)[0]
    scale = 180 / true.box[2]
    small = portrait.resize(
        (round(portrait.width * scale), round(portrait.height * scale)), Image.Resampling.LANCZOS
    )
    y, x = np.mgrid[0:2000, 0:3000]
    soft = 128 + 50 * np.sin(x / 700) + 40 * np.cos(y / 500)
    scene = Image.fromarray(soft.astype(np.uint8)).convert(portrait.mode)
    scene.paste(small, (1900, 700))
    found = find_by_cascade(scene)[0]
    assert 150 < found.box[2] < 210
    for eye, place in ((found.left_eye, true.left_eye), (found.right_eye, true.right_eye)):
        assert np.hypot(eye[0] - 1900 - place[0] * scale, eye[1] - 700 - place[1] * scale) < 12


def test_no_face() -> None:
    with pytest.raises(
        Error, match=r"wall.png: no face found.*; add the square around it with crop=X,Y,SIZE"
    ):
        quad_for(Image.new("L", (200, 200), 128), FRAMING, "wall.png")
    with pytest.raises(Error, match="does not define the framing of faces"):
        quad_for(Image.new("L", (200, 200)), None)


def test_quad_puts_the_eyes_where_the_framing_has_them() -> None:
    quad = np.array(quad_from_eyes((10, 20), (30, 40), FRAMING))
    (ax, ay), (bx, by) = FRAMING["eyes"]
    for (fx, fy), eye in (((ax, ay), (10, 20)), ((bx, by), (30, 40))):
        place = quad[0] + fx * (quad[1] - quad[0]) + fy * (quad[3] - quad[0])
        assert place == pytest.approx(eye)
    assert np.dot(quad[1] - quad[0], quad[3] - quad[0]) == pytest.approx(0)  # square


def test_a_window_is_cut_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40), dtype=np.uint8)
    cut = crop(Image.fromarray(pixels), quad_of_window(5, 6, 16), 16)
    assert np.array_equal(np.asarray(cut), pixels[6:22, 5:21])


def test_resampling_keeps_place_and_brightness() -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 32:] = 200
    for quad, size in ((quad_of_window(0, 0, 64), 16), (quad_of_window(16, 16, 32), 64)):
        small = np.asarray(crop(Image.fromarray(pixels), quad, size)).astype(float)
        assert small[:, : size // 2 - 2].max() <= 1
        assert small[:, size // 2 + 2 :].min() >= 199
        assert small.mean() == pytest.approx(100, abs=3)
    beyond = np.asarray(crop(Image.fromarray(pixels), quad_of_window(-32, 0, 64), 64))
    assert beyond[0, 0] == 200  # reflected


def test_ffhq_alignment_in_closed_form() -> None:
    """The published steps, written out with vectors."""
    face = DetectedFace((0, 0, 1, 1), (310.0, 402.0), (420.0, 380.0), True, (385.0, 520.0))
    left, right, mouth = np.array(face.left_eye), np.array(face.right_eye), np.array(face.mouth)
    eyes, across = (left + right) / 2, right - left
    down = mouth - eyes
    x = across - np.array([-down[1], down[0]])
    x *= max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8) / np.hypot(*x)
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * down
    expected = [centre - x - y, centre + x - y, centre + x + y, centre - x + y]
    assert np.allclose(quad_from_face(face, FRAMINGS["ffhq"]), expected)
    # Without a mouth it is taken to be where an average one is, so that the eyes come to the usual
    # places.
    level = DetectedFace((0, 0, 1, 1), (300.0, 400.0), (400.0, 400.0), True)
    quad = np.array(quad_from_face(level, FRAMINGS["ffhq"]))
    side = quad[1, 0] - quad[0, 0]
    assert side == pytest.approx(400, rel=0.01)
    assert (300 - quad[0, 0]) / side == pytest.approx(0.375, abs=0.005)
    assert (400 - quad[0, 1]) / side == pytest.approx(0.475, abs=0.005)


def test_yunet_through_opencv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What OpenCV's detector returns a face: box, right eye, left eye, nose, right and left corner
    of the mouth, score."""
    rows = np.array(
        [
            [10, 20, 30, 40, 15, 30, 30, 31, 22, 40, 17, 50, 29, 52, 0.9],
            [50, 20, 60, 40, 60, 30, 90, 31, 75, 40, 64, 50, 88, 52, 0.8],
        ]
    )

    class Detector:
        @staticmethod
        def create(model: str, config: str, size: tuple[int, int]) -> "Detector":
            assert size == (200, 100)  # of which OpenCV makes multiples of 32
            return Detector()

        def detect(self, image: object) -> tuple[int, object]:
            return 1, rows

    monkeypatch.setattr("cv2.FaceDetectorYN", Detector)
    (tmp_path / "yunet.onnx").write_bytes(yunet(224, 128))
    faces = find_faces(Image.new("RGB", (200, 100)), tmp_path / "yunet.onnx")
    assert [face.box[2] for face in faces] == [60, 30]
    assert faces[0].left_eye == (60, 30)
    assert faces[0].mouth == (76, 51)
    with pytest.raises(Error, match="no such face detector; .*model fetch yunet"):
        find_faces(Image.new("L", (20, 20)), tmp_path / "none.onnx")


def test_a_file_that_is_no_detector(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(Error, match="not a YuNet face detector"):
        find_faces(Image.new("RGB", (200, 100)), tmp_path / "bad.onnx")
