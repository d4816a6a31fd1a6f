"""Files about the project agree with one another."""

import importlib.util
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_file_names_the_same_version() -> None:
    version = PROJECT["version"]
    assert re.search(rf"^version: {re.escape(version)}$", read("CITATION.cff"), re.M)
    headings = re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.M)
    assert next(heading for heading in headings if heading != "Unreleased") == version


def test_pre_commit_runs_what_ci_runs() -> None:
    """Every check that CI calls by its name in the environment, but for those that need a fresh
    build."""
    hooks = {
        entry.split()[0] for entry in re.findall(r"entry: (.+)", read(".pre-commit-config.yaml"))
    }
    called = set(re.findall(r'"\$bin/([\w-]+)"', read(".ci/run")))
    assert hooks == called - {"python", "mkdocs"}


def test_hosted_ci_begins_with_the_oldest_python() -> None:
    versions = re.findall(
        r'"(3\.\d+)"', re.findall(r"python: \[(.+)\]", read(".github/workflows/ci.yml"))[0]
    )
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert [f"Programming Language :: Python :: {version}" for version in versions] == PROJECT[
        "classifiers"
    ]


def test_modules_in_the_table_of_renamed_ones_exist() -> None:
    modules = read("CHANGELOG.md").partition("Some functions and classes have new names")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", modules, re.M)[1:]
    assert len(rows) > 30
    for before, now in rows:
        names = re.findall(r"`([\w.]+)`", now)
        if "same name" in now:
            [room] = names
            names = [f"{room}{name}" for name in re.findall(r"`(\w+)`", before)]
        package = ""
        for name in names:
            if name.startswith("."):  # beside the one before it
                name = package + name
            package = name.rpartition(".")[0]
            assert importlib.util.find_spec(f"latentedit.{name}") is not None, (before, name)
