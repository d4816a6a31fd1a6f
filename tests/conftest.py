"""Small networks and files that many tests share."""

import copyreg
import io
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
from PIL import Image

from latentedit.directions import Direction, shipped
from latentedit.directions.sigma import measure_sigma
from latentedit.formats.load_model import load_model
from latentedit.inversion.preconditioner import Curvature
from latentedit.io import images
from latentedit.io.files import write_bytes
from latentedit.model.bundled import LATEST
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.framing import FRAMINGS
from tests.helpers import SHARED_DATA, measured_once, tiny_discriminator, tiny_generator

os.environ.setdefault("TQDM_DISABLE", "1")
_cache = tempfile.TemporaryDirectory(prefix="latentedit-tests-")
os.environ["LATENTEDIT_CACHE"] = _cache.name
# The workers inherit it from the process that starts them, so that they share what is in it.
os.environ.setdefault("LATENTEDIT_TESTS_MEASURED", f"{_cache.name}/measured")
measured_once(Path(_cache.name))
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


@pytest.fixture(scope="session", autouse=True)
def curves_in_brief() -> Iterator[None]:
    """The curves of trainings in this process are a dot: to draw them takes longer than most of the
    trainings here.

    `tests/test_runs.py` draws some, and so do trainings in processes of their own.
    """
    dot = io.BytesIO()
    Image.new("L", (1, 1)).save(dot, "png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "latentedit.training.loop.save_curves",
            lambda log, path: write_bytes(path, dot.getvalue()),
        )
        yield


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone, with what is known of networks: the folder ``cache``."""
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path / "cache"))
    return measured_once(tmp_path / "cache")


@pytest.fixture
def rough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Domains and curvatures are measured with a few pictures, of networks that no other test has;
    they are kept in a cache of this test alone."""
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("latentedit.inversion.domain.SAMPLES", 8)
    monkeypatch.setattr(Curvature.of.__func__, "__defaults__", (8,))  # type: ignore[attr-defined]


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
        direction.save(folder / "shipped" / "faces128-v3" / f"{name}.safetensors")
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
