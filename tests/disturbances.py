"""Parts of the campaign: commands that are killed, that find a full disk, or that may open few
files."""

import contextlib
import http.client
import itertools
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch

from latentedit.io.images import open_image
from tests.campaign import Case, Part, Place
from tests.hostile_files import left_behind
from tests.specimens import words
from tests.watching import Outcome, command, current, escaped, judged


@dataclass(frozen=True)
class Job:
    """A command that writes."""

    name: str
    arguments: tuple[str, ...]


JOBS = tuple(
    Job(name, words(line))
    for name, line in {
        "invert": "invert {good}/photos {model} --perceptual discriminator --aligned --steps 2 "
        "--batch 1 --out {out}/album",
        "dataset build folder": "dataset build {good}/photos --size 8 --out {out}/set",
        "dataset build zip": "dataset build {good}/photos --size 8 --out {out}/set.zip",
        "train": "train {good}/pictures.zip --preset {good}/preset.toml --kimg 0.012 --out "
        "{out}/run",
        "edit": "edit {good}/labels {model} --set {good}/direction.safetensors=1 "
        "--out {out}/edited",
        "directions sample": "directions sample {model} --count 3 --attribute hat --out "
        "{out}/samples",
    }.items()
)
LABEL = "directions label"


class Running(Part):
    """Jobs that something happens to while they run."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._whole: dict[str, tuple[float, dict[str, bytes]]] = {}
        """Seconds of every undisturbed job, and the files that it writes."""

    def case(self, number: int) -> Case:
        job = JOBS[number % len(JOBS)]
        fraction = self.place.rng(self.name, number).random()
        return Case(
            self.name,
            self.place.seed,
            number,
            job.name,
            list(job.arguments),
            {"fraction": fraction},
        )

    def run(self, case: Case) -> Outcome:
        arguments = self._placed(case)
        seconds, expected = self._undisturbed(case)
        self.place.fresh()
        with self.trouble(case, expected) as limit:
            outcome = self.meet(arguments, limit, seconds * case.extra["fraction"])
            found = None if outcome.fault else half_written(self.out)
        if outcome.fault or found:
            return outcome if outcome.fault else Outcome("lost", found or "")
        return self._goes_on(case, arguments, expected) or outcome

    @contextlib.contextmanager
    def trouble(self, case: Case, expected: dict[str, bytes]) -> Iterator[Callable[[], None]]:
        """Prepares it, and gives what the process is to do to itself before it begins."""
        yield lambda: None

    def meet(self, arguments: list[str], limit: Callable[[], None], seconds: float) -> Outcome:
        """Run the job into its trouble."""
        return run_apart(arguments, limit)

    @property
    def out(self) -> Path:
        return self.place.scratch / "out"

    def _placed(self, case: Case) -> list[str]:
        return self.place.filled(case.arguments)

    def _undisturbed(self, case: Case) -> tuple[float, dict[str, bytes]]:
        if case.name not in self._whole:
            self.place.fresh()
            started = time.monotonic()
            outcome = run_apart(self._placed(case))
            if outcome != Outcome(None, "ok"):
                raise RuntimeError(f"{case.name} does not work: {outcome}")
            self._whole[case.name] = (time.monotonic() - started, contents(self.out))
        return self._whole[case.name]

    def _goes_on(
        self, case: Case, arguments: list[str], expected: dict[str, bytes]
    ) -> Outcome | None:
        """The same command again, without trouble: it ends where one that nothing happened to
        does."""
        again = run_apart(arguments)
        # rather than to mix two sets
        if again.detail.startswith("refused") and case.name.startswith("dataset"):
            shutil.rmtree(self.out)
            again = run_apart(arguments)
        if again != Outcome(None, "ok"):
            return (
                again
                if again.fault
                else Outcome("lost", f"the same command does not go on: {again.detail}")
            )
        found = contents(self.out)
        if found.keys() != expected.keys():
            odd = sorted(found.keys() ^ expected.keys())
            hidden = [name for name in odd if Path(name).name.startswith(".")]
            if hidden:
                return left_behind(self.out)
            return Outcome("lost", f"afterwards other files than undisturbed: {', '.join(odd[:5])}")
        different = [
            name
            for name in found
            if found[name] != expected[name] and name.endswith(".png") and "curves" not in name
        ]
        return Outcome("lost", f"afterwards another picture: {different[0]}") if different else None


class Kills(Running):
    """SIGKILL at a random moment."""

    name = "kills"

    def case(self, number: int) -> Case:
        if number % (len(JOBS) + 1) == len(JOBS):
            rng = self.place.rng(self.name, number)
            return Case(self.name, self.place.seed, number, LABEL, [], {"fraction": rng.random()})
        return super().case(number - number // (len(JOBS) + 1))

    def run(self, case: Case) -> Outcome:
        if case.name != LABEL:
            return super().run(case)
        try:
            return self._label(case)
        except RuntimeError as error:  # what the page answered
            return Outcome("tracebacks", f"the labelling page: {error}")

    def meet(self, arguments: list[str], limit: Callable[[], None], seconds: float) -> Outcome:
        return run_apart(arguments, limit, kill_after=seconds)

    def _label(self, case: Case) -> Outcome:
        """Every answer that was confirmed is in the table, and the next page opens."""
        scratch = self.place.fresh()
        shutil.copytree(self.place.good / "labels", scratch / "labels")
        table = scratch / "labels" / "labels.csv"
        line = [
            "directions",
            "label",
            str(table),
            "--column",
            "new",
            "--order",
            "file",
            "--no-browser",
        ]
        confirmed: dict[int, str] = {}
        sample = 0
        with page(line) as (child, ask):
            signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, 0.002 + 0.15 * case.extra["fraction"])
            with contextlib.suppress(OSError, http.client.HTTPException):
                for turn in itertools.count():
                    sample, value = turn % 12, str((turn // 12 + turn) % 2)
                    ask("/answer", {"sample": sample, "value": value})
                    confirmed[sample] = value
            signal.setitimer(signal.ITIMER_REAL, 0)
        rows = [line.split(",") for line in table.read_text().splitlines()]
        lost = [
            number
            for number, value in confirmed.items()
            if rows[number + 1][-1] != value and number != sample  # whose answer was on its way
        ]
        if lost:
            return Outcome("lost", f"{len(lost)} of {len(confirmed)} confirmed answers")
        if all(row[-1] for row in rows):  # a page with nothing to ask does not open
            rows[1][-1] = ""
            table.write_text("".join(",".join(row) + "\n" for row in rows))
        with page(line) as (_, ask):
            ask("/answer", {"sample": 0, "value": "1"})
            ask("/done", {})
        return left_behind(scratch) or Outcome(None, "killed")


class Disk(Running):
    """A disk that is full, or files that may not be longer."""

    name = "disk"

    @contextlib.contextmanager
    def trouble(self, case: Case, expected: dict[str, bytes]) -> Iterator[Callable[[], None]]:
        sizes = [len(data) for data in expected.values()]
        if case.number % 2 and self._mounted(int(sum(sizes) * case.extra["fraction"]) + 4096):
            try:
                yield lambda: None
            finally:
                kept = self.place.scratch / "kept"
                shutil.copytree(self.out, kept, symlinks=True)
                self.place.release()
                self.out.rmdir()
                kept.rename(self.out)
        else:
            most = int(max(sizes) * case.extra["fraction"])
            yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    def _mounted(self, size: int) -> bool:
        line = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.out)]
        return os.geteuid() == 0 and subprocess.run(line, capture_output=True).returncode == 0


class Descriptors(Running):
    """So few descriptors that files cannot be opened."""

    name = "descriptors"

    @contextlib.contextmanager
    def trouble(self, case: Case, expected: dict[str, bytes]) -> Iterator[Callable[[], None]]:
        def limit() -> None:
            most = len(os.listdir("/proc/self/fd")) + int(8 * case.extra["fraction"])
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

        yield limit


def run_apart(
    arguments: list[str], limit: Callable[[], None] = lambda: None, kill_after: float | None = None
) -> Outcome:
    """A command in a process of its own, which is killed after some seconds, or awaited."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            limit()
            outcome = judged(lambda: command(arguments), current[0], 60.0)
            os.write(writing, json.dumps([outcome.fault, outcome.detail]).encode())
            status = 0
        except BaseException as error:
            os.write(writing, json.dumps(["tracebacks", escaped(error).detail]).encode())
        finally:
            os._exit(status)
    os.close(writing)
    handle = os.pidfd_open(child)
    try:
        ended = bool(select.select([handle], [], [], kill_after)[0])
        if not ended:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        said = os.read(reading, 1 << 16)
    finally:
        os.close(handle)
        os.close(reading)
    if not ended:
        return Outcome(None, "killed")
    if os.WIFSIGNALED(status):
        return Outcome("signals", signal.Signals(os.WTERMSIG(status)).name)
    return (
        Outcome(*json.loads(said))
        if said
        else Outcome("signals", f"ended with status {os.WEXITSTATUS(status)}")
    )


Ask = Callable[[str, dict[str, Any]], None]


@contextlib.contextmanager
def page(line: Sequence[str]) -> Iterator[tuple[int, Ask]]:
    """A labelling page in a process of its own: its number, and a function that sends a request and
    waits for the answer."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writing, 1)
            from latentedit.cli.main import main

            with (
                os.fdopen(1, "w", buffering=1, closefd=False) as out,
                contextlib.redirect_stdout(out),
            ):
                main(list(line), prog_name="latentedit")
        finally:
            os._exit(0)
    os.close(writing)
    try:
        with os.fdopen(reading) as said:
            address, _, secret = said.readline().strip().removeprefix("http://").partition("/?key=")
            if not secret:
                raise RuntimeError(f"the page does not open: {said.read()}")
            where, _, place = address.partition("/")
            headers = {
                "Cookie": f"studio={secret}",
                "Origin": f"http://{where}",
                "Content-Type": "application/json",
            }

            def ask(path: str, body: dict[str, Any]) -> None:
                connection = http.client.HTTPConnection(where)
                try:
                    connection.request("POST", f"/{place}/label{path}", json.dumps(body), headers)
                    answer = connection.getresponse()
                    said = answer.read()
                    if answer.status != 200:
                        raise RuntimeError(said.decode())
                finally:
                    connection.close()

            yield child, ask
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.waitpid(child, 0)


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder by name; without the sheet of all photos, which only a run that did
    several of them draws."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / "album" / "sheet.png"
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def half_written(folder: Path) -> str | None:
    """A file that bears its name and is not whole; None where there is none."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".lock":
            try:
                _read_whole(path)
            except Exception as error:
                return (
                    f"half-written: {path.relative_to(folder)} ({type(error).__name__}: "
                    f"{str(error).splitlines()[0][:80]})"
                )
    return None


def _read_whole(path: Path) -> None:
    if path.suffix == ".png":
        open_image(path)
    elif path.suffix == ".safetensors":
        with safetensors.safe_open(str(path), framework="pt") as file:
            list(file.keys())
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():
                raise ValueError("a member is damaged")
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif (
        path.suffix == ".csv"
        and path.read_text()
        and not path.read_text().startswith(("photo,", "file,"))
    ):
        raise ValueError("no header")
