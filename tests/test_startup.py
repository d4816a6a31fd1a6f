"""What must answer at once loads none of the large libraries."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image, PngImagePlugin

from latentedit.cli.main import main
from latentedit.formats.load_model import load_model
from latentedit.io.images import EDITED

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


def test_only_inversions_read_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latent = tmp_path / "a.safetensors"
    words = ["sample", "faces128", "--seeds", "5", "--out", str(latent)]
    assert CliRunner().invoke(main, words).exit_code == 0
    read: list[str] = []
    monkeypatch.setattr(
        "latentedit.formats.load_model.load_encoder", lambda path, _: read.append(path.name)
    )
    words = ["edit", str(latent), "--set", "smile=1", "--out", str(tmp_path / "e.png")]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert read == []
    assert load_model("faces128", encoder=False).encoder is None
    load_model("faces128")
    assert read == ["faces128-v3.encoder.safetensors"]


def test_an_edit_of_a_latent_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    latent = tmp_path / "a.safetensors"
    words = ["sample", "faces128", "--seeds", "5", "--out", str(latent)]
    assert CliRunner().invoke(main, words).exit_code == 0
    program = """
import gc, json, sys
from click.testing import CliRunner
from latentedit.cli.main import main

words = ["edit", sys.argv[1], "--set", "smile=1", "--out", sys.argv[2]]
result = CliRunner().invoke(main, words)
print(json.dumps([result.output, list(sys.modules), gc.get_freeze_count(), gc.isenabled()]))
"""
    picture = tmp_path / "e.png"
    Image.new("RGB", (9, 9)).save(picture, pnginfo=described(EDITED))
    done = subprocess.run(
        [sys.executable, "-c", program, str(latent), str(picture)],
        capture_output=True,
        text=True,
        check=True,
    )
    output, loaded, frozen, collects = json.loads(done.stdout)
    assert output == f"wrote {picture}\n"
    large = set(HEAVY) - {"torch", "numpy", "PIL"}
    others = {"latentedit.inversion.projector", "PIL.PdfImagePlugin", "nicegui"}
    assert not (large | others) & set(loaded)
    assert collects
    assert frozen > 100_000  # the objects of torch are not looked at again
    with Image.open(picture, formats=["PNG"]) as drawn:
        assert drawn.size == (128, 128)


def described(text: str) -> PngImagePlugin.PngInfo:
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Description", text)
    return facts


ENDING = """
import atexit, sys, threading, time
from latentedit.runtime.loading import end_at_once

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
atexit.register(lambda: print("at exit"))
if "thread" in sys.argv:
    event = threading.Event()
    atexit.register(event.set)
    threading.Thread(target=lambda: (event.wait(0.1), print("waited for"))).start()
print("written", end="")
end_at_once(3)
print(", by the interpreter")
"""


@pytest.mark.parametrize("words", [[], ["thread"]])
def test_a_process_ends_with_everything_but_taking_itself_apart(words: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", ENDING, *words], capture_output=True, text=True, check=False
    )
    assert not result.stderr
    if words:
        assert result.returncode == 0
        assert result.stdout.startswith("written, by the interpreter\n")
        assert {"waited for", "at exit"} < set(result.stdout.splitlines())
    else:
        assert result.returncode == 3
        assert result.stdout == "writtenat exit\n"


@pytest.mark.parametrize(("words", "status"), [(["model", "info", "faces128"], 0), (["edit"], 2)])
def test_the_command_keeps_its_status_and_output(words: list[str], status: int) -> None:
    code = "import torch; from latentedit.cli.main import run; run('latentedit')"
    result = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert result.returncode == status
    assert (
        ("fingerprint" in result.stdout) if status == 0 else ("Usage: latentedit" in result.stderr)
    )
