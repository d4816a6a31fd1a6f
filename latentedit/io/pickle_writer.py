"""Writing pickles of plain values, tensors, and objects of classes that are not here: instruction
by instruction.

Python's own pickler can only name what it can import. The programs written here use protocol 3.
"""

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from latentedit.io.torch_files import MAGIC

PROTOCOL = 1001
"""Version of torch's older format."""


@dataclass(frozen=True)
class Name:
    """Something that the reader of a pickle finds under this name in a module of its own."""

    module: str
    name: str


@dataclass
class Instance:
    """An object that the reader makes of its class ``kind`` without calling ``__init__``, and gives
    ``state``."""

    kind: Name
    state: Mapping[str, Any] = field(default_factory=dict)


DICT = Name("collections", "OrderedDict")
TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
PARAMETER = Name("torch._utils", "_rebuild_parameter")
STORAGE = Name("torch.storage", "_load_from_bytes")


def write_pickle(stream: BinaryIO, value: Any) -> None:
    """Write ``value``: None, booleans, numbers, words, bytes, lists, tuples, dictionaries, tensors
    (float32), `Instance`s.

    An `Instance` that occurs twice is written once. An ``nn.Parameter`` stays one.

    Raises:
        TypeError: a value of another kind.
    """
    stream.write(b"\x80\x03")
    _Writer(stream).write(value)
    stream.write(b".")


class _Writer:
    def __init__(self, stream: BinaryIO) -> None:
        self.put = stream.write
        self.places: dict[int, int] = {}
        """Places in the table of objects of the instances that were written."""

    def write(self, value: Any) -> None:
        if value is None:
            self.put(b"N")
        elif isinstance(value, bool):
            self.put(b"\x88" if value else b"\x89")
        elif isinstance(value, int):
            self.put(b"J" + struct.pack("<i", value))
        elif isinstance(value, float):
            self.put(b"G" + struct.pack(">d", value))
        elif isinstance(value, str):
            data = value.encode()
            self.put(b"X" + struct.pack("<I", len(data)) + data)
        elif isinstance(value, bytes):
            self.put(b"B" + struct.pack("<I", len(value)))
            self.put(value)
        elif isinstance(value, Tensor):
            self.tensor(value)
        elif isinstance(value, Instance):
            self.instance(value)
        elif isinstance(value, OrderedDict):
            self.call(DICT)
            self.items(value)
        elif isinstance(value, Mapping):
            self.put(b"}")
            self.items(value)
        elif isinstance(value, list):
            self.put(b"](")
            for item in value:
                self.write(item)
            self.put(b"e")
        elif isinstance(value, tuple):
            self.put(b"(")
            for item in value:
                self.write(item)
            self.put(b"t")
        else:
            raise TypeError(f"a value that is not written: {type(value).__name__}")

    def items(self, value: Mapping[str, Any]) -> None:
        self.put(b"(")
        for key, item in value.items():
            self.write(key)
            self.write(item)
        self.put(b"u")

    def name(self, name: Name) -> None:
        self.put(f"c{name.module}\n{name.name}\n".encode())

    def call(self, function: Name, *arguments: Any) -> None:
        self.name(function)
        self.write(arguments)
        self.put(b"R")

    def instance(self, value: Instance) -> None:
        if id(value) in self.places:
            self.put(b"j" + struct.pack("<I", self.places[id(value)]))
            return
        place = self.places[id(value)] = len(self.places)
        self.name(value.kind)
        self.put(b")\x81r" + struct.pack("<I", place))
        self.write(dict(value.state))
        self.put(b"b")

    def tensor(self, value: Tensor) -> None:
        if isinstance(value, nn.Parameter):
            self.name(PARAMETER)
            self.put(b"(")
            self.tensor(value.data)
            self.write(value.requires_grad)
            self.write(OrderedDict())
            self.put(b"tR")
            return

        plain = value.detach().to("cpu", torch.float32).contiguous()
        self.name(TENSOR)
        self.put(b"(")
        self.call(STORAGE, _storage(plain))
        self.write(0)
        self.write(tuple(plain.shape))
        self.write(plain.stride())
        self.write(False)
        self.write(OrderedDict())
        self.put(b"tR")


def _storage(tensor: Tensor) -> bytes:
    """Return the numbers of ``tensor`` in torch's older format, as its storages are pickled."""
    system = {
        "protocol_version": PROTOCOL,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    stream = io.BytesIO()
    for value in (int.from_bytes(MAGIC, "little"), PROTOCOL, system):
        stream.write(pickle.dumps(value, 2))
    reference = _Reference(stream, 2)
    reference.count = tensor.numel()
    reference.dump(_Reference)
    stream.write(pickle.dumps(["0"], 2))
    stream.write(struct.pack("<q", tensor.numel()))
    stream.write(tensor.numpy().astype("<f4", copy=False).tobytes())
    return stream.getvalue()


class _Reference(pickle.Pickler):
    """Writes a reference to the storage "0", whatever is dumped."""

    count: int

    def persistent_id(self, obj: Any) -> Any:
        return (
            ("storage", torch.FloatStorage, "0", "cpu", self.count, None)
            if obj is _Reference
            else None
        )
