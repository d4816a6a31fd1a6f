"""Small networks and files that many tests share."""

import os
import tempfile
from pathlib import Path

import pytest
import torch

from latentedit.discriminator import Discriminator, DiscriminatorConfig
from latentedit.generator import Generator, GeneratorConfig
from latentedit.models import Model, load_model, save_model

os.environ.setdefault("TQDM_DISABLE", "1")
_cache = tempfile.TemporaryDirectory(prefix="latentedit-tests-")
os.environ["LATENTEDIT_CACHE"] = _cache.name
torch.set_num_threads(1)  # the networks here are too small to gain from more

SHARED = Path(__file__).parent.parent.parent / "shared"
SHARED_DATA = SHARED / "data"
TINY = {"resolution": 16, "channels": 1, "channel_base": 128, "channel_max": 16}


def tiny_generator(seed: int = 0, **changes: object) -> Generator:
    torch.manual_seed(seed)
    options = {**TINY, "z_dim": 12, "w_dim": 12, "mapping_layers": 2, **changes}
    generator = Generator(GeneratorConfig(**options))  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in generator.synthesis.layers:
            layer.noise_strength.fill_(0.1)
        generator.mapping.w_avg.normal_()
    return generator.eval().requires_grad_(False)


def tiny_discriminator(seed: int = 0, **changes: object) -> Discriminator:
    torch.manual_seed(seed)
    return Discriminator(DiscriminatorConfig(**{**TINY, **changes})).eval().requires_grad_(False)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def faces64() -> Model:
    return load_model("faces64")


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    """A model file of a 16 x 16 grey network with random weights, framed for faces."""
    path = tmp_path / "tiny.safetensors"
    framing = {"kind": "face", "eyes": [[0.36, 0.47], [0.63, 0.47]]}
    save_model(path, Model(tiny_generator(), tiny_discriminator(), framing, {"licence": "none"}))
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the photographs are not here ({SHARED_DATA})")
    return SHARED_DATA
