"""The options of an album, and what they and the files that they name say about whether a photo is
done already."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from latentedit.album.cropping import Cropping, FileName
from latentedit.errors import ArgumentError, NotFoundError
from latentedit.inversion.options import InversionOptions
from latentedit.inversion.projector import Projector
from latentedit.latent.spaces import S, space_of
from latentedit.photo.landmarks import has_landmarks


@dataclass(frozen=True)
class AlbumOptions:
    """What is done with every photo of an album.

    Raises:
        Error: a number out of its range, or tuning in style space.
    """

    inversion: InversionOptions = field(default_factory=InversionOptions)
    cropping: Cropping = field(default_factory=Cropping)
    tune_steps: int = 0
    """Steps of pivotal tuning after the search; 0 for none."""
    mask: FileName | None = None
    """Image of the crop's shape: white pixels count, black ones do not."""
    encoder: FileName | None = None
    """The file that the model's encoder was read from, where that was named and not found."""
    batch: int | None = None
    """Photos that are searched together; None for as many as suit the model and the device."""
    video: bool = False
    """Whether a video of the search is written too."""
    remember_source: bool = False
    """Whether latent files have the photo's name and SHA-256."""
    again: bool = False
    """Whether photos are done anew that are done already."""

    def __post_init__(self) -> None:
        if self.tune_steps < 0:
            raise ArgumentError.of("tune_steps", "at least 0", self.tune_steps)
        if self.batch is not None and self.batch < 1:
            raise ArgumentError.of("batch", "at least 1", self.batch)
        if self.tune_steps and space_of(self.inversion.space) is S:
            raise ArgumentError('tune_steps needs the space "w" or "w+"', argument="tune_steps")

    @property
    def named_files(self) -> list[Path]:
        """The files whose contents the result depends on."""
        names = (self.mask, self.encoder, self.cropping.face_detector)
        return [Path(name) for name in names if name is not None]


def resume_facts(options: AlbumOptions, projector: Projector) -> dict[str, Any]:
    """Return everything but the photo that decides what becomes of it, for
    `latentedit.album.index.keys`.

    Files stand by their SHA-256, and the parts of the model by that of their weights, so that a
    changed file of the same name makes a photo be done anew, and a renamed file of the same content
    does not.
    """
    inversion = asdict(options.inversion)
    # What the search starts from is said by the encoder's weights.
    del inversion["init"]
    # No photo of an album has a neighbour.
    del inversion["neighbour_weight"]
    inversion["steps"] = options.inversion.step_count
    cropping = asdict(options.cropping)
    cropping["face_detector"] = _content(options.cropping.face_detector)

    encoder = projector.encoder if projector.starts_from_encoder(options.inversion) else None
    curvature = projector.given_curvature
    discriminator = projector.discriminator
    label = projector.settings.label
    return {
        **({} if label is None else {"label": label}),
        "inversion": inversion,
        "cropping": cropping,
        "tune_steps": options.tune_steps,
        "mask": _content(options.mask),
        "model": projector.fingerprint,
        "discriminator": None if discriminator is None else _weights(discriminator.state_dict()),
        "encoder": None if encoder is None else _weights(encoder.state_dict()),
        "curvature": None if curvature is None else _weights({"factors": curvature.factors}),
        "perceptual": projector.perceptual.name,
        "framing": projector.framing,
        "landmarks68": has_landmarks(),
    }


def resume_facts_before(options: AlbumOptions, projector: Projector) -> dict[str, Any]:
    """Return the same as albums of 0.1.0 and of early versions of 0.2.0 have it: files by their
    names alone."""
    search = options.inversion
    cropping = options.cropping
    return {
        "method": search.method,
        "steps": search.step_count,
        "patience": search.patience,
        "restarts": search.restarts,
        "noise": search.noise,
        "prior_weight": search.prior_weight,
        "delta_weight": search.delta_weight,
        "adversarial_weight": search.adversarial_weight,
        "seed": search.seed,
        "space": search.space,
        "perceptual": projector.perceptual.name,
        "model": projector.fingerprint,
        "mask": None if options.mask is None else os.fspath(options.mask),
        "encoder": projector.starts_from_encoder(search),
        "tune": options.tune_steps,
        "crop": cropping.crop,
        "aligned": cropping.aligned,
        "face": cropping.face,
        "landmarks": cropping.landmarks,
        "face_detector": None
        if cropping.face_detector is None
        else os.fspath(cropping.face_detector),
        "framing": projector.framing,
        "landmarks68": has_landmarks(),
        "pixel_weight": search.pixel_weight,
    }


def _content(name: FileName | None) -> str | None:
    """Return the SHA-256 of a file.

    Raises:
        Error: the file cannot be read.
    """
    if name is None:
        return None
    try:
        with open(name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NotFoundError(f"cannot be read ({error.strerror or error})", path=name) from error


def _weights(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
