"""What a command may write to: never to a file that it was given.

The rule holds where files are written (`latentedit.io.files.replacing`), so that no command goes
around it. It is in force within `guarded`, which every command runs in; a Python program that calls
the library decides for itself.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentedit.errors import OutputError

Place = str | os.PathLike[str]
Identity = tuple[int, int]


class _Guard:
    """The inputs of one command: where each was found, and which file that is."""

    def __init__(self) -> None:
        self.found: dict[Path, Identity] = {}
        self.identities: set[Identity] = set()
        self.lock = threading.Lock()

    def add(self, path: Path, identity: Identity) -> None:
        with self.lock:
            self.found[path] = identity
            self.identities.add(identity)

    def holds(self, identity: Identity) -> bool:
        if identity not in self.identities:
            return False
        with self.lock:
            names = [path for path, known in self.found.items() if known == identity]
        # The number of a file that is gone may belong to a new one.
        return any(_identity(path) == identity for path in names)


_guards: list[_Guard] = []


@contextmanager
def guarded() -> Iterator[None]:
    """Within, files that were `given` cannot be written to."""
    guard = _Guard()
    _guards.append(guard)
    try:
        yield
    finally:
        _guards.remove(guard)


def in_force() -> bool:
    """Return whether a command runs, as opposed to a program of the user's own."""
    return bool(_guards)


def given(path: Place) -> None:
    """Note that ``path`` is an input; one that does not exist is none."""
    identity = _identity(Path(path)) if _guards else None
    if identity is not None:
        for guard in _guards:
            guard.add(Path(path), identity)


def is_given(path: Place) -> bool:
    """Return whether ``path`` is one of the inputs, by whatever name or link."""
    identity = _identity(Path(path)) if _guards else None
    return identity is not None and any(guard.holds(identity) for guard in _guards)


def check(path: Place) -> None:
    """Refuse to write to an input.

    Raises:
        Error: ``path`` is one, or no ordinary file but, say, a device.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OutputError("is a device or similar, not a regular file", path=path)
    if is_given(path):
        raise OutputError(
            "is an input of this command, and inputs are never overwritten; give the output "
            "another name",
            path=path,
        )


def _identity(path: Path) -> Identity | None:
    try:
        # Device and number of the file: links, relative names and upper case must not hide an
        # input.
        facts = os.stat(path)
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino
