"""The projector: finds the w (or one w per layer) and the noise maps that reproduce a given image.

The loss is that of Karras et al. 2020 (StyleGAN2), appendix D, with every sum computed per image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from latentedit.errors import ArgumentError, IncompatibleError, NotFoundError
from latentedit.inversion.domain import Domain
from latentedit.inversion.encoder import Encoder, encode
from latentedit.inversion.face_weights import face_weights
from latentedit.inversion.latent_discriminator import Critic
from latentedit.inversion.options import (
    PIXEL_WEIGHT,
    PRIOR_WEIGHT,
    STEPS,
    STYLE_WEIGHT,
    InversionChoices,
    InversionOptions,
    ProjectorSettings,
    sorted_out,
)
from latentedit.inversion.perceptual import Perceptual, choose, distance
from latentedit.inversion.pivotal_tuning import Tuning, TuningOptions, tune, tune_together
from latentedit.inversion.preconditioner import Curvature, curvature_file
from latentedit.inversion.published_encoder import PublishedEncoder, encode_published
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.inversion.result import Inversion, psnr
from latentedit.inversion.search import FIRST_PART, RESTART_PSI, Search
from latentedit.latent.latent_file import render
from latentedit.latent.spaces import space_of
from latentedit.latent.w_statistics import WStatistics, of_class
from latentedit.networks.discriminator import Discriminator
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from latentedit.runtime.devices import tf32

if TYPE_CHECKING:
    from latentedit.model.model import Model

__all__ = [
    "PIXEL_WEIGHT",
    "PRIOR_WEIGHT",
    "STEPS",
    "STYLE_WEIGHT",
    "Inversion",
    "InversionOptions",
    "Progress",
    "Projector",
    "ProjectorSettings",
    "SearchStep",
    "invert",
    "psnr",
]

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass
class SearchStep:
    """What a search tells after every step, to show its progress or to end it."""

    number: int
    """From 1 to ``total``."""
    total: int
    """Number of steps of all searches; fewer are done where the options' patience ends one."""
    terms: dict[str, float]
    """Terms of the loss, means over the images: "perceptual", "pixel", "noise", "prior", "delta",
    "adversarial", "styles", "neighbour"."""
    images: Tensor
    """The images of this step as they were rendered for the loss, ``[N, C, H, W]`` on the
    generator's device. They cost nothing. The next step may write over them, so copy what is
    kept."""
    stopped: bool = False

    @property
    def distance(self) -> float:
        """The mean perceptual distance of the images of this step."""
        return self.terms["perceptual"]

    def stop(self) -> None:
        """End the search after this step; the result is the best so far, and is marked as
        interrupted."""
        self.stopped = True


OnStep = Callable[[SearchStep], object]


def check_invertible(generator: Generator) -> None:
    """Raise `Error` unless photos can be compared with what ``generator`` draws."""
    height, width = generator.image_size
    if height != width:
        raise IncompatibleError(
            f"this network draws images of {width} x {height} pixels; only square images can be"
            " inverted"
        )
    if generator.channels not in (1, 3):
        kind = "transparent images" if generator.channels == 4 else f"{generator.channels} channels"
        raise IncompatibleError(
            f"this network draws {kind}; only RGB and greyscale images can be inverted"
        )


class Projector:
    """Inverts images into the latent space of one model.

    It owns what searches need besides the images: the perceptual distance, the statistics of w, the
    Gauss-Newton preconditioner, the model's encoder, the latent discriminator, and the domain that
    a verdict compares with. Each is made when it is first needed and then kept, and what takes long
    to measure is also kept in the user's cache folder.

    ::

        projector = latentedit.Projector(latentedit.load_model("faces128"))
        result = projector.invert(image, latentedit.InversionOptions(space="w", seed=3))

    Args:
        model: a model, or a generator alone, which comes without encoder, framing and
            preconditioner.
        settings: the perceptual distance, and parts to use instead of the projector's own.
    """

    def __init__(
        self, model: "Model | Generator", settings: ProjectorSettings | None = None
    ) -> None:
        self.settings = settings or ProjectorSettings()
        self.model: Model | None = None if isinstance(model, Generator) else model
        generator = model if isinstance(model, Generator) else model.generator
        label = self.settings.label
        self.generator: Generator = generator if label is None else of_class(generator, label)
        check_invertible(generator)
        self._curvatures: dict[float, Curvature] = {}

    def __repr__(self) -> str:
        return f"Projector({self.model or self.generator!r})"

    @property
    def device(self) -> torch.device:
        return self.generator.device

    @property
    def encoder(self) -> Encoder | PublishedEncoder | None:
        """The encoder of the model; None if it has none."""
        return None if self.model is None else self.model.encoder

    @property
    def framing(self) -> dict[str, Any] | None:
        """The framing of the model's crops; None if it defines none."""
        return None if self.model is None else self.model.framing

    @property
    def discriminator(self) -> Discriminator | None:
        """The discriminator that the perceptual distance and the domain look with."""
        if self.settings.discriminator is not None or self.model is None:
            return self.settings.discriminator
        return self.model.discriminator

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the generator."""
        return fingerprint(self.generator)

    @property
    def measured(self) -> str:
        """What stands for the generator in the names of cached measurements."""
        label = self.settings.label
        return self.fingerprint if label is None else f"class{label}-{self.fingerprint}"

    @cached_property
    def statistics(self) -> WStatistics:
        """Mean, spread and covariance of the model's random w."""
        return self.settings.statistics or WStatistics.of(self.generator)

    @cached_property
    def focus(self) -> Tensor | None:
        """Weights of the pixels, ``[1, 1, resolution, resolution]``; None for equal weights."""
        given = self.settings.focus
        if not isinstance(given, str):
            return given
        return face_weights(self.framing, self.generator.resolution)

    @property
    def perceptual(self) -> Perceptual:
        """The perceptual distance that searches minimise."""
        return self._perceptual[0]

    @property
    def perceptual_line(self) -> str:
        """One line that says which distance it is and why."""
        return self._perceptual[1]

    @cached_property
    def _perceptual(self) -> tuple[Perceptual, str]:
        given = self.settings.perceptual
        if not isinstance(given, str):
            return given, f"perceptual distance: {given.name}"
        return choose(
            given, self.discriminator, self.settings.perceptual_weights, self.device, self.focus
        )

    @cached_property
    def critic(self) -> Critic:
        """The latent discriminator, trained when it is first needed, which takes seconds."""
        return self.settings.critic or Critic(self.generator, self.statistics)

    @cached_property
    def domain(self) -> Domain | None:
        """How far the model's own random images lie from one another; None for a model without a
        discriminator."""
        if self.discriminator is None:
            return None
        # Measuring takes as long as hundreds of steps, and gives the same for every image.
        if self.settings.cache:
            return Domain.cached(self.generator, self.discriminator, self.measured)
        return Domain.of(self.generator, self.discriminator)

    def loss(self, pixel_weight: float = PIXEL_WEIGHT) -> ReconstructionLoss:
        """Return the loss between an image and its rendering, with everything but the prior and the
        noise regulariser."""
        return ReconstructionLoss(self.perceptual, pixel_weight, self.focus)

    def has_curvature(self, pixel_weight: float = PIXEL_WEIGHT) -> bool:
        """Return whether `curvature` is at hand, so that it need not be measured."""
        if self.given_curvature is not None or pixel_weight in self._curvatures:
            return True
        return (
            self.settings.cache and curvature_file(self.measured, self.loss(pixel_weight)).is_file()
        )

    def curvature(
        self, pixel_weight: float = PIXEL_WEIGHT, progress: Callable[[int], None] | None = None
    ) -> Curvature:
        """Return the Gauss-Newton preconditioner: that of the settings, of the model, of the cache
        folder, or one measured now.

        Args:
            pixel_weight: that of the search.
            progress: called while it is measured, with the number of probes done of
                `latentedit.inversion.preconditioner.PROBES`.
        """
        if self.given_curvature is not None:
            return self.given_curvature
        if pixel_weight not in self._curvatures:
            self._curvatures[pixel_weight] = self._measured_curvature(pixel_weight, progress)
        return self._curvatures[pixel_weight]

    @property
    def given_curvature(self) -> Curvature | None:
        """The preconditioner of the settings, or the model's, which need not be measured; None if
        neither has one."""
        if self.settings.curvature is not None or self.model is None:
            return self.settings.curvature
        # The model's own is in the coordinates of all labels together.
        return self.model.curvature if self.settings.label is None else None

    def _measured_curvature(
        self, pixel_weight: float, progress: Callable[[int], None] | None
    ) -> Curvature:
        loss = self.loss(pixel_weight)
        if self.settings.cache:
            return Curvature.cached(
                self.generator, loss, self.statistics, self.measured, progress=progress
            )
        with tf32(True, self.device):
            return Curvature.of(self.generator, loss, self.statistics, progress=progress)

    def starts_from_encoder(self, options: InversionOptions) -> bool:
        """Return whether a search begins with the encoder's output, unless it is given a starting
        point."""
        if options.init == "auto":
            # The published projector begins at the mean.
            return options.method == "quasi-newton" and self.encoder is not None
        return options.init == "encoder"

    def encode(self, images: Tensor, space: str = "w+") -> Tensor:
        """Predict ws ``[N, num_ws, w_dim]`` of images ``[N, C, resolution, resolution]`` in
        [-1, 1], without any search.

        Raises:
            Error: the model has no encoder.
        """
        if self.encoder is None:
            raise NotFoundError(
                'the model has no encoder; train one with "latentedit encoder train"'
            )
        images = images.to(self.device)
        if isinstance(self.encoder, PublishedEncoder):
            return encode_published(self.generator, self.encoder, images, space)
        return encode(self.generator, self.encoder, images, space, statistics=self.statistics)

    def invert(
        self,
        images: Tensor,
        options: InversionOptions | None = None,
        *,
        start: Tensor | None = None,
        mask: Tensor | None = None,
        neighbour: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Inversion:
        """Search for the w and the noise maps that reproduce images.

        The result for every image is the step with its smallest loss. Ctrl-C ends the search and
        returns the best result so far, with ``settings["interrupted"]`` set; `SearchStep.stop` does
        the same from ``on_step``.

        Args:
            images: ``[N, C, resolution, resolution]`` in [-1, 1]; they do not influence one
                another.
            start: starting point ``[N, num_ws, w_dim]``; None for that of ``options.init``.
            mask: ``[1 or N, 1, resolution, resolution]``, 1 for pixels that count and 0 for others.
            neighbour: ``[N, num_ws, w_dim]``, w to which the result is kept near, such as that of
                the frame before (``options.neighbour_weight``).
            on_step: called after every step with a `SearchStep`.

        Raises:
            Error: a wrong shape, no starting point for 0 steps, or no perceptual distance is
                available.
        """
        options = options or InversionOptions()
        if not self.generator.synthesis.noise_shapes:  # StyleGAN3 has no noise inputs to search
            # Not an error: the same options then work with networks of all kinds.
            options = replace(options, noise="frozen")
        self._check_shapes(images, start, mask, neighbour)
        images = images.to(self.device)
        if start is None and self.starts_from_encoder(options):
            start = self.encode(images, options.space)
        if start is None and not options.step_count:
            raise ArgumentError("steps must be at least 1, got 0")

        search = Search(
            self.generator,
            images,
            self.loss(options.pixel_weight),
            self.statistics,
            options,
            mask=mask,
            start=start,
            critic=self.critic if options.adversarial_weight else None,
        )
        if neighbour is not None:
            search.neighbour = neighbour.to(self.device)
        curvature = self.curvature(options.pixel_weight) if options.needs_preconditioner else None
        settings = self._described(options)
        # Distances of masked or focused searches do not compare with others, so the latent file
        # says it.
        settings |= {"masked": True} if mask is not None else {}
        label = self.settings.label
        settings |= {"class": label} if label is not None else {}
        settings |= {"focus": "face"} if self.focus is not None else {}
        settings |= {"started_from": "given w"} if start is not None else {}

        try:
            with tf32(True, self.device):
                _run(search, options, curvature, on_step)
        except (KeyboardInterrupt, _Stopped):
            # Before the first step there is no result to keep.
            if not search.history:
                raise
            settings["interrupted"] = True

        return self._result(search, settings)

    def tune(
        self,
        image: Tensor,
        ws: Tensor,
        noise: list[Tensor] | None = None,
        options: TuningOptions | None = None,
        progress: Progress | None = None,
    ) -> Tuning:
        """Tune the generator to ``image [1, C, H, W]`` around ``ws``, as
        `latentedit.inversion.pivotal_tuning.tune` does."""
        return tune(self.generator, image, ws, noise, self.loss(), options, progress)

    def tune_together(
        self,
        images: Tensor,
        ws: Tensor,
        noise: list[Tensor] | None = None,
        options: TuningOptions | None = None,
        progress: Progress | None = None,
    ) -> list[Tuning]:
        """Tune the generator to all of ``images [N, C, H, W]`` around ``ws``, as
        `latentedit.inversion.pivotal_tuning.tune_together` does."""
        return tune_together(self.generator, images, ws, noise, self.loss(), options, progress)

    def _check_shapes(
        self,
        images: Tensor,
        start: Tensor | None,
        mask: Tensor | None,
        neighbour: Tensor | None,
    ) -> None:
        generator = self.generator
        expected = (generator.channels, generator.resolution, generator.resolution)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise ArgumentError.of_shape(
                "image", f"[N, {', '.join(map(str, expected))}]", images.shape
            )

        count = len(images)
        sides = expected[1:]

        if mask is not None and (
            mask.ndim != 4 or mask.shape[1:] != (1, *sides) or len(mask) not in (1, count)
        ):
            raise ArgumentError.of_shape(
                "mask", f"[1 or {count}, 1, {sides[0]}, {sides[1]}]", mask.shape
            )
        if self.focus is not None and self.focus.shape != (1, 1, *sides):
            raise ArgumentError.of_shape(
                "focus", f"[1, 1, {sides[0]}, {sides[1]}]", self.focus.shape
            )

        rows = (count, generator.num_ws, generator.w_dim)
        if neighbour is not None and neighbour.shape != rows:
            raise ArgumentError.of_shape("neighbour", f"{list(rows)}", neighbour.shape)
        if start is not None and start.shape != rows:
            raise ArgumentError.of_shape("start", f"{list(rows)}", start.shape)

    def _described(self, options: InversionOptions) -> dict[str, Any]:
        """Return what latent files say of a search."""
        of_adam = {"learning_rate": options.learning_rate, "initial_noise": options.initial_noise}
        return {
            "space": options.space,
            "steps": options.step_count,
            "method": options.method,
            "perceptual": self.perceptual.name,
            **(of_adam if options.method == "adam" else {}),
            "noise": options.noise,
            "noise_weight": options.noise_weight,
            "pixel_weight": options.pixel_weight,
            "prior_weight": options.prior_weight,
            "delta_weight": options.delta_weight,
            "adversarial_weight": options.adversarial_weight,
            "restarts": options.restarts,
            "seed": options.seed,
        }

    @torch.no_grad()
    def _result(self, search: Search, settings: dict[str, Any]) -> Inversion:
        generator = self.generator
        ws = search.best_w.expand(-1, generator.num_ws, -1).contiguous()
        maps = search.best_maps
        offsets = search.best_offsets

        def picture(i: int, noise: Any) -> Tensor:
            # One by one: the way a latent file is rendered later, so that the bytes agree.
            one = slice(i, i + 1)
            return render(generator, ws[one], noise, [offset[one] for offset in offsets])

        found = torch.cat([picture(i, [m[i : i + 1] for m in maps]) for i in range(len(ws))])
        own = torch.cat([picture(i, "const") for i in range(len(ws))])
        # The image of the mean w says what a search had to gain: the verdict compares with it.
        average = generator.synthesis(
            self.statistics.mean.to(generator.device).expand(1, generator.num_ws, -1)
        )

        def away(image: Tensor) -> Tensor:
            return distance(self.perceptual.features(image), search.target)

        w_distance = self.statistics.distance(ws)
        columns = {
            "perceptual": away(found),
            "psnr": psnr(found, search.image),
            "perceptual_own_noise": away(own),
            "psnr_own_noise": psnr(own, search.image),
            "perceptual_average": away(average),
            "w_distance": w_distance,
            "w_percentile": torch.tensor(
                [self.statistics.percentile(float(value)) for value in w_distance]
            ),
        }
        distances = [
            {name: round(float(column[i]), 5) for name, column in columns.items()}
            for i in range(len(ws))
        ]
        return Inversion(
            ws.cpu(),
            [map_.cpu() for map_ in maps],
            found.cpu(),
            own.cpu(),
            {name: torch.stack(values) for name, values in search.history.items()},
            distances,
            settings["space"],
            self.fingerprint,
            settings,
            [offset.cpu() for offset in offsets],
        )


class _Stopped(Exception):  # noqa: N818 - not an error
    """`SearchStep.stop` was called."""


def _run(
    search: Search, options: InversionOptions, curvature: Curvature | None, on_step: OnStep | None
) -> None:
    """Search for w, once and for every restart, then for what is left with the best w."""
    steps = options.step_count
    if not steps:
        search.take_start()
        return

    # What is left after w: the noise maps, unless they were searched with it, and the offsets of
    # styles.
    with_noise = options.noise == "optimise" and options.method == "quasi-newton"
    detailed = with_noise or space_of(options.space).has_scale
    # w first and details afterwards: searched together, the noise maps would take over what w can
    # explain.
    first = max(round(steps * FIRST_PART), 1) if detailed else steps
    total = first * (options.restarts + 1) + (steps - first if detailed else 0)

    def teller(done: int) -> Callable[[int, dict[str, float]], None]:
        def tell(step: int, terms: dict[str, float]) -> None:
            if on_step is None:
                return
            told = SearchStep(done + step, total, terms, search.rendered)
            on_step(told)
            if told.stopped:
                raise _Stopped

        return tell

    for run in range(options.restarts + 1):
        # The first search starts at the mean or where it was told to, restarts at random w.
        psi = RESTART_PSI if run else 0.0
        # Seeds go round, as NumPy's random streams take no larger ones.
        seed = (options.seed + run) % 2**32
        tell = teller(run * first)
        if curvature is not None:
            search.quasi_newton(first, curvature, seed, psi, tell)
        else:
            search.adam(first, seed, psi, tell)

    if detailed:
        search.details(steps - first, with_noise, teller(first * (options.restarts + 1)))


def invert(
    model: "Model | Generator",
    image: Tensor,
    space: str = "w+",
    steps: int | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
    **choices: Unpack[InversionChoices],
) -> Inversion:
    """Invert images: search for the w and the noise maps that reproduce them.

    This is the short form of `Projector` and `Projector.invert`. A model is inverted as
    `latentedit invert` does it: from its encoder, with its preconditioner, and with the face
    counting more than the background. A generator alone has none of these, and its preconditioner
    is measured in every call; a `Projector` keeps it.

    Args:
        model: a model, or a generator.
        image: ``[N, C, resolution, resolution]`` in [-1, 1]; the images of a batch do not influence
            one another.
        space: "w" (one w), "w+" (one per layer) or "s" (W+, then offsets of every style channel: Wu
            et al. 2021).
        steps: None for 100, or 1000 with Adam; 0 returns the starting point as it is.
        progress: called after every step with its number, the total number of steps and the mean
            terms of the loss.
        watch: called after every step with its number and the images rendered in it,
            ``[N, C, H, W]``.
        choices: fields of `InversionOptions` and of `ProjectorSettings`, and ``start`` and ``mask``
            as `Projector.invert` takes them.

    Raises:
        Error: a wrong shape or value, or no perceptual distance is available.
    """
    chosen, parts, given = sorted_out(dict(choices))
    options = InversionOptions(space=space, steps=steps, seed=seed, **chosen)
    if isinstance(model, Generator):
        # A generator without a file has no name that a cache could go by, and may be changed by its
        # owner at any time.
        parts = {"cache": False, **parts}

    def tell(step: SearchStep) -> None:
        if watch:
            watch(step.number, step.images)
        if progress:
            progress(step.number, step.total, step.terms)

    return Projector(model, ProjectorSettings(**parts)).invert(
        image, options, on_step=tell, **given
    )
