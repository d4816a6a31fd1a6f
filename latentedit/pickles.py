"""Reading NVIDIA's network pickles without executing anything from them.

A pickle is a program that calls functions by name. The unpickler here knows a short list of names, each mapped to
something that builds plain data, and refuses every other name. The source code that these files carry
(``module_src``) stays a string.
"""

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentedit.architecture import width_options
from latentedit.discriminator import Discriminator, DiscriminatorConfig
from latentedit.errors import Error, complete
from latentedit.generator import Generator, GeneratorConfig
from latentedit.models import Model, with_weights

LARGEST = 4 << 30
"""Bytes; the largest official network file has 0.4 GB."""


class Record(dict[str, Any]):
    """A pickled module as plain data: its attributes by name."""

    class_name = ""


def _record(meta: Any) -> Record:
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise Error("a persistent object without a state")
    record = Record(meta["state"])
    record.class_name = str(meta.get("class_name", ""))
    return record


def _storage(data: Any) -> Any:
    # torch.storage._load_from_bytes itself would unpickle without restriction.
    if not isinstance(data, bytes):
        raise Error("a tensor storage that is not bytes")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    rebuilt: Tensor = torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())
    return rebuilt


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise Error("a parameter that is not a tensor")
    return data


class TensorflowNetwork(dict[str, Any]):
    """A pickled TensorFlow network as plain data: its recorded state."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise Error("a TensorFlow network without a state")
        self.update(state)


class NumberType:
    """Stands for ``numpy.dtype``: numbers alone, never objects or records."""

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

    value: "np.ndarray[Any, Any]" = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if isinstance(data, str):  # written by Python 2
            data = data.encode("latin1")
        if not isinstance(kind, NumberType) or not isinstance(data, bytes) or not isinstance(shape, tuple):
            raise Error("an array of an unexpected kind")
        self.value = np.frombuffer(data, dtype=kind.value).reshape(shape, order="F" if fortran else "C")


def _array(*_: Any) -> Array:
    return Array()


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
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _record,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): _name_of_ndarray,
    ("numpy", "dtype"): NumberType,
    ("_codecs", "encode"): _encode,
    ("dnnlib.tflib.network", "Network"): TensorflowNetwork,
    ("dnnlib.util", "EasyDict"): dict,
    ("dnnlib", "EasyDict"): dict,
}
"""Every name that a file may use, and what is called in its place."""


class RestrictedUnpickler(pickle.Unpickler):
    """Knows the names in `ALLOWED` and refuses all others by name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        raise Error(f"the pickle asks for {module}.{name}, which is not among the names that are safe to read")

    def persistent_load(self, pid: Any) -> Any:
        raise Error("the pickle refers to objects outside itself")


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """The contents of a pickle as plain data.

    Raises:
        Error: too large, damaged, or asking for a name that is not allowed.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise Error(f"larger than {LARGEST >> 30} GiB")
        with open(path, "rb") as file:
            return RestrictedUnpickler(file, encoding="latin1").load()
    except Error as error:
        raise Error(f"{path}: {error}") from error
    except Exception as error:  # a hostile or damaged pickle can raise anything
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise Error(f"{path}: not a network pickle, or damaged ({text})") from error


def load_nvidia(path: str | os.PathLike[str]) -> Model:
    """A StyleGAN2 network file of NVIDIA's as a `Model`: the PyTorch layout (stylegan2-ada-pytorch, stylegan3), or the older
    TensorFlow one.

    Raises:
        Error: another kind of file or of network.
    """
    data = read_pickle(path)
    if isinstance(data, TensorflowNetwork) or (
        isinstance(data, tuple | list) and data and all(part is None or isinstance(part, TensorflowNetwork) for part in data)
    ):
        from latentedit.tensorflow import load_tensorflow

        return load_tensorflow(path, (data,) if isinstance(data, TensorflowNetwork) else tuple(data))
    if not isinstance(data, dict) or not isinstance(data.get("G_ema"), Record):
        raise Error(f"{path}: expected a network pickle of NVIDIA's PyTorch layout with a G_ema in it")
    with complete(path, "recorded network"):
        generator = _generator(data["G_ema"], path)
        raw = _generator(data["G"], path) if isinstance(data.get("G"), Record) else None
        discriminator = _discriminator(data["D"], path) if isinstance(data.get("D"), Record) else None
    provenance = {"source": Path(path).name, "layout": "NVIDIA PyTorch pickle"}
    return Model(generator, discriminator, None, provenance, str(path), raw_generator=raw)


def _generator(record: Record, path: str | os.PathLike[str]) -> Generator:
    synthesis, mapping = record["_modules"].get("synthesis"), record["_modules"].get("mapping")
    if not isinstance(synthesis, Record) or not isinstance(mapping, Record) or "b4" not in synthesis["_modules"]:
        known = {"L0": "a StyleGAN3 generator", "superresolution": "an EG3D generator"}
        names = [*record["_modules"], *(synthesis["_modules"] if isinstance(synthesis, Record) else [])]
        what = next((text for key, text in known.items() if any(n.startswith(key) for n in names)), "another network")
        raise Error(f"{path}: {what}, not a StyleGAN2 generator; only StyleGAN2 networks can be read")
    blocks = {int(name[1:]): block for name, block in synthesis["_modules"].items()}
    resolution = max(blocks)
    layer = blocks[resolution]["_modules"]["conv1"]
    if not layer.get("use_noise", True):
        raise Error(f"{path}: layers without noise inputs cannot be represented")
    tensors = _tensors(record)
    widths = {r: tensors[f"synthesis.b{r}.conv1.weight"].shape[0] for r in blocks}
    config = GeneratorConfig(
        resolution=resolution,
        channels=_whole(synthesis["img_channels"]),
        z_dim=_whole(mapping["z_dim"]),
        w_dim=_whole(mapping["w_dim"]),
        c_dim=_whole(mapping["c_dim"]),
        mapping_layers=_whole(mapping["num_layers"]),
        mapping_lr_multiplier=float(mapping["_modules"]["fc0"]["bias_gain"]),
        architecture=str(blocks[resolution]["architecture"]),
        conv_clamp=_clamp(layer),
        resample_filter=_taps(blocks[resolution], path),
        **width_options(widths),
    )
    return with_weights(Generator, config, _without_filters(tensors), path)


def _discriminator(record: Record, path: str | os.PathLike[str]) -> Discriminator:
    modules = record["_modules"]
    blocks = {int(name[1:]): block for name, block in modules.items() if name.startswith("b")}
    resolution = max(blocks)
    head = modules["b4"]
    tensors = _tensors(record)
    widths = {r: tensors[f"b{r}.conv0.weight"].shape[0] for r in blocks if r > 4}
    widths[4] = tensors["b4.conv.weight"].shape[0]
    mbstd = head["_modules"].get("mbstd")
    labels = modules.get("mapping")
    config = DiscriminatorConfig(
        resolution=resolution,
        channels=_whole(record["img_channels"]),
        c_dim=_whole(record["c_dim"]),
        architecture=str(blocks[resolution]["architecture"]),
        conv_clamp=_clamp(blocks[resolution]["_modules"]["conv0"]),
        mbstd_group_size=_group(mbstd["group_size"]) if isinstance(mbstd, Record) else 1,
        mbstd_channels=_whole(mbstd["num_channels"]) if isinstance(mbstd, Record) else 0,
        cmap_dim=_whole(labels["w_dim"]) if isinstance(labels, Record) else 0,
        mapping_layers=_whole(labels["num_layers"]) if isinstance(labels, Record) else 8,
        resample_filter=_taps(blocks[resolution], path),
        **width_options(widths),
    )
    return with_weights(Discriminator, config, _without_filters(tensors), path)


def _without_filters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("resample_filter")}


def _tensors(record: Record, prefix: str = "") -> dict[str, Tensor]:
    """Parameters and buffers under their full names."""
    found: dict[str, Tensor] = {}
    for group in ("_parameters", "_buffers"):
        for name, value in record.get(group, {}).items():
            if isinstance(value, Tensor):
                found[prefix + name] = value
    for name, module in record.get("_modules", {}).items():
        if isinstance(module, Record):
            found.update(_tensors(module, f"{prefix}{name}."))
    return found


def _whole(value: Any) -> int:
    return int(value)


def _group(value: Any) -> int:
    return 1 << 30 if value is None else int(value)  # None stands for the whole batch


def _clamp(layer: Record) -> float | None:
    value = layer.get("conv_clamp")
    return None if value is None else float(value)


def _taps(block: Record, path: str | os.PathLike[str]) -> tuple[float, ...]:
    """The separable taps, smallest 1, of the block's resampling filter."""
    filter = block["_buffers"]["resample_filter"]
    row = filter if filter.ndim == 1 else filter.sum(dim=0)
    taps = row / row.abs().min()
    if filter.ndim == 2 and not torch.allclose(filter, torch.outer(row, row) / row.sum(), atol=1e-6):
        raise Error(f"{path}: the resampling filter is not separable")
    return tuple(round(float(tap), 6) for tap in taps)
