"""Time of synthesis over that of its bare convolutions (ToRGB included), in one run.

    python benchmarks/synthesis.py [--resolutions 256 1024] [--batches 1 8] [--rounds 5] [--json FILE]

Networks of the usual width (channel_base 32768, at most 512). A layer's bare convolution runs in the faster of the two
memory formats, at one weight for the whole batch; rounds are interleaved, the median of each side counts.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from latentedit.architecture import DTYPES, Precision
from latentedit.generator import Generator, GeneratorConfig
from latentedit.inversion import psnr

FORMATS = (torch.contiguous_format, torch.channels_last)
LIMIT = 1.5


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bare_convolutions(generator: Generator, batch: int, dtype: torch.dtype) -> tuple[list[Callable[[], Any]], float]:
    """One callable a convolution, in its faster memory format, and their arithmetic in FLOP."""
    chosen: list[Callable[[], Any]] = []
    flop = 0.0
    for block in generator.synthesis.blocks:
        sides = [(conv.weight, conv.up, block.resolution // conv.up) for conv in block.convs]
        sides.append((block.torgb.weight, 1, block.resolution))
        for weight, up, side in sides:
            candidates = []
            for form in FORMATS:
                x = torch.randn(batch, weight.shape[1], side, side).to(dtype=dtype, memory_format=form)
                w = weight.detach().to(dtype=dtype, memory_format=form)

                def run(x: torch.Tensor = x, w: torch.Tensor = w, up: int = up) -> torch.Tensor:
                    if up == 1:
                        return F.conv2d(x, w, padding=w.shape[-1] // 2)
                    return F.conv_transpose2d(x, w.transpose(0, 1), stride=2)

                run()
                candidates.append((min(seconds(run) for _ in range(2)), run))
            chosen.append(min(candidates, key=lambda pair: pair[0])[1])
            flop += 2.0 * batch * side**2 * weight.numel()
    return chosen, flop


@torch.no_grad()
def measure(resolution: int, batch: int, precision: Precision, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(resolution=resolution)).eval().requires_grad_(False)
    for layer in generator.synthesis.layers:
        layer.noise_strength.fill_(0.1)
    ws = generator.mapping(torch.randn(batch, generator.z_dim))
    exact = generator.synthesis(ws)
    quality = float(psnr(generator.synthesis(ws, precision=precision) / exact.abs().max(), exact / exact.abs().max()).min())
    convolutions, flop = bare_convolutions(generator, batch, DTYPES[precision])
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: generator.synthesis(ws, precision=precision)))
        bare.append(sum(seconds(convolution) for convolution in convolutions))
    a, b = statistics.median(ours), statistics.median(bare)
    return {
        "resolution": resolution,
        "batch": batch,
        "precision": precision,
        "seconds": round(a, 4),
        "bare_seconds": round(b, 4),
        "ratio": round(a / b, 3),
        "bare_gflops": round(flop / b / 1e9, 1),
        "gflops": round(flop / a / 1e9, 1),
        "psnr_from_fp32": round(quality, 1) if precision != "fp32" else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = {
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(machine)
    print(
        f"{'px':>5} {'batch':>5} {'type':>5} {'ours s':>8} {'bare s':>8} {'ratio':>6} {'GFLOP/s':>8} {'of bare':>8} {'PSNR':>6}"
    )
    rows = []
    for resolution in options.resolutions:
        for batch in options.batches:
            for precision in options.precisions:
                row = measure(resolution, batch, precision, options.rounds)
                rows.append(row)
                print(
                    f"{resolution:5} {batch:5} {precision:>5} {row['seconds']:8.3f} {row['bare_seconds']:8.3f}"
                    f" {row['ratio']:6.2f} {row['gflops']:8.0f} {row['bare_gflops']:8.0f} {row['psnr_from_fp32'] or '':>6}"
                    f"{'  over ' + str(LIMIT) if row['ratio'] > LIMIT else ''}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
