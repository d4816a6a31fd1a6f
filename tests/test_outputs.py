"""An input is never written to, and nothing of the user's own is written over."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from latentedit.cli.main import main
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.io import outputs
from latentedit.io.files import write_bytes
from latentedit.io.folders import distinct, listing
from latentedit.io.images import CUT, EDITED, is_rendering, note_of, open_image, save_image
from tests.helpers import complaint, run, works

STEPS = ("--aligned", "--steps", "2")


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (24, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_rule_holds_where_files_are_written(tmp_path: Path) -> None:
    given = tmp_path / "given.bin"
    given.write_bytes(b"mine")
    (tmp_path / "link.bin").symlink_to(given)
    os.link(given, tmp_path / "hard.bin")
    with outputs.guarded():
        outputs.given(given)
        outputs.given(tmp_path / "absent.bin")
        for name in ("given.bin", "link.bin", "hard.bin", "../" + tmp_path.name + "/given.bin"):
            with pytest.raises(
                Error, match="is an input of this command, and inputs are never overwritten"
            ):
                write_bytes(tmp_path / name, b"theirs")
        write_bytes(tmp_path / "absent.bin", b"new")
        write_bytes(given, b"changed", in_place=True)
    write_bytes(given, b"a program decides for itself")
    assert not outputs.is_given(given)


def test_a_number_that_a_new_file_inherits_is_no_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, new = tmp_path / "gone.bin", tmp_path / "new.bin"
    gone.write_bytes(b"")
    with outputs.guarded():
        outputs.given(gone)
        identity = outputs._identity(gone)
        gone.unlink()
        new.write_bytes(b"")
        own = outputs._identity
        monkeypatch.setattr(
            outputs, "_identity", lambda path: identity if path == new else own(path)
        )
        assert not outputs.is_given(new)


def test_devices_are_left_alone(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(Error, match="is a device or similar"):
        write_bytes(pipe, b"x")
    assert pipe.is_fifo()


def test_every_parameter_of_every_command_is_an_input_or_an_output() -> None:
    """A parameter that takes a new file must be in OUTPUTS, or the second run would be refused."""
    from latentedit.cli.main import OUTPUTS
    from tests.helpers import commands

    writes = (
        "write",
        "also write",
        "folder for",
        "folder of",
        "picture:",
        "picture.",
        "direction file",
        "training set:",
        "a .npz",
    )
    found = set()
    for _, command in commands():
        for parameter in command.params:
            text = (getattr(parameter, "help", None) or "").lower()
            if parameter.name in ("out", "target") or (
                getattr(parameter.type, "name", "") in ("path", "file", "directory")
                and (text.startswith(writes) or "to write" in text)
            ):
                found.add(parameter.name)
    assert found == OUTPUTS


def test_invert_beside_the_photo(tmp_path: Path, tiny_file: Path) -> None:
    folder = tmp_path / "ph"
    me = photo(folder / "me.png")
    before = me.read_bytes()
    first = works("invert", me, "--model", tiny_file, "--out", folder, *STEPS)
    assert me.read_bytes() == before
    made = set(everything(folder)) - {"me.png"}
    assert made == {
        "me-inverted.safetensors",
        "me-inverted.png",
        "me-inverted-compare.png",
        "index.csv",
    }
    assert f"wrote {folder}/me-inverted.png" in first.stdout
    state = everything(folder)
    again = works("invert", folder, "--model", tiny_file, "--out", folder, *STEPS)
    assert (
        "left out 2: me-inverted-compare.png, me-inverted.png (rendered by latentedit;"
        in again.stderr
    )
    assert "me.png: already done" in again.stderr
    assert everything(folder) == state


def test_outputs_of_one_photo_do_not_replace_those_of_another(
    tmp_path: Path, tiny_file: Path
) -> None:
    folder = tmp_path / "ph"
    for seed, name in enumerate(("a.png", "a-compare.png", "sheet.png")):
        photo(folder / name, seed)
    before = everything(folder)
    out = tmp_path / "out"
    works("invert", folder, "--model", tiny_file, "--out", out, *STEPS)
    assert {path.name for path in out.glob("*.safetensors")} == {
        "a.safetensors",
        "a-compare-inverted.safetensors",
        "sheet-inverted.safetensors",
    }
    assert everything(folder) == before
    assert is_rendering(out / "sheet.png")
    assert open_image(out / "sheet.png").width > 100


def test_a_later_photo_of_the_same_name_gets_a_name_of_its_own(
    tmp_path: Path, tiny_file: Path
) -> None:
    out = tmp_path / "album"
    for seed, where in enumerate(("x", "y", "x")):
        photo(tmp_path / where / "I.png", seed % 2)
        works("invert", tmp_path / where / "I.png", "--model", tiny_file, "--out", out, *STEPS)
    assert {path.name for path in out.glob("*.safetensors")} == {
        "I.safetensors",
        "I-inverted.safetensors",
    }
    shutil.copytree(tmp_path / "y", tmp_path / "copy")  # the same photo from elsewhere
    again = works("invert", tmp_path / "copy" / "I.png", "--model", tiny_file, "--out", out, *STEPS)
    assert len(list(out.glob("*.safetensors"))) == 3 or "already done" in again.stderr


def test_relative_names_from_two_folders(
    tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, where in enumerate(("x", "y")):
        photo(tmp_path / where / "I.png", seed)
        monkeypatch.chdir(tmp_path / where)
        works("invert", "I.png", "--model", tiny_file, "--out", "../album", *STEPS)
    assert len(list((tmp_path / "album").glob("*.safetensors"))) == 2


def test_one_stem(tmp_path: Path) -> None:
    def names(*files: str) -> list[str]:
        return list(distinct([Path(file) for file in files]).values())

    assert names("a.jpg", "b.jpg") == ["a", "b"]
    assert sorted(names("a.jpg", "a.png")) == ["a-jpg", "a-png"]
    assert (
        sorted(names("a.jpg", "A.jpg")) == ["A-jpg", "a-jpg-2"]
        or len({n.casefold() for n in names("a.jpg", "A.jpg")}) == 2
    )
    assert names("x/I.jpg", "y/I.jpg") == ["x-I", "y-I"]
    assert names("x/I.jpg", "y/I.jpg", "y/I.png") == ["x-I-jpg", "y-I-jpg", "y-I-png"]
    assert sorted(names("p/x/I.jpg", "q/x/I.jpg")) == ["x-I-jpg", "x-I-jpg-2"]
    assert len({name.casefold() for name in names("x/I.jpg", "y/I.jpg", "x-I.jpg", "X-i.png")}) == 4


def test_align_keeps_photos_and_all_crops(tmp_path: Path, tiny_file: Path) -> None:
    folder = tmp_path / "ph"
    for seed, name in enumerate(("a.jpg", "a.png", "crop.png")):
        photo(folder / name, seed, (60, 60))
    before = everything(folder)
    marks = ("--model", tiny_file, "--landmarks", "20,25,40,25,30,40")
    works("align", folder, *marks, "--out", folder)
    after = everything(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"a-jpg.png", "a-png.png", "crop-crop.png"}
    assert note_of(folder / "a-jpg.png") == CUT
    # Crops are photographs still: the next command takes them.
    works(
        "invert", folder / "a-jpg.png", "--model", tiny_file, "--out", tmp_path / "latents", *STEPS
    )
    taken = run("align", folder, *marks, "--out", tmp_path / "out")
    assert "rendered" not in taken.stderr
    assert "3 of 6 failed" in taken.stderr  # the marks lie outside the crops


def test_edits_beside_their_latents_and_over_photos(tmp_path: Path, tiny_file: Path) -> None:
    me, album = photo(tmp_path / "me.png"), tmp_path / "album"
    works("invert", me, "--model", tiny_file, "--out", album, *STEPS)
    (tmp_path / "other").mkdir()
    shutil.copy(album / "me.safetensors", tmp_path / "other" / "me.safetensors")
    directions = ("--sweep", f"{tmp_path / 'axis.safetensors'}=-1:1:2", "--model", tiny_file)
    axis(tmp_path / "axis.safetensors", tiny_file)
    before = everything(album)
    works("edit", album / "me.safetensors", *directions, "--out", album)
    after = everything(album)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"me-edited.png"}
    works(
        "edit",
        album / "me.safetensors",
        tmp_path / "other" / "me.safetensors",
        *directions,
        "--out",
        tmp_path / "out",
    )
    assert set(everything(tmp_path / "out")) == {"album-me.png", "other-me.png"}
    old = me.read_bytes()
    told = complaint("edit", album / "me.safetensors", *directions, "--out", me)
    assert "me.png: already exists, and latentedit did not write it" in told
    assert me.read_bytes() == old
    # its own, again
    works("edit", album / "me.safetensors", *directions, "--out", album / "me-edited.png")
    pasted = ("edit", album / "me.safetensors", "--model", tiny_file, "--paste-back", me, "--out")
    assert "me.png: is an input of this command" in complaint(*pasted, me)
    moved = (
        "edit",
        album / "me.safetensors",
        "--model",
        tiny_file,
        "--set",
        f"{tmp_path / 'axis.safetensors'}=1",
        "--out",
    )
    for name in (album / "me.safetensors", tmp_path / "axis.safetensors"):
        kept = name.read_bytes()
        assert f"{name.name}: is an input of this command" in complaint(*moved, name)
        assert name.read_bytes() == kept


def axis(path: Path, model: Path) -> None:
    import torch

    from latentedit.directions import Direction
    from latentedit.formats.load_model import load_generator
    from latentedit.networks.fingerprint import fingerprint

    generator = load_generator(model)
    Direction("axis", torch.eye(generator.w_dim)[0], 0.0, 1.0, fingerprint(generator)).save(path)


def test_imports_of_one_name(tmp_path: Path, tiny_file: Path) -> None:
    for seed, where in enumerate("pqr"):
        (tmp_path / where).mkdir()
        np.savez(
            tmp_path / where / "projected_w.npz", w=np.full((1, 6, 12), seed, dtype=np.float32)
        )
    out = tmp_path / "out"
    files = [tmp_path / where / "projected_w.npz" for where in "pq"]
    works("latent", "import", *files, "--model", tiny_file, "--out", out)
    assert {path.stem for path in out.glob("*.safetensors")} == {"p-projected_w", "q-projected_w"}
    works("latent", "import", *files, "--model", tiny_file, "--out", out)
    assert len(list(out.iterdir())) == 4
    for where in "pqr":
        works(
            "latent",
            "import",
            tmp_path / where / "projected_w.npz",
            "--model",
            tiny_file,
            "--out",
            tmp_path / "one by one",
        )
    found = [
        load_latent(path).ws.mean() for path in (tmp_path / "one by one").glob("*.safetensors")
    ]
    assert sorted(float(mean) for mean in found) == [0, 1, 2]


def test_models_and_tables_are_not_written_over(tmp_path: Path, tiny_file: Path) -> None:
    before = tiny_file.read_bytes()
    assert "is an input of this command" in complaint("model", "convert", tiny_file, tiny_file)
    assert tiny_file.read_bytes() == before
    works("model", "convert", tiny_file, tmp_path / "copy.safetensors")
    works("model", "convert", tiny_file, tmp_path / "copy.safetensors")


def test_what_is_left_out_of_a_folder_is_told(
    tmp_path: Path, tiny_file: Path, without_heic: None
) -> None:
    folder = tmp_path / "ph"
    photo(folder / "a.jpg")
    photo(folder / "deep" / "b.jfif")
    photo(folder / "deep" / ".hidden" / "c.png")
    photo(folder / ".d.png")
    save_image(Image.new("RGB", (24, 24)), folder / "drawn.jpg")
    for name in ("e.heic", "f.HEIC", "notes.txt", "one.txt", "two.txt", "three.txt"):
        (folder / name).write_bytes(b"x")
    shown = works("invert", folder, "--model", tiny_file, "--out", tmp_path / "out", *STEPS).stderr
    assert f"{folder}: left out 1: deep/ (sub-folders; --recursive includes them)" in shown
    assert "left out 1: drawn.jpg (rendered by latentedit;" in shown
    assert 'left out 2: e.heic, f.HEIC (.heic; pip install "latentedit[heic]" reads them)' in shown
    assert "left out 4: notes.txt, one.txt, three.txt, ... (.txt)" in shown
    assert ".d.png" not in shown
    assert {path.name for path in (tmp_path / "out").glob("*.safetensors")} == {"a.safetensors"}
    axis(tmp_path / "axis.safetensors", tiny_file)
    deep = works(
        "edit",
        tmp_path / "out",
        "--model",
        tiny_file,
        "--set",
        f"{tmp_path / 'axis.safetensors'}=1",
        "--out",
        tmp_path / "ed",
    )
    assert "left out" not in deep.stderr
    (tmp_path / "out" / "more").mkdir()
    deep = works(
        "edit",
        tmp_path / "out",
        "--model",
        tiny_file,
        "--set",
        f"{tmp_path / 'axis.safetensors'}=1",
        "--out",
        tmp_path / "ed",
    )
    assert (
        f"{tmp_path / 'out'}: left out 1: more/ (sub-folders; --recursive includes them)"
        in deep.stderr
    )
    works("invert", folder, "--recursive", "--model", tiny_file, "--out", tmp_path / "all", *STEPS)
    assert {path.name for path in (tmp_path / "all").glob("*.safetensors")} == {
        "a.safetensors",
        "b.safetensors",
    }
    (tmp_path / "none").mkdir()
    save_image(Image.new("RGB", (24, 24)), tmp_path / "none" / "drawn.png")
    told = complaint(
        "invert", tmp_path / "none", "--model", tiny_file, "--out", tmp_path / "x", *STEPS
    )
    assert "no images in this folder; left out 1: drawn.png (rendered by latentedit" in told


@pytest.mark.parametrize("folder", [".", "/"])
def test_a_folder_is_no_file_to_write(folder: str, tiny_file: Path) -> None:
    for line in (
        ("encoder", "train", tiny_file),
        ("directions", "fit", "labels.csv", "--column", "hat", "--model", tiny_file),
        ("directions", "import", "boundary.npy", "--model", tiny_file),
        ("mix", "a.safetensors", "b.safetensors", "--model", tiny_file),
        ("interpolate", "a.safetensors", "b.safetensors", "--model", tiny_file),
        ("latent", "export", "a.safetensors"),
        ("latent", "bake", "a.safetensors", "--model", tiny_file),
    ):
        ended = run(*line, "--out", folder)
        assert ended.exit_code == 2, line
        assert "is a directory" in ended.output, line


def test_a_folder_of_directions_is_no_file(tmp_path: Path, tiny_file: Path) -> None:
    (tmp_path / "there").touch()
    line = ("directions", "fit", "photos", "--each", "--model", tiny_file)
    ended = run(*line, "--out", tmp_path / "there")
    assert ended.exit_code == 2
    assert "is a file" in ended.output


def test_pipes_and_links_are_not_followed(tmp_path: Path) -> None:
    photo(tmp_path / "ph" / "a.png")
    os.mkfifo(tmp_path / "ph" / "pipe.png")
    (tmp_path / "ph" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "ph" / "up").symlink_to(tmp_path)
    found = listing(tmp_path / "ph", (".png",), recursive=True, photos=True)
    assert [path.name for path in found.files] == ["a.png"]
    assert found.lines() == [
        "left out 2: gone.png, pipe.png (not ordinary files)",
        "left out 1: up/ (links to folders)",
    ]


def test_a_file_named_twice_is_done_once(tmp_path: Path, tiny_file: Path) -> None:
    me = photo(tmp_path / "me.png")
    (tmp_path / "link.png").symlink_to(me)
    works(
        "invert",
        me,
        me,
        tmp_path / "link.png",
        "--model",
        tiny_file,
        "--out",
        tmp_path / "out",
        *STEPS,
    )
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == ["me.safetensors"]


def test_names_that_are_not_utf8_or_move_the_cursor(tmp_path: Path, tiny_file: Path) -> None:
    folder = tmp_path / "ph"
    photo(folder / "me.png")
    names = [b"caf\xe9.png", b"red\x1b[31m.png", b"=HYPERLINK.png"]
    for name in names:
        shutil.copy(folder / "me.png", os.fsdecode(os.fsencode(folder) + b"/" + name))
    out = tmp_path / "out"
    command = ("invert", folder, "--model", tiny_file, "--out", out, *STEPS, "--remember-source")
    first = works(*command)
    assert "\x1b" not in first.stdout + first.stderr
    assert len(list(out.glob("*.safetensors"))) == 4
    text = (out / "index.csv").read_text(encoding="utf-8")
    assert "\n=" not in text
    assert ",=" not in text
    assert "'=HYPERLINK.safetensors" in text
    assert "\x1b" not in text
    assert works(*command).stderr.count("already done") == 4


def test_the_limit_of_megapixels_is_an_option(tmp_path: Path, tiny_file: Path) -> None:
    me = photo(tmp_path / "me.png", size=(200, 100))
    command = ("invert", me, "--model", tiny_file, "--out", tmp_path / "out", *STEPS)
    told = complaint(*command, "--megapixels", "0.01")
    assert (
        "me.png: has 0 megapixels (200 x 100), more than 0.01; --megapixels 1 (or "
        "LATENTEDIT_MEGAPIXELS)" in told
    )
    works(*command, "--megapixels", "0.03")
    works(*command)
    for wrong in ("nan", "inf", "0"):
        assert (
            CliRunner()
            .invoke(main, ["invert", "--megapixels", wrong, "x.png", "--out", "y"])
            .exit_code
            == 2
        )


def test_a_reduced_photo_keeps_its_place(tmp_path: Path, tiny_file: Path) -> None:
    smooth = Image.linear_gradient("L").resize((400, 300))
    smooth.save(tmp_path / "me.jpg", quality=95)
    command = ("invert", tmp_path / "me.jpg", "--model", tiny_file, *STEPS)
    works(*command, "--out", tmp_path / "whole")
    works(*command, "--out", tmp_path / "reduced", "--megapixels", "0.05")
    crops = [
        load_latent(tmp_path / where / "me.safetensors").crop for where in ("whole", "reduced")
    ]
    assert crops[0] == crops[1] == [[50, 0], [350, 0], [350, 300], [50, 300]]


def test_one_bad_photo_does_not_end_a_fit(tmp_path: Path, tiny_file: Path) -> None:
    rows = []
    for i in range(24):
        level = 40 if i % 2 else 200
        Image.new("L", (24, 24), level + i % 5).save(tmp_path / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{i % 2}\n")
    (tmp_path / "07.png").write_bytes(b"no picture")
    (tmp_path / "photos.csv").write_text("file,dark\n" + "".join(rows))
    command = (
        "directions",
        "fit",
        tmp_path / "photos.csv",
        "--column",
        "dark",
        "--model",
        tiny_file,
        "--aligned",
    )
    done = works(*command, "--samples", "200", "--out", tmp_path / "dark.safetensors")
    assert (tmp_path / "dark.safetensors").is_file()
    assert "skipped: " in done.stderr
    assert "07.png: not an image" in done.stderr
    assert "skipped 1 of 24 photos" in done.stderr


def test_every_photo_counts_that_the_disk_has_no_room_for(
    tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ph"
    for seed in range(3):
        photo(folder / f"{seed}.png", seed)

    def full(path: Path, *_: object) -> None:
        raise Error(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("latentedit.album.shelf.save_latent", full)
    monkeypatch.setattr("latentedit.album.index.Index.add", lambda self, photo, **_: full(photo))
    result = run("invert", folder, "--model", tiny_file, "--out", tmp_path / "out", *STEPS)
    assert result.exit_code == 1
    assert "3 of 3 failed" in result.stderr
    assert all(
        f"cannot write {tmp_path}/out/{seed}.safetensors: No space left" in result.stderr
        for seed in range(3)
    )


def test_renderings_say_so_in_every_format(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.tif", "a.gif"):
        save_image(Image.new("RGB", (24, 24)), tmp_path / name)
        assert note_of(tmp_path / name) == EDITED
        assert is_rendering(tmp_path / name)
