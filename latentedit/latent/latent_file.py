"""Latent files: everything needed to render an image again (docs/formats.md)."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentedit.errors import (
    ArgumentError,
    FormatError,
    IncompatibleError,
    OutputError,
    is_number,
    shown,
)
from latentedit.io.native_file import check_numbers, write_tensors
from latentedit.networks.generator import Generator
from latentedit.networks.noise import Noise

FORMAT = "latentedit-latent"
VERSION = 1
CORNERS = 1e7
"""Largest distance of a crop's corner from the corner of its photo, in pixels."""
HASH = re.compile("[0-9a-f]{128}")
MOST_SLIDERS = 1000
"""Number of sliders whose safe amounts a file may list ..."""
LARGEST = 1000
"""... and the largest such amount in sigmas."""


@dataclass
class Latent:
    """A latent: one image in the latent space of a generator."""

    ws: Tensor
    """``[1, num_ws, w_dim]``."""
    noise: list[Tensor] | None
    """Noise maps ``[1, 1, h, w]``, coarse to fine; None means the generator's own."""
    fingerprint: str
    """Fingerprint of its generator (`latentedit.networks.fingerprint.fingerprint`); "" if the file
    does not name it."""
    space: str
    """"w" (the same w in all layers), "w+" or "s"."""
    crop: list[list[float]] | None = None
    """Corners of the crop in the source photo, in pixels: upper left, upper right, lower right,
    lower left."""
    settings: dict[str, Any] = field(default_factory=dict)
    distances: dict[str, float] = field(default_factory=dict)
    source: dict[str, str] | None = None
    """Name and SHA-256 of the photo; only stored on request."""
    tuned: dict[str, Tensor] = field(default_factory=dict)
    """Change of the generator for this photo,
    as `latentedit.latent.deltas.compress_deltas` returns it; empty without tuning."""
    styles: list[Tensor] = field(default_factory=list)
    """Offsets ``[1, I]`` to add to the styles computed from ``ws``, in order of use; empty except
    in the space "s"."""
    safe: dict[str, tuple[float, float]] | None = None
    """Sliders that ship for the generator, and the lowest and highest amount in sigmas at which the
    picture was seen to stay one of its own; None where nobody looked."""
    crop_hash: str | None = None
    """Hash of the crop (`latentedit.photo.crop_hash`), by which its photo is known again."""

    def __repr__(self) -> str:
        rows, width = self.ws.shape[-2:]
        edits = self.settings.get("edits") or []
        edited = f", {len(edits)} edits" if edits else ""
        return f"Latent({self.space}, {rows} x {width}, {self.fingerprint[:12]}{edited})"

    def check_generator(self, own: str, name: str, *, force: bool | None = None) -> None:
        """Raise `Error` unless ``own`` is the fingerprint of this latent's generator, or ``force``
        is set.

        A latent of another tool has no fingerprint; it is assumed to belong to this generator.

        Args:
            force: None if the user has no such option.
        """
        self.fingerprint = self.fingerprint or own
        if own != self.fingerprint and not force:
            reason = (
                f"this latent belongs to the generator {self.fingerprint[:12]}, {name} is "
                f"{own[:12]}"
            )
            advice = "" if force is None else "use `force=True` to render it anyway"
            raise IncompatibleError(reason, expected=self.fingerprint, actual=own, advice=advice)

    def check_shapes(self, generator: Generator) -> None:
        """Raise `Error` unless layers, noise maps and style offsets fit ``generator``."""
        rows, width = self.ws.shape[1:]
        if rows not in (1, generator.num_ws) or width != generator.w_dim:
            raise IncompatibleError(
                f"this latent has {rows} x {width} numbers, the generator takes "
                f"{generator.num_ws} x {generator.w_dim}"
            )

        shapes = [tuple(map_.shape) for map_ in self.noise or []]
        if shapes and shapes != generator.synthesis.noise_shapes:
            raise IncompatibleError(
                "the sizes of this latent's noise maps do not match the generator"
            )

        sizes = [size for _, size in generator.synthesis.style_layers]
        if self.styles and [offset.shape[-1] for offset in self.styles] != sizes:
            raise IncompatibleError("this latent's style offsets do not fit the generator")

    def rows(self, num_ws: int) -> Tensor:
        """Return ``ws`` with one w per layer; other tools store a single w if all are equal."""
        return self.ws.expand(-1, num_ws, -1) if self.ws.shape[1] == 1 else self.ws

    @torch.no_grad()
    def render(self, generator: Generator) -> Tensor:
        """Render the image, ``[1, C, H, W]``; the result is bit-identical every time on one
        machine."""
        device = generator.device
        noise: Noise = "const" if self.noise is None else [map_.to(device) for map_ in self.noise]
        if self.tuned:
            from latentedit.latent.deltas import expand_deltas, with_deltas

            generator = with_deltas(
                generator, expand_deltas(self.tuned, dict(generator.synthesis.named_parameters()))
            )

        return render(
            generator,
            self.rows(generator.num_ws).to(device),
            noise,
            [offset.to(device) for offset in self.styles],
        )


@torch.no_grad()
def render(
    generator: Generator, ws: Tensor, noise: Noise = "const", styles: Sequence[Tensor] = ()
) -> Tensor:
    """Render ``ws`` with the offsets ``styles``, each ``[N, I]``, added to its styles:
    ``[N, C, H, W]``.

    Raises:
        Error: offsets for another network.
    """
    if not styles:
        image: Tensor = generator.synthesis(ws, noise=noise)
        return image
    own = generator.synthesis.styles(ws)
    if [s.shape[1] for s in own] != [offset.shape[-1] for offset in styles]:
        raise IncompatibleError("this latent's style offsets do not fit the generator")

    moved: Tensor = generator.synthesis.synthesize(
        [s + o for s, o in zip(own, styles, strict=True)], noise=noise
    )
    return moved


def package_version() -> str:
    try:
        return version("latentedit")
    except PackageNotFoundError:
        return "unknown"


def versions() -> dict[str, str]:
    return {"latentedit": package_version(), "torch": torch.__version__}


def check_writable(path: str | os.PathLike[str], latent: Latent) -> None:
    """Raise `Error` if ``latent`` has numbers that readers refuse."""
    tensors = [
        latent.ws,
        *(latent.noise or []),
        *(latent.styles or []),
        *(latent.tuned or {}).values(),
    ]
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise OutputError(
            "not written, because the latent has values that are not numbers", path=path
        )


def save_latent(path: str | os.PathLike[str], latent: Latent) -> None:
    """Write a latent file, atomically."""
    if latent.ws.ndim != 3 or latent.ws.shape[0] != 1:
        raise ArgumentError.of_shape(
            "ws", "[1, num_ws, w_dim], as a latent file holds one latent", latent.ws.shape
        )

    check_writable(path, latent)
    tensors = {"ws": latent.ws.float()}
    for index, map_ in enumerate(latent.noise or []):
        tensors[f"noise/{index:02d}"] = map_.float()
    tensors |= {f"styles/{index:02d}": offset.float() for index, offset in enumerate(latent.styles)}
    tensors |= {f"tuned/{name}": tensor.half() for name, tensor in latent.tuned.items()}
    header = {
        "fingerprint": latent.fingerprint,
        "space": latent.space,
        "crop": latent.crop,
        "crop_hash": latent.crop_hash,
        "settings": latent.settings,
        "distances": {name: value for name, value in latent.distances.items() if is_number(value)},
        "source": latent.source,
        "safe": None
        if latent.safe is None
        else {name: list(ends) for name, ends in latent.safe.items()},
        "versions": versions(),
    }
    write_tensors(path, FORMAT, VERSION, header, tensors)


def _check_header(path: str | os.PathLike[str], header: dict[str, Any]) -> None:
    """Raise `Error` if a value in the header of a latent file has the wrong type."""
    kinds = {
        "settings": dict,
        "distances": dict,
        "source": dict,
        "safe": dict,
        "crop": list,
        "space": str,
        "crop_hash": str,
    }
    for name, kind in kinds.items():
        if header.get(name) is not None and not isinstance(header[name], kind):
            raise FormatError(f"a latent file's {name} must be a {kind.__name__}", path=path)
    if not isinstance(header.get("fingerprint"), str):
        raise FormatError(
            "a latent file needs ws of shape [1, num_ws, w_dim] and a fingerprint", path=path
        )
    if header.get("space") not in (None, "w", "w+", "s"):
        raise FormatError.of("a latent's space", "w, w+ or s", header["space"], path=path)
    if not all(is_number(value) for value in (header.get("distances") or {}).values()):
        raise FormatError("a latent file's distances must be numbers", path=path)

    edits = (header.get("settings") or {}).get("edits", [])
    if not isinstance(edits, list) or not all(isinstance(edit, str) for edit in edits):
        raise FormatError(
            "the edits in a latent file's settings must be a list of texts", path=path
        )
    if not all(isinstance(text, str) for text in (header.get("source") or {}).values()):
        raise FormatError("a latent file's source must be a name and a checksum", path=path)

    crop = header.get("crop")
    if crop is not None and not _is_quad(crop):
        raise FormatError("a latent file's crop must be four corners of two numbers", path=path)

    digits = header.get("crop_hash")
    if digits is not None and not HASH.fullmatch(digits):
        raise FormatError("a latent file's crop_hash must be 128 hexadecimal digits", path=path)

    safe = header.get("safe") or {}
    if len(safe) > MOST_SLIDERS or not all(_are_ends(ends) for ends in safe.values()):
        raise FormatError(
            "a latent file's safe amounts must be a lowest and a highest one for every slider",
            path=path,
        )


def safe_in(header: dict[str, Any]) -> dict[str, tuple[float, float]] | None:
    """Return the safe amounts of a checked header; None in files of before there were any."""
    found = header.get("safe")
    return (
        None
        if found is None
        else {name: (float(low), float(high)) for name, (low, high) in found.items()}
    )


def _are_ends(ends: Any) -> bool:
    if not isinstance(ends, list) or len(ends) != 2:
        return False
    return all(is_number(end, LARGEST) for end in ends) and ends[0] <= 0 <= ends[1]


def _is_quad(crop: list[Any]) -> bool:
    numbers = [
        part for corner in crop[:5] for part in (corner if isinstance(corner, list) else [None])
    ]
    corners = len(crop) == 4 and all(
        isinstance(corner, list) and len(corner) == 2 for corner in crop
    )
    return corners and all(is_number(part, CORNERS) for part in numbers)


def _floats(path: str | os.PathLike[str], name: str, tensor: Tensor) -> Tensor:
    """As the networks compute with them: a number of the file can be too large for that."""
    if not tensor.is_floating_point():
        raise FormatError(
            f"tensor {shown(name)} is of {tensor.dtype}, expected fractions", path=path
        )
    found = tensor.float()
    check_numbers(path, name, found)
    return found


def describe_source(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the name and SHA-256 of a photo, for latent files that store them."""
    return {"name": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
