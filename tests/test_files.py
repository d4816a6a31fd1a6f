"""A file is whole or it is not there."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentedit.directions import load_direction
from latentedit.directions.labelling.table import Table
from latentedit.errors import Error
from latentedit.formats.arrays import read_arrays
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_model
from latentedit.io import files
from latentedit.io.csv_table import read_csv
from latentedit.io.files import (
    TEMPORARY,
    cache_folder,
    is_picture,
    read_text,
    replacing,
    replacing_folder,
    sweep,
    write_bytes,
)
from latentedit.io.images import open_image
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.training import load_pictures, train
from tests.helpers import CONFIG, pictures


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
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True
    )
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
    command = [
        sys.executable,
        "-m",
        "latentedit.cli.main",
        "sample",
        "faces128",
        "--seeds",
        "0-5",
        "--out",
    ]
    done = subprocess.run([*command, str(small_disk / "grid.png")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"latentedit: cannot write {small_disk}/grid.png: No space left on device"
    ]
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
        "import os, sys\nfrom latentedit.errors import Error\nfrom latentedit.io.files import "
        "write_bytes\n"
        "os.setgid(65534), os.setuid(65534)\n"
        "try:\n    write_bytes(sys.argv[1], b'x')\nexcept Error as error:\n    print(error)\n"
    )
    target = tmp_path / "x.bin"
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"cannot write {target}: Permission denied\n"
    assert list(tmp_path.iterdir()) == []


def test_full_disk_in_training(larger_disk: Path) -> None:
    """The run ends with one line; its last snapshot is whole, and it goes on from there when there
    is room again."""
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


def test_the_folder_is_synced_before_a_file_counts_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is what a power cut asks for: the file's content, its name, then the folders that
    hold the names."""
    done: list[tuple[str, str]] = []
    own_sync, own_replace = os.fsync, os.replace

    def name_of(handle: int) -> str:
        path = os.readlink(f"/proc/self/fd/{handle}")
        return "temporary" if TEMPORARY in path else path

    def sync(handle: int) -> None:
        done.append(("sync", name_of(handle)))
        own_sync(handle)

    def replace(source: Path, target: Path) -> None:
        done.append(("rename", str(target)))
        own_replace(source, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("names of descriptors are asked of Linux")
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    deep = tmp_path / "a" / "b"
    write_bytes(deep / "x.bin", b"one")
    assert done == [
        ("sync", str(tmp_path)),
        ("sync", str(tmp_path / "a")),
        ("sync", "temporary"),
        ("rename", str(deep / "x.bin")),
        ("sync", str(deep)),
    ]
    done.clear()
    with replacing_folder(tmp_path / "set") as folder:
        (folder / "0.png").write_bytes(b"x")
    assert done == [
        ("sync", "temporary"),
        ("sync", "temporary"),
        ("rename", str(tmp_path / "set")),
        ("sync", str(tmp_path)),
    ]
    assert (tmp_path / "set" / "0.png").read_bytes() == b"x"


HOLD = """
import sys, time
from pathlib import Path
from latentedit.io.files import replacing, replacing_folder
with {what}(Path(sys.argv[1])) as place:
    print(place, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("what", ["replacing", "replacing_folder"])
def test_what_a_killed_process_leaves_goes_at_the_next_write(tmp_path: Path, what: str) -> None:
    if os.name == "nt":
        pytest.skip("there it goes after a day")
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(what=what), str(tmp_path / "x.bin")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    left = Path(child.stdout.readline().strip())
    assert left.exists()
    try:
        forget()
        write_bytes(tmp_path / "other.bin", b"1")
        assert left.exists()  # its process lives
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    write_bytes(tmp_path / "other.bin", b"2")  # looked through a moment ago
    assert left.exists()
    forget()
    write_bytes(tmp_path / "other.bin", b"3")
    assert [path.name for path in tmp_path.iterdir()] == ["other.bin"]


def forget() -> None:
    files._swept.clear()


def test_what_another_container_writes_is_left_alone(tmp_path: Path) -> None:
    """A process of an unknown number may live elsewhere; it holds a lock."""
    fcntl = pytest.importorskip("fcntl")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    theirs = tmp_path / f"{TEMPORARY}{dead.pid}-x-abc.bin"
    others = [
        tmp_path / name
        for name in (".latentedit-notes", f"{TEMPORARY}x-1", ".hidden", f"{TEMPORARY}{'9' * 30}-a")
    ]
    for path in (theirs, *others):
        path.write_bytes(b"")
    with open(theirs) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        forget()
        sweep(tmp_path)
        assert theirs.exists()
    forget()
    sweep(tmp_path)
    assert not theirs.exists()
    assert all(path.exists() for path in others)


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "set") as folder:
        (folder / "0.png").write_bytes(b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_bytes(b"")
    with pytest.raises(Error, match="cannot write .*full"), replacing_folder(tmp_path / "full"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine"]


def test_ctrl_c_between_two_lines_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_lock", pressed)
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.png"):
        pass
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "folder"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_tables_have_a_largest_size_and_one_encoding(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes("\ufefffile,hat\n\na.png,1\n".encode())
    assert list(read_csv(table)) == [["file", "hat"], ["a.png", "1"]]
    with pytest.raises(Error, match=r"labels.csv: a CSV file of more than 0 MB"):
        read_text(table, 5)
    for data, reason in (
        (b"caf\xe9\n", "invalid continuation byte at byte 3"),
        (b"a," + b"x" * 200_000, "larger than"),
    ):
        table.write_bytes(data)
        with pytest.raises(Error, match=f"labels.csv: not a readable CSV file .*{reason}"):
            list(read_csv(table))


def test_pictures_are_called_pictures(tmp_path: Path) -> None:
    """Wherever a native file is named; a file of tensors is none, whatever number it begins
    with."""
    for ending in ("jpg", "png", "gif", "webp", "bmp", "tiff"):
        path = tmp_path / f"me.{ending}"
        Image.new("RGB", (8, 8)).save(path)
        with pytest.raises(
            Error,
            match=rf'me.{ending}: a photo, not a latent; invert it first: "latentedit invert ',
        ):
            load_latent(path)
        with pytest.raises(Error, match=rf"me.{ending}: an image, not a model file"):
            load_model(path)
        with pytest.raises(Error, match=rf"me.{ending}: an image, not a latentedit-direction file"):
            load_direction(path)
        for read, expected in (
            (read_text, "a CSV file"),
            (Table, "a CSV file"),
            (read_arrays, "an array of numbers"),
            (load_pictures, "a folder or a zip file of images"),
        ):
            with pytest.raises(Error, match=rf"me.{ending}: an image, (not|expected) {expected}"):
                read(path)
    save_latent(tmp_path / "me.safetensors", Latent(torch.zeros(1, 2, 4), None, "f" * 64, "w+"))
    with pytest.raises(
        Error,
        match="me.safetensors: not an image .*; it is a safetensors file, as latents",
    ):
        open_image(tmp_path / "me.safetensors")
    (tmp_path / "tensors").write_bytes(b"BM\0\0\0\0\0\0{}")
    assert not is_picture(tmp_path / "tensors")


def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever filled it with an earlier version finds it there; an empty variable is one that is
    not set."""
    monkeypatch.setenv("LATENTEDIT_CACHE", "mine")
    assert cache_folder() == Path("mine")
    monkeypatch.setenv("LATENTEDIT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "cache" / "latentedit"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_folder() == tmp_path / ".cache" / "latentedit"
    assert cache_folder().is_absolute()
    assert not cache_folder().exists()
