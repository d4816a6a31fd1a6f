"""Locks: one owner at a time, named to the others, and none that outlives its owner."""

import errno
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch

from latentedit.errors import Error
from latentedit.inversion.perceptual import DiscriminatorDistance
from latentedit.inversion.preconditioner import Curvature
from latentedit.io.locks import alone
from latentedit.training import train
from latentedit.training.encoders import EncoderTrainer, EncoderTraining, train_encoder
from latentedit.training.loop import LOCK
from tests.helpers import CONFIG, pictures, tiny_discriminator, tiny_generator

OWNER = f"process {os.getpid()} on {socket.gethostname()}"


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / "x.lock"
    with alone(lock, "the table"):
        assert lock.read_text() == f"latentedit: {OWNER}\n"
        for _ in range(2):  # who was refused changes nothing
            refused = pytest.raises(
                Error, match=f"^the table: {OWNER} is working on it; wait for it or stop it"
            )
            with refused, alone(lock, "the table"):
                raise AssertionError("never here")
    assert not lock.parent.exists()  # it was made for the lock
    with pytest.raises(RuntimeError), alone(lock, "the table"):
        (lock.parent / "kept").touch()
        raise RuntimeError
    assert [path.name for path in lock.parent.iterdir()] == ["kept"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_a_killed_owner_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with alone(lock, "x"):
            os.write(writing, b"held")
            signal.pause()
    assert os.read(reading, 4) == b"held"
    with pytest.raises(Error, match=f"x: process {child} on "), alone(lock, "x"):
        raise AssertionError("never here")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert lock.read_text().startswith(f"latentedit: process {child} ")  # as a crash leaves it
    with alone(lock, "x"):
        assert OWNER in lock.read_text()
    for handle in (reading, writing):
        os.close(handle)


@pytest.mark.parametrize("number", [os.getpid(), 1, 10**9], ids=["own", "first", "none"])
def test_what_an_earlier_boot_or_container_left(tmp_path: Path, number: int) -> None:
    """The number may be that of any process by now: it is not what holds the lock."""
    lock = tmp_path / "x.lock"
    lock.write_text(f"latentedit: process {number} on {socket.gethostname()}\n" + "and more" * 9)
    with alone(lock, "x"):
        assert lock.read_text() == f"latentedit: {OWNER}\n"
    assert not lock.exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    lock.write_text("my notes")
    with (
        pytest.raises(Error, match="x.lock: not a lock of latentedit; move it away"),
        alone(lock, "x"),
    ):
        raise AssertionError("never here")
    assert lock.read_text() == "my notes"
    lock.unlink()
    lock.mkdir()
    with pytest.raises(Error, match="cannot write .*x.lock"), alone(lock, "x"):
        raise AssertionError("never here")


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a right there")
def test_no_link_is_followed(tmp_path: Path) -> None:
    """Else whoever may write to the folder could have a file elsewhere emptied."""
    (tmp_path / "precious").touch()
    (tmp_path / "x.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(Error, match="cannot write .*x.lock"), alone(tmp_path / "x.lock", "x"):
        raise AssertionError("never here")
    assert (tmp_path / "precious").read_bytes() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="the lock of POSIX systems")
def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with alone(tmp_path / "x.lock", "x"), alone(tmp_path / "x.lock", "x"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there a file in use cannot be removed")
def test_the_owner_may_leave_while_another_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a file that has been removed would be worth nothing: the next one makes a file of
    its own."""
    import fcntl

    lock, real, calls = tmp_path / "x.lock", fcntl.flock, list[int]()

    def late(handle: int, flags: int) -> None:
        calls.append(handle)
        if len(calls) == 1:
            lock.unlink()
        real(handle, flags)

    monkeypatch.setattr("fcntl.flock", late)
    with alone(lock, "x"):
        assert len(calls) == 2
        assert lock.is_file()


def test_two_trainings_in_one_folder(tmp_path: Path) -> None:
    out, refused = tmp_path / "run", list[str]()
    config = CONFIG.changed(kimg=0.008)

    def meanwhile(figures: dict[str, float]) -> None:
        with pytest.raises(Error) as caught:
            train(config, pictures(), out)
        refused.append(str(caught.value))

    train(config, pictures(), out, report=meanwhile)
    assert refused == [
        f"{out}: {OWNER} is working on it; wait for it or stop it (lock {LOCK})"
    ] * len(refused)
    assert refused
    assert not (out / LOCK).exists()
    with pytest.raises(Error, match="started with other options"):
        train(config.changed(r1_gamma=9.0), pictures(), out)
    train(config.changed(kimg=0.012), pictures(), out)  # neither an end nor an error keeps it


def test_two_trainings_of_one_encoder(tmp_path: Path) -> None:
    generator, discriminator = tiny_generator(), tiny_discriminator()
    curvature = Curvature(torch.ones(2, generator.num_ws, generator.w_dim))
    trainers = [
        EncoderTrainer(
            generator, DiscriminatorDistance(discriminator), curvature, EncoderTraining(1, batch=2)
        )
        for _ in range(2)
    ]
    state, refused = tmp_path / "e.state.pt", list[str]()

    def meanwhile(step: int, terms: dict[str, float]) -> None:
        with pytest.raises(Error) as caught:
            train_encoder(trainers[1], state)
        refused.append(str(caught.value))

    train_encoder(trainers[0], state, report=meanwhile)
    assert refused == [
        f"{state}: {OWNER} is working on it; wait for it or stop it (lock e.state.pt.lock)"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["e.state.pt"]
