"""Locks of what only one process may work on: a run's folder, a table that is being labelled, a
download."""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentedit.errors import Error, FormatError, OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

MARK = b"latentedit: "
"""Begins every lock file, so that a file of somebody else's is told apart."""
LONGEST = 200
FAR = 1 << 30
"""Where Windows locks: what is locked there cannot be read, and the owner's name must be."""
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def alone(lock: str | os.PathLike[str], what: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the file ``lock`` for the block, so that no other process works on ``what`` meanwhile.

    The operating system holds the lock, and the file only names its owner: a process that was
    killed, a reboot or the end of a container frees it, whatever process has the same number by
    then. Containers of one machine that share the folder see each other's locks; machines that
    share it do where its file system passes locks on (NFS 4, SMB). On a file system without locks
    everybody gets one.

    Raises:
        Error: another process holds it; the file cannot be written, or is none of ours.
    """
    path = Path(lock)
    folder_is_new = not path.parent.exists()
    handle = _taken(path, what)

    try:
        yield
    finally:
        # there an open file cannot be removed, and one that another opened meanwhile stays
        if sys.platform == "win32":
            os.close(handle)
            with suppress(OSError):
                path.unlink()
        else:
            with suppress(OSError):
                path.unlink()
            os.close(handle)
        if folder_is_new:
            with suppress(OSError):  # something is in it
                path.parent.rmdir()


def _taken(path: Path, what: str | os.PathLike[str]) -> int:
    flags = (
        os.O_RDWR
        | os.O_CREAT
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_BINARY", 0)
        | getattr(os, "O_NONBLOCK", 0)
    )
    while True:
        handle = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, flags, 0o666)
            owner = _owner(handle, path)
            # Non-blocking: the user is told who holds the lock, instead of waiting without a word.
            if not _locked(handle):
                raise OutputError(
                    f"{owner} is working on it; wait for it or stop it (lock {path.name})",
                    path=what,
                )
            if _still_there(handle, path):
                _sign(handle, path)
                return handle
        except OSError as error:
            _close(handle)
            raise OutputError.refused(path, error) from error
        except Error:
            _close(handle)
            raise
        os.close(handle)  # its owner ended between the opening and the locking, and has removed it


def _owner(handle: int, path: Path) -> str:
    """Whom the file names."""
    found = os.read(handle, LONGEST)
    if found and not found.startswith(MARK):
        raise FormatError("not a lock of latentedit; move it away", path=path)
    text = found.removeprefix(MARK).decode(errors="replace").strip()
    return text or "another process"


def _locked(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(handle, FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # A file system without locks must not forbid the work altogether.
        if error.errno in UNSUPPORTED:
            return True
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        raise

    return True


def _still_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _sign(handle: int, path: Path) -> None:
    text = f"process {os.getpid()} on {socket.gethostname()[:64]}\n"
    try:
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, MARK + text.encode())
    except OSError:  # the disk is full
        path.unlink(missing_ok=True)
        raise


def _close(handle: int) -> None:
    if handle >= 0:
        os.close(handle)
