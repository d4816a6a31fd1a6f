"""What the documentation says can be typed exists."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from PIL import Image, ImageDraw

from latentedit.cli.main import main
from latentedit.metrics import Judge, save_judge

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/faces64.md", "docs/train.md"]


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


def made_pictures(folder: Path) -> None:
    for side, shift in (("left", 10), ("right", 40)):
        (folder / side).mkdir(parents=True)
        for number in range(6):
            picture = Image.new("L", (80, 70), 60 + 10 * number)
            ImageDraw.Draw(picture).ellipse((shift, 20, shift + 25, 50), fill=220)
            picture.save(folder / side / f"{number}.png")


def run_page(page: str, folder: Path, shorter: dict[str, list[str]]) -> list[str]:
    """Type every command of ``page`` in ``folder``; ``shorter`` adds options to commands that would take hours."""
    done = []
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": programs, "OMP_NUM_THREADS": "1", "LATENTEDIT_CACHE": str(folder / "cache")}
    for line in shell_lines(page):
        words = shlex.split(line, comments=True)
        for command, options in shorter.items():
            if command in words and "--dry-run" not in words:
                words += options
        result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, f"{line}\n{result.stderr[-2000:]}"
        done.append(line)
    return done


@pytest.mark.slow
def test_train_your_own(tmp_path: Path) -> None:
    made_pictures(tmp_path / "photos")
    save_judge(tmp_path / "judge.safetensors", Judge(1, 64, {"side": ("left", "right")}).eval(), {})
    done = run_page("docs/train.md", tmp_path, {"train": ["--kimg", "0.016", "--batch", "8"]})
    assert len(done) >= 12
    for name in ("sheet.png", "left.png", "mixed.png", "runs/upright/model-best.safetensors", "runs/two/curves.png"):
        assert (tmp_path / name).is_file(), name
