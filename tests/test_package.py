"""Layout and import rules (docs: CONTRIBUTING)."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
import torch
from importlinter.cli import lint_imports

import latentedit
from latentedit import errors
from latentedit.directions import Direction
from latentedit.formats.load_model import load_generator
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.networks.fingerprint import fingerprint

ROOT = Path(__file__).parent.parent
ROOMS = {
    "latentedit": ROOT / "latentedit",
    "latentedit.directions": ROOT / "directions",
    "latentedit.studio": ROOT / "studio",
    "latentedit.cli": ROOT / "cli",
}


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


def test_mypy_is_told_of_every_folder_with_python_files() -> None:
    """Through ``files`` or through one of the links; what it is not told of it does not check."""
    told = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"])
    linked = {path.resolve().name for path in (ROOT / "latentedit").iterdir() if path.is_symlink()}
    assert linked == {"cli", "directions", "studio"}
    there = {path.parent.name for path in ROOT.glob("[!.]*/*.py")} - {"build"}
    assert there == told | linked


def test_an_editable_install_works_on_a_checkout_without_links(tmp_path: Path) -> None:
    """Where git makes no links, as on Windows by default, they are text files that hold their
    target."""
    checkout = tmp_path / "checkout"
    for room, folder in ROOMS.items():
        for path in files(room):
            there = checkout / path.relative_to(ROOT)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)
        if folder.parent == ROOT and folder.name != "latentedit":
            (checkout / "latentedit" / folder.name).write_text(f"../{folder.name}")
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, checkout / name)
    (checkout / "LICENSE").touch()
    (checkout / "latentedit" / "bundled").mkdir()
    (checkout / "latentedit" / "bundled" / "LICENSE-faces128.md").touch()

    # What pip does, but for the environment that it makes and the copying.
    build = "import sys\nfrom setuptools import build_meta\nbuild_meta.build_editable(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, tmp_path], cwd=checkout, capture_output=True, check=True
    )
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)

    code = (
        "import site, sys\nsite.addsitedir(sys.argv[1])\nsys.path.append(sys.argv[2])\n"
        "import latentedit.cli.main, latentedit.directions\n"
        "print(latentedit.__file__, latentedit.cli.main.__file__, "
        "latentedit.directions.__file__, sep='\\n')"
    )
    libraries = sysconfig.get_path("purelib")
    # -S: without the install that tests run in
    command = [sys.executable, "-I", "-S", "-c", code, str(site), libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = ["latentedit/__init__.py", "cli/main.py", "directions/__init__.py"]
    assert done.stdout.splitlines() == [str(checkout / name) for name in expected]


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Which module imports which, imports within functions included."""
    return grimp.build_graph("latentedit", cache_dir=None, exclude_type_checking_imports=True)


def test_the_import_contracts_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0


def test_no_module_imports_itself_by_way_of_others(imports: grimp.ImportGraph) -> None:
    """The contract compares folders and their files; this one compares single modules, ``__init__``
    files among them."""
    wanted = {
        module: imports.find_modules_directly_imported_by(module) for module in imports.modules
    }
    # raises CycleError, which names the circle
    order = list(TopologicalSorter(wanted).static_order())
    assert set(order) == imports.modules


def test_the_graph_of_imports_has_every_file(imports: grimp.ImportGraph) -> None:
    """The links in latentedit/ are followed: a rule for modules that the graph lacks would hold
    always."""
    there = set()
    for room, folder in ROOMS.items():
        for path in files(room):
            parts = path.relative_to(folder).with_suffix("").parts
            there.add(".".join([room, *parts]).removesuffix(".__init__"))
    assert imports.modules == there


def test_no_test_module_imports_another() -> None:
    """What several share is in a module without tests, so that one can be moved or run alone."""
    for path in (ROOT / "tests").glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = re.match(r"(?:from|import) tests\.(test_\w+|conftest)", line)
            # A script for another process may import the module that it is in.
            assert found is None or found[1] == path.stem, f"{path.name}: {line}"


@pytest.mark.parametrize("arguments", [["--help"], ["invert", "--help"], ["train", "--help"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom latentedit.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_loads() -> None:
    for name in latentedit.__all__:
        assert getattr(latentedit, name) is not None
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.Error)
    }
    lazy = {name for names in latentedit._ATTRIBUTES.values() for name in names}
    assert lazy | {"directions", "metrics", "ops", "training"} | kinds == set(latentedit.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
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
    save_latent(
        tmp_path / "me.safetensors",
        Latent(torch.zeros(1, generator.num_ws, generator.w_dim), None, own, "w"),
    )
    Direction("axis", torch.eye(generator.w_dim)[0], 0.0, 1.0, own).save(
        tmp_path / "axis.safetensors"
    )
    names = [str(tmp_path / name) for name in ("me.safetensors", "axis.safetensors", "edited.png")]
    arguments = [
        "edit",
        names[0],
        "--model",
        str(tiny_file),
        "--set",
        f"{names[1]}=1",
        "--out",
        names[2],
    ]
    code = (
        "import sys\nfrom latentedit.cli.main import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "assert not {'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert Path(names[2]).is_file()
