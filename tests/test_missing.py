"""What files of networks leave out is measured, drawn from a fixed seed or refused, and always
told."""

from pathlib import Path

import pytest
import torch

from latentedit.errors import Error
from latentedit.formats.checkpoints import save_plain
from latentedit.formats.genforce import load_genforce
from latentedit.formats.load_model import load_model
from latentedit.latent.w_statistics import sample_w
from latentedit.model.model import Model
from latentedit.model.native import save_model
from tests.foreign_files import published_synthesis
from tests.helpers import tiny_generator, works


def test_plain_weights_without_a_mean_or_an_architecture(tmp_path: Path) -> None:
    generator = tiny_generator()
    state = {
        name: tensor for name, tensor in generator.state_dict().items() if name != "mapping.w_avg"
    }
    torch.save({"G_ema": state}, tmp_path / "plain.pt")
    model = load_model(tmp_path / "plain.pt")
    assert torch.allclose(model.generator.mapping.w_avg, sample_w(generator).mean(dim=0), atol=1e-4)
    assert any("no running mean of w" in note for note in model.notes)
    assert any("does not contain clamping" in note for note in model.notes)

    save_plain(tmp_path / "whole.pt", Model(generator))
    assert load_model(tmp_path / "whole.pt").notes == []


def test_the_filter_among_plain_weights_counts(tmp_path: Path) -> None:
    taps = torch.tensor([1.0, 2.0, 1.0])
    state = {
        **tiny_generator().state_dict(),
        "synthesis.b8.resample_filter": torch.outer(taps, taps) / 16,
    }
    torch.save(state, tmp_path / "plain.pt")
    assert load_model(tmp_path / "plain.pt").generator.config.resample_filter == (1.0, 2.0, 1.0)
    torch.save(
        {**state, "synthesis.b16.resample_filter": torch.ones(4, 4) / 16}, tmp_path / "plain.pt"
    )
    with pytest.raises(
        Error, match=r"plain.pt: its resampling filters are not separable, or differ"
    ):
        load_model(tmp_path / "plain.pt")


def test_genforce_without_a_mean() -> None:
    state, _ = published_synthesis()
    known = load_genforce("x", state)
    assert known.notes == []
    del state["truncation.w_avg"], state["synthesis.lod"]
    model = load_genforce("x", state)
    expected = sample_w(model.generator).mean(dim=0)
    assert float((model.generator.mapping.w_avg - expected).abs().max()) < 1e-3 * float(
        expected.abs().max()
    )
    assert [note.split(";")[0] for note in model.notes] == [
        "the file has no running mean of w",
        "the file does not say how far the network has grown",
    ]


def test_a_mean_of_zero_is_told(tmp_path: Path) -> None:
    generator = tiny_generator()
    save_model(tmp_path / "known.safetensors", Model(generator))
    assert load_model(tmp_path / "known.safetensors").notes == []
    generator.mapping.w_avg.zero_()
    save_model(tmp_path / "zero.safetensors", Model(generator))
    told = works(
        "sample", tmp_path / "zero.safetensors", "--seeds", "0", "--out", tmp_path / "x.png"
    ).stderr
    assert (
        "zero.safetensors: the running mean of w in the file is zero, so it was probably never "
        "measured" in told
    )
