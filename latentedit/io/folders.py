"""Selection of the files of a folder, and messages about the others."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from latentedit.errors import printable, spelled
from latentedit.io.images import EXTENSIONS, HEIC, HEIC_EXTRA, is_rendering

DEEPER = "sub-folders; `recursive=True` includes them"
NAMED = 3
"""Files of a kind that are named; of the others only their number is given."""


@dataclass
class Listing:
    """The files of a folder that are taken, sorted by name, and what is not, by the reason."""

    files: list[Path]
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave(self, reason: str, name: str) -> None:
        self.left_out.setdefault(reason, []).append(name)

    def lines(self, *, recursive: bool = True) -> list[str]:
        """Return a sentence a reason; advice on sub-folders only where the caller can be
        ``recursive``."""
        lines = []
        for reason, names in self.left_out.items():
            lines.append(
                _sentence(
                    reason if recursive or reason != spelled(DEEPER) else "sub-folders", names
                )
            )
        return lines

    def deeper(self) -> list[str]:
        """Return the sentence about sub-folders, if any were left out."""
        return [
            _sentence(reason, names)
            for reason, names in self.left_out.items()
            if reason == spelled(DEEPER)
        ]


def listing(
    folder: Path, endings: Sequence[str], *, recursive: bool = False, photos: bool = False
) -> Listing:
    """Return the files in ``folder`` that have one of ``endings``; hidden ones, and those in hidden
    folders, count as not there.

    Args:
        recursive: look into sub-folders too; they are left out otherwise.
        photos: leave pictures out that were rendered here.
    """
    found = Listing([])
    for path in _visible(folder, found, recursive):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() not in endings:
            found.leave(_kind(name), name)
        elif photos and is_rendering(path):
            found.leave("rendered by latentedit; name such a file itself to include it", name)
        else:
            found.files.append(path)

    return found


def _visible(folder: Path, found: Listing, recursive: bool) -> Iterator[Path]:
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        found.leave(f"cannot be read ({error.strerror})", folder.name)
        return

    for path in inside:
        if path.name.startswith("."):
            continue
        if path.is_file():
            yield path
        elif not path.is_dir():  # a pipe would be waited for, and a link may lead nowhere
            found.leave("not ordinary files", path.name)
        elif not recursive:
            found.leave(spelled(DEEPER), f"{path.name}/")
        elif path.is_symlink():  # to a folder above, it would be followed for ever
            found.leave("links to folders", f"{path.name}/")
        else:
            yield from _visible(path, found, recursive)


def hidden(name: str) -> bool:
    """Return whether a part of a relative name begins with a dot, or is where macOS puts its own
    files in a zip."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def unread(names: Iterable[str]) -> list[str]:
    """Return sentences about files that are no pictures, by their endings."""
    found = Listing([])
    for name in names:
        found.leave(_kind(name), name)
    return found.lines()


def _kind(name: str) -> str:
    ending = PurePosixPath(name).suffix.lower()
    if ending in HEIC and ending not in EXTENSIONS:
        return f"{ending}; {HEIC_EXTRA} reads them"
    return ending or "without an ending"


def _sentence(reason: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return printable(f"left out {len(names)}: {shown[:200]} ({reason})")


def distinct(files: Sequence[Path]) -> dict[Path, str]:
    """Return a name for what comes of every file, each another one, also where upper and lower case
    are the same.

    It is the file's name without its ending; where several files share that, the first of these
    that tells all of them apart: with the ending (``a-jpg``), with the folder before it
    (``left-a``), or with both; else with a number after it.
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    groups: dict[str, list[Path]] = {}
    for path in dict.fromkeys(files):
        groups.setdefault(path.stem.casefold(), []).append(path)

    # Names that need nothing added come first: a file called "left-a" keeps its name.
    for group in sorted(groups.values(), key=len):
        for path, name in zip(group, _told_apart(group), strict=True):
            free = name
            number = 2
            while free.casefold() in taken:
                free = f"{name}-{number}"
                number += 1
            taken.add(free.casefold())
            names[path] = free

    return names


def _told_apart(group: Sequence[Path]) -> list[str]:
    ending = [path.name.replace(".", "-") for path in group]
    folder = [os.path.basename(os.path.abspath(path.parent)) for path in group]
    for names in (
        [path.stem for path in group],
        ending,
        [f"{where}-{path.stem}" for where, path in zip(folder, group, strict=True)],
        [f"{where}-{name}" for where, name in zip(folder, ending, strict=True)],
    ):
        if len({name.casefold() for name in names}) == len(names):
            return names

    return [f"{where}-{name}" for where, name in zip(folder, ending, strict=True)]
