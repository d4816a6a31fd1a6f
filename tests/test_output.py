"""What commands print for people and for programs, on terminals, into files and into pipes."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.cli import common, log
from latentedit.cli.tables import describe, table
from latentedit.directions import Direction
from latentedit.directions.facts import facts_in
from latentedit.directions.meaning import ABOUT, Meaning, meaning_of, quality_of
from latentedit.directions.registry import shipped
from latentedit.formats.load_model import load_generator
from latentedit.networks.fingerprint import fingerprint
from tests.helpers import commands, hopper, works

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "latentedit"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_tables_are_aligned() -> None:
    rows = [("a", 1, None), ("longer", 12345, [0.5, 1 / 3])]
    assert table(rows, ("name", "count", "ends")).splitlines() == [
        "NAME    COUNT   ENDS",
        "a       1       -",
        "longer  12,345  0.5, 0.33333",
    ]
    assert table([]) == ""
    assert "\x1b" not in table([("\x1b[31mred",)])


def test_facts_are_columns_and_no_dictionaries() -> None:
    facts = {
        "name": "me",
        "on": True,
        "parts": {"first": 1.5, "inner": {"a": [1, 2]}},
        "stages": [{"size": 64, "kimg": 1.0}, {"size": 128}],
        "empty": {},
    }
    assert describe(facts) == [
        "name  me",
        "on    yes",
        "parts",
        "  first  1.5",
        "  inner",
        "    a  1, 2",
        "stages",
        "  SIZE  KIMG",
        "  64    1",
        "  128   -",
        "empty  -",
    ]


@pytest.mark.parametrize("width", [60, 30])
def test_the_last_column_wraps_on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", Terminal())
    text = table([("name", " ".join(["word"] * 30))], ("a", "b"))
    assert max(len(line) for line in text.splitlines()) <= width
    assert text.count("word") == 30


def printed(*words: object) -> str:
    return works(*words).stdout


@pytest.mark.parametrize(
    "words",
    [("model", "info", "faces128"), ("directions", "show", "smile"), ("directions", "list")],
)
def test_nothing_is_printed_as_python_writes_it(words: Sequence[str]) -> None:
    text = printed(*words)
    for sign in ("{'", "['", "': ", "None", "True", "(1, 3"):
        assert sign not in text, sign


def test_list_says_what_the_ends_mean_and_how_far_is_safe() -> None:
    head, *lines = printed("directions", "list").splitlines()
    assert head.split() == ["SLIDER", "MINUS", "PLUS", "SAFE", "QUALITY", "FOR"]
    (smile,) = (line for line in lines if line.startswith("smile "))
    assert "serious" in smile
    assert "smiles" in smile
    assert "faces128-v3" in smile
    rows = [json.loads(line) for line in printed("directions", "list", "--json").splitlines()]
    assert {row["name"] for row in rows} == set(shipped())
    for row in rows:
        assert row["minus"], row["name"]
        assert row["plus"], row["name"]
        low, high = row["safe"]
        assert low < 0 < high, row["name"]
        line = next(line for line in lines if line.startswith(f"{row['name']} "))
        assert f" {low:g} to {high:g} " in line


def header(**facts: Any) -> Any:
    usual = {"name": "axis", "intercept": 0.0, "sigma": 1.0, "fingerprint": "0" * 64, "space": "w"}
    return facts_in({**usual, **facts})


def test_meanings_of_own_directions(tmp_path: Path) -> None:
    path = tmp_path / "axis.safetensors"
    assert meaning_of(path, header()) == Meaning()
    labels = {"column": "pose", "positive": ["left"], "negative": ["right", "down"]}
    assert meaning_of(path, header(provenance=labels)) == Meaning("right, down", "left")
    labels = {"column": "hat", "positive": ["yes"], "negative": []}
    assert meaning_of(path, header(provenance=labels)).minus == "not yes"
    ordered = header(provenance={"column": "hair", "positive": [], "negative": []})
    assert meaning_of(path, ordered) == Meaning("less of: hair", "hair")
    measured = header(report={"effect": {"whole": [-1.5, 2.0]}})
    assert meaning_of(path, measured).safe == (-1.5, 2.0)
    # The file beside counts first, and wrong ones count as nothing.
    (tmp_path / ABOUT).write_text('[axis]\nminus = "cold"\nplus = "warm"\nsafe = [-1, 3]\n')
    assert meaning_of(path, measured) == Meaning("cold", "warm", (-1, 3))
    for wrong in (
        "[axis",
        "axis = 3",
        "[axis]\nminus = 3\nsafe = [1, 2, 3]",
        "[axis]\nsafe = [1, 2]",
    ):
        (tmp_path / ABOUT).write_text(wrong)
        assert meaning_of(path, header()) == Meaning()
    assert quality_of(header(report={"r2": 0.5})) == "R2 0.50"
    assert quality_of(header(report={"auc": 0.9, "photo_auc": 0.8})) == "AUC 0.80"
    assert quality_of(header(report={"auc": "high"})) == ""


REPORTING = [
    ("align",), ("invert",), ("edit",), ("model", "info"), ("model", "zoo"), ("metrics",),
    ("directions", "list"), ("directions", "show"), ("directions", "fit"),
    ("directions", "report"), ("directions", "compare"), ("dataset", "info"),
    ("dataset", "build"), ("config", "show"), ("demo",), ("train",), ("drag",),
    ("directions", "condition"), ("directions", "refine"),
]  # fmt: skip


@pytest.mark.parametrize("path", REPORTING, ids=" ".join)
def test_commands_that_report_have_json(path: tuple[str, ...]) -> None:
    command = dict(commands())[path]
    assert any("--json" in parameter.opts for parameter in command.params)


def test_json_of_data_sets_and_crops(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("no", "yes"):
        (folder / name).mkdir(parents=True)
        Image.new("L", (20, 20), 90).save(folder / name / "a.png")
    (folder / "no" / "bad.png").write_bytes(b"\x89PNG\r\n")
    out = tmp_path / "set.zip"
    words = ["dataset", "build", folder, "--size", "16", "--labels", "folders", "--out", out]
    facts = json.loads(printed(*words, "--json"))
    assert facts["images"] == 2
    assert facts["written"] == str(out)
    assert len(facts["skipped"]) == 1
    facts = json.loads(printed("dataset", "info", out, "--json"))
    assert facts["labels"] == [{"name": "no", "images": 1}, {"name": "yes", "images": 1}]
    assert "LABEL  NAME  IMAGES  SHARE\n0      no    1       50.0%\n" in printed(
        "dataset", "info", out
    )
    facts = json.loads(printed("align", hopper(), "--json", "--out", tmp_path / "crops"))
    assert facts["written"] == str(tmp_path / "crops" / "grace_hopper.png")
    assert np.array(facts["crop"]).shape == (4, 2)


def test_json_of_directions(tmp_path: Path, tiny_file: Path) -> None:
    own = fingerprint(load_generator(tiny_file))
    for number, name in enumerate(("one", "two")):
        vector = torch.nn.functional.one_hot(torch.tensor(number), 12).float()
        Direction(name, vector, 0.0, 0.7, own).save(tmp_path / f"{name}.safetensors")
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    facts = json.loads(printed("directions", "compare", *files, "--model", tiny_file, "--json"))
    assert [row["name"] for row in facts["directions"]] == ["one", "two"]
    assert facts["one_sigma_changes"]["one"]["one"] == pytest.approx(1)
    assert facts["one_sigma_changes"]["one"]["two"] == pytest.approx(0, abs=1e-6)
    out = tmp_path / "alone.safetensors"
    words = ["directions", "condition", files[0], "--keep", files[1], "--model", tiny_file]
    facts = json.loads(printed(*words, "--out", out, "--json"))
    assert facts["name"] == "one-alone"
    assert facts["report"]["kept"] == ["two"]
    assert facts["written"] == str(out)

    samples = tmp_path / "samples"
    works("directions", "sample", "--count", "24", "--model", tiny_file, "--out", samples)
    rows = ["file,bright"]
    rows += [f"{path.name},{n % 2}" for n, path in enumerate(sorted(samples.glob("*.safetensors")))]
    (samples / "labels.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "bright.safetensors"
    words = ["directions", "fit", samples / "labels.csv", "--column", "bright", "--out", out]
    facts = json.loads(printed(*words, "--model", tiny_file, "--json"))
    assert facts["name"] == "bright"
    assert facts["written"] == str(out)
    assert "auc" in facts["report"]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        monkeypatch.setattr("tqdm.std.time", lambda: self.now)


def test_progress_in_files_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tqdm.std.TRLock", __import__("threading").RLock, raising=False)
    clock = Clock(monkeypatch)
    monkeypatch.setattr(log, "is_terminal", lambda: False)
    options = common.bar_options()
    assert options["mininterval"] == 60
    monkeypatch.setattr(common, "bar_options", lambda *_: {**options, "disable": False})
    with common.progress_bar(600, "inverting") as bar:
        for _ in range(600):
            clock.now += 0.5
            bar.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        f"inverting: {share} %" for share in (20, 40, 60, 80, 100)
    ]
    assert "120 of 600, 01:00 gone, 04:00 left" in lines[0]

    with common.progress_bar(10, "short") as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""


def on_terminal(*words: str, **variables: str) -> str:
    """What a command writes to a terminal."""
    pty = pytest.importorskip("pty")
    termios = pytest.importorskip("termios")
    inner, outer = pty.openpty()
    termios.tcsetwinsize(outer, (24, 100))
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "TQDM_DISABLE"} | variables
    child = subprocess.Popen(words, stdout=outer, stderr=outer, stdin=outer, env=environment)
    os.close(outer)
    text = b""
    while True:
        try:
            part = os.read(inner, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        text += part
    os.close(inner)
    assert child.wait() == 0, text.decode()
    return text.decode()


PROGRESS = """
from latentedit.cli import log
from latentedit.cli.common import progress_bar
stop = log.start(verbose=False, quiet=False)
with progress_bar(3, "working") as bar:
    bar.update(3)
"""


def test_terminals_get_a_bar_and_no_colours() -> None:
    text = on_terminal(sys.executable, "-c", PROGRESS, NO_COLOR="1")
    assert "working: 100%|" in text
    assert "\x1b[" not in text.replace("\x1b[A", "")
    assert "\x1b" not in on_terminal(*COMMAND, "directions", "list", NO_COLOR="1")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
def test_a_reader_that_has_enough_is_no_error() -> None:
    """The other end of the pipe is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        words = [*COMMAND, "directions", "list", "--json"]
        done = subprocess.run(words, stdout=pipe, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert done.stderr == b""


def test_quiet_leaves_remarks_out() -> None:
    assert "safe: " in works("directions", "list").stderr
    assert works("--quiet", "directions", "list").stderr == ""


def test_tables_of_a_small_model(tiny_file: Path) -> None:
    lines = printed("model", "info", tiny_file).splitlines()
    assert any(line.split() == ["num_ws", "6"] for line in lines)
    assert any(line.split() == ["resolution", "16"] for line in lines)
