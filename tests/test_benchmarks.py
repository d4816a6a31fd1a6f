"""The benchmark of speed counts what it says it counts, and prints its table."""

import json
import runpy
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

FOLDER = Path(__file__).parent.parent / "benchmarks"


def test_convolutions_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    recorder: Any = __import__("convolutions").Recorder()
    x, weight, fir = (
        torch.randn(2, 3, 8, 8),
        torch.randn(5, 3, 3, 3, requires_grad=True),
        torch.ones(5, 1, 2, 2),
    )
    with recorder:
        for _ in range(2):
            F.conv2d(F.conv2d(x, weight), fir, groups=5).sum().backward()
    # Forward and backward, twice each; the depthwise filter is no convolution of the network's.
    assert sorted((str(function), count) for function, _, count in recorder.calls.values()) == [
        ("aten.convolution.default", 2),
        ("aten.convolution_backward.default", 2),
    ]
    assert recorder.bare() > 0


@pytest.fixture
def ran(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """Run a benchmark in this process, as a shell would; its output and its errors."""

    def run(script: str, *words: object) -> tuple[str, str]:
        monkeypatch.syspath_prepend(str(FOLDER))
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        with suppress(SystemExit):
            runpy.run_path(str(FOLDER / script), run_name="__main__")
        said = capsys.readouterr()
        return said.out, said.err

    return run


def test_a_table_and_what_it_is_compared_with(
    tmp_path: Path, ran: Callable[..., tuple[str, str]]
) -> None:
    words = ["speed.py", "help", "--json", tmp_path / "now.json"]
    ran(*words)
    found = json.loads((tmp_path / "now.json").read_text())
    assert {"processor", "cores", "python", "torch", "threads"} <= found["machine"].keys()
    (row,) = found["rows"]
    assert (row["case"], row["limit"]) == ("help", 0.3)
    output, _ = ran(*words, "--against", tmp_path / "now.json")
    assert f"was {row['seconds']:.3f}" in output
    assert "no case begins with nothing" in ran("speed.py", "nothing")[1]


def test_the_benchmark_of_gpus_runs_through_on_a_cpu(
    tmp_path: Path, ran: Callable[..., tuple[str, str]]
) -> None:
    """Every kind of case with narrow networks; on a GPU it has to work at once."""
    words = ["--device", "cpu", "--wide", "4", "--rounds", "1", "--steps", "3"]
    cases = ["render-16-2", "train-16-4", "invert-16"]
    output, _ = ran("gpu.py", *words, *cases, "--json", tmp_path / "gpu.json", "--profile")
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["case"] for row in rows] == cases
    assert "failed" not in output, output
    assert all(value > 0 for row in rows for value in row["milliseconds"].values())
    for name in ("main", "path", "r1"):
        assert f"train-16-4, {name} pass: " in output
    assert "no case begins with nothing" in ran("gpu.py", *words, "nothing")[1]
