"""The trainer: losses, averages, adaptation, snapshots, resuming."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentedit.errors import Error
from latentedit.formats.load_model import load_model
from latentedit.model.model import Model
from latentedit.networks.discriminator import DiscriminatorConfig
from latentedit.networks.generator import GeneratorConfig
from latentedit.training import (
    PictureSet,
    RunOptions,
    Trainer,
    load_pictures,
    load_preset,
    presets,
    train,
    write_pictures,
)
from latentedit.training.augmentation import AugmentPipe, preset
from latentedit.training.losses import fake_loss, generator_loss, r1_penalty, real_loss
from latentedit.training.path_length import path_lengths
from tests.helpers import CONFIG, NETWORK, pictures


def test_losses_in_closed_form() -> None:
    zero = torch.zeros(2, 1)
    assert generator_loss(zero).flatten().tolist() == pytest.approx([math.log(2)] * 2)
    assert (fake_loss(zero) + real_loss(zero)).flatten().tolist() == pytest.approx(
        [2 * math.log(2)] * 2
    )
    x = torch.randn(3, 1, 4, 4, requires_grad=True)
    slope = torch.randn(1, 4, 4)
    torch.testing.assert_close(
        r1_penalty(x, (x * slope).sum((1, 2, 3))), slope.square().sum().expand(3)
    )
    ws = torch.randn(3, 2, 5, requires_grad=True)
    image = ws.sum(dim=(1, 2))[:, None, None, None].expand(3, 1, 2, 2)
    # d(sum of image * noise) / dw is the sum of the noise in every component: length |sum| sqrt(5).
    lengths = path_lengths(image, ws, torch.full((3, 1, 2, 2), 0.5))
    torch.testing.assert_close(lengths, torch.full((3,), 2 * math.sqrt(5)))


def test_regularisers_reach_the_parameters() -> None:
    """Both second-order passes give every convolution of their network a gradient."""
    trainer = Trainer(CONFIG.changed(augment="none"), pictures())
    trainer._r1_pass([trainer.data.batch(range(4), 0, False)])
    for block in trainer.d.blocks:
        assert block.conv0.weight.grad is not None
        assert float(block.conv0.weight.grad.abs().sum()) > 0
    trainer._path_pass()
    for layer in trainer.g.synthesis.layers:
        assert layer.weight.grad is not None
        assert float(layer.weight.grad.abs().sum()) > 0


def test_optimisers_are_adjusted_for_lazy_regularisation() -> None:
    trainer = Trainer(CONFIG, pictures())
    for optimizer, k in ((trainer.g_optimizer, 4), (trainer.d_optimizer, 16)):
        group = optimizer.param_groups[0]
        assert group["lr"] == pytest.approx(CONFIG.learning_rate * k / (k + 1))
        assert group["betas"] == (0.0, pytest.approx(0.99 ** (k / (k + 1))))


def test_moving_average() -> None:
    trainer = Trainer(CONFIG.changed(augment="none"), pictures())
    before = [p.clone() for p in trainer.g_ema.parameters()]
    trainer.step()
    weight = 1 - 0.5 ** (4 / (4 * 0.05))  # ramp-up: half-life of 5 % of 4 pictures
    for old, new, average in zip(
        before, trainer.g.parameters(), trainer.g_ema.parameters(), strict=True
    ):
        torch.testing.assert_close(average, old.lerp(new, weight))


def test_adaptation_follows_the_sign() -> None:
    trainer = Trainer(CONFIG, pictures())
    assert trainer.augment is not None
    trainer.signs = torch.tensor([10.0, 10.0])
    trainer._adapt()
    step = 4 * 4 / 500
    assert float(trainer.augment.p) == pytest.approx(step)
    trainer.signs = torch.tensor([0.0, 10.0])
    trainer._adapt()
    assert float(trainer.augment.p) == pytest.approx(0)


def test_learns_a_constant_picture() -> None:
    """A few dozen steps on a two-tone picture bring the average of the pictures near it."""
    pixels = torch.full((4, 1, 8, 8), 230, dtype=torch.uint8)
    pixels[..., :4] = 30
    config = CONFIG.changed(
        augment="none", mirror=False, batch=8, ema_kimg=0.05, learning_rate=0.01
    )
    trainer = Trainer(config, PictureSet(pixels, torch.zeros(4, 0), list("abcd")))
    target = trainer.data.batch([0], 0, False)[0]

    def error() -> float:
        with torch.no_grad():
            return float((trainer.g_ema(torch.randn(16, 8)) - target).square().mean())

    start = error()
    for _ in range(60):
        trainer.step()
    assert error() < 0.5 * start


def test_resumed_run_is_bit_identical(tmp_path: Path) -> None:
    """2n steps and twice n of them, n = 19: no multiple of 4 or 16, and beyond the epoch of 20
    pictures (two mirrored)."""
    config = CONFIG.changed(snapshot_kimg=1.0)
    train(config.changed(kimg=0.152), pictures(), tmp_path / "one")
    train(config.changed(kimg=0.076), pictures(), tmp_path / "two")
    train(config.changed(kimg=0.152), pictures(), tmp_path / "two")
    one, two = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("one", "two")
    )
    assert one["steps"] == two["steps"] == 38
    for part in ("g", "d", "g_ema"):
        for name in one[part]:
            assert torch.equal(one[part][name], two[part][name]), name
    for part in ("g_optimizer", "d_optimizer"):
        for index, moments in one[part]["state"].items():
            for name, value in moments.items():
                assert torch.equal(value, two[part]["state"][index][name])
    for name in ("p", "path_mean", "signs"):
        assert torch.equal(one[name], two[name]), name


def test_a_run_leaves_what_it_says(tmp_path: Path) -> None:
    framing = {"kind": "face", "eyes": [[0.3, 0.4], [0.6, 0.4]]}
    path = train(
        CONFIG, pictures(), tmp_path, RunOptions(framing=framing, provenance={"licence": "x"})
    )
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        "state.pt",
        "options.json",
        "log.jsonl",
        "curves.png",
        "model.safetensors",
        "model-000000.safetensors",
        "fakes-000000.png",
    }
    model = load_model(path)
    assert model.framing == framing
    assert model.provenance["images_seen"] == 40
    assert model.provenance["settings"]["batch"] == 4
    assert model.discriminator is not None
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["kimg"] == 0.04
    assert {"loss_g", "loss_d", "ada_p", "r_t", "images_per_second"} <= set(last)


def test_other_options_or_data_are_refused(tmp_path: Path) -> None:
    train(CONFIG.changed(kimg=0.004), pictures(), tmp_path)
    with pytest.raises(Error, match=r"other options: r1_gamma \(was 1.0, is 5.0\)"):
        train(CONFIG.changed(r1_gamma=5.0), pictures(), tmp_path)
    with pytest.raises(Error, match="other data"):
        train(CONFIG, pictures(1), tmp_path)
    (tmp_path / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(Error, match="not a training state, or damaged"):
        train(CONFIG, pictures(), tmp_path)


def test_divergence_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"training diverged at .* kimg: \w+ is (nan|inf)"):
        train(CONFIG.changed(learning_rate=1e30, augment="none"), pictures(), tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_ctrl_c_writes_a_snapshot(tmp_path: Path) -> None:
    """Sent when the log has a line, which is after the first step; how long that takes does not
    matter."""
    write_pictures(
        tmp_path / "data.zip", ((f"{i}.png", Image.new("L", (16, 16), 20 * i)) for i in range(8))
    )
    command = [
        sys.executable,
        "-m",
        "latentedit.cli.main",
        "train",
        str(tmp_path / "data.zip"),
        "--out",
        str(tmp_path / "run"),
        "--preset",
        "tiny",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--batch", "4"], env=environment, **pipes) as process:
        assert process.stderr is not None
        log = tmp_path / "run" / "log.jsonl"
        while not (log.exists() and log.stat().st_size):
            assert process.poll() is None, "the run ended before its first step was told"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read().decode()
    assert process.returncode == 130, told
    model = tmp_path / "run" / "model.safetensors"
    expected = (
        f"latentedit: interrupted; {model} and the state are written, run the same command again "
        "to resume"
    )
    assert told.splitlines()[-1] == expected
    assert load_model(model).provenance["images_seen"] > 0
    assert (tmp_path / "run" / "state.pt").exists()


@pytest.mark.parametrize("name", presets())
def test_presets_can_be_built(name: str) -> None:
    config = load_preset(name)
    narrow = {**NETWORK, "channel_widths": ()}
    small = config.changed(
        generator={**config.generator, **narrow, "z_dim": 8, "w_dim": 8},
        discriminator={**config.discriminator, **narrow},
    )
    assert Trainer(small, pictures()).g.config.mapping_layers == config.generator["mapping_layers"]


def test_preset_of_the_bundled_model_has_its_networks(faces128: Model) -> None:
    """So that all of its weights fit a run that starts from it."""
    config, discriminator = load_preset("faces128"), faces128.discriminator
    assert discriminator is not None
    assert GeneratorConfig(128, **config.generator) == faces128.generator.config
    assert DiscriminatorConfig(128, **config.discriminator) == discriminator.config


def test_configurations_are_checked(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"augment": "all"}, "augment must be none, or of the groups blit, .* got 'all'"),
        ({"batch": 0}, "batch must be a whole number of at least 1"),
        ({"batch": 8.0}, "batch must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"freeze_d": -1}, "freeze_d must be a whole number of at least 0"),
        ({"learning_rate": -1.0}, "learning_rate must be a finite number greater than 0"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number greater than 0"),
        ({"kimg": math.inf}, "kimg must be a finite number greater than 0"),
        ({"r1_gamma": -3.0}, "r1_gamma must be a finite number from 0"),
        ({"snapshot_kimg": 0.0005}, "snapshot_kimg must be at least 0.001"),
        ({"precision": "fp8"}, "precision must be auto, fp32, bf16 or fp16"),
    ]
    for options, message in cases:
        with pytest.raises(Error, match=message):
            CONFIG.changed(**options)
    with pytest.raises(
        Error, match="no such preset or file; presets: auto, cifar, faces128, paper1024"
    ):
        load_preset("huge")
    (tmp_path / "bad.toml").write_text("batches = 3")
    with pytest.raises(Error, match="not a training preset"):
        load_preset(str(tmp_path / "bad.toml"))


def test_stream_of_pictures() -> None:
    data = pictures(count=5)
    epoch = data.batch(range(5), seed=1, mirror=False)[0]
    assert sorted(p.sum().item() for p in epoch) == pytest.approx(
        sorted(p.sum().item() for p in data.batch(range(5, 10), seed=1, mirror=False)[0])
    )
    both = data.batch(range(10), seed=1, mirror=True)[0]
    assert len({tuple(p.flatten().tolist()) for p in both}) == 10
    torch.testing.assert_close(data.batch([3], 1, True)[0], both[3:4])


def test_reading_pictures(tmp_path: Path) -> None:
    squares = [(f"{i}.png", Image.new("L", (8, 8), i)) for i in range(3)]
    assert write_pictures(tmp_path / "a.zip", squares) == 3
    write_pictures(tmp_path / "b.zip", squares)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, square in squares:
        square.save(folder / name)
    labels = [["0.png", 1], ["1.png", 0], ["2.png", 1], ["3.png", 0]]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    labelled = load_pictures(folder)
    assert labelled.labels.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert torch.equal(labelled.pixels, load_pictures(tmp_path / "a.zip").pixels)
    Image.new("L", (8, 9)).save(folder / "3.png")
    with pytest.raises(Error, match="3.png is 8 x 9, training needs squares"):
        load_pictures(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Error, match="no images"):
        load_pictures(tmp_path / "empty")
    (tmp_path / "bad.zip").write_text("x")
    with pytest.raises(Error, match="not a readable zip"):
        load_pictures(tmp_path / "bad.zip")


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_at_zero_strength_changes_nothing(channels: int) -> None:
    pipe, x = AugmentPipe(**preset("bgcfnc")), torch.rand(2, channels, 32, 32)
    torch.testing.assert_close(pipe(x), x, atol=2e-3, rtol=0)
    pipe.p.fill_(1.0)
    assert float((pipe(x) - x).abs().max()) > 0.1


def test_augmentation_is_differentiable_twice() -> None:
    torch.manual_seed(0)
    pipe = AugmentPipe(**preset("bgc"))
    pipe.p.fill_(1.0)
    x = torch.rand(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)

    def fixed(t: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = pipe(t, percentile=0.6)
        return y

    assert torch.autograd.gradcheck(fixed, x, atol=1e-4)
    y = fixed(x).square().sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    assert torch.autograd.grad(first.square().sum(), x)[0].abs().sum() > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_trains_on_cuda() -> None:
    trainer = Trainer(CONFIG.changed(precision="bf16"), pictures(), "cuda")
    for _ in range(2):
        trainer.step()
    trainer.check_finite()
