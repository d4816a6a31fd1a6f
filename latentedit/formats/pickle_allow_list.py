"""Reading pickles without executing anything from them.

A pickle is a program that calls functions by name. The unpickler here knows a short list of names,
each mapped to something that builds plain data, and refuses every other name. The source code that
NVIDIA's files carry (``module_src``) stays a string. Before it runs, the program is read through
for sizes and depths that no network needs.
"""

import mmap
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from latentedit.errors import Error, FormatError, reason, shown
from latentedit.io.budget import Budget, check_things, file_size
from latentedit.io.pickle_programs import Builder, Sealed, check_program
from latentedit.io.torch_files import (
    Held,
    Storage,
    build_tensor,
    held_bytes,
    read_storage,
    same_tensor,
)

__all__ = ["ALLOWED", "Array", "Held", "Record", "TensorflowNetwork", "read_pickle"]


class Record(dict[str, Any]):
    """A pickled module as plain data: its attributes by name."""

    __slots__ = ("class_name",)

    def __init__(self, state: dict[str, Any], class_name: str) -> None:
        super().__init__(state)
        self.class_name = class_name

    __setstate__ = Sealed.__setstate__


class PlainRecord(Record):
    """A module whose class is named in the loader's own source, as
    `latentedit.formats.nvidia_writer` writes it."""

    __slots__ = ()
    kind = ""

    def __new__(cls) -> "PlainRecord":
        made = super().__new__(cls)
        made.class_name = cls.kind
        return made

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise FormatError("a module without a state")
        self.update(state)


SOURCES = ("training.networks", "training.networks_stylegan2", "training.networks_stylegan3")
"""Where NVIDIA's code has its networks: of stylegan2-ada-pytorch, and two of stylegan3 ..."""
MODULES = (
    "Conv2dLayer",
    "Discriminator",
    "DiscriminatorBlock",
    "DiscriminatorEpilogue",
    "FullyConnectedLayer",
    "Generator",
    "MappingNetwork",
    "MinibatchStdLayer",
    "SynthesisBlock",
    "SynthesisInput",
    "SynthesisLayer",
    "SynthesisNetwork",
    "ToRGBLayer",
)
"""... and their classes."""


def _record(meta: Any) -> Record:
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise FormatError("a persistent object without a state")
    name = meta.get("class_name")
    return Record(meta["state"], name if isinstance(name, str) else "")


def _storage(budget: Budget, data: Any) -> Storage:
    # torch.storage._load_from_bytes itself would unpickle without restriction.
    if not isinstance(data, bytes):
        raise FormatError("a tensor storage that is not bytes")
    return read_storage(data, budget)


class TensorflowNetwork(dict[str, Any]):
    """A pickled TensorFlow network as plain data: its recorded state."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise FormatError("a TensorFlow network without a state")
        self.update(state)


class NumberType:
    """Stands for ``numpy.dtype``: numbers alone, never objects or records."""

    __slots__ = ("value",)

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or len(code) > 8 or np.dtype(code).kind not in "biuf":
            raise FormatError("an array of anything but numbers")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if (
            not isinstance(state, tuple)
            or len(state) < 5
            or any(part is not None for part in state[2:5])
        ):
            raise FormatError("an array of anything but numbers")
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class Array:
    """Stands for a numpy array while it is read; ``value`` is the real one."""

    __slots__ = ("budget", "value")
    value: "np.ndarray[Any, Any]"

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget
        self.value = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        # one of them may be in many arrays
        if self.budget is not None and isinstance(data, bytes | str):
            self.budget.take("tensors")
            self.budget.take("bytes", len(data))
        if isinstance(data, str):  # written by Python 2
            data = data.encode("latin1")
        if (
            not isinstance(kind, NumberType)
            or not isinstance(data, bytes)
            or not isinstance(shape, tuple)
        ):
            raise FormatError("an array of an unexpected kind")
        self.value = np.frombuffer(data, dtype=kind.value).reshape(
            shape, order="F" if fortran else "C"
        )


def _array(budget: Budget, *_: Any) -> Array:
    return Array(budget)


def _array_of(budget: Budget, data: Any, kind: Any, shape: Any, order: Any = "C") -> Array:
    """As pickle protocol 5 writes arrays."""
    array = Array(budget)
    array.__setstate__(
        (1, shape, kind, order == "F", bytes(data) if isinstance(data, bytearray) else data)
    )
    return array


def _set(items: Any = ()) -> frozenset[str]:
    """torch's modules name their buffers in sets."""
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise FormatError("a set of anything but words")
    return frozenset(items)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise FormatError("text in an unexpected encoding")
    return text.encode("latin1")


def _name_of_ndarray(*_: Any) -> Any:
    raise FormatError("an array built in an unexpected way")


def _scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, NumberType) or not isinstance(data, bytes):
        raise FormatError("a numpy scalar of an unexpected kind")
    return np.frombuffer(data, dtype=kind.value, count=1)[0]


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Builder(_record),
    ("torch._utils", "_rebuild_parameter"): Builder(same_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Builder(build_tensor),
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
COUNTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): build_tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy.core.numeric", "_frombuffer"): _array_of,
    ("numpy._core.numeric", "_frombuffer"): _array_of,
}
"""Those of them that take from the budget, which is their first argument."""


def _bytes(value: Any) -> int:
    return int(value.value.nbytes) if isinstance(value, Array) else held_bytes(value)


class RestrictedUnpickler(pickle.Unpickler):
    """Knows the names in `ALLOWED` and refuses all others by name."""

    network: type[TensorflowNetwork] | None = None

    def __init__(self, stream: Any, budget: Budget) -> None:
        super().__init__(stream, encoding="latin1")
        self.budget = budget
        self.modules: dict[tuple[str, str], type[PlainRecord]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in COUNTED:
            return Builder(partial(COUNTED[module, name], self.budget))
        # Classes of its own, as a pickle may try to change those that it is given.
        if module in SOURCES and name in MODULES:
            own = type(name, (PlainRecord,), {"__slots__": (), "kind": name})
            return self.modules.setdefault((module, name), own)
        found = ALLOWED.get((module, name))
        if found is None:
            asked = shown(f"{module[:60]}.{name[:60]}")
            raise FormatError(
                f"the pickle asks for {asked}, which is not among the names that are safe to read"
            )

        if found is not TensorflowNetwork:
            return found

        # one of its own, as a pickle may try to change the classes that it is given
        if self.network is None:
            self.network = type("TensorflowNetwork", (TensorflowNetwork,), {"__slots__": ()})
        return self.network

    def persistent_load(self, pid: Any) -> Any:
        raise FormatError("the pickle refers to objects outside itself")


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Return the contents of a pickle as plain data, which can be walked through and printed.

    Raises:
        Error: too large, damaged, or asking for a name that is not allowed.
    """
    path = Path(path)
    budget = Budget(file_size(path))
    try:
        # Mapped, a read beyond the end is cut off, where a file would first allocate what was asked
        # for.
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            stream: Any = view
            check_program(stream, budget)
            view.seek(0)
            found = RestrictedUnpickler(stream, budget).load()
        check_things(found)
        budget.check_bytes(found, _bytes)
        return found
    except Error as error:
        raise error.at(path) from error
    except Exception as error:  # a hostile or damaged pickle can raise anything
        raise FormatError(
            f"not a network pickle, or damaged ({reason(error)})", path=path
        ) from error
