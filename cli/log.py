"""What a command says on stderr besides its errors: remarks, warnings, and with -v what the package
logs as it works."""

import logging
import sys
from collections.abc import Callable

import click

from latentedit.errors import printable

LOGGER = logging.getLogger("latentedit")


class _Stderr(logging.Handler):
    """Writes to the stderr of the moment, which tests and progress bars replace."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = self.format(record).split("\n")
        click.echo("\n".join(map(printable, lines)), err=True)


class _Formatter(logging.Formatter):
    """Remarks as they are; debug lines with the module that they are from."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.name}: {text}" if record.levelno <= logging.DEBUG else text


def _enable() -> None:
    """Undo what libraries that configure logging do: they switch off every logger that was there
    before, each of the package's modules too."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.split(".")[0] == LOGGER.name and isinstance(logger, logging.Logger):
            logger.disabled = False


def start(*, verbose: bool, quiet: bool) -> Callable[[], None]:
    """Show the package's log on stderr until the function that this returns is called.

    Args:
        verbose: show debug lines too.
        quiet: leave out remarks and progress bars, and keep warnings.
    """
    handler = _Stderr()
    handler.setFormatter(_Formatter())
    before = LOGGER.level
    _enable()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)

    def stop() -> None:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)

    return stop


def remark(line: str) -> None:
    """What is good to know, and neither a result nor an error; ``--quiet`` leaves it out."""
    LOGGER.info("%s", printable(line))


def warn(line: str) -> None:
    """What was left out of the work, or may be wrong with its result."""
    LOGGER.warning("%s", printable(line))


def is_quiet() -> bool:
    return not LOGGER.isEnabledFor(logging.INFO)


def is_terminal() -> bool:
    """Whether stderr is a terminal, where a bar can move."""
    return sys.stderr.isatty()


class Lines:
    """A file for progress bars that writes each state of a bar as a line of its own on stderr."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            click.echo(printable(line), err=True)

    def flush(self) -> None:
        """Every line is flushed."""
