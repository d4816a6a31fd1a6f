"""Layout and import rules (docs: CONTRIBUTING)."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import latentedit
from latentedit.directions import Direction
from latentedit.formats.load_model import load_generator
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.networks.fingerprint import fingerprint

ROOT = Path(__file__).parent.parent
ROOMS = {"latentedit": ROOT / "latentedit", "latentedit.directions": ROOT / "directions", "latentedit.cli": ROOT / "cli"}


def files(room: str) -> list[Path]:
    folder = ROOMS[room]
    own = [p for p in folder.rglob("*.py") if not any(parent.is_symlink() for parent in p.parents)]
    return sorted(own)


def test_pyproject_lists_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = set()
    for room, folder in ROOMS.items():
        for path in files(room):
            if path.name == "__init__.py":
                there.add(".".join([room, *path.parent.relative_to(folder).parts]))
    assert set(settings["packages"]) == there


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_imports_run_one_way() -> None:
    """latentedit <- directions <- cli; only latentedit/__init__.py may name what is above it."""
    for path in files("latentedit"):
        if path == ROOMS["latentedit"] / "__init__.py":
            continue
        for name in imported(path):
            assert not name.startswith(("latentedit.cli", "latentedit.directions")), f"{path} imports {name}"
    for path in files("latentedit.directions"):
        for name in imported(path):
            assert not name.startswith("latentedit.cli"), f"{path} imports {name}"


@pytest.mark.parametrize("arguments", [["--help"], ["invert", "--help"], ["train", "--help"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom latentedit.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr


def test_every_public_name_loads() -> None:
    for name in latentedit.__all__:
        assert getattr(latentedit, name) is not None
    assert set(latentedit._HOMES) | set(latentedit._MODULES) | {"Error"} == set(latentedit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = latentedit.nonsense


def test_an_error_is_a_value_error() -> None:
    assert issubclass(latentedit.Error, ValueError)


def test_figures_of_the_card_come_from_the_model() -> None:
    """The model card names the file that ships: its fingerprint and the pictures it saw."""
    model, card = latentedit.load_model("faces128"), (ROOT / "docs" / "faces128.md").read_text()
    assert latentedit.fingerprint(model.generator) in card
    assert f"{model.provenance['images_seen']:,}" in card


def test_an_edit_imports_no_scikit_learn(tmp_path: Path, tiny_file: Path) -> None:
    """It takes longer to load than an edit."""
    generator = load_generator(tiny_file)
    own = fingerprint(generator)
    save_latent(tmp_path / "me.safetensors", Latent(torch.zeros(1, generator.num_ws, generator.w_dim), None, own, "w"))
    Direction("axis", torch.eye(generator.w_dim)[0], 0.0, 1.0, own).save(tmp_path / "axis.safetensors")
    names = [str(tmp_path / name) for name in ("me.safetensors", "axis.safetensors", "edited.png")]
    arguments = ["edit", names[0], "--model", str(tiny_file), "--set", f"{names[1]}=1", "--out", names[2]]
    code = (
        "import sys\nfrom latentedit.cli.main import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "assert not {'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert Path(names[2]).is_file()
