"""Perceptual distances: LPIPS, Shift-Tolerant LPIPS, features of a discriminator, and sums of them.

All return features whose squared Euclidean distance is the perceptual distance, so that those of a
target image are computed only once.
"""

import hashlib
import importlib.util
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import ArgumentError, FormatError, NotFoundError, complete
from latentedit.inversion.face_weights import at_size
from latentedit.io.budget import file_size
from latentedit.io.native_file import check_numbers
from latentedit.io.torch_files import read_state
from latentedit.io.weights import VGG16, fetched
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.layers import full
from latentedit.runtime.torchvision_stubs import import_with_torchvision

LPIPS_SIZE = 256
"""Larger images are reduced to this side before LPIPS, as in the published projector."""
STLPIPS_PACKAGE = "stlpips_pytorch"
STLPIPS_LEAST = 32
"""Smaller images are enlarged to this side before ST-LPIPS, whose blurs need a few pixels."""
DISCRIMINATOR_WEIGHT = 1.0
"""Share of the discriminator's distance in what `choose` takes for "auto" ..."""
STLPIPS_WEIGHT = 0.3
"""... and that of ST-LPIPS."""
KINDS = ("auto", "lpips", "stlpips", "discriminator")
ADVICE = 'pip install "latentedit[perceptual]"'


class Perceptual(Protocol):
    """A distance between images ``[N, C, H, W]`` in [-1, 1]."""

    name: str

    def features(self, image: Tensor) -> Tensor:
        """Return ``[N, K]``; the squared Euclidean distance of two rows is the distance of the
        pictures."""


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the distance of two sets of `Perceptual.features`, ``[N, K] -> [N]``."""
    return (a - b).square().sum(dim=1)


def _unit(x: Tensor) -> Tensor:
    """Feature vectors at every position to length 1; unlike `lpips.normalize_tensor`,
    differentiable at zero."""
    return x / ((x.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + 1e-10)


class DiscriminatorDistance:
    """A distance of unit-normalised discriminator activations after every block, averaged over
    positions and blocks.

    It is computed as LPIPS (Zhang et al. 2018, eq. 1), but with equal weights and a network that
    was trained on the same kind of images as the model. It needs no download and works with
    greyscale images. Its values do not compare with those of LPIPS.

    Args:
        focus: weights of the pixels, ``[1, 1, H, W]`` of mean 1, from
            `latentedit.inversion.face_weights`.
    """

    def __init__(self, discriminator: Discriminator, focus: Tensor | None = None) -> None:
        self.discriminator = discriminator
        self.focus = focus
        self.name = "discriminator" if focus is None else "discriminator-face"

    def features(self, image: Tensor) -> Tensor:
        # Equal weights for all blocks: LPIPS learned its weights from human judgements, for which
        # this network has none.
        maps = self.discriminator.features(image)
        parts = [_unit(x) / (x.shape[2] * x.shape[3] * len(maps)) ** 0.5 for x in maps]
        if self.focus is not None:
            # Kept where the pictures are, as a CUDA graph can hold no copy from the host.
            self.focus = self.focus.to(image.device)
            parts = [part * at_size(self.focus, *part.shape[2:]).sqrt() for part in parts]
        return torch.cat([part.flatten(1) for part in parts], dim=1)


class LpipsDistance:
    """LPIPS with VGG-16 (Zhang et al. 2018), through the ``lpips`` package's own layers and
    weights.

    Args:
        weights: the backbone's file; None builds a random backbone, for tests only.
        dtype: type of the backbone's convolutions; None for half precision on CUDA and float32
            elsewhere. Everything after them is float32, and distances agree to 1 %.
    """

    name = "lpips"

    def __init__(
        self,
        weights: str | os.PathLike[str] | None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        # Half precision doubles the speed on a GPU, and is slower than float32 on most CPUs.
        usual = torch.float16 if torch.device(device).type == "cuda" else torch.float32
        self.dtype = dtype or usual
        state = None if weights is None else _read_backbone(Path(weights))
        lpips = import_with_torchvision("lpips")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's notes on its own renamed arguments
            network = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)

        # The package would leave reading its own weights to torch's loader.
        linear = read_weights(Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth")
        network.load_state_dict(linear, strict=False)
        if state is not None:
            own = network.net.state_dict()
            # slice2.5.weight: features.5.weight
            wanted = {name: f"features.{name.split('.', 1)[1]}" for name in own}
            network.net.load_state_dict({name: state[source] for name, source in wanted.items()})

        self.network: nn.Module = (
            network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        )
        self.network.net.to(self.dtype)

    def features(self, image: Tensor) -> Tensor:
        network: Any = self.network
        image = _in_colour(image).contiguous(memory_format=torch.channels_last)
        scaled = network.scaling_layer(image)
        parts = []
        for x, lin in zip(self._activations(scaled), network.lins, strict=True):
            # The root, as features are squared when they are compared; LPIPS' weights are not
            # negative.
            weight = lin.model[-1].weight.clamp(min=0).sqrt()  # [1, C, 1, 1]
            parts.append((_unit(x) * weight / (x.shape[2] * x.shape[3]) ** 0.5).flatten(1))
        return torch.cat(parts, dim=1)

    def _activations(self, x: Tensor) -> list[Tensor]:
        """Return the backbone's activations, in float32 or wider; gradients in half precision are
        kept from vanishing by a factor."""
        network: Any = self.network
        if self.dtype != torch.float16:
            return [full(y) for y in network.net(x.to(self.dtype))]
        factor = float(x.shape[2] * x.shape[3])  # as the mean over positions divides by it
        # Gradients of means over many positions fall below the smallest half-precision number.
        x = _scaled_gradient(x, 1 / factor).to(self.dtype)
        return [_scaled_gradient(full(y), factor) for y in network.net(x)]


def _scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """Return ``x``, whose gradient is multiplied by ``factor``."""
    result: Tensor = _ScaledGradient.apply(x, factor)  # type: ignore[no-untyped-call]
    return result


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class StlpipsDistance:
    """Shift-Tolerant LPIPS: LPIPS with a network that blurs before it subsamples.

    It is that of Ghildyal and Liu (2022). The weights are read from the package
    ``stlpips-pytorch``. Its code is not imported, because it needs IPython and unpickles any
    content of its file. The distance is reproduced here, with the first two layers computed as one.

    Args:
        network: "alex", or "vgg", which takes about five times as long and is used as an
            independent measurement.

    Raises:
        Error: the package is not installed, or its file has other contents.
    """

    def __init__(
        self,
        network: Literal["alex", "vgg"] = "alex",
        device: str | torch.device = "cpu",
    ) -> None:
        if network not in ("alex", "vgg"):
            raise ArgumentError(f'ST-LPIPS has the networks "alex" and "vgg", got {network!r}')
        self.name = "stlpips" if network == "alex" else f"stlpips-{network}"
        state = _read_stlpips(network)
        with complete(STLPIPS_PACKAGE, "network"):
            self.network = _ShiftTolerant(state, network).eval().requires_grad_(False).to(device)

    def features(self, image: Tensor) -> Tensor:
        """Unit-normalised activations of five layers, ``[N, C, H, W]`` in [-1, 1] to ``[N, K]``.

        Grey pictures count as colour. Those beyond `LPIPS_SIZE` are reduced, those below
        `STLPIPS_LEAST` enlarged.
        """
        image = _in_colour(image)
        if min(image.shape[2:]) < STLPIPS_LEAST:
            size = [max(side, STLPIPS_LEAST) for side in image.shape[2:]]
            image = F.interpolate(image, size, mode="bilinear", align_corners=False)
        features: Tensor = self.network(image)
        return features


class CombinedDistance:
    """A weighted sum of distances.

    Args:
        parts: distances and their weights; all must take the same images.

    Raises:
        Error: no parts, or a weight that is not positive.
    """

    def __init__(self, parts: Sequence[tuple[Perceptual, float]]) -> None:
        if not parts:
            raise ArgumentError("a combined distance needs at least one part, got none")
        for part, weight in parts:
            if not (weight > 0 and math.isfinite(weight)):
                raise ArgumentError.of(f"the weight of {part.name}", "a positive number", weight)
        self.parts = list(parts)
        names = [part.name if weight == 1 else f"{weight:g}{part.name}" for part, weight in parts]
        self.name = "+".join(names)
        """Such as "discriminator+0.3stlpips"; names files in the cache and goes into latent
        files."""

    def features(self, image: Tensor) -> Tensor:
        """Return those of the parts side by side, ``[N, K_1 + ...]``, scaled with the weights'
        roots."""
        return torch.cat([part.features(image) * weight**0.5 for part, weight in self.parts], dim=1)


def backbone() -> Path | None:
    """Return the file of LPIPS's backbone that latentedit or torch hub (and so ``lpips``)
    downloaded; None without one."""
    return fetched(VGG16, Path(torch.hub.get_dir()) / "checkpoints" / VGG16.file)


def stlpips_file(network: str = "alex") -> Path | None:
    """Return the weights of ST-LPIPS in the installed package, or None without it; nothing is
    imported."""
    spec = importlib.util.find_spec(STLPIPS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0])
    file = folder / "weights" / "vST0.0" / f"{network}_shift_tolerant.pth"
    return file if file.is_file() else None


def choose(
    kind: str,
    discriminator: Discriminator | None,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    focus: Tensor | None = None,
) -> tuple[Perceptual, str]:
    """Return the distance that ``kind`` names, and one line that says which it is and why.

    Args:
        kind: "lpips", "stlpips", "discriminator" or "auto". "auto" is LPIPS if its backbone is
            given or cached; otherwise the discriminator together with ST-LPIPS, or the one of them
            that is available.
        focus: weights of the pixels for the discriminator's distance
            (`latentedit.inversion.face_weights`).

    Raises:
        Error: the weights that ``kind`` needs are missing. Nothing is ever downloaded.
    """
    if kind not in KINDS:
        raise ArgumentError.of(
            "perceptual distance", f"{', '.join(KINDS[:-1])} or {KINDS[-1]}", kind
        )

    file = Path(weights) if weights is not None else backbone()
    if kind == "lpips" or (kind == "auto" and file is not None):
        if file is None:
            advice = f"{VGG16.advice}, or name it with `perceptual_weights`"
            raise NotFoundError(f"LPIPS needs {VGG16.file}", advice=advice)
        if not os.path.isfile(file):
            raise NotFoundError("no such file; LPIPS needs it", path=file, advice=VGG16.advice)
        return LpipsDistance(file, device), f"perceptual distance: LPIPS (VGG) with {file}"

    if kind == "stlpips":
        return StlpipsDistance(device=device), "perceptual distance: ST-LPIPS (AlexNet)"

    own = "features of the model's own discriminator"
    why = f'no {VGG16.file}, which "latentedit model fetch vgg16" downloads'
    if kind == "auto" and stlpips_file() is not None:
        stlpips = StlpipsDistance(device=device)
        if discriminator is None:
            return (
                stlpips,
                f"perceptual distance: ST-LPIPS (AlexNet) ({why}, and no discriminator in the "
                "model file)",
            )
        both = CombinedDistance(
            [
                (DiscriminatorDistance(discriminator, focus), DISCRIMINATOR_WEIGHT),
                (stlpips, STLPIPS_WEIGHT),
            ]
        )
        return (
            both,
            f"perceptual distance: {own}, and ST-LPIPS (AlexNet), weights {_weights(both)} ({why})",
        )

    if discriminator is None:
        raise NotFoundError(
            "this model file has no discriminator to compare images with",
            advice=f"{VGG16.downloaded(VGG16.file)}, or {ADVICE}",
        )

    reason = (
        f" ({why}; {ADVICE} adds a distance learned from human judgements)"
        if kind == "auto"
        else ""
    )
    return DiscriminatorDistance(discriminator, focus), f"perceptual distance: {own}{reason}"


class _ShiftTolerant(nn.Module):
    """The networks of ST-LPIPS have five stages: the largest of neighbours, a blur, convolutions.

    AlexNet's first stage alone is a convolution, then a blur that keeps every second pixel. Both
    are linear, so that away from the lower and right edge they are one convolution of stride 2 with
    a larger kernel, which takes a third of the arithmetic. At the edges the blur reflects what it
    blurs. It is symmetric, so that its first result repeats its second one, and its last repeats
    the last but one if the number of pixels is odd. Otherwise the last is the mean of the last two
    pixels.

    Args:
        state: weights under the package's names.
        network: "alex" or "vgg".
    """

    def __init__(self, state: dict[str, Tensor], network: str) -> None:
        super().__init__()
        self.pooled = 3 if network == "alex" else 2
        self.stages: list[list[str]] = []

        for number in range(1, 6):
            start = f"net.slice{number}."
            layers = sorted(
                {int(name[len(start) :].split(".")[0]) for name in state if name.startswith(start)}
            )
            self.stages.append([f"{start}{layer}".replace(".", "_") for layer in layers])
            lin = state[f"lin{number - 1}.model.1.weight"]
            self.register_buffer(f"lin{number}", lin.sqrt())

        for name, tensor in state.items():
            if name.startswith("net."):
                kept = (
                    tensor.contiguous(memory_format=torch.channels_last)
                    if tensor.ndim == 4
                    else tensor
                )
                self.register_buffer(name.replace(".", "_"), kept)

        self.register_buffer("shift", state["scaling_layer.shift"])
        self.register_buffer("scale", state["scaling_layer.scale"])
        self.joined = network == "alex"
        if self.joined:
            self._join(state["net.slice1.0.weight"])

    def _join(self, weight: Tensor) -> None:
        """Joins AlexNet's first convolution with the blur: inside, last row and column, corner."""
        blur = torch.tensor([0.25, 0.5, 0.25])
        mean = torch.tensor([0.5, 0.5])
        for name, down, right in (
            ("inside", blur, blur),
            ("last_row", mean, blur),
            ("last_column", blur, mean),
            ("corner", mean, mean),
        ):
            both = (down[:, None] * right)[None, None]
            wide = F.conv_transpose2d(weight.flatten(0, 1)[:, None], both)
            kernel = wide.unflatten(0, weight.shape[:2]).squeeze(2)
            if name == "inside":
                kernel = F.pixel_unshuffle(F.pad(kernel, (0, 1, 0, 1)), 2)
                back = kernel.flip(2, 3).transpose(0, 1)
                self.register_buffer("back", back.contiguous(memory_format=torch.channels_last))
            self.register_buffer(name, kernel.contiguous(memory_format=torch.channels_last))

    def forward(self, image: Tensor) -> Tensor:
        """``[N, 3, H, W]`` in [-1, 1] to ``[N, K]``."""
        get = self.get_buffer
        x = (image - get("shift")) / get("scale")
        x = x.contiguous(memory_format=torch.channels_last)
        parts = []

        for number, layers in enumerate(self.stages, 1):
            if self.joined and number == 1:
                x = self._first(x)
                layers = []
            for layer in layers:
                if f"{layer}_filt" in self._buffers:
                    filt = get(f"{layer}_filt")
                    x = F.max_pool2d(x, self.pooled, 1)
                    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
                    x = F.conv2d(x, filt, stride=2, groups=len(filt))
                else:
                    weight = get(f"{layer}_weight")
                    x = F.conv2d(
                        x, weight, get(f"{layer}_bias"), padding=weight.shape[2] // 2
                    ).relu()

            length = x.square().sum(dim=1, keepdim=True)
            scale = get(f"lin{number}") / (x.shape[2] * x.shape[3]) ** 0.5
            unit = x * ((length + 1e-20).sqrt() + 1e-10).reciprocal() * scale
            # In the order of memory, which the distance does not ask about.
            parts.append(unit.permute(0, 2, 3, 1).flatten(1))

        return torch.cat(parts, dim=1)

    def _first(self, x: Tensor) -> Tensor:
        """AlexNet's first convolution, blur and ReLU, ``[N, 64, (H - 3) // 2, (W - 3) // 2]``."""
        get = self.get_buffer
        height, width = x.shape[2:]
        x = F.pad(x, (2, 2 + width % 2, 2, 2 + height % 2))
        found = _Inside.apply(F.pixel_unshuffle(x, 2), get("inside"), get("back"))  # type: ignore[no-untyped-call]

        # The convolution that stands for both does not know that the blur reflects at the lower and
        # the right edge.
        last_row = height % 2 == 0
        last_column = width % 2 == 0
        if last_row:
            strip = x[:, :, -12:, : x.shape[3] - 1]
            found = torch.cat([found, F.conv2d(strip, get("last_row"), stride=2)], dim=2)
        if last_column:
            column = F.conv2d(x[:, :, : x.shape[2] - 1, -12:], get("last_column"), stride=2)
            if last_row:
                corner = F.conv2d(x[:, :, -12:, -12:], get("corner"))
                column = torch.cat([column, corner], dim=2)
            found = torch.cat([found, column], dim=3)

        found = (found + get("net_slice1_0_bias")[:, None, None]).relu()
        return F.pad(found, (1, 1 - int(last_column), 1, 1 - int(last_row)), mode="replicate")


class _Inside(torch.autograd.Function):
    """A convolution whose gradient is computed as a convolution too.

    With few input channels that takes a third of the time of the library's own backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return F.conv2d(x, kernel)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return F.conv2d(gradient, back, padding=back.shape[2] - 1), None, None


def _in_colour(image: Tensor) -> Tensor:
    """Return what the LPIPS networks look at: three channels, no more than `LPIPS_SIZE` pixels a
    side."""
    if image.shape[1] == 1:
        # A view: the three channels share their memory.
        image = image.expand(-1, 3, -1, -1)
    if image.shape[-1] > LPIPS_SIZE:
        image = F.interpolate(image, size=(LPIPS_SIZE, LPIPS_SIZE), mode="area")
    return image


def _weights(combined: CombinedDistance) -> str:
    return " and ".join(f"{weight:g}" for _, weight in combined.parts)


def _read_stlpips(network: str) -> dict[str, Tensor]:
    file = stlpips_file(network)
    if file is None:
        raise NotFoundError(f"ST-LPIPS needs the package stlpips-pytorch (64 MB): {ADVICE}")
    state = read_weights(file)
    wanted = {
        "scaling_layer.shift",
        "net.slice1.0.weight",
        "net.slice5.13.weight",
        "lin4.model.1.weight",
    }
    if network == "vgg":
        wanted = {name.replace("slice5.13", "slice5.32") for name in wanted}
    if not wanted <= state.keys():
        raise FormatError(
            "expected the weights of ST-LPIPS, found others; pip install --force-reinstall "
            "stlpips-pytorch",
            path=file,
        )
    return state


def _read_backbone(path: Path) -> dict[str, Tensor]:
    check_sha256(path, VGG16.sha256, VGG16.file)
    return read_weights(path)


def check_sha256(path: Path, expected: str, name: str) -> None:
    """Raise `Error` unless the file ``path`` is the published one called ``name``, by all digits of
    its SHA-256."""
    file_size(path)
    with open(path, "rb") as file:
        # The weights decide what a distance means, so another file must not pass under this name.
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise FormatError(
            f"its SHA-256 is {digest}, that of {name} is {expected}; "
            "the file is damaged or another",
            path=path,
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a published file of weights, all of finite numbers."""
    found = {
        name: tensor for name, tensor in read_state(path).items() if isinstance(tensor, Tensor)
    }
    for name, tensor in found.items():
        check_numbers(path, name, tensor)
    return found
