"""Videos can be read again, and show what was put into them."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.errors import Error
from latentedit.io.video import save_video, there_and_back
from tests.helpers import complaint, works


def frames(count: int = 6) -> list[torch.Tensor]:
    return [torch.full((1, 16, 16), -1 + 2 * index / (count - 1)) for index in range(count)]


def means(path: Path) -> list[float]:
    if path.suffix == ".gif":
        with Image.open(path) as file:
            found = []
            for index in range(file.n_frames):  # type: ignore[attr-defined]
                file.seek(index)
                found.append(float(np.asarray(file.convert("L")).mean()))
            return found
    video, found = cv2.VideoCapture(str(path)), []
    while True:
        good, frame = video.read()
        if not good:
            return found
        assert frame.shape == (256, 256, 3)
        found.append(float(frame.mean()))


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif"])
def test_there_is_in_it_what_was_put_in(tmp_path: Path, name: str) -> None:
    save_video(tmp_path / name, frames())
    assert means(tmp_path / name) == pytest.approx([0, 51, 102, 153, 204, 255], abs=4)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_there_and_back() -> None:
    assert [float(frame.mean()) for frame in there_and_back(frames(3))] == [-1, 0, 1, 0]


def test_what_is_refused(tmp_path: Path) -> None:
    for name, pictures, message in (
        ("a.avi", frames(), "the name of a video must end in .mp4 or .webm or .gif"),
        ("a.mp4", [], "there are no images"),
        ("a.mp4", [*frames(), torch.zeros(1, 8, 16)], "must have the same size"),
    ):
        with pytest.raises(Error, match=message):
            save_video(tmp_path / name, pictures)
    assert list(tmp_path.iterdir()) == []


def test_of_a_slider_and_of_a_search(tmp_path: Path, tiny_file: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(12)[0])
    works("sample", tiny_file, "--seeds", "1", "--out", tmp_path / "a.safetensors")
    works(
        "directions",
        "import",
        tmp_path / "x.npy",
        "--model",
        tiny_file,
        "--out",
        tmp_path / "x.safetensors",
    )
    sweep = ("--sweep", f"{tmp_path / 'x.safetensors'}=-3:3:5")
    for name in ("sweep.mp4", "sweep.gif"):
        works(
            "edit",
            tmp_path / "a.safetensors",
            "--model",
            tiny_file,
            *sweep,
            "--out",
            tmp_path / name,
        )
        assert len(means(tmp_path / name)) == 8
    y, x = np.mgrid[0:16, 0:16]
    Image.fromarray((128 + 100 * np.sin(x / 3) * np.cos(y / 4)).astype(np.uint8)).save(
        tmp_path / "me.png"
    )
    search = (
        "invert",
        tmp_path / "me.png",
        "--model",
        tiny_file,
        "--aligned",
        "--steps",
        "12",
        "--out",
        tmp_path / "out",
    )
    works(*search, "--video")
    assert len(means(tmp_path / "out" / "me.mp4")) == 12 + 24  # every step, and the result held
    move = ("--set", f"{tmp_path / 'x.safetensors'}=1", "--out", tmp_path / "y.mp4")
    assert "a video needs at least one --sweep" in complaint(
        "edit", tmp_path / "a.safetensors", "--model", tiny_file, *move
    )


def test_two_sliders_at_once_in_the_photo(
    tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, row in (("x", 0), ("y", 1)):
        np.save(f"{name}.npy", np.eye(12)[row])
        works(
            "directions",
            "import",
            f"{name}.npy",
            "--model",
            tiny_file,
            "--out",
            f"{name}.safetensors",
        )
    y, x = np.mgrid[0:60, 0:80]
    Image.fromarray((128 + 100 * np.sin(x / 13) * np.cos(y / 14)).astype(np.uint8)).save("me.png")
    works(
        "invert",
        "me.png",
        "--crop",
        "10,8,40",
        "--model",
        tiny_file,
        "--steps",
        "4",
        "--out",
        "out",
    )
    latent = ("out/me.safetensors", "--model", tiny_file)
    paste = ("--paste-back", "me.png", "--force")
    both = ("--sweep", "x.safetensors=-3:3", "--sweep", "y.safetensors=0:3")
    timed = ("--seconds", "1", "--fps", "10", "--loop", "none")
    works("edit", *latent, *both, *timed, *paste, "--out", "both.gif")
    assert len(means(Path("both.gif"))) == 10
    # The last image is that of both sliders at their ends, in the photo.
    ends = ("--set", "x.safetensors=3", "--set", "y.safetensors=3")
    works("edit", *latent, *ends, *paste, "--out", "end.png")
    with Image.open("both.gif") as file, Image.open("end.png") as end:
        file.seek(9)
        assert end.size == (80, 60)
        shown = np.asarray(file.convert("L").resize(end.size, Image.Resampling.BOX)).astype(int)
        assert np.abs(shown - np.asarray(end.convert("L"))).mean() < 4
    works("edit", *latent, "--sweep", "x.safetensors=-3:3:3", *paste, "--out", "strip.png")
    with Image.open("strip.png") as strip:
        assert strip.width > 3 * 128
    for words, message in (
        (both, "needs a COUNT (:7) in an image"),
        (("--sweep", "x.safetensors=0:3:5", "--seconds", "2"), "--seconds belongs to a video"),
    ):
        assert message in complaint("edit", *latent, *words, "--out", "z.png")
    unequal = ("--sweep", "x.safetensors=0:3:5", "--sweep", "y.safetensors=0:3:4")
    assert "need the same COUNT, got 4 and 5" in complaint(
        "edit", *latent, *unequal, "--out", "z.gif"
    )


def test_pictures_are_taken_one_by_one(tmp_path: Path) -> None:
    """A long video does not have to fit into memory; times of a gif add up to its length."""
    alive: list[int] = []

    def pictures() -> Iterator[Image.Image]:
        for number in range(30):
            picture = Image.new("RGB", (64, 64), (8 * number, 0, 0))
            weakref.finalize(picture, alive.remove, number)
            alive.append(number)
            assert len(alive) < 5
            yield picture

    save_video(tmp_path / "a.webm", pictures(), fps=30)
    save_video(tmp_path / "a.gif", frames(30), fps=24)
    with Image.open(tmp_path / "a.gif") as file:
        total = 0
        for number in range(file.n_frames):  # type: ignore[attr-defined]
            file.seek(number)
            total += file.info["duration"]
    assert total == 1250


def test_a_video_that_browsers_may_not_play_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentedit.io.video._by_pyav", lambda *_: False)
    said = save_video(tmp_path / "a.mp4", frames())
    assert said is not None
    assert said.startswith(
        "written as MPEG-4 part 2, which browsers may not play; pip install 'latentedit[video]'"
    )
    assert save_video(tmp_path / "a.webm", frames()) is None
    assert (tmp_path / "a.webm").read_bytes()[:4] == b"\x1aE\xdf\xa3"
    assert save_video(tmp_path / "a.gif", frames()) is None
