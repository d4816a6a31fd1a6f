"""Defaults that a user sets, and networks that are found again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentedit.cli import defaults
from latentedit.errors import Error
from latentedit.formats.load_model import load_generator
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.model.remembered import MOST, networks, networks_file, remember
from latentedit.networks.fingerprint import fingerprint
from tests.helpers import complaint, run, tiny_generator, works


@pytest.fixture
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's file of defaults, which is not there yet, and an empty data
    folder."""
    folder = tmp_path / "user"
    monkeypatch.setenv("LATENTEDIT_CONFIG", str(folder / "config.toml"))
    monkeypatch.setenv("LATENTEDIT_DATA", str(folder / "data"))
    for key in defaults.SETTINGS:
        if key not in ("cache", "data"):
            monkeypatch.delenv(f"LATENTEDIT_{key.upper()}", raising=False)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "me.png"
    Image.new("L", (16, 16), 120).save(path)
    return path


def shown(key: str) -> tuple[object, str]:
    """The value of a default, and where it comes from, as ``config show --json`` has them."""
    found = json.loads(works("config", "show", "--json").stdout)["settings"][key]
    return found["value"], found["from"]


def test_option_before_environment_before_file_before_built_in(
    own_place: Path, photo: Path, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invert = [
        "invert",
        photo,
        "--model",
        tiny_file,
        "--aligned",
        "--method",
        "adam",
        "--steps",
        "1",
    ]
    assert run(*invert).exit_code == 2  # --out is missing
    assert shown("out") == ("none: --out is needed", "built in")

    works("config", "set", "out", tmp_path / "file")
    assert shown("out") == (str(tmp_path / "file"), str(own_place / "config.toml"))
    works(*invert)
    assert (tmp_path / "file" / "me.safetensors").is_file()

    monkeypatch.setenv("LATENTEDIT_OUT", str(tmp_path / "environment"))
    assert shown("out") == (str(tmp_path / "environment"), "LATENTEDIT_OUT")
    works(*invert)
    assert (tmp_path / "environment" / "me.safetensors").is_file()

    works(*invert, "--out", tmp_path / "option")
    assert (tmp_path / "option" / "me.safetensors").is_file()


def test_a_default_model_and_framing(
    own_place: Path, photo: Path, tmp_path: Path, tiny_file: Path
) -> None:
    unframed = tmp_path / "unframed.safetensors"
    save_model(unframed, Model(tiny_generator(), None))
    works("config", "set", "model", unframed)
    said = complaint("align", photo, "--out", tmp_path / "crops")
    assert "does not define the framing of faces" in said
    works("config", "set", "framing", "ffhq")
    assert "no face found" in complaint("align", photo, "--out", tmp_path / "crops")

    # A model that defines its own framing keeps it, unless the option on the command line asks for
    # another.
    assert "no face found" in complaint(
        "align", photo, "--model", tiny_file, "--out", tmp_path / "crops"
    )
    words = ["align", photo, "--model", tiny_file, "--framing", "ffhq", "--out", tmp_path / "crops"]
    assert "defines another framing" in complaint(*words)


def test_the_file_keeps_its_comments(own_place: Path) -> None:
    file = own_place / "config.toml"
    file.parent.mkdir()
    file.write_text('# mine\nmodel = "faces128"  # the usual one\n')
    works("config", "set", "threads", "2")
    works("config", "set", "model", "other.pkl")
    assert file.read_text() == '# mine\nmodel = "other.pkl"  # the usual one\nthreads = 2\n'
    assert works("config", "get", "threads").stdout == "2\n"
    works("config", "unset", "model")
    assert works("config", "get", "model").stdout == "faces128\n"
    assert works("config", "path").stdout == f"{file}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modle = 1", "'modle' is not a setting; settings are model, "),
        ("threads = 0", "threads must be a whole number from 1 to 4096, got 0"),
        ("threads = true", "threads must be a whole number from 1 to 4096, got True"),
        ('device = "tpu"', "device must be auto, cpu, cuda, cuda:N or mps, got 'tpu'"),
        ('framing = "mine"', "framing must be ffhq, got 'mine'"),
        ('quality = "good"', "quality must be fast, balanced or best, got 'good'"),
        ("out = []", "out must be the name of a folder, got a list"),
        ("megapixels = -1", "megapixels must be a number above 0, got -1"),
        ("model =", "not a TOML file"),
    ],
)
def test_wrong_values_in_the_file(own_place: Path, photo: Path, text: str, expected: str) -> None:
    file = own_place / "config.toml"
    file.parent.mkdir()
    file.write_text(text)
    said = complaint("invert", photo, "--out", own_place)
    assert said.startswith(f"latentedit: {file}: ")
    assert expected in said
    assert works("config", "path").stdout == f"{file}\n"  # the way to repair it


def test_wrong_values_elsewhere(
    own_place: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert complaint("config", "set", "threads", "many").endswith(
        "threads must be a whole number from 1 to 4096, got 'many'"
    )
    assert "threads is not set in" in complaint("config", "unset", "threads")
    assert run("config", "set", "colour", "red").exit_code == 2
    monkeypatch.setenv("LATENTEDIT_DEVICE", "tpu")
    said = complaint("invert", photo, "--out", own_place)
    assert said == "latentedit: LATENTEDIT_DEVICE must be auto, cpu, cuda, cuda:N or mps, got 'tpu'"
    monkeypatch.setenv("LATENTEDIT_DEVICE", "cpu")
    monkeypatch.setenv("LATENTEDIT_MODEL", "nothing.pkl")
    said = complaint("invert", photo, "--out", own_place)
    assert said.startswith("latentedit: nothing.pkl: no such model file")
    assert said.endswith("the default model is set in LATENTEDIT_MODEL")
    assert "LATENTEDIT_MODEL" not in complaint(
        "invert", photo, "--model", "nothing.pkl", "--out", own_place
    )


def test_what_the_library_reads_from_the_environment(
    own_place: Path, photo: Path, tiny_file: Path
) -> None:
    works("config", "set", "megapixels", "0.0001")
    words = ["align", photo, "--model", tiny_file, "--out", own_place / "out"]
    assert "more than 0.0001" in complaint(*words)
    assert "LATENTEDIT_MEGAPIXELS" not in os.environ
    works("config", "set", "megapixels", "1")
    assert "no face found" in complaint(*words)


@pytest.mark.parametrize(("words", "count"), [([], 2), (["--threads", "3"], 3)])
def test_threads(own_place: Path, words: list[str], count: int) -> None:
    works("config", "set", "threads", "2")
    before = torch.get_num_threads()
    said = works("-v", *words, "model", "info", "faces128", "--json").stderr
    assert f"device cpu, with {count} threads" in said
    assert torch.get_num_threads() == before


def test_help_shows_what_is_built_in(own_place: Path) -> None:
    works("config", "set", "model", "mine.pkl")
    text = " ".join(works("invert", "--help").stdout.split())
    assert "file. [default: faces128]" in text
    assert "mine.pkl" not in text


def test_a_network_is_found_again_for_its_latent(
    own_place: Path, tiny_file: Path, tmp_path: Path
) -> None:
    latent = tmp_path / "seed.safetensors"
    works("sample", tiny_file, "--seeds", "5", "--out", latent)
    own = fingerprint(load_generator(tiny_file))
    assert networks() == {own: tiny_file}
    export = ["mix", latent, latent, "--out"]
    works(*export, tmp_path / "found.png")
    assert json.loads(works("config", "show", "--json").stdout)["networks"] == {own: str(tiny_file)}
    assert own[:12] in works("config", "show").stdout

    # Another network in the same file is told apart, and a file that is gone is named.
    save_model(tiny_file, Model(tiny_generator(seed=1)))
    said = complaint(*export, tmp_path / "other.png")
    assert f"needs the generator {own[:12]}, which was in {tiny_file}; that is " in said
    assert not (tmp_path / "other.png").exists()
    networks_file().unlink()
    remember(own, tiny_file)
    tiny_file.unlink()
    said = complaint(*export, tmp_path / "gone.png")
    assert f"was in {tiny_file} and is no longer there; name its file with --model" in said


def test_a_latent_of_another_tool_gets_the_default_model(
    own_place: Path, tiny_file: Path, tmp_path: Path
) -> None:
    latent = tmp_path / "projected_w.npz"
    source = tmp_path / "seed.safetensors"
    save_latent(source, Latent(torch.zeros(1, 6, 12), None, "0" * 64, "w"))
    works("latent", "export", source, "--out", latent)
    words = ["mix", latent, latent, "--out", tmp_path / "mixed.png"]
    assert complaint(*words).endswith("does not name its generator; add --model")
    works("config", "set", "model", tiny_file)
    works(*words)


def test_the_list_of_networks(own_place: Path, tmp_path: Path) -> None:
    assert networks() == {}
    for number in range(MOST + 2):
        remember(f"{number:064}", tmp_path / f"{number}.pkl")
    assert len(networks()) == MOST
    assert f"{0:064}" not in networks()
    networks_file().write_text("[]")
    assert networks() == {}
    networks_file().write_text("{")
    assert networks() == {}
    shutil.rmtree(networks_file().parent)
    networks_file().parent.write_text("a file where the folder should be")
    remember("0" * 64, tmp_path / "0.pkl")  # cannot be written, which is no trouble
    assert networks() == {}


def test_the_installed_command_reads_the_users_files(own_place: Path) -> None:
    """In a process of its own, where nothing was imported before."""
    words = [sys.executable, "-m", "latentedit", "config", "show"]
    environment = {**os.environ, "LATENTEDIT_THREADS": "3"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert any(
        line.split()[:3] == ["threads", "3", "LATENTEDIT_THREADS"]
        for line in done.stdout.splitlines()
    )


def test_settings_are_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "defaults.md").read_text()
    for key in defaults.SETTINGS:
        assert f"| `{key}` | `LATENTEDIT_{key.upper()}` |" in page, key
    with pytest.raises(Error, match="is not a setting"):
        defaults.check_key("colour")
