"""Adaptive discriminator augmentation (Karras et al. 2020, "Training GANs with limited data",
appendix B)."""

import math
from typing import TypedDict, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import ArgumentError
from latentedit.networks.layers import full
from latentedit.ops import downsample2d, upfirdn2d, upsample2d
from latentedit.training.grid_sample import grid_sample
from latentedit.training.streams import Draws, GlobalDraws

SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Daubechies' least-asymmetric wavelets of 2 and 6 vanishing moments (low-pass decomposition
filters)."""

BLIT = ("xflip", "rotate90", "xint")
GEOM = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
GROUPS = {
    "blit": BLIT,
    "geom": GEOM,
    "color": COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "upright": ("xint", "scale", "aniso", "xfrac", "brightness"),
    "bg": BLIT + GEOM,
    "bgc": BLIT + GEOM + COLOR,
    "bgcf": BLIT + GEOM + COLOR + ("imgfilter",),
    "bgcfn": BLIT + GEOM + COLOR + ("imgfilter", "noise"),
    "bgcfnc": BLIT + GEOM + COLOR + ("imgfilter", "noise", "cutout"),
}
"""Named groups of augmentations: those of the paper, "bgc" its usual one, and "upright", mild ones
that turn nothing.

Turned and inverted pictures leak into a generator that is small or young; "upright" keeps them from
being learnt at all.
"""

KINDS = GROUPS["bgcfnc"]

# Extents and standard deviations of the paper, in fractions of the picture's side, powers of two,
# or half turns.
XINT_MAX = 0.125
XFRAC_STD = 0.125
SCALE_STD = 0.2
ANISO_STD = 0.2
ROTATE_MAX = 1.0
BRIGHTNESS_STD = 0.2
CONTRAST_STD = 0.5
SATURATION_STD = 1.0
HUE_MAX = 1.0
IMGFILTER_STD = 1.0
NOISE_STD = 0.1
CUTOUT_SIZE = 0.5
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Expected power of the four frequency bands of a photograph (1/f spectrum)."""


def preset(name: str) -> dict[str, float]:
    """Keyword arguments for `AugmentPipe`: multiplier 1 for every kind of the group ``name``, or of
    several kinds and groups with commas between them ("upright,xflip").

    Raises:
        Error: neither a group nor a kind.
    """
    chosen: dict[str, float] = {}
    for part in name.split(","):
        if part not in GROUPS and part not in KINDS:
            known = f"the groups {', '.join(GROUPS)} or the kinds {', '.join(KINDS)}"
            raise ArgumentError.of("augment", f"none, or of {known}", part)
        chosen.update(dict.fromkeys(GROUPS.get(part, (part,)), 1.0))
    return chosen


class _Draw:
    """Random numbers for one batch, or their ``percentile`` for tests."""

    def __init__(self, source: Draws, images: Tensor, percentile: float | None) -> None:
        self.source = source
        self.batch = len(images)
        self.device = images.device
        self.percentile = percentile
        # In float64, nothing but the drawn numbers themselves is rounded to float32.
        self.dtype = full(images[:0]).dtype

    def gate(self, value: Tensor, neutral: float, probability: float | Tensor) -> Tensor:
        """Return ``value`` of the pictures that the augmentation falls on, ``neutral`` for the
        others."""
        if self.percentile is not None:
            return value
        on = self.source.uniform() < probability
        # The other choice as a tensor too, as a number would have to be brought to the device.
        return torch.where(
            on.reshape(-1, *[1] * (value.ndim - 1)), value, torch.full_like(value, neutral)
        )

    def uniform(self, *columns: int) -> Tensor:
        if self.percentile is not None:
            return torch.full(
                (self.batch, *columns), self.percentile, device=self.device, dtype=self.dtype
            )
        return self.source.uniform(*columns).float().to(self.dtype)

    def normal(self, *columns: int) -> Tensor:
        if self.percentile is not None:
            return torch.erfinv(
                torch.full((self.batch, *columns), 2 * self.percentile - 1, device=self.device)
            ).to(self.dtype)
        return self.source.normal(*columns).float().to(self.dtype)


def _matrix(rows: list[list[Tensor | float]], like: Tensor) -> Tensor:
    """Return ``[N, r, c]`` from nested rows of numbers and ``[N]`` tensors."""
    # Every number that is no tensor is made once, and the matrix in one call: on a GPU, this costs
    # as much as there are calls.
    numbers = {v for row in rows for v in row if not isinstance(v, Tensor)}
    constants = {v: torch.full_like(like, v) for v in numbers}
    flat = [v if isinstance(v, Tensor) else constants[v] for row in rows for v in row]
    return torch.stack(flat, dim=-1).reshape(*like.shape, len(rows), len(rows[0]))


def _scale(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]], x)


def _translate(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]], x)


def _rotate(theta: Tensor) -> Tensor:
    cos = theta.cos()
    sin = theta.sin()
    return _matrix([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], theta)


class Multipliers(TypedDict, total=False):
    """Keyword arguments of `AugmentPipe`."""

    xflip: float
    rotate90: float
    xint: float
    scale: float
    rotate: float
    aniso: float
    xfrac: float
    brightness: float
    contrast: float
    lumaflip: float
    hue: float
    saturation: float
    imgfilter: float
    noise: float
    cutout: float


class AugmentPipe(nn.Module):
    """Random augmentation of a batch, each kind with probability ``multiplier * p``.

    Args (all multipliers, 0 switches a kind off):
        xflip, rotate90, xint: pixel blitting.
        scale, rotate, aniso, xfrac: general geometric transformations.
        brightness, contrast, lumaflip, hue, saturation: colour (hue and saturation only for RGB).
        imgfilter: amplification of four frequency bands.
        noise, cutout: corruption.

    ``p`` is the strength in [0, 1], a buffer; the trainer adapts it. Differentiable twice in the
    pictures.

    ``fixed`` is whether all shapes follow from those of the pictures alone: then nothing asks the
    device for a number, as CUDA graphs need it, but a picture is enlarged with all that could be
    seen of it, and not with what is.
    """

    xflip: float
    rotate90: float
    xint: float
    scale: float
    rotate: float
    aniso: float
    xfrac: float
    brightness: float
    contrast: float
    lumaflip: float
    hue: float
    saturation: float
    imgfilter: float
    noise: float
    cutout: float
    p: Tensor
    sym6: Tensor
    bands: Tensor
    band_power: Tensor

    def __init__(self, **multipliers: Unpack[Multipliers]) -> None:
        super().__init__()
        unknown = multipliers.keys() - set(KINDS)
        if unknown:
            raise TypeError(f"AugmentPipe has no augmentation {min(unknown)!r}")

        for kind in KINDS:
            setattr(self, kind, multipliers.get(kind, 0))

        self.fixed = False
        self.register_buffer("p", torch.zeros([]))
        row = torch.tensor(SYM6)
        self.register_buffer("sym6", torch.outer(row, row) / row.sum() ** 2, persistent=False)
        self.register_buffer("bands", _band_filters(), persistent=False)
        self.register_buffer("band_power", torch.tensor(BAND_POWER), persistent=False)
        self._resamplers: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def forward(
        self, images: Tensor, percentile: float | None = None, draws: Draws | None = None
    ) -> Tensor:
        """``[N, C, H, W] -> [N, C, H, W]`` in [-1, 1] (before colour).

        ``percentile`` replaces every random draw; ``draws`` is where they come from, torch's global
        generator by default.
        """
        if images.ndim != 4:
            raise ArgumentError.of_shape("images", "[N, C, H, W]", images.shape)

        draw = _Draw(draws or GlobalDraws(len(images), images.device), images, percentile)
        inverse = self._geometry(draw, *images.shape[2:])
        if inverse is not None:
            images = (
                self._warp_fixed(images, inverse)
                if self.fixed
                else _warp(images, inverse, self.sym6)
            )

        color = self._color(draw, images.shape[1])
        if color is not None:
            images = _recolor(images, color)

        if self.imgfilter:
            images = self._filter(images, draw)

        if self.noise:
            sigma = draw.gate(draw.normal().abs() * NOISE_STD, 0.0, self.noise * self.p)
            images = (
                images
                + draw.source.normal(*images.shape[1:]).to(images.dtype)
                * sigma[:, None, None, None]
            )

        if self.cutout:
            images = self._cut(images, draw)
        return images

    def _geometry(self, draw: _Draw, height: int, width: int) -> Tensor | None:
        """Inverse transformation ``[N, 3, 3]`` in pixels about the centre (output position to input
        position)."""
        p = self.p
        inverse = None
        steps: list[Tensor] = []
        if self.xflip:
            # Where the augmentation falls, flipped and not flipped are equally likely, as in the
            # published pipeline; below p = 1 upright images stay the more frequent ones.
            flip = draw.gate((draw.uniform() * 2).floor(), 0.0, self.xflip * p)
            steps.append(_scale(1 - 2 * flip, torch.ones_like(flip)))

        if self.rotate90:
            turns = draw.gate((draw.uniform() * 4).floor(), 0.0, self.rotate90 * p)
            steps.append(_rotate(math.pi / 2 * turns))

        if self.xint:
            # Whole pixels, so that nothing is resampled.
            shift = draw.gate((draw.uniform(2) * 2 - 1) * XINT_MAX, 0.0, self.xint * p)
            steps.append(
                _translate(-(shift[:, 0] * width).round(), -(shift[:, 1] * height).round())
            )

        if self.scale:
            # Lognormal: doubling and halving are equally likely.
            factor = draw.gate(torch.exp2(draw.normal() * SCALE_STD), 1.0, self.scale * p)
            steps.append(_scale(1 / factor, 1 / factor))

        # Two rotations, before and after the anisotropic scaling, together as probable as one.
        turn_probability = 1 - (1 - self.rotate * p).clamp(0, 1).sqrt()
        if self.rotate:
            theta = draw.gate(
                (draw.uniform() * 2 - 1) * math.pi * ROTATE_MAX, 0.0, turn_probability
            )
            steps.append(_rotate(theta))

        if self.aniso:
            factor = draw.gate(torch.exp2(draw.normal() * ANISO_STD), 1.0, self.aniso * p)
            steps.append(_scale(1 / factor, factor))

        if self.rotate and draw.percentile is None:
            theta = draw.gate(
                (draw.uniform() * 2 - 1) * math.pi * ROTATE_MAX, 0.0, turn_probability
            )
            steps.append(_rotate(theta))

        if self.xfrac:
            shift = draw.gate(draw.normal(2) * XFRAC_STD, 0.0, self.xfrac * p)
            steps.append(_translate(-shift[:, 0] * width, -shift[:, 1] * height))

        for step in steps:
            inverse = step if inverse is None else inverse @ step
        return inverse

    def _color(self, draw: _Draw, channels: int) -> Tensor | None:
        """Affine map of RGB, ``[N, 4, 4]``."""
        if channels not in (1, 3):
            if self.brightness or self.contrast or self.lumaflip or self.hue or self.saturation:
                raise ArgumentError(
                    f"colour augmentation needs images of 1 or 3 channels, got {channels}"
                )
            return None

        p = self.p
        identity = torch.eye(4, device=draw.device, dtype=draw.dtype)

        # The grey axis, about which hue turns and along which brightness moves.
        ramp = identity[:3].sum(dim=0)  # 1 1 1 0
        along = torch.outer(ramp, ramp) / 3
        steps: list[Tensor] = []
        if self.brightness:
            b = draw.gate(draw.normal() * BRIGHTNESS_STD, 0.0, self.brightness * p)
            steps.append(identity + b[:, None, None] * torch.outer(ramp, identity[3]))

        if self.contrast:
            factor = draw.gate(torch.exp2(draw.normal() * CONTRAST_STD), 1.0, self.contrast * p)
            steps.append(
                torch.diag_embed(
                    torch.stack([factor, factor, factor, torch.ones_like(factor)], dim=1)
                )
            )

        if self.lumaflip:
            flip = draw.gate((draw.uniform() * 2).floor(), 0.0, self.lumaflip * p)
            steps.append(identity - 2 * along * flip[:, None, None])

        if self.hue and channels > 1:
            theta = draw.gate((draw.uniform() * 2 - 1) * math.pi * HUE_MAX, 0.0, self.hue * p)
            steps.append(_rotate_about_grey(theta))

        if self.saturation and channels > 1:
            factor = draw.gate(torch.exp2(draw.normal() * SATURATION_STD), 1.0, self.saturation * p)
            steps.append(along + (identity - along) * factor[:, None, None])

        color = None
        for step in steps:
            color = step if color is None else step @ color
        return color

    def _filter(self, images: Tensor, draw: _Draw) -> Tensor:
        power = self.band_power.to(draw.dtype)
        gains = torch.ones(len(images), 4, device=images.device, dtype=draw.dtype)
        for band in range(4):
            amount = draw.gate(
                torch.exp2(draw.normal() * IMGFILTER_STD), 1.0, self.imgfilter * self.p
            )
            t = torch.ones_like(gains)
            t[:, band] = amount
            gains = gains * t / (power * t.square()).sum(dim=1, keepdim=True).sqrt()

        n, c, h, w = images.shape

        # [N * C, 1, k]
        taps = (
            (gains @ self.bands.to(gains.dtype))
            .repeat_interleave(c, dim=0)[:, None]
            .to(images.dtype)
        )
        pad = taps.shape[-1] // 2
        x = _reflected(images.reshape(1, n * c, h, w), pad)
        x = F.conv2d(x, taps[:, :, None], groups=n * c)
        return F.conv2d(x, taps[:, :, :, None], groups=n * c).reshape(images.shape)

    def _warp_fixed(self, images: Tensor, inverse: Tensor) -> Tensor:
        """As `_warp`, with the largest margins that it may take, and filters as products with
        matrices."""
        h, w = images.shape[2:]
        (up_h, down_h), (up_w, down_w) = (self._resampler(side, images) for side in (h, w))
        images = up_h @ images @ up_w.t()
        images = grid_sample(
            images, _grid(inverse, (down_h.shape[1], down_w.shape[1]), images, (0.0, 0.0))
        )
        return down_h @ images @ down_w.t()

    def _resampler(self, side: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Matrices that reflect and double ``side`` pixels, and that halve the same and the
        filter's reach around them."""
        key = side, like.device, like.dtype
        if key not in self._resamplers:
            filter = self.sym6.to(like.dtype)
            taps = filter.sum(dim=1, keepdim=True)  # [k, 1], as it is separable and of sum 1
            reach = len(filter) // 4
            count = len(filter)
            identity = torch.eye(side, device=like.device, dtype=like.dtype)[
                _mirrored(side, like.device)
            ]
            before = (count + 1) // 2
            after = (count - 2) // 2
            up = upfirdn2d(identity[None, None], taps, up=2, padding=(0, 0, before, after), gain=2)[
                0, 0, :, ::2
            ]
            wide = torch.eye(2 * (side + 2 * reach), device=like.device, dtype=like.dtype)
            pad = (count - 1) // 2
            down = upfirdn2d(wide[None, None], taps.flip(0), padding=(0, 0, pad, pad))[0, 0, ::2]
            self._resamplers[key] = up.contiguous(), down[reach : reach + side].contiguous()

        return self._resamplers[key]

    def _cut(self, images: Tensor, draw: _Draw) -> Tensor:
        n, _, h, w = images.shape
        size = draw.gate(
            torch.full((n,), CUTOUT_SIZE, device=images.device, dtype=draw.dtype),
            0.0,
            self.cutout * self.p,
        )[:, None]
        centre = draw.uniform(2)
        x = (torch.arange(w, device=images.device) + 0.5) / w
        y = (torch.arange(h, device=images.device) + 0.5) / h
        outside_x = (x - centre[:, :1]).abs() >= size / 2  # [N, W]
        outside_y = (y - centre[:, 1:]).abs() >= size / 2  # [N, H]
        return images * (outside_y[:, None, :, None] | outside_x[:, None, None, :])


def _warp(images: Tensor, inverse: Tensor, filter: Tensor) -> Tensor:
    """Resample by ``inverse [N, 3, 3]``, at twice the resolution between two orthogonal low-pass
    filters (appendix B.2)."""
    n, c, h, w = images.shape
    reach = filter.shape[0] // 4
    cx = (w - 1) / 2
    cy = (h - 1) / 2
    corners = torch.tensor(
        [[-cx, cx, cx, -cx], [-cy, -cy, cy, cy], [1.0] * 4],
        device=images.device,
        dtype=inverse.dtype,
    )
    hit = inverse[:, :2] @ corners  # [N, 2, 4]

    # [2]: x, y
    low = (-hit).amax(dim=(0, 2))
    high = hit.amax(dim=(0, 2))
    excess = torch.stack([low[0] - cx, high[0] - cx, low[1] - cy, high[1] - cy]) + 2 * reach
    limit = torch.tensor([w - 1, w - 1, h - 1, h - 1], device=images.device)
    x0, x1, y0, y1 = (int(m) for m in excess.clamp(min=0).minimum(limit).ceil().tolist())
    images = F.pad(images, [x0, x1, y0, y1], mode="reflect")

    # One picture a channel: depthwise filtering of few wide-channel pictures is far faster than of
    # many narrow ones.
    planes = images.reshape(1, n * c, *images.shape[2:]).contiguous(
        memory_format=torch.channels_last
    )
    images = upsample2d(planes, filter).reshape(n, c, 2 * images.shape[2], 2 * images.shape[3])
    out = (h + 2 * reach) * 2, (w + 2 * reach) * 2
    grid = _grid(inverse, out, images, ((x0 - x1) / 2, (y0 - y1) / 2))
    images = grid_sample(images, grid)
    planes = images.reshape(1, n * c, *out).contiguous(memory_format=torch.channels_last)
    planes = downsample2d(planes, filter.flip(0, 1))
    return planes[:, :, reach : reach + h, reach : reach + w].reshape(n, c, h, w)


def _grid(
    inverse: Tensor, out: tuple[int, int], images: Tensor, shift: tuple[float, float]
) -> Tensor:
    """Return where to sample doubled ``images [N, C, H, W]`` for doubled pictures of size ``out``,
    ``[N, *out, 2]``.

    Args:
        inverse: ``[N, 3, 3]`` in pixels before doubling, from the centre of an output to that of
            the pictures.
        shift: x and y of the latter from the centre of ``images``, before doubling.
    """
    height, width = images.shape[2:]
    down, across = (side / 4 for side in out)
    rows = []
    for row, side, offset in ((0, width, shift[0]), (1, height, shift[1])):
        a, b, c = inverse[:, row].unbind(1)
        # Doubled pixels have their centres a quarter of a pixel beside, on either side of the
        # transformation.
        moved = c + (a + b) / 4 + offset - 0.25
        rows.append(torch.stack([a * across, b * down, moved], dim=1) * (4 / side))

    theta = torch.stack(rows, dim=1).to(images.dtype)[:, :, :, None, None]  # [N, 2, 3, 1, 1]
    # Sums instead of a matrix product for every pixel, which a GPU takes twenty times as long for.
    down_axis, across_axis = (
        (torch.arange(side, device=images.device, dtype=images.dtype) * 2 + 1) / side - 1
        for side in out
    )
    grid = theta[:, :, 0] * across_axis + (theta[:, :, 1] * down_axis[:, None] + theta[:, :, 2])
    return grid.permute(0, 2, 3, 1)


def _mirrored(side: int, device: torch.device) -> Tensor:
    """Return the positions in a picture of ``side`` pixels, those of its reflections before and
    after it included."""
    reach = torch.arange(1 - side, 2 * side - 1, device=device)
    return side - 1 - (side - 1 - reach.abs()).abs()


def _reflected(x: Tensor, pad: int) -> Tensor:
    """Return ``x`` with ``pad`` mirrored pixels on every side, also where they are more than the
    picture has."""
    while pad:
        step = min(pad, min(x.shape[2:]) - 1)
        x = F.pad(x, [step] * 4, mode="reflect")
        pad -= step
    return x


def _recolor(images: Tensor, color: Tensor) -> Tensor:
    # [N, C, H * W]
    flat = images.flatten(2)
    color = color.to(images.dtype)
    if images.shape[1] == 3:
        flat = color[:, :3, :3] @ flat + color[:, :3, 3:]
    else:
        # a grey picture is an RGB one of equal channels
        row = color[:, :3].mean(dim=1, keepdim=True)
        flat = flat * row[:, :, :3].sum(dim=2, keepdim=True) + row[:, :, 3:]

    return flat.reshape(images.shape)


def _rotate_about_grey(theta: Tensor) -> Tensor:
    """Rotation of RGB about the grey axis by ``theta [N]`` (Rodrigues), homogeneous
    ``[N, 4, 4]``."""
    identity = torch.eye(3, device=theta.device, dtype=theta.dtype)
    cross = (identity.roll(1, 0) - identity.roll(-1, 0)) / math.sqrt(3)
    sin = theta.sin()[:, None, None]
    cos = theta.cos()[:, None, None]
    rotation = identity * cos + cross * sin + (1 - cos) / 3
    whole = torch.eye(4, device=theta.device, dtype=theta.dtype).repeat(len(theta), 1, 1)
    whole[:, :3, :3] = rotation
    return whole


def _band_filters() -> Tensor:
    """Four octave band-pass filters ``[4, k]`` that sum to an impulse, from the sym2 wavelet
    (appendix B.3)."""
    low = np.array(SYM2)
    high = low * (-1.0) ** np.arange(len(low))
    low2 = np.convolve(low, low[::-1]) / 2
    high2 = np.convolve(high, high[::-1]) / 2
    bank = np.eye(4, 1)
    for band in range(1, 4):
        spread = np.zeros((4, 2 * bank.shape[1] - 1))
        spread[:, ::2] = bank
        bank = np.stack([np.convolve(row, low2) for row in spread])
        start = (bank.shape[1] - len(high2)) // 2
        bank[band, start : start + len(high2)] += high2

    return torch.tensor(bank, dtype=torch.float32)
