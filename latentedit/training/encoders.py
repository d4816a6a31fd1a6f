"""Training an encoder from a generator's own pictures, whose w are known, and from photographs
where there are some."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentedit.errors import ArgumentError, Error, FormatError, IncompatibleError
from latentedit.inversion.encoder import Encoder, EncoderConfig
from latentedit.inversion.perceptual import Perceptual, distance
from latentedit.inversion.preconditioner import Curvature, sample_rows
from latentedit.io.files import replacing
from latentedit.io.locks import alone
from latentedit.io.torch_files import read_state
from latentedit.latent.w_statistics import WStatistics
from latentedit.networks.config import Precision
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from latentedit.training.data import PictureSet
from latentedit.training.states import check_finite, restore_network, restore_optimiser

W_WEIGHT = 0.1
"""Weight of the mean squared error of w in whitened coordinates, where w is known."""
PRIOR_WEIGHT = 0.01
"""Weight of the squared distance of w from its mean, as in the projector."""
PHOTO_SHARE = 0.25
"""Share of photos in every batch, if there are photos."""
AVERAGED = 0.998
"""The shipped weights are an exponential moving average of this decay."""

Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class EncoderTraining:
    """How an encoder is trained."""

    steps: int
    """Number of steps, over which the learning rate falls to zero."""
    batch: int = 16
    photo_share: float = PHOTO_SHARE
    """Share of every batch that is drawn from photos, if there are any."""
    learning_rate: float = 1e-3
    precision: Precision = "fp32"
    """Precision of rendering; bfloat16 takes half the time where the processor computes it."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2:
            raise ArgumentError(
                f"steps must be at least 1 and batch at least 2, got {self.steps} and {self.batch}"
            )
        if not 0 < self.photo_share < 1:
            raise ArgumentError(
                f"the share of photos must lie between 0 and 1, got {self.photo_share}"
            )


class EncoderTrainer:
    """Steps of training; ``state`` alone suffices to resume.

    Args:
        photos: photos of the model's kind and size.
        config: the encoder's architecture; None chooses by the generator.
    """

    def __init__(
        self,
        generator: Generator,
        perceptual: Perceptual,
        curvature: Curvature,
        options: EncoderTraining,
        *,
        config: EncoderConfig | None = None,
        photos: PictureSet | None = None,
    ) -> None:
        if photos is not None and photos.shape != (
            generator.channels,
            generator.resolution,
            generator.resolution,
        ):
            raise IncompatibleError(
                f"the photos have shape {list(photos.shape)}, the images of the generator"
                f" [{generator.channels}, {generator.resolution}, {generator.resolution}]"
            )

        self.generator = generator
        self.perceptual = perceptual
        self.curvature = curvature
        self.photos = photos
        self.steps = options.steps
        self.batch = options.batch
        self.learning_rate = options.learning_rate
        self.seed = options.seed
        self.photo_share = options.photo_share
        self.precision = options.precision
        self.device = generator.device
        self.statistics = WStatistics.of(generator)
        self.mean = self.statistics.mean.to(self.device)
        self.whitening, self.colouring = (
            self.statistics.whitening.to(self.device),
            self.statistics.colouring.to(self.device),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.encoder = Encoder(config or EncoderConfig.of(generator)).to(self.device)
            self.averaged = Encoder(self.encoder.config).to(self.device).requires_grad_(False)

        self.averaged.load_state_dict(self.encoder.state_dict())
        self.optimiser = torch.optim.Adam(
            self.encoder.parameters(), lr=options.learning_rate, betas=(0.9, 0.99)
        )
        self.step_number = 0
        self.interrupted = False

    def step(self) -> dict[str, float]:
        """One step; W and W+ in turn.

        Where w is known the loss is the distance that its error makes by the curvature, so that
        nothing has to be differentiated but the encoder; photographs are compared as pictures.
        Returns both distances after every pass.
        """
        # One network serves both spaces: in W all layers have the same w.
        plus = self.step_number % 2 == 1
        draws = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step_number)
        real = (
            min(max(round(self.batch * self.photo_share), 1), self.batch - 1)
            if self.photos is not None
            else 0
        )
        own = self.batch - real
        rows = self.encoder.config.num_ws
        dim = self.encoder.config.w_dim
        synthesis = partial(self.generator.synthesis, precision=self.precision)
        shapes = self.generator.synthesis.noise_shapes

        with torch.no_grad():
            known = sample_rows(
                self.generator, self.statistics, own, draws, *(() if plus else (0.0, 0.0))
            )
            noise: Any = [
                torch.randn(own, *shape[1:], generator=draws).to(self.device) for shape in shapes
            ]
            image = synthesis(self.mean + known @ self.colouring, noise=noise)
            if real:
                image = torch.cat([image, self._photographs(real, draws)])
            target = self.perceptual.features(image[own:]) if real else torch.empty(0)
            # The first pass starts from the mean image, as an inversion does.
            rendered = synthesis(self.mean.expand(1, rows, -1)).expand_as(image)

        for group in self.optimiser.param_groups:
            t = self.step_number / self.steps
            group["lr"] = (
                self.learning_rate * min(1.0, (self.step_number + 1) / 100) * max(1 - t, 0.01)
            )

        self.optimiser.zero_grad(set_to_none=True)
        u = torch.zeros(self.batch, rows, dim, device=self.device)
        terms: dict[str, float] = {}
        space = "w+" if plus else "w"

        for number in range(self.encoder.config.passes):
            shared, offsets = self.encoder(image, rendered, u)
            u = u + shared + (offsets if plus else 0)
            error = u[:own] - known
            # far above the true one where that is large: hence the logarithm
            predicted = self.curvature.distance(error)
            loss = (predicted.log1p() + W_WEIGHT * error.square().mean(dim=(1, 2))).sum()
            loss = loss + PRIOR_WEIGHT * u.square().mean(dim=(1, 2)).sum()
            terms[f"{space} {number}"] = float(predicted.detach().mean())
            if real:
                drawn = synthesis(self.mean + u[own:] @ self.colouring)
                apart = distance(self.perceptual.features(drawn), target)
                loss = loss + (apart + (drawn - image[own:]).square().mean(dim=(1, 2, 3))).sum()
                terms[f"{space} {number} photos"] = float(apart.detach().mean())

            (loss / self.batch).backward()
            u = u.detach()
            if number + 1 < self.encoder.config.passes:
                with torch.no_grad():
                    rendered = synthesis(self.mean + u[:own] @ self.colouring)
                    if real:
                        rendered = torch.cat([rendered, drawn.detach()])

        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimiser.step()
        decay = min(AVERAGED, (self.step_number + 1) / (self.step_number + 10))
        with torch.no_grad():
            for averaged, parameter in zip(
                self.averaged.parameters(), self.encoder.parameters(), strict=True
            ):
                averaged.lerp_(parameter, 1 - decay)

        self.step_number += 1
        return terms

    def _photographs(self, count: int, draws: torch.Generator) -> Tensor:
        assert self.photos is not None
        chosen = torch.randint(len(self.photos), (count,), generator=draws)
        seed = int(torch.randint(2**31 - 1, (), generator=draws))
        pictures = self.photos.batch(chosen.tolist(), seed, mirror=True)[0].to(self.device)
        # People and cameras that are not among them: a little more or less light and contrast.
        light = 0.2 * (torch.rand(count, 1, 1, 1, generator=draws) - 0.5).to(self.device)
        contrast = 1 + 0.3 * (torch.rand(count, 1, 1, 1, generator=draws) - 0.5).to(self.device)
        return (pictures * contrast + light).clamp(-1, 1)

    def state(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step_number,
            "curvature": self.curvature.factors,
            "fingerprint": fingerprint(self.generator),
            "config": self.encoder.config.as_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises:
            Error: the state of another generator's encoder, or of one of other sizes.
        """
        if state["config"] != self.encoder.config.as_dict() or state["fingerprint"] != fingerprint(
            self.generator
        ):
            raise IncompatibleError("the training state belongs to another encoder")

        step = state["step"]
        if type(step) is not int or not 0 <= step < 2**53:
            raise FormatError.of("the training state's step", "a whole number of at least 0", step)

        self.curvature = _curvature(state, self.encoder.config)
        restore_network(self.encoder, state, "encoder")
        restore_network(self.averaged, state, "averaged")
        restore_optimiser(self.optimiser, state, "optimiser")
        self.step_number = step


def _curvature(state: dict[str, Any], config: EncoderConfig | None = None) -> Curvature:
    factors = state["curvature"]
    if not isinstance(factors, Tensor) or factors.ndim != 3 or not factors.is_floating_point():
        raise FormatError("the training state's curvature must be a tensor of three axes")
    if config is not None and tuple(factors.shape[1:]) != (config.num_ws, config.w_dim):
        raise IncompatibleError("the training state's curvature belongs to another encoder")
    check_finite("curvature", factors)
    return Curvature(factors.float())


def train_encoder(
    trainer: EncoderTrainer,
    state: str | os.PathLike[str],
    *,
    max_minutes: float | None = None,
    save_minutes: float = 5.0,
    report: Report | None = None,
) -> Encoder:
    """Train until ``trainer.steps`` or the time is reached, from the file ``state`` on if it is
    there; it is written every few minutes, at the end and on Ctrl-C, which sets
    ``trainer.interrupted``. Returns the averaged encoder.

    Raises:
        Error: ``state`` is none, or of another encoder; another process trains from it; it cannot
            be written.
    """
    state = Path(state)
    with alone(state.with_name(f"{state.name}.lock"), state):
        if state.is_file():
            with _explaining(state):
                trainer.restore(read_state(state))
        started = saved = time.monotonic()
        try:
            while trainer.step_number < trainer.steps:
                terms = trainer.step()
                now = time.monotonic()
                if report:
                    report(trainer.step_number, terms)
                if max_minutes is not None and now - started > max_minutes * 60:
                    break
                if now - saved > save_minutes * 60:
                    _save(state, trainer)
                    saved = now
        except KeyboardInterrupt:
            trainer.interrupted = True
        _save(state, trainer)

    return trainer.averaged.eval().requires_grad_(False)


def saved_curvature(state: str | os.PathLike[str]) -> Curvature | None:
    """Return what a training that goes on from the file ``state`` measured at its beginning; None
    where there is no such file."""
    if not Path(state).is_file():
        return None
    with _explaining(state):
        return _curvature(read_state(state))


@contextmanager
def _explaining(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except Error as error:
        said = error.reason
        if error.path is not None:  # what the reader says
            said = f"not a training state of an encoder, or damaged: {said}"
        raise FormatError(f"{said}; remove it to start again", path=path) from error
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            "not a training state of an encoder, or damaged; remove it to start again", path=path
        ) from error


def _save(path: Path, trainer: EncoderTrainer) -> None:
    with replacing(path) as temporary:
        torch.save(trainer.state(), temporary)
