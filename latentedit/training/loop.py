"""The training loop of StyleGAN2-ADA: four passes, lazy regularisation, adaptive augmentation, exact snapshots."""

import copy
import hashlib
import io
import json
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentedit.discriminator import Discriminator, DiscriminatorConfig
from latentedit.errors import Error
from latentedit.files import write_bytes
from latentedit.generator import Generator, GeneratorConfig
from latentedit.images import grid, save_image
from latentedit.models import Model, fingerprint, save_model
from latentedit.training.augmentation import AugmentPipe, preset
from latentedit.training.config import FREE_TO_CHANGE, TrainingConfig
from latentedit.training.data import PictureSet
from latentedit.training.losses import discriminator_loss, generator_loss, path_lengths, r1_penalty

STATE = "state.pt"
STATE_VERSION = 1
ADA_INTERVAL = 4
GRID = (8, 12)
"""Rows and columns of a sample grid."""


class Trainer:
    """Networks, optimisers and counters of a run; `step` makes one training step.

    Every random number of a step is drawn from the run's seed and the number of the step, so the counters alone
    restore the random streams and the place in the data.
    """

    def __init__(self, config: TrainingConfig, data: PictureSet, device: str | torch.device = "cpu") -> None:
        self.config, self.data, self.device = config, data, torch.device(device)
        torch.manual_seed(config.seed)
        shape: dict[str, Any] = {
            "resolution": data.resolution,
            "channels": data.channels,
            "c_dim": data.labels.shape[1],
        }
        clamp = {"conv_clamp": 256.0} if config.precision == "fp16" else {}
        try:
            self.g = Generator(GeneratorConfig(**{**clamp, **config.generator, **shape})).to(self.device)
            self.d = Discriminator(DiscriminatorConfig(**{**clamp, **config.discriminator, **shape})).to(self.device)
        except TypeError as error:
            raise Error(f"training configuration: {error}") from error
        self.g_ema = copy.deepcopy(self.g).eval().requires_grad_(False)
        self.augment = AugmentPipe(**preset(config.augment)).to(self.device) if config.augment != "none" else None
        if self.augment is not None:
            self.augment.p.fill_(config.augment_p)
        self.g_optimizer = self._optimizer(self.g, config.path_interval if config.path_weight else 0)
        self.d_optimizer = self._optimizer(self.d, config.r1_interval)
        self.images_seen = 0
        self.steps = 0
        self.path_mean = torch.zeros([], device=self.device)
        self.signs = torch.zeros(2, device=self.device)  # sum and count of the signs of real logits
        self.overfitting = 0.0
        self.seconds = 0.0
        self.started_from: str | None = None
        self.figures: dict[str, Tensor] = {}

    def start_from(self, model: Model) -> list[str]:
        """Take over every tensor of ``model`` whose name and shape fit (transfer learning); returns the names left fresh.

        Blocks of the resolutions that both networks have are kept, so the resolution may differ. The moving average is not
        ramped up any more, as it does not start from noise.

        Raises:
            Error: nothing of ``model`` fits.
        """
        sources: list[tuple[str, nn.Module, nn.Module | None]] = [
            ("g", self.g, model.raw_generator or model.generator),
            ("g_ema", self.g_ema, model.generator),
            ("d", self.d, model.discriminator),
        ]
        fresh, fitted = [], 0
        for name, ours, source in sources:
            theirs = source.state_dict() if source else {}
            for key, tensor in ours.state_dict().items():
                if key in theirs and theirs[key].shape == tensor.shape:
                    tensor.copy_(theirs[key])
                    fitted += tensor.numel()
                else:
                    fresh.append(f"{name}.{key}")
        if not fitted:
            raise Error(f"{model.path or 'the model'}: no tensor fits the networks of this run")
        self.started_from = fingerprint(model.generator)
        return fresh

    def _optimizer(self, network: nn.Module, interval: int) -> torch.optim.Adam:
        ratio = _lazy_ratio(interval)
        rate, betas = self.config.learning_rate * ratio, (0.0, 0.99**ratio)
        return torch.optim.Adam(network.parameters(), lr=rate, betas=betas, eps=1e-8, fused=True)

    def step(self) -> None:
        """One batch: generator, path length (every 4th), discriminator, R1 (every 16th), averages, augmentation."""
        config, batch = self.config, self.config.batch
        seed = hashlib.sha256(f"{config.seed}/{self.steps}".encode()).digest()
        torch.manual_seed(int.from_bytes(seed[:8], "little") >> 1)
        positions = range(self.images_seen, self.images_seen + batch)
        real, real_labels = (x.to(self.device) for x in self.data.batch(positions, config.seed, config.mirror))
        self._generator_pass(batch)
        if config.path_weight and self.steps % config.path_interval == 0:
            self._path_pass(max(batch // 2, 1))
        self._discriminator_pass(real, real_labels)
        if config.r1_gamma and self.steps % config.r1_interval == 0:
            self._r1_pass(real, real_labels)
        self.images_seen += batch
        self.steps += 1
        self._average()
        if self.augment is not None and config.ada_target is not None and self.steps % ADA_INTERVAL == 0:
            self._adapt()

    def _generator_pass(self, batch: int) -> None:
        with self._training(self.g, self.g_optimizer):
            images, _, labels = self.generate(batch)
            loss = generator_loss(self.judge(images, labels)).mean()
            loss.backward()
            self.figures["loss_g"] = loss.detach()

    def _path_pass(self, batch: int) -> None:
        config = self.config
        with self._training(self.g, self.g_optimizer):
            images, ws, _ = self.generate(batch)
            noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
            lengths = path_lengths(images, ws, noise)
            mean = self.path_mean.lerp(lengths.mean(), config.path_decay)
            self.path_mean.copy_(mean.detach())
            penalty = (lengths - mean).square().mean()
            (penalty * (config.path_weight * config.path_interval)).backward()
            self.figures["path_length"] = self.path_mean

    def _discriminator_pass(self, real: Tensor, real_labels: Tensor) -> None:
        with torch.no_grad():
            fake, _, fake_labels = self.generate(len(real))
        with self._training(self.d, self.d_optimizer):
            fake_logits = self.judge(fake, fake_labels)
            real_logits = self.judge(real, real_labels)
            loss = discriminator_loss(real_logits, fake_logits).mean()
            loss.backward()
        self.figures["loss_d"] = loss.detach()
        self.figures["logits_real"], self.figures["logits_fake"] = (
            real_logits.detach().mean(),
            fake_logits.detach().mean(),
        )
        self.signs += torch.stack([real_logits.detach().sign().sum(), self.signs.new_tensor(len(real))])

    def _r1_pass(self, real: Tensor, real_labels: Tensor) -> None:
        with self._training(self.d, self.d_optimizer):
            images = real.detach().requires_grad_()
            penalty = r1_penalty(images, self.judge(images, real_labels)).mean()
            (penalty * (self.config.r1_gamma / 2 * self.config.r1_interval)).backward()
            self.figures["r1"] = penalty.detach()

    def generate(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Fresh pictures, their ws and labels, with style mixing and random noise."""
        g, config = self.g, self.config
        labels = self.data.labels[torch.randint(len(self.data), (batch,))].to(self.device)
        w = g.mapping.map(torch.randn(batch, g.z_dim, device=self.device), labels)
        if torch.is_grad_enabled():
            g.mapping.update_average(w)
        ws = w[:, None].expand(-1, g.num_ws, -1)
        if config.style_mixing:
            other = g.mapping.map(torch.randn(batch, g.z_dim, device=self.device), labels)[:, None]
            crossing = torch.randint(1, g.num_ws, (batch, 1), device=self.device)
            mixed = torch.rand(batch, 1, device=self.device) < config.style_mixing
            second = mixed & (torch.arange(g.num_ws, device=self.device) >= crossing)  # [N, num_ws]
            ws = torch.where(second[:, :, None], other, ws)
        images = g.synthesis(ws, noise="random", precision=config.precision)
        return images, ws, labels

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.augment is not None:
            images = self.augment(images)
        logits: Tensor = self.d(images, labels, self.config.precision)
        return logits

    @contextmanager
    def _training(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Collect gradients of ``network`` alone, then update it."""
        self.g.requires_grad_(network is self.g)
        self.d.requires_grad_(network is self.d)
        optimizer.zero_grad(set_to_none=True)
        yield
        optimizer.step()

    @torch.no_grad()
    def _average(self) -> None:
        half_life = self.config.ema_kimg * 1000
        if self.config.ema_rampup is not None and self.started_from is None:
            half_life = min(half_life, self.images_seen * self.config.ema_rampup)
        weight = 1 - 0.5 ** (self.config.batch / max(half_life, 1e-8))
        torch._foreach_lerp_(list(self.g_ema.parameters()), list(self.g.parameters()), weight)
        for average, buffer in zip(self.g_ema.buffers(), self.g.buffers(), strict=True):
            average.copy_(buffer)

    def _adapt(self) -> None:
        assert self.augment is not None and self.config.ada_target is not None
        total, count = self.signs.tolist()
        self.overfitting = total / max(count, 1)
        step = math.copysign(
            self.config.batch * ADA_INTERVAL / (self.config.ada_kimg * 1000), self.overfitting - self.config.ada_target
        )
        self.augment.p.copy_((self.augment.p + step).clamp(0, 1))
        self.signs.zero_()

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly; plain values and tensors only."""
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

    def restore(self, state: dict[str, Any]) -> None:
        """Take up ``state``; `Error` where the run was started with other options or data."""
        if state.get("version") != STATE_VERSION:
            raise Error(f"the training state has version {state.get('version')}, expected {STATE_VERSION}")
        ours, theirs = self.config.as_dict(), state["config"]
        different = [name for name in ours if name not in FREE_TO_CHANGE and ours[name] != theirs.get(name)]
        if different:
            listed = ", ".join(f"{name} (was {theirs.get(name)}, is {ours[name]})" for name in different)
            raise Error(f"the run was started with other options: {listed}; use a new --out")
        if state["data"] != self.data.digest():
            raise Error("the run was started with other data; use a new --out")
        for name in ("g", "d", "g_ema", "g_optimizer", "d_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        if ours["learning_rate"] != theirs["learning_rate"]:
            for optimizer in (self.g_optimizer, self.d_optimizer):
                for group in optimizer.param_groups:
                    group["lr"] *= ours["learning_rate"] / theirs["learning_rate"]
        if self.augment is not None:
            self.augment.p.copy_(state["p"])
        self.path_mean.copy_(state["path_mean"])
        self.signs.copy_(state["signs"])
        self.images_seen, self.steps, self.seconds = state["images_seen"], state["steps"], state["seconds"]
        self.started_from = state.get("started_from")

    def check_finite(self) -> None:
        for name, value in self.figures.items():
            if not math.isfinite(float(value)):
                raise Error(f"training diverged at {self.images_seen / 1000:.1f} kimg: {name} is {float(value)}")

    def model(self, framing: dict[str, Any] | None, provenance: dict[str, Any]) -> Model:
        facts = {
            **provenance,
            "images_seen": self.images_seen,
            "pictures": len(self.data),
            "data_sha256": self.data.digest(),
            "seconds": round(self.seconds),
            "settings": self.config.as_dict(),
            **({"started_from": self.started_from} if self.started_from else {}),
        }
        return Model(self.g_ema, self.d, framing, facts)


def _lazy_ratio(interval: int) -> float:
    """A regularisation every k steps makes k + 1 updates in the time of k (StyleGAN2, appendix B); 0 is never."""
    return interval / (interval + 1) if interval else 1.0


Report = Callable[[dict[str, float]], None]


def train(
    config: TrainingConfig,
    data: PictureSet,
    out: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    max_minutes: float | None = None,
    framing: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    init_from: Model | None = None,
    report: Report | None = None,
) -> Path:
    """Train until ``config.kimg``, or go on where the folder ``out`` stands; returns the model file.

    ``out`` receives ``state.pt`` (enough to resume), ``model.safetensors`` (the newest), ``model-KIMG.safetensors`` and
    ``fakes-KIMG.png`` a snapshot, ``options.json`` and ``log.jsonl``. Ctrl-C ends the step, writes a snapshot and returns.

    Args:
        max_minutes: stop after this time, with a snapshot.
        framing: how photographs are cropped for this data; kept in the model file.
        init_from: weights that a new run starts from, as far as they fit; of no effect on one that is resumed.
        report: called about once a second with the figures of the log.

    Raises:
        Error: other options or data than the run was started with; divergence; the disk is full.
    """
    out = Path(out)
    trainer = Trainer(config, data, device)
    if (out / STATE).is_file():
        trainer.restore(_load_state(out / STATE, trainer.device))
    elif init_from is not None:
        trainer.start_from(init_from)
    write_bytes(out / "options.json", json.dumps(config.as_dict(), indent=2).encode())
    grid_z = torch.from_numpy(_grid_z(config.seed, trainer.g.z_dim)).to(trainer.device)
    grid_c = data.labels[torch.arange(len(grid_z)) % len(data)].to(trainer.device)

    def snapshot() -> None:
        trainer.check_finite()
        kimg = f"{trainer.images_seen // 1000:06d}"
        model = trainer.model(framing, provenance or {})
        with torch.no_grad():
            pictures = [trainer.g_ema(z[None], c[None]) for z, c in zip(grid_z, grid_c, strict=True)]
        save_image(grid(torch.cat(pictures), GRID[1]), out / f"fakes-{kimg}.png")
        save_model(out / f"model-{kimg}.safetensors", model)
        save_model(out / "model.safetensors", model)
        buffer = io.BytesIO()
        torch.save(trainer.state(), buffer)
        write_bytes(out / STATE, buffer.getvalue())

    started = reported = time.monotonic()
    seconds_before, images_before = trainer.seconds, trainer.images_seen
    next_snapshot = (trainer.images_seen // int(config.snapshot_kimg * 1000) + 1) * config.snapshot_kimg * 1000
    with _interruptible() as interrupted, open(out / "log.jsonl", "a", buffering=1) as log:
        while trainer.images_seen < config.kimg * 1000:
            trainer.step()
            now = time.monotonic()
            trainer.seconds = seconds_before + now - started
            stop = interrupted.is_set() or (max_minutes is not None and now - started > max_minutes * 60)
            if now - reported > 1 or stop or trainer.images_seen >= config.kimg * 1000:
                reported = now
                rate = (trainer.images_seen - images_before) / (now - started)
                figures = _figures(trainer, rate)
                log.write(json.dumps(figures) + "\n")
                trainer.check_finite()
                if report:
                    report(figures)
            if stop or trainer.images_seen >= min(next_snapshot, config.kimg * 1000):
                snapshot()
                next_snapshot += config.snapshot_kimg * 1000
            if stop:
                break
    return out / "model.safetensors"


def _figures(trainer: Trainer, rate: float) -> dict[str, float]:
    return {
        "kimg": trainer.images_seen / 1000,
        "seconds": round(trainer.seconds, 1),
        "images_per_second": round(rate, 2),
        "ada_p": float(trainer.augment.p) if trainer.augment is not None else 0.0,
        "r_t": trainer.overfitting,
        **{name: float(value) for name, value in trainer.figures.items()},
    }


def _grid_z(seed: int, z_dim: int) -> Any:
    import numpy as np

    return np.random.RandomState(seed).randn(GRID[0] * GRID[1], z_dim).astype(np.float32)


def _load_state(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError) as error:
        raise Error(f"{path}: not a training state, or damaged ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or "g_optimizer" not in state:
        raise Error(f"{path}: not a training state")
    return state


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C (or SIGTERM) sets instead of interrupting; a second Ctrl-C interrupts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
