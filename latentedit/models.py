"""Model files: a generator, its discriminator and what is known of them in one safetensors file (docs/formats.md)."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from latentedit.budget import SLACK
from latentedit.curvature import Curvature
from latentedit.discriminator import Discriminator, DiscriminatorConfig, build_discriminator
from latentedit.encoder import Encoder, EncoderConfig
from latentedit.errors import Error, complete, quoted, shown
from latentedit.files import check_numbers, is_picture, read_header, read_tensors, write_tensors
from latentedit.generator import Generator, GeneratorConfig
from latentedit.ops import fir_taps

Network = TypeVar("Network", bound=nn.Module)
Config = TypeVar("Config", GeneratorConfig, DiscriminatorConfig, EncoderConfig)

FORMAT, VERSION = "latentedit-model", 1
BUNDLED = Path(__file__).parent / "bundled"
LEGACY = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
"""What torch's older files of weights begin with, after two or three bytes."""
ENCODER = ".encoder.safetensors"
"""Ending of a file beside a model that holds its encoder alone."""
LATEST = {"faces128": "faces128-v1"}
"""What a bundled name without a version stands for."""
RETIRED = dict.fromkeys(("faces64", "faces64-v1", "faces64-v2"), "faces128")
"""Bundled models that no longer ship, and what takes their place. Nothing else is ever called by these names."""


@dataclass
class Model:
    """What a model file holds."""

    generator: Generator
    """The moving average of the weights, in evaluation mode."""
    discriminator: Discriminator | None = None
    framing: dict[str, Any] | None = None
    """How photographs are cropped for this model: see docs/formats.md."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Data, images seen, settings, licence of the weights."""
    path: str = ""
    raw_generator: Generator | None = None
    """The generator before averaging, where the file has it."""
    encoder: Encoder | None = None
    """From the file itself, or from NAME.encoder.safetensors beside it."""
    curvature: Curvature | None = None
    """Measured when the encoder was trained."""
    notes: list[str] = field(default_factory=list)
    """Sentences for whoever uses it: what its file leaves out, and what takes its place."""


def fingerprint(generator: Generator) -> str:
    """SHA-256 that identifies what a generator draws, as 64 hexadecimal digits.

    Over the parameter names in sorted order, each followed by a zero byte, the number of its dimensions and each
    dimension as little-endian uint32, and its values as little-endian float32; noise constants included, the running
    mean of w excluded. Any lossless conversion keeps it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(generator.state_dict().items()):
        if name == "mapping.w_avg":
            continue
        digest.update(name.encode() + b"\0")
        digest.update(np.array([tensor.ndim, *tensor.shape], dtype="<u4").tobytes())
        digest.update(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


@torch.no_grad()
def round_to_half(model: Model) -> None:
    """Round the generator's convolutions and the whole discriminator, in place, to what half precision holds.

    The fingerprint changes. These are nearly all of the bytes; mapping and styles of the generator stay as they are, as an
    error there moves the whole picture.

    Raises:
        Error: a weight that is too large for half precision.
    """
    for prefix, network in _parts(model).items():
        for name, tensor in network.state_dict().items():
            if not _is_halved(f"{prefix}/{name}", tensor):
                continue
            if float(tensor.abs().max()) > torch.finfo(torch.float16).max:
                raise Error(f"tensor {name} reaches {float(tensor.abs().max()):.3g}, too large for half precision")
            tensor.copy_(tensor.half())


def _is_halved(name: str, tensor: Tensor) -> bool:
    """Whether a file in half precision stores the tensor ``name`` (with its prefix) so."""
    return tensor.ndim == 4 or name.startswith("d/")


def _parts(model: Model) -> dict[str, nn.Module]:
    """The networks of ``model`` but for its encoder, by the prefix of their tensors."""
    parts = {"g_ema": model.generator, "g": model.raw_generator, "d": model.discriminator}
    return {prefix: network for prefix, network in parts.items() if network is not None}


def save_model(path: str | os.PathLike[str], model: Model, *, half: bool = False) -> None:
    """Write ``model`` as a native file, atomically.

    Args:
        half: store most weights in half the bytes. They must be rounded before (`round_to_half`), so that the file holds
            exactly the generator that its fingerprint names.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, network in _parts(model).items():
        tensors.update({f"{prefix}/{name}": tensor for name, tensor in network.state_dict().items()})
    if half:
        tensors = {name: tensor.half() if _is_halved(name, tensor) else tensor for name, tensor in tensors.items()}
    tensors |= _encoder_tensors(model)
    header: dict[str, Any] = {
        "generator": model.generator.config.as_dict(),
        "discriminator": model.discriminator.config.as_dict() if model.discriminator else None,
        "encoder": model.encoder.config.as_dict() if model.encoder else None,
        "fingerprint": fingerprint(model.generator),
        "framing": model.framing,
        "provenance": model.provenance,
    }
    write_tensors(path, FORMAT, VERSION, header, tensors)


def _encoder_tensors(model: Model) -> dict[str, Tensor]:
    """In half precision, which no inversion notices."""
    if model.encoder is None:
        return {}
    tensors = {f"e/{name}": tensor.half() for name, tensor in model.encoder.state_dict().items()}
    return tensors | ({"e/curvature": model.curvature.factors.half()} if model.curvature else {})


def save_encoder(path: str | os.PathLike[str], model: Model, provenance: Mapping[str, Any]) -> None:
    """Write the encoder of ``model`` alone; beside the model's own file, as NAME.encoder.safetensors, it is found by itself."""
    assert model.encoder is not None
    header = {
        "generator": None,
        "encoder": model.encoder.config.as_dict(),
        "fingerprint": fingerprint(model.generator),
        "provenance": provenance,
    }
    write_tensors(path, FORMAT, VERSION, header, _encoder_tensors(model))


def load_encoder(path: str | os.PathLike[str], model: Model) -> None:
    """Give ``model`` the encoder in a file.

    Raises:
        Error: no encoder in it, or that of another generator.
    """
    header, tensors = read_tensors(path, FORMAT, VERSION)
    if not header.get("encoder"):
        raise Error(f"{path}: this model file has no encoder")
    own = fingerprint(model.generator)
    if header.get("fingerprint") != own:
        found = fingerprint_in(path, header)
        raise Error(f"{path}: an encoder for the generator {found[:12]}, this one is {own[:12]}")
    with complete(path, "model"):
        _take_encoder(model, header, tensors, path)


def fingerprint_in(path: str | os.PathLike[str], header: Mapping[str, Any]) -> str:
    """The fingerprint that a file's header states; `Error` where it states none."""
    found = header.get("fingerprint")
    if not isinstance(found, str):
        raise Error(f"{path}: the header's fingerprint must be 64 hexadecimal digits, found {quoted(found)}")
    return found


def _take_encoder(model: Model, header: dict[str, Any], tensors: dict[str, Tensor], path: str | os.PathLike[str]) -> None:
    parts = _part(tensors, "e/")
    factors = parts.pop("curvature", None)
    config, generator = EncoderConfig(**_options(header, "encoder")), model.generator
    sizes = (generator.resolution, generator.channels, generator.num_ws, generator.w_dim)
    if (config.resolution, config.channels, config.num_ws, config.w_dim) != sizes:
        raise Error(f"{path}: the encoder does not fit the generator")
    model.encoder = with_weights(Encoder, config, parts, path)
    if factors is not None:
        if factors.ndim != 3 or factors.shape[1:] != sizes[2:] or not bool(factors.isfinite().all()):
            raise Error(f"{path}: the curvature does not fit the generator")
        model.curvature = Curvature(factors.float())


def find_model(name: str | os.PathLike[str]) -> Path:
    """The file that a bundled name, a path, or the name of a published network (`latentedit.zoo`) stands for."""
    text = os.fspath(name)
    bundled = BUNDLED / f"{LATEST.get(text, text)}.safetensors"
    if os.sep not in text and not text.endswith((".safetensors", ".pkl", ".pt", ".pth")) and bundled.is_file():
        return bundled
    if Path(text).is_dir():
        raise Error(f"{text}: a folder, not a model file")
    if not Path(text).is_file():
        from latentedit import zoo

        published = zoo.find(text)
        if published is not None:
            return published
        if text in RETIRED:
            raise Error(
                f"{text}: this model no longer ships; use {RETIRED[text]} (128 px, colour) in its place. Latents and directions"
                f" of {text} need its own file, which is in the repository's history (latentedit/bundled at version 0.1.0)"
            )
        known = ", ".join(sorted([*LATEST, *(p.stem for p in _bundled())]))
        raise Error(
            f"{text}: no such model file; models that come with latentedit: {known};"
            ' "latentedit model zoo" lists published ones'
        )
    return Path(text)


def _bundled() -> list[Path]:
    return sorted(path for path in BUNDLED.glob("*.safetensors") if not path.name.endswith(ENCODER))


def bundled_with(own: str) -> str | None:
    """Name of the bundled model whose generator has the fingerprint ``own``."""
    for path in _bundled():
        if read_header(path, FORMAT, VERSION).get("fingerprint") == own:
            return path.stem
    return None


def load_model(name: str | os.PathLike[str], device: str | torch.device = "cpu") -> Model:
    """Read a bundled or published model by name, a native model file, an NVIDIA ``.pkl``, or a ``.pt`` or ``.pth`` of weights
    (rosinality's, genforce's, or NVIDIA's names).

    Raises:
        Error: no such file, damaged, or a kind of network that cannot be represented.
    """
    path = find_model(name)
    framing = _published_framing(name)
    with complete(path, "model"):
        model = _read(path)
        _check_facts(model)
    beside = path.with_name(path.stem + ENCODER)
    if model.encoder is None and beside.is_file():
        load_encoder(beside, model)
    for network in (model.generator, model.discriminator, model.raw_generator, model.encoder):
        if network is not None:
            network.eval().requires_grad_(False).to(device)
    frequencies = model.provenance.get("label_frequencies")
    if frequencies and len(frequencies) == model.generator.c_dim and sum(frequencies):
        model.generator.label_frequencies = [float(share) for share in frequencies]
    model.framing = model.framing or framing
    model.path = str(path)
    if not bool(model.generator.mapping.w_avg.any()):
        model.notes.append("the running mean of w in the file is zero, as if never measured; truncation draws to it")
    return model


def _read(path: Path) -> Model:
    """Whatever the file is called: downloads come under all sorts of names."""
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        raise Error(f"{path}: the file is empty")
    if start[8:9] == b"{" and start[4:8] == bytes(4):  # how safetensors begins
        header, tensors = read_tensors(path, FORMAT, VERSION)
        return _build(path, header, tensors)
    if is_picture(path):
        raise Error(f"{path}: a picture, not a model file")
    if start.lstrip()[:1] == b"<":
        raise Error(f"{path}: a web page, not a network; the download went wrong")
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and LEGACY in start):
        from latentedit.foreign.checkpoints import load_checkpoint

        return load_checkpoint(path)
    if start[:1] == b"\x80" or path.suffix.lower() == ".pkl":
        from latentedit.foreign.nvidia import load_nvidia

        return load_nvidia(path)
    if path.suffix.lower() in (".pt", ".pth"):
        raise Error(f"{path}: not a file of weights, or damaged")
    header, tensors = read_tensors(path, FORMAT, VERSION)
    return _build(path, header, tensors)


def _check_facts(model: Model) -> None:
    """Raise `Error` where what a file says of itself is of another kind than it should be."""
    if not isinstance(model.provenance, dict):
        raise Error("the header's provenance must be an object")
    check_framing(model.framing)
    shares = model.provenance.get("label_frequencies")
    if shares is not None and not (isinstance(shares, list) and all(_is_number(share) and share >= 0 for share in shares)):
        raise Error("the header's label_frequencies must be a list of numbers")
    names = model.provenance.get("label_names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str | int) for name in names)):
        raise Error("the header's label_names must be a list of names")


def check_framing(framing: Any) -> None:
    """Raise `Error` unless ``framing`` is what a file may say of how photographs are cropped (docs/formats.md)."""
    if not isinstance(framing, dict | None):
        raise Error(f"the header's framing must be an object, found {quoted(framing)}")
    found = framing or {}
    if "eyes" in found and not _are_eyes(found["eyes"]):
        raise Error("the header's framing must give the centres of two eyes, the viewer's left one first")
    if found.get("mouth") is not None and not _is_point(found["mouth"]):
        raise Error("the header's framing must give the centre of the mouth as two numbers")
    kind = found.get("kind", "")
    if not isinstance(kind, str):
        raise Error(f"the header's framing must be of a kind that has a name, found {quoted(kind)}")
    if kind == "ffhq" and not (found.get("eyes") and found.get("mouth")):
        raise Error("the header's framing of the kind ffhq must give the centres of eyes and mouth")


def _are_eyes(eyes: Any) -> bool:
    """Whether ``eyes`` are two points, the first one farther to the left."""
    return isinstance(eyes, list) and len(eyes) == 2 and all(_is_point(eye) for eye in eyes) and eyes[0][0] < eyes[1][0]


def _is_point(point: Any) -> bool:
    """Whether ``point`` is one near a crop, whose sides are 1."""
    return isinstance(point, list) and len(point) == 2 and all(_is_number(part) and abs(part) <= 100 for part in point)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15


def _published_framing(name: str | os.PathLike[str]) -> dict[str, Any] | None:
    """How the pictures of a published network are framed, which its file does not say."""
    if Path(name).suffix or Path(name).exists():
        return None
    from latentedit import zoo

    entry = zoo.catalogue().get(os.fspath(name))
    if entry is None or entry.framing is None:
        return None
    from latentedit.faces import FRAMINGS

    return FRAMINGS[entry.framing]


def _build(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    if header.get("generator") is None and header.get("encoder"):
        raise Error(f"{path}: holds the encoder of a model, not the model; give it with --encoder")
    with complete(path, "model"):
        generator = with_weights(Generator, GeneratorConfig(**_options(header, "generator")), _part(tensors, "g_ema/"), path)
        raw: Generator | None = None
        if any(name.startswith("g/") for name in tensors):
            raw = with_weights(Generator, generator.config, _part(tensors, "g/"), path)
        discriminator: Discriminator | None = None
        if header.get("discriminator"):
            config = DiscriminatorConfig(**_options(header, "discriminator"))
            discriminator = with_weights(build_discriminator, config, _part(tensors, "d/"), path)
        model = Model(generator, discriminator, header.get("framing"), header.get("provenance") or {}, str(path), raw)
        if header.get("encoder"):
            _take_encoder(model, header, tensors, path)
    return model


def _options(header: Mapping[str, Any], name: str) -> dict[str, Any]:
    options = header.get(name)
    if not isinstance(options, dict):
        raise Error(f"the header's {name} must be an object, found {quoted(options)}")
    return options


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def with_weights(
    kind: Callable[[Config], Network], config: Config, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> Network:
    """The network ``kind(config)`` filled with ``tensors``; the names and shapes must be exactly its own.

    Nothing is allocated before names and shapes are known to fit, whatever sizes a file's header speaks of.

    Raises:
        Error: names the first tensor that is missing, too many or of another shape.
    """
    with torch.device("meta"):
        network = kind(config)
    expected = network.state_dict()
    name_of_kind = {Generator: "generator", Encoder: "encoder"}.get(type(network), "discriminator")
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise Error(f"{path}: the {name_of_kind} has no tensor {name}")
        if name not in expected:
            unknown = shown(str(name))
            raise Error(f"{path}: the {name_of_kind} has an unknown tensor {unknown}; its architecture cannot be represented")
        tensor = tensors[name]
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, expected {list(expected[name].shape)}"
            raise Error(f"{path}: {name_of_kind} tensor {name} has shape {shapes}")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_complex() or tensor.is_quantized:
            raise Error(f"{path}: {name_of_kind} tensor {name} is not a plain tensor of numbers")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise Error(f"{path}: {name_of_kind} tensor {name} claims more numbers than the file holds")
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()}
    if sum(t.numel() * 4 for t in tensors.values()) > 4 * sum(storages.values()) + SLACK:
        raise Error(f"{path}: the {name_of_kind}'s tensors are the same numbers again and again")
    # Copies, as networks of one file may share tensors.
    weights = {name: tensor.detach().to(torch.float32, copy=True).contiguous() for name, tensor in tensors.items()}
    for name, tensor in weights.items():
        check_numbers(path, name, tensor)
    network.load_state_dict(weights, assign=True)
    if isinstance(config, EncoderConfig):
        return network
    filter = fir_taps(config.resample_filter)  # in no file
    for module in network.modules():
        if "resample_filter" in module._buffers:
            module.resample_filter = filter
    return network


def load_generator(name: str | os.PathLike[str], device: str | torch.device = "cpu") -> Generator:
    """The generator of a model file or bundled model (``"faces128"``), ready to render; see `load_model`."""
    return load_model(name, device).generator


def load_discriminator(name: str | os.PathLike[str], device: str | torch.device = "cpu") -> Discriminator:
    """The discriminator of a model file; `Error` where the file has none. See `load_model`."""
    discriminator = load_model(name, device).discriminator
    if discriminator is None:
        raise Error(f"{name}: this model file has no discriminator")
    return discriminator
