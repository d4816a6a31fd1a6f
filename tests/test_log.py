"""How much a command says: --quiet, -v and neither."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from latentedit.cli import log
from tests.helpers import complaint, run, works

LOGGER = logging.getLogger("latentedit")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with two pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        Image.new("L", (32, 32), 90 * number).save(folder / f"{number}.png")
    return folder


def test_a_remark_is_said_unless_quiet(tiny_file: Path, tmp_path: Path) -> None:
    photo = tmp_path / "me.png"
    Image.new("L", (16, 16), 120).save(photo)
    words = [
        "invert",
        photo,
        "--model",
        tiny_file,
        "--aligned",
        "--method",
        "adam",
        "--steps",
        "1",
        "--perceptual",
        "discriminator",
    ]
    usual = works(*words, "--out", tmp_path / "usual")
    quiet = works("--quiet", *words, "--out", tmp_path / "quiet")
    said = [line for line in usual.stderr.splitlines() if line.startswith("perceptual distance")]
    assert len(said) == 1
    assert said[0] not in quiet.stderr
    assert (tmp_path / "quiet" / "me.safetensors").is_file()
    assert f"wrote {tmp_path / 'quiet' / 'me.safetensors'}" in quiet.stdout


def test_quiet_keeps_warnings_and_errors(pictures: Path, tmp_path: Path) -> None:
    (pictures / "bad.png").write_bytes(b"\x89PNG\r\n")
    result = works(
        "-q", "dataset", "build", pictures, "--size", "16", "--out", tmp_path / "set.zip"
    )
    assert "bad.png" in result.stderr
    assert complaint("--quiet", "model", "info", tmp_path / "none.safetensors").startswith(
        "latentedit: "
    )


def test_verbose_tells_of_files_and_where_an_error_comes_from(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sample.png"
    for name, logger in logging.root.manager.loggerDict.items():
        if name.split(".")[0] == "latentedit" and isinstance(logger, logging.Logger):
            monkeypatch.setattr(logger, "disabled", True)  # as libraries leave them
    result = works("-v", "sample", tiny_file, "--seeds", "0", "--out", out)
    assert (
        f"latentedit.formats.load_model: read the model {tiny_file}: 16 px, 6 layers"
        in result.stderr.splitlines()
    )
    assert f"latentedit.io.files: wrote {out}" in result.stderr.splitlines()

    wrong = run("-v", "model", "info", tmp_path / "none.safetensors")
    assert wrong.exit_code == 1
    assert "Traceback" in wrong.stderr
    assert wrong.stderr.splitlines()[-1].startswith("latentedit: ")


def test_names_in_the_log_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    stop = log.start(verbose=False, quiet=False)
    log.warn("a\x1b[2Jb")
    stop()
    assert "\x1b" not in capsys.readouterr().err


PROGRESS = """
import sys
from latentedit.cli import log
from latentedit.cli.common import progress_bar
log.is_terminal = lambda: True
log.start(verbose=False, quiet=sys.argv[1] == "quiet")
with progress_bar(3, "working") as bar:
    bar.update(3)
"""


@pytest.mark.parametrize("how", ["usual", "quiet"])
def test_quiet_shows_no_progress(how: str) -> None:
    """In a process of its own, as tqdm reads TQDM_DISABLE when it is imported. The bar is drawn as
    on a terminal."""
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRESS, how],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert ("working" in done.stderr) == (how == "usual")


def test_pictures_that_take_long_move_a_bar(
    tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large network draws a picture in seconds: sheets, sweeps and strips would stay silent for
    minutes."""
    seen: list[int] = []

    @contextmanager
    def bar(total: int, *_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(update=lambda count: seen.append(count), n=0)
        assert sum(seen) == total

    monkeypatch.setattr("latentedit.cli.common.progress_bar", bar)
    np.save(tmp_path / "x.npy", np.eye(12)[0])
    axis, latent, out = (
        tmp_path / "x.safetensors",
        tmp_path / "a.safetensors",
        ("--out", tmp_path / "out.png"),
    )
    works("directions", "import", tmp_path / "x.npy", "--model", tiny_file, "--out", axis)
    works("sample", tiny_file, "--seeds", "1", "--out", latent)
    assert seen == []  # a single picture has none
    for command, pictures in (
        (("sample", tiny_file, "--seeds", "0-4", *out), 5),
        (("interpolate", latent, latent, "--count", 3, "--model", tiny_file, *out), 3),
        (
            (
                "edit",
                latent,
                "--sweep",
                f"{axis}=-1:1:3",
                "--sweep",
                f"{axis}=0:1:2",
                "--model",
                tiny_file,
                *out,
            ),
            6,
        ),
        (
            (
                "directions",
                "sheet",
                axis,
                "--seeds",
                "1,2",
                "--amounts=-1:1:3",
                "--model",
                tiny_file,
                *out,
            ),
            6,
        ),
        (
            (
                "directions",
                "sefa",
                "--count",
                2,
                "--amounts=-1:1:3",
                "--model",
                tiny_file,
                "--out",
                tmp_path / "found",
            ),
            18,
        ),
    ):
        works(*command)
        assert seen == [1] * pictures
        seen.clear()


def test_a_command_leaves_the_log_as_it_was() -> None:
    before = (LOGGER.level, list(LOGGER.handlers))
    works("-v", "directions", "list")
    works("--quiet", "directions", "list")
    assert (LOGGER.level, list(LOGGER.handlers)) == before


def test_verbose_and_quiet_exclude_each_other() -> None:
    result = run("-v", "--quiet", "directions", "list")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr
