"""Ctrl-C at any moment: status 130, one line that says what was kept, and what was kept is
there."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

import latentedit
from latentedit.cli.main import WAITING
from latentedit.errors import Interrupted
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_generator
from latentedit.inversion.projector import Projector
from latentedit.io.images import to_pil
from latentedit.latent.w_statistics import sample_z
from latentedit.training import loop as training_loop
from latentedit.training import train, write_pictures
from tests.helpers import CONFIG, pictures, run


def press(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def stopped(*arguments: object) -> str:
    """The last line on stderr of a command that Ctrl-C ends."""
    result: Result = run(*arguments)
    assert result.exit_code == 130, result.output + repr(result.exception)
    return result.stderr.splitlines()[-1]


@pytest.fixture
def photos(tmp_path: Path, tiny_file: Path) -> Path:
    generator = load_generator(tiny_file)
    for seed in range(2):
        photo = tmp_path / "photos" / f"{seed}.png"
        photo.parent.mkdir(exist_ok=True)
        to_pil(generator(sample_z(seed, 12))).save(photo)  # without the note that it is a rendering
    return tmp_path / "photos"


def inverted(photos: Path, tiny_file: Path, *more: object) -> tuple[object, ...]:
    out = photos.parent / "latents"
    return (
        "invert",
        photos,
        "--model",
        tiny_file,
        "--aligned",
        "--steps",
        2,
        "--batch",
        1,
        "--out",
        out,
        *more,
    )


def nth(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, but Ctrl-C at its call number ``count``."""
    calls = [0]

    def wrapped(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        return press() if calls[0] == count else function(*arguments, **options)

    return wrapped


@pytest.mark.parametrize(
    "where",
    ["latentedit.formats.load_model.load_model", "latentedit.latent.w_statistics.WStatistics.of"],
)
def test_before_the_first_photo(
    photos: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(where, press)
    assert (
        stopped(*inverted(photos, tiny_file))
        == "latentedit: interrupted; files that were already written are kept"
    )


def test_between_two_photos(photos: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Projector, "invert", nth(2, Projector.invert))
    line = stopped(*inverted(photos, tiny_file))
    assert (
        line
        == "latentedit: interrupted; 1 photos are done and kept, run the same command again to "
        "resume"
    )
    assert (photos.parent / "latents" / "0.safetensors").is_file()
    assert not (photos.parent / "latents" / "1.safetensors").exists()


def test_while_tuning_the_search_is_kept(
    photos: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Projector, "tune", press)
    line = stopped(*inverted(photos, tiny_file, "--tune"))
    assert (
        line
        == "latentedit: interrupted; the best result so far is kept, run the same command again "
        "to resume"
    )
    latent = load_latent(photos.parent / "latents" / "0.safetensors")
    assert latent.tuned == {}
    assert latent.settings["interrupted"] is True


def test_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the run's own handler nothing is written; with it, a snapshot."""
    write_pictures(
        tmp_path / "data.zip", ((f"{i}.png", Image.new("L", (16, 16), 20 * i)) for i in range(8))
    )
    monkeypatch.setattr("latentedit.training.load_pictures", press)
    assert stopped("train", tmp_path / "data.zip", "--out", tmp_path / "run").startswith(
        "latentedit: interrupted"
    )
    assert not (tmp_path / "run").exists()

    sent: list[object] = []

    def report(figures: object) -> None:
        if not sent:
            signal.raise_signal(signal.SIGINT)
        sent.append(figures)

    monkeypatch.setattr(training_loop, "time", Later())
    with pytest.raises(
        Interrupted,
        match="model.safetensors and the state are written, run the same command again to resume",
    ):
        train(CONFIG.changed(kimg=10.0), pictures(), tmp_path / "run", report=report)
    assert (tmp_path / "run" / "state.pt").is_file()


class Later:
    """A clock that goes on by two seconds whenever it is read, so that every step is told."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 2
        return self.now


def test_demo_keeps_the_search(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentedit.cli import demo

    def search(*arguments: Any) -> Any:
        from latentedit.inversion.projector import invert

        generator, target = arguments[0].generator, arguments[1]
        result = invert(
            generator,
            target,
            steps=1,
            perceptual="discriminator",
            discriminator=arguments[0].discriminator,
        )
        return result, None

    monkeypatch.setattr(demo, "search", search)
    photo = Path(latentedit.__file__).parent / "bundled" / "portrait.jpg"
    line = stopped("demo", "--photo", photo, "--out", tmp_path)
    assert (
        line == "latentedit: interrupted; the best result so far is in "
        f"{tmp_path / 'portrait.safetensors'}"
    )
    assert load_latent(tmp_path / "portrait.safetensors").crop is not None


def test_threads_wait_passively_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    run("model", "zoo")
    assert os.environ["OMP_WAIT_POLICY"] == "passive"

    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    run("model", "zoo")
    assert "OMP_WAIT_POLICY" not in os.environ
