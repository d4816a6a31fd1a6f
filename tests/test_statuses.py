"""Exit statuses, over all commands: 0, 1 for wrong input, 2 for wrong usage, 130 after Ctrl-C."""

from collections.abc import Callable
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner

from latentedit.cli.main import main, with_guard
from latentedit.errors import ArgumentError, Interrupted
from tests.helpers import commands, run, works

ALL = commands()
WORDS = [path for path, _ in ALL]


@pytest.mark.parametrize("path", WORDS, ids=" ".join)
def test_help_succeeds_in_every_spelling(path: tuple[str, ...]) -> None:
    long = works(*path, "--help").output
    assert works(*path, "-h").output == long
    assert works("help", *path).output == long


@pytest.mark.parametrize("path", WORDS, ids=" ".join)
def test_wrong_options_are_wrong_usage(path: tuple[str, ...]) -> None:
    result = run(*path, "--no-such-option")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


@pytest.mark.parametrize(
    ("path", "command"), ALL, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_missing_words_are_wrong_usage(path: tuple[str, ...], command: click.Command) -> None:
    if any(parameter.required for parameter in command.params):
        assert run(*path).exit_code == 2


RAISED: list[tuple[Callable[[], BaseException], int, str]] = [
    (lambda: ArgumentError("wrong input"), 1, "latentedit: wrong input"),
    (
        lambda: PermissionError(13, "Permission denied", "a.png"),
        1,
        "latentedit: a.png: Permission denied",
    ),
    (lambda: click.UsageError("wrong usage"), 2, "Error: wrong usage"),
    (lambda: KeyboardInterrupt(), 130, "latentedit: interrupted"),
    (lambda: Interrupted("half is kept"), 130, "latentedit: half is kept"),
    (lambda: click.Abort(), 130, "latentedit: interrupted"),  # Ctrl-C at a question
]


@pytest.mark.parametrize(
    ("path", "command"), ALL, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_what_a_command_raises_decides_its_status(
    path: tuple[str, ...], command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for make, status, line in RAISED:
        error = make()

        def fail(*_: Any, error: BaseException = error, **__: Any) -> NoReturn:
            raise error

        bare = click.Command(path[-1], callback=fail)
        monkeypatch.setattr(main, "get_command", lambda *_, bare=bare: with_guard(bare, path))
        result = CliRunner().invoke(main, [path[-1]])
        assert result.exit_code == status, (error, result.output)
        assert result.stderr.splitlines()[-1].startswith(line), result.stderr
