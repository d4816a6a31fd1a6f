"""Files of weights (``.pt``, ``.pth``): whose layout one has, and the plain layout under NVIDIA's parameter names.

They are read by torch's loader for weights alone, which executes nothing from them.
"""

import argparse
import io
import mmap
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentedit.architecture import width_options
from latentedit.discriminator import DiscriminatorConfig, build_discriminator
from latentedit.errors import Error, complete
from latentedit.files import write_bytes
from latentedit.foreign import missing
from latentedit.foreign.unpickling import WITH_STORAGES, check_legacy, check_program
from latentedit.generator import Generator, GeneratorConfig
from latentedit.models import Model, with_weights

UNSAID = "the file does not say clamping, the mapping's learning rate and the discriminator's groups; taken are the usual ones"
LARGEST = 4 << 30
"""Bytes that a file may hold once unpacked; the largest published checkpoint has 0.7 GB."""


def read_pt(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a ``.pt`` of weights.

    Raises:
        Error: damaged, too large, or holding anything but tensors and plain values.
    """
    found = read_tensors_or_values(path)
    if not isinstance(found, dict):
        raise Error(f"{path}: expected a dictionary of weights, found {type(found).__name__}")
    return found


def read_tensors_or_values(path: str | os.PathLike[str]) -> Any:
    """As `read_pt`, but of any shape: a tensor, a list, a dictionary."""
    if not Path(path).is_file():
        raise Error(f"{path}: no such file")
    try:
        check_file(path)
    except _WholeModuleError as error:
        raise Error(
            f"{path}: not a file of weights but a whole pickled module ({error}), which asks for its program's code; save its"
            " state_dict() with the tool that wrote it. In place of PTI's generators for one photo, which are such files, there"
            ' is "latentedit invert --tune"'
        ) from error
    except Error as error:
        raise Error(f"{path}: not a file of weights, or damaged: {error}") from error
    except Exception as error:  # a hostile or damaged file can raise anything
        text = f"not a file of weights, damaged, or asking for more than tensors ({_first_line(error)})"
        raise Error(f"{path}: {text}") from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # training options, which have no code
            return torch.load(path, map_location="cpu", weights_only=True)
    except Error as error:
        raise Error(f"{path}: not a file of weights, or damaged: {error}") from error
    except Exception as error:  # a hostile or damaged file can raise anything
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked:
            name = f"it asks for {asked[1]}, which is more than tensors and plain values"
            raise Error(f"{path}: not a file of weights alone: {name}") from error
        text = f"not a file of weights, damaged, or asking for more than tensors ({_first_line(error)})"
        raise Error(f"{path}: {text}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


class _WholeModuleError(Error):
    """A file holds a pickled object of a class, not its weights."""


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise `Error` where a file speaks of more than it holds, or holds more than any network.

    torch believes the sizes in a file: those of an archive's storages without looking, so that a hostile one shows what
    else is in memory.
    """
    size = os.path.getsize(path)
    if size > LARGEST:
        raise Error(f"holds {size / 2**30:.0f} GiB, no network is larger than {LARGEST >> 30} GiB")
    with open(path, "rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"  # as torch decides
        # Mapped, a read beyond the end is cut off, where a file would first allocate what was asked for.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            mapped: Any = view
            reader = _StorageReader(io.BytesIO(b"" if zipped else check_legacy(mapped, size)))
    records: dict[str, int] = {}
    if zipped:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            program = next((member for member in members if member.filename.endswith("/data.pkl")), None)
            # torch's own reader finds names whatever their case, and takes offsets as they stand.
            distinct = len({member.filename.casefold() for member in members}) == len(members)
            if program is None or not distinct or min(member.header_offset for member in members) != 0:
                raise Error("not an archive of torch's")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise Error("an archive with compressed members, which torch never writes")
            code = archive.read(program)
        if bytes(torch._C.PyTorchFileReader(os.fspath(path)).get_record("data.pkl")) != code:
            raise Error("an archive that can be read in two ways")
        check_program(io.BytesIO(code), WITH_STORAGES)
        reader = _StorageReader(io.BytesIO(code))
        prefix = program.filename.removesuffix("data.pkl")
        records = {member.filename.removeprefix(f"{prefix}data/"): member.file_size for member in members}
    root = reader.load()
    for part in (root, *(root.values() if isinstance(root, dict) else ())):
        if isinstance(part, _Anything) and part.is_module():
            raise _WholeModuleError(f"{part.room}.{type(part).__name__}"[:80])
    for key, claimed in reader.claims.items():
        held = records.get(key, 0) if zipped else size
        if not 0 <= claimed <= held:
            raise Error(f"a storage of {claimed} bytes, of which the file holds {held}")
    if sum(reader.claims.values()) > size:
        raise Error("storages that together are larger than the file")


COSTLY = {(room, name) for room in ("builtins", "__builtin__") for name in ("bytearray", "bytes")} | {("_codecs", "encode")}
"""What torch would call with any number or text, whatever memory that takes."""


PLAIN = ("", "collections", "argparse", "builtins", "torch", "numpy")
"""Packages of the classes whose objects files of weights hold beside tensors."""


class _Anything(OrderedDict[Any, Any]):
    """Stands for an object of any class that a file of weights names."""

    room = ""
    """The module of its class."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def is_module(self) -> bool:
        return self.room.partition(".")[0] not in PLAIN or self.room.startswith("torch.nn.modules.")

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass


class _StorageReader(pickle.Unpickler):
    """Builds nothing; `claims` are the size in bytes of every storage that a program speaks of, by name."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.claims: dict[str, int] = {}
        self.classes: dict[tuple[str, str], type[_Anything]] = {}
        self.persistent = False
        """Whether the program builds a module with the source code that it brings along."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in COSTLY:
            if self.persistent:
                raise _WholeModuleError("of NVIDIA's code, as PTI stores its generators")
            raise Error(f"the program asks for {module}.{name}, which no file of weights needs")
        self.persistent |= name == "_reconstruct_persistent_obj"
        return self.classes.setdefault((module, name), type(name, (_Anything,), {"room": module}))

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(storage, type) or not isinstance(key, str) or not isinstance(count, int):
            raise Error("a reference to something other than a storage")
        self.claims[key] = max(ITEM_BYTES[storage.__name__] * count, self.claims.get(key, 0))
        return _Anything()


ITEM_BYTES = {"UntypedStorage": 1, "BoolStorage": 1, "ByteStorage": 1, "CharStorage": 1, "ShortStorage": 2, "HalfStorage": 2}
ITEM_BYTES |= {"BFloat16Storage": 2, "IntStorage": 4, "FloatStorage": 4, "LongStorage": 8, "DoubleStorage": 8}
ITEM_BYTES |= {"ComplexFloatStorage": 8, "ComplexDoubleStorage": 16}


def load_checkpoint(path: str | os.PathLike[str]) -> Model:
    """A ``.pt`` or ``.pth`` in one of the layouts that are known: rosinality's, genforce's, or NVIDIA's names.

    Raises:
        Error: another layout (lucidrains' by name), or an architecture that cannot be represented.
    """
    from latentedit.foreign.genforce import is_genforce, load_genforce
    from latentedit.foreign.rosinality import load_rosinality

    found = unwrapped(read_pt(path))
    if "GAN" in found or "version" in found:
        raise Error(
            f"{path}: a checkpoint of lucidrains' stylegan2_pytorch, whose networks are of another architecture (no weights in"
            " common with the published StyleGAN2) and cannot be represented"
        )
    parts = {name: found[name] for name in ("generator_smooth", "generator") if is_genforce(found.get(name))}
    if parts:  # as genforce's own training writes it
        model = load_genforce(path, next(iter(parts.values())))
        if len(parts) == 2:
            model.raw_generator = load_genforce(path, parts["generator"]).generator
        return model
    if is_genforce(found):
        return load_genforce(path, found)
    if is_plain(found):
        return load_plain(path, {"G_ema": found})
    if is_plain(found.get("G_ema")) or is_plain(found.get("G")):
        return load_plain(path, found)
    return load_rosinality(path, found)


WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before the name of every tensor."""


def unwrapped(found: dict[str, Any]) -> dict[str, Any]:
    """``found`` without the wrappers' prefixes, in it and in the dictionaries one level down."""
    inside = {name: _bare(value) if isinstance(value, dict) else value for name, value in found.items()}
    return _bare(inside)


def _bare(state: dict[Any, Any]) -> dict[Any, Any]:
    for prefix in (*WRAPPERS, *WRAPPERS):  # the one within the other, too
        if state and all(isinstance(name, str) and name.startswith(prefix) for name in state):
            bare = {name.removeprefix(prefix): value for name, value in state.items()}
            state = _like(state, bare)
    return state


def _like(state: dict[Any, Any], bare: dict[Any, Any]) -> dict[Any, Any]:
    """``bare`` with what torch keeps beside a ``state_dict``, where `save_plain` puts the architecture."""
    metadata = getattr(state, "_metadata", None)
    if metadata is None:
        return bare
    kept = OrderedDict(bare)
    kept._metadata = metadata  # type: ignore[attr-defined]
    return kept


def save_plain(path: str | os.PathLike[str], model: Model) -> None:
    """Write the networks' ``state_dict``s (``G_ema``, ``G``, ``D``) under NVIDIA's parameter names as a ``.pt``.

    The metadata that torch keeps with a ``state_dict`` get the architecture as plain values, so that variants that shapes do
    not tell are read again exactly.
    """
    parts = {"G_ema": model.generator, "G": model.raw_generator, "D": model.discriminator}
    document: dict[str, Any] = {}
    for name, network in parts.items():
        if network is not None:
            document[name] = network.state_dict()
            options = network.config.as_dict().items()
            document[name]._metadata[""]["config"] = {k: list(v) if isinstance(v, tuple) else v for k, v in options}
    buffer = io.BytesIO()
    torch.save(document, buffer)
    write_bytes(path, buffer.getvalue())


def is_plain(state: Any) -> bool:
    """Whether ``state`` is the ``state_dict`` of a generator under NVIDIA's names."""
    return isinstance(state, dict) and {"synthesis.b4.const", "mapping.fc0.weight"} <= set(state)


def load_plain(path: str | os.PathLike[str], found: dict[str, Any]) -> Model:
    """The networks of ``{"G_ema": state_dict, "G": ..., "D": ...}``.

    Where `save_plain` has not written it, the architecture is taken from the shapes, and what they do not tell (clamping,
    the mapping's learning rate) is as published.

    Raises:
        Error: tensors that do not make up a network that can be represented.
    """
    with complete(path, "network"):
        generators, notes = {}, []
        for name in ("G_ema", "G"):
            if isinstance(found.get(name), dict):
                state = _weights(found[name])
                options = _recorded(found[name])
                if not options:
                    options = _generator_options(state) | _taps(path, found[name])
                    notes.append(UNSAID)
                config = GeneratorConfig(**options)
                averaged = "mapping.w_avg" in state
                if not averaged:
                    state["mapping.w_avg"] = torch.zeros(config.w_dim)
                generators[name] = with_weights(Generator, config, state, path)
                if not averaged:
                    missing.measure_average(generators[name])
                    notes.append(missing.AVERAGE)
        if "G_ema" not in generators:
            generators["G_ema"] = generators.pop("G")
        model = Model(generators["G_ema"], path=str(path), provenance={"layout": "weights under NVIDIA's names"})
        model.raw_generator = generators.get("G")
        for note in notes:
            missing.tell(model, note)
        if isinstance(found.get("D"), dict):
            state = _weights(found["D"])
            options = _recorded(found["D"]) or _discriminator_options(state, generators["G_ema"].config)
            model.discriminator = with_weights(build_discriminator, DiscriminatorConfig(**options), state, path)
    return model


def _recorded(state: Any) -> dict[str, Any]:
    """The architecture that `save_plain` put beside the tensors."""
    metadata = getattr(state, "_metadata", None)
    root = metadata.get("") if isinstance(metadata, dict) else None
    config = root.get("config") if isinstance(root, dict) else None
    return config if isinstance(config, dict) else {}


def _weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """Without the filters, which NVIDIA's code lists among the buffers."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("resample_filter")}


def _taps(path: str | os.PathLike[str], state: dict[str, Any]) -> dict[str, Any]:
    """The option for the resampling filter that NVIDIA's code lists among the buffers; none where it is not there.

    Raises:
        Error: layers with different filters, or one that is not separable.
    """
    filters = [tensor.float() for name, tensor in state.items() if name.endswith("resample_filter")]
    if not filters:
        return {}
    first = filters[0]
    row = first if first.ndim == 1 else first.sum(dim=0)
    separable = first.ndim == 1 or torch.allclose(first, torch.outer(row, row) / row.sum(), atol=1e-6)
    if not separable or any(filter.shape != first.shape or not torch.equal(filter, first) for filter in filters):
        raise Error(f"{path}: its resampling filters are not separable, or differ; cannot be represented")
    return {"resample_filter": tuple(round(float(tap), 6) for tap in row / row.abs().min())}


def _resolutions(state: dict[str, Tensor], prefix: str) -> list[int]:
    names = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(f"{prefix}b")}
    return sorted(int(name[1:]) for name in names if name[1:].isdecimal())


def _generator_options(state: dict[str, Tensor]) -> dict[str, Any]:
    sizes = _resolutions(state, "synthesis.")
    finest = sizes[-1]
    first, depth = state["mapping.fc0.weight"], sum(name.startswith("mapping.fc") for name in state) // 2
    w_dim = first.shape[0]
    c_dim = state["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in state else 0
    architecture = "skip" if "synthesis.b4.torgb.weight" in state else "orig"
    if f"synthesis.b{finest}.skip.weight" in state:
        architecture = "resnet"
    if "synthesis.b4.conv0.bias" in state:
        architecture = "stylegan1"
    return {
        "resolution": finest,
        "channels": state[f"synthesis.b{finest}.torgb.weight"].shape[0],
        "z_dim": first.shape[1] - (w_dim if c_dim else 0),
        "w_dim": w_dim,
        "c_dim": c_dim,
        "mapping_layers": depth,
        "architecture": architecture,
        **width_options({r: len(state[f"synthesis.b{r}.conv1.bias"]) for r in sizes}),
    }


def _discriminator_options(state: dict[str, Tensor], generator: GeneratorConfig) -> dict[str, Any]:
    sizes = _resolutions(state, "")
    finest, half = sizes[-1], sizes[-1] // 2
    widths = {r: len(state[f"b{r}.conv0.bias"]) for r in sizes if r > 4}
    widths[4] = len(state["b4.conv.bias"])
    architecture = "resnet" if f"b{finest}.skip.weight" in state else "orig"
    if f"b{half}.fromrgb.weight" in state:
        architecture = "stylegan1" if generator.architecture == "stylegan1" else "skip"
    labels = "mapping.embed.weight" in state
    return {
        "resolution": finest,
        "channels": state[f"b{finest}.fromrgb.weight"].shape[1],
        "c_dim": state["mapping.embed.weight"].shape[1] if labels else 0,
        "architecture": architecture,
        "mbstd_channels": state["b4.conv.weight"].shape[1] - widths[4],
        "cmap_dim": state["mapping.fc0.weight"].shape[0] if labels else 0,
        "mapping_layers": sum(name.startswith("mapping.fc") for name in state) // 2 or 8,
        **width_options(widths),
    }
