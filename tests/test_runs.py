"""Runs as a user meets them: killed, thinned, measured, conditional, started from another model."""

import itertools
import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentedit.errors import Error
from latentedit.formats.load_model import load_model
from latentedit.model.model import Model
from latentedit.training import (
    PictureSet,
    RunOptions,
    Trainer,
    TrainingConfig,
    load_preset,
    loop,
    train,
)
from latentedit.training.curves import read_log, save_curves
from latentedit.training.estimate import estimate_training
from latentedit.training.loop import thin
from tests.helpers import CONFIG, NETWORK, pictures, tiny_discriminator, tiny_generator


def labelled(count: int = 12) -> PictureSet:
    """Dark pictures of one class, light ones of the other."""
    pixels = torch.full((count, 1, 8, 8), 40, dtype=torch.uint8)
    pixels[1::2] = 215
    labels = torch.nn.functional.one_hot(torch.arange(count) % 2, 2).float()
    return PictureSet(pixels, labels, [f"{i}.png" for i in range(count)], ["dark", "light"])


def killed(config: TrainingConfig, out: Path, fatal: int) -> int:
    """How a process ends that trains, and that SIGKILL hits when it opens or names file ``fatal``
    below ``out``."""
    left = itertools.count(fatal, -1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            event in ("open", "os.rename")
            and str(arguments[0]).startswith(str(out))
            and next(left) == 0
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            sys.addaudithook(watch)
            train(config, pictures(), out)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_killed_at_any_instant_it_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run goes on from a whole snapshot, and ends where an undisturbed one does."""
    monkeypatch.setattr(loop, "save_curves", lambda log, path: None)  # they would take longest
    config = CONFIG.changed(kimg=0.12, snapshot_kimg=0.016)
    for fatal in (12, 29, 18):
        assert killed(config, tmp_path / "killed", fatal) == -signal.SIGKILL
    leftovers = [p.name for p in (tmp_path / "killed").glob(".*")]
    assert len(leftovers) <= 3  # a killed write leaves at most its own temporary file
    train(config, pictures(), tmp_path / "killed")
    train(config.changed(snapshot_kimg=1.0), pictures(), tmp_path / "whole")
    one, two = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("killed", "whole")
    )
    assert one["images_seen"] == two["images_seen"] == 120
    assert all(torch.equal(one["g_ema"][key], two["g_ema"][key]) for key in one["g_ema"])


def test_snapshots_are_thinned(tmp_path: Path) -> None:
    for kimg in range(20, 2020, 20):
        for name in (f"model-{kimg:06d}.safetensors", f"fakes-{kimg:06d}.png"):
            (tmp_path / name).write_bytes(b"")
        thin(tmp_path, 20.0, best="000060")
    kept = sorted(int(p.stem.split("-")[1]) for p in tmp_path.glob("model-*"))
    assert kept[-3:] == [1960, 1980, 2000]
    assert 60 in kept
    older = [kimg for kimg in kept[:-3] if kimg != 60]
    assert 4 <= len(older) <= 8
    assert len({b - a for a, b in itertools.pairwise(older)}) == 1
    assert sorted(p.stem.split("-")[1] for p in tmp_path.glob("fakes-*")) == [
        f"{kimg:06d}" for kimg in kept
    ]


def test_the_best_snapshot_is_kept(tmp_path: Path) -> None:
    values = iter([5.0, 2.0, 3.0, 4.0])

    def measure(model: Model) -> dict[str, float]:
        return {"metric/kid": next(values), "metric/recall": 0.5}

    train(
        CONFIG.changed(kimg=4.0 / 50, snapshot_kimg=0.02),
        pictures(),
        tmp_path,
        RunOptions(measure=measure, held_out=pictures(1, 5)),
    )
    best = json.loads((tmp_path / "best.json").read_text())
    assert (best["name"], best["value"]) == ("metric/kid", 2.0)
    assert load_model(tmp_path / "model-best.safetensors").provenance["images_seen"] == 40
    snapshots = [record for record in read_log(tmp_path / "log.jsonl") if "metric/kid" in record]
    assert [record["metric/kid"] for record in snapshots] == [5.0, 2.0, 3.0, 4.0]
    for name in (
        "logits_train",
        "logits_held_out",
        "logits_generated",
        "spread_real",
        "spread_fake",
        "r_t",
    ):
        assert all(math.isfinite(record[name]) for record in snapshots), name
    with pytest.raises(
        Error, match=r"held-out images have shape \(1, 16, 16\), the training set \(1, 8, 8\)"
    ):
        large = PictureSet(
            torch.zeros(2, 1, 16, 16, dtype=torch.uint8), torch.zeros(2, 0), ["a", "b"]
        )
        train(CONFIG, pictures(), tmp_path / "other", RunOptions(held_out=large))


def test_curves(tmp_path: Path) -> None:
    records = [
        {"kimg": i, "loss_g": 1.0 + i, "loss_d": 2.0, "metric/kid": 0.1} for i in range(1000)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(r) for r in records) + '\n{"kimg": 10')
    assert len(read_log(tmp_path / "log.jsonl")) == 1000
    save_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 800


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(CONFIG.changed(kimg=0.008), pictures(), tmp_path, RunOptions(tensorboard=True))
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_class_is_learnt(tmp_path: Path) -> None:
    """Pictures of the dark class come out darker than those of the light one."""
    config = CONFIG.changed(
        augment="none", mirror=False, batch=8, ema_kimg=0.05, learning_rate=0.01, kimg=0.64
    )
    model = load_model(train(config.changed(snapshot_kimg=1.0), labelled(), tmp_path))
    assert model.provenance["label_names"] == ["dark", "light"]
    assert model.generator.label_frequencies == [0.5, 0.5]
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    dark, light = (model.generator(z, torch.eye(2)[[label] * 16]).mean() for label in (0, 1))
    assert float(light - dark) > 0.5


def test_start_from_a_model() -> None:
    trainer = Trainer(CONFIG, pictures())
    other = Model(
        tiny_generator(
            resolution=8, channel_base=64, channel_max=8, z_dim=8, w_dim=8, mapping_layers=1
        ),
        tiny_discriminator(resolution=8, channel_base=64, channel_max=8),
    )
    assert trainer.start_from(other) == {"generator": 1.0, "discriminator": 1.0}
    for ours, theirs in (
        (trainer.g, other.generator),
        (trainer.g_ema, other.generator),
        (trainer.d, other.discriminator),
    ):
        assert theirs is not None
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name
    assert trainer.started_from is not None
    trainer.step()
    assert trainer.model(None, {}).provenance["started_from"] == trainer.started_from


def test_start_from_half_the_resolution() -> None:
    """Blocks up to 8 x 8 are taken over, those of 16 x 16 are fresh."""
    sixteen = PictureSet(
        torch.zeros(4, 1, 16, 16, dtype=torch.uint8), torch.zeros(4, 0), list("abcd")
    )
    trainer = Trainer(CONFIG, sixteen)
    eight = Trainer(CONFIG, pictures())
    before = trainer.g.state_dict()["synthesis.b16.conv0.weight"].clone()
    shares = trainer.start_from(eight.model(None, {}))
    assert 0.5 < shares["generator"] < 1
    assert 0.3 < shares["discriminator"] < 1
    assert torch.equal(trainer.g.state_dict()["synthesis.b16.conv0.weight"], before)
    shared = trainer.g.state_dict()["synthesis.b8.conv0.weight"]
    assert torch.equal(shared, eight.g.state_dict()["synthesis.b8.conv0.weight"])
    with pytest.raises(
        Error, match="only 0% of the generator's parameters fit the networks of this run"
    ):
        trainer.start_from(
            Model(tiny_generator(z_dim=5, w_dim=3, channel_base=64, channel_max=3, channels=2))
        )


def test_snapshot_survives_a_measure_that_fails(tmp_path: Path) -> None:
    def measure(model: Model) -> dict[str, float]:
        raise Error("no room")

    with pytest.raises(Error, match="no room"):
        train(CONFIG.changed(kimg=0.008), pictures(), tmp_path, RunOptions(measure=measure))
    assert load_model(tmp_path / "model.safetensors").provenance["images_seen"] == 8
    assert (tmp_path / "state.pt").exists()


def test_resuming_says_so_and_keeps_the_framing(tmp_path: Path) -> None:
    framing, lines = {"kind": "face", "eyes": [[0.3, 0.4], [0.6, 0.4]]}, list[str]()
    train(CONFIG.changed(kimg=0.008), pictures(), tmp_path, RunOptions(framing=framing))
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"kimg": 5.0}\n{"kimg": 6.')  # what a killed run may leave
    train(CONFIG.changed(kimg=0.012), pictures(), tmp_path, notice=lines.append)
    assert lines == ["resuming at 0.0 kimg"]
    assert load_model(tmp_path / "model.safetensors").framing == framing
    assert max(record["kimg"] for record in read_log(tmp_path / "log.jsonl")) == 0.012
    train(CONFIG.changed(kimg=0.012), pictures(), tmp_path, notice=lines.append)
    assert lines[-1] == "resuming at 0.0 kimg (already at the end)"


def test_r_t_without_augmentation() -> None:
    trainer = Trainer(CONFIG.changed(augment="none"), pictures())
    for _ in range(4):
        trainer.step()
    assert -1 <= trainer.overfitting <= 1
    assert float(trainer.signs[1]) == 0
    assert trainer.augment is None


def test_frozen_layers_stay() -> None:
    trainer = Trainer(CONFIG.changed(freeze_d=3), pictures())
    before = {name: tensor.clone() for name, tensor in trainer.d.state_dict().items()}
    for _ in range(2):
        trainer.step()
    changed = {
        name
        for name, tensor in trainer.d.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    frozen = {
        f"b8.{layer}.{part}"
        for layer in ("fromrgb", "conv0", "conv1")
        for part in ("weight", "bias")
    }
    assert not changed & frozen
    assert {"b8.skip.weight", "b4.conv.weight"} <= changed
    with pytest.raises(Error, match="freeze_d must be at most 4"):
        Trainer(CONFIG.changed(freeze_d=5), pictures())


def test_accepted_changes(tmp_path: Path) -> None:
    train(CONFIG.changed(kimg=0.004), pictures(), tmp_path)
    train(
        CONFIG.changed(kimg=0.012, r1_gamma=5.0),
        pictures(1),
        tmp_path,
        RunOptions(accept_changes=True),
    )
    assert load_model(tmp_path / "model.safetensors").provenance["settings"]["r1_gamma"] == 5.0
    wider = CONFIG.changed(kimg=0.02, generator={**CONFIG.generator, "w_dim": 12})
    with pytest.raises(Error, match="networks are of another shape"):
        train(wider, pictures(), tmp_path, RunOptions(accept_changes=True))


# batch, learning rate, gamma, EMA kimg, ramp-up, maps base, deviation group, mapping layers, kimg
PUBLISHED = {
    "stylegan2": (32, 0.002, 10.0, 10.0, None, 32768, 4, 8, 25000),
    "paper256": (64, 0.0025, 1.0, 20.0, None, 16384, 8, 8, 25000),
    "paper512": (64, 0.0025, 0.5, 20.0, None, 32768, 8, 8, 25000),
    "paper1024": (32, 0.002, 2.0, 10.0, None, 32768, 4, 8, 25000),
    "cifar": (64, 0.0025, 0.01, 500.0, 0.05, 32768, 32, 2, 100000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations(name: str) -> None:
    c = load_preset(name)
    found = (
        c.batch,
        c.learning_rate,
        c.r1_gamma,
        c.ema_kimg,
        c.ema_rampup,
        c.generator["channel_base"],
    )
    rest = (c.discriminator["mbstd_group_size"], c.generator["mapping_layers"], c.kimg)
    assert found + rest == PUBLISHED[name]
    assert (c.augment, c.ada_target, c.r1_interval, c.path_interval, c.ada_kimg) == (
        "bgc",
        0.6,
        16,
        4,
        500.0,
    )
    assert (c.path_weight, c.style_mixing) == ((0.0, 0.0) if name == "cifar" else (2.0, 0.9))
    assert c.discriminator.get("architecture", "resnet") == (
        "orig" if name == "cifar" else "resnet"
    )


def test_auto_chooses_by_resolution_and_processes() -> None:
    c = load_preset("auto", 1024, 8)
    assert (c.batch, c.learning_rate, c.generator["channel_base"]) == (32, 0.002, 32768)
    assert c.r1_gamma == pytest.approx(0.0002 * 1024**2 / 32)
    assert c.ema_kimg == 10.0
    c = load_preset("auto", 256, 2)
    assert (
        c.batch,
        c.learning_rate,
        c.generator["channel_base"],
        c.discriminator["mbstd_group_size"],
    ) == (
        32,
        0.0025,
        16384,
        4,
    )
    assert load_preset("auto", 32).batch == 32


def test_configurations_survive_toml(tmp_path: Path) -> None:
    for name in ("small", "cifar", "paper512"):
        (tmp_path / "again.toml").write_text(load_preset(name).toml())
        assert load_preset(str(tmp_path / "again.toml")) == load_preset(name)


def test_estimate_counts_what_is_there() -> None:
    config = CONFIG.changed(generator={**NETWORK, "z_dim": 8, "w_dim": 8, "mapping_layers": 1})
    found = estimate_training(config, (1, 8, 8), 0, torch.device("cpu"))
    trainer = Trainer(config, pictures())
    assert found.parameters_g == sum(p.numel() for p in trainer.g.parameters())
    assert found.parameters_d == sum(p.numel() for p in trainer.d.parameters())
    double = estimate_training(config.changed(batch=8), (1, 8, 8), 0, torch.device("cpu"))
    assert found.memory_gb < double.memory_gb < 2 * found.memory_gb
    assert double.gflop_per_image == found.gflop_per_image
    assert found.images_per_second > 0
