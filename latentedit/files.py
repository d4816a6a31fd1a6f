"""Files that are whole or absent: atomic writes, and safetensors with a JSON header."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from latentedit.errors import Error

HEADER = "latentedit"
"""Key of the JSON header among the safetensors metadata."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on success it is flushed and renamed to ``path``, on failure removed.

    Raises:
        Error: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise Error(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def cache_folder() -> Path:
    """Where features of data sets and published networks are kept: LATENTEDIT_CACHE, or latentedit in the user's cache."""
    if "LATENTEDIT_CACHE" in os.environ:
        return Path(os.environ["LATENTEDIT_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "latentedit"


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_tensors(
    path: str | os.PathLike[str], kind: str, version: int, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a native file: ``tensors`` and the JSON ``header``, marked with its ``kind`` and format ``version``."""
    text = json.dumps({"format": kind, "version": version, **header})
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, safetensors.torch.save(contiguous, metadata={HEADER: text}))


def read_header(path: str | os.PathLike[str], kind: str, version: int) -> dict[str, Any]:
    """The JSON header of a native file.

    Raises:
        Error: the file is missing, damaged, of another kind or written by a newer version.
    """
    return _read(path, kind, version, with_tensors=False)[0]


def read_tensors(path: str | os.PathLike[str], kind: str, version: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a native file, on the CPU; errors as `read_header`."""
    return _read(path, kind, version, with_tensors=True)


def _read(
    path: str | os.PathLike[str], kind: str, version: int, *, with_tensors: bool
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not Path(path).is_file():
        raise Error(f"{path}: no such file")
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            header = json.loads(metadata.get(HEADER, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError, RuntimeError) as error:
        raise Error(f"{path}: not a {kind} file, or damaged ({str(error).splitlines()[0][:160]})") from error
    if not isinstance(header, dict) or header.get("format") != kind:
        found = str(header.get("format") or "")[:40] if isinstance(header, dict) else None
        raise Error(f"{path}: expected a {kind} file, found {found or 'a safetensors file of other origin'}")
    if not isinstance(header.get("version"), int) or header["version"] > version:
        raise Error(
            f"{path}: written in format version {str(header.get('version'))[:20]}, this latentedit reads up to {version};"
            " upgrade it"
        )
    return header, tensors
