"""Reading pickles without executing anything from them.

A pickle is a program that calls functions by name. The unpickler here knows a short list of names, each mapped to
something that builds plain data, and refuses every other name. The source code that NVIDIA's files carry (``module_src``)
stays a string. Before it runs, the program is read through for sizes and depths that no network needs.
"""

import io
import mmap
import os
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch
from torch import Tensor

from latentedit.errors import Error

LARGEST = 4 << 30
"""Bytes; the largest official network file has 0.4 GB."""
LONGEST, DEEPEST, WIDEST = 5_000_000, 500, 1_000_000
"""Instructions; containers within containers; what a tuple holds when it is written out. Official files have some ten
thousand, about 30, and some hundred."""
REFUSED = ("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEXT_BUFFER", "READONLY_BUFFER")
"""Instructions that no network file needs."""
WITH_STORAGES = tuple(name for name in REFUSED if name != "BINPERSID")
"""The same for torch's own files, which refer to their storages so."""
WORK = 64 << 20
"""Bytes that functions may be given beyond eight times the pickle's own: a memory of one string is no licence to copy it."""
CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX")
INTEGERS = ("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4")
Shape = tuple[int, int, int]
"""Of an object: its depth, the things and the bytes in it when it is written out."""
FILLING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
"""The number that torch's older format begins with."""


class Sealed:
    """Base of the objects that a pickle gets to hold: it can neither set their attributes nor their state."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise Error("an object with a state that it cannot have")


class Builder(Sealed):
    """A function that a pickle may call."""

    __slots__ = ("_build",)
    _build: Callable[..., Any]

    def __init__(self, build: Callable[..., Any]) -> None:
        object.__setattr__(self, "_build", build)

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise Error("an attempt to change a function")


class Held(Sealed):
    """A tensor, or the storage of one, while a pickle is read."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Record(dict[str, Any]):
    """A pickled module as plain data: its attributes by name."""

    __slots__ = ("class_name",)

    def __init__(self, state: dict[str, Any], class_name: str) -> None:
        super().__init__(state)
        self.class_name = class_name

    __setstate__ = Sealed.__setstate__


def _record(meta: Any) -> Record:
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise Error("a persistent object without a state")
    name = meta.get("class_name")
    return Record(meta["state"], name if isinstance(name, str) else "")


def _storage(data: Any) -> Held:
    # torch.storage._load_from_bytes itself would unpickle without restriction.
    if not isinstance(data, bytes):
        raise Error("a tensor storage that is not bytes")
    check_legacy(io.BytesIO(data), len(data))
    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.storage.TypedStorage):
        raise Error("a tensor storage that holds something else")
    return Held(storage)


def check_legacy(stream: BinaryIO, size: int) -> bytes:
    """Read through torch's older format: five pickles (magic, protocol, system, objects, keys) and then numbers.

    Returns:
        The pickle of the objects.

    Raises:
        Error: another format, a program that `check_program` refuses, or more numbers than ``size`` bytes can hold.
    """
    objects = b""
    for index in range(5):
        start = stream.tell()
        check_program(stream, WITH_STORAGES, largest=None if index == 0 else size if index == 3 else 2**31)
        end = stream.tell()
        stream.seek(start)
        program = stream.read(end - start)
        if index == 0 and MAGIC not in program:
            raise Error("not a file of weights")
        objects = program if index == 3 else objects
    return objects


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Held:
    if not isinstance(storage, Held) or not isinstance(storage.value, torch.storage.TypedStorage):
        raise Error("a tensor without a storage")
    whole = [offset, *size, *stride]
    if len(size) != len(stride) or len(size) > 8 or not all(isinstance(n, int) and 0 <= n < 2**40 for n in whole):
        raise Error("a tensor of an impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.value._size():
        raise Error("a tensor that claims more numbers than its storage has")
    return Held(torch._utils._rebuild_tensor_v2(storage.value, offset, size, stride, False, OrderedDict()))


def _parameter(data: Any, *_: Any) -> Held:
    if not isinstance(data, Held) or not isinstance(data.value, Tensor):
        raise Error("a parameter that is not a tensor")
    return data


class TensorflowNetwork(dict[str, Any]):
    """A pickled TensorFlow network as plain data: its recorded state."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise Error("a TensorFlow network without a state")
        self.update(state)


class NumberType:
    """Stands for ``numpy.dtype``: numbers alone, never objects or records."""

    __slots__ = ("value",)

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or len(code) > 8 or np.dtype(code).kind not in "biuf":
            raise Error("an array of anything but numbers")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise Error("an array of anything but numbers")
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class Array:
    """Stands for a numpy array while it is read; ``value`` is the real one."""

    __slots__ = ("value",)
    value: "np.ndarray[Any, Any]"

    def __init__(self) -> None:
        self.value = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if isinstance(data, str):  # written by Python 2
            data = data.encode("latin1")
        if not isinstance(kind, NumberType) or not isinstance(data, bytes) or not isinstance(shape, tuple):
            raise Error("an array of an unexpected kind")
        self.value = np.frombuffer(data, dtype=kind.value).reshape(shape, order="F" if fortran else "C")


def _array(*_: Any) -> Array:
    return Array()


def _array_of(data: Any, kind: Any, shape: Any, order: Any = "C") -> Array:
    """As pickle protocol 5 writes arrays."""
    array = Array()
    array.__setstate__((1, shape, kind, order == "F", bytes(data) if isinstance(data, bytearray) else data))
    return array


def _set(items: Any = ()) -> frozenset[str]:
    """torch's modules name their buffers in sets."""
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise Error("a set of anything but words")
    return frozenset(items)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Error("text in an unexpected encoding")
    return text.encode("latin1")


def _name_of_ndarray(*_: Any) -> Any:
    raise Error("an array built in an unexpected way")


def _scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, NumberType) or not isinstance(data, bytes):
        raise Error("a numpy scalar of an unexpected kind")
    return np.frombuffer(data, dtype=kind.value, count=1)[0]


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Builder(_record),
    ("torch._utils", "_rebuild_parameter"): Builder(_parameter),
    ("torch._utils", "_rebuild_tensor_v2"): Builder(_tensor),
    ("torch.storage", "_load_from_bytes"): Builder(_storage),
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy.core.multiarray", "scalar"): Builder(_scalar),
    ("numpy._core.multiarray", "scalar"): Builder(_scalar),
    ("numpy.core.multiarray", "_reconstruct"): Builder(_array),
    ("numpy._core.multiarray", "_reconstruct"): Builder(_array),
    ("numpy.core.numeric", "_frombuffer"): Builder(_array_of),
    ("numpy._core.numeric", "_frombuffer"): Builder(_array_of),
    ("builtins", "set"): Builder(_set),
    ("__builtin__", "set"): Builder(_set),
    ("numpy", "ndarray"): Builder(_name_of_ndarray),
    ("numpy", "dtype"): Builder(NumberType),
    ("_codecs", "encode"): Builder(_encode),
    ("dnnlib.tflib.network", "Network"): TensorflowNetwork,
    ("dnnlib.util", "EasyDict"): dict,
    ("dnnlib", "EasyDict"): dict,
}
"""Every name that a file may use, and what is called in its place."""


class RestrictedUnpickler(pickle.Unpickler):
    """Knows the names in `ALLOWED` and refuses all others by name."""

    network: type[TensorflowNetwork] | None = None

    def find_class(self, module: str, name: str) -> Any:
        found = ALLOWED.get((module, name))
        if found is None:
            raise Error(f"the pickle asks for {module[:80]}.{name[:80]}, which is not among the names that are safe to read")
        if found is not TensorflowNetwork:
            return found
        if self.network is None:  # one of its own, as a pickle may try to change the classes that it is given
            self.network = type("TensorflowNetwork", (TensorflowNetwork,), {"__slots__": ()})
        return self.network

    def persistent_load(self, pid: Any) -> Any:
        raise Error("the pickle refers to objects outside itself")


def check_program(stream: BinaryIO, refused: tuple[str, ...] = REFUSED, largest: int | None = 2**63 - 1) -> None:
    """Read a pickle's instructions without following them.

    Args:
        largest: whole number that may occur; None lets nothing but one number through.

    Raises:
        Error: one of those ``refused``, too many of them, containers nested too deeply, tuples of the same tuples again and
            again, or a place in the table of objects (which the unpickler allocates) far beyond their number.
    """
    stack: list[Shape] = []
    marks: list[int] = []
    memo: dict[int, Shape] = {}
    work = read = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if name in refused:
            raise Error(f"the pickle has the instruction {name}, which no network file needs")
        if count > LONGEST:
            raise Error(f"more than {LONGEST} instructions")
        if largest is None and name not in ("PROTO", "FRAME", "LONG1", "STOP"):
            raise Error("not a file of weights")
        if largest is not None and isinstance(argument, int) and name in INTEGERS and abs(argument) > largest:
            raise Error("a number far larger than the file")
        if isinstance(argument, bytes | bytearray | str):
            read += len(argument)
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(memo) if name == "MEMOIZE" else argument
            if not isinstance(place, int) or not 0 <= place <= count + 1:
                raise Error(f"a reference to the object number {str(place)[:20]} of {count}")
            memo[place] = stack[-1]
            continue
        before = list(opcode.stack_before)
        taken: list[Shape] = []
        if name == "MARK":
            marks.append(len(stack))
            continue
        if name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
            continue
        if pickletools.markobject in before:
            start = marks.pop()
            taken = stack[start:]
            del stack[start:]
            before = before[: before.index(pickletools.markobject)]
        if len(before) > len(stack) - (marks[-1] if marks else 0):
            raise Error("an instruction without its objects")
        for _ in before:
            taken.insert(0, stack.pop())
        if name in ("GET", "BINGET", "LONG_BINGET"):
            made = memo.get(argument if isinstance(argument, int) else -1, (0, 1, 0))
        elif name == "DUP":
            made = taken[0]
        elif name in FILLING:
            made = max(taken[0][0], 1 + max((shape[0] for shape in taken[1:]), default=-1)), taken[0][1], taken[0][2]
        else:
            length = len(argument) if isinstance(argument, bytes | bytearray | str) else 0
            given = length + sum(shape[2] for shape in taken)
            if name in CALLS:
                work, given = work + given, 0
                if work > 8 * read + WORK:
                    raise Error("the same data given to functions again and again")
            made = 1 + max((shape[0] for shape in taken), default=-1), 1 + sum(shape[1] for shape in taken), given
        if made[0] > DEEPEST:
            raise Error(f"containers nested more than {DEEPEST} deep")
        if made[1] > WIDEST and name not in FILLING:
            raise Error(f"tuples within one another that hold more than {WIDEST} things")
        stack += [made] * len(opcode.stack_after)


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """The contents of a pickle as plain data.

    Raises:
        Error: too large, damaged, or asking for a name that is not allowed.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise Error(f"larger than {LARGEST >> 30} GiB")
        # Mapped, a read beyond the end is cut off, where a file would first allocate what was asked for.
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            stream: Any = view
            check_program(stream)
            view.seek(0)
            return RestrictedUnpickler(stream, encoding="latin1").load()
    except Error as error:
        raise Error(f"{path}: {error}") from error
    except Exception as error:  # a hostile or damaged pickle can raise anything
        text = (str(error) or type(error).__name__).splitlines()[0][:160]
        raise Error(f"{path}: not a network pickle, or damaged ({text})") from error
