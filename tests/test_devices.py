"""Where float32 may be rounded: in training and searches on CUDA, and never in rendering."""

import pytest
import torch

from latentedit.networks.generator import Generator
from latentedit.runtime.devices import exact_rendering, tf32
from tests.helpers import tiny_generator

CUDA = torch.device("cuda")


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_switches_are_put_back() -> None:
    before = allowed()
    for value in (True, False):
        with pytest.raises(KeyError), tf32(value, CUDA):
            assert allowed() == (value, value)
            raise KeyError
        assert allowed() == before
    with tf32(not before[0], torch.device("cpu")):
        assert allowed() == before


def test_rendering_is_exact_whatever_is_allowed_around_it() -> None:
    with tf32(True, CUDA):
        with torch.no_grad(), exact_rendering(CUDA):
            assert allowed() == (False, False)
        with exact_rendering(CUDA):  # gradients are wanted
            assert allowed() == (True, True)


@pytest.mark.parametrize("architecture", ["skip", "stylegan1"])
def test_both_generators_render_exactly(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watched(device: torch.device) -> object:
        asked.append(device.type)
        return exact_rendering(device)

    monkeypatch.setattr("latentedit.networks.synthesis.exact_rendering", watched)
    monkeypatch.setattr("latentedit.networks.stylegan1.exact_rendering", watched)
    generator: Generator = tiny_generator(architecture=architecture)
    generator(torch.zeros(1, generator.z_dim))
    assert asked == ["cpu"]


def test_newer_switches_are_left_alone() -> None:
    """PyTorch refuses to read the older ones once they have been set."""
    own = torch.backends.cuda.matmul
    before = own.fp32_precision
    try:
        own.fp32_precision = "tf32"
        with tf32(False, CUDA):
            assert own.fp32_precision == "tf32"
    finally:
        own.fp32_precision = before
