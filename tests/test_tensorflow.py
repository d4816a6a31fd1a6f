"""NVIDIA's TensorFlow pickles against their own numbers, and what is refused of them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentedit.errors import Error
from latentedit.formats.load_model import load_model
from latentedit.formats.pickle_allow_list import Array, NumberType, TensorflowNetwork, read_pickle
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from tests.reference_nets import REFERENCE, arrays, relative_error

FILE = REFERENCE / "nvidia_32_tf.pkl"
DATA = arrays("nvidia_32_tf.npz")


def test_matches_its_own_numbers() -> None:
    model = load_model(FILE)
    ws = model.generator.mapping(torch.from_numpy(DATA["z"]), None, 0.7)
    assert relative_error(ws, DATA["ws_psi07"]) <= 1e-4
    assert relative_error(model.generator.synthesis(ws), DATA["image"]) <= 1e-4
    assert model.discriminator is not None
    assert relative_error(model.discriminator(torch.from_numpy(DATA["image"])), DATA["logits"]) <= 1e-4
    assert model.raw_generator is not None


def test_conversion_keeps_the_fingerprint(tmp_path: Path) -> None:
    model = load_model(FILE)
    save_model(tmp_path / "native.safetensors", model)
    assert fingerprint(load_model(tmp_path / "native.safetensors").generator) == fingerprint(model.generator)


def rewritten(path: Path, network: Any, change: Any, protocol: int = 4) -> Path:
    """The reference file with ``change(its three states)``, pickled anew."""

    def plain(value: Any) -> Any:
        if isinstance(value, TensorflowNetwork):
            return network({key: plain(item) for key, item in value.items()})
        if isinstance(value, Array):
            return np.array(value.value)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(plain(item) for item in value)
        return value

    networks = read_pickle(FILE)
    change(*networks)
    path.write_bytes(pickle.dumps(plain(networks), protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_protocol(tmp_path: Path, network: Any, protocol: int) -> None:
    path = rewritten(tmp_path / "x.pkl", network, lambda *_: None, protocol)
    assert fingerprint(load_model(path).generator) == fingerprint(load_model(FILE).generator)


def test_what_is_refused(tmp_path: Path, network: Any) -> None:
    def message(change: Any) -> str:
        with pytest.raises(Error) as caught:
            load_model(rewritten(tmp_path / "x.pkl", network, change))
        return str(caught.value)

    def labels(g: Any, d: Any, gs: Any) -> None:
        gs["static_kwargs"]["label_size"] = 10

    def lost(g: Any, d: Any, gs: Any) -> None:
        gs["components"]["synthesis"]["variables"].pop(3)

    def swapped(g: Any, d: Any, gs: Any) -> None:
        gs.update(d)

    def narrow(g: Any, d: Any, gs: Any) -> None:
        array = gs["components"]["synthesis"]["variables"][2][1]
        array.value = array.value[:1]

    assert "a TensorFlow network with labels cannot be represented" in message(labels)
    assert "the recorded generator is incomplete" in message(lost)
    assert "expected a G, found a network built by D_stylegan2" in message(swapped)
    assert "generator tensor synthesis.b4.conv1.bias has shape [1]" in message(narrow)
    (tmp_path / "none.pkl").write_bytes(pickle.dumps((None, None, None)))
    with pytest.raises(Error, match="no generator in this network pickle"):
        load_model(tmp_path / "none.pkl")


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    """An array whose elements are Python objects would carry anything."""
    for value in (np.array([print, 3], dtype=object), np.zeros(2, dtype=[("a", "f4")]), np.array(["a"])):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, 4))
        with pytest.raises(Error, match=r"x.pkl: (an array of anything but numbers|the pickle asks for builtins.print)"):
            read_pickle(tmp_path / "x.pkl")
    numbers = np.arange(6, dtype=">f8").reshape(2, 3, order="F")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(numbers, 4))
    found = read_pickle(tmp_path / "x.pkl")
    assert isinstance(found, Array)
    assert np.array_equal(found.value, numbers)
    with pytest.raises(Error, match="anything but numbers"):
        NumberType("O8")
