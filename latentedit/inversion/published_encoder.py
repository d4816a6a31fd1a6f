"""The published encoders of photos into W+: pSp (Richardson et al. 2021), e4e (Tov et al. 2021),
ReStyle (Alaluf et al. 2021).

All have the backbone IR-SE-50: the residual network of ArcFace (Deng et al. 2019) with 50 layers
and squeeze-and-excitation (Hu et al. 2018). Modules have the names that their checkpoints use.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentedit.errors import ArgumentError, IncompatibleError
from latentedit.latent.spaces import W, space_of
from latentedit.networks.config import WIDEST, check_whole
from latentedit.networks.generator import Generator

SIDE = 256
"""Side of the pictures that these encoders take."""
DEEP = 512
"""Feature maps at the end of the backbone."""
STAGES = ((64, 64, 3), (64, 128, 4), (128, 256, 14), (256, 512, 3))
"""Feature maps before and after, and blocks, of the stages of IR-SE-50; the first block of each
halves the picture."""
FINE = 6
MIDDLE = 20
COARSE = 23
"""Blocks after which features of 64, 32 and 16 px are taken (pSp, figure 2)."""
MIDDLE_FROM = 3
FINE_FROM = 7
"""First layers whose w comes from the middle and from the fine features."""
KINDS = ("psp", "e4e", "restyle-psp", "restyle-e4e")


@dataclass(frozen=True)
class PublishedEncoderConfig:
    """Everything needed to build one of these encoders."""

    kind: str
    """"psp" (one w a layer), "e4e" (one w, and what each layer differs from it), or either as
    ReStyle has it."""
    num_ws: int
    w_dim: int = 512
    passes: int = 1
    """Times that the encoder corrects its own answer: ReStyle alone sees its rendering beside the
    photo."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError.of("encoder config: kind", f"one of {', '.join(KINDS)}", self.kind)
        check_whole("encoder", self, num_ws=(1, 64), w_dim=(1, WIDEST), passes=(1, 32))

    @property
    def iterative(self) -> bool:
        return self.kind.startswith("restyle")

    @property
    def offsets(self) -> bool:
        """Whether all layers but the first answer with a difference to the first."""
        return self.kind.endswith("e4e")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Norm(nn.Module):
    """Batch normalisation with the statistics of the training."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class _Excitation(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018, eq. 2 to 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # Channels are weighted by their means over the whole image.
        share = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))))
        return x * share


class _Residual(nn.Module):
    """Block of IR-SE-50 ``[N, I, H, W] -> [N, O, H / stride, W / stride]``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), _Norm(outputs)
            )

        self.res_layer = nn.Sequential(
            _Norm(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            _Norm(outputs),
            _Excitation(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        skip = (
            self.shortcut_layer(x)
            if hasattr(self, "shortcut_layer")
            else x[:, :, :: self.stride, :: self.stride]
        )
        residual: Tensor = self.res_layer(x)
        return residual + skip


class _Linear(nn.Module):
    """Linear layer with an equalised learning rate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


class _ToStyle(nn.Module):
    """Features of ``side`` px to one w: ``[N, 512, side, side] -> [N, w_dim]`` (pSp, figure 2:
    map2style)."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(int(math.log2(side))):
            layers += [
                nn.Conv2d(DEEP if index == 0 else width, width, 3, stride=2, padding=1),
                nn.LeakyReLU(),
            ]

        self.convs = nn.Sequential(*layers)
        self.linear = _Linear(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.convs(x).flatten(1))
        return y


class PublishedEncoder(nn.Module):
    """Picture to ws: ``[N, 3 or 6, 256, 256] -> [N, num_ws, w_dim]``, relative to
    ``latent_avg``."""

    latent_avg: Tensor

    def __init__(self, config: PublishedEncoderConfig) -> None:
        super().__init__()
        self.config = config
        inputs = 6 if config.iterative else 3
        self.input_layer = nn.Sequential(
            nn.Conv2d(inputs, 64, 3, padding=1, bias=False), _Norm(64), nn.PReLU(64)
        )
        blocks = []
        for before, after, count in STAGES:
            blocks += [
                _Residual(before if i == 0 else after, after, 2 if i == 0 else 1)
                for i in range(count)
            ]

        self.body = nn.Sequential(*blocks)
        self.styles = nn.ModuleList(
            _ToStyle(self._side(row), config.w_dim) for row in range(config.num_ws)
        )
        if not config.iterative:
            self.latlayer1 = nn.Conv2d(256, DEEP, 1)
            self.latlayer2 = nn.Conv2d(128, DEEP, 1)
        self.register_buffer("latent_avg", torch.zeros(config.num_ws, config.w_dim))

    def _side(self, row: int) -> int:
        """Return the side of the features that the w of layer ``row`` comes from; ReStyle has the
        coarse ones alone."""
        if self.config.iterative or row < MIDDLE_FROM:
            return 16
        return 32 if row < FINE_FROM else 64

    def forward(self, x: Tensor) -> Tensor:
        """``x`` in [-1, 1]; for ReStyle with the present rendering after the photo along the
        channels."""
        x = self.input_layer(x)
        kept: dict[int, Tensor] = {}
        for number, block in enumerate(self.body):
            x = block(x)
            if number in (FINE, MIDDLE, COARSE):
                kept[number] = x

        features = {16: kept[COARSE]}
        if not self.config.iterative:
            features[32] = _above(features[16], self.latlayer1(kept[MIDDLE]))
            features[64] = _above(features[32], self.latlayer2(kept[FINE]))
        found = [style(features[self._side(row)]) for row, style in enumerate(self.styles)]
        if self.config.offsets:
            found = [found[0], *(found[0] + delta for delta in found[1:])]
        return torch.stack(found, dim=1)


def _above(coarse: Tensor, fine: Tensor) -> Tensor:
    """Feature pyramid (Lin et al. 2017): the coarser level enlarged, plus the finer one."""
    return F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=True) + fine


@torch.no_grad()
def encode_published(
    generator: Generator, encoder: PublishedEncoder, image: Tensor, space: str = "w+"
) -> Tensor:
    """Predict ws ``[N, num_ws, w_dim]`` of images ``[N, 3, resolution, resolution]`` in [-1, 1].

    Args:
        space: "w" gives the same w for all layers: that of the first one for e4e, whose other
            layers answer with differences to it, and the mean of all for pSp.

    Raises:
        IncompatibleError: the encoder belongs to a generator of another size.
    """
    expected = (3, encoder.config.num_ws, encoder.config.w_dim)
    actual = (generator.channels, generator.num_ws, generator.w_dim)
    if actual != expected:
        takes = f"the generator has {actual[0]} channels and takes {actual[1]} x {actual[2]}"
        reason = (
            f"this encoder predicts {expected[1]} x {expected[2]} numbers from colour pictures; "
            f"{takes}"
        )
        raise IncompatibleError(reason, expected=expected, actual=actual)

    photo = F.interpolate(image, size=(SIDE, SIDE), mode="bilinear", antialias=True)  # as PIL does
    ws = encoder.latent_avg.expand(len(image), -1, -1)
    for _ in range(encoder.config.passes):
        if encoder.config.iterative:
            ws = ws + encoder(torch.cat([photo, _small(generator.synthesis(ws))], dim=1))
        else:
            ws = encoder.latent_avg + encoder(photo)

    if space_of(space) is W:
        one = ws[:, :1] if encoder.config.offsets else ws.mean(dim=1, keepdim=True)
        ws = one.expand(-1, generator.num_ws, -1)
    return ws.contiguous()


def _small(image: Tensor) -> Tensor:
    """Return a rendering as ReStyle shows it to its encoder: means of pixels."""
    return F.adaptive_avg_pool2d(image, (SIDE, SIDE))
