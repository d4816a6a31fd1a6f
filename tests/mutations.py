"""Reads a thousand damaged versions of a file; run as a child process with limited memory.

    python -m tests.mutations FILE KIND FOLDER COUNT

Prints one JSON line: how many were read, how many refused, and what went wrong: anything but a
one-line Error, a file that takes more than some seconds, or an attempt to execute, to write or to
reach the network.
"""

import io
import json
import os
import random
import re
import resource
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentedit.directions import load_direction
from latentedit.directions.imported import read_array
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_model
from latentedit.formats.projections import load_projections

MEMORY = 300 << 20
"""Bytes that reading may take beyond those of the program itself."""
SECONDS, WAIT = 5, 600
"""Seconds of processor time per file, and by the clock, as a busy machine is slower."""
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
    *(
        b"cos\nsystem\n",
        b"cbuiltins\neval\n",
        b"ios\nsystem\n",
        b"P1\n",
        b"Q",
        b"\x82\x01",
        b"PK\x05\x06",
        b".",
    ),
    *(
        b"\x93",
        b"R",
        b"b",
        b"\x81",
        b"\x92",
        b"o",
        b"\x94",
        b"(",
        b"t",
        b"\x85",
        b"q\xff",
        b"r\xff\xff\xff\x7f",
        b"2\x86" * 40,
    ),
    *(
        b"\x8a\xff",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"B\xff\xff\xff\x7f",
        b"\x00" * 8,
        b"\xff" * 8,
        b"(" * 200,
    ),
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


NONE = (float("nan"), float("inf"), -float("inf"))
ODD: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, 1e308, 5e-324, *NONE),
    *(
        "",
        " ",
        "x",
        "\x1b[31m",
        "\n",
        "\x00",
        "../../x",
        "=1+1",
        "é" * 50,
        "x" * 5000,
        "1e999",
        "nan",
        "0x10",
        "\uff11",
        "w",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        [1, 2, 3],
        [-1],
        ["x"],
        [[1]] * 9,
        {"x": 1},
        {"kind": "face"},
        {"eyes": None},
    ),
)
"""Values that a header, a cell or an option may have and none should."""
NUMBERS = tuple(
    np.array([value], dtype="<f4").tobytes() for value in (*NONE, 1e30, -1e30, 3.4e38, 1e-40, -0.0)
)


def with_payload(data: bytes, random: random.Random, canary: Path) -> bytes:
    """``data`` with instructions of a pickle that would make the file ``canary``."""
    command = f"touch {canary}".encode()
    code = b"cposix\nsystem\n(X" + len(command).to_bytes(4, "little") + command + b"tR"
    at = random.randrange(len(data) + 1)
    gone = random.choice([0, 0, len(code)])
    return data[:at] + code + random.choice([b"", b"0", b"."]) + data[at + gone :]


def with_numbers(data: bytes, random: random.Random, start: int = 0) -> bytes:
    """``data`` with one to three float32 that are no weights, from ``start`` on."""
    result = bytearray(data)
    for _ in range(random.randint(1, 3)):
        if len(result) - start < 4:
            break
        at = start + random.randrange((len(result) - start) // 4) * 4
        result[at : at + 4] = random.choice(NUMBERS)
    return bytes(result)


def in_archive(data: bytes, random: random.Random, canary: Path) -> bytes:
    """A zip of which one member has changed and every checksum is right; plain changes where it is
    none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
    except (zipfile.BadZipFile, OSError, ValueError):
        return mutated(data, random)
    if not members:
        return mutated(data, random)
    chosen, kind = random.randrange(len(members)), random.randrange(6)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # of two members of one name
        for number, (info, content) in enumerate(members):
            name = info.filename
            if number == chosen:
                if kind == 0:
                    continue
                if kind == 1:
                    name = random.choice(
                        [
                            "../x",
                            "/x",
                            "x" * 300,
                            "",
                            name + "/",
                            "\x1b[31m",
                            members[0][0].filename,
                        ]
                    )
                elif kind == 2 and name.endswith(("data.pkl", ".json")):
                    content = with_payload(content, random, canary)
                elif kind == 3:
                    content = with_numbers(content, random)
                elif kind == 4 and name.endswith(".json"):
                    content = in_json(content, random)
                else:
                    content = mutated(content, random)
            archive.writestr(
                zipfile.ZipInfo(name),
                content,
                random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
            )
    return buffer.getvalue()


def in_safetensors(data: bytes, random: random.Random) -> bytes:
    """A native file with a number in its tensors, or a value in its headers, that cannot be."""
    size = int.from_bytes(data[:8], "little")
    if random.random() < 0.4:
        return with_numbers(data, random, 8 + size)
    header = json.loads(data[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    if random.random() < 0.8 and "latentedit" in metadata:
        inside = json.loads(metadata["latentedit"])
        _change(inside, random)
        metadata["latentedit"] = json.dumps(inside)
    else:
        _change(header, random)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def in_json(data: bytes, random: random.Random) -> bytes:
    """JSON with a value that cannot be; or nested deeper than anybody nests."""
    if random.random() < 0.1:
        depth = random.choice([500, 5000, 100_000])
        return b"[" * depth + b"]" * depth
    try:
        lines = (
            [json.loads(line) for line in data.splitlines() if line.strip()]
            if data.count(b"\n{")
            else [json.loads(data)]
        )
    except (ValueError, UnicodeDecodeError):
        return mutated(data, random)
    if not lines:
        return mutated(data, random)
    chosen = random.randrange(len(lines))
    if not isinstance(lines[chosen], dict | list) or not lines[chosen] or random.random() < 0.1:
        lines[chosen] = random.choice(ODD)
    else:
        _change(lines[chosen], random)
    return "\n".join(json.dumps(line) for line in lines).encode()


def _change(value: Any, random: random.Random) -> None:
    """Change, remove or double something within a dictionary or list that is not empty."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = random.choice(keys)
    inner = value[key]
    if isinstance(inner, dict | list) and inner and random.random() < 0.7:
        _change(inner, random)
    elif random.random() < 0.15:
        del value[key]
    elif isinstance(value, dict) and random.random() < 0.05:
        value[str(random.choice(ODD))] = inner
    else:
        value[key] = random.choice(ODD)


def in_text(data: bytes, random: random.Random) -> bytes:
    """A CSV, TOML or the like of which one word, cell or number is another."""
    text = data.decode(errors="surrogateescape")
    words = list(re.finditer(r"[^\s,=\"\[\]]+", text))
    if not words or random.random() < 0.3:
        return mutated(data, random)
    word = random.choice(words)
    odd = random.choice(
        [
            "",
            '"',
            ",",
            ",,,,",
            "\r",
            "\ufeff",
            str(random.choice(ODD)),
            json.dumps(random.choice(ODD)),
            "[" * 5000,
        ]
    )
    return (text[: word.start()] + odd + text[word.end() :]).encode(errors="surrogateescape")


def variant(name: str, data: bytes, random: random.Random, canary: Path) -> bytes:
    """A damaged or hostile version of the file called ``name``: of its bytes, or of what its format
    knows."""
    ending = Path(name).suffix
    roll = random.random()
    if roll < 0.35:
        return mutated(data, random)
    if ending == ".safetensors":
        return in_safetensors(data, random)
    if data[:2] == b"PK":
        return in_archive(data, random, canary)
    if ending in (".pkl", ".pt", ".pth"):
        return with_payload(data, random, canary) if roll < 0.7 else with_numbers(data, random)
    if ending in (".json", ".jsonl"):
        return in_json(data, random)
    if ending in (".csv", ".toml"):
        return in_text(data, random)
    return with_numbers(data, random) if roll < 0.5 else mutated(data, random)


def _address_space() -> int:
    """Bytes of this process's address space, as Linux counts them."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main(file: str, kind: str, folder: str, count: str) -> None:
    torch.set_num_threads(1)
    print(json.dumps(outcomes(file, kind, folder, int(count))))
    sys.stdout.flush()
    os._exit(0)


def outcomes(file: str, kind: str, folder: str, count: int) -> dict[str, Any]:
    """What comes of ``count`` variants. Afterwards this process is watched, and has little
    memory."""
    read, data = READERS[kind], Path(file).read_bytes()
    target = Path(folder) / f"mutated{Path(file).suffix}"
    read(Path(file))  # imports what it needs before the watch begins
    wrong: list[str] = []
    armed = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not armed:
            return
        mode, flags = (arguments[1], arguments[2]) if event == "open" else ("", 0)
        writing = bool(set(mode or "") & set("wax+")) or bool(
            (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if (
            event.startswith(FORBIDDEN)
            or writing
            or (event == "exec" and "mutated" in str(arguments))
        ):
            wrong.append(f"{event} {arguments}"[:200])

    class Late(BaseException):
        """Not an Exception, which readers turn into a line."""

    def late(*_: object) -> None:
        raise Late(f"more than {SECONDS} seconds")

    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGVTALRM, late)
    most = _address_space() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    whole = refused = 0
    for number in range(count):
        target.write_bytes(mutated(data, random.Random(number)))
        signal.alarm(WAIT)
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        armed = True
        try:
            read(target)
            whole += 1
        except Error as error:
            refused += 1
            memory = "MemoryError" in str(error) or "allocate" in str(error)
            if (
                memory
                or not str(error).isprintable()
                or str(target) not in str(error)
                or len(str(error)) > 600
            ):
                wrong.append(f"{number}: {str(error)[:300]}")
        except BaseException as error:
            wrong.append(f"{number}: {type(error).__name__}: {str(error)[:300]}")
        finally:
            armed = False
            signal.alarm(0)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return {"read": whole, "refused": refused, "wrong": wrong}


if __name__ == "__main__":
    main(*sys.argv[1:])
