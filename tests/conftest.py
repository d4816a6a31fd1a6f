"""Small networks and files that many tests share."""

import copyreg
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch

from latentedit.directions import Direction, shipped
from latentedit.directions.sigma import measure_sigma
from latentedit.formats.load_model import load_model
from latentedit.io import images
from latentedit.model.bundled import LATEST
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.framing import FRAMINGS
from tests.helpers import SHARED_DATA, tiny_discriminator, tiny_generator

os.environ.setdefault("TQDM_DISABLE", "1")
_cache = tempfile.TemporaryDirectory(prefix="latentedit-tests-")
os.environ["LATENTEDIT_CACHE"] = _cache.name
os.environ["LATENTEDIT_DATA"] = f"{_cache.name}/data"
os.environ["LATENTEDIT_CONFIG"] = f"{_cache.name}/config.toml"
torch.set_num_threads(1)  # the networks here are too small to gain from more


@pytest.fixture(autouse=True)
def nothing_remembered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No network of another test is found again."""
    before = os.environ["LATENTEDIT_DATA"]
    os.environ["LATENTEDIT_DATA"] = str(tmp_path_factory.getbasetemp() / f"data-{uuid4().hex}")
    yield
    os.environ["LATENTEDIT_DATA"] = before


@pytest.fixture(scope="session")
def faces128() -> Model:
    return load_model("faces128")


@pytest.fixture
def stand_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a narrow network with random weights, called `faces128` in this process while the
    test runs.

    Its pictures are as large and have as many rows of w, and sliders of the same names ship for it:
    commands can be typed as documented, in a hundredth of the time.
    """
    sliders = shipped(fingerprint(load_model("faces128").generator))
    folder = tmp_path_factory.mktemp("bundled")
    path = folder / f"{LATEST['faces128']}.safetensors"
    shape = {"resolution": 128, "channels": 3, "channel_base": 512}
    generator = tiny_generator(z_dim=16, w_dim=16, **shape)
    save_model(
        path, Model(generator, tiny_discriminator(**shape), FRAMINGS["ffhq"], {"licence": "none"})
    )

    own = fingerprint(generator)
    draws = torch.Generator().manual_seed(0)
    for name in sliders:
        vector = torch.nn.functional.normalize(torch.randn(generator.w_dim, generator=draws), dim=0)
        direction = Direction(name, vector, 0.0, measure_sigma(vector, generator), own)
        direction.save(folder / "shipped" / "faces128-v2" / f"{name}.safetensors")
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


@pytest.fixture
def without_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra ``latentedit[heic]`` counts as not installed."""
    formats = tuple(name for name in images._formats() if name != "HEIF")
    for name, module in list(sys.modules.items()):
        for attribute in ("EXTENSIONS", "ENDINGS"):
            found = getattr(module, attribute, None) if name.startswith("latentedit.") else None
            if found:
                endings = tuple(ending for ending in found if ending not in images.HEIC)
                monkeypatch.setattr(module, attribute, endings)
    monkeypatch.setattr("latentedit.io.images._formats", lambda: formats)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A class that pickles as dnnlib's does."""
    for name in ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    class Network:
        def __init__(self, state: Any) -> None:
            self.state = state

        def __reduce__(self) -> Any:
            return copyreg.__newobj__, (Network,), self.state  # type: ignore[attr-defined]

    Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"
    sys.modules["dnnlib.tflib.network"].Network = Network  # type: ignore[attr-defined]
    return Network
