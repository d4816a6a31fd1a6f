"""The configuration of a generator, and the precisions it computes in."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch

from latentedit.errors import ArgumentError, is_number, quoted

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST = 16384
DEEPEST = 100
LONGEST = 16
"""Largest resolution, number of mapping layers and number of filter taps that are accepted from a
file."""
WIDEST = 4096
LABELS = 32768
"""Largest size of a z or w, of which ten thousand are drawn at once, and largest number of
labels."""
LOUDEST = 1e30
"""Largest clamp, and largest multiplier of a learning rate; float32 has still larger numbers."""
LARGEST_FIRST = 64
"""Largest side of a constant input."""
LOWEST_REDUCED = 16
"""Blocks below this resolution stay float32 whatever the precision: they cost nothing and carry the
composition."""


def block_dtype(precision: Precision, resolution: int, parameters: torch.dtype) -> torch.dtype:
    """Return the type of a block: that of its ``parameters``, or a reduced one if ``precision``
    says so and it is large."""
    return DTYPES[precision] if precision != "fp32" and resolution >= LOWEST_REDUCED else parameters


@dataclass(frozen=True)
class AliasFree:
    """The layers of an alias-free synthesis network (StyleGAN3: Karras et al. 2021, appendix F);
    the defaults are T's."""

    layers: int = 14
    """Number of filtered layers; the input before them and the 1 x 1 output after them have a w of
    their own."""
    critical: int = 2
    """Number of layers, the last ones, that are sampled critically."""
    first_cutoff: float = 2.0
    """Cutoff frequency of the first layer, in cycles an image."""
    first_stopband: float = 2**2.1
    """Frequency from which the first layer's filter attenuates fully."""
    last_stopband: float = 2**0.3
    """The same of the last layer, as a multiple of its cutoff."""
    margin: int = 10
    """Number of samples around the picture, on either side, at every sampling rate."""
    kernel: int = 3
    """Side of the convolutions: 3 in T, 1 in R."""
    radial: bool = False
    """Whether the downsampling filters are radially symmetric (R), except in critically sampled
    layers."""
    taps: int = 6
    """Length of the filters, in samples of the lower rate."""
    oversampling: int = 2
    """Factor of the sampling rate at which the activation is applied."""
    output_scale: float = 0.25
    """Factor on the output."""

    def __post_init__(self) -> None:
        check_whole(
            "generator",
            self,
            layers=(2, DEEPEST),
            margin=(0, 256),
            kernel=(1, 7),
            taps=(1, 16),
            oversampling=(1, 4),
        )
        check_whole("generator", self, critical=(0, self.layers - 1))
        if self.kernel % 2 == 0 or not isinstance(self.radial, bool):
            raise ArgumentError("generator config: kernel must be odd, and radial true or false")
        for name in ("first_cutoff", "first_stopband", "last_stopband", "output_scale"):
            value = getattr(self, name)
            if not is_number(value) or not 1e-3 <= value <= LARGEST:
                raise ArgumentError.of(
                    f"generator config: {name}", f"a number from 0.001 to {LARGEST}", value
                )


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything needed to build a generator; stored in every model file."""

    resolution: int
    """Side of the image in pixels, a power of two of at least 8."""
    channels: int = 3
    """Number of output channels: 1 (greyscale), 3 (RGB), or any other."""
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    """Number of labels, 0 for an unconditional network."""
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    channel_base: int = 32768
    """Number of feature maps at resolution r: min(channel_base // r, channel_max)."""
    channel_max: int = 512
    channel_widths: tuple[int, ...] = ()
    """Numbers of feature maps at 4, 8, 16 ... px, if they do not follow that rule."""
    architecture: str = "skip"
    """"skip", "resnet" or "orig" (StyleGAN2, figure 7), "stylegan1" (Karras et al. 2019) or
    "stylegan3" (2021)."""
    conv_clamp: float | None = None
    """Activations are clamped to this magnitude; 256 in networks trained in half precision."""
    resample_filter: tuple[float, ...] = ()
    """Taps of the separable low-pass filter; () means the published ones, 1 3 3 1, or 1 2 1 for
    "stylegan1"."""
    alias_free: AliasFree | None = None
    """The layers of "stylegan3", whose filters follow from them; None in all other networks."""

    first_size: tuple[int, int] = (4, 4)
    """Height and width of the constant input. Those of the image are resolution / 4 times these;
    other than 4 x 4 in networks of non-square images."""

    joint_labels: bool = False
    """Whether z and the label's embedding are normalised as one vector, as the networks of 2019
    have it."""

    def __post_init__(self) -> None:
        check_architecture(self.resolution, self.architecture, self.channels, (*KINDS, "stylegan3"))
        check_whole(
            "generator",
            self,
            z_dim=(1, WIDEST),
            w_dim=(1, WIDEST),
            c_dim=(0, LABELS),
            mapping_layers=(1, DEEPEST),
        )
        check_whole("generator", self, channel_base=(1, LARGEST**2), channel_max=(1, LARGEST))
        multiplier = self.mapping_lr_multiplier
        if not is_number(multiplier, LOUDEST) or multiplier <= 0:
            raise ArgumentError.of(
                "generator config: mapping_lr_multiplier", "a finite number above 0", multiplier
            )
        if self.architecture == "stylegan1" and self.conv_clamp is not None:
            raise ArgumentError("generator config: the first StyleGAN has no clamped activations")

        check_clamp(self.conv_clamp)
        check_widths(self.resolution, self.channel_base, self.channel_widths)
        self._check_alias_free()
        self._check_first_size()
        if not isinstance(self.joint_labels, bool):
            raise ArgumentError.of(
                "generator config: joint_labels", "true or false", self.joint_labels
            )

        object.__setattr__(self, "channel_widths", tuple(self.channel_widths))
        object.__setattr__(
            self, "resample_filter", usual_taps(self.architecture, self.resample_filter)
        )

    def _check_first_size(self) -> None:
        size = self.first_size
        sides = isinstance(size, list | tuple) and len(size) == 2
        if not sides or not all(type(side) is int and 1 <= side <= LARGEST_FIRST for side in size):
            raise ArgumentError.of(
                "generator config: first_size",
                f"a height and a width from 1 to {LARGEST_FIRST}",
                size,
            )
        object.__setattr__(self, "first_size", tuple(size))
        if not self.is_square and self.architecture not in ("skip", "resnet", "orig"):
            raise ArgumentError(f"generator config: {self.kind} has a constant input of 4 x 4 only")
        if max(self.image_size) > LARGEST:
            raise ArgumentError(f"generator config: images of more than {LARGEST} pixels a side")

    @property
    def is_square(self) -> bool:
        return self.first_size == (4, 4)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.size_at(self.resolution)

    def size_at(self, resolution: int) -> tuple[int, int]:
        """Height and width of the feature maps of the block called ``resolution``."""
        height, width = self.first_size
        return height * resolution // 4, width * resolution // 4

    def _check_alias_free(self) -> None:
        layers: Any = self.alias_free
        if isinstance(layers, dict):  # as a file's header has it
            known = {field.name for field in fields(AliasFree)}
            unknown = [name for name in layers if name not in known]
            if unknown:
                raise ArgumentError(
                    f"generator config: alias_free has the unknown entry {quoted(unknown[0])}"
                )

            layers = AliasFree(**layers)
            object.__setattr__(self, "alias_free", layers)

        if (self.architecture == "stylegan3") != isinstance(layers, AliasFree):
            raise ArgumentError(
                'generator config: alias_free belongs to the architecture "stylegan3", and to no '
                "other"
            )
        if layers and (self.channel_widths or self.resample_filter):
            raise ArgumentError(
                "generator config: widths and filters of a StyleGAN3 follow from alias_free, and "
                "are not listed"
            )
        if layers and 2 * layers.first_cutoff >= self.resolution:
            raise ArgumentError(
                f"generator config: first_cutoff must be below {self.resolution / 2:g}, half of "
                "the resolution"
            )

    @property
    def kind(self) -> str:
        """The network's name, in words."""
        if self.alias_free is not None:
            plain = {(3, False): ", configuration T", (1, True): ", configuration R"}
            return f"StyleGAN3{plain.get((self.alias_free.kernel, self.alias_free.radial), '')}"
        return (
            "StyleGAN (2019)"
            if self.architecture == "stylegan1"
            else f"StyleGAN2, variant {self.architecture}"
        )

    @property
    def block_resolutions(self) -> list[int]:
        return [2**i for i in range(2, int(math.log2(self.resolution)) + 1)]

    def features(self, resolution: int) -> int:
        return features(resolution, self.channel_base, self.channel_max, self.channel_widths)

    def as_dict(self) -> dict[str, Any]:
        found = asdict(self)
        # files of all other networks are as they were before there was this one
        if self.alias_free is None:
            del found["alias_free"]
        if not self.joint_labels:
            del found["joint_labels"]
        if self.is_square:
            del found["first_size"]
        return found


def check_whole(what: str, config: object, **limits: tuple[int, int]) -> None:
    """Raise `Error` unless the attributes named in ``limits`` are whole numbers within these
    limits."""
    for name, (least, most) in limits.items():
        value = getattr(config, name)
        if type(value) is not int or not least <= value <= most:
            raise ArgumentError.of(
                f"{what} config: {name}", f"a whole number from {least} to {most}", value
            )


KINDS = ("skip", "resnet", "orig", "stylegan1")


def check_architecture(
    resolution: int, architecture: str, channels: int, kinds: tuple[str, ...] = KINDS
) -> None:
    """Raise `Error` unless the values that both networks share are valid."""
    if (
        type(resolution) is not int
        or not 8 <= resolution <= LARGEST
        or resolution & (resolution - 1)
    ):
        raise ArgumentError.of("resolution", f"a power of two from 8 to {LARGEST}", resolution)
    if architecture not in kinds:
        raise ArgumentError.of(
            "architecture", f"{', '.join(kinds[:-1])} or {kinds[-1]}", architecture
        )
    if type(channels) is not int or not 1 <= channels <= LARGEST:
        raise ArgumentError.of("channels", "at least 1", channels)


def features(resolution: int, channel_base: int, channel_max: int, widths: tuple[int, ...]) -> int:
    """Return the number of feature maps at ``resolution``."""
    return (
        widths[resolution.bit_length() - 3]
        if widths
        else min(channel_base // resolution, channel_max)
    )


def width_options(widths: dict[int, int]) -> dict[str, Any]:
    """Return the configuration options that result in ``widths``, the numbers of feature maps by
    resolution."""
    most = max(widths.values())
    finest = max(widths)
    base = widths[finest] * finest
    regular = all(min(base // r, most) == width for r, width in widths.items())
    listed = () if regular else tuple(width for _, width in sorted(widths.items()))
    return {"channel_base": base, "channel_max": most, "channel_widths": listed}


def sides_of(constant: Any) -> tuple[int, int]:
    """Return the height and width of a constant input ``[..., h, w]`` in a file."""
    height, width = constant.shape[-2:]
    return int(height), int(width)


def usual_taps(architecture: str, taps: tuple[float, ...]) -> tuple[float, ...]:
    """Return ``taps``, or the published ones if there are none."""
    if not isinstance(taps, list | tuple):
        raise ArgumentError(f"a resampling filter is a list of taps, got {quoted(taps)}")
    if not taps and architecture == "stylegan3":
        return ()
    if not taps:
        return (1, 2, 1) if architecture == "stylegan1" else (1, 3, 3, 1)
    if len(taps) > LONGEST or not all(is_number(tap) for tap in taps):
        raise ArgumentError(
            f"a resampling filter has at most {LONGEST} taps, all numbers; got {len(taps)}"
        )

    largest = max(abs(tap) for tap in taps)
    if largest > 1e6 or abs(sum(taps)) <= 1e-6 * largest:  # it is divided by its sum
        raise ArgumentError("a resampling filter has taps of at most 1e6 whose sum is not 0")
    if architecture == "stylegan1" and len(taps) % 2 == 0:
        raise ArgumentError(
            f"the first StyleGAN blurs with an odd number of taps, such as 1, 2, 1; got {len(taps)}"
        )
    return tuple(taps)


def check_clamp(clamp: float | None) -> None:
    if clamp is not None and not (is_number(clamp, LOUDEST) and clamp > 0):
        raise ArgumentError.of("conv_clamp", "a finite number greater than 0", clamp)


def check_widths(resolution: int, channel_base: int, widths: tuple[int, ...] = ()) -> None:
    if not isinstance(widths, list | tuple) or not all(
        type(width) is int and width <= LARGEST for width in widths
    ):
        raise ArgumentError(f"channel_widths must be a list of whole numbers of at most {LARGEST}")
    if widths and (len(widths) != resolution.bit_length() - 2 or min(widths) < 1):
        raise ArgumentError(
            f"channel_widths must name {resolution.bit_length() - 2} numbers of at least 1, from "
            f"4 px up, got {len(widths)}"
        )
    if type(channel_base) is not int or channel_base < resolution:
        raise ArgumentError.of(
            "channel_base", f"at least the resolution, {resolution}", channel_base
        )
