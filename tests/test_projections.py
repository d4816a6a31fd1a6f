"""Latents of other tools, in and out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_generator
from latentedit.formats.projections import load_projections
from latentedit.io.images import from_uint8, load_image, to_uint8
from latentedit.networks.fingerprint import fingerprint
from tests.helpers import complaint, works


def test_nvidia_there_and_back(tmp_path: Path, tiny_file: Path) -> None:
    generator = load_generator(tiny_file)
    ws = torch.randn(1, generator.num_ws, 12)
    np.savez(tmp_path / "projected_w.npz", w=ws.numpy())
    works(
        "latent",
        "import",
        tmp_path / "projected_w.npz",
        "--model",
        tiny_file,
        "--out",
        tmp_path / "in",
    )
    latent = load_latent(tmp_path / "in" / "projected_w.safetensors")
    assert torch.equal(latent.ws, ws)
    assert (latent.fingerprint, latent.space) == (fingerprint(generator), "w+")
    works(
        "latent",
        "export",
        tmp_path / "in" / "projected_w.safetensors",
        "--out",
        tmp_path / "back.npz",
    )
    with np.load(tmp_path / "back.npz") as back:
        assert back.files == ["w"]
        assert np.array_equal(back["w"], ws.numpy())
        assert back["w"].dtype == np.float32


def test_edited_without_importing(tmp_path: Path, tiny_file: Path) -> None:
    np.savez(
        tmp_path / "w.npz",
        w=np.random.RandomState(0).randn(1, load_generator(tiny_file).num_ws, 12),
    )
    np.save(tmp_path / "direction.npy", np.eye(12)[0])
    works(
        "directions",
        "import",
        tmp_path / "direction.npy",
        "--model",
        tiny_file,
        "--name",
        "x",
        "--out",
        tmp_path / "x.safetensors",
    )
    move = ("--set", f"{tmp_path / 'x.safetensors'}=3")
    works("edit", tmp_path / "w.npz", "--model", tiny_file, *move, "--out", tmp_path / "moved.png")
    works(
        "edit",
        tmp_path / "w.npz",
        "--model",
        tiny_file,
        *move,
        "--out",
        tmp_path / "moved.safetensors",
    )
    works(
        "interpolate",
        tmp_path / "w.npz",
        tmp_path / "moved.safetensors",
        "--model",
        tiny_file,
        "--out",
        tmp_path / "strip.png",
    )
    again = load_latent(tmp_path / "moved.safetensors")
    drawn = again.render(load_generator(tiny_file))
    assert torch.allclose(
        load_image(tmp_path / "moved.png"), from_uint8(to_uint8(drawn)), atol=1e-6
    )
    line = complaint("edit", tmp_path / "w.npz", *move, "--out", tmp_path / "y.png")
    assert "does not name its generator; add --model" in line
    np.savez(tmp_path / "wide.npz", w=np.zeros((1, 3, 5)))
    assert "this latent has 3 x 5 numbers, the generator takes 6 x 12" in complaint(
        "edit", tmp_path / "wide.npz", "--model", tiny_file, *move, "--out", tmp_path / "y.png"
    )


def test_e4e_and_rosinality(tmp_path: Path, tiny_file: Path) -> None:
    generator = load_generator(tiny_file)
    rows = generator.num_ws
    torch.save(torch.randn(11, rows, 12), tmp_path / "latents.pt")
    names = [name for name, _ in load_projections(tmp_path / "latents.pt")]
    assert (names[0], names[-1]) == ("latents-00", "latents-10")
    with pytest.raises(
        Error, match='holds 11 latents; "latentedit latent import" writes a file for each'
    ):
        load_latent(tmp_path / "latents.pt")
    noise = [torch.randn(shape) for shape in generator.synthesis.noise_shapes]
    one: dict[str, Any] = {"img": torch.zeros(3, 16, 16), "latent": torch.randn(12), "noise": noise}
    torch.save(
        {"../../photos/me.jpg": one, "you.png": {**one, "latent": torch.randn(rows, 12)}},
        tmp_path / "projected.pt",
    )
    works(
        "latent",
        "import",
        tmp_path / "projected.pt",
        "--model",
        tiny_file,
        "--out",
        tmp_path / "in",
    )
    me, you = (load_latent(tmp_path / "in" / f"{name}.safetensors") for name in ("me", "you"))
    assert me.ws.shape == (1, rows, 12)
    assert (me.space, you.space) == ("w", "w+")
    assert me.noise is not None
    assert all(torch.equal(a, b) for a, b in zip(me.noise, noise, strict=True))
    with torch.no_grad():
        expected = generator.synthesis(one["latent"].expand(1, rows, 12), noise=noise)
    assert torch.equal(me.render(generator), expected)


def test_what_is_refused(tmp_path: Path, tiny_file: Path) -> None:
    def message(name: str, value: object) -> str:
        path = tmp_path / name
        if name.endswith(".pt"):
            torch.save(value, path)
        elif name.endswith(".npz"):
            np.savez(path, **value)  # type: ignore[arg-type]
        else:
            np.save(path, value)  # type: ignore[arg-type]
        return complaint("latent", "import", path, "--model", tiny_file, "--out", tmp_path / "in")

    assert "latents of 4 x 12; this generator needs 6 x 12" in message(
        "a.npy", np.zeros((2, 4, 12))
    )
    assert "expected latents under the name w, or a single array; it has a, b" in message(
        "a.npz", {"a": np.ones(1), "b": np.ones(1)}
    )
    assert "has values that are not numbers" in message("b.npy", np.full((1, 6, 12), np.nan))
    assert "found [1, 1, 6, 12]" in message("c.npy", np.zeros((1, 1, 6, 12)))
    assert "expected numbers, found <U1" in message("d.npy", np.array(["a"]))
    noise = [torch.zeros(1, 1, 3, 3)]
    assert "sizes of its noise maps do not match" in message(
        "e.pt", {"x": {"latent": torch.zeros(12), "noise": noise}}
    )
    assert "expected noise maps [1, 1, h, w]" in message(
        "f.pt", {"x": {"latent": torch.zeros(12), "noise": torch.zeros(3)}}
    )
    (tmp_path / "g.npz").write_bytes(b"PK\x03\x04" + bytes(100))
    assert "not a numpy file of numbers, or damaged" in complaint(
        "latent", "import", tmp_path / "g.npz", "--model", tiny_file, "--out", tmp_path
    )
    np.save(tmp_path / "one.npy", np.zeros((1, 6, 12)))
    assert "--out must end in .npz" in complaint(
        "latent", "export", tmp_path / "one.npy", "--out", tmp_path / "x.pt"
    )
    assert "add --model" in complaint("latent", "import", tmp_path / "a.npy", "--out", tmp_path)
    assert not (tmp_path / "in").exists()
