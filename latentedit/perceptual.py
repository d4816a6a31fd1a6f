"""Perceptual distances: LPIPS where its backbone is at hand, else features of the model's own discriminator.

Both give features whose squared Euclidean distance is the perceptual distance, so that those of a target picture are
computed once.
"""

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.compatibility import import_with_torchvision
from latentedit.discriminator import Discriminator
from latentedit.errors import Error

VGG_FILE = "vgg16-397923af.pth"
VGG_BYTES = 553_433_881
"""Size of the backbone's weights; the name carries the first digits of their SHA-256, as torch hub checks them."""
LPIPS_SIZE = 256
"""Larger pictures are reduced to this side before LPIPS, as in the published projector."""


class Perceptual(Protocol):
    """A distance between pictures ``[N, C, H, W]`` in [-1, 1]."""

    name: str

    def features(self, image: Tensor) -> Tensor:
        """``[N, K]``; the squared Euclidean distance of two rows is the distance of the pictures."""


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Distance of two sets of `Perceptual.features`, ``[N, K] -> [N]``."""
    return (a - b).square().sum(dim=1)


def _unit(x: Tensor) -> Tensor:
    """Feature vectors at every position to length 1; unlike `lpips.normalize_tensor`, differentiable at zero."""
    return x / ((x.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + 1e-10)


class DiscriminatorDistance:
    """Unit-normalised discriminator activations after every block, averaged over positions and blocks.

    The comparison is that of LPIPS (Zhang et al. 2018, eq. 1) with a network that was trained on the model's own kind of
    pictures and equal weights. It needs no download and works in grey; its numbers are not LPIPS numbers.
    """

    name = "discriminator"

    def __init__(self, discriminator: Discriminator) -> None:
        self.discriminator = discriminator

    def features(self, image: Tensor) -> Tensor:
        maps = self.discriminator.features(image)
        parts = [_unit(x) / (x.shape[2] * x.shape[3] * len(maps)) ** 0.5 for x in maps]
        return torch.cat([part.flatten(1) for part in parts], dim=1)


class LpipsDistance:
    """LPIPS with VGG-16 (Zhang et al. 2018), through the ``lpips`` package's own layers and weights.

    Args:
        weights: the backbone's file; None builds a random backbone, which only tests want.
    """

    name = "lpips"

    def __init__(self, weights: str | os.PathLike[str] | None, device: str | torch.device = "cpu") -> None:
        state = None if weights is None else _read_backbone(Path(weights))
        lpips = import_with_torchvision("lpips")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's notes on its own renamed arguments
            network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
        if state is not None:
            own = network.net.state_dict()
            wanted = {name: f"features.{name.split('.', 1)[1]}" for name in own}  # slice2.5.weight: features.5.weight
            network.net.load_state_dict({name: state[source] for name, source in wanted.items()})
        self.network: nn.Module = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)

    def features(self, image: Tensor) -> Tensor:
        network: Any = self.network
        if image.shape[1] == 1:
            image = image.expand(-1, 3, -1, -1)
        if image.shape[-1] > LPIPS_SIZE:
            image = F.interpolate(image, size=(LPIPS_SIZE, LPIPS_SIZE), mode="area")
        image = image.contiguous(memory_format=torch.channels_last)
        parts = []
        for x, lin in zip(network.net(network.scaling_layer(image)), network.lins, strict=True):
            weight = lin.model[-1].weight.clamp(min=0).sqrt()  # [1, C, 1, 1]
            parts.append((_unit(x) * weight / (x.shape[2] * x.shape[3]) ** 0.5).flatten(1))
        return torch.cat(parts, dim=1)


def hub_cache() -> Path:
    """Where torch hub, and so ``lpips``, would put the backbone."""
    return Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE


def choose(
    kind: str,
    discriminator: Discriminator | None,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Perceptual, str]:
    """The distance that ``kind`` stands for, and one line that says which it is and why.

    Args:
        kind: "auto" (LPIPS where its backbone is given or cached, else the discriminator), "lpips" or "discriminator".

    Raises:
        Error: LPIPS without weights, or neither weights nor a discriminator. Nothing is ever downloaded.
    """
    if kind not in ("auto", "lpips", "discriminator"):
        raise Error(f"perceptual distance must be auto, lpips or discriminator, got {kind!r}")
    file = Path(weights) if weights is not None else hub_cache()
    if kind == "lpips" or (kind == "auto" and (weights is not None or file.is_file())):
        if not file.is_file():
            raise Error(
                f"LPIPS needs {VGG_FILE} ({VGG_BYTES / 2**20:.0f} MB), which is not fetched unasked: put it at"
                f" {file} or name it with --perceptual-weights"
            )
        return LpipsDistance(file, device), f"perceptual distance: LPIPS (VGG) with {file}"
    if discriminator is None:
        raise Error(f"this model file has no discriminator to compare pictures with; give {VGG_FILE} with --perceptual-weights")
    why = "" if kind == "discriminator" else f" (no {VGG_FILE} in the torch hub cache)"
    return DiscriminatorDistance(discriminator), f"perceptual distance: features of the model's own discriminator{why}"


def _read_backbone(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise Error(f"{path}: no such file")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = VGG_FILE.split("-")[1].split(".")[0]
    if not digest.startswith(expected):
        raise Error(f"{path}: SHA-256 begins with {digest[:8]}, {VGG_FILE} has {expected}; the file is damaged or another")
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
