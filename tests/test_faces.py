"""Finding and cropping faces."""

import numpy as np
import pytest
from PIL import Image

from latentedit.cli.demo import portrait
from latentedit.errors import Error
from latentedit.faces import crop, find_faces, quad_for, quad_from_eyes, quad_of_window
from latentedit.images import open_image

FRAMING = {"kind": "face", "eyes": [[0.36, 0.47], [0.64, 0.47]]}


def test_finds_the_face_and_eyes_of_a_portrait() -> None:
    photo = open_image(portrait())
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
    photo = open_image(portrait())
    half = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.LANCZOS)
    full, small = (np.array(quad_for(p, FRAMING)) for p in (photo, half))
    side = np.linalg.norm(small[1] - small[0])
    assert np.abs(full / 2 - small).max() < 0.06 * side


def test_no_face() -> None:
    with pytest.raises(Error, match=r"wall.png: no face found; give the square around it with --crop X,Y,SIZE"):
        quad_for(Image.new("L", (200, 200), 128), FRAMING, "wall.png")
    with pytest.raises(Error, match="does not say how faces are framed"):
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
