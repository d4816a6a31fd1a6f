"""Convolutions that are differentiated any number of times, against PyTorch's own."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.networks import convolution as convolutions
from latentedit.networks.convolution import Form, convolution, differentiated_twice
from latentedit.networks.discriminator import DiscriminatorConfig, build_discriminator
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.training.losses import r1_penalty
from latentedit.training.path_length import path_lengths

FORMS = [Form(padding=1), Form(), Form(2), Form(2, 1), Form(2, transposed=True)]


def plain(x: Tensor, weight: Tensor, form: Form) -> Tensor:
    if form.transposed:
        return F.conv_transpose2d(x, weight, stride=form.stride, padding=form.padding)
    return F.conv2d(x, weight, stride=form.stride, padding=form.padding)


def given(form: Form) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    shape = (2, 3, 3, 3) if not form.transposed else (3, 2, 3, 3)
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    return torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True), weight


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_both_orders_are_those_of_finite_differences(form: Form) -> None:
    x, weight = given(form)
    torch.testing.assert_close(convolution(x, weight, form), plain(x, weight, form))
    assert torch.autograd.gradcheck(lambda a, b: convolution(a, b, form), (x, weight))
    assert torch.autograd.gradgradcheck(lambda a, b: convolution(a, b, form).square(), (x, weight))


@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
@pytest.mark.parametrize("clamp", [None, 0.5])
def test_a_penalty_is_the_same_where_it_is_announced(
    architecture: str, clamp: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("layers", "modulation"):
        monkeypatch.setattr(
            f"latentedit.networks.{module}.prefers_own_gradients", lambda device: True
        )
    torch.manual_seed(0)
    config = DiscriminatorConfig(
        16, 3, channel_base=128, channel_max=8, architecture=architecture, conv_clamp=clamp
    )
    d = build_discriminator(config).double()
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    parameters = list(d.parameters())
    expected = torch.autograd.grad(
        r1_penalty(images, d(images)).sum(), parameters, allow_unused=True
    )
    with differentiated_twice():
        logits = d(images)
    found = torch.autograd.grad(r1_penalty(images, logits).sum(), parameters, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def small_generator(architecture: str) -> Generator:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"channel_base": 128, "channel_max": 8, "architecture": architecture}
    return Generator(GeneratorConfig(16, **shape, z_dim=8, w_dim=8, mapping_layers=2)).double()


@pytest.mark.parametrize("architecture", ["resnet", "skip"])
def test_path_lengths_are_the_same_by_either_form(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = small_generator(architecture)
    ws = torch.randn(2, g.num_ws, 8, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    found = []
    for own in (False, True):
        monkeypatch.setattr(
            "latentedit.networks.modulation.prefers_own_gradients", lambda device, own=own: own
        )
        with differentiated_twice():
            lengths = path_lengths(g.synthesis(ws), ws, noise)
        found.append(
            [
                lengths.detach(),
                *torch.autograd.grad(
                    lengths.sum(), list(g.synthesis.parameters()), allow_unused=True
                ),
            ]
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_weights_get_no_gradient_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentedit.networks.modulation.prefers_own_gradients", lambda device: True)
    called: list[torch.Size] = []

    plain_one = convolutions._WeightGradient

    class Counted(plain_one):  # type: ignore[valid-type, misc]
        @staticmethod
        def forward(*given: Any) -> Tensor:
            called.append(given[3])
            return plain_one.forward(*given)

    monkeypatch.setattr(convolutions, "_WeightGradient", Counted)
    g = small_generator("skip")
    ws = torch.randn(2, g.num_ws, 8, dtype=torch.float64, requires_grad=True)
    with differentiated_twice():
        image = g.synthesis(ws)
    lengths = path_lengths(image, ws, torch.randn_like(image))
    assert not called
    lengths.sum().backward()
    # one for the convolution, and one for the gradient that passed through it
    assert len(called) == 2 * len(g.synthesis.layers)
