"""Files that are whole or absent: atomic writes, and safetensors with a JSON header."""

import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from latentedit.errors import FormatError, OutputError
from latentedit.io import outputs

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOG = logging.getLogger(__name__)
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
VIDEOS = (".mp4", ".webm", ".gif")
"""Endings of the videos that are written; here, as `latentedit.io.video` loads OpenCV."""
TEMPORARY = ".latentedit-"
"""What the names of files that are being written begin with; the number of the process follows."""
SWEEP_AGAIN = 60.0
"""Seconds after which a folder is looked through again for what killed processes left behind."""
ABANDONED = 86400.0
"""Seconds after which a temporary file counts as left behind where the system cannot tell whether
its process lives."""


@contextmanager
def replacing(path: str | os.PathLike[str], *, in_place: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on success it takes the place of ``path``, on
    failure it is removed.

    File and folder are synced before this returns: what is reported as written survives a power
    cut. What killed processes left behind in the folder is removed.

    Args:
        in_place: for files whose change is what the user asked for, such as a table of labels: they
            may be inputs.

    Raises:
        Error: the folder cannot be written, the disk is full, or ``path`` is an input of the
            command that runs.
    """
    path = Path(path)
    if not in_place:
        outputs.check(path)

    temporary: Path | None = None
    held = -1
    try:
        make_folder(path.parent)
        sweep(path.parent)
        # In the same folder: renaming across file systems is a copy, which can be interrupted.
        # Its name is known before it exists: Ctrl-C may come between two lines, and then it is
        # removed all the same.
        temporary = path.parent / f"{_prefix(path.stem)}{secrets.token_hex(4)}{path.suffix}"
        held = os.open(temporary, NEW, 0o600)
        _lock(held)
        yield temporary
        with open(temporary, "rb+") as file:
            # Without it, a power cut after the renaming could leave an empty file under the right
            # name.
            os.fsync(file.fileno())
        # New files are for the user alone, which results in a shared folder should not be.
        os.chmod(temporary, 0o666 & ~_umask())
        if os.name == "nt":  # where an open file cannot be renamed
            os.close(held)
            held = -1
        os.replace(temporary, path)
        sync_folder(path.parent)
        LOG.debug("wrote %s", path)
    except OSError as error:
        raise OutputError.refused(path, error) from error
    finally:
        if held >= 0:
            os.close(held)
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a new temporary folder beside ``path``, which takes its place on success and is
    removed on failure.

    ``path`` may be an empty folder. Everything in the folder is synced before it gets its name.

    Raises:
        Error: the folder cannot be written, the disk is full, or ``path`` is there and not an empty
            folder.
    """
    path = Path(path)
    temporary: Path | None = None
    held = -1

    try:
        make_folder(path.parent)
        sweep(path.parent)
        temporary = path.parent / f"{_prefix(path.stem)}{secrets.token_hex(4)}"
        temporary.mkdir(mode=0o700)
        if os.name != "nt":
            held = os.open(temporary, os.O_RDONLY)
            _lock(held)
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                with open(os.path.join(folder, name), "rb+") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(folder))

        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists():
            path.rmdir()
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError.refused(path, error) from error
    finally:
        if held >= 0:
            os.close(held)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it that are missing, so that they survive a power cut."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Make sure that the names in ``folder`` are on the disk; of no effect where folders cannot be
    synced."""
    if os.name == "nt":
        return
    with suppress(OSError):  # some network and FUSE file systems have no such call
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_swept: dict[Path, float] = {}


def sweep(folder: Path) -> None:
    """Remove temporary files and folders in ``folder`` whose process is no more; at most once a
    minute and folder.

    A process that lives is known by its number, and holds a lock on its file, which other machines
    and containers see too. Where there are no such locks, files stay for a day.
    """
    now = time.monotonic()
    if now - _swept.get(folder, -SWEEP_AGAIN) < SWEEP_AGAIN:
        return

    _swept[folder] = now
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY) and _abandoned(entry):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        os.unlink(entry.path)


def _prefix(stem: str) -> str:
    return f"{TEMPORARY}{os.getpid()}-{stem[:40]}-"


def _lock(handle: int) -> None:
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _abandoned(entry: os.DirEntry[str]) -> bool:
    number = entry.name.removeprefix(TEMPORARY).partition("-")[0]
    if not number.isascii() or not number.isdecimal() or len(number) > 10:
        return False
    if fcntl is None:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED
    if _lives(int(number)):
        return False

    try:
        # A process number can be in use again, so the lock decides and not the number alone.
        handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)

    return True


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


LARGEST_TABLE = 2**26
"""Bytes of a CSV file that is read."""


def read_text(
    path: str | os.PathLike[str], most: int = LARGEST_TABLE, what: str = "CSV file"
) -> str:
    """Return the text of a file in UTF-8, with or without a byte-order mark.

    Raises:
        Error: no such file, more than ``most`` bytes, or not UTF-8.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            # One byte more than allowed tells that there is more, without reading it.
            data = file.read(most + 1)
        if is_picture(path):
            raise FormatError(f"an image, not a {what}", path=path)
        if len(data) > most:
            raise FormatError(f"a {what} of more than {most // 2**20} MB; split it", path=path)
        return data.decode("utf-8-sig")
    except OSError as error:
        raise FormatError(
            f"not a readable {what} ({error.strerror or error})", path=path
        ) from error
    except UnicodeDecodeError as error:
        raise FormatError(
            f"not a readable {what} ({error.reason} at byte {error.start}; it must be UTF-8)",
            path=path,
        ) from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def cache_folder() -> Path:
    """Return where features of data sets and published networks are kept: LATENTEDIT_CACHE, or
    latentedit in the user's cache."""
    named = os.environ.get("LATENTEDIT_CACHE")
    return (
        Path(named)
        if named
        else platformdirs.user_cache_path("latentedit", appauthor=False, opinion=False)
    )


def write_bytes(path: str | os.PathLike[str], data: bytes, *, in_place: bool = False) -> None:
    """Write a whole file; ``in_place`` and errors as of `replacing`."""
    with replacing(path, in_place=in_place) as temporary:
        temporary.write_bytes(data)


BOXES = tuple(
    b"ftyp" + brand
    for brand in (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
)
"""Bytes 4 to 12 of AVIF and HEIC pictures."""
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
"""First bytes of pictures, but for WebP's and AVIF's, which say a few bytes later what they are."""

SAFETENSORS = b"{"
"""Byte 8 of a safetensors file; those before are a number, and so can be any."""


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Return whether the file ``path`` begins as pictures do, whatever it is called."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start[8:9] == SAFETENSORS:
        return False
    return start.startswith(STARTS) or start[8:12] == b"WEBP" or start[4:12] in BOXES


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Return whether the file ``path`` begins as safetensors files do."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == SAFETENSORS
