"""torch's files (``.pt``, ``.pth``), read here alone: tensors and plain values, and nothing else.

There are two layouts: an archive with a pickle and a member for every storage, and an older one of
five pickles and then the numbers. torch's own loader executes nothing from them either, but it
believes what they say. It gives tensors that have no storage what memory held before, and deep ones
crash the interpreter. So no file goes to it.
"""

import io
import math
import mmap
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from latentedit.errors import Error, FormatError, quoted, reason, shown
from latentedit.io.budget import Budget, check_things, file_size, opened_zip
from latentedit.io.pickle_programs import WITH_STORAGES, Builder, Sealed, check_program

MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
"""The number that torch's older format begins with."""

KINDS = {
    "UntypedStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
}
"""Type of the numbers in a storage, by the name of its class."""


class Held(Sealed):
    """A tensor while a pickle is read."""

    __slots__ = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value


def held_bytes(value: Any) -> int:
    return value.value.nbytes if isinstance(value, Held) else 0


class Kind(Sealed):
    """Stands for a class of storages."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class Storage(Sealed):
    """Numbers of one kind, which tensors are views of."""

    __slots__ = ("count", "dtype", "numbers")

    def __init__(self, dtype: torch.dtype, count: int, numbers: Tensor) -> None:
        self.dtype = dtype
        self.count = count
        self.numbers = numbers
        """Their bytes."""


class Options(dict[str, Any]):
    """Stands for an ``argparse.Namespace``: the options of a training, beside its weights."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise FormatError("options without a state")
        self.update(state)


def build_tensor(
    budget: Budget, storage: Any, offset: Any, size: Any, stride: Any, *_: Any
) -> Held:
    """Return a view of ``storage`` that has no more numbers than that."""
    if not isinstance(storage, Storage):
        raise FormatError("a tensor without a storage")
    if not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise FormatError("a tensor of an impossible shape")

    whole = (offset, *size, *stride)
    if (
        len(size) != len(stride)
        or len(size) > 8
        or not all(type(n) is int and 0 <= n < 2**40 for n in whole)
    ):
        raise FormatError("a tensor of an impossible shape")
    if math.prod(max(n, 1) for n in size) > max(storage.count, 2**20):
        raise FormatError("a tensor that claims more numbers than its storage has")

    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= storage.count or count > storage.count):
        raise FormatError("a tensor that claims more numbers than its storage has")

    budget.take("tensors")
    budget.take("bytes", count * storage.dtype.itemsize)
    empty = torch.empty(0, dtype=storage.dtype)
    if not count:
        return Held(empty.reshape(size))
    return Held(empty.set_(storage.numbers.untyped_storage(), offset, size, stride))


def _build_from_type(budget: Budget, function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """Tensors with attributes of their own, which are left out."""
    if not isinstance(function, Builder) or not isinstance(arguments, tuple):
        raise FormatError("a tensor built in an unexpected way")
    return function(*arguments)


def same_tensor(data: Any, *_: Any) -> Held:
    """Return what makes a parameter of a tensor."""
    if not isinstance(data, Held):
        raise FormatError("a parameter that is not a tensor")
    return data


def _without_storage(*_: Any) -> Any:
    # torch gives such a tensor what memory held before.
    raise FormatError("a tensor without a storage")


def _size(numbers: Any = ()) -> tuple[Any, ...]:
    if not isinstance(numbers, list | tuple):
        raise FormatError("a size that is not one")
    return tuple(numbers)


def _device(*words: Any) -> str:
    return ":".join(str(word) for word in words if isinstance(word, str | int))[:40]


BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): build_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): build_tensor,
    ("torch._tensor", "_rebuild_from_type_v2"): _build_from_type,
}
"""Functions that take from the budget, which is their first argument."""

NAMES: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_parameter"): Builder(same_tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): Builder(same_tensor),
    ("torch.nn.parameter", "Parameter"): Builder(_without_storage),
    ("torch", "Tensor"): Builder(_without_storage),
    ("torch", "Size"): Builder(_size),
    ("torch", "device"): Builder(_device),
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): dict,
    **{("torch", name): Kind(dtype) for name, dtype in KINDS.items()},
    ("torch.storage", "UntypedStorage"): Kind(torch.uint8),
    **{("torch", str(dtype).removeprefix("torch.")): str(dtype) for dtype in KINDS.values()},
}
"""Every other name that a file may use, and what stands for it."""


class Reader(pickle.Unpickler):
    """Builds tensors and plain values; ``storages`` are those that the pickle speaks of."""

    def __init__(
        self, program: bytes, budget: Budget, numbers: Callable[[str, int], Tensor]
    ) -> None:
        super().__init__(io.BytesIO(program))
        self.budget = budget
        self.numbers = numbers
        self.storages: dict[str, Storage] = {}
        # One of its own, as a pickle may try to change the classes that it is given.
        self.options = type("Options", (Options,), {"__slots__": ()})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("argparse", "Namespace"):
            return self.options
        if (module, name) in BUILDERS:
            return Builder(partial(BUILDERS[module, name], self.budget))

        if (module, name) not in NAMES:
            asked = shown(f"{module[:60]}.{name[:60]}")
            if _is_of_a_program(module, name):
                raise FormatError(
                    f"it holds a whole pickled module ({asked}), which asks for its program's "
                    "code; save its state_dict()"
                    " with the tool that wrote it. In place of PTI's generators for one photo, "
                    "which are such files, there is"
                    ' "latentedit invert --tune"'
                )
            raise FormatError(f"it asks for {asked}, which is more than tensors and plain values")

        return NAMES[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        if (
            not isinstance(pid, tuple)
            or len(pid) < 5
            or pid[0] != "storage"
            or any(part is not None for part in pid[5:])
        ):
            raise FormatError("a reference to something other than a storage")

        kind = pid[1]
        key = pid[2]
        count = pid[4]
        if (
            not isinstance(kind, Kind)
            or not isinstance(key, str)
            or type(count) is not int
            or count < 0
        ):
            raise FormatError("a reference to something other than a storage")

        if key not in self.storages:
            self.storages[key] = Storage(
                kind.dtype, count, self.numbers(key, count * kind.dtype.itemsize)
            )

        found = self.storages[key]
        if (found.dtype, found.count) != (kind.dtype, count):
            raise FormatError("one storage with numbers of two kinds")
        return found


def _is_of_a_program(module: str, name: str) -> bool:
    """Return whether a pickle that asks for ``name`` holds an object of some program, as
    ``torch.save(network)`` writes it."""
    package = module.partition(".")[0]
    known = package in sys.stdlib_module_names or package in ("", "__builtin__", "torch", "numpy")
    return (
        not known or module.startswith("torch.nn.modules.") or name == "_reconstruct_persistent_obj"
    )


def read_torch(path: str | os.PathLike[str]) -> Any:
    """Return the contents of a file of torch's: dictionaries, lists, words, numbers, and tensors on
    the CPU.

    No tensor repeats numbers, and all together have no more than a few times the bytes of the file.

    Raises:
        Error: no such file, damaged, too large, or holding anything else.
    """
    size = file_size(path)
    try:
        if size == 0:
            raise FormatError("the file is empty")
        budget = Budget(size)
        with open(path, "rb") as file:
            if file.read(4) == b"PK\x03\x04":  # as torch decides
                found = _read_archive(path, budget)
            else:
                # Mapped, a read beyond the end is cut off, where a file would first allocate what
                # was asked for.
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                    mapped: Any = view
                    found = _read_older(mapped, size, budget)

        check_things(found)
        budget.check_bytes(found, held_bytes)
        return _plain(found, {})
    except Error as error:
        raise FormatError(f"not a file of weights alone, or damaged: {error}", path=path) from error
    except Exception as error:  # a hostile or damaged file can raise anything
        raise FormatError(
            f"not a file of weights, or damaged ({reason(error)})", path=path
        ) from error


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """As `read_torch`, of a file that holds a dictionary with words for its keys."""
    found = read_torch(path)
    if not isinstance(found, dict):
        raise FormatError(f"expected a dictionary of weights, found {quoted(found)}", path=path)
    return {name: value for name, value in found.items() if isinstance(name, str)}


def read_storage(data: bytes, budget: Budget) -> Storage:
    """Return the storage that ``data`` is in the older layout, as NVIDIA's pickles have them
    within."""
    found = _read_older(io.BytesIO(data), len(data), budget)
    if not isinstance(found, Storage):
        raise FormatError("a tensor storage that holds something else")
    return found


def _read_archive(path: str | os.PathLike[str], budget: Budget) -> Any:
    with opened_zip(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        program = next((name for name in members if name.endswith("/data.pkl")), None)
        # torch's own reader finds names whatever their case, and takes offsets as they stand.
        distinct = len({name.casefold() for name in members}) == len(archive.infolist())
        if (
            program is None
            or not distinct
            or min(member.header_offset for member in members.values()) != 0
        ):
            raise FormatError("not an archive of torch's")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise FormatError("an archive with compressed members, which torch never writes")

        prefix = program.removesuffix("data.pkl")
        if f"{prefix}byteorder" in members and archive.read(f"{prefix}byteorder") != b"little":
            raise FormatError("numbers whose high bytes come first")

        code = archive.read(program)
        check_program(io.BytesIO(code), budget, WITH_STORAGES)
        return Reader(code, budget, stored_numbers(archive, prefix)).load()


def stored_numbers(archive: zipfile.ZipFile, prefix: str) -> Callable[[str, int], Tensor]:
    """Return a function from the key and the bytes of a storage in ``archive`` to its numbers."""
    members = {member.filename: member for member in archive.infolist()}

    def numbers(key: str, size: int) -> Tensor:
        name = f"{prefix}data/{key}"
        held = members[name].file_size if name in members else 0
        if size > held:
            raise FormatError(f"a storage of {size} bytes, of which the file holds {held}")
        found = _bytes(size)
        if size:
            with archive.open(name) as member:
                _fill(found, member.read(size))
        return found

    return numbers


def _read_older(stream: BinaryIO, size: int, budget: Budget) -> Any:
    """Five pickles (magic, protocol, system, objects, keys), then a count and the numbers for every
    key."""
    programs = []
    for index in range(5):
        start = stream.tell()
        check_program(stream, budget, WITH_STORAGES, largest=None if index == 0 else 2**63 - 1)
        end = stream.tell()
        stream.seek(start)
        programs.append(stream.read(end - start))
        if index == 0 and MAGIC not in programs[0]:
            raise FormatError("not a file of weights")

    claimed = 0

    def numbers(key: str, length: int) -> Tensor:
        nonlocal claimed
        claimed += length
        if claimed > size:
            raise FormatError(f"a storage of {length} bytes, of which the file holds {size}")
        return _bytes(length)

    system = Reader(programs[2], budget, numbers).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FormatError("numbers whose high bytes come first")

    reader = Reader(programs[3], budget, numbers)
    found = reader.load()
    keys = Reader(programs[4], budget, numbers).load()
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or set(keys) != set(reader.storages)
    ):
        raise FormatError("storages without numbers, or numbers without a storage")

    for key in keys:
        storage = reader.storages[key]
        if int.from_bytes(stream.read(8), "little") != storage.count:
            raise FormatError("damaged: a storage of another size than the program says")
        _fill(storage.numbers, stream.read(len(storage.numbers)))

    return found


def _bytes(size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.uint8)


def _fill(numbers: Tensor, data: bytes) -> None:
    if len(data) != len(numbers):
        raise FormatError("damaged: the file ends before its numbers do")
    if data:
        numbers.numpy()[:] = np.frombuffer(data, dtype=np.uint8)


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Return ``value`` with tensors in place of what stood for them while it was read."""
    if isinstance(value, Held):
        return value.value
    if isinstance(value, str | int | float | bytes | None):
        return value
    if id(value) in done:
        return done[id(value)]

    made: Any
    if isinstance(value, dict):
        made = OrderedDict() if isinstance(value, OrderedDict) else {}
        for key, item in value.items():
            if not isinstance(key, str | int | float | tuple | None):
                raise FormatError("a dictionary whose keys are neither words nor numbers")
            made[key] = _plain(item, done)
        metadata = getattr(value, "_metadata", None)
        if isinstance(made, OrderedDict) and isinstance(metadata, dict):
            made._metadata = _plain(metadata, done)  # type: ignore[attr-defined]
    elif isinstance(value, list):
        made = [_plain(item, done) for item in value]
    elif type(value) is tuple:
        made = tuple(_plain(item, done) for item in value)
    else:
        raise FormatError("something other than tensors and plain values")

    done[id(value)] = made
    return made
