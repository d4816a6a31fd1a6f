"""Errors have a kind and facts, so that nothing has to read their messages."""

import ast
import pickle
import re
from pathlib import Path

import pytest

import latentedit
from latentedit import errors
from latentedit.errors import (
    ArgumentError,
    Error,
    FormatError,
    IncompatibleError,
    NotFoundError,
    OutputError,
    complete,
)

TOP = Path(__file__).parents[1]
SOURCES = [
    path for folder in ("latentedit", "directions") for path in sorted((TOP / folder).rglob("*.py"))
]
MESSAGES = ("removeprefix", "startswith", "endswith", "removesuffix")


def calls_of_error(path: Path) -> list[int]:
    """Return the lines of a file that build an `Error` of no kind."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Error"
    ]


def is_message(node: ast.AST, names: set[str]) -> bool:
    """Say whether ``node`` is ``str(error)`` of an exception that was caught under one of
    ``names``."""
    if (
        not isinstance(node, ast.Call)
        or not isinstance(node.func, ast.Name)
        or node.func.id != "str"
    ):
        return False
    return len(node.args) == 1 and isinstance(node.args[0], ast.Name) and node.args[0].id in names


def decisions_by_text(path: Path) -> list[int]:
    """Return the lines of a file that compare the message of a caught `Error`, or take parts from
    it."""
    lines = []
    for handler in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            not isinstance(handler, ast.ExceptHandler)
            or handler.name is None
            or handler.type is None
        ):
            continue
        caught = ast.unparse(handler.type)
        if not any(hasattr(errors, word) for word in caught.strip("()").split(", ")):
            continue  # libraries have no attributes to ask
        names = {handler.name}
        for node in ast.walk(handler):
            compared = isinstance(node, ast.Compare) and any(
                is_message(part, names) for part in [node.left, *node.comparators]
            )
            taken = (
                isinstance(node, ast.Attribute)
                and node.attr in MESSAGES
                and is_message(node.value, names)
            )
            if (compared or taken) and isinstance(node, ast.expr):
                lines.append(node.lineno)
    return lines


def test_errors_have_a_kind() -> None:
    without = {
        str(path.relative_to(TOP)): lines for path in SOURCES if (lines := calls_of_error(path))
    }
    assert not without, "use one of the kinds in latentedit/errors.py"


def test_no_code_decides_by_the_text_of_a_message() -> None:
    sources = [*SOURCES, *sorted((TOP / "cli").glob("*.py"))]
    assert not {
        str(path.relative_to(TOP)): lines for path in sources if (lines := decisions_by_text(path))
    }


def test_kinds_are_public_and_documented() -> None:
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Error)
    }
    page = (TOP / "docs" / "python.md").read_text(encoding="utf-8")
    assert kinds <= set(latentedit.__all__)
    assert all(f"`{name}`" in page or f"`latentedit.{name}`" in page for name in kinds)


def test_message_names_the_file_and_the_facts_are_attributes() -> None:
    error = FormatError.of(
        "the header's framing", "an object", [1, 2], path=Path("a") / "b.safetensors"
    )
    assert (
        str(error)
        == f"{Path('a') / 'b.safetensors'}: the header's framing must be an object, found a list"
    )
    assert error.path == str(Path("a") / "b.safetensors")
    assert (error.argument, error.expected, error.actual) == (
        "the header's framing",
        "an object",
        [1, 2],
    )

    row = NotFoundError("no such file x.png", path="labels.csv", line=3)
    assert str(row) == "labels.csv, line 3: no such file x.png"
    assert row.reason == "no such file x.png"


def test_shape_of_a_tensor_is_told() -> None:
    error = ArgumentError.of_shape("ws", "[N, 8, 512]", (1, 2))
    assert str(error) == "ws must have shape [N, 8, 512], got [1, 2]"
    assert error.actual == [1, 2]


def test_values_from_files_cannot_fill_the_message() -> None:
    assert "a list" in str(FormatError.of("layers", "two numbers", [[1] * 9] * 9))
    assert "a dict" in str(FormatError.of("layers", "two numbers", {"a": 1}))
    assert len(str(FormatError.of("layers", "two numbers", "x" * 9999))) < 200


def test_error_keeps_its_kind_when_a_file_is_named() -> None:
    inner = IncompatibleError("other shapes", expected=1, actual=2)
    outer = inner.at("model.safetensors")
    assert type(outer) is IncompatibleError
    assert str(outer) == "model.safetensors: other shapes"
    assert (outer.expected, outer.actual) == (1, 2)
    assert inner.path is None
    assert outer.at("model.safetensors") is outer
    assert str(outer.at("all.zip")) == "all.zip: model.safetensors: other shapes"


def test_errors_survive_another_process() -> None:
    error = pickle.loads(pickle.dumps(FormatError("damaged", path="x.png", line=2)))
    assert (str(error), error.path, error.line, error.reason) == (
        "x.png, line 2: damaged",
        "x.png",
        2,
        "damaged",
    )


def test_wrong_arguments_from_a_file_are_a_wrong_file() -> None:
    with (
        pytest.raises(
            FormatError, match=r"^m\.safetensors: steps must be at least 1, got 0$"
        ) as caught,
        complete("m.safetensors", "x"),
    ):
        raise ArgumentError.of("steps", "at least 1", 0)
    assert caught.value.argument == "steps"


def test_system_errors_of_outputs_name_the_file() -> None:
    error = OutputError.refused("out.png", OSError(28, "No space left on device"))
    assert (str(error), error.path) == ("cannot write out.png: No space left on device", "out.png")


def test_generators_that_do_not_fit_are_told_by_their_fingerprints() -> None:
    import torch

    latent = latentedit.Latent(ws=torch.zeros(1, 2, 4), noise=None, fingerprint="a" * 64, space="w")
    with pytest.raises(IncompatibleError) as caught:
        latent.check_generator("b" * 64, "model.safetensors")
    assert (caught.value.expected, caught.value.actual) == ("a" * 64, "b" * 64)


def test_advice_names_arguments_and_the_commands_name_options() -> None:
    error = IncompatibleError(
        "other generators", path="x", advice="use `force=True`, or `space=w+` with `face_detector`"
    )
    assert str(error) == "x: other generators; use force=True, or space=w+ with face_detector"
    with errors.spelling(errors.as_option):
        assert str(error) == "x: other generators; use --force, or --space w+ with --face-detector"
        assert (
            str(error.at("y"))
            == "y: x: other generators; use --force, or --space w+ with --face-detector"
        )
    assert error.advice.count("`") == 6


def test_the_core_names_no_options() -> None:
    """Options belong to the commands; only whole commands to run may be quoted."""
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and node.exc is not None:
                text = re.sub(r"(latentedit|pip) [a-z]+ .*", "", ast.unparse(node.exc))
                found += [f"{path.relative_to(TOP)}:{node.lineno}"] * bool(
                    re.search(r"--[a-z]", text)
                )
    assert not found
