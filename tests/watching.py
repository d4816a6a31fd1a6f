"""Runs things in forked children that are watched: what they execute, how they end, how long they
take, what they need.

The parent imports everything once and never computes; a child is forked for a batch of items and
tells the parent of each through a pipe. A child that dies or hangs costs its item, and a new one
goes on with the next.
"""

import contextlib
import errno
import io
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentedit.errors import Error
from latentedit.io import onnx

FAULTS = ("executions", "signals", "hangs", "memory", "tracebacks", "messages", "accepted", "lost")
"""What must not happen: something from outside is executed, or touches files and networks that are
none of its business; a signal ends the process; it does not end; it needs too much memory; an
exception that is no `Error` escapes; a message is not one line for a terminal; a file or an option
is taken that cannot be right; a file is lost, half-written or left behind.
"""
SECONDS, GRACE, PRESSED = 5.0, 5.0, 3
"""Seconds of processor time for an item, as a busy machine takes longer by the clock; where Ctrl-C
may end it, the seconds after each, and how often it is pressed: a search that is interrupted still
draws what it has found. """
STILL, TRACE, WAIT = 180.0, 0.1, 3600.0
"""By the clock, an item is stuck after so many seconds in which it computes less than so many, or
after so many whatever it does: other work on the machine makes it wait, but hardly for a tenth of a
second in three minutes.
"""
MEMORY = 300 << 20
"""Bytes above what the process had before."""
ROOM = 3 << 30
"""Bytes of address space, so that excessive requests fail and do not exhaust the machine."""
RUNS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.startfile",
    "subprocess.Popen",
    "pty.spawn",
)
CONNECTS = (
    "socket.connect",
    "socket.sendto",
    "socket.bind",
    "urllib.Request",
    "ftplib.",
    "smtplib.",
    "http.client.connect",
)
CHANGES: dict[str, tuple[tuple[int, int], ...]] = {
    **dict.fromkeys(("os.remove", "os.rmdir", "shutil.rmtree"), ((0, 1),)),
    **dict.fromkeys(("os.mkdir", "os.chmod"), ((0, 2),)),
    **dict.fromkeys(("os.chown", "os.utime"), ((0, 3),)),
    **dict.fromkeys(("os.truncate", "os.setxattr", "os.removexattr"), ((0, -1),)),
    **dict.fromkeys(("os.rename", "os.link"), ((0, 2), (1, 3))),
    "os.symlink": ((1, 2),),
}
"""What changes files without opening them: where in its arguments the names are, each with the
descriptor of the folder that it is relative to, -1 for none.
"""


TRIAL = (sys.executable, "-I", str(onnx.TRIAL))
"""The only program that may be started."""


class Late(BaseException):
    """The time is up; not an Exception, which readers turn into a line."""


class Executed(BaseException):
    """Something wanted to run, and was kept from it."""


@dataclass(frozen=True)
class Outcome:
    """How an item ended."""

    fault: str | None
    """One of `FAULTS`; None where all is well."""
    detail: str
    """What happened: "ok", "refused: why", "interrupted", or the fault in one line."""


class Watch:
    """An audit hook, asleep but within `armed`: executions, connections, and changes of files
    outside of ``own`` are noted, and prevented.

    Whoever starts a command may tell it to write anywhere, which root can. Then the answer is that
    of the system to a user who may not, and nothing is noted.
    """

    def __init__(self, own: Sequence[Path]) -> None:
        self.own = tuple(os.path.realpath(path) for path in own)
        self.found: list[str] = []
        self._told: tuple[str, ...] = ()
        self._armed = False
        sys.addaudithook(self._hear)

    @contextlib.contextmanager
    def armed(self, told: Sequence[Path] = ()) -> Iterator[None]:
        """
        Args:
            told: files or folders that the command is to write.
        """
        self.found.clear()
        self._told = tuple(os.path.realpath(path) for path in told)
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        # our own, which opens a file in OpenCV
        if event == "subprocess.Popen" and tuple(arguments[1][:3]) == TRIAL:
            return
        if event.startswith(RUNS) or (
            event.startswith(CONNECTS) and not self._is_local(event, arguments)
        ):
            self._note(event, arguments)
        elif event == "open":
            mode, flags = arguments[1], arguments[2]
            writes = bool(set(mode or "") & set("wax+")) or bool(
                (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if writes:
                self._changes(event, arguments, arguments[0])
        elif event in CHANGES:
            for name, folder in CHANGES[event]:
                self._changes(event, arguments, _place(arguments, name, folder))
        elif event in ("exec", "compile", "ctypes.dlopen") and any(
            place in str(arguments) for place in self.own
        ):
            self._note(event, arguments)

    def _changes(self, event: str, arguments: tuple[Any, ...], name: Any) -> None:
        # of one that is there nothing is made
        if self._owns(name) or (event == "os.mkdir" and os.path.isdir(name)):
            return
        place = os.path.realpath(os.fsdecode(name))
        above = event == "os.mkdir" and any(told.startswith(place + os.sep) for told in self._told)
        if above or self._is_told(place):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        self._note(event, arguments)

    def _is_told(self, place: str) -> bool:
        """Whether ``place`` is what the command was told to write, in it if that is a folder, or a
        hidden file beside it."""
        folder, name = os.path.split(place)
        beside = [os.path.dirname(told) for told in self._told] if name.startswith(".") else []
        return place in self._told or folder in (*self._told, *beside)

    def _is_local(self, event: str, arguments: tuple[Any, ...]) -> bool:
        address = arguments[1] if event.startswith("socket.") and len(arguments) > 1 else None
        return isinstance(address, tuple) and address[:1] == ("127.0.0.1",)

    def _owns(self, name: Any) -> bool:
        if isinstance(name, int) or name is None:
            return True
        place = os.path.realpath(os.fsdecode(name))
        return place == os.devnull or any(
            place == own or place.startswith(own + os.sep) for own in self.own
        )

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        self._armed = False  # what follows is noted once
        self.found.append(f"{event} {arguments}"[:200])
        raise Executed(self.found[-1])


def _place(arguments: tuple[Any, ...], name: int, folder: int) -> Any:
    """The name among ``arguments`` of an event, and its folder's before it where it is relative to
    a descriptor."""
    found = arguments[name]
    handle = arguments[folder] if 0 <= folder < len(arguments) else None
    if isinstance(found, int) or not isinstance(handle, int) or handle < 0:
        return found
    return os.path.join(os.readlink(f"/proc/self/fd/{handle}"), os.fsdecode(found))


def judged(
    work: Callable[[], Outcome],
    watch: Watch,
    seconds: float = SECONDS,
    *,
    interrupt: bool = False,
    told: Sequence[Path] = (),
) -> Outcome:
    """``work``, with limits on what it does, how long it computes, and how much memory it takes.

    Args:
        seconds: of processor time. With ``interrupt`` Ctrl-C is pressed after them, `PRESSED`
            times, every `GRACE` seconds.
        told: see `Watch.armed`.
    """
    times = iter([interrupt] * PRESSED)

    def late(*_: object) -> None:
        if next(times, False):
            os.kill(os.getpid(), signal.SIGINT)
        else:
            raise Late

    signal.signal(signal.SIGPROF, late)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = resident()
    reset_peak()
    signal.setitimer(signal.ITIMER_PROF, seconds, GRACE)
    try:
        with watch.armed(told):
            outcome = work()
    except Late:
        outcome = Outcome("hangs", f"more than {seconds:g} seconds")
    except Executed as error:
        outcome = Outcome("executions", str(error))
    except KeyboardInterrupt:
        outcome = Outcome(None, "interrupted")
    except BaseException as error:
        outcome = escaped(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if watch.found:  # also where the exception was swallowed
        return Outcome("executions", watch.found[0])
    taken = peak() - before
    if outcome.fault is None and taken > MEMORY:
        return Outcome("memory", f"{taken >> 20} MB")
    return outcome


def escaped(error: BaseException) -> Outcome:
    """An exception that nobody turned into a line."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame for frame in frames if "latentedit" in frame.filename or "/cli/" in frame.filename
    ] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    text = " ".join(str(error).split())[:160]
    if isinstance(error, MemoryError):
        return Outcome("memory", f"MemoryError at {place}")
    return Outcome("tracebacks", f"{type(error).__name__} at {place}: {text}")


def refusal(error: Error, path: Path) -> Outcome:
    """What a reader said of ``path``: one line that names it."""
    text = str(error)
    if "MemoryError" in text or "can't allocate" in text:
        return Outcome("memory", text[:160])
    if not text.isprintable() or len(text) > 1000 or path.name not in text:
        return Outcome(
            "messages", f"does not name the file, or no line for a terminal: {text[:160]!r}"
        )
    return Outcome(None, f"refused: {text[:200]}")


def command(arguments: Sequence[str]) -> Outcome:
    """A latentedit command in this process: it succeeds, or says in one line why it does not."""
    from latentedit.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments), prog_name="latentedit")
        except SystemExit as error:
            status = error.code
    said = err.getvalue()
    lines = [line for line in said.splitlines() if line]
    if "Traceback (most recent call last)" in said + out.getvalue():
        return Outcome("tracebacks", lines[-1][:200] if lines else "in the output")
    if status == 0:
        return Outcome(None, "ok")
    if status == 130 or (status == 1 and lines and lines[-1] == "Aborted!"):
        return Outcome(None, "interrupted")
    if (
        status == 1
        and lines
        and lines[-1].startswith("latentedit: ")
        and said.replace("\n", "").isprintable()
    ):
        return (
            Outcome("memory", lines[-1][:200])
            if "can't allocate" in said
            else Outcome(None, f"refused: {lines[-1][12:200]}")
        )
    if status == 2 and said.startswith("Usage: "):
        return Outcome(None, f"refused: {lines[-1][:200]}")
    return Outcome(
        "messages",
        f"status {status}, {lines[-1][:160]!r}" if lines else f"status {status} without a word",
    )


def resident() -> int:
    return _status("VmRSS")


def peak() -> int:
    return _status("VmHWM")


def reset_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) << 10


Item = Callable[[int], Outcome]
Heard = Callable[[int, Outcome], None]


def in_children(
    item: Item,
    numbers: Sequence[int],
    heard: Heard,
    *,
    own: Sequence[Path],
    until: Callable[[], bool],
) -> None:
    """Call ``item`` for the ``numbers`` in children, and tell ``heard`` how each ended, in order.

    ``item`` gives its outcome, most often by `judged` with the `Watch` in `current`.

    Args:
        own: folders that items may change.
        until: asked between items; the rest is left out once it is true.
    """
    left = list(numbers)
    while left and not until():
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _batch(item, left, writing, own)
        os.close(writing)
        try:
            left = _listen(child, reading, left, heard, until)
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it has started goes with it
                os.killpg(child, signal.SIGKILL)
            os.close(reading)


class Patience:
    """Tells what is stuck from what a busy machine lets wait, by the processor time of a group of
    processes.

    What waits for a program that it has started is not stuck while that one computes, so that all
    of them count.
    """

    def __init__(self, group: int) -> None:
        self._group = group
        self._begun = self._moved = time.monotonic()
        self._computed = group_time(group)

    def is_over(self) -> bool:
        """Whether they have done nothing for too long; to be asked every now and then."""
        now = time.monotonic()
        computed = group_time(self._group)
        # less than before where one has ended that nobody waited for
        if abs(computed - self._computed) >= TRACE:
            self._computed, self._moved = computed, now
        return now - self._moved > STILL or now - self._begun > WAIT


def group_time(group: int) -> float:
    """Seconds of processor time that the processes of a group have taken, and those that they have
    waited for."""
    ticks = 0
    for process in os.listdir("/proc"):
        if process.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{process}/stat") as file:
                # from the third on: the second may hold blanks
                facts = file.read().rpartition(")")[2].split()
                ticks += sum(int(fact) for fact in facts[11:15]) if int(facts[2]) == group else 0
    return ticks / os.sysconf("SC_CLK_TCK")


current: list[Watch] = []
"""The watch of this child process."""


def _batch(item: Item, numbers: Sequence[int], writing: int, own: Sequence[Path]) -> None:
    """What a child does; it never returns."""
    status = 1
    try:
        os.setpgid(0, 0)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        size = _status("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        current[:] = [Watch(own)]
        for number in numbers:
            outcome = item(number)
            os.write(writing, (json.dumps([number, outcome.fault, outcome.detail]) + "\n").encode())
        status = 0
    except BaseException:
        os.write(writing, (json.dumps([-1, "tracebacks", traceback.format_exc()]) + "\n").encode())
    finally:
        os._exit(status)


def _listen(
    child: int, reading: int, left: list[int], heard: Heard, until: Callable[[], bool]
) -> list[int]:
    """Hear a child out; returns the numbers that remain."""
    pending, patience = b"", Patience(child)
    stuck = stopped = False
    while True:
        if until():
            stopped = True
            break
        if not select.select([reading], [], [], 0.5)[0]:
            stuck = patience.is_over()
            if stuck:
                break
            continue
        patience = Patience(child)
        data = os.read(reading, 1 << 16)
        if not data:
            break
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            number, fault, detail = json.loads(line)
            if number < 0:
                raise RuntimeError(f"the campaign itself failed: {detail}")
            left = left[1:]
            heard(number, Outcome(fault, detail))
        if not left:  # not to wait for what it has started
            break
    if stuck or stopped:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.kill(child, signal.SIGKILL)  # also where it has not made its group yet
    status = os.waitpid(child, 0)[1]
    if stopped or not left:
        return []
    if stuck:
        heard(left[0], Outcome("hangs", "is stuck"))
    elif os.WIFSIGNALED(status):
        heard(left[0], Outcome("signals", signal.Signals(os.WTERMSIG(status)).name))
    else:
        heard(left[0], Outcome("signals", f"ended with status {os.WEXITSTATUS(status)}"))
    return left[1:]
