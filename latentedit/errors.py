"""The one exception type that users of the package have to know."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 800
"""Letters of a message, whatever a file puts into it."""


def printable(text: str) -> str:
    """``text`` without what would move a terminal's cursor or change its colours."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class Error(ValueError):
    """A file, an argument or an option is not what was expected; the message is one line and says what was.

    Names from files can hold anything: what a terminal would not print as it stands is replaced, and the rest is cut.
    """

    def __init__(self, message: str) -> None:
        plain = printable(message)
        super().__init__(plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 3]}...")


class Interrupted(Error):  # noqa: N818 - what it is called where it is caught
    """Ctrl-C ended the work before its time; the message says what was kept. Commands end with status 130."""


def check_number(name: str, value: float, least: float = -math.inf, most: float = math.inf) -> None:
    """Raise `Error` unless ``value`` is a finite number from ``least`` to ``most``."""
    if math.isfinite(value) and least <= value <= most:
        return
    ends = [f"from {least:g}" if math.isfinite(least) else "", f"to {most:g}" if math.isfinite(most) else ""]
    expected = " ".join(["a finite number", *(end for end in ends if end)])
    raise Error(f"{name} must be {expected}, got {value}")


@contextmanager
def complete(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turn what goes wrong while ``what`` is put together from the contents of a file into an `Error` that names both."""
    try:
        yield
    except Error as error:
        if str(path) in str(error):
            raise
        raise Error(f"{path}: {error}") from error
    except Exception as error:  # the contents can be anything
        text = str(error).splitlines()[0][:160] if str(error) else ""
        raise Error(f"{path}: the {what} is incomplete ({type(error).__name__}: {text})") from error
