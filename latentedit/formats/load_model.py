"""Reads every kind of model file: native files, those of other tools, and networks by name."""

import logging
import os
from pathlib import Path
from typing import Any

import torch

from latentedit.errors import FormatError, NotFoundError, complete, is_number
from latentedit.formats.find_model import find_model
from latentedit.io.files import is_picture
from latentedit.io.native_file import read_tensors
from latentedit.model.bundled import ENCODER
from latentedit.model.model import Model
from latentedit.model.native import FORMAT, VERSION, build_native, load_encoder
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.generator import Generator
from latentedit.photo.framing import check_framing

LOG = logging.getLogger(__name__)
LEGACY = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
"""What torch's older files of weights begin with, after two or three bytes."""


def load_model(
    name: str | os.PathLike[str], device: str | torch.device = "cpu", *, encoder: bool = True
) -> Model:
    """Read a bundled or published model by name, a native model file, an NVIDIA ``.pkl``, or a
    ``.pt`` or ``.pth`` of weights (rosinality's, genforce's, or NVIDIA's names).

    Args:
        encoder: whether the encoder in NAME.encoder.safetensors beside the model is read too, which
            only inversions need.

    Raises:
        Error: the file does not exist, is damaged, or contains an unsupported kind of network.
    """
    path = find_model(name)
    framing = _published_framing(name)
    with complete(path, "model"):
        model = _read(path)
        _check_facts(model)
    # An encoder is trained later than its model, and by somebody else, so it may be a file of its
    # own.
    beside = path.with_name(path.stem + ENCODER)
    if encoder and model.encoder is None and beside.is_file():
        load_encoder(beside, model)
    for network in (model.generator, model.discriminator, model.raw_generator, model.encoder):
        if network is not None:
            # Weights are constants for everything but training: no gradients are stored for them.
            network.eval().requires_grad_(False).to(device)
    frequencies = model.provenance.get("label_frequencies")
    if frequencies and len(frequencies) == model.generator.c_dim and sum(frequencies):
        model.generator.label_frequencies = [float(share) for share in frequencies]
    model.framing = model.framing or framing
    model.path = str(path)
    LOG.debug(
        "read the model %s: %d px, %d layers",
        path,
        model.generator.resolution,
        model.generator.num_ws,
    )
    if not bool(model.generator.mapping.w_avg.any()):
        model.notes.append(
            "the running mean of w in the file is zero, so it was probably never measured; "
            "truncation moves latents towards it"
        )
    return model


def _read(path: Path) -> Model:
    """Whatever the file is called: downloads come under all sorts of names."""
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        raise FormatError("the file is empty", path=path)

    if start[8:9] == b"{" and start[4:8] == bytes(4):  # how safetensors begins
        header, tensors = read_tensors(path, FORMAT, VERSION)
        return build_native(path, header, tensors)
    if is_picture(path):
        raise FormatError("an image, not a model file", path=path)
    # Download links often give a page that asks for a confirmation.
    if start.lstrip()[:1] == b"<":
        raise FormatError("a web page, not a network; the download went wrong", path=path)

    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and LEGACY in start):
        from latentedit.formats.checkpoints import load_checkpoint

        return load_checkpoint(path)

    if start[:1] == b"\x80" or path.suffix.lower() == ".pkl":
        from latentedit.formats.nvidia import load_nvidia

        return load_nvidia(path)

    if path.suffix.lower() in (".pt", ".pth"):
        raise FormatError("not a file of weights, or damaged", path=path)

    header, tensors = read_tensors(path, FORMAT, VERSION)
    return build_native(path, header, tensors)


def _check_facts(model: Model) -> None:
    """Raise `Error` if a value in the header of a model file has the wrong type."""
    if not isinstance(model.provenance, dict):
        raise FormatError("the header's provenance must be an object")
    check_framing(model.framing)
    shares = model.provenance.get("label_frequencies")
    if shares is not None and not (
        isinstance(shares, list) and all(is_number(share, 1e15) and share >= 0 for share in shares)
    ):
        raise FormatError("the header's label_frequencies must be a list of numbers")

    names = model.provenance.get("label_names")
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str | int) for name in names)
    ):
        raise FormatError("the header's label_names must be a list of names")


def _published_framing(name: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the framing of a published network, which its file does not define; None for other
    models."""
    if Path(name).suffix or os.path.exists(name):
        return None
    from latentedit.formats import zoo

    entry = zoo.catalogue().get(os.fspath(name))
    if entry is None or entry.framing is None:
        return None

    from latentedit.photo.framing import FRAMINGS

    return FRAMINGS[entry.framing]


def add_encoder(path: str | os.PathLike[str], model: Model) -> None:
    """Load the encoder in a file into ``model``: one of our own, or a published checkpoint (pSp,
    e4e, ReStyle).

    Raises:
        Error: no encoder, or one that belongs to another generator.
    """
    if not os.path.isfile(path):
        raise NotFoundError("no such encoder file", path=path)
    with open(path, "rb") as file:
        start = file.read(64)
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and LEGACY in start):
        from latentedit.formats.checkpoints import load_published_encoder

        load_published_encoder(path, model)
    else:
        load_encoder(path, model)


def load_generator(name: str | os.PathLike[str], device: str | torch.device = "cpu") -> Generator:
    """Load the generator of a model file or a bundled model (``"faces128"``), ready to render; see
    `load_model`."""
    return load_model(name, device).generator


def load_discriminator(
    name: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> Discriminator:
    """Load the discriminator of a model file; raise `Error` if the file has none. See
    `load_model`."""
    discriminator = load_model(name, device).discriminator
    if discriminator is None:
        raise NotFoundError("this model file has no discriminator", path=name)
    return discriminator
