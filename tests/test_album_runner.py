"""The runner of an album: what it tells, and which photos it takes for done when files that options
name have changed."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentedit.album.cropping import Cropping
from latentedit.album.index import Index
from latentedit.album.options import AlbumOptions
from latentedit.album.runner import AlbumRunner, Finished, Listener
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_model
from latentedit.inversion.encoder import Encoder, EncoderConfig
from latentedit.inversion.options import InversionOptions, ProjectorSettings
from latentedit.inversion.projector import Projector, SearchStep
from latentedit.model.native import save_encoder
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.alignment import quad_of_window
from latentedit.photo.framing import Framed
from latentedit.photo.landmarks import has_landmarks
from tests.helpers import works

STEPS = 2


def draw(path: Path, number: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.linear_gradient("L").rotate(30 * number).resize((20, 20)).save(path)
    return path


def draw_mask(path: Path, width: int) -> Path:
    mask = Image.new("L", (16, 16))
    mask.paste(255, (0, 0, width, 16))
    mask.save(path)
    return path


def whole(photo: Image.Image, _: Path) -> list[Framed]:
    return [Framed("", quad_of_window(0, 0, photo.width), [])]


class Heard(Listener):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.steps: list[int] = []
        self.faces: list[Finished] = []

    def began(self, what: str, total: int | None) -> None:
        self.events.append(("began", what))

    def ended(self) -> None:
        self.events.append(("ended",))

    def stepped(self, step: int, total: int) -> None:
        self.steps.append(step)

    def skipped(self, photo: Path, latent: str) -> None:
        self.events.append(("skipped", photo.name, latent))

    def failed(self, photo: Path, message: str) -> None:
        self.events.append(("failed", photo.name, message))

    def finished(self, face: Finished) -> None:
        self.faces.append(face)


@pytest.fixture
def projector(tiny_file: Path) -> Projector:
    return Projector(load_model(tiny_file), ProjectorSettings("discriminator"))


def quickly(**changes: Any) -> AlbumOptions:
    return AlbumOptions(
        InversionOptions(method="adam", steps=STEPS), Cropping(aligned=True), **changes
    )


def test_an_album_is_made_without_a_command(projector: Projector, tmp_path: Path) -> None:
    photos = [draw(tmp_path / "photos" / f"{number}.png", number) for number in range(2)]
    bad = tmp_path / "photos" / "bad.png"
    bad.write_text("no image")
    heard = Heard()
    runner = AlbumRunner(
        projector, tmp_path / "album", quickly(batch=1), crops=whole, listener=heard
    )
    runner.run([photos[0], bad, photos[1]])
    assert runner.done == 2
    assert [photo for photo, _ in runner.failures] == [bad]
    assert "not an image" in runner.failures[0][1]

    assert [event for event in heard.events if event[0] != "failed"] == [
        ("began", "0.png"),
        ("ended",),
        ("began", "1.png"),
        ("ended",),
    ]
    assert heard.steps == [1, 2, 1, 2]
    assert [face.name for face in heard.faces] == ["0", "1"]
    for face in heard.faces:
        assert all(path.is_file() for path in face.written)
        assert torch.equal(load_latent(face.written[0]).ws, face.latent.ws)
    assert (tmp_path / "album" / "sheet.png").is_file()

    heard.events.clear()
    again = AlbumRunner(
        projector, tmp_path / "album", quickly(batch=1), crops=whole, listener=heard
    )
    again.run(photos)
    assert again.done == 0
    assert heard.events == [
        ("skipped", "0.png", "0.safetensors"),
        ("skipped", "1.png", "1.safetensors"),
    ]


def test_stopping_a_search_keeps_the_best(projector: Projector, tmp_path: Path) -> None:
    class Stopping(Heard):
        def searched(self, step: SearchStep) -> None:
            step.stop()

    photos = [draw(tmp_path / "photos" / f"{number}.png", number) for number in range(2)]
    heard = Stopping()
    runner = AlbumRunner(
        projector, tmp_path / "album", quickly(batch=1), crops=whole, listener=heard
    )
    with pytest.raises(
        Error, match="the best result so far is kept, run the same command again to resume"
    ):
        runner.run(photos)
    assert [face.interrupted for face in heard.faces] == [True]
    assert Index(tmp_path / "album").rows["0.safetensors"]["status"] == "interrupted"


def test_album_options_refuse_by_name() -> None:
    with pytest.raises(Error, match="tune_steps must be at least 0, got -1"):
        AlbumOptions(tune_steps=-1)
    with pytest.raises(Error, match="batch must be at least 1, got 0"):
        AlbumOptions(batch=0)
    with pytest.raises(Error, match='tune_steps needs the space "w" or "w\\+"'):
        AlbumOptions(InversionOptions(space="s"), tune_steps=3)


def resumer(command: list[object]) -> Callable[[], bool]:
    """A function that runs the command and says whether the photo was done before."""
    return lambda: "already done" in works(*command).stderr


def test_a_changed_mask_of_the_same_name_counts(tiny_file: Path, tmp_path: Path) -> None:
    photo = draw(tmp_path / "photos" / "0.png", 0)
    mask = draw_mask(tmp_path / "mask.png", 8)
    common: list[object] = [
        "--model",
        tiny_file,
        "--aligned",
        "--out",
        tmp_path / "album",
        "--steps",
        STEPS,
    ]
    done = resumer(["invert", photo, *common, "--mask", mask])
    assert not done()
    assert done()
    draw_mask(mask, 4)
    assert not done()
    assert done()

    # A mask of the same content counts as the same, wherever it lies.
    moved = shutil.copy(mask, tmp_path / "moved.png")
    assert "already done" in works("invert", photo, *common, "--mask", moved).stderr


def test_a_changed_encoder_of_the_same_name_counts(tiny_file: Path, tmp_path: Path) -> None:
    photo = draw(tmp_path / "photos" / "0.png", 0)
    file = tmp_path / "tiny.encoder.safetensors"

    def train(seed: int) -> None:
        model = load_model(tiny_file)
        torch.manual_seed(seed)
        model.encoder = Encoder(EncoderConfig.of(model.generator))
        save_encoder(file, model, {})

    train(0)
    named = ["--encoder", file, "--steps", STEPS]
    done = resumer(
        ["invert", photo, "--model", tiny_file, "--aligned", "--out", tmp_path / "album", *named]
    )
    assert not done()
    assert done()
    train(1)
    assert not done()
    train(1)  # written anew with the same weights
    assert done()


def test_albums_of_before_are_resumed(tiny_file: Path, tmp_path: Path) -> None:
    """Their keys know files by name: they count as long as no such file is newer than the
    latent."""
    photo = draw(tmp_path / "photos" / "0.png", 0)
    mask = draw_mask(tmp_path / "mask.png", 8)
    album = tmp_path / "album"
    common: list[object] = ["--model", tiny_file, "--aligned", "--out", album, "--steps", STEPS]
    done = resumer(["invert", photo, *common, "--perceptual", "discriminator", "--mask", mask])
    assert not done()
    make_old(album / "index.csv", photo, tiny_file, str(mask))
    assert done()

    made = (album / "0.safetensors").stat().st_mtime_ns
    os.utime(mask, ns=(made + 1, made + 1))
    assert not done()
    assert done()  # by the new key, whatever the time of the file


def make_old(index: Path, photo: Path, model: Path, mask: str) -> None:
    """Give the rows of an index the key that `invert` wrote until it knew the contents of files."""
    told = {
        "method": "quasi-newton",
        "steps": STEPS,
        "patience": None,
        "restarts": 0,
        "noise": "optimise",
        "prior_weight": 0.1,
        "delta_weight": 0.0,
        "adversarial_weight": 0.0,
        "seed": 0,
        "space": "w+",
        "perceptual": "discriminator-face",
        "model": fingerprint(load_model(model).generator),
        "mask": mask,
        "encoder": False,
        "tune": 0,
        "crop": None,
        "aligned": True,
        "face": "1",
        "landmarks": None,
        "face_detector": None,
        "framing": load_model(model).framing,
        "landmarks68": has_landmarks(),
        "pixel_weight": 15.0,
    }
    content = photo.read_bytes()
    both = hashlib.sha256(content + json.dumps(told, sort_keys=True).encode())
    key = hashlib.sha256(content).hexdigest()[:16] + both.hexdigest()[:16]
    with open(index, newline="") as file:
        rows = list(csv.DictReader(file))
    with open(index, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "key": key} for row in rows)
