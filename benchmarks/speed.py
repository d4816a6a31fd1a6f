"""How fast latentedit is: rendering, projecting, training, start-up and probes, in one table.

    python benchmarks/speed.py [CASE ...] [--json FILE] [--against FILE]
                               [--beside CHECKOUT] [--profile]

A case is a process of its own. Its time is the median of some rounds; beside it stands the time of
its bare convolutions, taken in the same run: of a rendering the layers', whole and in the faster
memory format; of other work every one that runs in it, forward and backward, on tensors like its
own. Their ratio is what compares between machines; "over" marks one that misses its target. Memory
is the peak of the process.

--against puts the seconds of an earlier --json beside these. --beside runs every case in another
checkout too, round by round in turn: the only fair comparison on a machine that is shared.
"render-1024" stands for all cases whose names begin so.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from convolutions import Recorder, seconds
from speed_cases import CASES, Case

from latentedit.runtime.devices import auto_precision

COLUMNS = ("seconds", "bare", "ratio", "pictures/s", "MB")


class Child:
    """A case that runs in a process of its own, on the package of ``checkout``."""

    def __init__(self, name: str, checkout: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", name],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the case ended with exit status {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.answer()


def serve(name: str) -> None:
    """The child: prepares the case, then does as it is told, a line an answer."""
    out = sys.stdout
    sys.stdout = sys.stderr

    def say(**facts: Any) -> None:
        print(json.dumps(facts), file=out, flush=True)

    if name.endswith("bf16") and auto_precision(torch.device("cpu")) != "bf16":
        say(skipped="this processor only emulates bfloat16")
        return
    case = CASES[name]()
    for _, work in case.parts:
        work()
    say(
        rounds=case.rounds, pictures=case.pictures, convolutions=case.convolutions, limit=case.limit
    )
    for line in sys.stdin:
        if line.startswith("round"):
            say(seconds=sum(weight * seconds(work) for weight, work in case.parts))
        elif line.startswith("memory"):
            largest = max(
                resource.getrusage(who).ru_maxrss
                for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
            )
            say(megabytes=largest / 2**10)
        elif line.startswith("bare"):
            say(seconds=bare(case))
        elif line.startswith("profile"):
            with torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU]
            ) as profile:
                for _, work in case.parts:
                    work()
            say(
                table=profile.key_averages().table(
                    sort_by="self_cpu_time_total", row_limit=16, max_name_column_width=40
                )
            )


def bare(case: Case) -> float:
    if case.bare is not None:
        return case.bare()
    total = 0.0
    for weight, work in case.parts:
        with Recorder() as recorder:
            work()
        total += weight * recorder.bare()
    return total


def measure(name: str, beside: Path | None, profile: bool) -> dict[str, Any]:
    own = Child(name, Path(__file__).resolve().parent.parent)
    if "skipped" in own.facts:
        return {"case": name, **own.facts}
    other = None if beside is None else Child(name, beside)
    times: list[float] = []
    others: list[float] = []
    for _ in range(own.facts["rounds"]):
        times.append(own.ask("round")["seconds"])
        if other is not None:
            others.append(other.ask("round")["seconds"])
    middle = statistics.median(times)
    limit = own.facts["limit"]
    row: dict[str, Any] = {"case": name, "seconds": round(middle, 4)}
    row["megabytes"] = round(own.ask("memory")["megabytes"])
    if own.facts["pictures"]:
        row["pictures_per_second"] = round(own.facts["pictures"] / middle, 2)
    if own.facts["convolutions"]:
        row["bare_seconds"] = round(own.ask("bare")["seconds"], 4)
        row["ratio"] = round(middle / row["bare_seconds"], 3)
    if limit is not None:
        row |= {"limit": limit, "over": row.get("ratio", middle) > limit}
    if other is not None:
        row |= {"beside_seconds": round(statistics.median(others), 4)}
        row["times_faster"] = round(
            statistics.median(b / a for a, b in zip(times, others, strict=True)), 2
        )
        row["beside_megabytes"] = round(other.ask("memory")["megabytes"])
    if profile:
        row["profile"] = own.ask("profile")["table"]
    for child in (own, other):
        if child is not None:
            child.process.communicate()
    return row


def text(row: dict[str, Any], before: dict[str, Any]) -> str:
    if "skipped" in row:
        return f"{row['case']:>20} {row['skipped']}"
    cells = [f"{row['seconds']:10.3f}"]
    for name, form in (
        ("bare_seconds", "10.3f"),
        ("ratio", "10.2f"),
        ("pictures_per_second", "10.1f"),
        ("megabytes", "10d"),
    ):
        cells.append(format(row[name], form) if name in row else " " * 10)
    line = f"{row['case']:>20} {' '.join(cells)}"
    if row.get("over"):
        line += f"  over {row['limit']}"
    if row["case"] in before and "seconds" in before[row["case"]]:
        line += f"  was {before[row['case']]['seconds']:.3f}"
    if "times_faster" in row:
        line += (
            f"  {row['times_faster']:.2f} times as fast as the other ({row['beside_megabytes']} MB)"
        )
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all of: {', '.join(CASES)}")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--against", type=Path, help="an earlier --json")
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="CHECKOUT",
        help="another version of the package, run in turn",
    )
    parser.add_argument(
        "--profile", action="store_true", help="the operations that take most of each case"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(options.child)
        return
    chosen = [
        name
        for name in CASES
        if not options.cases or any(name.startswith(case) for case in options.cases)
    ]
    if not chosen:
        parser.error(f"no case begins with {' or '.join(options.cases)}")
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    before = (
        {row["case"]: row for row in json.loads(options.against.read_text())["rows"]}
        if options.against
        else {}
    )
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"{'case':>20} {' '.join(f'{column:>10}' for column in COLUMNS)}", flush=True)
    rows = []
    for name in chosen:
        row = measure(name, options.beside, options.profile)
        print(text(row, before), flush=True)
        if "profile" in row:
            print(row.pop("profile"))
        rows.append(row)
        if options.json:
            options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


def processor() -> str:
    """Its name, and whether it computes bfloat16 by itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    capabilities = torch.cpu.get_capabilities()
    known = [
        word for word in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(word)
    ]
    return f"{name} ({' '.join(known)})" if known else name


if __name__ == "__main__":
    main()
