"""A file is whole or it is not there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from latentedit.errors import Error
from latentedit.files import replacing, write_bytes
from latentedit.latents import Latent, load_latent, save_latent
from latentedit.models import load_model
from latentedit.training import train
from tests.test_training import CONFIG, pictures


def test_replaces_or_leaves(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    write_bytes(path, b"one")
    with pytest.raises(RuntimeError, match="half"), replacing(path) as temporary:
        temporary.write_bytes(b"tw")
        raise RuntimeError("half way")
    assert path.read_bytes() == b"one"
    assert list(path.parent.iterdir()) == [path]
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    yield from mounted(tmp_path, "64k")


@pytest.fixture
def larger_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path, "2m")


def mounted(tmp_path: Path, size: str) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root and Linux")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk(small_disk: Path) -> None:
    path = small_disk / "latent.safetensors"
    latent = Latent(torch.zeros(1, 4, 8), None, "f" * 64, "w")
    save_latent(path, latent)
    large = Latent(torch.zeros(1, 40, 1024), None, "f" * 64, "w")
    with pytest.raises(Error, match=r"cannot write .*latent.safetensors: No space left on device"):
        save_latent(path, large)
    assert load_latent(path).ws.shape == (1, 4, 8)
    assert list(small_disk.iterdir()) == [path]


def test_full_disk_from_the_command_line(small_disk: Path) -> None:
    command = [sys.executable, "-m", "latentedit.cli.main", "sample", "faces128", "--seeds", "0-5", "--out"]
    done = subprocess.run([*command, str(small_disk / "grid.png")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"latentedit: cannot write {small_disk}/grid.png: No space left on device"]
    assert list(small_disk.iterdir()) == []


def test_unwritable_folder_as_an_ordinary_user(tmp_path: Path) -> None:
    if os.name == "nt" or os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o555)
        with pytest.raises(Error, match="cannot write .*: Permission denied"):
            write_bytes(locked / "x", b"")
        return
    tmp_path.chmod(0o755)
    code = (
        "import os, sys\nfrom latentedit.errors import Error\nfrom latentedit.files import write_bytes\n"
        "os.setgid(65534), os.setuid(65534)\n"
        "try:\n    write_bytes(sys.argv[1], b'x')\nexcept Error as error:\n    print(error)\n"
    )
    target = tmp_path / "x.bin"
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {target}: Permission denied\n"
    assert list(tmp_path.iterdir()) == []


def test_full_disk_in_training(larger_disk: Path) -> None:
    """The run ends with one line; its last snapshot is whole, and it goes on from there when there is room again."""
    train(CONFIG.changed(kimg=0.012), pictures(), larger_disk / "run")
    filler = larger_disk / "filler"
    with pytest.raises(OSError, match="No space left"), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(Error, match="cannot write .*No space left on device"):
        train(CONFIG.changed(kimg=0.02), pictures(), larger_disk / "run")
    filler.unlink()
    assert load_model(larger_disk / "run" / "model.safetensors").provenance["images_seen"] == 12
    path = train(CONFIG.changed(kimg=0.02), pictures(), larger_disk / "run")
    assert load_model(path).provenance["images_seen"] == 20
