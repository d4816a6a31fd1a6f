"""What must answer at once loads none of the large libraries."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "sklearn", "scipy", "numpy", "matplotlib", "cv2", "PIL", "lpips")
QUICK = (
    "--help",
    "--version",
    "help edit",
    "invert --help",
    "model zoo",
    "model zoo --json",
    "directions list",
    "directions list --model faces128",
    "directions show smile",
    "directions show smlie",
    "edit missing.safetensors --set smile=1 --out x.png",
    "invert missing.jpg --out x",
    "align missing.jpg --out x",
    "mix missing.safetensors other.safetensors --out x.png",
    "latent export missing.safetensors --out x.npz",
    "sample missing --out x.png",
    "model info missing",
    "model fetch missing",
    "metrics missing --metrics separability",
    "edti",
    "edit --no-such-option",
)
PROGRAM = f"""
import json, sys
from click.testing import CliRunner
from latentedit.cli.main import main

found = {{}}
for line in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, line.split())
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    found[line] = [result.exit_code, result.output, loaded]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, str, list[str]]]:
    """The status, the output and the libraries loaded so far of each command, all in one fresh
    process."""
    words = [sys.executable, "-c", PROGRAM, json.dumps(QUICK)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    answers: dict[str, tuple[int, str, list[str]]] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("line", QUICK)
def test_quick_commands_load_nothing_large(
    answers: dict[str, tuple[int, str, list[str]]], line: str
) -> None:
    status, output, loaded = answers[line]
    assert loaded == [], f"{line}: {loaded}\n{output}"
    expected = (
        2
        if line in ("edti", "edit --no-such-option")
        else 1
        if "missing" in line or "smlie" in line
        else 0
    )
    assert status == expected, output


def test_they_answer_as_ever(answers: dict[str, tuple[int, str, list[str]]]) -> None:
    assert "ada-ffhq" in answers["model zoo"][1]
    assert "smile" in answers["directions list"][1]
    assert "sigma" in answers["directions show smile"][1]
    assert "missing.jpg: no such file" in answers["invert missing.jpg --out x"][1]
    assert "missing: no such model file" in answers["sample missing --out x.png"][1]
