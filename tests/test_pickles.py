"""The restricted unpickler executes nothing, whatever the file asks for."""

import os
import pickle
from pathlib import Path

import pytest

from latentedit.errors import Error
from latentedit.formats.load_model import load_model
from latentedit.formats.pickle_allow_list import ALLOWED, read_pickle
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from tests.reference_nets import REFERENCE


class Attack:
    """Unpickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), "posix.system|nt.system"),
        (eval, ("open({!r}, 'w')",), "builtins.eval"),
        (exec, ("open({!r}, 'w')",), "builtins.exec"),
        (getattr, ("", "join"), "builtins.getattr"),
    ],
)
def test_calls_are_refused_by_name(
    tmp_path: Path, function: object, arguments: tuple[str, ...], name: str
) -> None:
    mark, file = tmp_path / "mark", tmp_path / "attack.pkl"
    attack = Attack(function, *(text.format(str(mark)) for text in arguments))
    file.write_bytes(pickle.dumps({"G_ema": attack}))
    with pytest.raises(
        Error, match=f"asks for ({name}), which is not among the names that are safe"
    ):
        load_model(file)
    assert not mark.exists()


def test_torch_storages_are_not_unpickled_freely(tmp_path: Path) -> None:
    """torch.storage._load_from_bytes would run the inner pickle; ours reads weights only."""
    mark, file = tmp_path / "mark", tmp_path / "attack.pkl"
    inner = pickle.dumps(Attack(os.system, f"touch {mark}"))

    def opcodes(module: str, name: str) -> bytes:
        return b"c" + module.encode() + b"\n" + name.encode() + b"\n"

    payload = b"\x80\x03" + opcodes("torch.storage", "_load_from_bytes")
    payload += b"B" + len(inner).to_bytes(4, "little") + inner + b"\x85R."
    file.write_bytes(payload)
    with pytest.raises(Error, match="attack.pkl"):
        read_pickle(file)
    assert not mark.exists()


def test_embedded_source_is_never_compiled(tmp_path: Path) -> None:
    """A persistent object whose source would leave a mark loads as plain data, source and all
    unread."""
    file, mark = tmp_path / "with_source.pkl", tmp_path / "mark"
    meta = {
        "type": "class",
        "module_src": f"open({str(mark)!r}, 'w')",
        "class_name": "Generator",
        "state": {"w_dim": 3},
    }
    name = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    file.write_bytes(b"\x80\x02" + name + pickle.dumps(meta, 2)[2:-1] + b"\x85R.")
    record = read_pickle(file)
    assert (record.class_name, dict(record)) == ("Generator", {"w_dim": 3})
    assert not mark.exists()


def test_the_list_is_short() -> None:
    assert len(ALLOWED) <= 20
    for module, name in ALLOWED:
        assert not module.startswith(("os", "sys", "subprocess", "importlib"))
        assert not module.startswith(("builtins", "__builtin__")) or name == "set"
        assert name not in ("eval", "exec", "getattr", "load", "loads")


@pytest.mark.parametrize("length", [0, 10, 1000, -500])
def test_damaged_files(tmp_path: Path, length: int) -> None:
    data = (REFERENCE / "nvidia_32_torch.pkl").read_bytes()
    file = tmp_path / "cut.pkl"
    file.write_bytes(data[:length])
    with pytest.raises(
        Error, match=r"cut.pkl: (not a network pickle, or damaged|expected|the file is empty)"
    ):
        load_model(file)


def test_other_contents(tmp_path: Path) -> None:
    file = tmp_path / "list.pkl"
    file.write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(Error, match="expected a network pickle"):
        load_model(file)


@pytest.mark.parametrize(
    "name", ["nvidia_32_torch", "nvidia3_32_torch", "nvidia_32_resnet_generator_clamp"]
)
def test_conversion_keeps_the_fingerprint(tmp_path: Path, name: str) -> None:
    model = load_model(REFERENCE / f"{name}.pkl")
    save_model(tmp_path / "native.safetensors", model)
    again = load_model(tmp_path / "native.safetensors")
    assert fingerprint(again.generator) == fingerprint(model.generator)
    assert again.generator.config == model.generator.config
