"""The layer for notebooks: photos, faces and sliders."""

import io
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import latentedit
from latentedit.directions import Direction
from latentedit.inversion.projector import Inversion
from latentedit.io.images import to_pil
from latentedit.latent.editing import edit
from latentedit.latent.w_statistics import sample_z
from latentedit.model.model import Model
from tests.helpers import hopper, tiny_discriminator, tiny_generator

Face = latentedit.Face
OPTIONS = latentedit.InversionOptions(steps=1, method="adam")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_generator(), tiny_discriminator())


@pytest.fixture(scope="module")
def projector(model: Model) -> latentedit.Projector:
    settings = latentedit.ProjectorSettings(perceptual="discriminator")
    return latentedit.Projector(model, settings)


@pytest.fixture(scope="module")
def inverted(projector: latentedit.Projector) -> latentedit.Face:
    photo = latentedit.Photo(hopper(), crop=(100, 50, 300))
    return latentedit.invert(photo, model=projector, steps=1, method="adam")


@pytest.fixture
def face(
    inverted: latentedit.Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> latentedit.Face:
    """A face with a slider of its own, called ``grey-hair``."""
    monkeypatch.setenv("LATENTEDIT_DIRECTIONS", str(tmp_path / "mine"))
    vector = torch.nn.functional.normalize(torch.arange(12.0), dim=0)
    own = inverted.projector.fingerprint
    Direction("grey-hair", vector, 0.1, 0.7, own).save(tmp_path / "mine" / "grey-hair.safetensors")
    return inverted


def test_from_a_photo_to_an_edited_picture(face: latentedit.Face, model: Model) -> None:
    assert isinstance(face.image, Image.Image)
    assert face.image.size == (16, 16)
    assert face.sliders == ["grey-hair"]
    moved = face.edit(grey_hair=1.5)
    direction = latentedit.load_direction("grey-hair", face.latent.fingerprint)
    expected = edit(face.latent.ws, direction, 1.5)
    torch.testing.assert_close(moved.latent.ws, expected)
    assert moved.image == to_pil(moved.latent.render(model.generator))
    assert moved.score("grey-hair") - face.score("grey-hair") == pytest.approx(1.5, abs=1e-4)
    assert face.edit({"grey-hair": 1.5}).image == moved.image
    assert face.edit({"grey-hair": 1.5}, layers="coarse").image != moved.image
    again = moved.edit(grey_hair=-0.5)
    assert again.latent.settings["edits"] == ["grey-hair=1.5", "grey-hair=-0.5"]
    assert face.latent.settings.get("edits") is None


def test_strips_and_pasting(face: latentedit.Face) -> None:
    strip = face.sweep("grey-hair")
    assert strip.width > 5 * 128
    assert face.sweep("grey-hair", (-1, 1)).width < strip.width
    assert face.photo is not None
    pasted = face.edit(grey_hair=2).paste_back()
    assert pasted.size == face.photo.image.size
    outside = (0, 0, 90, 40)
    assert pasted.crop(outside).tobytes() == face.photo.image.crop(outside).tobytes()
    assert face.edit(grey_hair=2).paste_back(difference=True) != pasted
    same = np.asarray(face.paste_back(difference=True).convert("L"), dtype=int)
    assert np.abs(same - np.asarray(face.photo.image.convert("L"), dtype=int)).max() <= 1


def test_faces_are_saved_and_loaded(face: latentedit.Face, model: Model, tmp_path: Path) -> None:
    moved = face.edit(grey_hair=1)
    moved.save(tmp_path / "a.png")
    moved.save(tmp_path / "a.safetensors")
    with Image.open(tmp_path / "a.png") as written:
        assert written.tobytes() == moved.image.tobytes()
    loaded = Face.load(tmp_path / "a.safetensors", model, photo=hopper())
    assert loaded.image == moved.image
    assert loaded.paste_back().size == moved.paste_back().size
    with pytest.raises(latentedit.IncompatibleError, match="belongs to the generator"):
        Face.load(tmp_path / "a.safetensors", Model(tiny_generator(3)))
    with pytest.raises(latentedit.NotFoundError, match="does not know its photo"):
        Face.load(tmp_path / "a.safetensors", model).paste_back()


def test_they_display_themselves(face: latentedit.Face) -> None:
    assert face.photo is not None
    for shown in (face, face.photo):
        png = shown._repr_png_()
        assert png is not None
        assert Image.open(io.BytesIO(png)).size == shown.image.size


def test_texts_are_short(face: latentedit.Face, model: Model) -> None:
    assert repr(face.photo) == "Photo('grace_hopper.jpg', 512 x 600)"
    assert "of 'grace_hopper.jpg', grey-hair=1)" in repr(face.edit(grey_hair=1))
    result = face.projector.invert(torch.zeros(1, 1, 16, 16), OPTIONS)
    direction = latentedit.load_direction("grey-hair", face.latent.fingerprint)
    things = [model, model.generator, model.discriminator, result, face.latent, direction]
    for thing in [*things, face.projector]:
        assert len(repr(thing)) < 100
        assert "\n" not in repr(thing)
    assert repr(direction) == "Direction('grey-hair', w, sigma 0.7)"


def test_sources(projector: latentedit.Projector) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    photos = [
        latentedit.Photo(source, aligned=True)
        for source in (pixels, Image.fromarray(pixels), latentedit.Photo(pixels))
    ]
    pictures = [
        latentedit.invert(photo, model=projector, steps=1, method="adam").image for photo in photos
    ]
    assert pictures[0] == pictures[1] == pictures[2]


def test_a_photo_in_a_file_and_a_model_by_name(tmp_path: Path) -> None:
    face = latentedit.invert(str(hopper()), model="faces128", steps=0)
    assert face.image.size == (128, 128)
    assert face.photo is not None
    assert len(face.photo.faces) == 1
    assert "smile" in face.sliders
    smiling = face.edit(smile=2)
    assert smiling.image != face.image
    assert face.edit(smile=0).image == face.image
    assert latentedit.invert(hopper(), steps=0).projector is face.projector  # which is kept
    with pytest.raises(latentedit.NotFoundError, match=r"did you mean smile\?"):
        face.edit(smlie=1)
    with pytest.raises(latentedit.NotFoundError, match="face 2 does not exist, only 1 found"):
        latentedit.invert(latentedit.Photo(hopper(), face=2), steps=0)


anything: Any = latentedit  # wrong types are the point here
WRONG: list[tuple[Any, str]] = [
    (lambda face: anything.Photo(5), "a path, a PIL image, or a uint8 array"),
    (lambda face: anything.Photo(None), "a path, a PIL image, or a uint8 array"),
    (lambda face: anything.Photo(torch.zeros(3, 8, 8)), "a path, a PIL image, or a uint8"),
    (lambda face: anything.Photo("missing.jpg"), "missing.jpg: no such file"),
    (lambda face: anything.Photo(np.zeros((20, 20))), "got an array of float64"),
    (lambda face: anything.Photo(hopper(), face=0), "face must be a whole number from 1"),
    (lambda face: anything.Photo(hopper(), crop=(1, 2)), "crop must be "),
    (lambda face: anything.Photo(hopper(), crop="1,2,x"), "crop must be "),
    (lambda face: anything.Photo(hopper(), crop=(900, 0, 50)), "crop must be "),
    (lambda face: anything.Photo(hopper(), crop=(0, 0, 9), aligned=True), "exclude"),
    (lambda face: anything.load_image(5), "a path, a PIL image, or a uint8 array"),
    (lambda face: anything.load_model(5), "a name or a path of a model"),
    (lambda face: anything.load_model(None), "a name or a path of a model"),
    (lambda face: anything.load_direction(5), "a name or a path of a direction"),
    (lambda face: anything.load_latent(5), "a path of a latent file"),
    (lambda face: anything.invert(5), "a path, a PIL image, or a uint8 array"),
    (lambda face: anything.invert(hopper(), torch.zeros(1)), "names its other arguments"),
    (lambda face: anything.invert(hopper(), model=5), "model must be a name, a path, a Model"),
    (lambda face: anything.invert(hopper(), model="face128"), "did you mean faces128"),
    (lambda face: anything.invert(face.photo, model=face.projector, mask=1), "a Projector"),
    (lambda face: anything.edit([1, 2], face._direction("grey-hair"), 1), "ws must be a tensor"),
    (lambda face: face.edit(), "nothing to edit"),
    (lambda face: face.edit(grey_hair="much"), "the amount of grey_hair must be a number"),
    (lambda face: face.edit(grey_hair=True), "the amount of grey_hair must be a number"),
    (lambda face: face.edit(grey_hair=float("nan")), "finite"),
    (lambda face: face.edit(grey_hair=1, layers="corse"), "did you mean coarse"),
    (lambda face: face.sweep(5), "a slider must be a name, a path or a Direction"),
    (lambda face: face.sweep("grey-hair", 3), "amounts must be a sequence of numbers"),
    (lambda face: face.sweep("grey-hair", ()), "amounts must be a sequence of numbers"),
]


@pytest.mark.parametrize(("attempt", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_arguments(face: latentedit.Face, attempt: Any, message: str) -> None:
    with pytest.raises(latentedit.Error, match=message):
        attempt(face)


def test_the_form_with_tensors_is_as_it_was(model: Model) -> None:
    image = model.generator(sample_z(1, 12))
    rest: dict[str, Any] = {"steps": 1, "method": "adam", "perceptual": "discriminator"}
    a = latentedit.invert(model, image, "w", seed=1, **rest)
    assert isinstance(a, Inversion)
    assert a.space == "w"
    b = latentedit.invert(model=model, image=image, space="w", seed=1, **rest)
    assert torch.equal(a.ws, b.ws)
    alone = latentedit.invert(model.generator, image, discriminator=model.discriminator, **rest)
    assert alone.ws.shape == (1, 6, 12)


def test_progress(projector: latentedit.Projector, capsys: pytest.CaptureFixture[str]) -> None:
    photo = latentedit.Photo(hopper(), aligned=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        latentedit.invert(photo, model=projector, steps=2, method="adam", progress=True)
    assert "grace_hopper.jpg" in capsys.readouterr().err
    latentedit.invert(photo, model=projector, steps=2, method="adam")
    assert capsys.readouterr().err == ""


def test_version() -> None:
    assert latentedit.__version__ == version("latentedit")
