"""Directions from words: the style channels that move images as two texts differ, measured by CLIP
(StyleCLIP, Patashnik et al. 2021, section 6: global directions).
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.directions.components import Progress
from latentedit.directions.direction import Direction, name_from, unit
from latentedit.directions.sigma import measure_sigma
from latentedit.errors import (
    ArgumentError,
    FormatError,
    IncompatibleError,
    check_number,
    quoted,
)
from latentedit.formats.arrays import numbers, read_arrays
from latentedit.io.files import write_bytes
from latentedit.latent.w_statistics import sample_w, style_statistics
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator

PROMPTS = (
    "{}",
    "a photo of {}.",
    "a picture of {}.",
    "a portrait photo of {}.",
    "a close-up photo of {}.",
    "a cropped photo of {}.",
    "a bright photo of {}.",
    "a dark photo of {}.",
    "a blurry photo of {}.",
    "a good photo of {}.",
)
"""Sentences that a text is put into. The mean over several is a better vector than one text's
(Radford et al. 2021, section 3.1.4)."""
BATCH = 8
PROBES = 8
"""Random vectors by which the length of a channel's derivative is estimated (Hutchinson 1989)."""
SHOWN = 10
"""Channels that the report lists."""
HONEST = (
    "made from CLIP's vectors of images and texts; no classifier measured whether the attribute"
    " changes, and nothing was held fixed"
)


class ImageText(Protocol):
    """What compares images with texts: `latentedit.metrics.clip.Clip`, or anything like it."""

    @property
    def dimensions(self) -> int: ...

    def images(self, images: Tensor) -> Tensor:
        """Return unit vectors ``[N, D]`` of images ``[N, C, H, W]`` in [-1, 1]; differentiable."""

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors ``[N, D]`` of texts."""


@dataclass(frozen=True)
class TextOptions:
    """Options of a direction from words.

    Raises:
        Error: a number out of its range.
    """

    beta: float = 0.13
    """Smallest relevance, from 0 to 1, of a channel that takes part. Higher values are more
    selective; the paper uses 0.08 to 0.3."""
    samples: int = 16
    """Random images that channels are moved on."""
    amount: float = 5.0
    """Standard deviations by which a channel is moved in both directions."""
    psi: float = 0.7
    """Truncation of the images."""
    shortlist: int = 200
    """Channels that are measured by rendering, after a screening by derivatives; 0 for all."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("beta", self.beta, 0, 1)
        check_number("psi", self.psi)
        if self.samples < 1 or not self.amount > 0 or self.shortlist < 0:
            counts = f"{self.samples}, {self.amount} and {self.shortlist}"
            raise ArgumentError(
                "a direction from words needs at least 1 sample, an amount above 0 and a shortlist"
                f" of at least 0, got {counts}"
            )


@torch.no_grad()
def text_difference(clip: ImageText, text: str, neutral: str) -> Tensor:
    """Return the unit vector from ``neutral`` to ``text``, ``[D]``; both are put into `PROMPTS`.

    Raises:
        Error: an empty text, or two texts that CLIP cannot tell apart.
    """
    for words in (text, neutral):
        if not words.strip():
            raise ArgumentError("a direction needs a text and a neutral text, got an empty one")
    ends = [
        F.normalize(clip.texts([prompt.format(words) for prompt in PROMPTS]).mean(dim=0), dim=0)
        for words in (text, neutral)
    ]
    difference = ends[0] - ends[1]
    if not float(difference.norm()) > 1e-6:
        raise ArgumentError(f"CLIP cannot tell {quoted(text)} from {quoted(neutral)}")
    return F.normalize(difference, dim=0)


def convolution_channels(generator: Generator) -> Tensor:
    """Return which style channels drive convolutions, ``[channels]``.

    The others drive a ToRGB, or turn and move the input of a StyleGAN3. As in the paper, they take
    no part: they only shift colours and places.
    """
    kind = generator.config.architecture
    inside = []
    if kind in ("skip", "resnet", "orig"):
        for block in generator.synthesis.blocks:
            inside += [True] * len(block.convs) + [False] * block.has_rgb
    else:
        count = len(generator.synthesis.style_layers)
        ends = (0, count - 1) if kind == "stylegan3" else ()
        inside = [index not in ends for index in range(count)]
    sizes = [size for _, size in generator.synthesis.style_layers]
    return torch.cat([torch.full((n,), on) for n, on in zip(sizes, inside, strict=True)])


def channel_vectors(
    generator: Generator,
    clip: ImageText,
    std: Tensor,
    channels: Sequence[int],
    options: TextOptions,
    progress: Progress | None = None,
) -> Tensor:
    """Return the direction in which each of ``channels`` moves CLIP's vector of an image,
    ``[len(channels), D]``, rows of length 1.

    The rows are means over the images of the unit differences between an image with the channel
    moved up and one with it moved down. A channel without effect has a row of zeros.

    Args:
        std: standard deviation of every style channel.
        progress: called with the number of channels done and of all.
    """
    sizes = [size for _, size in generator.synthesis.style_layers]
    starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    found = torch.zeros(len(channels), clip.dimensions)
    with torch.no_grad():
        bases = _styles(generator, options)
        for index, channel in enumerate(channels):
            layer = next(i for i, start in enumerate(starts[1:]) if channel < start)
            for own in bases:
                ends = []
                for side in (options.amount, -options.amount):
                    moved = own[layer].clone()
                    moved[:, channel - starts[layer]] += side * float(std[channel])
                    styles = [*own[:layer], moved, *own[layer + 1 :]]
                    ends.append(clip.images(generator.synthesis.synthesize(styles)))
                found[index] += F.normalize(ends[0] - ends[1], dim=1).sum(dim=0).cpu()
            if progress:
                progress(index + 1, len(channels))
    return F.normalize(found, dim=1)


def _styles(generator: Generator, options: TextOptions) -> list[list[Tensor]]:
    """Return the styles of the random images, batch by batch."""
    w = torch.lerp(
        generator.mapping.w_avg,
        sample_w(generator, options.samples, options.seed),
        options.psi,
    )
    return [
        generator.synthesis.styles(part[:, None].expand(-1, generator.num_ws, -1))
        for part in w.split(BATCH)
    ]


def screen_towards(
    generator: Generator,
    clip: ImageText,
    std: Tensor,
    towards: Tensor,
    options: TextOptions,
    progress: Progress | None = None,
) -> Tensor:
    """Estimate the relevance of every style channel by derivatives, ``[channels]``.

    The derivative of CLIP's vector in a channel, divided by its length, is to first order the unit
    difference that `channel_vectors` renders. One backward pass gives its part along ``towards``
    for all channels, and one for each of `PROBES` random vectors estimates its length.

    Args:
        progress: called with the number of passes done and of all.
    """
    random = torch.Generator().manual_seed(options.seed)
    total = torch.zeros(len(std))
    batches = _styles(generator, options)
    for batch, own in enumerate(batches):
        styles = [style.detach().requires_grad_() for style in own]
        with torch.enable_grad():
            vectors = clip.images(generator.synthesis.synthesize(styles))  # [N, D]
        probes = [towards, *torch.randn(PROBES, len(towards), generator=random)]
        rows = []
        for number, probe in enumerate(probes):
            gradients = torch.autograd.grad(
                (vectors @ probe.to(vectors)).sum(), styles, retain_graph=number < PROBES
            )
            rows.append(torch.cat(gradients, dim=1).cpu() * std)  # [N, channels]
            if progress:
                progress(batch * len(probes) + number + 1, len(batches) * len(probes))
        length = torch.stack(rows[1:]).square().mean(dim=0).sqrt()
        total += (rows[0] / length.clamp(min=1e-12)).sum(dim=0)
    return total / options.samples


def direction_from_text(
    generator: Generator,
    clip: ImageText,
    text: str,
    neutral: str,
    *,
    name: str | None = None,
    options: TextOptions | None = None,
    vectors: Tensor | None = None,
    progress: Progress | None = None,
) -> Direction:
    """Make a direction in style space that moves images from ``neutral`` to ``text``.

    The relevance of a channel is the part of its `channel_vectors` along the difference of the two
    texts. Channels below ``beta`` are left out; the others move in proportion to their relevance,
    in standard deviations.

    Args:
        name: of the direction (default: from ``text``).
        vectors: ``[channels, D]`` for all style channels, measured before (`channel_vectors`,
            `read_channel_vectors`); rows of zeros have no relevance.
        progress: called with the number of steps done (passes of the screening, channels) and of
            all.

    Raises:
        Error: vectors of another network or another CLIP, or no channel that reaches ``beta``.
    """
    options = options or TextOptions()
    towards = text_difference(clip, text, neutral).cpu()
    mean, std = style_statistics(generator)
    usable = convolution_channels(generator) & (std > 0)
    shape = [len(std), clip.dimensions]
    if vectors is not None and list(vectors.shape) != shape:
        raise IncompatibleError.of_shape("the vectors of the channels", str(shape), vectors.shape)
    given = vectors is not None
    passes = 0

    def screened(done: int, total: int) -> None:
        nonlocal passes
        passes = total
        if progress:
            progress(done, total + options.shortlist)

    def rendered(done: int, total: int) -> None:
        if progress:
            progress(passes + done, passes + total)

    if vectors is None:
        chosen = usable.nonzero().flatten()
        if 0 < options.shortlist < len(chosen):
            guess = screen_towards(generator, clip, std, towards, options, screened).abs()
            chosen = guess.where(usable, -torch.ones(())).topk(options.shortlist).indices
            chosen = chosen.sort().values
        vectors = torch.zeros(len(std), clip.dimensions)
        vectors[chosen] = channel_vectors(generator, clip, std, chosen.tolist(), options, rendered)
        measured = len(chosen)
    else:
        measured = int((vectors.square().sum(dim=1) > 0).sum())

    relevance = (vectors @ towards) * usable  # [channels], from -1 to 1
    taken = (relevance.abs() >= options.beta) & (relevance != 0)
    if not bool(taken.any()):
        raise ArgumentError(
            f"no style channel has a relevance of {options.beta:g} for {quoted(text)}; the largest"
            f" is {float(relevance.abs().max()):.3f}",
            argument="beta",
            advice="lower `beta`",
        )
    weights = relevance * taken
    facts = {
        "text": text,
        "neutral": neutral,
        "beta": options.beta,
        "channels": int(taken.sum()),
        "channels_measured": measured,
        "relevance": _strongest(generator, weights),
    }
    provenance: dict[str, Any] = {"method": "text", "vectors": "measured before"}
    if not given:
        settings = ("samples", "amount", "psi", "seed")
        provenance = {"method": "text", **{key: getattr(options, key) for key in settings}}
    scale = std.where(std > 0, torch.ones_like(std))
    vector = unit(weights)
    sigma = measure_sigma(vector, generator, "s", scale)
    return Direction(
        name=name or name_from(text),
        vector=vector,
        intercept=-float((mean / scale) @ vector),
        sigma=sigma,
        fingerprint=fingerprint(generator),
        layers=_rows(generator, taken),
        space="s",
        scale=scale,
        report={
            **facts,
            "stds_per_sigma": round(float(vector.abs().max()) * sigma, 4),
            "note": HONEST,
        },
        provenance=provenance,
    )


def _owners(generator: Generator) -> Tensor:
    """Return the style layer of every channel, ``[channels]``."""
    sizes = torch.tensor([size for _, size in generator.synthesis.style_layers])
    return torch.repeat_interleave(torch.arange(len(sizes)), sizes)


def _rows(generator: Generator, taken: Tensor) -> tuple[int, int]:
    """Return the first and the last row of ws that drives a channel of ``taken``."""
    rows = torch.tensor([row for row, _ in generator.synthesis.style_layers])
    used = rows[_owners(generator)][taken]
    return int(used.min()), int(used.max())


def _strongest(generator: Generator, weights: Tensor) -> dict[str, float]:
    """Return the largest ``weights`` by the names that `style_channels` gives their channels."""
    owners = _owners(generator)
    starts = [0, *torch.bincount(owners).cumsum(0).tolist()]
    found = {}
    for channel in weights.abs().argsort(descending=True, stable=True)[:SHOWN].tolist():
        layer = int(owners[channel])
        if float(weights[channel]):
            found[f"s-{layer:02d}-{channel - starts[layer]:03d}"] = round(
                float(weights[channel]), 4
            )
    return found


def measure_channel_vectors(
    generator: Generator,
    clip: ImageText,
    options: TextOptions,
    progress: Progress | None = None,
) -> Tensor:
    """Measure `channel_vectors` of all channels that drive convolutions, ``[channels, D]``; they
    serve any text.

    Args:
        progress: called with the number of channels done and of all.
    """
    _, std = style_statistics(generator)
    channels = (convolution_channels(generator) & (std > 0)).nonzero().flatten()
    vectors = torch.zeros(len(std), clip.dimensions)
    vectors[channels] = channel_vectors(generator, clip, std, channels.tolist(), options, progress)
    return vectors


def save_channel_vectors(
    path: str | os.PathLike[str], vectors: Tensor, generator: Generator
) -> None:
    """Write `measure_channel_vectors` as `read_channel_vectors` reads them."""
    buffer = io.BytesIO()
    np.save(buffer, vectors[convolution_channels(generator)].numpy())
    write_bytes(path, buffer.getvalue())


def read_channel_vectors(path: str | os.PathLike[str], generator: Generator) -> Tensor:
    """Read the vectors of all style channels, ``[channels, D]``, from a ``.npy``.

    StyleCLIP publishes such files for its networks (``fs3.npy``): a row for every channel that
    drives a convolution, from coarse to fine, without those of ToRGBs. A file may end after a layer
    before the last, as those do that were measured up to 128 px; further rows are zeros.

    Raises:
        Error: no such file, anything but numbers, or a number of rows at which no layer ends.
    """
    found = read_arrays(path)
    if isinstance(found, dict):
        raise FormatError("expected one array of channels, as StyleCLIP's fs3.npy has", path=path)
    rows = torch.from_numpy(numbers(path, found)).float()
    if rows.ndim != 2 or not len(rows):
        raise FormatError.of(
            "the vectors of channels", "of shape [channels, D]", str(list(rows.shape)), path=path
        )
    inside = convolution_channels(generator)
    sizes = [size for _, size in generator.synthesis.style_layers]
    kept = [int(part.sum()) for part in inside.split(sizes)]
    ends = [end for end in torch.tensor(kept).cumsum(0).tolist() if end]
    if len(rows) not in ends:
        raise IncompatibleError(
            f"the file has {len(rows)} channels, this generator's layers end after "
            f"{', '.join(map(str, sorted(set(ends))))}",
            path=path,
        )
    vectors = torch.zeros(len(inside), rows.shape[1])
    vectors[inside.nonzero().flatten()[: len(rows)]] = F.normalize(rows, dim=1)
    return vectors
