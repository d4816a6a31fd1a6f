"""The options of an inversion: what one search does, and what all searches of one projector
share."""

import operator
import os
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

from torch import Tensor

from latentedit.errors import ArgumentError, check_number
from latentedit.inversion.latent_discriminator import Critic
from latentedit.inversion.perceptual import KINDS, Perceptual
from latentedit.inversion.preconditioner import Curvature
from latentedit.latent.spaces import W_PLUS, S, W, space_of
from latentedit.latent.w_statistics import WStatistics
from latentedit.networks.discriminator import Discriminator

Method = Literal["quasi-newton", "adam"]
Start = Literal["auto", "mean", "encoder"]
NoiseMode = Literal["optimise", "frozen", "off"]

SEARCHED = (W, W_PLUS, S)
"""Spaces that an inversion can search."""
STEPS = {"quasi-newton": 100, "adam": 1000}
"""Default number of steps of every method."""
PIXEL_WEIGHT = 15.0
"""Weight of the mean squared difference of the pixels; docs/photo.md has measurements, also for the
weight of the face."""
PRIOR_WEIGHT = 0.1
"""Weight of the squared distance of w from its mean: it lowers fidelity a little and improves
editability a lot."""
STYLE_WEIGHT = 0.01
"""Weight of the mean squared style offset, in standard deviations of the style."""
MOST = 10_000_000
"""Largest number of steps, restarts and the like; far larger numbers overflow in libraries."""
LARGEST_SEED = 2**32 - 1
"""NumPy's random streams take no larger seed."""


@dataclass(frozen=True)
class InversionOptions:
    """Everything that can be chosen about one search.

    The fields are the options of `latentedit invert` of the same names, with the same defaults.

    Raises:
        Error: a value out of its range, or one that is not a finite number; the message names the
            argument.
    """

    space: str = "w+"
    """"w" (one w), "w+" (one per layer) or "s" (W+, then offsets of every style channel: Wu et al.
    2021)."""
    method: Method = "quasi-newton"
    """"quasi-newton" takes about 100 steps, scaled by a Gauss-Newton preconditioner: most of them
    on w with the generator's own noise, then some on the noise maps. "adam" is the published
    projector: a thousand steps on both, with noise that is added to w and fades."""
    steps: int | None = None
    """None for 100, or 1000 with Adam. 0 returns the starting point as it is: the encoder's output,
    or a given one."""
    init: Start = "auto"
    """Starting point: "encoder", the "mean" w, or "auto": the encoder's output with quasi-newton if
    the model has an encoder, and otherwise the mean w."""
    patience: int | None = None
    """Stop a search after this many steps without an improvement for any image; None for never."""
    restarts: int = 0
    """Number of additional searches from random w; the best result of every image counts."""
    noise: NoiseMode = "optimise"
    """"optimise" the noise maps, keep the generator's own ("frozen"), or render without ("off")."""
    pixel_weight: float = PIXEL_WEIGHT
    """Weight of the mean squared difference of pixels."""
    noise_weight: float = 1e5
    """Weight of `latentedit.inversion.noise_regulariser.noise_regulariser`; with quasi-newton it is
    a constraint instead."""
    prior_weight: float = PRIOR_WEIGHT
    """Weight of the squared Mahalanobis distance of w from its mean (divided by w_dim, averaged
    over layers).

    Without it, images that are unlike the training data end in latents that cannot be edited. The
    published projector has no such term; 0 gives its behaviour."""
    delta_weight: float = 0.0
    """Weight of the mean squared distance of the layers' w from their mean, in units of sqrt(E |w -
    mean|^2).

    It keeps W+ close to W, which improves editability (Tov et al. 2021, section 4.2, do so for an
    encoder)."""
    adversarial_weight: float = 0.0
    """Weight of the latent discriminator (`latentedit.inversion.latent_discriminator.Critic`),
    which keeps the w realistic."""
    neighbour_weight: float = 1.0
    """Weight of the squared Mahalanobis distance from the w of a similar image, where one is given,
    as that of the frame before in a video (`latentedit.inversion.clip`)."""
    learning_rate: float = 0.1
    """Learning rate of Adam."""
    initial_noise: float = 0.05
    """Standard deviation of the noise that Adam adds to w at the start, in units of sqrt(E |w -
    mean|^2)."""
    seed: int = 0
    """Random seed, from 0 to 2^32 - 1."""

    def __post_init__(self) -> None:
        _check_choice("space", self.space, tuple(space.name for space in SEARCHED))
        if self.method not in STEPS:
            raise ArgumentError.of("method", f"one of {', '.join(STEPS)}", self.method)

        _check_choice("init", self.init, ("auto", "mean", "encoder"))
        _check_choice("noise", self.noise, ("optimise", "frozen", "off"))

        if self.steps is not None:
            _check_whole("steps", self.steps, 0, MOST)

        if self.patience is not None:
            _check_whole("patience", self.patience, 1, MOST)

        _check_whole("restarts", self.restarts, 0, MOST)
        _check_whole("seed", self.seed, 0, LARGEST_SEED)

        weights = (
            "neighbour_weight",
            "noise_weight",
            "pixel_weight",
            "prior_weight",
            "delta_weight",
            "adversarial_weight",
        )
        for name in (*weights, "learning_rate", "initial_noise"):
            check_number(name, getattr(self, name), 0)

    @property
    def step_count(self) -> int:
        """The number of steps of one search, with the method's default where ``steps`` is None."""
        return STEPS[self.method] if self.steps is None else self.steps

    @property
    def needs_preconditioner(self) -> bool:
        return self.method == "quasi-newton" and self.step_count > 0

    @property
    def weights(self) -> dict[str, float]:
        """Factors of the terms of the loss (`latentedit.inversion.search.TERMS`)."""
        return {
            "perceptual": 1.0,
            "pixel": self.pixel_weight,
            "noise": self.noise_weight,
            "prior": self.prior_weight,
            # In W all layers have the same w, so that the term is zero.
            "delta": 0.0 if space_of(self.space) is W else self.delta_weight,
            "adversarial": self.adversarial_weight,
            "styles": STYLE_WEIGHT,
            "neighbour": self.neighbour_weight,
        }


@dataclass(frozen=True, eq=False)
class ProjectorSettings:
    """What all searches of a `latentedit.Projector` share; parts that are given are used instead of
    the projector's own.

    Raises:
        Error: an unknown perceptual distance.
    """

    perceptual: str | Perceptual = "auto"
    """"auto", "lpips", "stlpips", "discriminator" (`latentedit.inversion.perceptual.choose`), or a
    distance."""
    perceptual_weights: str | os.PathLike[str] | None = None
    """File of the LPIPS backbone, vgg16-397923af.pth."""
    discriminator: Discriminator | None = None
    """Discriminator for the perceptual distance; None for the model's."""
    focus: Tensor | Literal["auto"] | None = "auto"
    """Weights of the pixels, ``[1, 1, resolution, resolution]`` of mean 1
    (`latentedit.inversion.face_weights`); None for equal weights, and "auto" for those of the
    model's framing. A ``perceptual`` that is given by name uses them as well."""
    statistics: WStatistics | None = None
    curvature: Curvature | None = None
    """The Gauss-Newton preconditioner; None for the model's, and where it has none, for one that is
    measured, which takes as long as 64 steps."""
    critic: Critic | None = None
    """The latent discriminator; None trains one when a search needs it, which takes seconds."""
    label: int | None = None
    """Number of a label of a labelled network: the mean, the prior and what is measured of the
    model are those of its random faces with this label. None for those with all labels."""
    cache: bool = True
    """Whether what is measured of a model is kept in the user's cache folder, as the commands
    do."""

    def __post_init__(self) -> None:
        if isinstance(self.perceptual, str) and self.perceptual not in KINDS:
            kinds = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
            raise ArgumentError.of("perceptual distance", kinds, self.perceptual)


class InversionChoices(TypedDict, total=False):
    """Further arguments of `latentedit.invert`: fields of `InversionOptions` and
    `ProjectorSettings`, and per-image ones."""

    method: Method
    init: Start
    patience: int | None
    restarts: int
    noise: NoiseMode
    pixel_weight: float
    noise_weight: float
    prior_weight: float
    delta_weight: float
    adversarial_weight: float
    neighbour_weight: float
    learning_rate: float
    initial_noise: float
    perceptual: str | Perceptual
    perceptual_weights: str | os.PathLike[str] | None
    discriminator: Discriminator | None
    focus: Tensor | Literal["auto"] | None
    statistics: WStatistics | None
    curvature: Curvature | None
    critic: Critic | None
    label: int | None
    cache: bool
    start: Tensor | None
    mask: Tensor | None


def sorted_out(choices: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Split keyword arguments into those of `InversionOptions`, those of `ProjectorSettings`, and
    per-image ones.

    Raises:
        TypeError: an unknown name, as Python raises for it.
    """
    homes: list[dict[str, Any]] = []
    left = dict(choices)
    for names in (
        [f.name for f in fields(InversionOptions)],
        [f.name for f in fields(ProjectorSettings)],
        ["start", "mask"],
    ):
        homes.append({name: left.pop(name) for name in names if name in left})

    if left:
        raise TypeError(f"invert() got an unexpected keyword argument {next(iter(left))!r}")

    options, settings, given = homes
    return options, settings, given


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        quoted = [f'"{choice}"' for choice in choices]
        raise ArgumentError.of(name, f"{', '.join(quoted[:-1])} or {quoted[-1]}", value)


def _check_whole(name: str, value: int, least: int, most: int) -> None:
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError.of(name, "a whole number", value) from None
    if number < least:
        raise ArgumentError.of(name, f"at least {least}", number)
    if number > most:
        raise ArgumentError.of(name, f"at most {most}", number)
