"""Paths through several latents or random faces: they pass through every point, and move as they
say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.latent.latent_file import Latent
from latentedit.latent.paths import (
    Course,
    Seeds,
    arc,
    neighbours,
    spline_shares,
    through_latents,
    through_seeds,
)
from latentedit.latent.w_statistics import sample_z
from latentedit.model.model import Model
from latentedit.model.native import save_model
from tests.helpers import complaint, tiny_generator, works


def latents(count: int) -> list[Latent]:
    draws = torch.randn(count, 1, 6, 12, generator=torch.Generator().manual_seed(0))
    return [Latent(ws, None, "", "w+") for ws in draws]


@pytest.mark.parametrize("kind", ["linear", "spline"])
@pytest.mark.parametrize("closed", [False, True])
def test_it_passes_through_every_point(kind: str, closed: bool) -> None:
    generator = tiny_generator()
    points = latents(4)
    course = Course(12 if closed else 10, kind, closed)  # type: ignore[arg-type]
    walk = through_latents(generator, points, course)
    for number, point in enumerate(points):
        assert torch.allclose(walk(3 * number).ws, point.ws, atol=1e-5)
    positions = course.positions(4)
    assert positions[1] == pytest.approx(1 / 3)
    share = float(positions[1])
    on_line = torch.lerp(points[0].ws, points[1].ws, share)
    assert torch.allclose(walk(1).ws, on_line, atol=1e-5) == (kind == "linear")


def test_a_spline_is_smooth_where_lines_have_corners() -> None:
    positions = torch.linspace(0, 4, 401, dtype=torch.float64)[:-1]
    shares = spline_shares(positions, 4, closed=True)
    assert torch.allclose(shares.sum(dim=1), torch.ones(400, dtype=torch.float64))
    around = torch.cat([shares, shares[:2]])
    bends = (around[2:] - 2 * around[1:-1] + around[:-2]) * 100**2
    assert float((bends[1:] - bends[:-1]).abs().max()) < 0.2  # the second derivative has no jumps


def test_arcs_have_an_even_angular_speed() -> None:
    a = torch.tensor([2.0, 0.0, 0.0])
    b = torch.tensor([0.0, 4.0, 0.0])
    found = arc(a, b, 1 / 3)
    expected = torch.tensor([np.cos(np.pi / 6), np.sin(np.pi / 6), 0.0]) * (2 + 2 / 3)
    assert torch.allclose(found, expected.float(), atol=1e-5)
    assert torch.equal(arc(a, -a, 0.25), a / 2)  # which way around is not defined
    assert torch.equal(arc(a, a, 0.5), a)


def test_in_z_the_ends_are_the_faces_of_the_seeds() -> None:
    generator = tiny_generator()
    walk = through_seeds(generator, Seeds([3, 5], psi=0.5), Course(3, "spherical"))
    for number, seed in ((0, 3), (2, 5)):
        expected = generator.mapping(sample_z(seed, 12), None, 0.5)
        assert torch.allclose(walk(number).ws, expected, atol=1e-5)
    middle = arc(sample_z(3, 12)[0], sample_z(5, 12)[0], 0.5)
    assert torch.allclose(walk(1).ws, generator.mapping(middle[None], None, 0.5), atol=1e-5)
    with pytest.raises(Error, match="a latent file has no z"):
        through_latents(generator, latents(2), Course(3, "z"))


def test_places_between_points() -> None:
    assert neighbours(0.0, 3) == (0, 1, 0.0)
    assert neighbours(2.0, 3) == (2, 2, 0.0)
    assert neighbours(2.25, 3) == (2, 0, 0.25)
    with pytest.raises(Error, match="count must be at least 2"):
        Course(1)
    with pytest.raises(Error, match="a path needs at least 2 points"):
        Course(4).positions(1)


def images_in(path: Path) -> int:
    with Image.open(path) as file:
        return int(file.n_frames)  # type: ignore[attr-defined]


def test_the_command(tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = ("--model", tiny_file)
    works("sample", tiny_file, "--seeds", "0-2,85", "--each", "--latents", "--out", "faces")
    names = sorted(path.name for path in Path("faces").iterdir())
    assert names == [f"seed{n:04d}.{e}" for n in (0, 1, 2, 85) for e in ("png", "safetensors")]
    found = load_latent("faces/seed0085.safetensors")
    assert found.settings["seed"] == 85
    works("sample", tiny_file, "--seeds", "85", "--out", "alone.png")
    assert Path("alone.png").read_bytes() == Path("faces/seed0085.png").read_bytes()

    files = [f"faces/seed{n:04d}.safetensors" for n in (0, 1, 2)]
    works("interpolate", *files, "--count", "5", *model, "--out", "strip.png")
    timed = ("--seconds", "1", "--fps", "10")
    # Gifs keep no image twice in a row, and the images of a path differ.
    for loop, count in (("back", 10), ("round", 10), ("none", 10)):
        works("interpolate", *files, "--loop", loop, *timed, *model, "--out", f"{loop}.gif")
        assert images_in(Path(f"{loop}.gif")) == count
    with Image.open("round.gif") as file:
        assert file.info["duration"] == 100
        assert file.info["loop"] == 0
    with Image.open("none.gif") as file:
        assert "loop" not in file.info
    way = ("--path", "spherical", "--loop", "round", "--count", "6")
    works("interpolate", "--seeds", "3-5", *way, *model, "--out", "faces.gif")
    assert images_in(Path("faces.gif")) == 6


def test_labelled_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("labelled.safetensors", Model(tiny_generator(c_dim=3)))
    model = ("--model", "labelled.safetensors")
    works("interpolate", "--seeds", "1,2", "--class", "1", *model, "--out", "one.png")
    works("interpolate", "--seeds", "1,2", "--class", "2", *model, "--out", "two.png")
    assert Path("one.png").read_bytes() != Path("two.png").read_bytes()
    assert "--class must be 0 to 2" in complaint(
        "interpolate", "--seeds", "1,2", *model, "--out", "x.png"
    )


def test_what_is_refused(tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = ("--model", tiny_file)
    for words, message in (
        ((), "give latent files or --seeds"),
        ((tiny_file, "--seeds", "1,2"), "give latent files or --seeds, not both"),
        (("--seeds", "1"), "a path needs at least 2 seeds, got 1"),
        (("a.safetensors", "b.safetensors", "--path", "z"), "--path z needs --seeds"),
        (("a.safetensors", "b.safetensors", "--psi", "1"), "--psi needs --seeds"),
        (("--seeds", "1,2", "--count", "51"), "a strip has at most 50 images"),
        (("--seeds", "1,2", "--fps", "12"), "--fps belongs to a video"),
    ):
        assert message in complaint("interpolate", *words, *model, "--out", "x.png")
    both = ("--seeds", "1,2", "--count", "5", "--seconds", "2")
    assert "leave out one of them" in complaint("interpolate", *both, *model, "--out", "x.gif")
    short = ("--seeds", "1,2", "--seconds", "0.01")
    assert "are 0 images; a video has 2 to" in complaint(
        "interpolate", *short, *model, "--out", "x.gif"
    )
    into = ("--out", "x.png")
    assert "--each needs a folder as --out" in complaint("sample", tiny_file, "--each", *into)
    assert "--latents needs --each" in complaint("sample", tiny_file, "--latents", *into)
    assert not list(tmp_path.glob("x*"))
