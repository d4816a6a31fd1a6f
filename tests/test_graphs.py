"""What CUDA graphs ask of a training step, proved without a GPU; and that they are run as they
should be."""

import copy
from collections.abc import Callable, Hashable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from latentedit.inversion.latent_discriminator import Critic
from latentedit.inversion.options import InversionOptions
from latentedit.inversion.perceptual import DiscriminatorDistance
from latentedit.inversion.pivotal_tuning import TuningOptions, tune
from latentedit.inversion.preconditioner import Curvature
from latentedit.inversion.reconstruction_loss import ReconstructionLoss
from latentedit.inversion.search import Search
from latentedit.latent.w_statistics import WStatistics
from latentedit.runtime.cuda_graphs import Graphs, Replayed
from latentedit.training import PictureSet, Trainer, TrainingConfig
from tests.helpers import CONFIG, pictures, tiny_discriminator, tiny_generator

FORBIDDEN = {
    "aten::_local_scalar_dense": "asks the device for a number",
    "aten::is_nonzero": "asks the device for a number",
    "aten::equal": "asks the device for a number",
    "aten::nonzero": "has a result whose shape the device decides",
    "aten::masked_select": "has a result whose shape the device decides",
    "aten::_unique2": "has a result whose shape the device decides",
    "aten::lift_fresh": "makes a tensor of numbers from the host",
    "aten::_linalg_check_errors": "asks the device for a number",
}
EVERYTHING = CONFIG.changed(augment="bgcfnc", augment_p=0.5, freeze_d=1)


class OnTheDevice(TorchDispatchMode):
    """Fails on what a CUDA graph cannot hold."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        if name in FORBIDDEN:
            raise AssertionError(f"{name} {FORBIDDEN[name]}")
        if name == "aten::where":  # other operations take a number from the host as it is
            assert len({tensor.device for tensor in args}) == 1, "a number is brought to the device"
        if name in ("aten::index", "aten::index_put", "aten::index_put_"):
            masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
            assert not masks, f"{name} by a mask has a shape that the device decides"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "offence",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x + torch.tensor([1.0]),
        lambda x: x[x > 0],
        lambda x: torch.where(x > 0),
        lambda x: torch.linalg.inv(torch.outer(x, x) + torch.eye(3)),
    ],
)
def test_the_watch_sees_offences(offence: Callable[[torch.Tensor], Any]) -> None:
    with OnTheDevice(), pytest.raises(AssertionError, match="aten::"):
        offence(torch.arange(3.0))


def labelled() -> PictureSet:
    plain = pictures()
    labels = torch.nn.functional.one_hot(torch.arange(len(plain)) % 2, 2).float()
    data = PictureSet(plain.pixels, labels, plain.names, ["left", "right"])
    data.swap_when_mirrored({"left": "right"})
    return data


def watched(trainer: Trainer) -> Trainer:
    """``trainer``, whose passes run under the watch."""
    assert trainer.augment is not None
    trainer.augment.fixed = True
    run = trainer.graphs.run

    def guarded(name: Hashable, work: Callable[[], None]) -> None:
        def under_watch() -> None:
            with OnTheDevice():
                work()

        run(name, under_watch)

    trainer.graphs.run = guarded  # type: ignore[method-assign]
    return trainer


def weights(trainer: Trainer) -> dict[str, list[torch.Tensor]]:
    """Copies of the parameters of all networks."""
    names = ("g", "d", "g_ema")
    return {
        name: [p.detach().clone() for p in getattr(trainer, name).parameters()] for name in names
    }


def moved(trainer: Trainer, before: dict[str, list[torch.Tensor]]) -> set[str]:
    """The networks with other parameters than ``before``."""
    return {
        name
        for name, after in weights(trainer).items()
        if not all(map(torch.equal, after, before[name]))
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"micro_batch": 4},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"style_mixing": 0.0, "augment": "upright"},
    ],
    ids=str,
)
def test_a_step_stays_on_the_device(changes: dict[str, Any]) -> None:
    """The first of all steps has every pass; averages and augmentation follow the passes without a
    stop, too."""
    trainer = watched(Trainer(EVERYTHING.changed(batch=8, **changes), labelled()))
    before = weights(trainer)
    trainer.step()
    with OnTheDevice():
        trainer._average()
        trainer._adapt()
    trainer.check_finite()
    assert trainer.images_seen == 8
    assert moved(trainer, before) == {"g", "d", "g_ema"}


@pytest.mark.parametrize("architecture", ["orig", "skip"])
def test_a_step_of_other_networks_stays_on_the_device(architecture: str) -> None:
    generator = {
        **EVERYTHING.generator,
        "architecture": "skip" if architecture == "orig" else "resnet",
    }
    discriminator = {**EVERYTHING.discriminator, "architecture": architecture}
    trainer = watched(
        Trainer(EVERYTHING.changed(generator=generator, discriminator=discriminator), pictures())
    )
    before = weights(trainer)
    trainer.step()
    assert moved(trainer, before) == {"g", "d", "g_ema"}


class NoOptimizer:
    def zero_grad(self, set_to_none: bool) -> None:
        pass

    def step(self) -> None:
        pass


def test_no_pass_reads_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device there are none: a copy to the host fails there, and so does a tensor that
    was left on it."""
    trainer = Trainer(EVERYTHING, labelled())
    trainer.device = torch.device("meta")
    for name in ("g", "d", "g_ema", "augment"):
        getattr(trainer, name).to("meta")
    for name in ("clock", "path_mean", "signs"):
        setattr(trainer, name, getattr(trainer, name).to("meta"))
    for part in (trainer.feed._rows, [trainer.feed.labels, trainer.feed.pixels]):
        assert all(tensor is not None for tensor in part)
    trainer.feed._rows = [rows.to("meta") for rows in trainer.feed._rows]
    trainer.feed.labels = trainer.feed.labels.to("meta")
    assert trainer.feed.pixels is not None
    trainer.feed.pixels = trainer.feed.pixels.to("meta")
    trainer.g_parameters, trainer.d_parameters = (
        list(trainer.g.parameters()),
        list(trainer.d.parameters()),
    )
    trainer.g_optimizer = trainer.d_optimizer = NoOptimizer()  # type: ignore[assignment]
    assert trainer.augment is not None
    trainer.augment.fixed = True
    with OnTheDevice():
        trainer._main_pass(trainer.real())
        trainer._path_pass()
        trainer._r1_pass(trainer.real())
        trainer._share_sums(["main", "path", "r1"])
        trainer._average()
        trainer._adapt()
    assert trainer.augment.p.is_meta
    assert all(value.is_meta for value in trainer.figures.values())
    with pytest.raises(Exception, match="meta"):
        trainer.check_finite()


def test_fixed_shapes_change_rounding_only() -> None:
    found = []
    for fixed in (False, True):
        trainer = Trainer(CONFIG.changed(augment_p=0.5), pictures())
        assert trainer.augment is not None
        assert not trainer.augment.fixed
        trainer.augment.fixed = fixed
        trainer.step()
        found.append({name: float(value) for name, value in trainer.figures.items()})
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_graphs_are_for_cuda_alone_and_can_be_switched_off() -> None:
    assert not Graphs(torch.device("cpu")).active
    assert Graphs(torch.device("cuda")).active
    assert not Graphs(torch.device("cuda"), enabled=False).active
    assert not Trainer(CONFIG, pictures()).graphs.active


class Recorded(Graphs):
    """Graphs as they would be on a GPU, with captures that a list of calls replays."""

    def __init__(self) -> None:
        super().__init__(torch.device("cuda"))
        self.told: list[str] = []

    def _aside(self, work: Callable[[], None]) -> None:
        self.told.append("plain")
        work()

    def _capture(self, work: Callable[[], None]) -> Any:
        self.told.append("capture")
        outer = self

        class Graph:
            def replay(self) -> None:
                outer.told.append("replay")
                work()

        return Graph()


def test_the_first_run_is_plain_the_second_captured_all_others_replayed() -> None:
    graphs, done = Recorded(), list[str]()
    for _ in range(3):
        graphs.run("a", lambda: done.append("a"))
    graphs.run("b", lambda: done.append("b"))
    assert graphs.told == ["plain", "capture", "replay", "replay", "plain"]
    assert done == ["a", "a", "a", "b"]
    graphs.forget()
    graphs.run("a", lambda: done.append("a"))
    assert graphs.told[-1] == "plain"


def test_a_function_is_given_its_inputs_in_one_place() -> None:
    places = set[int]()

    def double(x: torch.Tensor) -> tuple[torch.Tensor]:
        places.add(x.data_ptr())
        return (2 * x,)

    doubled = Replayed(double, Recorded())
    for number in range(4):
        (y,) = doubled(torch.full((2,), float(number)))
        assert y.tolist() == [2.0 * number] * 2
    assert len(places) == 1
    plain = Replayed(double, Graphs(torch.device("cpu")))
    assert plain(torch.ones(2))[0].tolist() == [2.0, 2.0]


def test_a_state_from_a_gpu_is_taken_up_on_the_cpu() -> None:
    """Adam's form in it is that of the device it was written on."""
    trainer, other = Trainer(CONFIG, pictures()), Trainer(CONFIG, pictures())
    trainer.step()
    state = copy.deepcopy(trainer.state())
    for part in ("g_optimizer", "d_optimizer"):
        for group in state[part]["param_groups"]:
            group["capturable"] = True
    other.restore(state)
    for group in (*other.g_optimizer.param_groups, *other.d_optimizer.param_groups):
        assert group["capturable"] is False
    trainer.step()
    other.step()
    for own, theirs in zip(trainer.g.parameters(), other.g.parameters(), strict=True):
        assert torch.equal(own, theirs)


def steps(config: TrainingConfig, count: int, graphs: bool) -> Trainer:
    trainer = Trainer(config, pictures(), "cuda", graphs=graphs)
    for _ in range(count):
        trainer.step()
    return trainer


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_graphs_compute_what_launches_do(precision: str) -> None:
    config = CONFIG.changed(precision=precision, augment_p=0.3)
    plain, graphed = (steps(config, 20, graphs) for graphs in (False, True))
    assert graphed.graphs.active
    assert not plain.graphs.active
    assert graphed.figures.keys() == plain.figures.keys()
    for name, value in plain.figures.items():
        torch.testing.assert_close(graphed.figures[name], value, rtol=0.05, atol=0.01)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_takes_the_steps_of_the_cpu() -> None:
    there, here = (
        steps(CONFIG.changed(augment_p=0.3), 2, True),
        Trainer(CONFIG.changed(augment_p=0.3), pictures()),
    )
    for _ in range(2):
        here.step()
    for name, value in here.figures.items():
        torch.testing.assert_close(there.figures[name].cpu(), value, rtol=0.02, atol=0.02)


class StoppedError(Exception):
    pass


class Once:
    """Instead of `Replayed`: evaluates under the watch, and ends the search."""

    results: tuple[torch.Tensor, ...] = ()

    def __init__(self, function: Callable[..., tuple[torch.Tensor, ...]], graphs: Graphs) -> None:
        self.function = function

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with OnTheDevice():
            Once.results = self.function(*inputs)
        raise StoppedError


@pytest.mark.parametrize("method", ["quasi_newton", "adam", "details"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_search_step_stays_on_the_device(
    device: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of search is tried; a tensor on the host fails on the meta device."""
    monkeypatch.setattr("latentedit.inversion.search.Replayed", Once)
    generator, discriminator = tiny_generator(), tiny_discriminator()
    statistics = WStatistics.of(generator)
    critic = Critic(generator, statistics)
    critic.network.to(device)
    curvature = Curvature(torch.randn(4, generator.num_ws, generator.w_dim))
    focus = torch.ones(1, 1, 16, 16)
    search = Search(
        generator.to(device),
        torch.zeros(2, 1, 16, 16, device=device),
        ReconstructionLoss(DiscriminatorDistance(discriminator.to(device), focus), 1.0, focus),
        statistics,
        InversionOptions(space="s", delta_weight=1.0, adversarial_weight=1.0),
        mask=torch.ones(1, 1, 16, 16),
        critic=critic,
    )
    search.take_start()
    with pytest.raises(StoppedError):
        if method == "quasi_newton":
            search.quasi_newton(2, curvature, 0, 0.0, lambda *_: None)
        elif method == "adam":
            search.adam(2, 0, 0.0, lambda *_: None)
        else:
            search.details(2, True, lambda *_: None)
    assert all(result.device.type == device for result in Once.results)
    assert len(Once.results) >= 3


def test_a_tuning_step_stays_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentedit.inversion.pivotal_tuning.Replayed", Once)
    generator, perceptual = tiny_generator(), DiscriminatorDistance(tiny_discriminator())
    ws = torch.zeros(1, generator.num_ws, generator.w_dim)
    with pytest.raises(StoppedError):
        tune(
            generator,
            torch.zeros(1, 1, 16, 16),
            ws,
            None,
            ReconstructionLoss(perceptual),
            TuningOptions(2),
        )
    terms, *gradients = Once.results
    assert terms.shape == (3,)
    assert len(gradients) == len(list(generator.synthesis.parameters()))
