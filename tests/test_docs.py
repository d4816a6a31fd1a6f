"""What the documentation says can be typed exists."""

import re
import shlex
from pathlib import Path

import click
import pytest

from latentedit.cli.main import main

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/faces64.md"]


def shell_lines(page: str) -> list[str]:
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", (ROOT / page).read_text(), re.S)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_options(page: str) -> None:
    lines = [line for line in shell_lines(page) if line.startswith("latentedit ")]
    assert len(lines) >= 2
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        command: click.Command = main
        while isinstance(command, click.Group):
            name = words.pop(0)
            inner = command.get_command(click.Context(command), name)
            assert inner is not None, line
            command = inner
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word in known, f"{line}: {word}"


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "docs/formats.md", "docs/shapes.md"])
def test_files_and_pictures_named_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
    for target in re.findall(r"`((?:recipes|benchmarks|docs|latentedit|tests)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / target).exists(), target


def test_make_targets_of_the_readme() -> None:
    targets = re.findall(r"^make (\w+)", "\n".join(shell_lines("README.md")), re.M)
    assert {"demo", "test"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M)
