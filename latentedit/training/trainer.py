"""One training step of StyleGAN2-ADA: both losses, lazy regularisation, averages, adaptive
augmentation; and of the first StyleGAN: the same, with networks that grow.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentedit.errors import (
    ArgumentError,
    DivergedError,
    FormatError,
    IncompatibleError,
    quoted,
    shown,
)
from latentedit.model.model import Model
from latentedit.networks.config import Precision
from latentedit.networks.convolution import differentiated_twice
from latentedit.networks.discriminator import DiscriminatorConfig, build_discriminator
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.networks.progressive import Growing, with_lod
from latentedit.runtime.cuda_graphs import Graphs
from latentedit.runtime.devices import auto_precision, tf32
from latentedit.training.ada import ADA_INTERVAL, overfitting, steer
from latentedit.training.augmentation import AugmentPipe, preset
from latentedit.training.config import FREE_TO_CHANGE, TrainingConfig
from latentedit.training.data import PictureSet
from latentedit.training.distributed import World
from latentedit.training.feed import Feed
from latentedit.training.losses import fake_loss, generator_loss, r1_penalty, real_loss
from latentedit.training.path_length import path_lengths
from latentedit.training.states import check_like, restore_network, restore_optimiser
from latentedit.training.streams import Streams

STATE_VERSION = 1
BESIDE = 2**22
"""Numbers of a batch of real pictures up to which they are judged beside the generated ones."""
CHANGED = "use another `out`, or `accept_changes=True`"


class Trainer:
    """Networks, optimisers and counters of a run; `step` makes one training step.

    Every random number of a step is drawn from the run's seed, the number of the step and that of
    the picture, so the counters alone restore the random streams and the place in the data, and a
    batch can be spread over processes and over rounds of accumulation without a change but for
    rounding.

    On CUDA the passes of a step are graphs, unless ``graphs`` is off, processes share the work, or
    networks grow. The passes themselves are the same on every device: nothing in them asks for a
    number or makes a tensor of numbers from the host.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: PictureSet,
        device: str | torch.device = "cpu",
        world: World = World(),  # noqa: B008 - immutable
        *,
        graphs: bool = True,
    ) -> None:
        self.config = config
        self.data = data
        self.device = torch.device(device)
        self.world = world
        self.graphs = Graphs(self.device, graphs and world.size == 1 and not config.grow_from)
        self.precision: Precision = (
            auto_precision(self.device)
            if config.precision == "auto"
            else cast(Precision, config.precision)
        )
        torch.manual_seed(config.seed)
        shape: dict[str, Any] = {
            "resolution": data.resolution,
            "channels": data.channels,
            "c_dim": data.labels.shape[1],
        }
        if config.generator.get("architecture") == "stylegan3":
            raise ArgumentError(
                "StyleGAN3 networks are read, rendered and inverted, but not trained; choose "
                "another architecture"
            )

        if "first_size" in config.generator:
            raise ArgumentError("networks of non-square images are rendered, but not trained")

        # Half precision ends at 65,504; activations are clamped as in StyleGAN2-ADA.
        clamp = {"conv_clamp": 256.0} if config.precision == "fp16" else {}
        try:
            self.g = Generator(GeneratorConfig(**{**clamp, **config.generator, **shape})).to(
                self.device
            )
            self.d = build_discriminator(
                DiscriminatorConfig(**{**clamp, **config.discriminator, **shape})
            ).to(self.device)
        except TypeError as error:
            raise FormatError(f"training configuration: {error}") from error

        self._check_growing()
        self.rounds = self._rounds()

        # Gradients are switched on for the network of a pass only, so that none are computed in
        # vain.
        self.g.requires_grad_(False)
        self.d.requires_grad_(False)

        # Images are rendered with the average of the weights, which varies less from step to step
        # (Karras et al. 2018).
        self.g_ema = copy.deepcopy(self.g).eval()
        self.g_ema.label_frequencies = data.label_frequencies(config.mirror)
        self.augment = (
            AugmentPipe(**preset(config.augment)).to(self.device)
            if config.augment != "none"
            else None
        )
        if self.augment is not None:
            self.augment.p.fill_(config.augment_p)
            self.augment.fixed = self.graphs.active
        self.g_parameters = list(self.g.parameters())
        self.d_parameters = [
            p for p in self.d.parameters() if id(p) not in {id(q) for q in self._frozen()}
        ]
        self.g_optimizer = self._optimizer(
            self.g_parameters, config.path_interval if config.path_weight else 0
        )
        self.d_optimizer = self._optimizer(
            self.d_parameters, config.r1_interval if config.r1_gamma else 0
        )
        self.images_seen = 0
        self.steps = 0
        self.clock = torch.zeros([], dtype=torch.long, device=self.device)
        """``steps`` of the step that is being made, where graphs can read it."""
        self.feed = Feed(data, self.rounds, config.seed, config.mirror, self.device)
        self.path_mean = torch.zeros([], device=self.device)
        self.signs = torch.zeros(2, device=self.device)  # sum and count of the signs of real logits
        self.overfitting = torch.zeros([], device=self.device)
        self.seconds = 0.0
        self.started_from: str | None = None
        self.figures: dict[str, Tensor] = {}
        self._sums: dict[str, dict[str, Tensor]] = {}
        """By pass, what its rounds add up."""

    @property
    def dtype(self) -> torch.dtype:
        return self.g_parameters[0].dtype

    def _check_growing(self) -> None:
        start = self.config.grow_from
        full = self.g.resolution
        if start and (self.g.config.architecture, self.d.config.architecture) != (
            "stylegan1",
            "stylegan1",
        ):
            raise ArgumentError(
                'progressive growing needs the architecture "stylegan1"; grow_from must be 0 for '
                "others"
            )
        if start and (start & (start - 1) or not 4 <= start <= full):
            raise ArgumentError.of("grow_from", f"a power of two from 4 to {full}", start)

    def _grow(self) -> None:
        """Set the level of detail of this step; the optimisers forget the past where layers come or
        go."""
        lod, before = (
            self.config.lod(seen, self.g.resolution)
            for seen in (self.images_seen, max(self.images_seen - self.config.batch, 0))
        )
        for network in (self.g.synthesis, self.g_ema.synthesis, self.d):
            if isinstance(network, Growing):
                network.set_lod(lod)

        # Adam's moments belong to the gradients of other networks then.
        if (math.floor(lod), math.ceil(lod)) != (math.floor(before), math.ceil(before)):
            self.g_optimizer.state.clear()
            self.d_optimizer.state.clear()
        if self.config.grow_from:
            self.figures["lod"] = torch.tensor(lod)

    def _rounds(self) -> list[range]:
        """Return the pictures of a batch that this process handles, a range for every round of
        accumulation.

        Picture n of the batch goes to round n mod R. Every minibatch-deviation group then lies
        within one round, and is the same group for any R.
        """
        batch = self.config.batch
        world = self.world.size
        at_once = self.config.micro_batch or batch // world
        if batch % world:
            raise ArgumentError(
                f"a batch of {batch} cannot be divided among {world} processes",
                advice="change `batch`",
            )
        if batch % (world * at_once):
            raise ArgumentError(
                f"a batch of {batch} is not a multiple of a micro-batch of {at_once} on {world} "
                "processes"
            )

        count = batch // at_once
        group = self.d.config.mbstd_group_size if self.d.config.mbstd_channels else 1
        if count > 1 and at_once % min(group, batch):
            raise ArgumentError(
                f"a micro-batch of {at_once} is not a multiple of the minibatch-deviation group "
                f"of {group}"
            )

        mine = range(self.world.rank * count // world, (self.world.rank + 1) * count // world)
        return [range(index, batch, count) for index in mine]

    def _frozen(self) -> list[nn.Parameter]:
        """Return the parameters of the first ``freeze_d`` discriminator layers, counted from the
        picture (Mo et al. 2020, FreezeD)."""
        layers = [
            getattr(block, name)
            for block in self.d.blocks
            for name in ("fromrgb", "conv0", "conv1", "skip")
            if hasattr(block, name)
        ]
        if self.config.freeze_d > len(layers):
            raise ArgumentError.of(
                "freeze_d", f"at most {len(layers)} for this discriminator", self.config.freeze_d
            )
        return [p for layer in layers[: self.config.freeze_d] for p in layer.parameters()]

    def _optimizer(self, parameters: list[nn.Parameter], interval: int) -> torch.optim.Adam:
        ratio = _lazy_ratio(interval)
        # Lazy regularisation (StyleGAN2, appendix B): the passes of the regulariser count as
        # additional updates, so rate and memory are scaled to match.
        rate, betas = self.config.learning_rate * ratio, (0.0, 0.99**ratio)
        return torch.optim.Adam(parameters, lr=rate, betas=betas, eps=1e-8, **self._adam_form())

    def _adam_form(self) -> dict[str, bool]:
        """Return how Adam is computed here: in one kernel, and in a graph with the count of its
        steps on the device."""
        return {"fused": True, "capturable": self.device.type == "cuda"}

    def start_from(self, model: Model) -> dict[str, float]:
        """Take over every tensor of ``model`` whose name and shape fit (transfer learning).

        Blocks of the resolutions that both networks have are kept, so the resolution may differ.
        The moving average is not ramped up any more, as it does not start from noise.

        Returns:
            The share of the parameters of "generator" and "discriminator" that was taken over.

        Raises:
            Error: less than a tenth of the generator fits.
        """
        if model.generator.config.architecture == "stylegan3":
            raise IncompatibleError(
                "StyleGAN3 networks are read, rendered and inverted, but not trained",
                path=model.path,
            )

        sources: list[tuple[str, nn.Module, nn.Module | None]] = [
            ("raw generator", self.g, model.raw_generator or model.generator),
            ("generator", self.g_ema, model.generator),
            ("discriminator", self.d, model.discriminator),
        ]
        shares = {}
        for name, ours, source in sources:
            theirs = source.state_dict() if source else {}
            # Names and shapes decide, and not the architecture: a network of another resolution
            # gives its coarse blocks.
            fitting = {
                key
                for key, t in ours.state_dict().items()
                if key in theirs and theirs[key].shape == t.shape
            }
            parameters = dict(ours.named_parameters())
            fitted = sum(p.numel() for key, p in parameters.items() if key in fitting)
            shares[name] = fitted / sum(p.numel() for p in parameters.values())
            # With so little in common the run would start from scratch, which the user should know.
            if name == "raw generator" and shares[name] < 0.1:
                raise IncompatibleError(
                    f"{model.path or 'the model'}: only {shares[name]:.0%} of the generator's "
                    "parameters fit the networks of"
                    " this run; choose a preset of the same widths"
                )
            for key in fitting:
                ours.state_dict()[key].copy_(theirs[key])

        self.started_from = fingerprint(model.generator)
        del shares["raw generator"]
        return shares

    def step(self) -> None:
        """One batch: both networks, path length (every 4th), R1 (every 16th), averages,
        augmentation."""
        with tf32(True, self.device):
            self._step()

    def _step(self) -> None:
        config = self.config
        self._grow()
        self.load()
        passes: dict[str, Callable[[], None]] = {"main": lambda: self._main_pass(self.real())}

        # Lazy: the regularisers change slowly, and computing them every 4th and 16th step costs
        # little quality.
        if config.path_weight and self.steps % config.path_interval == 0:
            passes["path"] = self._path_pass
        if config.r1_gamma and self.steps % config.r1_interval == 0:
            passes["r1"] = lambda: self._r1_pass(self.real())
        for name, work in passes.items():
            self.graphs.run(name, work)
        self.graphs.run(tuple(passes), lambda: self._share_sums(passes))
        self.images_seen += config.batch
        self.steps += 1
        self._average()
        if self.steps % ADA_INTERVAL == 0:
            self._adapt()

    def load(self) -> None:
        """Bring to the device what the passes of this step read there."""
        self.clock.fill_(self.steps)
        self.feed.load(self.images_seen)

    def real(self) -> list[tuple[Tensor, Tensor]]:
        """Return the pictures and labels of every round."""
        found = []
        for index in range(len(self.rounds)):
            images, labels = self.feed.pictures(index)
            found.append((self.coarsened(images.to(self.dtype)), labels.to(self.dtype)))
        return found

    def coarsened(self, images: Tensor) -> Tensor:
        """Return real pictures with the detail that the networks have grown to."""
        lod = self.d.level if isinstance(self.d, Growing) else 0.0
        return with_lod(images, lod) if lod else images

    def _streams(self, name: str, samples: range) -> Streams:
        numbers = torch.arange(samples.start, samples.stop, samples.step, device=self.device)
        return Streams(self.config.seed, self.clock, name, numbers, self.dtype)

    def _main_pass(self, real: list[tuple[Tensor, Tensor]]) -> None:
        """Both losses, of the same generated pictures, and both updates.

        The published code generates others for the discriminator, by the generator just updated.
        Gradients at one and the same point are as good (Mescheder et al. 2018, section 2) and save
        a pass through either network.
        """
        batch = self.config.batch
        sums: dict[str, Tensor] = {}
        self._sums["main"] = sums

        with (
            self._training(self.g_parameters, self.g_optimizer),
            self._training(self.d_parameters, self.d_optimizer),
        ):
            for samples, (images, labels) in zip(self.rounds, real, strict=True):
                of_real = partial(self._real_gradients, samples, images, labels, sums)
                # Beside the rest, as small feature maps leave most of a GPU idle. Large ones fill
                # it, and need the memory.
                gradients = of_real() if images.numel() > BESIDE else self.graphs.fork(of_real)
                draws = self._streams("generator", samples)
                fake, ws, fake_labels = self.generate(draws)
                fake_logits = self.judge(fake, fake_labels, draws)
                loss = generator_loss(fake_logits).sum() / batch
                # The graph is kept: the discriminator's loss uses the same images and logits.
                loss.backward(inputs=self.g_parameters, retain_graph=True)
                _add(sums, "loss_g", loss)
                _add(sums, "w", ws.sum(dim=0) / batch)
                _add(sums, "logits_fake", fake_logits.sum() / batch)
                _add(sums, "spread_fake", _spread(fake) / len(self.rounds) / self.world.size)
                loss_fake = fake_loss(fake_logits).sum() / batch
                loss_fake.backward(inputs=self.d_parameters)
                del fake, ws, fake_logits, loss  # and with them all that was kept for gradients
                self.graphs.join()
                _add_gradients(self.d_parameters, gradients)
                _add(sums, "loss_d", loss_fake)
            _add(sums, "loss_d", sums.pop("loss_real"))

    def _real_gradients(
        self, samples: range, images: Tensor, labels: Tensor, sums: dict[str, Tensor]
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the discriminator's loss on real pictures, one a parameter."""
        batch = self.config.batch
        logits = self.judge(images, labels, self._streams("discriminator", samples))
        loss = real_loss(logits).sum() / batch
        found = torch.autograd.grad(loss, self.d_parameters, allow_unused=True)
        _add(sums, "loss_real", loss)
        _add(sums, "logits_real", logits.sum() / batch)
        _add(sums, "sign", logits.sign().sum() / batch)
        _add(sums, "spread_real", _spread(images) / len(self.rounds) / self.world.size)
        return found

    def _path_pass(self) -> None:
        """Path-length regularisation (StyleGAN2, section 3.2), on half as many pictures as the
        batch has.

        The length that is aimed at is the running mean before this step, without a gradient through
        it; the published code lets the mean of the batch into it (at 1 %), so that pictures
        influence one another.
        """
        config = self.config
        count = max(config.batch // 2, 1)
        names = "path_length", "path_penalty"
        sums = {name: torch.zeros([], device=self.device) for name in names}
        self._sums["path"] = sums

        with self._training(self.g_parameters, self.g_optimizer):
            for samples in self.rounds:
                part = range(samples.start, count, samples.step)
                if not part:
                    continue
                draws = self._streams("path", part)
                with differentiated_twice():
                    images, ws, _ = self.generate(draws, keep_rows=True)
                noise = draws.normal(*images.shape[1:]) / math.sqrt(
                    images.shape[2] * images.shape[3]
                )
                lengths = path_lengths(images, ws, noise)
                penalty = (lengths - self.path_mean.to(lengths.dtype)).square().sum() / count
                (penalty * (config.path_weight * config.path_interval)).backward()
                _add(sums, "path_length", lengths.sum() / count)
                _add(sums, "path_penalty", penalty)

    def _r1_pass(self, real: list[tuple[Tensor, Tensor]]) -> None:
        config = self.config
        sums: dict[str, Tensor] = {}
        self._sums["r1"] = sums
        with self._training(self.d_parameters, self.d_optimizer):
            for samples, (pictures, labels) in zip(self.rounds, real, strict=True):
                images = pictures.detach().requires_grad_()
                with differentiated_twice():
                    logits = self.judge(images, labels, self._streams("r1", samples))
                penalty = r1_penalty(images, logits).sum() / config.batch
                (penalty * (config.r1_gamma / 2 * config.r1_interval)).backward()
                _add(sums, "r1", penalty)

    def generate(self, draws: Streams, keep_rows: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Fresh pictures, their w and labels, with style mixing and random noise.

        The w are those before mixing, ``[N, w_dim]``, or with ``keep_rows`` those rendered,
        ``[N, num_ws, w_dim]``.
        """
        g = self.g
        config = self.config
        # Labels are drawn from those of the shown images, so that labels alone do not tell
        # generated images from real ones.
        labels = self.feed.labels[draws.integers(self.feed.period)].to(self.dtype)
        w = g.mapping.map(draws.normal(g.z_dim), labels)
        ws = w[:, None].expand(-1, g.num_ws, -1)

        if config.style_mixing:
            other = g.mapping.map(draws.normal(g.z_dim), labels)[:, None]
            used = (
                g.num_ws - 2 * int(g.synthesis.level)
                if isinstance(g.synthesis, Growing)
                else g.num_ws
            )
            crossing = 1 + draws.integers(used - 1)[:, None]
            mixed = draws.uniform(1) < config.style_mixing
            second = mixed & (torch.arange(g.num_ws, device=self.device) >= crossing)  # [N, num_ws]
            ws = torch.where(second[:, :, None], other, ws)

        noise = draws.maps([shape[1:] for shape in g.synthesis.noise_shapes])
        images = g.synthesis(ws, noise=noise, precision=self.precision)
        return images, ws if keep_rows else w, labels

    def judge(self, images: Tensor, labels: Tensor, draws: Streams) -> Tensor:
        if self.augment is not None:
            images = self.augment(images, draws=draws)
        logits: Tensor = self.d(images, labels, self.precision)
        return logits

    @contextmanager
    def _training(
        self, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> Iterator[None]:
        """Collect gradients of ``parameters``, over rounds and processes, then update them; others
        need none."""
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer.zero_grad(set_to_none=True)
        yield
        for parameter in parameters:
            parameter.requires_grad_(False)
        self.world.sum_gradients(parameters)
        if self.precision == "fp16":  # an overflow spoils one step, not the run
            for parameter in parameters:
                if parameter.grad is not None:
                    torch.nan_to_num_(parameter.grad, nan=0.0, posinf=1e5, neginf=-1e5)

        optimizer.step()

    @torch.no_grad()
    def _share_sums(self, passes: Iterable[str]) -> None:
        """Add up the figures of rounds and processes; they were divided by the size of the batch
        before."""
        own = {name: value for part in passes for name, value in self._sums[part].items()}
        names = sorted(own)
        flat = self.world.sum(torch.cat([own[name].flatten() for name in names]))
        parts = flat.split([own[name].numel() for name in names])
        sums = {name: part.view_as(own[name]) for name, part in zip(names, parts, strict=True)}
        self.g.mapping.update_average(sums.pop("w")[None])
        if "path_length" in sums:
            self.path_mean.lerp_(
                sums["path_length"].to(self.path_mean.dtype), self.config.path_decay
            )
            sums["path_length"] = self.path_mean.clone()

        sign = sums.pop("sign").float()
        self.signs += torch.stack(
            [sign * self.config.batch, torch.full_like(sign, self.config.batch)]
        )
        for name, value in sums.items():
            # Always in the same place, which is that of no graph.
            if name in self.figures:
                self.figures[name].copy_(value)
            else:
                self.figures[name] = value.clone()

    @torch.no_grad()
    def _average(self) -> None:
        half_life = self.config.ema_kimg * 1000
        if self.config.ema_rampup is not None and self.started_from is None:
            half_life = min(half_life, self.images_seen * self.config.ema_rampup)
        weight = 1 - 0.5 ** (self.config.batch / max(half_life, 1e-8))
        torch._foreach_lerp_(list(self.g_ema.parameters()), list(self.g.parameters()), weight)
        torch._foreach_copy_(list(self.g_ema.buffers()), list(self.g.buffers()))

    @torch.no_grad()
    def _adapt(self) -> None:
        """Steer the strength of the augmentation; all of it on the device."""
        config = self.config
        self.overfitting = overfitting(self.signs)
        self.signs.zero_()
        if self.augment is not None and config.ada_target is not None:
            steer(
                self.augment.p, self.overfitting, config.ada_target, config.batch, config.ada_kimg
            )

    @torch.no_grad()
    def logits(self, images: Tensor, labels: Tensor) -> float:
        """Return the mean output of the discriminator for pictures as they are, without
        augmentation, in whole deviation groups."""
        group = max(self.d.config.mbstd_group_size if self.d.config.mbstd_channels else 1, 1)
        count = len(images) // group * group if len(images) >= group else len(images)
        size = max(group, 16 // group * group)
        parts = [
            self.d(x.to(self.device, self.dtype), c.to(self.device, self.dtype), self.precision)
            for x, c in zip(images[:count].split(size), labels[:count].split(size), strict=True)
        ]
        return float(torch.cat(parts).mean())

    @torch.no_grad()
    def agree(self) -> None:
        """Raise `Error` unless all processes start from the same weights, place and data."""
        data = int(self.data.digest()[:12], 16)
        weights = [
            sum(p.double().sum() for p in network.parameters())
            for network in (self.g, self.d, self.g_ema)
        ]
        facts = torch.tensor(
            [self.images_seen, self.steps, data, *(float(w) for w in weights)], dtype=torch.float64
        )
        if not self.world.same(facts.to(self.device)):
            raise IncompatibleError(
                "the processes start from different states or data",
                advice="all must use the same `out` and training set",
            )

    def state(self) -> dict[str, Any]:
        """Return everything needed to go on exactly; plain values and tensors only."""
        return {
            "version": STATE_VERSION,
            "config": self.config.as_dict(),
            "data": self.data.digest(),
            "g": self.g.state_dict(),
            "d": self.d.state_dict(),
            "g_ema": self.g_ema.state_dict(),
            "g_optimizer": self.g_optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
            "p": self.augment.p if self.augment is not None else None,
            "path_mean": self.path_mean,
            "signs": self.signs,
            "images_seen": self.images_seen,
            "steps": self.steps,
            "seconds": self.seconds,
            "started_from": self.started_from,
        }

    def restore(self, state: dict[str, Any], *, accept_changes: bool = False) -> None:
        """Take up ``state``, as `state` gave it.

        Raises:
            Error: the run was started with other options or other data, and ``accept_changes`` is
                not given; networks of another shape, or a state of another version, in any case.
        """
        if state.get("version") != STATE_VERSION:
            raise FormatError(
                f"the training state has version {quoted(state.get('version'))}, expected "
                f"{STATE_VERSION}"
            )

        missing = self.state().keys() - state.keys() - {"started_from"}
        if missing:
            raise FormatError(f"incomplete training state: {sorted(missing)[0]} is missing")

        ours = self.config.as_dict()
        theirs = state["config"]
        if not isinstance(theirs, dict):
            raise FormatError.of("the training state's config", "options by name", theirs)

        different = [
            name
            for name in ours
            if name not in FREE_TO_CHANGE and name in theirs and ours[name] != theirs[name]
        ]
        if different and not accept_changes:
            changes = ", ".join(
                f"{name} (was {_option(theirs[name])}, is {ours[name]})" for name in different
            )
            raise IncompatibleError(
                f"the run was started with other options: {changes}", advice=CHANGED
            )

        if state["data"] != self.data.digest() and not accept_changes:
            raise IncompatibleError("the run was started with other data", advice=CHANGED)

        self._check_counters(state)
        for name in ("g", "d", "g_ema"):
            restore_network(getattr(self, name), state, name)
        for name in ("g_optimizer", "d_optimizer"):
            restore_optimiser(getattr(self, name), state, name)
        self.graphs.forget()
        if self.augment is not None and state["p"] is not None:
            self.augment.p.copy_(state["p"])
        self.path_mean.copy_(state["path_mean"])
        self.signs.copy_(state["signs"])
        self.images_seen = state["images_seen"]
        self.steps = state["steps"]
        self.seconds = state["seconds"]
        self.started_from = state.get("started_from")

    def _check_counters(self, state: dict[str, Any]) -> None:
        """Raise `Error` unless what ``state`` counts and averages is what `state` gives."""
        check_like(state["path_mean"], self.path_mean, "path_mean")
        check_like(state["signs"], self.signs, "signs")
        if self.augment is not None and state["p"] is not None:
            check_like(state["p"], self.augment.p, "p")
            if not 0 <= float(state["p"]) <= 1:
                raise FormatError.of("the training state's p", "a probability", float(state["p"]))

        for name in ("images_seen", "steps"):
            if type(state[name]) is not int or not 0 <= state[name] < 2**53:
                raise FormatError.of(
                    f"the training state's {name}", "a whole number of at least 0", state[name]
                )

        if not isinstance(state["seconds"], int | float) or not 0 <= state["seconds"] < 2**53:
            raise FormatError.of(
                "the training state's seconds", "a number of at least 0", state["seconds"]
            )
        if not isinstance(state.get("started_from"), str | None):
            raise FormatError("the training state's started_from must be a fingerprint")

    def check_finite(self) -> None:
        """Raise `Error` where a figure or a weight is not a finite number."""
        for name, value in self.figures.items():
            if not bool(torch.isfinite(value).all()):
                raise DivergedError(
                    f"training diverged at {self.images_seen / 1000:.1f} kimg: {name} is "
                    f"{float(value)}",
                    advice="snapshots are from before, try a lower `learning_rate`",
                )

    def check_weights(self) -> None:
        for name, network in (
            ("generator", self.g),
            ("discriminator", self.d),
            ("average", self.g_ema),
        ):
            if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
                raise DivergedError(
                    f"training diverged at {self.images_seen / 1000:.1f} kimg: the {name} has "
                    "weights that are not finite"
                )

    def model(self, framing: dict[str, Any] | None, provenance: dict[str, Any]) -> Model:
        facts = {
            **provenance,
            "images_seen": self.images_seen,
            "pictures": len(self.data),
            "data_sha256": self.data.digest(),
            "seconds": round(self.seconds),
            "settings": self.config.as_dict(),
            **({"label_names": self.data.label_names} if self.data.label_names else {}),
            **({"label_frequencies": shares} if (shares := self.g_ema.label_frequencies) else {}),
            **({"started_from": self.started_from} if self.started_from else {}),
        }
        return Model(self.g_ema, self.d, framing, facts)


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    value = value.detach()
    sums[name] = sums[name] + value if name in sums else value


def _add_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    found = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    both = [(p.grad, g) for p, g in found if p.grad is not None]
    for parameter, gradient in found:
        if parameter.grad is None:
            parameter.grad = gradient
    if both:
        torch._foreach_add_([grad for grad, _ in both], [g for _, g in both])


def _option(value: Any) -> str:
    """As it was read from a file; a short table is written out."""
    if (
        isinstance(value, dict)
        and len(value) <= 8
        and not any(isinstance(item, dict | list | tuple) for item in value.values())
    ):
        return shown(str(value))
    return quoted(value)


def _spread(images: Tensor) -> Tensor:
    """Return the standard deviation over the pictures of a batch, averaged over pixels: near 0
    where a generator has collapsed."""
    return images.detach().float().std(dim=0, correction=0).mean()


def _lazy_ratio(interval: int) -> float:
    """A regularisation every k steps makes k + 1 updates in the time of k (StyleGAN2, appendix B);
    0 is never."""
    return interval / (interval + 1) if interval else 1.0
