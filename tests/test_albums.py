"""Photographs one and many: what is told of them, what is skipped, what is kept."""

import csv
import importlib
import json
import os
import threading
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.album.ahead import ahead
from latentedit.album.index import Index, key, share
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_generator, load_model
from latentedit.inversion.domain import Domain
from latentedit.io.images import load_image, to_pil, to_tensor
from latentedit.latent.latent_file import Latent
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.alignment import quad_of_window
from latentedit.photo.checks import foreign, remarks
from tests.helpers import complaint, run, works

STEPS = ("--aligned", "--steps", "3")


def folder_of_photos(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for index in range(count):
        y, x = np.mgrid[0:24, 0:24]
        pixels = (128 + 100 * np.sin(x / (3 + index)) * np.cos(y / 4)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "index.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_done_once(tmp_path: Path, tiny_file: Path) -> None:
    photos, out = folder_of_photos(tmp_path / "photos"), tmp_path / "out"
    (photos / "bad.jpg").write_bytes(b"not a picture")
    first = run("invert", photos, "--model", tiny_file, "--out", out, *STEPS)
    assert first.exit_code == 1
    assert "1 of 4 failed" in first.stderr
    assert "3 photos, " in first.stderr
    assert (out / "sheet.png").is_file()
    found = {row["latent"]: row for row in rows(out)}
    assert {name: row["status"] for name, row in found.items()} == {
        "0.safetensors": "ok",
        "1.safetensors": "ok",
        "2.safetensors": "ok",
        "bad.safetensors": "failed",
    }
    assert float(found["0.safetensors"]["psnr"]) > 0
    assert "not an image" in found["bad.safetensors"]["remarks"]
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    (photos / "bad.jpg").unlink()
    Image.new("L", (24, 24), 90).save(photos / "1.png")  # another picture under the same name
    (out / "2.safetensors").unlink()
    again = works("invert", photos, "--model", tiny_file, "--out", out, *STEPS)
    assert again.stderr.count("already done") == 1
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert after["0.safetensors"] == before["0.safetensors"]
    assert after["1.safetensors"] != before["1.safetensors"]
    other = works("invert", photos, "--model", tiny_file, "--out", out, "--aligned", "--steps", "4")
    assert "already done" not in other.stderr
    anew = works(
        "invert",
        photos / "0.png",
        "--model",
        tiny_file,
        "--out",
        out,
        "--aligned",
        "--steps",
        "4",
        "--again",
    )
    assert "already done" not in anew.stderr


def test_processes_share_the_photos(
    tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = folder_of_photos(tmp_path / "photos", 5), tmp_path / "out"
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        works("invert", photos, "--model", tiny_file, "--out", out, *STEPS)
        assert len(rows(out)) == (3, 5)[rank]
        assert (out / f"sheet-{rank}.png").is_file()
    assert sorted(row["latent"] for row in rows(out)) == [f"{i}.safetensors" for i in range(5)]
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(Error, match="RANK 2 of WORLD_SIZE 2"):
        share([])
    monkeypatch.setenv("RANK", "x")
    assert "RANK and WORLD_SIZE must be numbers" in complaint(
        "invert", photos, "--model", tiny_file, "--out", out
    )


def test_together_as_one_by_one(tmp_path: Path, tiny_file: Path) -> None:
    photos = folder_of_photos(tmp_path / "photos", 3)
    # the last one, after which the others still have to be done
    (photos / "z.png").write_bytes(b"not a picture")
    found = {}
    for batch in (1, 2):
        out = tmp_path / str(batch)
        result = run(
            "invert",
            photos,
            "--model",
            tiny_file,
            "--out",
            out,
            "--batch",
            batch,
            "--aligned",
            "--steps",
            6,
            "--video",
        )
        assert result.exit_code == 1
        assert "z.png: not an image" in result.stderr
        assert sorted(row["status"] for row in rows(out)) == ["failed", "ok", "ok", "ok"]
        found[batch] = [load_latent(out / f"{i}.safetensors") for i in range(3)]
        for i in range(3):
            assert (out / f"{i}.mp4").is_file()
            assert np.array_equal(
                np.asarray(Image.open(out / f"{i}.png")), pixels(found[batch][i], tiny_file)
            )
    for alone, together in zip(found[1], found[2], strict=True):
        torch.testing.assert_close(alone.ws, together.ws, atol=1e-2, rtol=1e-2)


def pixels(latent: Latent, model: Path) -> np.ndarray[Any, Any]:
    return np.asarray(to_pil(latent.render(load_generator(model))))


def test_same_names_do_not_overwrite_one_another(tmp_path: Path, tiny_file: Path) -> None:
    photos = folder_of_photos(tmp_path / "photos", 1)
    Image.open(photos / "0.png").save(photos / "0.jpg")
    works("invert", photos, "--model", tiny_file, "--out", tmp_path / "out", *STEPS)
    assert (tmp_path / "out" / "0-png.safetensors").is_file()
    assert (tmp_path / "out" / "0-jpg.safetensors").is_file()


def test_json_and_verdict(tmp_path: Path, tiny_file: Path) -> None:
    photos, out = folder_of_photos(tmp_path / "photos", 1), tmp_path / "out"
    shown = works(
        "invert",
        photos / "0.png",
        "--model",
        tiny_file,
        "--out",
        out,
        "--crop",
        "2,3,16",
        "--steps",
        "3",
        "--json",
    )
    facts = json.loads(shown.stdout)
    assert facts["crop"] == quad_of_window(2, 3, 16)
    assert facts["latent"] == "0.safetensors"
    assert facts["verdict"].startswith("sliders cannot be trusted: ")
    assert facts["interrupted"] is False
    plain = works(
        "invert", photos / "0.png", "--model", tiny_file, "--out", tmp_path / "plain", *STEPS
    ).stdout
    assert "0.png: sliders cannot be trusted: " in plain


def test_pasted_back(tmp_path: Path, tiny_file: Path) -> None:
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (60, 80, 3), dtype=np.uint8)).save(
        tmp_path / "photo.png"
    )
    out = tmp_path / "out"
    arguments = (
        "--model",
        tiny_file,
        "--out",
        out,
        "--crop",
        "20,10,32",
        "--steps",
        "3",
        "--remember-source",
    )
    works("invert", tmp_path / "photo.png", *arguments)
    pasted = ("edit", out / "photo.safetensors", "--model", tiny_file, "--paste-back")
    works(*pasted, tmp_path / "photo.png", "--out", tmp_path / "pasted.png")
    before, after = (
        np.asarray(Image.open(tmp_path / name)) for name in ("photo.png", "pasted.png")
    )
    changed = (before != after).any(axis=2)
    assert changed[26, 36]
    assert not changed[:10].any()
    assert not changed[:, :20].any()
    assert not changed[:, 52:].any()
    Image.new("RGB", (80, 60)).save(tmp_path / "other.png")
    assert "not the photo that this latent was made from (photo.png)" in complaint(
        *pasted, tmp_path / "other.png", "--out", tmp_path / "x.png"
    )
    works(*pasted, tmp_path / "other.png", "--force", "--out", tmp_path / "x.png")
    works("sample", tiny_file, "--seeds", "1", "--out", tmp_path / "drawn.safetensors")
    drawn = (
        "edit",
        tmp_path / "drawn.safetensors",
        "--model",
        tiny_file,
        "--paste-back",
        tmp_path / "photo.png",
    )
    assert "has no crop position" in complaint(*drawn, "--out", tmp_path / "x.png")
    assert "--paste-back needs an image or a video" in complaint(
        *drawn, "--out", tmp_path / "x.safetensors"
    )


def test_remarks() -> None:
    photo = Image.new("L", (100, 100))
    whole = quad_of_window(0, 0, 100)

    def of(value: float, quad: list[list[float]] = whole, size: int = 64) -> str:
        crop = torch.full((1, 1, size, size), value)
        crop[..., ::2] *= 0.5
        return "; ".join(remarks(photo, quad, crop))

    assert of(0.5) == ""
    assert "too dark: mean brightness" in of(-0.98 * 4 / 3)
    assert "too bright: mean brightness" in of(1.2)
    assert "too little contrast" in of(0.01)
    assert "too small: the crop is 20 pixels wide and is upsampled to 64" in of(
        0.5, quad_of_window(40, 40, 20)
    )
    assert "of the crop is outside the photo" in of(0.5, quad_of_window(50, 0, 100))
    assert "unlike this model's images: 2.0 times as far" in foreign(2.0)[0]
    assert not foreign(1.2)


def test_ahead() -> None:
    """The next items are made while the first is worked on, in order, no more than asked for;
    errors arrive in their turn."""
    begun: list[int] = []
    third = threading.Event()

    def prepare(item: int) -> int:
        begun.append(item)
        if item == 3:
            third.set()
        if item == 2:
            raise Error("two")
        return 10 * item

    with ahead(range(1, 7), prepare, 2) as following:
        assert following() == 10
        assert third.wait(timeout=10)
        assert begun == [1, 2, 3]
        with pytest.raises(Error, match="two"):
            following()
        assert [following() for _ in range(3)] == [30, 40, 50]


def test_what_cannot_be_written_does_not_hold_up_the_others(
    tiny_file: Path, tmp_path: Path
) -> None:
    photos, out = folder_of_photos(tmp_path / "photos", 5), tmp_path / "out"
    (out / "0.safetensors").mkdir(parents=True)
    result = run("invert", photos, "--model", tiny_file, *STEPS, "--batch", "1", "--out", out)
    assert result.exit_code == 1
    assert "cannot write" in result.output
    assert "1 of 5 failed" in result.output
    assert sorted(row["latent"] for row in rows(out)) == [f"{n}.safetensors" for n in range(1, 5)]


def test_a_folder_is_read_ahead_and_written_behind(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        Image.new("L", (20, 20), 60 * number).save(tmp_path / f"{number}.png")
    threads: dict[str, set[str]] = {}
    for module, name in (
        ("album.runner", "open_reduced"),
        ("album.shelf", "save_latent"),
        ("inversion.projector", "Projector.invert"),
    ):
        own = attrgetter(name)(importlib.import_module(f"latentedit.{module}"))

        def told(*a: Any, own: Any = own, n: str = name, **k: Any) -> Any:
            threads.setdefault(n, set()).add(threading.current_thread().name)
            return own(*a, **k)

        monkeypatch.setattr(f"latentedit.{module}.{name}", told)
    works(
        "invert",
        *sorted(tmp_path.glob("?.png")),
        "--model",
        tiny_file,
        "--aligned",
        "--steps",
        "2",
        "--batch",
        "2",
        "--out",
        tmp_path / "out",
    )
    assert len(list((tmp_path / "out").glob("?.safetensors"))) == 4
    main = threading.main_thread().name
    assert threads["Projector.invert"] == {main}
    assert main not in threads["open_reduced"] | threads["save_latent"]


def test_domain(tiny_file: Path, tmp_path: Path) -> None:
    model = load_model(tiny_file)
    assert model.discriminator is not None
    domain = Domain.of(model.generator, model.discriminator)
    with torch.no_grad():
        ws = model.generator.mapping(
            torch.randn(20, 12, generator=torch.Generator().manual_seed(9))
        )
        own = [
            domain.distance(model.discriminator, model.generator.synthesis(row[None])) for row in ws
        ]
    assert np.median(own) < 1.1
    checks = torch.from_numpy(np.indices((16, 16)).sum(axis=0) % 2 * 2.0 - 1)[None, None].float()
    assert domain.distance(model.discriminator, checks * 3) > max(own)


def test_domain_is_measured_once(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny_file)
    assert model.discriminator is not None
    own = fingerprint(model.generator)
    first = Domain.cached(model.generator, model.discriminator, own)

    def again(*_: object, **__: object) -> Domain:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(Domain, "of", again)
        kept = Domain.cached(model.generator, model.discriminator, own)
        assert torch.equal(kept.mean, first.mean)
        assert torch.equal(kept.std, first.std)
        assert kept.usual == pytest.approx(first.usual)
        with torch.no_grad():
            # another one beside the same generator
            next(model.discriminator.parameters()).add_(0.1)
        with pytest.raises(AssertionError, match="measured again"):
            Domain.cached(model.generator, model.discriminator, own)


def test_index(tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    Image.new("L", (20, 20)).save(photo)
    one, two = key(photo, {"steps": 3}), key(photo, {"steps": 4})
    assert one != two
    index = Index(tmp_path)
    index.add(photo="a.png", latent="a.safetensors", status="ok", key=one, psnr=20.123456)
    assert not index.has("a.safetensors", one)  # the file itself is not there
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert Index(tmp_path).has("a.safetensors", one)
    assert not Index(tmp_path).has("a.safetensors", two)
    Index(tmp_path).add(photo="a.png", latent="a.safetensors", status="failed", key=one)
    assert not Index(tmp_path).has("a.safetensors", one)
    assert len(rows(tmp_path)) == 2
    (tmp_path / "index.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Error, match="not an index written by latentedit"):
        Index(tmp_path)


def test_an_index_without_its_head(tmp_path: Path) -> None:
    """A full disk left the file empty, and later a row without a head; both are gone on with."""
    (tmp_path / "a.safetensors").write_bytes(b"")
    (tmp_path / "index.csv").write_bytes(b"")
    Index(tmp_path).add("a.png", latent="a.safetensors", status="ok", key="k")
    assert rows(tmp_path)[0]["status"] == "ok"
    lines = (tmp_path / "index.csv").read_text().splitlines()
    for text in (
        lines[1],
        "\n".join([*lines, *lines]),
        f"{lines[1]}\n{lines[0]}\n",
        lines[1].rstrip("\n"),
    ):
        (tmp_path / "index.csv").write_text(text)
        assert Index(tmp_path).has("a.safetensors", "k")
        Index(tmp_path).add("b.png", latent="b.safetensors", status="failed")
        assert Index(tmp_path).rows["b.safetensors"]["status"] == "failed"
        assert Index(tmp_path).has("a.safetensors", "k")


def test_indexes_that_hold_anything(tmp_path: Path) -> None:
    """One line or nothing, whatever is in it."""
    for data in (b"\n\n\n", b"latent\n", b'"', b"a\nb,c\n", b"," * 100, b'a,b,"c'):
        (tmp_path / "index.csv").write_bytes(data)
        found = Index(tmp_path)
        assert not found.has("a", "k")
        assert not found.of_another("d", "b.png", "k" * 32)
        found.add("a.png", latent="new", status="ok", key="k")
        assert Index(tmp_path).rows["new"]["key"] == "k"
    for data in (b"latent,status\na\n", b"x" * 200_000, b"\xff"):
        (tmp_path / "index.csv").write_bytes(data)
        with pytest.raises(Error, match="index.csv: not an index written by latentedit"):
            Index(tmp_path)


def test_a_full_disk_leaves_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(tmp_path)
    own = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: own(handle, data[:10]))
    with pytest.raises(Error, match="cannot write .*index.csv: No space left on device"):
        index.add("a.png", latent="a.safetensors", status="ok", key="k")
    assert (tmp_path / "index.csv").read_bytes() == b""
    monkeypatch.undo()
    index.add("a.png", latent="a.safetensors", status="ok", key="k")
    whole = (tmp_path / "index.csv").read_bytes()
    monkeypatch.setattr(os, "write", lambda handle, data: own(handle, data[:10]))
    with pytest.raises(Error, match="No space left"):
        index.add("b.png", latent="b.safetensors", status="ok", key="k")
    assert (tmp_path / "index.csv").read_bytes() == whole


def test_cells_that_a_spreadsheet_would_compute(tmp_path: Path) -> None:
    names = ["=HYPERLINK(1)", "+1", "-1", "@x", "'=x", "''=x", "'plain", "plain"]
    index = Index(tmp_path)
    for name in names:
        index.add(tmp_path / name, latent=name, status="ok", remarks=name, psnr=-1.5, key="k")
    with open(tmp_path / "index.csv", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@")) and cell != "-1.5"]
    found = Index(tmp_path).rows
    assert list(found) == names
    assert [row["remarks"] for row in found.values()] == names
    assert {row["psnr"] for row in found.values()} == {"-1.5"}


def test_masked_photos(tmp_path: Path, tiny_file: Path) -> None:
    photos = folder_of_photos(tmp_path / "photos", 1)
    half = Image.new("L", (16, 16))
    half.paste(255, (0, 0, 8, 16))
    half.save(tmp_path / "left.png")
    out = tmp_path / "out"
    works(
        "invert",
        photos / "0.png",
        "--model",
        tiny_file,
        "--out",
        out,
        "--aligned",
        "--steps",
        "60",
        "--mask",
        tmp_path / "left.png",
    )
    assert load_latent(out / "0.safetensors").settings["masked"]
    target = to_tensor(Image.open(photos / "0.png").resize((16, 16), Image.Resampling.LANCZOS))
    found = load_image(out / "0.png", channels=1)
    error = (found - target).square().mean(dim=(0, 1, 2))
    assert error[:7].mean() < error[9:].mean()


def test_json_has_a_record_for_every_photo(tmp_path: Path, tiny_file: Path) -> None:
    """Those that failed and those that were done before, too, each once."""
    photos, out = folder_of_photos(tmp_path / "photos", 2), tmp_path / "out"
    (photos / "bad.png").write_text("no picture")
    command = ("invert", photos, "--model", tiny_file, "--out", out, *STEPS, "--json")

    def records() -> dict[str, str]:
        result = run(*command)
        assert result.exit_code == 1
        facts = [json.loads(line) for line in result.stdout.splitlines()]
        assert len(facts) == 3
        assert "not an image" in next(fact["error"] for fact in facts if fact["status"] == "failed")
        return {Path(fact["photo"]).name: fact["status"] for fact in facts}

    assert records() == {"0.png": "ok", "1.png": "ok", "bad.png": "failed"}
    assert records() == {"0.png": "done before", "1.png": "done before", "bad.png": "failed"}
