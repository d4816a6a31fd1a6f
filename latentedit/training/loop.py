"""A training run in a folder: log, snapshots, curves, resuming, stopping."""

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latentedit.errors import (
    Error,
    FormatError,
    IncompatibleError,
    Interrupted,
    NotFoundError,
    OutputError,
    complete,
    is_number,
)
from latentedit.io.budget import read_json
from latentedit.io.contact_sheet import mosaic
from latentedit.io.files import write_bytes
from latentedit.io.images import from_uint8, save_image
from latentedit.io.locks import alone
from latentedit.io.torch_files import read_state
from latentedit.latent.w_statistics import sample_z
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.framing import check_framing
from latentedit.training.config import TrainingConfig
from latentedit.training.curves import read_log, save_curves
from latentedit.training.data import PictureSet
from latentedit.training.distributed import World
from latentedit.training.trainer import Trainer

STATE = "state.pt"
LOG = "log.jsonl"
BEST = "best.json"
LOCK = "train.lock"
GRID = (8, 12)
"""Rows and columns of a sample grid."""
NEWEST = 3
OLDER = 8
"""Snapshots kept: the newest, and at most so many older ones."""
PROBED = 64
"""Pictures whose discriminator outputs are logged at a snapshot."""

Report = Callable[[dict[str, float]], None]
Measure = Callable[[Model], dict[str, float]]


@dataclass(frozen=True)
class RunOptions:
    """What a run does beside training: what it starts from, measures, stores and writes."""

    max_minutes: float | None = None
    """Stop after this time and write a snapshot."""
    framing: dict[str, Any] | None = None
    """The framing of the data, which the model file stores."""
    provenance: dict[str, Any] | None = None
    """Facts about the data, which the model file stores."""
    init_from: Model | None = None
    """A model whose weights a new run starts from, where they match; a resumed run ignores it."""
    held_out: PictureSet | None = None
    """Images that are not used for training; the discriminator's outputs for them are logged."""
    measure: Measure | None = None
    """Measures a snapshot, e.g. with `latentedit.metrics`; the first metric selects the best
    snapshot, lower is better."""
    accept_changes: bool = False
    """Resume although options or data differ from those the run was started with."""
    tensorboard: bool = False
    """Also write event files (needs the package of that name)."""
    graphs: bool = True
    """Use CUDA graphs where possible (`Trainer`)."""


PLAIN = RunOptions()
ALONE = World()


def train(
    config: TrainingConfig,
    data: PictureSet,
    out: str | os.PathLike[str],
    options: RunOptions = PLAIN,
    *,
    device: str | torch.device = "cpu",
    world: World = ALONE,
    report: Report | None = None,
    notice: Callable[[str], None] | None = None,
) -> Path:
    """Train until ``config.kimg``, or resume the run in the folder ``out``; returns the model file.

    Every snapshot writes to ``out``: ``state.pt`` (enough to resume), ``model.safetensors`` (the
    newest), ``model-KIMG.safetensors`` and ``fakes-KIMG.png`` (old ones are removed by `thin`),
    ``options.json``, ``log.jsonl`` and ``curves.png``; with ``measure`` also
    ``model-best.safetensors`` and ``best.json``. Ctrl-C finishes the step and writes a snapshot.

    Args:
        world: the processes that share the work, from `join_world`; the first one writes.
        report: called about once a second with the figures of the log.
        notice: called with a message for the user.

    Raises:
        Interrupted: Ctrl-C or SIGTERM, with the snapshot written.
        Error: other options or data than the run was started with; another process trains in
            ``out``; divergence; the disk is full.
    """
    out = Path(out)
    held_out = options.held_out
    init_from = options.init_from
    framing = options.framing
    if held_out is not None and held_out.shape != data.shape:
        raise IncompatibleError(
            f"held-out images have shape {held_out.shape}, the training set {data.shape}"
        )

    if held_out is not None:
        unknown = set(held_out.label_names) - set(data.label_names)
        if unknown or (
            not held_out.label_names and held_out.labels.shape[1] != data.labels.shape[1]
        ):
            raise IncompatibleError(
                "held-out images must have the labels that the training set has"
            )

    trainer = Trainer(config, data, device, world, graphs=options.graphs)
    tell = notice or (lambda line: None)
    with ExitStack() as begun:
        _enter(out, trainer, world, begun)
        if (out / STATE).is_file():
            state = _load_state(out / STATE)
            with complete(out / STATE, "training state"):
                trainer.restore(state, accept_changes=options.accept_changes)
                check_framing(state.get("framing"))
            framing = framing or state.get("framing")
            reached = " (already at the end)" if trainer.images_seen >= config.kimg * 1000 else ""
            tell(f"resuming at {trainer.images_seen / 1000:.1f} kimg{reached}")
            if init_from is not None and trainer.started_from != fingerprint(init_from.generator):
                tell("the model to start from has no effect on a run that is resumed")
        elif init_from is not None:
            shares = trainer.start_from(init_from)
            tell(
                "took over "
                + " and ".join(f"{share:.0%} of the {name}" for name, share in shares.items())
            )

        trainer.agree()
        run = (
            _Folder(out, trainer, framing, options.provenance or {}, held_out, options.measure)
            if world.leads
            else None
        )
        if run is not None:
            write_bytes(out / "options.json", json.dumps(config.as_dict(), indent=2).encode())
            _cut_log(out / LOG, trainer.images_seen / 1000)
        loading = loading_rate(data, config.batch)
        held = begun.pop_all()

    started = reported = time.monotonic()
    seconds_before = trainer.seconds
    images_before = trainer.images_seen

    # The next multiple, so that a resumed run has its snapshots at the same places.
    next_snapshot = (
        (trainer.images_seen // int(config.snapshot_kimg * 1000) + 1) * config.snapshot_kimg * 1000
    )

    with (
        held,
        _interruptible() as interrupted,
        _log(out if run else None, options.tensorboard) as write,
    ):
        while trainer.images_seen < config.kimg * 1000:
            trainer.step()
            now = time.monotonic()
            trainer.seconds = seconds_before + now - started
            late = options.max_minutes is not None and now - started > options.max_minutes * 60
            # All processes stop after the same step, or the others would wait for one that has
            # left.
            stop = world.any(interrupted.is_set() or late, trainer.device)
            done = trainer.images_seen >= config.kimg * 1000
            due = stop or done or trainer.images_seen >= next_snapshot
            failure: Error | None = None
            # Once a second: reading figures waits for the device.
            if run is not None and (now - reported > 1 or due):
                reported = now
                try:
                    figures = _figures(
                        trainer, (trainer.images_seen - images_before) / (now - started)
                    )
                    figures["loading_images_per_second"] = loading
                    # Before the snapshot: weights that are not finite must not replace good ones.
                    trainer.check_finite()
                    if due:
                        run.snapshot()
                        figures.update(run.figures())
                    write(figures)
                    if due:
                        run.finish_snapshot(figures)
                    if report:
                        report(figures)
                except Error as error:
                    # Told to the other processes first; raised at once, they would wait for ever.
                    failure = error

            if world.any(failure is not None, trainer.device):
                raise failure or FormatError("the first process stopped; its message says why")

            if due:
                next_snapshot += config.snapshot_kimg * 1000
            if stop:
                break
        if interrupted.is_set():
            raise Interrupted(
                f"interrupted; {out / 'model.safetensors'} and the state are written, run the "
                "same command again to resume"
            )

    return out / "model.safetensors"


def _enter(out: Path, trainer: Trainer, world: World, held: ExitStack) -> None:
    """Have the folder to this run alone: two would resume from one state and replace each other's
    snapshots."""
    refused: Error | None = None
    if world.leads:
        try:
            held.enter_context(alone(out / LOCK, out))
        except Error as error:
            refused = error
    if world.any(refused is not None, trainer.device):
        raise refused or FormatError("the first process stopped; its message says why")


class _Folder:
    """The files of a run, written by its first process."""

    def __init__(
        self,
        out: Path,
        trainer: Trainer,
        framing: dict[str, Any] | None,
        provenance: dict[str, Any],
        held_out: PictureSet | None,
        measure: Measure | None,
    ) -> None:
        self.out = out
        self.trainer = trainer
        self.framing = framing
        self.provenance = provenance
        self.held_out = held_out
        self.measure = measure
        self.best = _read_best(out / BEST)
        self.fakes = torch.empty(0)
        data = trainer.data
        count = GRID[0] * GRID[1]
        self.grid_z = sample_z(trainer.config.seed, trainer.g.z_dim, count).to(trainer.device)
        self.grid_c = data.labels[torch.arange(count) % len(data)].to(trainer.device)

    def model(self) -> Model:
        return self.trainer.model(self.framing, self.provenance)

    def figures(self) -> dict[str, float]:
        """Return what is logged at a snapshot only: discriminator outputs without augmentation, and
        the measures."""
        trainer = self.trainer
        data = self.trainer.data
        rows = _spaced(len(data))
        figures = {
            "logits_train": trainer.logits(
                trainer.coarsened(from_uint8(data.read(rows))), data.labels[rows]
            )
        }
        if self.held_out is not None:
            rows = _spaced(len(self.held_out))
            unseen = trainer.coarsened(from_uint8(self.held_out.read(rows)))
            figures["logits_held_out"] = trainer.logits(unseen, self._held_out_labels()[rows])

        figures["logits_generated"] = trainer.logits(
            self.fakes[:PROBED], self.grid_c[:PROBED].cpu()
        )
        if self.measure is not None:
            figures.update(self.measure(self.model()))
        return figures

    def _held_out_labels(self) -> torch.Tensor:
        """Return the labels of the held-out pictures, numbered as the training set numbers them."""
        assert self.held_out is not None
        held = self.held_out
        data = self.trainer.data
        if held.label_names and data.label_names:
            order = [data.label_names.index(name) for name in held.label_names]
            labels = torch.zeros(len(held), data.labels.shape[1])
            labels[:, order] = held.labels
            return labels
        return held.labels

    @torch.no_grad()
    def _pictures(self) -> torch.Tensor:
        # One image at a time: at high resolutions the grid does not fit into memory beside the
        # training.
        pairs = zip(self.grid_z, self.grid_c, strict=True)
        return torch.cat([self.trainer.g_ema(z[None], c[None]).cpu() for z, c in pairs])

    def snapshot(self) -> None:
        """Write weights, random pictures and the state; before anything is measured, so that
        nothing is lost by that."""
        trainer = self.trainer
        out = self.out
        trainer.check_weights()
        model = self.model()
        self.fakes = self._pictures()
        save_image(mosaic(self.fakes, GRID[1]), out / f"fakes-{self.kimg}.png")
        save_model(out / f"model-{self.kimg}.safetensors", model)
        save_model(out / "model.safetensors", model)
        buffer = io.BytesIO()
        torch.save({**trainer.state(), "framing": self.framing}, buffer)
        write_bytes(out / STATE, buffer.getvalue())

    @property
    def kimg(self) -> str:
        return f"{self.trainer.images_seen // 1000:06d}"

    def finish_snapshot(self, figures: dict[str, float]) -> None:
        """Keep the best, remove old ones, draw the curves."""
        best = self._keep_best(self.kimg, self.model(), figures)
        thin(self.out, self.trainer.config.snapshot_kimg, best)
        save_curves(self.out / LOG, self.out / "curves.png")

    def _keep_best(self, kimg: str, model: Model, figures: dict[str, float]) -> str | None:
        path = self.out / BEST
        before = self.best
        if self.measure is not None:
            name = next(name for name in figures if name.startswith("metric/"))
            if before.get("name") != name or figures[name] < before["value"]:
                before = {"kimg": kimg, "name": name, "value": figures[name]}
                save_model(self.out / "model-best.safetensors", model)
                write_bytes(path, json.dumps(before).encode())
                self.best = before

        return before.get("kimg")


def _read_best(path: Path) -> dict[str, Any]:
    """Return which snapshot was the best so far; empty where there was none.

    Raises:
        Error: damaged. Found before any training, as it would end a run at its next snapshot.
    """
    if not path.exists():
        return {}
    found: dict[str, Any] = read_json(path)
    words = isinstance(found, dict) and all(
        isinstance(found.get(name), str) for name in ("kimg", "name")
    )
    if not words or not is_number(found.get("value")):
        raise FormatError(
            "expected kimg, name and value of the best snapshot; remove it to start again",
            path=path,
        )
    return found


def _spaced(count: int) -> list[int]:
    """At most PROBED rows of ``count``, evenly spaced."""
    return [i * count // PROBED for i in range(PROBED)] if count > PROBED else list(range(count))


def _cut_log(path: Path, kimg: float) -> None:
    """Remove what a killed run logged after the snapshot that is resumed from, and a last line that
    was cut off."""
    if path.is_file():
        lines = [
            json.dumps(record) + "\n" for record in read_log(path) if record.get("kimg", 0) <= kimg
        ]
        write_bytes(path, "".join(lines).encode())


def thin(out: Path, interval: float, best: str | None = None) -> None:
    """Remove old snapshots: of ``model-KIMG`` and ``fakes-KIMG`` the newest 3 and the ``best``
    stay, and of the older ones every k-th, k being the smallest power of two that leaves at most 8.
    ``interval`` is the kimg between snapshots.
    """
    found = sorted(path.stem.split("-")[1] for path in out.glob("model-[0-9]*.safetensors"))
    older = found[:-NEWEST]
    stride = 1
    while older and round(int(older[-1]) / interval) // stride > OLDER:
        stride *= 2

    kept: set[int] = set()
    for kimg in older:
        index = round(int(kimg) / interval)
        if index % stride == 0 and index not in kept:
            kept.add(index)
        elif kimg != best:
            for path in (out / f"model-{kimg}.safetensors", out / f"fakes-{kimg}.png"):
                path.unlink(missing_ok=True)


def loading_rate(data: PictureSet, batch: int = 32) -> float:
    """Return the pictures a second that the data alone gives, over half a second or 1024
    pictures."""
    started = time.monotonic()
    count = 0
    while count < 1024 and time.monotonic() - started < 0.5:
        data.batch(range(count, count + batch), 0, True)
        count += batch
    return round(count / max(time.monotonic() - started, 1e-9), 1)


def _figures(trainer: Trainer, rate: float) -> dict[str, float]:
    return {
        "kimg": trainer.images_seen / 1000,
        "seconds": round(trainer.seconds, 1),
        "images_per_second": round(rate, 2),
        "ada_p": float(trainer.augment.p) if trainer.augment is not None else 0.0,
        "r_t": float(trainer.overfitting),
        **{name: float(value) for name, value in trainer.figures.items()},
    }


@contextmanager
def _log(out: Path | None, tensorboard: bool) -> Iterator[Callable[[dict[str, float]], None]]:
    """A function that appends figures to the log, and to TensorBoard's where wanted."""
    if out is None:
        yield lambda figures: None
        return

    board: Any = None
    if tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise NotFoundError(
                "the log for TensorBoard needs the package tensorboard",
                advice="pip install 'latentedit[tensorboard]'",
            ) from error
        board = SummaryWriter(str(out))

    try:
        with open(out / LOG, "a", buffering=1) as log:

            def write(figures: dict[str, float]) -> None:
                try:
                    log.write(json.dumps(figures) + "\n")
                except OSError as error:
                    raise OutputError.refused(out / LOG, error) from error
                if board is not None:
                    for name, value in figures.items():
                        board.add_scalar(name, value, int(figures["kimg"] * 1000))

            yield write
    finally:
        if board is not None:
            board.close()


def _load_state(path: Path) -> dict[str, Any]:
    """Return the training state in a file, on the CPU."""
    try:
        state = read_state(path)
    except Error as error:
        reason = f"not a training state, or damaged: {error.reason}"
        raise FormatError(reason, path=path, advice="remove it, or use a new `out`") from error
    if "g_optimizer" not in state:
        raise FormatError("not a training state", path=path)
    return state


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C (or SIGTERM) sets instead of interrupting; a second Ctrl-C
    interrupts."""
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
