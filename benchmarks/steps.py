"""Time of a training iteration, or of a projector step, over that of the convolutions in it, and where the rest goes.

    python benchmarks/steps.py [--cases small64 search64 ...] [--rounds 3] [--json FILE] [--against FILE]

Every convolution of the step, forward and backward to whatever order, is recorded as it runs and then repeated alone, on
tensors of the same shapes and memory formats: its bare convolutions. Depthwise ones are left out, as those are FIR filters. A
training case is sixteen iterations, so that every lazy regularisation is in it once; --against prints the seconds of an
earlier file beside these (benchmarks/steps.json: before anything was done about speed, two threads of an EPYC).
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from latentedit.inversion import invert
from latentedit.models import load_model
from latentedit.statistics import sample_w
from latentedit.training import PictureSet, Trainer, load_preset

aten = torch.ops.aten
CONVOLUTIONS = (aten.convolution.default, aten.convolution_backward.default)
ITERATIONS = 16


class Recorder(TorchDispatchMode):
    """Keeps the shapes of every convolution that runs in it, and how often it does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[str, tuple[Any, tuple[Any, ...], int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in CONVOLUTIONS:
            # convolution(input, weight, bias, ...), convolution_backward(gradient, input, weight, ...)
            x, weight = args[:2] if function is CONVOLUTIONS[0] else args[1:3]
            if weight.shape[1] > 1 or x.shape[1] == 1:
                like = tuple(_Like.of(a) if isinstance(a, Tensor) else a for a in args)
                key = f"{function} {like}"
                _, _, count = self.calls.get(key, (None, None, 0))
                self.calls[key] = (function, like, count + 1)
        return function(*args, **(kwargs or {}))

    def bare(self) -> float:
        """Seconds of all of them, each timed alone."""
        total = 0.0
        for function, like, count in self.calls.values():
            args = [a.made() if isinstance(a, _Like) else a for a in like]
            function(*args)
            total += count * min(seconds(lambda f=function, a=args: f(*a)) for _ in range(3))  # type: ignore[misc]
        return total


class _Like:
    """Shape, type and memory format of a tensor."""

    def __init__(self, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.stride, self.dtype = shape, stride, dtype

    @classmethod
    def of(cls, x: Tensor) -> "_Like":
        return cls(tuple(x.shape), tuple(x.stride()), x.dtype)

    def __repr__(self) -> str:
        return f"{self.shape}/{self.stride}/{self.dtype}"

    def made(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype).normal_()


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


Case = tuple[Callable[[], None], Callable[[], None] | None]
"""The work, and preparations in it that do not count."""


def training(preset: str, resolution: int, channels: int, precision: str, batch: int | None) -> Case:
    config = replace(load_preset(preset, resolution), precision=precision)
    if batch is not None:
        config = replace(config, batch=batch)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (64, channels, resolution, resolution), dtype=np.uint8))
    trainer = Trainer(config, PictureSet(images, torch.zeros(64, 0), [str(i) for i in range(64)]))

    def work() -> None:
        for _ in range(ITERATIONS):
            trainer.step()

    return work, None


def search(space: str, batch: int) -> Case:
    """Twenty steps of the projector on `faces64`: those of a search of thirty that one of ten does not have."""
    model = load_model("faces64")
    ws = sample_w(model.generator, batch, seed=3)[:, None].expand(-1, model.generator.num_ws, -1)
    with torch.no_grad():
        target = model.generator.synthesis(ws)

    def work(steps: int) -> None:
        invert(
            model.generator, target, space, steps, perceptual="discriminator", discriminator=model.discriminator,
            curvature=model.curvature,
        )  # fmt: skip

    return lambda: work(30), lambda: work(10)


CASES: dict[str, Callable[[], Case]] = {
    "small64": lambda: training("small", 64, 1, "fp32", None),
    "small64-bf16": lambda: training("small", 64, 1, "bf16", None),
    "paper256": lambda: training("paper256", 256, 3, "fp32", 4),
    "search64-w": lambda: search("w", 1),
    "search64-w+": lambda: search("w+", 8),
}
USUAL = ("small64", "small64-bf16", "search64-w", "search64-w+")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(USUAL))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="the twelve operations that take most of each case")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--against", type=Path, help="an earlier --json")
    options = parser.parse_args()
    machine = {"processor": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    before = {row["case"]: row for row in json.loads(options.against.read_text())["rows"]} if options.against else {}
    print(machine)
    print(f"{'case':>14} {'seconds':>8} {'bare':>8} {'ratio':>6} {'before':>8}")
    rows = []
    for name in options.cases:
        work, preparations = CASES[name]()
        work()
        recorders = [Recorder() for _ in range(1 if preparations is None else 2)]
        for recorder, part in zip(recorders, (work, preparations), strict=False):
            with recorder:
                (part or work)()
        ours, bare = [], []
        for _ in range(options.rounds):
            ours.append(seconds(work) - (seconds(preparations) if preparations else 0.0))
            alone = [recorder.bare() for recorder in recorders]
            bare.append(alone[0] - sum(alone[1:]))
        a, b = statistics.median(ours), statistics.median(bare)
        rows.append({"case": name, "seconds": round(a, 3), "bare_seconds": round(b, 3), "ratio": round(a / b, 3)})
        earlier = f"{before[name]['seconds']:8.2f}" if name in before else ""
        print(f"{name:>14} {a:8.2f} {b:8.2f} {a / b:6.2f} {earlier:>8}", flush=True)
        if options.profile:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                work()
            print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
