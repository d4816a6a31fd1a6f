"""What rendering and inverting with a network take on a device: arithmetic and memory counted, time
estimated from both."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from latentedit.inversion.perceptual import (
    LPIPS_SIZE,
    STLPIPS_LEAST,
    DiscriminatorDistance,
    backbone,
    stlpips_file,
)
from latentedit.model.model import Model
from latentedit.networks.generator import Generator

ST_ALEX = ((13, 2, 3, 64), (5, 4, 64, 192), (3, 8, 192, 384), (3, 8, 384, 256), (3, 8, 256, 256))
"""Kernel, pixels a result, input and output channels of the convolutions of ST-LPIPS."""
VGG_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions and channels at each scale of VGG-16 (Simonyan and Zisserman 2015, table 1, D)."""
OVERHEAD = 1.5
"""Time of a rendering over that of its arithmetic at the rate of a bare convolution, ..."""
STEP_OVERHEAD = 2.0
"""... that of a step of the projector likewise, ..."""
PER_LAYER = 0.0003
"""... and seconds that a layer takes however small it is; a step of the projector goes through it
several times."""


@dataclass(frozen=True)
class Cost:
    """The estimated cost of rendering and inverting one image."""

    render_gflop: float
    render_gb: float
    """Weights and the largest activations."""
    render_seconds: float
    step_gflop: float
    """Billions of operations of one step of the projector."""
    step_gb: float
    """Weights, and what is kept for the backward pass."""
    step_seconds: float
    perceptual: str
    """What the projector would use: "lpips", or "discriminator", "stlpips" or both with a "+"."""


def estimate_cost(model: Model, device: torch.device) -> Cost:
    """Counts the work on the meta device, which computes nothing, and times one convolution; good
    to a factor of two."""
    own = model.generator
    # On the meta device nothing is computed or allocated: the shapes alone tell the work.
    with torch.device("meta"):
        g = Generator(own.config)
        ws = torch.empty(1, g.num_ws, g.w_dim)
        noise = [torch.empty(shape, requires_grad=True) for shape in g.synthesis.noise_shapes]

    g.requires_grad_(False)
    weights = sum(p.numel() for p in own.parameters()) * 4
    with torch.no_grad():
        render, _, largest = count_work(lambda: g.synthesis(ws))
    ws.requires_grad_()
    step, kept, _ = count_work(lambda: g.synthesis(ws, noise=noise))
    kinds = _kinds(model)
    parts = [_judge(kind, model) for kind in kinds]
    judged, judged_kept, judged_weights = (sum(values) for values in zip(*parts, strict=True))
    rate = convolution_rate(device)
    flop = 2 * step + 2 * judged  # forward, and backward to the inputs alone
    return Cost(
        render_gflop=render / 1e9,
        render_gb=(weights + 3 * largest) / 1e9,
        render_seconds=OVERHEAD * render / rate + PER_LAYER * own.num_ws,
        step_gflop=flop / 1e9,
        step_gb=(weights + judged_weights + kept + judged_kept) / 1e9,
        step_seconds=STEP_OVERHEAD * flop / rate + 6 * PER_LAYER * own.num_ws,
        perceptual="+".join(kinds),
    )


AT_ONCE = 32
"""Photos that are searched together at most on a GPU ..."""
ROOM = 0.5
"""... and the share of its free memory that they may take."""


def photos_at_once(model: Model, device: torch.device, usual: int) -> int:
    """Return how many photos to search together: as many as fit on a GPU, which a few leave idle;
    ``usual`` elsewhere."""
    if device.type != "cuda":
        return usual
    free, _ = torch.cuda.mem_get_info(device)
    return fitting(free / 1e9, estimate_cost(model, device).step_gb)


def fitting(free_gb: float, photo_gb: float) -> int:
    return max(1, min(AT_ONCE, int(ROOM * free_gb / photo_gb)))


def _kinds(model: Model) -> list[str]:
    """Return what `latentedit.inversion.perceptual.choose` adds up for "auto"; LPIPS where it would
    find nothing."""
    if backbone() is not None:
        return ["lpips"]
    found = ["discriminator"] * (model.discriminator is not None) + ["stlpips"] * (
        stlpips_file() is not None
    )
    return found or ["lpips"]


def _judge(kind: str, model: Model) -> tuple[float, float, float]:
    """Return FLOP, bytes kept and bytes of weights of a distance."""
    if kind == "discriminator":
        return _discriminator(model)
    resolution = model.generator.resolution
    return _stlpips(resolution) if kind == "stlpips" else _lpips(resolution)


def _discriminator(model: Model) -> tuple[float, float, float]:
    assert model.discriminator is not None
    config = model.discriminator.config
    with torch.device("meta"):
        d = type(model.discriminator)(config)
        image = torch.empty(
            1, config.channels, config.resolution, config.resolution, requires_grad=True
        )

    d.requires_grad_(False)
    flop, kept, _ = count_work(lambda: DiscriminatorDistance(d).features(image))
    return flop, kept, sum(p.numel() for p in d.parameters()) * 4


def _stlpips(resolution: int) -> tuple[float, float, float]:
    """Return FLOP, bytes kept and bytes of weights of the convolutions of ST-LPIPS with AlexNet."""
    side = min(max(resolution, STLPIPS_LEAST), LPIPS_SIZE)
    flop = 0.0
    kept = 0.0
    weights = 0.0
    for kernel, stride, inputs, outputs in ST_ALEX:
        pixels = (side / stride) ** 2
        flop += 2 * kernel**2 * inputs * outputs * pixels
        # After the ReLU, the largest of neighbours, the unit vectors.
        kept += 3 * 4 * outputs * pixels
        weights += 4 * kernel**2 * inputs * outputs

    return flop, kept, weights


def _lpips(resolution: int) -> tuple[float, float, float]:
    """Return FLOP, bytes kept and bytes of weights of VGG-16's convolutions."""
    side = min(resolution, LPIPS_SIZE)
    inputs = 3
    flop = 0.0
    kept = 0.0
    weights = 0.0

    for count, channels in VGG_BLOCKS:
        for _ in range(count):
            flop += 2 * 9 * inputs * channels * side**2
            kept += 2 * 4 * channels * side**2  # before and after the ReLU
            weights += 4 * 9 * inputs * channels
            inputs = channels
        side //= 2

    return flop, kept, weights


def count_work(run: Callable[[], object]) -> tuple[float, float, float]:
    """Return FLOP, bytes kept for a backward pass, and the bytes of the largest convolution's input
    and output."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[id(tensor)] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    largest = _Largest()
    with largest, FlopCounterMode(display=False) as counter, hooks:
        run()

    # By storage: several tensors may be views of the same memory.
    storages = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
        for tensor in kept.values()
    }
    return float(counter.get_total_flops()), float(sum(storages.values())), float(largest.bytes)


class _Largest(TorchDispatchMode):
    """Remembers the bytes of the largest operation's tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            sizes = [t.numel() * t.element_size() for t in (*args, result) if isinstance(t, Tensor)]
            self.bytes = max(self.bytes, sum(sizes))
        return result


def convolution_rate(device: torch.device) -> float:
    """Return FLOP a second of a bare convolution on ``device``."""
    x = torch.randn(8, 64, 32, 32, device=device).to(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3, device=device)
    flop = 2 * x.numel() * 64 * 9

    def timed(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            F.conv2d(x, weight, padding=1)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    with torch.no_grad():
        # The first calls choose an algorithm and start threads.
        timed(3)
        return 20 * flop / timed(20)
