"""The campaign: it sees what it is to see, and a short one finds nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import click
import pytest
import torch

from latentedit.errors import Error
from latentedit.latent.latent_file import Latent
from tests import watching
from tests.mutations import variant
from tests.watching import Outcome, Patience, current, in_children, judged, refusal

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="forks, and limits memory and files as Linux does"
)
ROOT = Path(__file__).parent.parent


Item = Callable[[], Outcome]


def outcomes(work: Path, *items: Item, endless: Item | None = None) -> list[Outcome]:
    """How the items end, each watched, in children that may write to ``work``; the ``endless`` one
    gets little time."""
    found: list[Outcome] = []
    in_children(
        lambda number: judged(
            items[number], current[0], 0.2 if items[number] is endless else 600.0
        ),
        range(len(items)),
        lambda _, outcome: found.append(outcome),
        own=[work],
        until=lambda: False,
    )
    return found


def test_every_fault_is_seen(tmp_path: Path) -> None:
    """A child that dies costs its item alone, and nothing gets done that was not to be done."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()

    def fine() -> Outcome:
        (inside / "x").write_text("")
        (inside / "x").unlink()
        return Outcome(None, "ok")

    def runs() -> Outcome:
        try:
            os.system(f"touch {outside}")
        except Exception:
            pass
        return Outcome(None, "ok")

    def writes() -> Outcome:
        outside.write_text("")
        return Outcome(None, "ok")

    def removes() -> Outcome:
        os.unlink(inside.parent / "kept")
        return Outcome(None, "ok")

    def dies() -> Outcome:
        os.kill(os.getpid(), signal.SIGSEGV)
        return Outcome(None, "ok")

    def hangs() -> Outcome:
        while True:
            pass

    def grows() -> Outcome:
        return Outcome(None, f"ok: {len(bytearray(400 << 20))}")

    def fails() -> Outcome:
        return Outcome(None, [][0])

    (tmp_path / "kept").touch()
    found = outcomes(
        inside, fine, runs, writes, removes, dies, hangs, grows, fails, fine, endless=hangs
    )
    faults = [
        None,
        "executions",
        "executions",
        "executions",
        "signals",
        "hangs",
        "memory",
        "tracebacks",
        None,
    ]
    assert [outcome.fault for outcome in found] == faults, found
    assert found[4].detail == "SIGSEGV"
    assert found[7].detail.startswith("IndexError at test_campaign.py:")
    assert not outside.exists()
    assert (tmp_path / "kept").exists()


def test_what_a_command_was_told_to_write_is_its_own_affair(tmp_path: Path) -> None:
    """It meets what a user meets who may not write there; everything else is seen as before."""
    own = tmp_path / "own"
    own.mkdir()
    above = tmp_path / "b" / "c" / "x.png"
    told, folder, handle = (
        tmp_path / "a" / "told.png",
        tmp_path / "folder",
        os.open(tmp_path, os.O_RDONLY),
    )
    for place in (told.parent, folder, folder / "deep"):
        place.mkdir()
    steps: dict[str, Callable[[], object]] = {
        "told": lambda: told.write_text(""),
        "beside": lambda: (told.parent / ".told-x").write_text(""),
        "in a folder": lambda: (folder / "x").mkdir(),
        "above": lambda: above.parent.parent.mkdir(),
        "there already": lambda: os.makedirs(tmp_path, exist_ok=True),
        "own": lambda: (own / "x").mkdir(),
        "own by descriptor": lambda: os.mkdir("own/y", dir_fd=handle),
        "elsewhere": lambda: (tmp_path / "x").write_text(""),
        "deeper": lambda: (folder / "deep" / "x").write_text(""),
        "makes": lambda: (tmp_path / "x").mkdir(),
        "makes by descriptor": lambda: os.mkdir("x", dir_fd=handle),
        "cuts": lambda: os.truncate(__file__, 10**6),
        "dates": lambda: os.utime(__file__, (0, 0)),
        "links": lambda: os.symlink(own, tmp_path / "x"),
        "takes away": lambda: os.rename(__file__, own / "z"),
        "runs": lambda: os.system(f"touch {told}"),
        "runs in another way": lambda: subprocess.run(["touch", str(told)]),
    }

    def step(number: int) -> Outcome:
        def work() -> Outcome:
            try:
                list(steps.values())[number]()
            except PermissionError:
                return Outcome(None, "may not")
            return Outcome(None, "ok")

        return judged(work, current[0], 600.0, told=[told, folder, above])

    found: list[str] = []
    in_children(
        step,
        range(len(steps)),
        lambda _, outcome: found.append(outcome.fault or outcome.detail),
        own=[own],
        until=lambda: False,
    )
    os.close(handle)
    assert found == ["may not"] * 4 + ["ok"] * 3 + ["executions"] * 10, dict(
        zip(steps, found, strict=True)
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "a",
        "deep",
        "folder",
        "own",
        "x",
        "y",
    ]


def test_outputs_of_commands_are_known() -> None:
    """Every option that a command writes to: what the campaign does not know it would take for an
    execution."""
    from tests.odd_arguments import OUTPUTS, commands, told_to_write

    options = [
        p for _, command in commands() for p in command.params if isinstance(p.type, click.Path)
    ]
    helps = [(p.opts[-1], p.help or "") for p in options if isinstance(p, click.Option)]
    writing = {
        name
        for name, text in helps
        if "write" in text or text.startswith(("Folder for", "Output folder"))
    }
    assert "--out" in writing
    assert writing <= set(OUTPUTS)
    assert told_to_write("sample", ["sample", "x.pt", "--out", "/", "--seeds", "1"]) == ["/"]
    assert told_to_write("model convert", ["model", "convert", "a", "/dev/zero"]) == ["/dev/zero"]


def test_what_neither_computes_nor_ends_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it waits for another process; what comes after it is tried."""
    waiting = tmp_path / "waiting"
    monkeypatch.setattr(Patience, "is_over", lambda _: waiting.exists())

    def waits() -> Outcome:
        child = os.fork()
        if child == 0:
            waiting.touch()
            signal.pause()
        os.waitpid(child, 0)
        return Outcome(None, "ok")

    def heard(_: int, outcome: Outcome) -> None:
        found.append(outcome)
        waiting.unlink(missing_ok=True)

    found: list[Outcome] = []
    items = waits, lambda: Outcome(None, "ok")
    in_children(lambda number: items[number](), [0, 1], heard, own=[tmp_path], until=lambda: False)
    assert found == [Outcome("hangs", "is stuck"), Outcome(None, "ok")]


def test_a_busy_machine_makes_nothing_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, computed = [0.0], [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(watching, "group_time", lambda group: computed[0])
    slow = Patience(1)
    for _ in range(10):
        clock[0] += 179
        computed[0] += 0.2
        assert not slow.is_over()
    clock[0] += 179
    computed[0] += 0.01  # as what only looks at its watch
    assert not slow.is_over()
    clock[0] += 2
    assert slow.is_over()
    endless = Patience(1)
    for _ in range(40):
        clock[0] += 100
        computed[0] += 50
        late = endless.is_over()
    assert late


def test_the_time_of_a_group_is_that_of_all_in_it(tmp_path: Path) -> None:
    """The time includes a child that the process waits for, and one that has ended."""
    reading, writing = os.pipe()

    def compute(seconds: float) -> None:
        begun = time.process_time()
        while time.process_time() - begun < seconds:
            pass

    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if (other := os.fork()) == 0:
            compute(0.1)
            os._exit(0)
        os.waitpid(other, 0)
        if os.fork() == 0:
            compute(0.1)
            os.write(writing, b".")
            signal.pause()
        compute(0.1)
        os.write(writing, b".")
        signal.pause()
    try:
        assert os.read(reading, 1) + os.read(reading, 1) == b".."
        assert watching.group_time(child) >= 0.27  # counted in hundredths
    finally:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_ctrl_c_ends_what_is_only_long(tmp_path: Path) -> None:
    def long() -> Outcome:
        try:
            while True:
                pass
        except KeyboardInterrupt:
            return Outcome(None, "interrupted")

    found: list[Outcome] = []
    in_children(
        lambda _: judged(long, current[0], 0.2, interrupt=True),
        [0],
        lambda _, end: found.append(end),
        own=[],
        until=lambda: False,
    )
    assert found == [Outcome(None, "interrupted")]


def test_nothing_goes_on_after_the_end(tmp_path: Path) -> None:
    """What a child has started ends with it, else it would write into what the next one finds."""
    reading, writing = os.pipe()

    def starts() -> Outcome:
        if os.fork() == 0:
            os.write(writing, b"begun")
            signal.pause()
        return Outcome(None, "ok")

    in_children(lambda _: starts(), [0], lambda *_: None, own=[tmp_path], until=lambda: False)
    os.close(writing)
    assert os.read(reading, 100) in (b"begun", b"")
    assert os.read(reading, 100) == b""  # nobody has the other end any more
    os.close(reading)


def test_messages_are_lines_that_name_the_file() -> None:
    assert refusal(Error("x.png: no picture"), Path("a/x.png")).fault is None
    assert refusal(Error("no picture"), Path("a/x.png")).fault == "messages"
    assert refusal(Error("x.png: MemoryError"), Path("a/x.png")).fault == "memory"


def test_numbers_that_are_none_are_found() -> None:
    from tests.hostile_files import not_finite

    ws = torch.zeros(1, 4, 4)
    assert not_finite(Latent(ws, None, "f" * 64, "w+", settings={"x": float("nan")})) is None
    ws[0, 1, 2] = float("inf")
    assert not_finite(Latent(ws, None, "f" * 64, "w+")) == ".ws is not finite"
    assert not_finite({"a": [1.0, float("nan")]}) == ".a.1 is nan"


def test_variants_follow_from_the_seed() -> None:
    data = bytes(range(256)) * 8
    made = [variant("x.pkl", data, Random(seed), Path("canary")) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    payloads = [variant("x.pkl", data, Random(seed), Path("canary")) for seed in range(40)]
    assert any(b"touch canary" in payload for payload in payloads)


@pytest.mark.slow
def test_a_short_campaign_finds_nothing(tmp_path: Path) -> None:
    """Every part of it, every kind of file once, with the same items every time."""
    from tests.specimens import KINDS

    words = [
        sys.executable,
        "tests/campaign.py",
        "--files",
        str(len(KINDS)),
        "--seed",
        "0",
        "--findings",
        str(tmp_path / "found"),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "nothing found" in done.stdout
    assert not (tmp_path / "found").exists()
    for part in ("files", "arguments", "kills", "disk", "descriptors"):
        assert any(
            line.startswith(part) and line.split()[1].isdecimal()
            for line in done.stdout.splitlines()
        ), part
