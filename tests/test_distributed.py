"""One batch, cut up over rounds and processes: the same numbers, in float64, in all four passes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from latentedit.errors import Error
from latentedit.training import Trainer, TrainingConfig, World, join_world
from latentedit.training.distributed import backend
from tests.helpers import CONFIG, by_two, pictures

Passes = dict[str, dict[str, torch.Tensor]]
CUT = CONFIG.changed(batch=16, augment="bgcfnc", augment_p=0.5, precision="fp32")
WORKER = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from latentedit.training import join_world
from tests.test_distributed import CUT, passes
world = join_world(sys.argv[3])
result = passes(CUT, world, sys.argv[3])
if world.leads:
    torch.save(result, sys.argv[2])
world.leave()
"""


def passes(config: TrainingConfig, world: World = World(), device: str = "cpu") -> Passes:  # noqa: B008
    """Gradients of all passes from the same weights, and the weights after two whole steps."""
    trainer = Trainer(config, pictures(count=20), device, world, graphs=False)
    for network in (trainer.g, trainer.d, trainer.g_ema):
        network.double()
    with torch.no_grad():
        for layer in trainer.g.synthesis.layers:
            layer.noise_strength.fill_(0.3)
    found: Passes = {}

    class Kept:
        """Instead of an optimiser: keeps the gradients, changes nothing."""

        def zero_grad(self, set_to_none: bool) -> None:
            for network in (trainer.g, trainer.d):
                network.zero_grad(set_to_none=True)

        def step(self) -> None:
            pass

    optimizers = trainer.g_optimizer, trainer.d_optimizer
    trainer.g_optimizer = trainer.d_optimizer = Kept()  # type: ignore[assignment]
    trainer.load()
    real = trainer.real()
    runs: list[tuple[dict[str, torch.nn.Module], Callable[[], None]]] = [
        ({"generator": trainer.g, "discriminator": trainer.d}, lambda: trainer._main_pass(real)),
        ({"path": trainer.g}, trainer._path_pass),
        ({"r1": trainer.d}, lambda: trainer._r1_pass(real)),
    ]
    for networks, run in runs:
        run()
        for name, own in networks.items():
            found[name] = {
                key: p.grad.cpu() for key, p in own.named_parameters() if p.grad is not None
            }
    trainer.g_optimizer, trainer.d_optimizer = optimizers
    for _ in range(2):
        trainer.step()
    weights = {**trainer.g.state_dict(), **{f"d.{k}": v for k, v in trainer.d.state_dict().items()}}
    found["weights"] = {key: value.cpu() for key, value in weights.items()}
    found["figures"] = {
        k: v.double().cpu() for k, v in trainer.figures.items() if not k.startswith("spread")
    }
    return found


def assert_agree(one: Passes, other: Passes) -> None:
    for part, tensors in one.items():
        assert tensors.keys() == other[part].keys(), part
        largest = max(float(t.abs().max()) for t in tensors.values())
        assert largest > 0
        for name, tensor in tensors.items():
            error = float((tensor - other[part][name]).abs().max())
            # Adam divides by the size of a gradient, so that the weights show the rounding of the
            # smallest ones.
            assert error <= (1e-5 if part == "weights" else 1e-10) * largest, (
                f"{part} {name}: {error} of {largest}"
            )


@pytest.fixture(scope="module")
def whole() -> Passes:
    return passes(CUT)


def test_passes_differ_and_leave_some_parameters_without_gradient(whole: Passes) -> None:
    assert whole["path"].keys() < whole["generator"].keys()
    assert whole["r1"].keys() <= whole["discriminator"].keys()


def test_one_pass_gives_both_gradients(whole: Passes) -> None:
    """They are those of each loss alone, the other network held still."""
    trainer = Trainer(CUT, pictures(count=20))
    for network in (trainer.g, trainer.d):
        network.double()
    with torch.no_grad():
        for layer in trainer.g.synthesis.layers:
            layer.noise_strength.fill_(0.3)
    trainer.load()
    ((images, labels),) = trainer.real()
    samples, parts = trainer.rounds[0], dict[str, dict[str, torch.Tensor]]()
    for name, network in (("generator", trainer.g), ("discriminator", trainer.d)):
        network.requires_grad_(True)
        draws = trainer._streams("generator", samples)
        fake, _, fake_labels = trainer.generate(draws)
        logits = trainer.judge(fake, fake_labels, draws)
        if name == "generator":
            loss = F.softplus(-logits).mean()
        else:
            real = trainer.judge(images, labels, trainer._streams("discriminator", samples))
            loss = (F.softplus(logits) + F.softplus(-real)).mean()
        loss.backward()
        parts[name] = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
        network.requires_grad_(False)
    assert_agree(parts, {name: whole[name] for name in parts})


@pytest.mark.parametrize("at_once", [4, 8])
def test_accumulation(whole: Passes, at_once: int) -> None:
    assert_agree(whole, passes(CUT.changed(micro_batch=at_once)))


@pytest.mark.parametrize("at_once", [0, 4])
def test_two_processes(whole: Passes, at_once: int, tmp_path: Path) -> None:
    def work() -> None:
        world = join_world("cpu")
        result = passes(CUT.changed(micro_batch=at_once or None), world)
        if world.leads:
            torch.save(result, tmp_path / "out.pt")
        world.leave()

    assert by_two(work) == [0, 0]
    assert_agree(whole, torch.load(tmp_path / "out.pt", weights_only=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_processes_share_a_gpu(tmp_path: Path) -> None:
    assert_agree(passes(CUT, device="cuda"), started_anew(tmp_path / "out.pt", "cuda"))


def test_processes_that_share_a_gpu_are_connected_by_gloo() -> None:
    assert [backend(2, gpus) for gpus in (0, 1, 2, 8)] == ["gloo", "gloo", "nccl", "nccl"]


def started_anew(out: Path, device: str) -> Passes:
    """What two new processes find: a device cannot be used after a fork."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", WORKER, str(root), str(out), device]
    processes = [subprocess.Popen(command, env={**shared, "RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    found: Passes = torch.load(out, weights_only=True)
    return found


def test_batches_that_cannot_be_cut() -> None:
    with pytest.raises(Error, match="a batch of 16 cannot be divided among 3 processes"):
        Trainer(CUT, pictures(), world=World(0, 3))
    with pytest.raises(Error, match="not a multiple of a micro-batch of 5 on 1 processes"):
        Trainer(CUT.changed(micro_batch=5), pictures())
    with pytest.raises(
        Error, match="a micro-batch of 2 is not a multiple of the minibatch-deviation group of 4"
    ):
        Trainer(CUT.changed(micro_batch=2), pictures())


def test_half_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        Error,
        match="WORLD_SIZE is set, but not RANK, MASTER_ADDR, MASTER_PORT; start with torchrun",
    ):
        join_world()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join_world() == World()
