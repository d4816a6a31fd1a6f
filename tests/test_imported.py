"""Directions from elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentedit.directions import import_direction, load_direction
from latentedit.errors import Error
from latentedit.latent.w_statistics import sample_w
from tests.helpers import complaint, tiny_generator, works

RNG = np.random.default_rng(0)
ROW = RNG.normal(size=12) * 3


@pytest.mark.parametrize("shape", [(12,), (1, 12), (6, 12), (1, 6, 12)])
@pytest.mark.parametrize("ending", ["npy", "npz", "pt"])
def test_one_row_in_every_shape_is_a_w_direction(
    tmp_path: Path, shape: tuple[int, ...], ending: str
) -> None:
    array, path = np.broadcast_to(ROW, shape).copy(), tmp_path / f"age.{ending}"
    if ending == "npy":
        np.save(path, array.astype(np.float32))
    elif ending == "npz":
        np.savez(path, array)
    else:
        torch.save(torch.from_numpy(array), path)  # float64
    generator = tiny_generator()
    direction = import_direction(path, generator, "age")
    assert direction.space == "w"
    torch.testing.assert_close(
        direction.vector.double(), torch.from_numpy(ROW / np.linalg.norm(ROW)), atol=1e-6, rtol=0
    )
    assert direction.provenance["original_norm"] == pytest.approx(np.linalg.norm(ROW), rel=1e-6)
    assert direction.provenance["shape"] == list(shape)
    scores = direction.score(sample_w(generator)[:, None].expand(-1, 6, -1))
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scores.std()) == pytest.approx(direction.sigma, rel=1e-3)


def test_rows_that_differ_are_a_w_plus_direction(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", RNG.normal(size=(1, 6, 12)))
    generator = tiny_generator()
    direction = import_direction(tmp_path / "x.npy", generator, "x", layers=(0, 3))
    assert (direction.space, direction.layers) == ("w+", (0, 3))
    scores = direction.score(sample_w(generator)[:, None].expand(-1, 6, -1))
    assert float(scores.mean()) == pytest.approx(0, abs=1e-3)
    assert float(scores.std()) == pytest.approx(direction.sigma, rel=1e-2)


@pytest.mark.parametrize("names", [("comp", "mean", "std"), ("lat_comp", "lat_mean", "lat_stdev")])
def test_ganspace(tmp_path: Path, names: tuple[str, ...]) -> None:
    comp, std = RNG.normal(size=(4, 1, 12)), np.array([4.0, 3.0, 2.0, 1.0])
    parts: dict[str, Any] = dict(zip(names, (comp, np.zeros((1, 12)), std), strict=True))
    np.savez(tmp_path / "x.npz", **parts)
    torch.save({key: torch.from_numpy(value) for key, value in parts.items()}, tmp_path / "x.pt")
    for file in ("x.npz", "x.pt"):
        direction = import_direction(tmp_path / file, tiny_generator(), "pc2", component=2)
        expected = torch.from_numpy(comp[2, 0] / np.linalg.norm(comp[2, 0])).float()
        torch.testing.assert_close(direction.vector, expected)
        assert (direction.provenance["component"], direction.provenance["std"]) == (2, 2.0)
        with pytest.raises(Error, match="4 components; choose one with component, 0 to 3"):
            import_direction(tmp_path / file, tiny_generator(), "pc")


def test_what_is_refused(tmp_path: Path) -> None:
    generator = tiny_generator()
    cases: list[tuple[str, Any, str]] = [
        ("a.npy", np.ones(5), r"has shape \[5\]; this generator takes \[12\] or \[6, 12\]"),
        ("b.npy", np.ones((4, 12)), r"has shape \[4, 12\]"),
        ("c.npy", np.zeros(12), "the direction is zero|values that are not numbers"),
        ("d.npy", np.full(12, np.nan), "the direction is zero|values that are not numbers"),
        ("e.npy", np.array(["x"] * 12), "expected numbers"),
    ]
    for name, array, message in cases:
        np.save(tmp_path / name, array)
        with pytest.raises(Error, match=message):
            import_direction(tmp_path / name, generator, "x")
    np.save(tmp_path / "objects.npy", np.array([print] * 12, dtype=object), allow_pickle=True)
    with pytest.raises(Error, match="not a numpy file of numbers"):
        import_direction(tmp_path / "objects.npy", generator, "x")
    np.savez(tmp_path / "two.npz", a=ROW, b=ROW)
    with pytest.raises(
        Error, match="expected one array, or GANSpace's mean, std and comp; it has a, b"
    ):
        import_direction(tmp_path / "two.npz", generator, "x")
    torch.save({"a": print}, tmp_path / "x.pt")
    with pytest.raises(Error, match="asks for __builtin__.print, which is more than tensors"):
        import_direction(tmp_path / "x.pt", generator, "x")
    np.save(tmp_path / "one.npy", ROW)
    with pytest.raises(Error, match="only GANSpace files have components"):
        import_direction(tmp_path / "one.npy", generator, "x", component=1)
    (tmp_path / "x.txt").write_text("1")
    with pytest.raises(Error, match="arrays are read from .npy, .npz, .pt"):
        import_direction(tmp_path / "x.txt", generator, "x")


def test_on_the_command_line(tmp_path: Path, tiny_file: Path) -> None:
    np.save(tmp_path / "age.npy", ROW)
    out = tmp_path / "age.safetensors"
    line = works(
        "directions",
        "import",
        tmp_path / "age.npy",
        "--model",
        tiny_file,
        "--layers",
        "coarse",
        "--out",
        out,
    ).stdout
    assert line.startswith("age: space w, norm was ")
    assert load_direction(out).layers == (0, 3)
    assert "no such file" in complaint("directions", "import", tmp_path / "no.npy", "--out", out)
