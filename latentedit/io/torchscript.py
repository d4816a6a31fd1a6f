"""The tensors in TorchScript archives, without the code that such archives carry.

An archive of ``torch.jit.save`` holds a program (``code/``), and the tensors of its modules in
``data.pkl`` and ``data/`` as torch's other files do. Only these are read. ``torch.jit.load`` would
compile the program.
"""

import io
import os
import zipfile
from typing import Any

from torch import Tensor

from latentedit.errors import Error, FormatError, reason
from latentedit.io.budget import Budget, check_things, file_size, opened_zip
from latentedit.io.pickle_programs import WITH_STORAGES, Builder, check_program
from latentedit.io.torch_files import Held, Reader, held_bytes, stored_numbers

DEEPEST = 50
"""Modules within one another."""


class _Script(dict[str, Any]):
    """Stands for a module of the archive: its attributes by name."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise FormatError("a scripted module without attributes")
        self.update(state)


def _as_list(items: Any = ()) -> list[Any]:
    """Return a list of numbers, words or tensors, whose type TorchScript names."""
    if not isinstance(items, list | tuple):
        raise FormatError("a list that is none")
    return list(items)


LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


class _ScriptReader(Reader):
    """Knows the classes of an archive, whatever they are called, as modules with attributes."""

    def __init__(self, program: bytes, budget: Budget, numbers: Any) -> None:
        super().__init__(program, budget, numbers)
        # One of its own, as a pickle may try to change the classes that it is given.
        self.script = type("Script", (_Script,), {"__slots__": ()})

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return self.script
        if module == "torch.jit._pickle" and name in LISTS:
            return Builder(_as_list)
        return super().find_class(module, name)


def is_torchscript(path: str | os.PathLike[str]) -> bool:
    """Return whether the file ``path`` is an archive with code, as ``torch.jit.save`` writes it."""
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return False
        with opened_zip(path, whole=False) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, Error):
        return False


def read_torchscript(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive under their full names (``visual.conv1.weight``).

    Raises:
        Error: no such file, damaged, too large, or holding anything but modules of tensors and
            plain values.
    """
    try:
        budget = Budget(file_size(path))
        with opened_zip(path, whole=False) as archive:
            members = {member.filename: member for member in archive.infolist()}
            program = next((name for name in members if name.endswith("/data.pkl")), None)
            if program is None or len({name.casefold() for name in members}) != len(members):
                raise FormatError("not an archive of torch's")
            prefix = program.removesuffix("data.pkl")
            # The code is packed, and stays so.
            needed = [m for name, m in members.items() if not name.startswith(f"{prefix}code/")]
            if any(member.compress_type != zipfile.ZIP_STORED for member in needed):
                raise FormatError("an archive with compressed tensors, which torch never writes")
            code = archive.read(program)
            check_program(io.BytesIO(code), budget, WITH_STORAGES)
            found = _ScriptReader(code, budget, stored_numbers(archive, prefix)).load()
        check_things(found)
        budget.check_bytes(found, held_bytes)
        tensors: dict[str, Tensor] = {}
        _collect(found, "", tensors, 0)
        return tensors
    except Error as error:
        raise FormatError(f"not a TorchScript archive of weights: {error}", path=path) from error
    except Exception as error:  # a hostile or damaged file can raise anything
        raise FormatError(
            f"not a TorchScript archive, or damaged ({reason(error)})", path=path
        ) from error


def _collect(module: Any, prefix: str, into: dict[str, Tensor], depth: int) -> None:
    if not isinstance(module, _Script):
        raise FormatError("something other than a module")
    if depth > DEEPEST:
        raise FormatError(f"more than {DEEPEST} modules within one another")
    for name, value in module.items():
        if isinstance(value, Held):
            into[f"{prefix}{name}"] = value.value
        elif isinstance(value, _Script):
            _collect(value, f"{prefix}{name}.", into, depth + 1)
