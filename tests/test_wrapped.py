"""Files of weights as training code leaves them: keys of wrappers, whole modules."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from latentedit.errors import Error
from latentedit.formats.checkpoints import load_checkpoint, save_plain
from latentedit.formats.load_model import load_model
from latentedit.model.model import Model
from latentedit.networks.fingerprint import fingerprint
from tests.foreign_files import published_synthesis
from tests.helpers import tiny_discriminator, tiny_generator
from tests.reference_nets import REFERENCE

ROSINALITY = REFERENCE / "rosinality_32.pt"


def wrapped(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_prefixes_of_wrappers(tmp_path: Path, prefix: str) -> None:
    document = torch.load(ROSINALITY, weights_only=True)
    parts = {
        name: wrapped(part, prefix) if isinstance(part, dict) else part
        for name, part in document.items()
    }
    torch.save(parts, tmp_path / "x.pt")
    model = load_model(tmp_path / "x.pt")
    assert fingerprint(model.generator) == fingerprint(load_model(ROSINALITY).generator)
    assert model.discriminator is not None
    assert model.raw_generator is not None


def test_prefixes_in_the_other_layouts(tmp_path: Path) -> None:
    generator = tiny_generator(conv_clamp=256.0)
    save_plain(tmp_path / "plain.pt", Model(generator, tiny_discriminator()))
    document = torch.load(tmp_path / "plain.pt", weights_only=True)
    torch.save(wrapped(document["G_ema"], "module."), tmp_path / "bare.pt")
    assert load_model(tmp_path / "bare.pt").generator.config.resolution == 16

    metadata = document["G_ema"]._metadata
    renamed = type(document["G_ema"])(wrapped(document["G_ema"], "module."))
    renamed._metadata = metadata
    torch.save({**document, "G_ema": renamed}, tmp_path / "whole.pt")
    whole = load_model(tmp_path / "whole.pt")
    assert fingerprint(whole.generator) == fingerprint(generator)
    assert whole.generator.config.conv_clamp == 256.0  # which only the metadata tell

    state, _ = published_synthesis()
    torch.save({"generator_smooth": wrapped(state, "module.")}, tmp_path / "genforce.pth")
    assert load_model(tmp_path / "genforce.pth").provenance["layout"] == "genforce StyleGAN"


class PtiGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


def _reconstruct_persistent_obj(meta: Any) -> Any:
    return meta


class Persistent:
    """As NVIDIA's code pickles a module: a call with its source code, whose bytes ask for
    ``_codecs.encode``."""

    def __reduce__(self) -> Any:
        return _reconstruct_persistent_obj, (
            {"module_src": "class Generator: pass", "state": {"x": b"\xff\xfe"}},
        )


@pytest.mark.parametrize(
    "document",
    [PtiGenerator(), nn.Linear(2, 2), {"G_ema": PtiGenerator(), "kimg": 3}, Persistent()],
)
def test_a_whole_module_is_called_one(tmp_path: Path, document: Any) -> None:
    torch.save(document, tmp_path / "model_X.pt")
    said = r'model_X.pt: .*a whole pickled module .*state_dict\(\).*"latentedit invert --tune"'
    with pytest.raises(Error, match=said) as caught:
        load_checkpoint(tmp_path / "model_X.pt")
    assert "\n" not in str(caught.value)
