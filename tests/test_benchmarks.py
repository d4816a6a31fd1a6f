"""The benchmark of speed counts what it says it counts, and prints its table."""

import json
import subprocess
import sys
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


def test_a_table_and_what_it_is_compared_with(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(FOLDER / "speed.py"),
        "help",
        "--json",
        str(tmp_path / "now.json"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads((tmp_path / "now.json").read_text())
    assert {"processor", "cores", "python", "torch", "threads"} <= found["machine"].keys()
    (row,) = found["rows"]
    assert (row["case"], row["limit"]) == ("help", 0.3)
    result = subprocess.run(
        [*command, "--against", str(tmp_path / "now.json")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert f"was {row['seconds']:.3f}" in result.stdout
    unknown = subprocess.run([*command[:2], "nothing"], capture_output=True, text=True)
    assert "no case begins with nothing" in unknown.stderr


def test_the_benchmark_of_gpus_runs_through_on_a_cpu(tmp_path: Path) -> None:
    """Every kind of case with narrow networks; on a GPU it has to work at once."""
    command = [
        sys.executable,
        str(FOLDER / "gpu.py"),
        "--device",
        "cpu",
        "--wide",
        "4",
        "--rounds",
        "1",
        "--steps",
        "3",
    ]
    cases = ["render-16-2", "train-16-4", "invert-16"]
    result = subprocess.run(
        [*command, *cases, "--json", str(tmp_path / "gpu.json")],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["case"] for row in rows] == cases
    assert "failed" not in result.stdout, result.stdout
    assert all(value > 0 for row in rows for value in row["milliseconds"].values())
    unknown = subprocess.run([*command, "nothing"], capture_output=True, text=True)
    assert "no case begins with nothing" in unknown.stderr
