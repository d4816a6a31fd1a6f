"""Networks in ONNX files: their structure is checked before OpenCV opens them, which takes what
they say for true.

The format is that of protocol buffers: a message is a row of fields, each with its number, its wire
type (a varint, 8 or 4 bytes, or a length and so many bytes) and its value. The numbers of fields
below are those of ONNX's ``onnx.proto``.
"""

import math
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from latentedit.errors import Error, FormatError, quoted, reason
from latentedit.io.budget import Budget, file_size

LARGEST = (2 << 30) - 1
"""Bytes of a protocol buffer."""
DEEPEST = 30
"""Messages within messages; a graph takes three, and one within an operation three more."""
NODES = 20_000
"""Operations of a network; the largest classifiers have some thousand."""
NUMBERS = 1 << 26
"""Largest number of values in an input or output that a network declares."""
ROOM = 300 << 20
COPIES = 4
PER_PIXEL = 1 << 10
"""Bytes that a network may take, beside so many times those of its file, and those for each pixel
of a large picture. Published classifiers take three times their file and 10 to 70 MB at 224 px, 0.2
to 1.4 KB a pixel.
"""
COMPUTED = 30_000_000
SIMPLEST = 100_000
"""Computations for each pixel; the largest published classifiers take a third of that. Nor may
there be more than bytes in the file, but so many in small ones: published networks take a twentieth
of that, as every weight is used about once a place.
"""
TRIAL = Path(__file__).with_name("onnx_trial.py")
PATIENCE = 600
"""Seconds by the clock for a trial, which has a limit of processor time."""
PLACE = re.compile(r"OpenCV\(\S+\) \S+ error: |\(-\d+:[^)]*\)|in function '[^']*'")
"""What OpenCV's messages say of its own source."""
SHAPE = 8
"""Numbers of a shape at most; OpenCV's own limit is near."""
VARINT = 0
LONG = 1
BYTES = 2
SHORT = 5
"""Wire types."""
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        14: "type",
        15: "type",
        22: "sparse",
        23: "sparse",
    },
    "value": {2: "type"},
    "type": {1: "array", 4: "sequence", 5: "map", 8: "array", 9: "sequence"},
    "sequence": {1: "type"},
    "map": {2: "type"},
    "array": {2: "shape"},
    "shape": {1: "dimension"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "dimension": {},
}
"""The fields of each message that are messages themselves."""
ITEM = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""Bytes of a number of a tensor, by the kind of its numbers."""
HOLDS = {1: 4, 2: 5, 3: 5, 4: 5, 5: 5, 6: 5, 7: 7, 9: 5, 10: 5, 11: 10, 12: 11, 13: 11, 16: 5}
"""The field with the numbers of a tensor, by the kind of its numbers, where they are not raw."""
TEXTS = 8
"""The kind of tensors of texts."""
ROWS = {1: 0, 4: 4, 5: 0, 7: 0, 10: 8, 11: 0}
"""Fields of a tensor that are rows of numbers, and the bytes of one of these; 0 of a varint."""
DIMENSIONS = 1
KIND = 2
RAW = 9
EXTERNAL = 13
LOCATION = 14
"""Further fields of a tensor."""


@dataclass
class _Message:
    """What has been read of a message."""

    kind: str
    end: int
    counts: dict[int, int] = field(default_factory=dict)
    """How many numbers each row of numbers has; of raw data, bytes."""
    varints: dict[int, list[int]] = field(default_factory=dict)
    """The first varints of each field."""
    product: int = 1
    """For a shape: the number of values in an array of it, as far as its dimensions are known."""


def check_onnx(path: str | os.PathLike[str]) -> None:
    """See that the file ``path`` is a network in the format of ONNX, and holds everything that it
    says it holds.

    Raises:
        Error: no such file, no such network, damaged, too large, or one with weights in other
            files.
    """
    if not file_size(path, LARGEST):
        raise FormatError("not an ONNX network: the file is empty", path=path)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Reader(data).read()
    except Error as error:
        raise FormatError(f"not an ONNX network, or damaged ({error})", path=path) from error
    except OSError as error:
        raise FormatError(f"not a readable file ({reason(error)})", path=path) from error


def read_onnx(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int],
    outputs: Mapping[str, int] | None = None,
) -> Any:
    """Return the network in the file ``path``, as OpenCV's `cv2.dnn.Net`, after a trial in a
    process of its own.

    Args:
        shape: C, H, W of the pictures that it will be given, by `run`.
        outputs: how many numbers it must give, by the names of outputs; not looked at if None.

    Raises:
        Error: as `check_onnx`; or OpenCV does not know its operations, crashes over them, or needs
            more than for any real network.
    """
    try_onnx(path, shape, outputs)
    with silent():
        try:
            return cv2.dnn.readNetFromONNX(os.fspath(path))
        except cv2.error as error:
            raise FormatError(
                f"OpenCV cannot read it as an ONNX network ({why(str(error))})", path=path
            ) from error


def try_onnx(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int],
    outputs: Mapping[str, int] | None = None,
) -> None:
    """See that the file can be opened and given a picture; arguments and errors as of
    `read_onnx`."""
    file_size(path, LARGEST)
    facts = os.stat(path)
    known = (
        os.path.abspath(path),
        facts.st_size,
        facts.st_mtime_ns,
        shape,
        tuple((outputs or {}).items()),
    )
    if known in _tried:
        return

    check_onnx(path)
    _try(path, shape, outputs or {})
    _tried.add(known)


_tried: set[Any] = set()
"""Files and shapes that are known to be well."""


def trial(
    path: str | os.PathLike[str], shape: tuple[int, int, int], outputs: Mapping[str, int]
) -> list[str]:
    """Return the command line of a trial, with what the network may take."""
    pixels = shape[1] * shape[2]
    size = os.path.getsize(path)
    computed = min(COMPUTED, max(SIMPLEST, size)) * max(pixels, 4096)
    limits = (max(ROOM, PER_PIXEL * pixels) + COPIES * size, computed)
    words = [
        *(str(number) for number in (*shape, *limits)),
        *(str(word) for pair in outputs.items() for word in pair),
    ]
    return [sys.executable, "-I", str(TRIAL), os.path.abspath(path), *words]


def _try(
    path: str | os.PathLike[str], shape: tuple[int, int, int], outputs: Mapping[str, int]
) -> None:
    try:
        done = subprocess.run(
            trial(path, shape, outputs),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FormatError(f"OpenCV cannot be tried on it ({reason(error)})", path=path) from error

    if done.returncode:
        said = done.stdout.decode(errors="replace").strip().splitlines()
        text = why(said[-1]) if said else "it crashes, or takes too long"
        raise FormatError(
            f"OpenCV cannot read it as an ONNX network for pictures of {shape[2]} x {shape[1]} "
            f"pixels ({text})",
            path=path,
        )


def run(path: str | os.PathLike[str], network: Any, picture: Any) -> Any:
    """Return what the ``network`` from ``path`` gives for a ``picture`` float32 [1, C, H, W] of the
    shape that it was read for."""
    with silent():
        try:
            network.setInput(picture)
            return network.forward()
        except cv2.error as error:
            raise FormatError(
                f"fails on a picture of {picture.shape[3]} pixels ({why(str(error))})", path=path
            ) from error


def why(text: str) -> str:
    """Return what OpenCV says of a failure, without the places in its source."""
    return reason(ValueError(" ".join(PLACE.sub("", text).split()) or "no reason given"))


@contextmanager
def silent() -> Iterator[None]:
    """Keeps OpenCV from writing to the terminal what its exceptions say anyway."""
    logging = cv2.utils.logging
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)


class _Reader:
    """Goes once through all messages; nothing is built but what the innermost ones are about."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._budget = Budget(len(data))
        self._nodes = 0
        self._graphs = 0

    def read(self) -> None:
        open_messages = [_Message("model", len(self._data))]
        while open_messages:
            message = open_messages[-1]
            if self._at < message.end:
                inner = self._field(message)
                if inner is not None:
                    open_messages.append(inner)
            else:
                open_messages.pop()
                self._close(message, open_messages[-1] if open_messages else None)
            if len(open_messages) > DEEPEST:
                raise FormatError(f"messages nested more than {DEEPEST} deep")

        if not self._graphs:
            raise FormatError("no graph in it")

    def _field(self, message: _Message) -> _Message | None:
        """Read a field of ``message``; the message that begins there, if one does."""
        self._budget.take("instructions")
        if not self._at & 1023:
            self._budget.check_time()

        number, wire = divmod(self._varint(message.end), 8)
        if wire == VARINT:
            self._number(message, number, self._varint(message.end))
        elif wire == BYTES:
            length = self._varint(message.end)
            if length > message.end - self._at:
                raise FormatError(
                    f"a field of {length} bytes where {message.end - self._at} are left"
                )

            inner = MESSAGES[message.kind].get(number)
            if inner is not None:
                return self._entered(inner, self._at + length)

            self._block(message, number, length)
            self._at += length
        elif wire in (LONG, SHORT):
            length = 8 if wire == LONG else 4
            if length > message.end - self._at:
                raise FormatError("a number that is cut off")
            self._count(message, number, 1)
            self._at += length
        else:
            raise FormatError(f"a field of wire type {wire}")

        return None

    def _entered(self, kind: str, end: int) -> _Message:
        if kind == "node":
            self._nodes += 1
            if self._nodes > NODES:
                raise FormatError(f"more than {NODES} operations")
        elif kind == "graph":
            self._graphs += 1
        return _Message(kind, end)

    def _number(self, message: _Message, field_number: int, value: int) -> None:
        self._count(message, field_number, 1)
        kept = message.varints.setdefault(field_number, [])
        if len(kept) <= SHAPE:
            kept.append(value)

    def _count(self, message: _Message, field_number: int, amount: int) -> None:
        message.counts[field_number] = message.counts.get(field_number, 0) + amount

    def _block(self, message: _Message, field_number: int, length: int) -> None:
        """Bytes that are no message: of a tensor its numbers."""
        if message.kind != "tensor":
            return
        if field_number == EXTERNAL:
            raise FormatError("weights in another file; save the network as one file")

        if field_number == DIMENSIONS:
            end = self._at + length
            start = self._at
            while self._at < end:
                self._number(message, field_number, self._varint(end))
                self._budget.take("instructions")
            self._at = start
        elif field_number in ROWS:
            self._count(message, field_number, self._packed(ROWS[field_number], length))
        else:
            self._count(message, field_number, length)

    def _packed(self, item: int, length: int) -> int:
        """Return how many numbers are in a row of so many bytes."""
        if item:
            if length % item:
                raise FormatError(f"a row of {length} bytes of numbers of {item}")
            return length // item
        # The last byte of a varint has no highest bit.
        row = np.frombuffer(self._data[self._at : self._at + length], dtype=np.uint8)
        return int(np.count_nonzero(row < 128))

    def _close(self, message: _Message, outer: _Message | None) -> None:
        if self._at != message.end:
            raise FormatError("a field that goes on after its message")
        if message.kind == "tensor":
            self._check_tensor(message)
        elif message.kind == "dimension" and outer is not None:
            size = message.varints.get(1, [1])[-1]
            outer.product *= max(size, 1)
            if outer.product > NUMBERS:
                raise FormatError(f"an input or output of more than {NUMBERS} numbers")

    def _check_tensor(self, message: _Message) -> None:
        if message.varints.get(LOCATION, [0])[-1]:
            raise FormatError("weights in another file; save the network as one file")

        shape = message.varints.get(DIMENSIONS, [])
        if len(shape) > SHAPE:
            raise FormatError(f"a tensor of more than {SHAPE} dimensions")

        kind = message.varints.get(KIND, [0])[-1]
        if kind == TEXTS:
            return
        if kind not in ITEM:
            raise FormatError(f"a tensor of numbers of the kind {quoted(kind)}")

        count = math.prod(shape)
        raw = message.counts.get(RAW, 0)
        held = raw // ITEM[kind] if raw else message.counts.get(HOLDS[kind], 0)
        if count != held:
            raise FormatError(f"a tensor of {quoted(count)} numbers of which the file has {held}")

    def _varint(self, end: int) -> int:
        value = shift = 0
        while True:
            if self._at >= end:
                raise FormatError("a number that is cut off")
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value

            shift += 7
            if shift > 63:
                raise FormatError("a number of more than 64 bits")
