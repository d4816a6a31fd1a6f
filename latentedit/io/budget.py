"""What reading one file may cost: one budget, from which every reader takes before it builds
anything."""

import io
import json
import os
import struct
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentedit.errors import Error, FormatError, NotFoundError, is_number, quoted, reason, shown

LARGEST = 4 << 30
"""Bytes of a file; the largest published network has 0.7 GB."""
TEXT = 4 << 20
"""Bytes of a header, of labels, of options, of a line of a log."""
ENTRIES = 20_000
"""Tensors of a file, or members of an archive; the state of a large network's training has some two
thousand."""
INSTRUCTIONS = 500_000
"""Largest number of instructions of all pickles in a file; official networks have about ten
thousand."""
SECONDS = 5.0
"""Processor time within which the instructions must be checked."""
THINGS = 1_000_000
"""What the contents of a file hold when they are written out; 64 letters count as one."""
DEEPEST = 500
"""Containers within containers of a pickle; official files have about 30."""
NESTED = 64
"""The same of JSON and TOML."""
REPEATED = 4
"""Times that a file's bytes may be in tensors, or that an archive may grow when it is unpacked."""
SLACK = 1 << 20
"""Bytes of small tensors that may share their numbers."""
UNPACKED = 16 << 20
"""Bytes that an archive may grow by, whatever its size."""


MEMBER = b"PK\x01\x02"
"""What every entry of an archive's directory begins with."""


class Budget:
    """What is left for one file of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self._limits = {
            "instructions": INSTRUCTIONS,
            "tensors": ENTRIES,
            "bytes": REPEATED * size + SLACK,
        }
        self._left = dict(self._limits)
        # Processor time of this thread: a busy machine must not make a good file look hostile.
        self._until = time.thread_time() + SECONDS

    def take(self, what: str, amount: int = 1) -> None:
        """Take ``amount`` of "instructions", "tensors" or "bytes"; `Error` where there is not so
        much left."""
        self._left[what] -= amount
        if self._left[what] < 0:
            raise FormatError(
                f"more than {self._limits[what]} {what}, or the same ones again and again"
            )

    def check_bytes(self, root: Any, weigh: Callable[[Any], int]) -> None:
        """Raise `Error` where one tensor in contents that were read stands for many; ``weigh``
        gives the bytes of one."""
        check_things(root, most=self._limits["bytes"], what="bytes", weigh=weigh)

    def check_time(self) -> None:
        """Raise `Error` where checking takes longer than any real file does."""
        if time.thread_time() > self._until:
            raise FormatError(f"takes longer than {SECONDS:g} seconds to check")


def file_size(path: str | os.PathLike[str], most: int = LARGEST) -> int:
    """Return the size of the file ``path`` in bytes.

    Raises:
        Error: no such file, or one of more than ``most`` bytes.
    """
    if not os.path.isfile(path):  # also where no system has such names
        raise NotFoundError("no such file", path=path)
    # Before anything is read: a sparse file of terabytes takes no space on a disk.
    size = os.path.getsize(path)
    if size > most:
        raise FormatError(f"has {size} bytes, expected at most {most}", path=path)
    return size


def _things(value: Any) -> int:
    return 1 + len(value) // 64 if isinstance(value, str | bytes) else 1


def check_things(
    root: Any,
    deepest: int = DEEPEST,
    most: int = THINGS,
    what: str = "things",
    weigh: Callable[[Any], int] = _things,
) -> None:
    """Raise `Error` where contents that were read are too deep, too many when written out, or
    within themselves.

    A list that is twice in a list that is twice in a list needs few bytes, and for ever to be
    printed, copied or walked through. What has passed here can be.

    Args:
        most: of ``what``, of which every container counts as one and everything else as ``weigh``
            says.
    """
    # Iterative, with a stack of its own: recursion would end in the crash that this check is to
    # prevent.
    done: dict[int, tuple[int, int]] = {}  # weight and depth by identity
    above: set[int] = set()
    path: list[tuple[Any, Any, list[int]]] = []

    def enter(value: Any) -> None:
        if len(path) >= deepest:
            raise FormatError(f"containers nested more than {deepest} deep")
        above.add(id(value))
        path.append((value, iter(_inside(value)), [1, 1]))

    if _is_container(root):
        enter(root)

    while path:
        value, rest, facts = path[-1]
        for child in rest:
            if not _is_container(child):
                facts[0] += weigh(child)
                continue
            if id(child) in above:
                raise FormatError("a container that holds itself")

            if id(child) not in done:
                enter(child)
                break
            weight, depth = done[id(child)]
            facts[0] += weight
            facts[1] = max(facts[1], depth + 1)
            if facts[1] + len(path) - 1 > deepest:
                raise FormatError(f"containers nested more than {deepest} deep")
        else:
            path.pop()
            above.discard(id(value))
            done[id(value)] = (facts[0], facts[1])
            if path:
                path[-1][2][0] += facts[0]
                path[-1][2][1] = max(path[-1][2][1], facts[1] + 1)
        if facts[0] > most:
            raise FormatError(f"more than {most} {what}, or the same ones again and again")


def check_finite_json(root: Any, name: str = "", *, but: str | None = None) -> None:
    """Raise `Error` by the name of a number in what was read from JSON or TOML that is infinite, or
    none at all.

    Args:
        but: a key of ``root`` beneath which there may be such numbers.
    """
    if isinstance(root, dict):
        for key, value in root.items():
            if key != but:
                check_finite_json(value, f"{name}.{key}" if name else key)
    elif isinstance(root, list):
        for number, value in enumerate(root):
            check_finite_json(value, f"{name}[{number}]")
    elif isinstance(root, int | float) and not isinstance(root, bool) and not is_number(root):
        raise FormatError(f"{shown(name)} is {quoted(root)}, expected a finite number")


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list | tuple | set | frozenset)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    else:
        yield from value
    # An OrderedDict that was pickled has attributes of its own.
    yield from getattr(value, "__dict__", {}).values()


def parse_json(text: str | bytes, most: int = TEXT, things: int = THINGS) -> Any:
    """Return the value that a JSON text of at most ``most`` bytes stands for, with at most about as
    many ``things`` in it.

    Raises:
        Error: too long, too many, too deep, or not JSON.
    """
    if len(text) > most:
        raise FormatError(f"a JSON text of {len(text)} bytes, expected at most {most}")
    # Counted before anything is built. There are at least as many values; dictionaries take the
    # most memory.
    if (
        sum(_counted(text, sign) * weight for sign, weight in (("[", 1), (",", 1), ("{", 3)))
        > things
    ):
        raise FormatError(f"a JSON text of more than {things} values")

    try:
        # Python's parser is recursive in C; the text was counted before, and the depth is checked
        # after.
        value = json.loads(text)
    except RecursionError as error:
        raise FormatError(f"JSON nested more than {NESTED} deep") from error
    except ValueError as error:  # not UTF-8 either, or a number of thousands of digits
        raise FormatError(f"not JSON ({reason(error)})") from error

    check_things(value, NESTED, things)
    return value


def _counted(text: str | bytes, sign: str) -> int:
    return text.count(sign) if isinstance(text, str) else text.count(sign.encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the value in a JSON file; errors as `parse_json`, and for numbers that are not finite,
    by the file's name."""
    file_size(path, TEXT)
    try:
        value = parse_json(Path(path).read_bytes())
        check_finite_json(value)
        return value
    except Error as error:
        raise error.at(path) from error


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the table in a TOML file.

    Raises:
        Error: too long, too deep, not TOML, or with a number that is not finite.
    """
    file_size(path, 1 << 16)
    try:
        text = Path(path).read_text(encoding="utf-8")
        # A key of many parts takes the square of their number.
        if any(line.count(".") > 2 * NESTED for line in text.splitlines()):
            raise FormatError(f"a TOML file with a line of more than {2 * NESTED} dots", path=path)
        table = tomllib.loads(text)
        check_things(table, NESTED)
        check_finite_json(table)
    except RecursionError as error:
        raise FormatError(f"TOML nested more than {NESTED} deep", path=path) from error
    except Error as error:
        raise error.at(path) from error
    except ValueError as error:  # not TOML, not UTF-8, a number of thousands of digits
        raise FormatError(f"not a TOML file ({reason(error)})", path=path) from error

    return table


class _Directory(io.BufferedReader):
    """A file of which nothing large can be asked for while ``most`` is set, and never more than it
    has."""

    most: int | None = None
    entries = 0
    """Members that the directory may have, which is what is read while ``most`` is set."""
    whole = 0
    """Bytes of the file. What an archive says of a member's size is allocated before it is read."""

    def read(self, size: int | None = -1) -> bytes:
        if self.most is not None and size is not None and size > self.most:
            raise FormatError(
                f"an archive with a directory of {size} bytes, expected at most {self.most}"
            )

        data = super().read(size if size is None else min(size, self.whole))
        if (
            self.most is not None
            and len(data) > 46 * self.entries
            and data.count(MEMBER) > self.entries
        ):
            raise FormatError(f"an archive of more than {self.entries} members")
        return data


@contextmanager
def opened_zip(
    path: str | os.PathLike[str], entries: int = ENTRIES, *, whole: bool = True
) -> Iterator[zipfile.ZipFile]:
    """The archive in the file ``path``, whose members are known to be few enough and small enough
    to be read.

    Args:
        whole: all of it will be in memory at once; else whoever reads a member looks at its size,
            and at how it is packed.

    Raises:
        Error: not an archive, too many members, one packed in a way that torch and numpy do not
            use, or more bytes than such a file can hold.
    """
    size = os.path.getsize(path)
    with _Directory(io.FileIO(os.fspath(path))) as file:
        file.whole = size
        # The directory is read at once and makes an object of every member.
        file.most = max(200 * entries, 1 << 17)
        file.entries = entries
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error) as error:
            raise FormatError(f"not an archive, or damaged ({reason(error)})") from error
        file.most = None
        members = archive.infolist()
        if len(members) > entries:
            raise FormatError(f"an archive of {len(members)} members, expected at most {entries}")
        if whole and any(
            member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            for member in members
        ):
            raise FormatError("an archive with members that are neither stored nor deflated")
        # so many bytes would be allocated
        if any(member.compress_size > size for member in members):
            raise FormatError("an archive with a member that is larger than the file")

        most = REPEATED * size + UNPACKED
        if whole and sum(member.file_size for member in members) > most:
            raise FormatError(f"an archive that unpacks to more than {most} bytes")
        yield archive
