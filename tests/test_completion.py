"""Completion for shells, asked as bash asks."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from latentedit.cli.completion import WORDS
from latentedit.cli.main import COMMANDS, main
from latentedit.directions.registry import shipped
from latentedit.formats.zoo import catalogue
from latentedit.io.weights import WEIGHTS
from tests.helpers import commands


def asked(line: str) -> dict[str, str]:
    """Text and kind of what the shell offers at the end of ``line``."""
    *words, last = line.split(" ")
    found = BashComplete(main, {}, "latentedit", "_LATENTEDIT_COMPLETE").get_completions(
        words, last
    )
    return {item.value: item.type for item in found}


def test_commands_and_options() -> None:
    assert set(asked("")) == set(COMMANDS)
    assert set(asked("directions sh")) == {"sheet", "show"}
    assert "--paste-back" in asked("edit a.safetensors --pa")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("edit a.safetensors --set smi", {"smile="}),
        ("edit a.safetensors --set smile=1@c", {"smile=1@coarse"}),
        ("edit a.safetensors --sweep tu", {"turn="}),
        ("edit a.safetensors --hold turn,smi", {"turn,smile"}),
        ("edit a.safetensors --hold turn,tu", set()),
        ("model fetch ada-ffhq-2", {"ada-ffhq-256"}),
    ],
)
def test_names(line: str, expected: set[str]) -> None:
    assert set(asked(line)) == expected


def test_names_or_files() -> None:
    assert asked("sample faces128-") == {"faces128-v3": "plain", "faces128-": "file"}
    assert asked("invert me.jpg --model f")["faces128"] == "plain"
    assert asked("directions show smi") == {"smile": "plain", "smi": "file"}
    assert asked("invert m") == {"m": "file"}
    assert set(asked("model fetch ")) == {*catalogue(), *WEIGHTS}
    assert set(asked("edit a.safetensors --set ")) == {f"{name}=" for name in shipped()}


def test_published_networks_that_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path))
    assert "ada-ffhq" not in asked("sample ada")
    path = catalogue()["ada-ffhq"].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert "ada-ffhq" in asked("sample ada")


@pytest.mark.parametrize(
    ("path", "command"),
    commands(),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_models_are_completed_by_every_command(
    path: tuple[str, ...], command: click.Command
) -> None:
    for parameter in command.params:
        if {"--model", "MODEL"} & {*parameter.opts, str(parameter.metavar)}:
            offered = parameter.shell_complete(click.Context(command), "faces128")
            assert [item.value for item in offered] == ["faces128", "faces128-v3", "faces128"]


def test_every_word_is_one_of_a_command() -> None:
    there = {
        name
        for _, command in commands()
        for p in command.params
        for name in (*p.opts, str(p.metavar))
    }
    assert set(WORDS) <= there


def test_no_large_library_is_loaded() -> None:
    program = """
import sys
from click.shell_completion import BashComplete
from latentedit.cli.main import main
for words in ([], ["edit", "a", "--set"], ["sample"], ["directions", "show"], ["model", "fetch"]):
    shell = BashComplete(main, {}, "latentedit", "_LATENTEDIT_COMPLETE")
    assert shell.get_completions(words, ""), words
print([name for name in ("torch", "numpy", "sklearn", "PIL") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ}
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
