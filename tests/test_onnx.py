"""ONNX files: what is wrong with one is said in a line, before OpenCV could crash over it or take
all memory."""

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.directions.classifiers import OnnxClassifier
from latentedit.errors import Error
from latentedit.io import onnx
from latentedit.io.onnx import check_onnx, read_onnx, run
from latentedit.photo.faces import find_faces
from tests.mutations import mutated
from tests.onnx_files import (
    classifier,
    field,
    floats,
    mean,
    network,
    node,
    small,
    tensor,
    value,
    varint,
    whole,
    yunet,
)

BIG = 2**15


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_network_of_many_operations(tmp_path: Path) -> None:
    path = written(tmp_path / "x.onnx", classifier())
    net = read_onnx(path, (3, 16, 16))
    found = run(path, net, np.ones((1, 3, 16, 16), dtype=np.float32))
    assert found.shape == (1, 2)
    assert found.sum() == pytest.approx(1)
    scores = OnnxClassifier(path, size=16, prepare="unit")(torch.ones(1, 3, 8, 8))
    assert scores[0] == pytest.approx(found[0, 1], abs=1e-5)


def graph(*fields: bytes) -> bytes:
    return field(7, b"".join(fields))


def nested(depth: int) -> bytes:
    """Graphs in operations of graphs."""
    found = field(2, "g")
    for _ in range(depth):
        found = field(1, field(5, field(6, found)))
    return field(7, found)


WEIGHT = field(1, 2) + field(2, 1) + field(8, "w")
STRUCTURES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "no graph": (field(1, 7), "no graph in it"),
    "a text": (b"not a network", "not an ONNX network"),
    "a length beyond the file": (
        field(1, 7) + b"\x3a\xff\xff\xff\x7f",
        "a field of 268435455 bytes where 0 are left",
    ),
    "a length beyond its message": (graph(b"\x12\x20abc"), "a field of 32 bytes where 3 are left"),
    "a number without end": (graph(field(1, 1)) + b"\x08" + b"\xff" * 12, "more than 64 bits"),
    "a number that is cut off": (graph(field(2, "g")) + b"\x08\xff", "cut off"),
    "four bytes that are cut off": (graph(field(2, "g")) + b"\x0d\x00", "cut off"),
    "groups": (graph(field(2, "g")) + b"\x0b", "wire type 3"),
    "depth": (nested(100), "nested more than"),
    "more numbers than there are": (
        graph(field(5, tensor("w", (1000, 1000), bytes(4)))),
        "a tensor of 1000000 numbers of which",
    ),
    "a shape without an end": (
        graph(field(5, tensor("w", (2**62, 4), bytes(4)))),
        "numbers of which the file has 1",
    ),
    "many dimensions": (graph(field(5, tensor("w", (1,) * 9, bytes(4)))), "more than 8 dimensions"),
    "packed dimensions": (
        graph(field(5, field(1, varint(100) + varint(100)) + field(2, 1) + field(9, bytes(4)))),
        "a tensor of 10000 numbers of which the file has 1",
    ),
    "half a number": (graph(field(5, WEIGHT + field(4, bytes(7)))), "a row of 7 bytes"),
    "fewer whole numbers": (
        graph(field(5, field(1, 3) + field(2, 7) + field(7, b"\xff\x01\x02"))),
        "of which the file has 2",
    ),
    "numbers of no kind": (
        graph(field(5, tensor("w", (1,), bytes(4), kind=99))),
        "numbers of the kind 99",
    ),
    "another file": (
        graph(field(5, WEIGHT + field(13, field(1, "location") + field(2, "/etc/passwd")))),
        "in another file",
    ),
    "another file by its place": (graph(field(5, WEIGHT + field(14, 1))), "in another file"),
    "a large input": (
        graph(field(11, value("x", (1, 3, 2**20, 2**20)))),
        "an input or output of more than",
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(tmp_path: Path, name: str) -> None:
    data, message = STRUCTURES[name]
    path = written(tmp_path / "x.onnx", data)
    with pytest.raises(Error, match=message) as caught:
        check_onnx(path)
    assert str(caught.value).startswith(f"{path}: not an ONNX network")
    assert str(caught.value).isprintable()


def test_how_many_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "NODES", 3)
    path = written(tmp_path / "x.onnx", small([node("Relu", ["x"], ["y"])] * 4))
    with pytest.raises(Error, match="more than 3 operations"):
        check_onnx(path)


def test_a_file_of_more_bytes_than_the_format_has(tmp_path: Path) -> None:
    with open(tmp_path / "x.onnx", "wb") as file:
        file.truncate(2**31)
    with pytest.raises(Error, match="has 2147483648 bytes, expected at most 2147483647"):
        check_onnx(tmp_path / "x.onnx")
    with pytest.raises(Error, match="no such file"):
        check_onnx(tmp_path / ("x" * 300))


FILLED = node("ConstantOfShape", ["n"], ["z"], value=floats("", (1,)))
ADDED = node("Add", ["x", "z"], ["y"])
DEMANDS: dict[str, bytes] = {
    "constants": small([FILLED, ADDED], [whole("n", [2**9, 2**10, 2**10])]),
    "constants doubled": small(
        [node("Concat", ["k", "k"], ["c0"], axis=0)]
        + [node("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=0) for i in range(27)]
        + [node("Add", ["c27", "x"], ["y"])],
        [floats("k", (1, 4))],
    ),
    "copies": small([node("Tile", ["x", "n"], ["y"])], [whole("n", [2**20, 1, 1, 1])]),
    "a border": small(
        [node("Conv", ["x", "w"], ["y"], pads=[BIG] * 4, kernel_shape=[1, 1])],
        [floats("w", (1, 3, 1, 1))],
    ),
    "another input": small([node("Gemm", ["x", "k"], ["y"])], [floats("k", (2, 2))]),
}


@pytest.mark.parametrize("name", DEMANDS)
def test_demands(tmp_path: Path, name: str) -> None:
    """Few bytes that ask OpenCV for gigabytes: refused by another process, within its limits."""
    path = written(tmp_path / "x.onnx", DEMANDS[name])
    with pytest.raises(
        Error, match="OpenCV cannot read it as an ONNX network for pictures of 8 x 8 pixels"
    ) as caught:
        read_onnx(path, (3, 8, 8))
    assert str(caught.value).isprintable()
    assert "OpenCV(" not in str(caught.value)  # the place in its source


def classes(*layers: bytes) -> bytes:
    """From x [1, 3, 224, 224] by the ``layers`` to the means of y [1, 800, 224, 224], which take
    161 MB."""
    nodes = [
        node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1]),
        *layers,
        node("GlobalAveragePool", ["y"], ["m"]),
    ]
    return network(
        nodes,
        [floats("w", (800, 3, 1, 1))],
        [value("x", (1, 3, 224, 224))],
        [value("m", (1, 800, 1, 1))],
    )


APART = """
import resource, subprocess, sys
quiet = subprocess.DEVNULL
status = subprocess.run(sys.argv[1:], stdout=quiet, stderr=quiet).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Runs a command, and says how it ended and how many KB it took; what this process takes would
count in its own children."""


def taken(path: Path, size: int) -> tuple[int, int]:
    """How a trial ends, and the bytes in memory that it has at most."""
    line = [sys.executable, "-I", "-c", APART, *onnx.trial(path, (3, size, size), {})]
    status, most = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    return int(status), int(most) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_what_a_small_file_may_take(tmp_path: Path) -> None:
    """300 MB more than a program that opens nothing, whatever the pictures' size in common use;
    less is enough."""
    copied = [node("Conv", ["x", "w"], [f"c{i}"], kernel_shape=[1, 1]) for i in range(4)]
    joined = node("Concat", [f"c{i}" for i in range(4)], ["j"], axis=1)
    files = {"fits": classes(), "does not": classes(*copied, joined)}
    alone = taken(written(tmp_path / "empty.onnx", mean(8)), 8)[1]
    for name, data in files.items():
        path = written(tmp_path / "x.onnx", data)
        assert path.stat().st_size < 20_000
        status, most = taken(path, 224)
        assert (status == 0) == (name == "fits")
        assert most - alone < 300 << 20, name
    with pytest.raises(
        Error,
        match="x.onnx: OpenCV cannot read it as an ONNX network for pictures of 224 x 224 pixels",
    ):
        read_onnx(path, (3, 224, 224))


def test_what_a_small_file_may_compute(tmp_path: Path) -> None:
    """A network whose weights are used again and again takes a hundred thousand operations a pixel,
    and no second more."""
    chain = [
        node("Conv", [f"h{i}", "v"], [f"h{i + 1}"], kernel_shape=[3, 3], pads=[1] * 4)
        for i in range(60)
    ]
    nodes = [
        node("Conv", ["x", "w"], ["h0"], kernel_shape=[1, 1]),
        *chain,
        node("GlobalAveragePool", ["h60"], ["y"]),
    ]
    weights = [floats("w", (16, 3, 1, 1)), floats("v", (16, 16, 3, 3))]
    path = written(
        tmp_path / "x.onnx",
        network(nodes, weights, [value("x", (1, 3, 224, 224))], [value("y", (1, 16, 1, 1))]),
    )
    with pytest.raises(
        Error, match="it needs 1e.10 computations for a picture, expected at most 5e.09"
    ):
        read_onnx(path, (3, 224, 224))


ENDS = (
    "import os; os.abort()",
    "while True: pass",
    r"print('x', 'a \x1b[31mb no'); raise SystemExit(1)",
)


@pytest.mark.parametrize("code", ENDS)
def test_trials_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """However the other process ends, this one has a line of it."""
    script = tmp_path / "trial.py"
    script.write_text(f"import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\n{code}")
    monkeypatch.setattr(onnx, "TRIAL", script)
    path = written(tmp_path / "x.onnx", classifier())
    with pytest.raises(Error, match=r"it crashes, or takes too long|x a \?\[31mb no") as caught:
        read_onnx(path, (3, 16, 16))
    assert str(caught.value).isprintable()


def test_a_trial_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "x.onnx", classifier())
    started: list[Any] = []
    keep = subprocess.run

    def told(*words: Any, **options: Any) -> Any:
        started.append(words)
        return keep(*words, **options)

    monkeypatch.setattr(subprocess, "run", told)
    for _ in range(2):
        read_onnx(path, (3, 16, 16))
    assert len(started) == 1
    path.write_bytes(classifier() + field(2, "another"))
    read_onnx(path, (3, 16, 16))
    assert len(started) == 2
    assert started[0][0][0] == sys.executable


def complaint(path: Path) -> str | None:
    try:
        check_onnx(path)
    except Error as error:
        return str(error)
    return None


def test_mutations_of_the_structure(tmp_path: Path) -> None:
    """Whatever a damaged file holds, the check says a line or passes it on."""
    data, whole_ones = classifier(), 0
    for seed in range(300):
        path = written(tmp_path / "x.onnx", mutated(data, Random(seed)))
        said = complaint(path)
        whole_ones += said is None
        assert said is None or (said.startswith(str(path)) and said.isprintable())
    assert 0 < whole_ones < 200


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    data = network(
        [node("ReduceMean", ["x"], ["a"], axes=[1, 2, 3]), node("Mul", ["a", "k"], ["y"])],
        [floats("k", (1,), [float("nan")])],
        [value("x", (1, 3, 8, 8))],
        [value("y", (1, 1))],
    )
    scores = OnnxClassifier(written(tmp_path / "x.onnx", data), size=8)
    with pytest.raises(Error, match="gives nan for an image, expected a finite number"):
        scores(torch.ones(1, 3, 8, 8))


def test_detectors(tmp_path: Path) -> None:
    """OpenCV reads from a detector's outputs as many numbers as YuNet has, whether they are there
    or not."""
    bright = Image.new("RGB", (32, 30), "white")
    faces = find_faces(bright, written(tmp_path / "yunet.onnx", yunet()))
    assert faces
    assert not find_faces(Image.new("RGB", (32, 30)), tmp_path / "yunet.onnx")
    for name, data in {
        "less": yunet(left_out="kps_16"),
        "few": yunet(numbers=9),
        "mean": mean(32),
        "none": b"no",
    }.items():
        path = written(tmp_path / f"{name}.onnx", data)
        with pytest.raises(
            Error,
            match="not a YuNet face detector that this OpenCV can read .*model fetch yunet",
        ) as caught:
            find_faces(bright, path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).count(str(path)) == 1
