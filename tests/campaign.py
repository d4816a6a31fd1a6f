"""A campaign against latentedit: hostile files, odd arguments, kills, full disks and too few
descriptors, counted.

    python tests/campaign.py --minutes 10 --seed 1
    python tests/campaign.py --replay campaign-findings/0001-files.json

Everything follows from the seed: item n of a part is the same in every run, however many a run gets
to. What goes wrong is counted by kind (`tests.watching.FAULTS`), printed, and kept as files that
can be replayed; the status is 0 where nothing did. Linux only.
"""

import argparse
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of tests/
    os.environ.update(OMP_NUM_THREADS="1", TQDM_DISABLE="1", CUDA_VISIBLE_DEVICES="")

from tests.watching import FAULTS, Outcome, in_children  # noqa: E402

PARTS = ("files", "arguments", "kills", "disk", "descriptors")
SHARES = {"files": 0.5, "arguments": 0.2, "kills": 0.2, "disk": 0.05, "descriptors": 0.05}
"""Share of the time that each part gets."""
PER_FILE = {"files": 1.0, "arguments": 0.1, "kills": 0.02, "disk": 0.02, "descriptors": 0.02}
"""Items for each mutated file, where their number is given instead of the time."""
SHOWN = 200
"""Lines of findings at most, of the same kind one."""


@dataclass
class Place:
    """Where a campaign works."""

    work: Path
    seed: int

    @property
    def good(self) -> Path:
        return self.work / "good"

    @property
    def canary(self) -> Path:
        """Exists only if something from a file was executed."""
        return self.work / "canary"

    @property
    def scratch(self) -> Path:
        return self.work / "scratch"

    @property
    def own(self) -> list[Path]:
        """What may be written to."""
        return [self.work, Path("/proc/self"), Path("/dev/shm")]

    def rng(self, part: str, number: int) -> random.Random:
        return random.Random(f"{self.seed}/{part}/{number}")

    def fresh(self) -> Path:
        """An empty folder to work in."""
        self.release()
        shutil.rmtree(self.scratch, ignore_errors=True)
        (self.scratch / "out").mkdir(parents=True)
        return self.scratch

    def release(self) -> None:
        """Take away the small disk that a killed child may have left."""
        if os.path.ismount(self.scratch / "out"):
            subprocess.run(["umount", "--lazy", str(self.scratch / "out")], check=True)

    def filled(self, arguments: Sequence[str], file: Path | None = None) -> list[str]:
        """``arguments`` with the places in them."""
        names = {
            "good": self.good,
            "out": self.scratch / "out",
            "file": file,
            "folder": file.parent if file else None,
        }
        return [text.format_map(names) if "{" in text else text for text in arguments]

    def signature(self) -> dict[str, tuple[int, int, int]]:
        """What tells whether a good file has been touched."""
        found = {}
        for path in sorted(self.good.rglob("*")):
            facts = path.lstat()
            found[str(path)] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        return found


@dataclass(frozen=True)
class Case:
    """One thing to try, as it is kept in the file of a finding."""

    part: str
    seed: int
    number: int
    name: str
    """What was tried, for people: a kind of file, a command."""
    arguments: list[str]
    """Arguments of the command, with {file}, {good}, {out}, {folder}; empty where a file is read in
    Python."""
    extra: dict[str, Any] = field(default_factory=dict)


class Part:
    """One kind of trouble."""

    name = ""

    def __init__(self, place: Place) -> None:
        self.place = place

    def case(self, number: int) -> Case:
        """What item ``number`` is."""
        raise NotImplementedError

    def run(self, case: Case) -> Outcome:
        """Try it, in a child (`in_children`)."""
        raise NotImplementedError

    def evidence(self, case: Case) -> bytes | None:
        """The hostile file, to be kept beside the finding."""
        return None


@dataclass
class Tally:
    """What has happened."""

    findings: Path
    started: float = field(default_factory=time.monotonic)
    items: Counter[str] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    _told: float = 0.0

    def add(self, part: Part, case: Case, outcome: Outcome) -> None:
        self.items[part.name] += 1
        self.outcomes[part.name, outcome.fault or outcome.detail.split(":")[0]] += 1
        if outcome.fault is None:
            return
        self.faults[part.name, outcome.fault] += 1
        self.lines[f"{outcome.fault}: {part.name}: {case.name}: {outcome.detail}"] += 1
        self._keep(part, case, outcome)

    def _keep(self, part: Part, case: Case, outcome: Outcome) -> None:
        self.findings.mkdir(parents=True, exist_ok=True)
        stem = f"{sum(self.faults.values()):04d}-{part.name}"
        evidence = part.evidence(case)
        kept = {**asdict(case), "fault": outcome.fault, "detail": outcome.detail}
        if evidence is not None:
            kept["file"] = f"{stem}{Path(case.name).suffix or '.bin'}"
            (self.findings / kept["file"]).write_bytes(evidence)
        (self.findings / f"{stem}.json").write_text(json.dumps(kept, indent=2))

    def tell(self, part: str) -> None:
        """One line a second."""
        now = time.monotonic()
        if now - self._told >= 1:
            self._told = now
            done = ", ".join(f"{self.items[name]} {name}" for name in PARTS if self.items[name])
            line = (
                f"{now - self.started:4.0f} s  {part}: {done}; {sum(self.faults.values())} findings"
            )
            print(line, file=sys.stderr, flush=True)

    def table(self) -> str:
        head = f"{'':12}{'items':>8}" + "".join(f"{name:>12}" for name in FAULTS)
        rows = [
            f"{part:12}{self.items[part]:8d}"
            + "".join(f"{self.faults[part, fault]:12d}" for fault in FAULTS)
            for part in PARTS
            if self.items[part]
        ]
        return "\n".join([head, *rows])


def campaign(
    parts: Sequence[Part], tally: Tally, *, seconds: float | None, files: int | None
) -> None:
    """Run the parts in turn, each for its share of the time or its number of items."""
    whole = sum(SHARES[part.name] for part in parts)
    for part in parts:
        end = None if seconds is None else time.monotonic() + seconds * SHARES[part.name] / whole
        count = 10**9 if files is None else max(1, round(files * PER_FILE[part.name]))
        _run(part, range(count), tally, end)


def _run(part: Part, numbers: Sequence[int], tally: Tally, end: float | None) -> None:
    def heard(number: int, outcome: Outcome) -> None:
        if part.place.canary.exists():
            part.place.canary.unlink()
            outcome = Outcome("executions", "the canary is there")
        tally.add(part, part.case(number), outcome)

    def over() -> bool:
        tally.tell(part.name)
        return end is not None and time.monotonic() > end

    first = 0
    # a child for some items: what they leave in it does not pile up
    while first < len(numbers) and not over():
        batch = numbers[first : first + 100]
        in_children(
            lambda number: part.run(part.case(number)), batch, heard, own=part.place.own, until=over
        )
        first += len(batch)


def prepared(work: Path, seed: int) -> Place:
    """Good files in ``work``; made in a child, and so is a first use of everything, after which
    this process imports what that imported: it never computes anything itself, so that forking it
    is safe.
    """
    place = Place(work, seed)
    # Before a library for notebooks replaces asyncio's tasks: pages would answer with errors.
    import uvicorn  # noqa: F401

    work.mkdir(parents=True, exist_ok=True)
    # Another home would have Matplotlib look for the fonts again, for seconds.
    import matplotlib

    os.environ.setdefault("MPLCONFIGDIR", matplotlib.get_cachedir())
    places = {
        "LATENTEDIT_CACHE": "cache",
        "LATENTEDIT_DATA": "data",
        "HOME": "home",
        "TMPDIR": "tmp",
    }
    for variable, name in places.items():
        os.environ[variable] = str(work / name)
        (work / name).mkdir(exist_ok=True)
    tempfile.tempdir = None  # it is asked anew
    listing = work / "modules.json"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _first_use(place, listing)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the good files could not be made")
    for name in json.loads(listing.read_text()):
        if name not in sys.modules:
            try:
                __import__(name)
            except Exception:  # a module that only another one can import
                continue
    # What was imported is there for good: no child need go through it, and thereby copy it, to find
    # garbage of its own.
    gc.collect()
    gc.freeze()
    return place


def _first_use(place: Place, listing: Path) -> None:
    import warnings

    import cv2
    import torch

    from tests import hostile_files, specimens, troubles

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with hostile_files.undrawn():
        specimens.make(place.good)
    troubles.use_everything(place)
    listing.write_text(
        json.dumps(sorted(name for name in sys.modules if not name.startswith("__")))
    )


def replay(file: Path, work: Path) -> Outcome:
    """Try the case of a finding again, with the file that it was found with."""
    from tests.troubles import parts

    kept = json.loads(file.read_text())
    case = Case(
        **{name: kept[name] for name in ("part", "seed", "number", "name", "arguments", "extra")}
    )
    if "file" in kept:
        case.extra["file"] = str((file.parent / kept["file"]).resolve())
    place = prepared(work, case.seed)
    part = parts(place)[case.part]
    found: list[Outcome] = []
    in_children(
        lambda _: part.run(case),
        [case.number],
        lambda _, end: found.append(end),
        own=place.own,
        until=lambda: False,
    )
    return found[0]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--minutes",
        type=float,
        default=2.0,
        help="How long; good files are made before (default 2).",
    )
    parser.add_argument(
        "--files",
        type=int,
        help="How many mutated files, instead of a time; of the rest in proportion.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Of everything.")
    parser.add_argument("--only", choices=PARTS, action="append", help="A part; repeatable.")
    parser.add_argument(
        "--findings",
        type=Path,
        default=Path("campaign-findings"),
        help="Folder for what was found.",
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="Try a finding again.")
    options = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        parser.error(
            "the campaign needs Linux: it forks, and limits memory and files as Linux does"
        )
    options.findings = options.findings.resolve()
    # in the background, shells have the first one ignored
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        work = Path(folder) / "work"
        if options.replay:
            outcome = replay(options.replay.resolve(), work)
            print(f"{outcome.fault or 'no fault'}: {outcome.detail}")
            return int(outcome.fault is not None)
        place = prepared(work, options.seed)
        from tests.troubles import parts

        chosen = [
            part for name, part in parts(place).items() if not options.only or name in options.only
        ]
        tally = Tally(options.findings)
        try:
            campaign(
                chosen,
                tally,
                seconds=None if options.files else options.minutes * 60,
                files=options.files,
            )
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        finally:
            place.release()
    for line, count in tally.lines.most_common(SHOWN):
        print(f"{count:5d}  {line}".encode(errors="replace").decode())
    print(tally.table())
    for part in PARTS:
        said = {
            name: count
            for (where, name), count in tally.outcomes.items()
            if where == part and name not in FAULTS
        }
        if said:
            print(
                f"{part}: " + ", ".join(f"{count} {name}" for name, count in sorted(said.items()))
            )
    print(
        f"seed {options.seed}, {time.monotonic() - tally.started:.0f} s; findings in "
        f"{options.findings}"
        if tally.faults
        else "nothing found"
    )
    return int(bool(tally.faults))


if __name__ == "__main__":
    from tests.campaign import main as main_of_the_module  # the one that the parts import

    sys.exit(main_of_the_module())
