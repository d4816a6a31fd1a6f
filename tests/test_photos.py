"""Photos where a command takes latents: one command from a photo to a result."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.album.shelf import CACHED, LatentCache
from latentedit.directions import Direction
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_generator
from latentedit.inversion.quality import QUALITIES
from latentedit.io.files import cache_folder
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.alignment import CropPixels, crop, quad_of_window
from tests.helpers import complaint, hopper, run, works


def draw(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (5, 6), dtype=np.uint8)
    Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def cache() -> Path:
    """The cache of latents, which is empty; what is measured once per model stays."""
    folder = cache_folder() / "latents"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return draw(tmp_path / "somebody.png")


@pytest.fixture
def usual(tmp_path: Path, tiny_file: Path, cache: Path) -> list[object]:
    """Options of an edit that takes little time."""
    vector = torch.nn.functional.normalize(torch.arange(12.0), dim=0)
    axis = tmp_path / "axis.safetensors"
    Direction("axis", vector, 0.0, 0.7, fingerprint(load_generator(tiny_file))).save(axis)
    crop = ["--crop", "4,5,32", "--quality", "fast"]
    return ["--model", tiny_file, "--set", f"{axis}=1", *crop]


def inverted(stderr: str) -> list[str]:
    """The photos that a command says it inverted."""
    return [line.partition(": ")[0] for line in stderr.splitlines() if ": inverted in" in line]


def test_a_photo_is_inverted_once(
    tmp_path: Path, photo: Path, usual: list[object], cache: Path
) -> None:
    first = works("edit", photo, *usual, "--out", tmp_path / "1.png")
    assert inverted(first.stderr) == ["somebody.png"]
    assert first.stdout == f"wrote {tmp_path / '1.png'}\n"
    said = [line for line in first.stderr.splitlines() if line.startswith("somebody.png: inv")]
    assert len(said) == 1
    assert "PSNR" in said[0]

    second = works("edit", photo, *usual, "--out", tmp_path / "2.png")
    assert second.stderr == "somebody.png: its latent is in the cache\n"
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()

    # The content counts, and not the name.
    renamed = shutil.copy(photo, tmp_path / "renamed.png")
    told = works("edit", renamed, *usual, "--out", tmp_path / "3.png").stderr
    assert told == "renamed.png: its latent is in the cache\n"
    draw(photo, seed=1)
    told = works("edit", photo, *usual, "--out", tmp_path / "4.png").stderr
    assert inverted(told) == ["somebody.png"]
    assert len(list(cache.iterdir())) == 2

    # So do settings, and --again.
    told = works("edit", photo, *usual, "--crop", "5,5,32", "--out", tmp_path / "5.png").stderr
    assert inverted(told) == ["somebody.png"]
    told = works("edit", photo, *usual, "--again", "--out", tmp_path / "6.png").stderr
    assert inverted(told) == ["somebody.png"]
    assert len(list(cache.iterdir())) == 3
    for path in cache.iterdir():
        assert b"somebody" not in path.read_bytes()
        assert b"renamed" not in path.read_bytes()


def test_the_latent_is_that_of_invert(
    tmp_path: Path, photo: Path, usual: list[object], tiny_file: Path
) -> None:
    works("edit", photo, *usual, "--out", tmp_path / "direct.png")
    words = ["--model", tiny_file, "--crop", "4,5,32", "--quality", "fast"]
    works("invert", photo, *words, "--out", tmp_path / "latents")
    latent = tmp_path / "latents" / "somebody.safetensors"
    works("edit", latent, *usual[:4], "--out", tmp_path / "later.png")
    assert (tmp_path / "direct.png").read_bytes() == (tmp_path / "later.png").read_bytes()


@pytest.mark.parametrize("order", ["after", "before", "twice"])
def test_pasted_back_into_the_photo(
    tmp_path: Path, photo: Path, usual: list[object], order: str
) -> None:
    """An option that takes a value or not takes the photo, wherever it stands."""
    words: dict[str, list[object]] = {
        "after": [photo, *usual, "--paste-back"],
        "before": ["--paste-back", photo, *usual],
        "twice": [photo, "--paste-back", photo, *usual],
    }
    works("edit", *words[order], "--out", tmp_path / "pasted.png")
    before = np.asarray(Image.open(photo)).astype(int)
    after = np.asarray(Image.open(tmp_path / "pasted.png")).astype(int)
    assert before.shape == after.shape
    changed = before != after
    assert changed[10:32, 10:30].any()
    changed[5:37, 4:36] = False
    assert not changed.any()


def test_several_photos_and_a_folder(
    tmp_path: Path, usual: list[object], photo: Path, cache: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        draw(folder / f"{number}.jpg", number + 5)
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n")
    result = run("edit", folder, photo, *usual, "--out", tmp_path / "edited")
    assert result.exit_code == 1
    assert "1 of 4 failed" in result.stderr.splitlines()[-1]
    assert sum("bad.png" in line for line in result.stderr.splitlines()) == 1
    names = sorted(path.name for path in (tmp_path / "edited").iterdir())
    assert names == ["0.png", "1.png", "somebody.png"]
    assert len(list(cache.iterdir())) == 3

    # Pasted back, each keeps its kind of file; next to the photos, it gets another name.
    (folder / "bad.png").unlink()
    works("edit", folder, *usual, "--paste-back", "--out", folder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["0-edited.jpg", "0.jpg", "1-edited.jpg", "1.jpg"]
    # What was edited is no photo for the next command.
    told = works("edit", folder, *usual, "--out", tmp_path / "again").stderr
    assert "0-edited.jpg" in told
    assert len(list((tmp_path / "again").iterdir())) == 2


def test_a_folder_of_latents_stands_for_the_latents(
    tmp_path: Path, photo: Path, usual: list[object], tiny_file: Path
) -> None:
    words = ["--model", tiny_file, "--crop", "4,5,32", "--steps", "1"]
    works("invert", photo, *words, "--out", tmp_path / "latents")
    told = works("edit", tmp_path / "latents", *usual[:4], "--out", tmp_path / "edited")
    assert told.stderr == ""
    assert [path.name for path in (tmp_path / "edited").iterdir()] == ["somebody.png"]

    # Latents and photos beside one another, and a photo takes the model of the latents.
    latent = tmp_path / "latents" / "somebody.safetensors"
    other = draw(tmp_path / "other.png", 3)
    told = works("edit", latent, other, *usual[2:], "--out", tmp_path / "both")
    assert inverted(told.stderr) == ["other.png"]
    assert len(list((tmp_path / "both").iterdir())) == 2


def test_mix_interpolate_and_sheet_take_photos(
    tmp_path: Path, photo: Path, usual: list[object], tiny_file: Path
) -> None:
    other = draw(tmp_path / "other.png", 3)
    words = ["--model", tiny_file, "--crop", "4,5,32", "--quality", "fast"]
    told = works("mix", photo, other, *words, "--out", tmp_path / "mixed.safetensors").stderr
    assert sorted(inverted(told)) == ["other.png", "somebody.png"]
    assert load_latent(tmp_path / "mixed.safetensors").settings["edits"] == [
        "mixed coarse of a photo"
    ]
    told = works("interpolate", photo, other, *words, "--out", tmp_path / "strip.png").stderr
    assert inverted(told) == []
    # A latent and a photo, which takes the latent's model.
    mixed = tmp_path / "mixed.safetensors"
    works("interpolate", mixed, photo, *words[2:], "--out", tmp_path / "strip2.png")
    axis = str(usual[3]).partition("=")[0]
    sheet = ["directions", "sheet", axis, "--amounts", "-1:1:2", "--latent", photo, *words]
    works(*sheet, "--out", tmp_path / "sheet.png")
    for name in ("strip.png", "strip2.png", "sheet.png"):
        assert (tmp_path / name).is_file()


def test_json(tmp_path: Path, photo: Path, usual: list[object], tiny_file: Path) -> None:
    out = tmp_path / "pasted.png"
    result = works("edit", photo, *usual, "--paste-back", "--json", "--out", out)
    assert json.loads(result.stdout) == {
        "source": str(photo),
        "written": str(out),
        "edits": [usual[3]],
        "model": fingerprint(load_generator(tiny_file)),
        "pasted_into": str(photo),
        "warnings": [],
    }


def test_a_misspelt_slider_is_told_before_the_search(
    tmp_path: Path, photo: Path, usual: list[object]
) -> None:
    for wrong in (("--set", "axsi=1"), ("--sweep", "axsi=-1:1:2"), ("--hold", "axsi")):
        ended = run("edit", photo, *usual, *wrong, "--out", tmp_path / "x.png")
        assert ended.exit_code == 1
        assert "axsi: no direction file or direction of this name" in ended.stderr
        assert not inverted(ended.stderr)


def test_wrong_inputs(
    tmp_path: Path, photo: Path, usual: list[object], tiny_file: Path, cache: Path
) -> None:
    out = ["--out", tmp_path / "out.png"]
    assert "invert is for" in complaint("edit", photo, *usual, "--face", "all", *out)
    assert "none.jpg" in complaint("edit", tmp_path / "none.jpg", *usual[:4], *out)
    latent = tmp_path / "seed.safetensors"
    works("sample", tiny_file, "--seeds", "1", "--out", latent)
    said = complaint("edit", latent, *usual[:4], "--quality", "best", *out)
    assert "--quality is about photos, and there are none" in said
    said = complaint("edit", latent, *usual[:4], "--paste-back", *out)
    assert "a latent, which --paste-back PHOTO pastes into PHOTO" in said
    said = complaint("edit", photo, *usual, "--paste-back", "--out", tmp_path / "x.safetensors")
    assert "--paste-back needs an image or a video" in said
    assert "no face found" in complaint("edit", photo, *usual[:4], *out)
    assert run("edit", *usual, *out).exit_code == 2
    assert run("edit", photo, *usual[:4], "--quality", "finest", *out).exit_code == 2
    assert not (tmp_path / "out.png").exists()
    assert not cache.exists()


@pytest.mark.parametrize("quality", list(QUALITIES))
def test_quality_of_invert(tmp_path: Path, photo: Path, tiny_file: Path, quality: str) -> None:
    out = tmp_path / quality
    words = ["invert", photo, "--model", tiny_file, "--crop", "4,5,32", "--quality", quality]
    works(*words, "--out", out, "--tune-steps", "2")
    latent = load_latent(out / "somebody.safetensors")
    expected = {"fast": (30, "frozen"), "balanced": (100, "optimise"), "best": (100, "frozen")}
    assert (latent.settings["steps"], latent.settings["noise"]) == expected[quality]
    assert bool(latent.tuned) == (quality == "best")


def test_options_win_over_the_quality(tmp_path: Path, photo: Path, tiny_file: Path) -> None:
    words = ["invert", photo, "--model", tiny_file, "--crop", "4,5,32", "--quality", "best"]
    own = ["--steps", "4", "--noise", "off", "--space", "w", "--no-tune"]
    works(*words, *own, "--out", tmp_path / "own")
    latent = load_latent(tmp_path / "own" / "somebody.safetensors")
    assert latent.settings["steps"] == 4
    assert latent.settings["noise"] == "off"
    assert latent.space == "w"
    assert not latent.tuned
    # Tuning does not go with style space, which is asked for.
    works(*words, "--space", "s", "--steps", "2", "--out", tmp_path / "s")
    assert load_latent(tmp_path / "s" / "somebody.safetensors").space == "s"


def test_the_cache_has_an_end(tmp_path: Path) -> None:
    cache = LatentCache(tmp_path)
    for number in range(CACHED + 5):
        cache.path(f"{number}").touch()
        os.utime(cache.path(f"{number}"), (number, number))
    assert cache.has("0")  # used just now
    cache._make_room()
    left = {path.stem for path in tmp_path.iterdir()}
    assert len(left) == CACHED
    assert "0" in left
    assert "1" not in left
    assert not cache.has("1")


def test_the_installed_command_edits_a_photo(tmp_path: Path, tiny_file: Path, cache: Path) -> None:
    """A face is found in a portrait on its side, and the result is pasted back as it lies."""
    with Image.open(hopper()) as portrait:
        turned = portrait.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "me.jpg")
    words = [sys.executable, "-m", "latentedit", "edit", "me.jpg", "--model", str(tiny_file)]
    vector = torch.nn.functional.normalize(torch.arange(12.0), dim=0)
    axis = Direction("axis", vector, 0.0, 0.7, fingerprint(load_generator(tiny_file)))
    axis.save(tmp_path / "axis.safetensors")
    words += ["--set", "axis.safetensors=1", "--quality", "fast", "--paste-back"]
    words += ["--out", "pasted.jpg"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "me.jpg: the photo lies on its side" in done.stderr
    assert done.stdout == "wrote pasted.jpg\n"
    with Image.open(tmp_path / "pasted.jpg") as result:
        assert result.size == turned.size


def test_points_of_a_photo_are_dragged(
    tmp_path: Path, photo: Path, tiny_file: Path, cache: Path
) -> None:
    """They are named in its pixels: the crop has 32 of them, and the model's image 16."""
    words = ["--model", tiny_file, "--crop", "4,5,32", "--quality", "fast", "--steps", 2]
    points = ["--from", "12,13", "--to", "20,13"]
    out = tmp_path / "dragged.png"
    result = works("drag", photo, *words, *points, "--paste-back", "--out", out, "--json")
    facts = json.loads(result.stdout)
    (handle,) = facts["handles"]
    assert (handle["from"], handle["to"]) == ([12, 13], [20, 13])
    left = np.hypot(*np.subtract(handle["at"], handle["to"]))
    assert handle["distance"] == pytest.approx(left, abs=0.01)
    latent = load_latent(out.with_suffix(".safetensors"))
    assert latent.settings["edits"] == ["drag 3.75,3.75 to 7.75,3.75"]

    before, after = (np.asarray(Image.open(path)).astype(int) for path in (photo, out))
    changed = before != after
    assert changed[10:32, 10:30].any()
    changed[5:37, 4:36] = False
    assert not changed.any()

    # The photo may stand behind the option, and the crop alone may be wanted.
    again = works("drag", *words, *points, "--paste-back", photo, "--json")
    assert "in the cache" in again.stderr
    assert Path(json.loads(again.stdout)["files"][0]) == tmp_path / "somebody-dragged.png"
    assert (tmp_path / "somebody-dragged.png").read_bytes() == out.read_bytes()
    works("drag", photo, *words, *points, "--out", tmp_path / "crop.png")
    with Image.open(tmp_path / "crop.png") as drawn:
        assert drawn.size == (16, 16)


def test_what_a_drag_of_a_photo_refuses(tmp_path: Path, photo: Path, tiny_file: Path) -> None:
    words = ["--model", tiny_file, "--crop", "4,5,32", "--quality", "fast", "--from", "12,13"]
    latent = tmp_path / "latent.safetensors"
    generator = load_generator(tiny_file)
    ws = torch.zeros(1, generator.num_ws, generator.w_dim)
    save_latent(latent, Latent(ws, None, fingerprint(generator), "w"))
    for given, message in (
        ([photo, *words, "--to", "9,9", "--difference"], "--difference needs --paste-back"),
        ([photo, *words, "--to", "9,9", "--by", "landmarks", "--layers", "0"], "takes no mask"),
        ([*words, "--to", "9,9"], "Missing argument 'PHOTO|LATENT'"),
        ([latent, *words[:2], "--from", "3,3", "--to", "9,9", "--paste-back"], "pastes into PHOTO"),
        ([latent, *words, "--to", "9,9"], "is about photos, and there are none"),
    ):
        assert message in run("drag", *given).stderr, message
    told = run("drag", photo, *words, "--to", "3,13").stderr
    assert told.splitlines()[-1] == (
        "latentedit: the point 3,13 lies outside the crop around the face, whose corners in the"
        " photo are 4,5, 36,5, 36,37, 4,37"
    )
    other = draw(tmp_path / "other.png", seed=3)
    told = complaint("drag", photo, *words, "--to", "9,9", "--paste-back", other)
    assert "is pasted back into itself" in told


@pytest.mark.parametrize("turned", [False, True])
def test_a_pixel_of_a_photo_is_found_in_its_crop(turned: bool) -> None:
    quad = [[10.0, 40.0], [74.0, 24.0], [90.0, 88.0], [26.0, 104.0]]
    quad = quad if turned else quad_of_window(12, 20, 64)
    pixels = CropPixels(quad, 32)
    assert pixels.scale == pytest.approx(np.hypot(*np.subtract(quad[1], quad[0])) / 32)
    drawn = np.zeros((128, 128), np.uint8)
    drawn[60:63, 50:53] = 255  # around 51, 61
    small = np.asarray(crop(Image.fromarray(drawn), quad, 32)).astype(float)
    y, x = ((small * place).sum() / small.sum() for place in np.mgrid[:32, :32])
    assert pixels.in_crop((51, 61)) == pytest.approx((x, y), abs=0.1)
    assert pixels.in_photo(pixels.in_crop((51, 61))) == pytest.approx((51, 61))
