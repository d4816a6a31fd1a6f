"""Reads a thousand damaged versions of a file; run as a child process with limited memory.

    python -m tests.mutations FILE KIND FOLDER COUNT

Prints one JSON line: how many were read, how many refused, and what went wrong: anything but a one-line Error, a file that
takes more than some seconds, or an attempt to execute, to write or to reach the network.
"""

import json
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from latentedit.directions import load_direction
from latentedit.directions.imported import read_array
from latentedit.errors import Error
from latentedit.foreign.projections import load_projections
from latentedit.latents import load_latent
from latentedit.models import load_model

MEMORY = 3 << 30
SECONDS = 20
READERS: dict[str, Callable[[Path], Any]] = {
    "model": load_model,
    "latent": load_latent,
    "latents": load_projections,
    "direction": lambda path: load_direction(str(path)),
    "array": read_array,
}
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "os.remove",
    "os.rename",
    "ctypes.dlopen",
)
WORDS = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"ios\nsystem\n", b"P1\n", b"Q", b"\x82\x01", b"PK\x05\x06", b"."),
    *(b"\x93", b"R", b"b", b"\x81", b"\x92", b"o", b"\x94", b"(", b"t", b"\x85", b"q\xff", b"r\xff\xff\xff\x7f", b"2\x86" * 40),
    *(b"\x8a\xff", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"\x00" * 8, b"\xff" * 8, b"(" * 200),
)
"""Instructions of pickles, and bytes that are unusual numbers."""


def mutated(data: bytes, random: random.Random) -> bytes:
    """``data`` with one to four flips, cuts, insertions, repetitions or words."""
    result = bytearray(data)
    # Half of them near the beginning or the end, where headers and directories are.
    for _ in range(random.randint(1, 4)):
        if not result:
            return bytes(result)
        near = random.choice([len(result), min(len(result), 600)])
        at = random.randrange(near)
        at = at if random.random() < 0.7 else len(result) - 1 - at
        kind = random.randrange(7)
        if kind == 0:
            result[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            result[at] = random.randrange(256)
        elif kind == 2:
            del result[at:]
        elif kind == 3:
            del result[at : at + random.randrange(1, 64)]
        elif kind == 4:
            end = at + random.randrange(1, 64)
            result[at:at] = result[at:end]
        elif kind == 5:
            word = random.choice(WORDS)
            result[at : at + random.choice([0, len(word)])] = word
        else:
            result[at : at + 8] = random.randrange(2**64).to_bytes(8, "little")
    return bytes(result)


def main(file: str, kind: str, folder: str, count: str) -> None:
    torch.set_num_threads(1)
    read, data = READERS[kind], Path(file).read_bytes()
    target = Path(folder) / f"mutated{Path(file).suffix}"
    read(Path(file))  # imports what it needs before the watch begins
    wrong: list[str] = []
    armed = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not armed:
            return
        mode, flags = (arguments[1], arguments[2]) if event == "open" else ("", 0)
        writing = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if event.startswith(FORBIDDEN) or writing or (event == "exec" and "mutated" in str(arguments)):
            wrong.append(f"{event} {arguments}"[:200])

    class Late(BaseException):
        """Not an Exception, which readers turn into a line."""

    def late(*_: object) -> None:
        raise Late(f"more than {SECONDS} seconds")

    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    whole = refused = 0
    for number in range(int(count)):
        target.write_bytes(mutated(data, random.Random(number)))
        signal.alarm(SECONDS)
        armed = True
        try:
            read(target)
            whole += 1
        except Error as error:
            refused += 1
            memory = "MemoryError" in str(error) or "allocate" in str(error)
            if memory or not str(error).isprintable() or str(target) not in str(error) or len(str(error)) > 600:
                wrong.append(f"{number}: {str(error)[:300]}")
        except BaseException as error:
            wrong.append(f"{number}: {type(error).__name__}: {str(error)[:300]}")
        finally:
            armed = False
            signal.alarm(0)
    print(json.dumps({"read": whole, "refused": refused, "wrong": wrong}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
