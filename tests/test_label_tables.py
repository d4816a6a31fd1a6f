"""Tables of labels as people and their spreadsheets write them, and the kinds of files that they
may name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.cli import common
from latentedit.cli.fitting import are_latents, own_latents
from latentedit.directions import load_direction, read_labels
from latentedit.directions.labelling.session import Labelling
from latentedit.directions.labelling.table import Table
from latentedit.directions.labels import ENDINGS, read_texts
from latentedit.errors import Error
from latentedit.formats.load_latent import ENDINGS as LATENTS
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_model
from latentedit.io.header import read_header
from latentedit.io.images import open_image
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.model.model import Model
from latentedit.networks.fingerprint import fingerprint
from latentedit.training import load_pictures, load_preset
from latentedit.training.preparation import class_labels
from tests.helpers import run, tiny_generator, works


def table(folder: Path, text: str, names: tuple[str, ...] = ("a.png", "b.png", "c.png")) -> Path:
    for name in names:
        (folder / name).write_bytes(b"")
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


@pytest.mark.parametrize("between", [";", "\t", ","])
def test_what_separates_the_cells(tmp_path: Path, between: str) -> None:
    rows = ["file,hat", "a.png,1", "b.png,0", "c.png,1"]
    path = table(tmp_path, "\n".join(rows).replace(",", between))
    assert read_labels(path, "hat").values.tolist() == [1, 0, 1]
    classes = class_labels(tmp_path, str(path), "hat")
    assert classes is not None
    assert [classes(name) for name in ("a.png", "b.png")] == ["1", "0"]

    cells = Table(path)
    cells.set(1, "coat", "1")
    assert path.read_text() == "\n".join(
        ["file,hat,coat", "a.png,1,", "b.png,0,1", "c.png,1,"]
    ).replace(",", between)


def test_decimal_commas_go_with_semicolons(tmp_path: Path) -> None:
    path = table(tmp_path, "file;length\na.png;0,5\nb.png;-1,25\nc.png;2\n")
    assert read_labels(path, "length").values.tolist() == [0.5, -1.25, 2]


def test_spellings_of_yes_and_no(tmp_path: Path) -> None:
    path = table(tmp_path, "file,hat\na.png,Yes\nb.png,FALSE\nc.png,true\n")
    assert read_labels(path, "hat").values.tolist() == [1, 0, 1]
    assert read_labels(path, "hat").binary
    reached = Labelling(path, "hat", order="file").progress()
    assert (reached.yes, reached.no, reached.left) == (2, 1, 0)
    path.write_text("file,hat\na.png,perhaps\nb.png,no\n")
    with pytest.raises(
        Error, match="line 2: hat is 'perhaps', neither a number nor yes or no; use positive=VALUE"
    ):
        read_labels(path, "hat")


def test_latents_of_other_tools_are_latents_everywhere(tmp_path: Path) -> None:
    """What `edit` reads is read in tables and sub-folders too; sizes of another network are refused
    by name."""
    model = Model(tiny_generator())
    generator = model.generator
    ws = torch.randn(1, generator.num_ws, generator.w_dim)
    np.savez(tmp_path / "a.npz", w=ws.numpy())
    np.save(tmp_path / "b.npy", ws[:, :1].numpy())
    torch.save(ws[0], tmp_path / "c.pt")
    save_latent(tmp_path / "d.safetensors", Latent(ws, None, fingerprint(generator), "w+"))
    paths = [tmp_path / name for name in ("a.npz", "b.npy", "c.pt", "d.safetensors")]
    assert are_latents(paths)
    assert [latent.rows(generator.num_ws).shape for latent in own_latents(paths, model)] == [
        ws.shape
    ] * 4
    assert set(LATENTS) <= set(ENDINGS)
    with pytest.raises(Error, match="both latent files and photos"):
        are_latents([*paths, tmp_path / "x.png"])

    np.savez(tmp_path / "wide.npz", w=np.zeros((1, 3, 7)))
    with pytest.raises(Error, match="wide.npz: latents of 3 x 7; this generator has 6 x 12"):
        own_latents([tmp_path / "wide.npz"], model)


LONG = "x" * 5000


def test_names_that_no_system_has(tmp_path: Path) -> None:
    """They are files that are not there, wherever they stand."""
    for text in (
        f"file,hat\n{LONG},1\n",
        f"file,picture,hat\na.png,{LONG},1\n",
        "file,hat\n\0,1\n",
    ):
        where = table(tmp_path, text)
        with pytest.raises(Error, match="line 2: no such|not a readable CSV"):
            Labelling(where, "hat")
    where = table(tmp_path, f"file,hat\n{LONG},1\n")
    with pytest.raises(Error, match="line 2: no such file"):
        read_labels(where, "hat")
    with pytest.raises(Error, match="line 2: no such file"):
        class_labels(tmp_path, str(where), "hat")
    for read in (
        load_model,
        load_latent,
        load_direction,
        load_preset,
        open_image,
        load_pictures,
        read_header_of,
    ):
        for name in (LONG, f"{tmp_path}/{LONG}"):
            with pytest.raises(Error, match="no such|no direction|xxx"):
                read(name)


def read_header_of(path: str) -> None:
    read_header(path, "x", 1)


@pytest.mark.parametrize("column", ["file", "hat"])
def test_heads_with_a_carriage_return_within(tmp_path: Path, column: str) -> None:
    where = table(tmp_path, "file,\rhat\na.png,1\n")
    with pytest.raises(Error, match="labels.csv"):
        read_labels(where, "age", file_column=column)
    with pytest.raises(Error, match="labels.csv"):
        Labelling(where, "hat")


@pytest.mark.parametrize("text", ["1e308", "-1e16", "9" * 400])
def test_numbers_too_large_for_sums(tmp_path: Path, text: str) -> None:
    where = table(tmp_path, f"file,age\na.png,3\nb.png,{text}\nc.png,2\n")
    with pytest.raises(
        Error,
        match="line 3: age is .*(expected a number between -1e\\+15 and 1e\\+15|not a finite "
        "number)",
    ):
        read_labels(where, "age")


def classes(folder: Path, names: tuple[str, ...]) -> Path:
    """Samples of a brightness a class."""
    for level, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            Image.new("L", (24, 24), 40 + 160 * level // len(names) + i).save(
                folder / name / f"{i}.png"
            )
    return folder


def test_a_common_top_folder_is_no_class(tmp_path: Path, without_heic: None) -> None:
    """And what is not used of a folder is told, as elsewhere."""
    inner = classes(tmp_path / "set" / "photos", ("dark", "light"))
    (inner / "dark" / "phone.heic").write_bytes(b"x")
    (inner / "light" / "deep").mkdir()
    (inner / ".cache").mkdir()
    found = read_texts(tmp_path / "set")
    assert set(found.texts) == {"dark", "light"}
    assert len(found.paths) == 12
    assert found.left_out == [
        f'{inner / "dark"}: left out 1: phone.heic (.heic; pip install "latentedit[heic]" reads '
        "them)",
        f"{inner / 'light'}: left out 1: deep/ (sub-folders)",
    ]
    with pytest.raises(
        Error, match="expected a CSV file, or a folder with two or more sub-folders"
    ):
        read_texts(classes(tmp_path / "one", ("dark",)))


def test_names_of_classes_become_names_of_directions(
    tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever classes and columns are called; a name that cannot be is refused before the work."""
    monkeypatch.setattr(common, "bar_options", lambda: {"disable": False})  # drawn at once
    folder = classes(tmp_path / "my set", ("a:b", "A", "a", "é"))
    options = ("--model", tiny_file, "--aligned", "--samples", 100)
    out = tmp_path / "out"
    done = works("directions", "fit", folder, "--each", *options, "--out", out)
    names = {path.name for path in out.iterdir()}
    assert len({name.casefold() for name in names}) == len(names) == 4
    assert {"my-set-a-b.safetensors", "my-set-A.safetensors", "my-set-a-2.safetensors"} <= names
    assert "transferring" in done.stderr
    told = run("directions", "fit", folder, "--each", "--name", "grey hair", *options, "--out", out)
    assert (
        told.stderr
        == "latentedit: a direction's name has letters, digits, - and _, got 'grey hair'\n"
    )
    rows = [
        f"my set/{name}/{i}.png,{number % 2}"
        for number, name in enumerate(("A", "a"))
        for i in range(6)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["file,grey hair", *rows]))
    works(
        "directions",
        "fit",
        tmp_path / "t.csv",
        "--column",
        "grey hair",
        *options,
        "--out",
        tmp_path / "x.safetensors",
    )
    assert load_direction(str(tmp_path / "x.safetensors")).name == "grey-hair"
