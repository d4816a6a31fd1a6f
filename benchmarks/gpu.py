"""How fast latentedit is on a GPU, beside the published code where that is at hand.

    python benchmarks/gpu.py [CASE ...] [--published DIR] [--quick] [--json FILE] [--profile]

Everything runs in one process, the contestants of a case in turn, and what is printed is the
median. A case is rendering ("render-256-16": side and batch), a training iteration
("train-256-32"), an inversion in W+ by LPIPS ("invert-1024"), or the kernels of one layer beside a
copy of its feature maps ("kernels-128-64", 6,144 / side channels); "render" stands for all that
begin so, and other sizes may be named in full.

--published names a checkout of NVIDIA's stylegan2-ada-pytorch, which is measured and nothing else.
Its plugins are built by its own sources. Its loader imports them by name, which fails on some
versions of PyTorch, so that here the module that was built is kept instead.
"""

import argparse
import importlib
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentedit.inversion.options import InversionOptions, ProjectorSettings
from latentedit.inversion.perceptual import LpipsDistance
from latentedit.inversion.preconditioner import Curvature
from latentedit.inversion.projector import Projector
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.networks.layers import LRELU_SLOPE
from latentedit.ops import downsample2d, fir_taps, upfirdn2d, upsample2d
from latentedit.runtime import fused
from latentedit.runtime.cuda_graphs import Graphs
from latentedit.runtime.devices import tf32
from latentedit.training import PictureSet, Trainer, load_preset
from latentedit.training.grid_sample import grid_sample

Work = Callable[[], Any]
CASES = (
    *(f"render-{side}-{batch}" for side in (256, 1024) for batch in (1, 16)),
    "train-64-64",
    "train-128-64",
    "train-256-32",
    "invert-256",
    "invert-1024",
    "kernels-128-64",
    "kernels-64-64",
    "kernels-16-64",
)
CYCLE = 16
"""Training iterations after which all regularisations have had their turn."""
CALLS = 20
"""Of a kernel, timed together: one takes too little time."""
TARGETS = {"render": 1.5, "train-128": 2.0, "train-256": 1.3}
"""Times as fast as the published code, plugins included."""


class Published:
    """The published PyTorch code in ``folder``, through what it offers to its own scripts."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        sys.path.insert(0, str(folder))
        self.device = device
        self.networks = importlib.import_module("training.networks")
        self.loss = importlib.import_module("training.loss")
        self.augment = importlib.import_module("training.augment")
        custom_ops = importlib.import_module("torch_utils.custom_ops")
        custom_ops.get_plugin = self._plugin  # type: ignore[attr-defined]
        # Newer PyTorch than its own second derivative of grid_sample knows: ours stands in for it.
        self.augment.grid_sample_gradfix.grid_sample = grid_sample

    @staticmethod
    def _plugin(module_name: str, sources: list[str], **options: Any) -> Any:
        from torch.utils import cpp_extension

        return cpp_extension.load(name=module_name, sources=sources, **options)

    def generator(self, side: int, wide: int, fp16: bool) -> Any:
        sizes = {"channel_base": 32768, "channel_max": wide}
        half = {"num_fp16_res": 4 if fp16 else 0, "conv_clamp": 256 if fp16 else None}
        made = self.networks.Generator(512, 0, 512, side, 3, synthesis_kwargs={**sizes, **half})
        return made.to(self.device).requires_grad_(False)

    def rendering(self, side: int, batch: int, wide: int) -> dict[str, Work]:
        found: dict[str, Work] = {}
        for name, fp16, rounded in (
            ("fp32", False, False),
            ("tf32", False, True),
            ("fp16", True, False),
        ):
            generator = self.generator(side, wide, fp16).eval()
            ws = torch.randn(batch, generator.num_ws, 512, device=self.device)
            work = partial(generator.synthesis, ws, noise_mode="const")
            found[f"published {name}"] = partial(rendered, work, self.device, rounded)
        return found

    def training(self, side: int, batch: int, wide: int) -> dict[str, Work]:
        """Its four phases at their intervals, the learning rates left out as they cost nothing."""
        generator = self.generator(side, wide, True).train()
        half = {"num_fp16_res": 4, "conv_clamp": 256, "channel_base": 32768, "channel_max": wide}
        discriminator = self.networks.Discriminator(0, side, 3, **half).to(self.device)
        discriminator.requires_grad_(False)
        kinds = (
            "xflip",
            "rotate90",
            "xint",
            "scale",
            "rotate",
            "aniso",
            "xfrac",
            "brightness",
            "contrast",
            "lumaflip",
        )
        pipe = self.augment.AugmentPipe(**dict.fromkeys((*kinds, "hue", "saturation"), 1)).to(
            self.device
        )
        pipe.p.fill_(0.3)
        loss = self.loss.StyleGAN2Loss(
            self.device,
            generator.mapping,
            generator.synthesis,
            discriminator,
            pipe,
            r1_gamma=1,
            pl_weight=2,
        )
        real = torch.randn(batch, 3, side, side, device=self.device)
        labels = torch.zeros(batch, 0, device=self.device)
        phases = [
            (
                name,
                network,
                torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.0, 0.99)),
                interval,
            )
            for name, network, interval in (
                ("Gmain", generator, 1),
                ("Greg", generator, 4),
                ("Dmain", discriminator, 1),
                ("Dreg", discriminator, 16),
            )
        ]

        def cycle() -> None:
            for step in range(CYCLE):
                for name, network, optimizer, interval in phases:
                    if step % interval:
                        continue
                    optimizer.zero_grad(set_to_none=True)
                    network.requires_grad_(True)
                    z = torch.randn(batch, 512, device=self.device)
                    loss.accumulate_gradients(name, real, labels, z, labels, True, interval)
                    network.requires_grad_(False)
                    optimizer.step()

        return {"published fp16": cycle}


@torch.no_grad()
def rendered(work: Work, device: torch.device, rounded: bool) -> None:
    with tf32(rounded, device):
        work()


def rendering(side: int, batch: int, wide: int, device: torch.device) -> dict[str, Work]:
    generator = (
        Generator(GeneratorConfig(side, channel_max=wide)).to(device).eval().requires_grad_(False)
    )
    ws = torch.randn(batch, generator.num_ws, generator.w_dim, device=device)
    precisions = ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32",)
    render = torch.no_grad()(generator.synthesis)
    return {
        f"ours {precision}": partial(render, ws, precision=precision) for precision in precisions
    }


def trainers(side: int, batch: int, wide: int, device: torch.device) -> dict[str, Trainer]:
    """By the presets of the sizes, "auto" where there is none."""
    preset = {128: "faces128", 256: "paper256"}.get(side, "auto")
    config = replace(
        load_preset(preset, side),
        batch=batch,
        augment="bgc",
        augment_p=0.3,
        ada_target=None,
        precision="auto",
    )
    narrow = {"channel_widths": (), "channel_max": wide} if wide < 512 else {}
    config = replace(
        config,
        generator={**config.generator, **narrow},
        discriminator={**config.discriminator, **narrow},
    )
    pixels = torch.randint(0, 256, (4 * batch, 3, side, side), dtype=torch.uint8)
    data = PictureSet(pixels, torch.zeros(len(pixels), 0), [str(i) for i in range(len(pixels))])
    found = {"ours": Trainer(config, data, device)}
    if device.type == "cuda":
        found["ours, no graphs"] = Trainer(config, data, device, graphs=False)
    return found


def training(side: int, batch: int, wide: int, device: torch.device) -> dict[str, Work]:
    """Cycles of whole steps."""

    def cycle(trainer: Trainer) -> None:
        for _ in range(CYCLE):
            trainer.step()

    made = trainers(side, batch, wide, device)
    return {name: partial(cycle, trainer) for name, trainer in made.items()}


def inverting(side: int, wide: int, steps: int, device: torch.device) -> dict[str, Work]:
    """A whole search in W+; that its backbone is a random one costs and saves no time."""
    generator = (
        Generator(GeneratorConfig(side, channel_max=wide)).to(device).eval().requires_grad_(False)
    )
    curvature = Curvature(torch.randn(64, generator.num_ws, generator.w_dim) / 100)
    projector = Projector(
        generator, ProjectorSettings(LpipsDistance(None, device), curvature=curvature)
    )
    _ = projector.statistics
    image = torch.rand(1, 3, side, side, device=device) * 2 - 1

    def search() -> Tensor:
        return projector.invert(image, InversionOptions(steps=steps)).ws

    return {"ours": search}


@torch.no_grad()
def kernels(side: int, batch: int, wide: int, device: torch.device) -> dict[str, Work]:
    """What a layer of training runs beside its convolution, each as a graph of `CALLS` calls."""
    channels = min(max(6144 // side // 16, 1) * 16, wide)
    shape = (batch, channels, side, side)
    x, y, gradient = (
        torch.randn(shape, device=device).bfloat16().contiguous(memory_format=torch.channels_last)
        for _ in range(3)
    )
    factors = torch.rand(batch, channels, device=device)
    noise = torch.randn(batch, 1, side, side, device=device).bfloat16()
    taps = fir_taps((1, 3, 3, 1)).to(device)
    layer = fused.Layer(factors, None, noise, LRELU_SLOPE)
    ours: dict[str, Work] = {
        "copy": x.clone,
        "filter": partial(upfirdn2d, x, taps, padding=2),
        "upsampling": partial(upsample2d, x, taps),
        "downsampling": partial(downsample2d, x, taps),
    }
    if fused.available(x):
        ours["layer"] = partial(fused.pointwise, x, layer)
        ours["gradients"] = partial(fused.gradients, gradient, y, layer)
        ours["gradients of gradients"] = partial(fused.changes, gradient, y, x, layer, (x, factors))
    graphs = Graphs(device)

    def together(name: str, work: Work) -> Work:
        def calls() -> None:
            for _ in range(CALLS):
                work()

        return partial(graphs.run, name, calls)

    return {f"ours, {name}": together(name, work) for name, work in ours.items()}


def profile(case: str, wide: int, device: torch.device) -> str:
    """The kernels of the passes of one training step, without graphs, which show none; the
    longest first."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    _, side, batch = case.split("-")
    *_, trainer = trainers(int(side), int(batch), wide, device).values()  # without graphs
    trainer.load()
    real = trainer.real()
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_cuda else [])
    lines = []
    for name, work in (
        ("main", partial(trainer._main_pass, real)),
        ("path", trainer._path_pass),
        ("r1", partial(trainer._r1_pass, real)),
    ):
        with tf32(True, device):
            work()
            with profiled(activities=activities) as found:
                work()
                milliseconds(lambda: None, device)  # waits for the device
        time_of = f"self_{'device' if on_cuda else 'cpu'}_time_total"
        # operations are given the time of their kernels, which would count twice
        rows = [
            row
            for row in found.key_averages()
            if getattr(row, time_of) > 0 and (not on_cuda or str(row.device_type).endswith("CUDA"))
        ]
        total = sum(getattr(row, time_of) for row in rows) / 1000
        lines.append(f"{case}, {name} pass: {total:.2f} ms")
        rows.sort(key=lambda row: -getattr(row, time_of))
        lines += [
            f"{getattr(row, time_of) / 1000:9.3f} ms {row.count:5d}  {row.key[:110]}"
            for row in rows[:25]
        ]
    return "\n".join(lines)


def milliseconds(work: Work, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - started)


def contestants(
    case: str, wide: int, steps: int, published: Published | None, device: torch.device
) -> dict[str, Work]:
    kind, side, *batch = case.split("-")
    if kind == "invert":
        return inverting(int(side), wide, steps, device)
    makers = {"render": rendering, "train": training, "kernels": kernels}
    found = makers[kind](int(side), int(batch[0]), wide, device)
    if published is not None and kind != "kernels":
        other = published.rendering if kind == "render" else published.training
        found |= other(int(side), int(batch[0]), wide)
    return found


def measure(
    case: str, rounds: int, options: argparse.Namespace, published: Published | None
) -> dict[str, Any]:
    device = torch.device(options.device)
    torch.manual_seed(0)
    works = contestants(case, options.wide, options.steps, published, device)
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(2 if device.type == "cuda" else 1):  # the second time is that of capturing
        for work in works.values():
            work()
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(milliseconds(work, device))
    divisor = {"train": CYCLE, "kernels": CALLS}.get(case.split("-")[0], 1)
    row: dict[str, Any] = {"case": case}
    row["milliseconds"] = {
        name: round(statistics.median(found) / divisor, 3) for name, found in times.items()
    }
    theirs = [value for name, value in row["milliseconds"].items() if name.startswith("published")]
    if theirs:
        ours = min(value for name, value in row["milliseconds"].items() if name.startswith("ours"))
        row["times_as_fast"] = round(min(theirs) / ours, 2)
        row["target"] = next(
            (value for name, value in TARGETS.items() if case.startswith(name)), None
        )
    if device.type == "cuda":
        row["gigabytes"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        torch.cuda.reset_peak_memory_stats(device)
    return row


def text(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{row['case']:>16}  failed: {row['failed']}"
    line = "  ".join(f"{name} {value:.3g}" for name, value in row["milliseconds"].items())
    if row["case"].startswith("train"):
        batch = int(row["case"].split("-")[2])
        line += f"  ({1000 * batch / row['milliseconds']['ours']:.0f} pictures/s)"
    if "times_as_fast" in row:
        line += f"  {row['times_as_fast']} times as fast (target {row['target'] or '-'})"
    return f"{row['case']:>16}  {line}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all of: {', '.join(CASES)}")
    parser.add_argument(
        "--published", type=Path, metavar="DIR", help="stylegan2-ada-pytorch, to measure beside"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few rounds, for two minutes altogether"
    )
    parser.add_argument(
        "--profile", action="store_true", help="print the kernels of training steps as well"
    )
    parser.add_argument("--rounds", type=int, help="instead of what suits a case")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--wide", type=int, default=512, help="channels of a layer at most")
    parser.add_argument("--steps", type=int, default=100, help="of an inversion")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin no case after that time"
    )
    options = parser.parse_args()
    chosen: list[str] = [] if options.cases else list(CASES)
    for case in options.cases:
        found = [name for name in CASES if name.startswith(case)]
        if not found and not re.fullmatch(r"(render|train|kernels)-\d+-\d+|invert-\d+", case):
            parser.error(f"no case begins with {case}; there are {', '.join(CASES)}")
        chosen += found or [case]
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device; --device cpu tries the script out")
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    machine = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}
    published = Published(options.published, device) if options.published else None
    print(
        ", ".join(f"{key} {value}" for key, value in machine.items()) + "; milliseconds", flush=True
    )
    started = time.monotonic()
    rows = []
    for case in chosen:
        if time.monotonic() - started > options.seconds:
            break
        rounds = options.rounds or (1 if case.startswith("invert") else 3 if options.quick else 9)
        try:
            rows.append(measure(case, rounds, options, published))
        except RuntimeError as error:  # one case that fails leaves the others their turn
            rows.append({"case": case, "failed": str(error).splitlines()[0]})
        print(text(rows[-1]), flush=True)
        if options.profile and case.startswith("train"):
            print(profile(case, options.wide, device), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if options.json:
            options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
