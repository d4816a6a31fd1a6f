"""Signatures stay short, and the script that measures the code runs."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[1]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOP / "benchmarks"))
    return __import__("house")


def test_no_function_has_more_than_eight_parameters(house: Any) -> None:
    """Callbacks of click commands have one per option. Options that belong together are a frozen
    dataclass."""
    wide = {
        f"{path.relative_to(TOP)}: {name}"
        for path in house.sources()
        for name, _ in house.read(path).wide
    }
    assert not wide


def test_parameters_and_parallel_assignments_are_counted(house: Any) -> None:
    (function,) = ast.parse("def f(self, a, /, b, *c, d=1, **e): pass").body
    assert house.parameters(function) == 3
    found = [
        house.is_parallel(node)
        for node in ast.parse("a, b = 1, 2\na, b = b, a\na, b = f()\na = 1, 2").body
    ]
    assert found == [True, False, False, False]


def test_lines_are_counted(house: Any, tmp_path: Path) -> None:
    text = (
        '"""A docstring."""\n\n\ndef f(x):\n    """Another."""\n    y = x  # a comment\n\n    # '
        "one more\n    return y\n"
    )
    (tmp_path / "one.py").write_text(text)
    found = house.read(tmp_path / "one.py")
    assert (found.code, found.comments, found.inside, found.blank_inside) == (3, 2, 5, 1)


def test_the_table_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, str(TOP / "benchmarks" / "house.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "functions with more than 8 parameters (most)           0 (0)" in done.stdout
    assert "errors without a type" in done.stdout
