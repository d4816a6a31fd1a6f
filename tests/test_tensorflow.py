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
    assert (
        relative_error(model.discriminator(torch.from_numpy(DATA["image"])), DATA["logits"]) <= 1e-4
    )
    assert model.raw_generator is not None


def test_conversion_keeps_the_fingerprint(tmp_path: Path) -> None:
    model = load_model(FILE)
    save_model(tmp_path / "native.safetensors", model)
    assert fingerprint(load_model(tmp_path / "native.safetensors").generator) == fingerprint(
        model.generator
    )


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

    assert "a network with labels, but without their embedding" in message(labels)
    assert "the recorded generator is incomplete" in message(lost)
    assert "expected a G, found a network built by D_stylegan2" in message(swapped)
    assert "generator tensor synthesis.b4.conv1.bias has shape [1]" in message(narrow)
    (tmp_path / "none.pkl").write_bytes(pickle.dumps((None, None, None)))
    with pytest.raises(Error, match="no generator in this network pickle"):
        load_model(tmp_path / "none.pkl")


LABELS = 3
EMBEDDED, PROJECTED = "LabelEmbed/weight", "Output/weight"


def _unit(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-8))


def _labelled(year: int) -> Any:
    """A change of the reference file that adds labels as the published networks of 2019 or 2020
    have them."""
    draws = np.random.default_rng(year)

    def drawn(*shape: int) -> Any:
        array = Array()
        array.value = draws.standard_normal(shape).astype(np.float32)
        return array

    def change(*networks: Any) -> None:
        for network in networks:
            network["static_kwargs"]["label_size"] = LABELS
            parts = network.get("components") or {}
            parts = parts if "mapping" in parts else {}
            for part in parts.values():
                part["static_kwargs"]["label_size"] = LABELS
            variables = parts["mapping"]["variables"] if parts else network["variables"]
            tensors = dict(variables)
            if parts:
                first = tensors["Dense0/weight"]
                size = first.value.shape[0]
                first.value = np.concatenate([first.value, drawn(*first.value.shape).value])
                added = {"LabelConcat/weight": drawn(LABELS, size)}
                if year == 2020:
                    added = {EMBEDDED: drawn(LABELS, size), "LabelEmbed/bias": drawn(size)}
            else:
                out, bias = tensors[PROJECTED], tensors["Output/bias"]
                width = LABELS if year == 2019 else 5
                out.value = drawn(out.value.shape[0], width).value
                bias.value = drawn(width).value
                added = (
                    {}
                    if year == 2019
                    else {EMBEDDED: drawn(LABELS, width), "LabelEmbed/bias": drawn(width)}
                )
            variables += list(added.items())

    return change


@pytest.mark.parametrize("year", [2019, 2020])
def test_labels(tmp_path: Path, network: Any, year: int) -> None:
    """The label is what the published functions make of it: embedded, normalised, and concatenated
    with z."""
    path = rewritten(tmp_path / "x.pkl", network, _labelled(year))
    _, judge, average = read_pickle(path)
    model = load_model(path)
    assert (model.generator.c_dim, model.generator.config.joint_labels) == (LABELS, year == 2019)
    z, c = DATA["z"], np.eye(LABELS, dtype=np.float32)[[0, 2, 1, 0]][: len(DATA["z"])]
    given = {name: array.value for name, array in average["components"]["mapping"]["variables"]}
    if year == 2019:
        x = _unit(np.concatenate([z, c @ given["LabelConcat/weight"]], axis=1))
    else:
        embedded = c @ given[EMBEDDED] / np.sqrt(LABELS) + given["LabelEmbed/bias"]
        x = np.concatenate([_unit(z), _unit(embedded)], axis=1)
    for layer in range(model.generator.config.mapping_layers):
        weight, bias = given[f"Dense{layer}/weight"], given[f"Dense{layer}/bias"]
        x = x @ weight * (0.01 / np.sqrt(len(weight))) + bias * 0.01
        x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
    assert (
        relative_error(model.generator.mapping.map(torch.from_numpy(z), torch.from_numpy(c)), x)
        <= 1e-4
    )
    plain = load_model(FILE)
    assert torch.equal(plain.generator.synthesis.b4.const, model.generator.synthesis.b4.const)

    # The logits, from what the layer before them gives.
    assert model.discriminator is not None
    taken: list[torch.Tensor] = []
    handle = model.discriminator.b4.fc.register_forward_hook(lambda *found: taken.append(found[2]))
    logits = model.discriminator(torch.from_numpy(DATA["image"]), torch.from_numpy(c))
    handle.remove()
    given = {name: array.value for name, array in judge["variables"]}
    scores = (
        taken[0].numpy() @ given[PROJECTED] / np.sqrt(len(given[PROJECTED])) + given["Output/bias"]
    )
    if year == 2020:
        c = _unit(c @ given[EMBEDDED] / np.sqrt(LABELS) + given["LabelEmbed/bias"]) / np.sqrt(
            scores.shape[1]
        )
    assert relative_error(logits, (scores * c).sum(axis=1, keepdims=True)) <= 1e-4

    save_model(tmp_path / "native.safetensors", model)
    again = load_model(tmp_path / "native.safetensors")
    assert (again.generator.config, fingerprint(again.generator)) == (
        model.generator.config,
        fingerprint(model.generator),
    )
    assert again.discriminator is not None
    assert again.discriminator.config == model.discriminator.config
    (tmp_path / "header").write_bytes((tmp_path / "native.safetensors").read_bytes()[:20_000])
    assert (b"joint_labels" in (tmp_path / "header").read_bytes()) == (year == 2019)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    """An array whose elements are Python objects would carry anything."""
    for value in (
        np.array([print, 3], dtype=object),
        np.zeros(2, dtype=[("a", "f4")]),
        np.array(["a"]),
    ):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, 4))
        with pytest.raises(
            Error,
            match=r"x.pkl: (an array of anything but numbers|the pickle asks for builtins.print)",
        ):
            read_pickle(tmp_path / "x.pkl")
    numbers = np.arange(6, dtype=">f8").reshape(2, 3, order="F")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(numbers, 4))
    found = read_pickle(tmp_path / "x.pkl")
    assert isinstance(found, Array)
    assert np.array_equal(found.value, numbers)
    with pytest.raises(Error, match="anything but numbers"):
        NumberType("O8")
