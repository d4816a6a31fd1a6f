"""The design of an alias-free network: sampling rates, cutoffs and filters of its layers (Karras et
al. 2021, appendix F).

Frequencies are in cycles an image, widths of samples follow from the rates.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentedit.errors import ArgumentError
from latentedit.networks.config import LARGEST, GeneratorConfig


@dataclass(frozen=True)
class FilteredLayer:
    """What the design says of one layer: a convolution, upsampling, an activation and
    downsampling."""

    index: int
    inputs: int
    outputs: int
    """Numbers of feature maps."""
    rgb: bool
    """Whether it is the 1 x 1 output, which has no activation."""
    critical: bool
    in_size: int
    out_size: int
    """Sides in samples, margins included."""
    in_rate: int
    out_rate: int
    rate: int
    """Sampling rates of the input, the output, and where the activation is applied."""
    in_cutoff: float
    out_cutoff: float
    in_width: float
    out_width: float
    """Cutoffs, and half the widths of the transition bands."""
    kernel: int
    taps: int
    radial: bool

    @property
    def name(self) -> str:
        """As in NVIDIA's files: index, side, number of feature maps."""
        return f"L{self.index}_{self.out_size}_{self.outputs}"

    @property
    def up(self) -> int:
        return self.rate // self.in_rate

    @property
    def down(self) -> int:
        return self.rate // self.out_rate

    @property
    def up_taps(self) -> int:
        return 1 if self.rgb or self.up == 1 else self.taps * self.up

    @property
    def down_taps(self) -> int:
        return 1 if self.rgb or self.down == 1 else self.taps * self.down

    @property
    def padding(self) -> tuple[int, int]:
        """Samples of the higher rate that are added before and after the result of a full
        convolution; negative ones crop."""
        total = (self.out_size - 1) * self.down + 1
        total -= (self.in_size + self.kernel - 1) * self.up
        total += self.up_taps + self.down_taps - 2
        before = (total + self.up) // 2
        return before, total - before

    def up_filter(self) -> Tensor | None:
        """Return ``[up_taps]``."""
        return lowpass(self.up_taps, self.in_cutoff, 2 * self.in_width, self.rate)

    def down_filter(self) -> Tensor | None:
        """Return ``[down_taps]``, or ``[down_taps, down_taps]`` if it is radial."""
        radial = self.radial and not self.critical
        return lowpass(
            self.down_taps, self.out_cutoff, 2 * self.out_width, self.rate, radial=radial
        )


def filtered_layers(config: GeneratorConfig) -> list[FilteredLayer]:
    """Return the layers of ``config.alias_free``, from the first to the output: ``layers + 1`` of
    them.

    Cutoffs and stopbands grow geometrically until the layers are sampled critically (appendix F,
    eq. 5 to 8).

    Raises:
        Error: sizes that do not fit one another.
    """
    options = config.alias_free
    assert options is not None
    last_cutoff = config.resolution / 2
    share = np.minimum(np.arange(options.layers + 1) / (options.layers - options.critical), 1)
    cutoffs = options.first_cutoff * (last_cutoff / options.first_cutoff) ** share
    stopbands = (
        options.first_stopband
        * (last_cutoff * options.last_stopband / options.first_stopband) ** share
    )

    # The lowest power of two that the stopband allows (Nyquist), as up- and downsampling work by
    # whole factors.
    rates = np.exp2(np.ceil(np.log2(np.minimum(2 * stopbands, config.resolution)))).astype(int)

    # Where the rate leaves room, the transition band uses it: wider bands need shorter filters.
    widths = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = rates + 2 * options.margin
    sizes[-2:] = config.resolution
    maps = np.rint(np.minimum(config.channel_base / 2 / cutoffs, config.channel_max)).astype(int)
    maps[-1] = config.channels
    if (
        not maps.min() >= 1
        or maps.max() > LARGEST
        or not np.all(widths > 0)
        or not np.all(np.diff(rates) >= 0)
        or rates[-2] != rates[-1]
    ):
        raise ArgumentError(
            "generator config: alias_free has frequencies or widths that no network can have"
        )

    layers = []
    for index in range(options.layers + 1):
        before = max(index - 1, 0)
        rgb = index == options.layers
        higher = max(rates[before], rates[index]) * (1 if rgb else options.oversampling)
        layers.append(
            FilteredLayer(
                index,
                int(maps[before]),
                int(maps[index]),
                rgb,
                index >= options.layers - options.critical,
                int(sizes[before]),
                int(sizes[index]),
                int(rates[before]),
                int(rates[index]),
                int(higher),
                float(cutoffs[before]),
                float(cutoffs[index]),
                float(widths[before]),
                float(widths[index]),
                1 if rgb else options.kernel,
                options.taps,
                options.radial,
            )
        )

    return layers


def lowpass(
    taps: int, cutoff: float, width: float, rate: float, *, radial: bool = False
) -> Tensor | None:
    """Return a windowed ideal low-pass filter, float32 of sum 1, or None for a single tap (Karras
    et al. 2021, appendix C).

    Args:
        cutoff: half of the amplitude passes at this frequency.
        width: of the transition band, from which the parameter of the Kaiser window follows (Kaiser
            1974).
        rate: sampling rate, in the unit of the frequencies.
        radial: the ideal filter is a disc in the frequency plane instead of a square.

    Returns:
        ``[taps]``, or ``[taps, taps]`` for a radial filter.
    """
    if taps == 1:
        return None
    window = np.kaiser(taps, _kaiser_beta(taps, 2 * width / rate))
    time = (np.arange(taps) - (taps - 1) / 2) / rate
    if not radial:
        kernel = np.sinc(2 * cutoff * time) * window
    else:
        radius = np.hypot(*np.meshgrid(time, time))
        argument = torch.from_numpy(2 * np.pi * cutoff * np.maximum(radius, 1e-12 / rate))
        kernel = (torch.special.bessel_j1(argument) / argument).numpy() * np.outer(window, window)

    # A list, as an array stays on the CPU whatever the device is.
    return torch.tensor((kernel / kernel.sum()).tolist(), dtype=torch.float32)


def _kaiser_beta(taps: int, width: float) -> float:
    """Return the window's parameter for ``taps`` and a transition band of ``width``, as a share of
    half the sampling rate."""
    # Kaiser's empirical formulas, here from the number of taps to the attenuation that it reaches.
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # dB
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    excess = max(attenuation - 21, 0.0)
    return float(0.5842 * excess**0.4 + 0.07886 * excess)
