"""Defaults that a user can set: by an environment variable, or in a TOML file; an option on the
command line wins over both."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click

from latentedit.errors import ArgumentError, FormatError, quoted
from latentedit.inversion.quality import QUALITIES, USUAL

PREFIX = "LATENTEDIT_"
MOST_THREADS = 4096
EXPORTED = ("megapixels", "cache", "data", "directions")
"""Settings that the library reads from the environment itself."""


@dataclass(frozen=True)
class Default:
    """One default that a user can set."""

    text: str
    expected: str
    """What a value must be, for messages."""
    check: Callable[[str], Any]
    """Returns the value of a text; raises `ValueError` for a wrong one."""
    built_in: str
    """What counts where the user has set nothing, as `latentedit config show` prints it."""


@dataclass(frozen=True)
class UserDefault:
    """A default that the user has set."""

    value: Any
    place: str
    """The variable, or the file."""


def _one_of(*names: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return check


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", text):
        raise ValueError
    return text


def _threads(text: str) -> int:
    count = int(text)
    if not 1 <= count <= MOST_THREADS:
        raise ValueError
    return count


def _megapixels(text: str) -> float:
    count = float(text)
    if not 0 < count < float("inf"):
        raise ValueError
    return count


def _path(text: str) -> str:
    if "\0" in text:
        raise ValueError
    return os.path.expanduser(text)


FOLDER = "the name of a folder"
SETTINGS = {
    "model": Default(
        "Model: bundled or published name, or file.", "a name or a file", _path, "faces128"
    ),
    "framing": Default(
        "Framing of faces, for models whose file does not define it.",
        "ffhq",
        _one_of("ffhq"),
        "none",
    ),
    "quality": Default(
        "Quality of inversions.",
        "fast, balanced or best",
        _one_of(*QUALITIES),
        USUAL,
    ),
    "device": Default("Device to compute on.", "auto, cpu, cuda, cuda:N or mps", _device, "auto"),
    "threads": Default(
        "Processor threads.",
        f"a whole number from 1 to {MOST_THREADS}",
        _threads,
        "chosen by torch",
    ),
    "out": Default(
        "Folder for results of align, invert, edit and studio.",
        FOLDER,
        _path,
        "none: --out is needed",
    ),
    "megapixels": Default(
        "Largest image that is accepted, in millions of pixels.",
        "a number above 0",
        _megapixels,
        "64",
    ),
    "directions": Default(
        "Folder of your own directions.", FOLDER, _path, "~/.latentedit/directions"
    ),
    "cache": Default(
        "Folder for downloads, and latents of photos.",
        FOLDER,
        _path,
        "latentedit in the user's cache",
    ),
    "data": Default(
        "Folder that remembers where networks are.", FOLDER, _path, "latentedit in the user's data"
    ),
}


def config_file() -> Path:
    """Return the file of defaults: LATENTEDIT_CONFIG, or latentedit/config.toml in the user's
    configuration folder."""
    import platformdirs

    named = os.environ.get(f"{PREFIX}CONFIG")
    if named:
        return Path(named)
    return platformdirs.user_config_path("latentedit", appauthor=False) / "config.toml"


def _checked(key: str, value: Any, place: str, name: str) -> Any:
    """Return ``value`` as the setting ``key`` has it; errors name ``place`` and ``name``."""
    setting = SETTINGS[key]
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    try:
        if not is_plain or not str(value).strip():
            raise ValueError
        return setting.check(str(value))
    except ValueError as error:
        reason = f"{name} must be {setting.expected}, got {quoted(value)}"
        wrong = ArgumentError if place == "" else FormatError
        raise wrong(
            reason, path=place or None, argument=key, expected=setting.expected, actual=value
        ) from error


def check_key(key: str, path: Path | None = None) -> None:
    """Raise `Error` for a name that is none of `SETTINGS`."""
    if key not in SETTINGS:
        raise FormatError(
            f"{quoted(key)} is not a setting; settings are {', '.join(SETTINGS)}",
            path=path,
            argument=key,
        )


def in_file() -> dict[str, Any]:
    """Return the checked defaults in the user's file; none where there is no file.

    Raises:
        Error: not TOML, an unknown key or a wrong value; the message names the file and the key.
    """
    path = config_file()
    if not path.exists():
        return {}

    from latentedit.io.budget import read_toml

    found = {}
    for key, value in read_toml(path).items():
        check_key(key, path)
        found[key] = _checked(key, value, str(path), key)
    return found


def user_default(key: str) -> UserDefault | None:
    """Return the default that the user has set for ``key``: the environment's before the file's.

    Raises:
        Error: a wrong value; the message names the variable, or the file and the key.
    """
    variable = f"{PREFIX}{key.upper()}"
    text = os.environ.get(variable, "")
    if text:
        return UserDefault(_checked(key, text, "", variable), variable)
    kept = in_file()
    if key in kept:
        return UserDefault(kept[key], str(config_file()))
    return None


def value_of(key: str) -> Any:
    """Return the default that the user has set for ``key``, or None."""
    found = user_default(key)
    return None if found is None else found.value


def change(key: str, text: str | None) -> Any:
    """Write a setting into the user's file, which keeps its comments, and return the value; None
    removes the setting.

    Raises:
        Error: an unknown key, a wrong value, or a file that is not TOML or cannot be written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from latentedit.io.files import read_text, write_bytes

    path = config_file()
    if text is not None:
        check_key(key)
    value = None if text is None else _checked(key, text, "", key)
    try:
        document = tomlkit.parse(read_text(path, what="file of defaults") if path.exists() else "")
    except TOMLKitError as error:
        raise FormatError(f"not a TOML file ({error})", path=path) from error

    if value is None:
        if key not in document:
            raise ArgumentError(f"{key} is not set in {path}", argument=key)
        del document[key]
    else:
        document[key] = value
    write_bytes(path, tomlkit.dumps(document).encode())
    return value


class Configured(click.Option):
    """An option whose default the user can set; its help shows what is built in.

    Args:
        key: of `SETTINGS`.
    """

    def __init__(self, *arguments: Any, key: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.key = key

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        if call and not ctx.resilient_parsing and (found := user_default(self.key)) is not None:
            return found.value
        return super().get_default(ctx, cast(Any, call))


@contextmanager
def in_environment() -> Iterator[None]:
    """Within, what the user's file says is in the variables that the library reads itself."""
    kept = in_file()
    added = {}
    for key in EXPORTED:
        variable = f"{PREFIX}{key.upper()}"
        if key in kept and not os.environ.get(variable):
            added[variable] = os.environ.get(variable)
            os.environ[variable] = str(kept[key])
    try:
        yield
    finally:
        for variable, before in added.items():
            put_back(variable, before)


def put_back(name: str, value: str | None) -> None:
    """Set a variable of the environment to what it was; None means not at all."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@contextmanager
def with_threads(count: int | None) -> Iterator[None]:
    """Within, torch computes in ``count`` threads; None leaves what torch chooses."""
    import sys

    if count is None:
        yield
        return
    # torch may not be loaded yet, and reads this variable when it is.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else None
    if torch is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        put_back("OMP_NUM_THREADS", before)
        if torch is not None:
            torch.set_num_threads(threads)
