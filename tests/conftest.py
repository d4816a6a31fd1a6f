"""Small networks and files that many tests share."""

import os
import tempfile
from pathlib import Path

import matplotlib
import pytest
import torch

from latentedit.directions import Direction, shipped
from latentedit.directions.sigma import measure_sigma
from latentedit.formats.load_model import load_model
from latentedit.model.bundled import LATEST
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.discriminator import Discriminator, DiscriminatorConfig
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator, GeneratorConfig
from latentedit.photo.framing import FRAMINGS

os.environ.setdefault("TQDM_DISABLE", "1")
_cache = tempfile.TemporaryDirectory(prefix="latentedit-tests-")
os.environ["LATENTEDIT_CACHE"] = _cache.name
torch.set_num_threads(1)  # the networks here are too small to gain from more

SHARED = Path(__file__).parent.parent.parent / "shared"
SHARED_DATA = SHARED / "data"
TINY = {"resolution": 16, "channels": 1, "channel_base": 128, "channel_max": 16}


def hopper() -> Path:
    """The portrait of Grace Hopper that comes with matplotlib (US Navy, public domain); tests know its coordinates."""
    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


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
def faces128() -> Model:
    return load_model("faces128")


@pytest.fixture
def stand_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a narrow network with random weights, called `faces128` in this process while the test runs.

    Its pictures are as large and have as many rows of w, and sliders of the same names ship for it: commands
    can be typed as documented, in a hundredth of the time.
    """
    sliders = shipped(fingerprint(load_model("faces128").generator))
    folder = tmp_path_factory.mktemp("bundled")
    path = folder / f"{LATEST['faces128']}.safetensors"
    shape = {"resolution": 128, "channels": 3, "channel_base": 512}
    generator = tiny_generator(z_dim=16, w_dim=16, **shape)
    save_model(path, Model(generator, tiny_discriminator(**shape), FRAMINGS["ffhq"], {"licence": "none"}))

    own = fingerprint(generator)
    draws = torch.Generator().manual_seed(0)
    for name in sliders:
        vector = torch.nn.functional.normalize(torch.randn(generator.w_dim, generator=draws), dim=0)
        direction = Direction(name, vector, 0.0, measure_sigma(vector, generator), own)
        direction.save(folder / "shipped" / "faces128-v1" / f"{name}.safetensors")
    monkeypatch.setattr("latentedit.model.bundled.BUNDLED", folder)
    monkeypatch.setattr("latentedit.directions.registry.SHIPPED", folder / "shipped")
    return path


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
