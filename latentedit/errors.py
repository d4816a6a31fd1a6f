"""The one exception type that users of the package have to know."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LONGEST = 800
"""Letters of a message, whatever a file puts into it."""


QUOTED = 100
"""Letters of anything from a file that a message shows."""


def printable(text: str) -> str:
    """``text`` without what would move a terminal's cursor or change its colours."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def quoted(value: object) -> str:
    """A value from a file as a message shows it: `QUOTED` printable letters at most.

    Containers are shown by their kind alone, as lists within one another can have a text that never ends.
    """
    if isinstance(value, str):
        return f"'{shown(value)}'"
    if isinstance(value, int) and value.bit_length() > QUOTED:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    return f"a {printable(type(value).__name__[:QUOTED])}"


def shown(text: str) -> str:
    """A name from a file as a message shows it without quotation marks: `QUOTED` printable letters at most."""
    return printable(text) if len(text) <= QUOTED else f"{printable(text[: QUOTED - 3])}..."


def listed(names: Iterable[object]) -> str:
    """The words among ``names`` from a file, as far as `QUOTED` printable letters go."""
    text = ""
    for name in names:
        if isinstance(name, str):
            text = f"{text}, {name[:QUOTED]}" if text else name[: QUOTED + 1]
        if len(text) > QUOTED:
            break
    return shown(text)


def reason(error: BaseException) -> str:
    """The first line of what a library said, which may hold anything from a file."""
    lines = str(error)[: 10 * QUOTED].strip().splitlines()
    return printable(lines[0][:QUOTED]) if lines else type(error).__name__


class Error(ValueError):
    """A file, an argument or an option is not what was expected; the message is one line and says what was.

    Names from files can hold anything: what a terminal would not print as it stands is replaced, and the rest is cut.
    """

    def __init__(self, message: str) -> None:
        plain = printable(message[: LONGEST + 1])
        super().__init__(plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 3]}...")


class Interrupted(Error):  # noqa: N818 - what it is called where it is caught
    """Ctrl-C ended the work early; the message says what was kept. Commands end with status 130."""


def is_number(value: object, most: float = 1e300) -> bool:
    """Whether ``value`` is a finite number of at most ``most`` on either side of 0, and neither true nor false.

    A whole number from a file can be larger than any float: comparing it is safe, and converting it is not.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most


def check_number(name: str, value: float, least: float = -math.inf, most: float = math.inf) -> None:
    """Raise `Error` unless ``value`` is a finite number from ``least`` to ``most``."""
    if is_number(value) and least <= value <= most:
        return
    ends = [f"from {least:g}" if math.isfinite(least) else "", f"to {most:g}" if math.isfinite(most) else ""]
    expected = " ".join(["a finite number", *(end for end in ends if end)])
    raise Error(f"{name} must be {expected}, got {quoted(value)}")


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
        raise Error(f"{path}: the {what} is incomplete ({type(error).__name__}: {reason(error)})") from error
