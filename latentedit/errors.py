"""The exceptions that a file, an argument or an option causes, and how messages show what comes
from a file."""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

LONGEST = 800
"""Letters of a message, whatever a file puts into it."""


QUOTED = 100
"""Letters of anything from a file that a message shows."""


SHAPE = 8
"""Numbers of a list that a message shows in full."""


ARGUMENT = re.compile(r"`(?P<name>[a-z_]+)(?:=(?P<value>[^`]*))?`")
"""An argument in the advice of an error."""


def as_argument(name: str, value: str) -> str:
    """Return an argument as a Python program writes it."""
    return f"{name}={value}" if value else name


def as_option(name: str, value: str) -> str:
    """Return an argument as the command line writes it; switches are on and need no value."""
    option = f"--{name.replace('_', '-')}"
    return f"{option} {value}" if value not in ("", "True") else option


_spelling: list[Callable[[str, str], str]] = [as_argument]


def spelled(text: str) -> str:
    """Return ``text`` with the arguments between backticks in it as the user writes them."""
    return ARGUMENT.sub(lambda found: _spelling[-1](found["name"], found["value"] or ""), text)


@contextmanager
def spelling(spell: Callable[[str, str], str]) -> Iterator[None]:
    """Spell arguments in the advice of all errors as ``spell(name, value)`` does; the commands name
    their options so."""
    _spelling.append(spell)
    try:
        yield
    finally:
        _spelling.pop()


def printable(text: str) -> str:
    """Return ``text`` without what would move a terminal's cursor or change its colours."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def quoted(value: object) -> str:
    """Return a value from a file as a message shows it: `QUOTED` printable letters at most.

    Containers are shown by their kind alone, as lists within one another can have a text that never
    ends.
    """
    if isinstance(value, str):
        return f"'{shown(value)}'"
    if isinstance(value, int) and value.bit_length() > QUOTED:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    return f"a {printable(type(value).__name__[:QUOTED])}"


def shown(text: str) -> str:
    """Return a name from a file as a message shows it without quotation marks: `QUOTED` printable
    letters at most."""
    return printable(text) if len(text) <= QUOTED else f"{printable(text[: QUOTED - 3])}..."


def listed(names: Iterable[object]) -> str:
    """Return the words among ``names`` from a file, as far as `QUOTED` printable letters go."""
    text = ""
    for name in names:
        if isinstance(name, str):
            text = f"{text}, {name[:QUOTED]}" if text else name[: QUOTED + 1]
        if len(text) > QUOTED:
            break
    return shown(text)


def reason(error: BaseException) -> str:
    """Return the first line of what a library said, which may hold anything from a file."""
    lines = str(error)[: 10 * QUOTED].strip().splitlines()
    return printable(lines[0][:QUOTED]) if lines else type(error).__name__


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the name among ``known`` that ``word`` is probably a misspelling of; None if all are
    too different."""
    from difflib import get_close_matches

    plain = {name.casefold(): name for name in known}
    found = get_close_matches(word[:QUOTED].casefold(), plain, n=1)
    return plain[found[0]] if found else None


def meant(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the advice "did you mean NAME?" if a ``known`` name is close to ``word``, followed by
    ``otherwise``."""
    found = closest(word, known)
    if found is None:
        return otherwise
    rest = f" {otherwise[0].upper()}{otherwise[1:]}" if otherwise else ""
    return f"did you mean {found}?{rest}"


def path_text(path: object, what: str) -> str:
    """Return a path as a text; raise `ArgumentError`, which says ``what`` is expected, if it is
    none."""
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError.of("the argument", what, path)
    return os.fspath(path)


class Error(ValueError):
    """A file, an argument or an option is not what was expected.

    Each kind of error has a subclass, and all facts are attributes, so that a program need not read
    the message.

    Attributes:
        reason: What is wrong, without the file.
        path: The file, folder or address that the error is about, or None.
        line: The line of that file, from 1, or None.
        argument: The argument, option or entry with the wrong value, or None.
        expected: What was expected: a text, or a value such as a fingerprint. None where there is
            nothing to compare.
        actual: What was found in its place, or None.
        advice: The way out, or "". Arguments in it stand between backticks, with a value if one is
            meant: `` `force=True` ``.

    The message is one line of at most `LONGEST` letters: the file, the reason, then the advice.
    Names from files can hold anything; letters that a terminal would not print as they stand are
    replaced.
    """

    _verb = "found"
    _names_path = False
    """Whether the reason itself names the path."""

    def __init__(
        self,
        reason: str,
        *,
        path: str | os.PathLike[str] | None = None,
        line: int | None = None,
        argument: str | None = None,
        expected: object = None,
        actual: object = None,
        advice: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = None if path is None else os.fspath(path)
        self.line = line
        self.argument = argument
        self.expected = expected
        self.actual = actual
        self.advice = advice

    def __str__(self) -> str:
        message = f"{self._placed()}; {spelled(self.advice)}" if self.advice else self._placed()
        plain = printable(message[: LONGEST + 1])
        return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 3]}..."

    def _placed(self) -> str:
        """Return the file and the reason."""
        place = "" if self._names_path else self.path or ""
        if self.line is not None:
            place = f"{place}, line {self.line}"
        return f"{place}: {self.reason}" if place else self.reason

    @classmethod
    def of(
        cls,
        name: str,
        expected: str,
        actual: object,
        *,
        path: str | os.PathLike[str] | None = None,
        advice: str = "",
    ) -> Self:
        """Return the error that ``name`` must be what ``expected`` says, and is ``actual``."""
        reason = f"{name} must be {expected}, {cls._verb} {_told(actual)}"
        return cls(
            reason, path=path, argument=name, expected=expected, actual=actual, advice=advice
        )

    @classmethod
    def of_shape(cls, name: str, expected: str, actual: Sequence[int]) -> Self:
        """Return the error that the tensor ``name`` must have the shape that ``expected`` says, and
        has ``actual``."""
        shape = list(actual)
        reason = f"{name} must have shape {expected}, {cls._verb} {shape}"
        return cls(reason, argument=name, expected=expected, actual=shape)

    def at(self, path: str | os.PathLike[str], line: int | None = None) -> Self:
        """Return the same error, said of a file or of a line in it."""
        place = os.fspath(path)
        if self.path == place and line in (None, self.line):
            return self

        found = type(self).__new__(type(self))
        found.__dict__.update(self.__dict__)
        found.reason = self._placed()
        found._names_path = False
        found.path = place
        found.line = line
        return found


class ArgumentError(Error):
    """An argument or option has a value that it cannot have, or does not go with another one."""

    _verb = "got"


class FormatError(Error):
    """A file is damaged, not of the expected format, or has contents that are not allowed."""


class NotFoundError(Error):
    """A file, model, direction, column or package that was named is not there."""


class IncompatibleError(Error):
    """Things that are right by themselves do not fit one another, such as a latent and a generator.

    With generators, ``expected`` and ``actual`` are fingerprints; with arrays, shapes.
    """


class DataError(Error):
    """The images, latents or labels that were given are readable but do not suffice for the
    task."""


class OutputError(Error):
    """An output cannot be written: it exists, is an input, or the system refuses."""

    @classmethod
    def refused(cls, path: str | os.PathLike[str], error: OSError) -> Self:
        """Return the error that the system refuses to write ``path``."""
        found = cls(f"cannot write {path}: {error.strerror or error}")
        found.path = os.fspath(path)
        found._names_path = True
        return found


class DownloadError(Error):
    """A download failed, or brought something other than expected; ``path`` is the address."""


class DivergedError(Error):
    """Training or optimisation reached values that are not finite."""


class Interrupted(Error):  # noqa: N818 - what it is called where it is caught
    """Ctrl-C ended the work early; the message says what was kept. Commands end with status 130."""


def _told(value: object) -> str:
    """Return ``value`` as a message shows it; short tuples of numbers in full."""
    if isinstance(value, tuple) and len(value) <= SHAPE and all(is_number(item) for item in value):
        return str(value)
    return quoted(value)


def is_number(value: object, most: float = 1e300) -> bool:
    """Return whether ``value`` is a finite number of at most ``most`` on either side of 0, and
    neither true nor false.

    A whole number from a file can be larger than any float: comparing it is safe, and converting it
    is not.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most


def check_number(name: str, value: float, least: float = -math.inf, most: float = math.inf) -> None:
    """Raise `ArgumentError` unless ``value`` is a finite number from ``least`` to ``most``."""
    if is_number(value) and least <= value <= most:
        return

    ends = [
        f"from {least:g}" if math.isfinite(least) else "",
        f"to {most:g}" if math.isfinite(most) else "",
    ]
    expected = " ".join(["a finite number", *(end for end in ends if end)])
    raise ArgumentError.of(name, expected, value)


@contextmanager
def complete(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turn what goes wrong while ``what`` is put together from the contents of a file into an
    `Error` that names both.

    Arguments that come from a file are contents of that file, so that an `ArgumentError` becomes a
    `FormatError`.
    """
    try:
        yield
    except ArgumentError as error:
        found = FormatError(error._placed(), path=path, advice=error.advice)
        found.argument = error.argument
        found.expected = error.expected
        found.actual = error.actual
        raise found from error
    except Error as error:
        if error.path is not None:
            raise
        raise error.at(path) from error
    except Exception as error:  # the contents can be anything
        reason_given = f"{type(error).__name__}: {reason(error)}"
        raise FormatError(f"the {what} is incomplete ({reason_given})", path=path) from error
