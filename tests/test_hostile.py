"""Hostile and broken files of every kind that is read: never an execution, never a hang, always one
clear line."""

import argparse
import io
import json
import os
import pickle
import pickletools
import sys
import warnings
import zipfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentedit.errors import Error
from latentedit.formats.checkpoints import save_plain
from latentedit.formats.load_model import load_model
from latentedit.formats.pickle_allow_list import ALLOWED, read_pickle
from latentedit.formats.projections import load_projections
from latentedit.formats.rosinality import save_rosinality
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from tests.foreign_files import (
    Instructions,
    NvidiaPickler,
    Persistent,
    nvidia_pickle,
    rezipped,
    seeds,
    small,
    storage,
)
from tests.helpers import complaint, works
from tests.mutations import outcomes


def test_the_pickle_made_here_is_one(tmp_path: Path) -> None:
    model = small()
    again = load_model(nvidia_pickle(tmp_path / "x.pkl", model))
    assert fingerprint(again.generator) == fingerprint(model.generator)
    assert again.discriminator is not None


IMPORTS: dict[str, Callable[[Instructions], Instructions]] = {
    "GLOBAL": lambda i: i.name("os", "system"),
    "STACK_GLOBAL": lambda i: i + b"\x8c\x02os\x8c\x06system\x93",
    "INST": lambda i: i + b"(ios\nsystem\n",
    "OBJ": lambda i: (i + b"(").name("os", "system") + b"o",
    "EXT1": lambda i: i + b"\x82\x01",
    "EXT2": lambda i: i + b"\x83\x01\x00",
    "EXT4": lambda i: i + b"\x84\x01\x00\x00\x00",
    "PERSID": lambda i: i + b"Pos.system\n",
    "BINPERSID": lambda i: i + b"\x8c\x01xQ",
}


def command(mark: Path) -> bytes:
    return pickle.dumps((f"touch {mark}",), 2)[2:-1]


@pytest.mark.parametrize("name", IMPORTS)
@pytest.mark.parametrize("call", [b"R", b"\x81", b"b", b""])
def test_every_instruction_that_imports(tmp_path: Path, name: str, call: bytes) -> None:
    mark = tmp_path / "mark"
    path = (IMPORTS[name](Instructions()) + (command(mark) + call if call else b"")).write(
        tmp_path / "x.pkl"
    )
    with pytest.raises(
        Error, match=r"x.pkl: (the pickle (asks for os.system|has the instruction)|.*damaged)"
    ) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_that_list_is_whole() -> None:
    """Every instruction that names something outside the pickle is tried above."""
    outside = {
        op.name for op in pickletools.opcodes if op.name.startswith(("EXT", "PERSID", "BINPERSID"))
    }
    assert outside | {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ"} <= set(IMPORTS)


SYSTEM = b"cposix\nsystem\n"
NAMES = sorted(ALLOWED)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_allowed_names_called_with_anything(tmp_path: Path, module: str, name: str) -> None:
    """Nothing that may be called does more than to build data, whatever it is given."""
    mark = tmp_path / "mark"
    inner = b"\x80\x02" + SYSTEM + command(mark) + b"R."
    lines: list[str] = []
    arguments: list[object] = [
        (),
        (1,),
        ("x",),
        (inner,),
        ({},),
        ([],),
        (inner, inner),
        (None, None, None, None),
        ("O8", False, True),
        (10**30,) * 4,
    ]
    for value in arguments:
        for code in (b"R", b"\x81"):
            path = (Instructions().name(module, name).value(value) + code).write(tmp_path / "x.pkl")
            try:
                load_model(path)
            except Error as error:
                lines.append(str(error))
    assert all("\n" not in line for line in lines)
    assert not mark.exists()


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_allowed_names_cannot_be_changed(tmp_path: Path, module: str, name: str) -> None:
    """BUILD sets attributes on whatever lies on the stack; functions and classes that are lent must
    not keep any."""
    target = ALLOWED[module, name]
    before = {
        key: getattr(target, key, None)
        for key in ("__init__", "__setstate__", "__call__", "_build", "__defaults__")
    }
    for state in (
        (None, {"__init__": dict, "__setstate__": dict, "_build": dict, "__defaults__": ("x",)}),
        {"_build": dict, "value": 3},
    ):
        path = (Instructions().name(module, name).value(state) + b"b").write(tmp_path / "x.pkl")
        with pytest.raises(Error):
            read_pickle(path)
    for key, value in before.items():
        after = getattr(target, key, None)
        assert after == value, key
    if name in ("Network", "EasyDict", "OrderedDict"):
        assert not hasattr(target, "value")


def test_nested_reconstructors(tmp_path: Path) -> None:
    """A storage within a storage within a storage, the innermost of which would run a command."""
    mark = tmp_path / "mark"
    data = b"\x80\x02" + SYSTEM + command(mark) + b"R."
    for _ in range(3):
        data = Instructions().name("torch.storage", "_load_from_bytes").value((data,)).code + b"R."
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises(Error, match=r"x.pkl: "):
        load_model(tmp_path / "x.pkl")
    assert not mark.exists()


class Reduced:
    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


@pytest.mark.parametrize(
    "value",
    [
        Reduced(os.system, ("true",)),
        Reduced(torch.load, ("x",)),
        Reduced(torch.hub.load, ("a", "b")),
        Reduced(torch.jit.load, ("x",)),
        Reduced(np.load, ("x",)),
        Reduced(np.fromfile, ("/etc/passwd",)),
        Reduced(np.memmap, ("/tmp/latentedit-mark", "u1", "w+", 0, (4,))),
        Reduced(torch.from_file, ("/etc/passwd",)),
        Reduced(pickle.loads, (b"",)),
        Reduced(eval, ("1",)),
        Reduced(io.open, ("/etc/passwd",)),
    ],
    ids=lambda value: f"{value.parts[0].__module__}.{value.parts[0].__name__}",
)
def test_functions_of_torch_and_numpy(tmp_path: Path, value: Reduced) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"G_ema": value}))
    with pytest.raises(Error, match=r"asks for .*not among the names that are safe"):
        load_model(tmp_path / "x.pkl")
    torch.save({"g_ema": value}, tmp_path / "x.pt")
    with pytest.raises(Error, match=r"x.pt: not a file of weights.*(more than tensors|asks for)"):
        load_model(tmp_path / "x.pt")
    assert not Path("/tmp/latentedit-mark").exists()


def rebuilt(data: bytes, offset: object, size: object, stride: object) -> Instructions:
    code = Instructions().name("torch._utils", "_rebuild_tensor_v2") + b"("
    code.name("torch.storage", "_load_from_bytes").value((data,)) + b"R"
    code.value(offset).value(size).value(stride).value(False)
    code.name("collections", "OrderedDict") + b")R"
    return code + b"tR"


@pytest.mark.parametrize(
    ("data", "offset", "size", "stride", "message"),
    [
        (storage(4), 0, (2, 2), (2, 1), "expected a network pickle"),
        (storage(4), 0, (5,), (1,), "claims more numbers than its storage has"),
        (storage(4), 2, (3,), (1,), "claims more numbers than its storage has"),
        (storage(4), 0, (2**39,), (0,), "claims more numbers than its storage has"),  # a view
        (storage(4), -1, (1,), (1,), "impossible shape"),
        (storage(4), 0, (1,), (1, 1), "impossible shape"),
        (storage(4), 0, (2**50,), (1,), "impossible shape"),
        (storage(4), 0, "ab", (1, 1), "impossible shape"),
        (
            storage(4, 2**40),
            0,
            (1,),
            (1,),
            "a storage of 4398046511104 bytes, of which the file holds",
        ),
        (storage(4)[:-4], 0, (4,), (1,), "damaged"),
        (b"PK\x03\x04", 0, (1,), (1,), "x.pkl: "),
    ],
)
def test_storages_of_wrong_sizes(
    tmp_path: Path, data: bytes, offset: object, size: object, stride: object, message: str
) -> None:
    path = rebuilt(data, offset, size, stride).write(tmp_path / "x.pkl")
    with pytest.raises(Error, match=message):
        load_model(path)


def test_views_are_no_weights(tmp_path: Path) -> None:
    """A tensor that repeats one number a million times takes no room in a file and much in
    memory."""
    model = small()
    save_plain(tmp_path / "x.pt", model)
    document = torch.load(tmp_path / "x.pt", weights_only=True)
    document["G_ema"]["mapping.fc0.weight"] = torch.zeros(1, 1).expand(4, 4)
    torch.save(document, tmp_path / "x.pt")
    with pytest.raises(Error, match="a tensor that claims more numbers than its storage has"):
        load_model(tmp_path / "x.pt")


def test_archives(tmp_path: Path) -> None:
    """torch believes the sizes that the program of an archive states, and would show what lies
    behind the data in memory."""
    save_rosinality(tmp_path / "good.pt", small())

    def message(
        change: Callable[[str, bytes], bytes | None], method: int = zipfile.ZIP_STORED
    ) -> str:
        with pytest.raises(Error) as caught:
            load_model(rezipped(tmp_path / "good.pt", tmp_path / "x.pt", change, method))
        return str(caught.value)

    assert "of which the file holds 4" in message(
        lambda name, data: data[:4] if "/data/" in name else data
    )
    assert "of which the file holds 0" in message(
        lambda name, data: None if name.endswith("data/0") else data
    )
    assert "compressed members" in message(lambda name, data: data, zipfile.ZIP_DEFLATED)
    assert "not an archive of torch's" in message(
        lambda name, data: None if name.endswith("data.pkl") else data
    )
    bomb = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("w.npy", "w", force_zip64=True) as member,
    ):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (1, 18, 2**20)}
        )
        member.write(header.getvalue())
        for _ in range(72):
            member.write(bytes(1 << 20))
    assert bomb.stat().st_size < 1 << 18
    with pytest.raises(Error, match="unpacks to more than"):
        load_projections(bomb)


def deep(instruction: bytes, depth: int) -> bytes:
    return b"\x80\x02)" + instruction * depth


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"\x80\x02" + b"]" * 600 + b"a" * 599, "nested more than 500 deep"),
        (deep(b"\x85", 100_000) + b"}K\x01s", "nested more than 500 deep"),
        # Hashing a tuple that holds a tuple twice, which holds a tuple twice ... takes for ever.
        (b"\x80\x02}" + b")" + b"2\x86" * 60 + b"K\x01s", "tuples within one another"),
        (b"\x80\x02Nr\xff\xff\xff\x7f", "a reference to the object number"),
        (b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", "damaged"),
        (b"\x80\x02B\xff\xff\xff\x7f", "damaged"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f", "without its objects"),
        (b"\x80\x02I" + b"9" * 5000 + b"\n", "damaged"),
        (b"\x80\x02a", "without its objects"),
        (b"\x80\x02(t", "expected a network pickle"),
        (b"\x80\x02h\x07", "damaged"),
        (b"", "damaged"),
    ],
)
def test_sizes_and_depths(tmp_path: Path, code: bytes, message: str) -> None:
    (tmp_path / "x.pkl").write_bytes(code + b"." if code else b"")
    with pytest.raises(Error, match=message):
        load_model(tmp_path / "x.pkl")


def test_modules_within_one_another(tmp_path: Path) -> None:
    """Forty modules, each of which is twice in the next, are a million million when they are walked
    through."""
    path = modules_within(tmp_path / "x.pkl", 40)
    with pytest.raises(Error, match="more than 1000000 things, or the same ones again and again"):
        load_model(path)


def modules_within(path: Path, count: int) -> Path:
    inner: Any = Persistent("Block", {"_modules": {}, "_parameters": {}, "_buffers": {}})
    for _ in range(count):
        inner = Persistent(
            "Block", {"_modules": {"a": inner, "b": inner}, "_parameters": {}, "_buffers": {}}
        )
    conv = Persistent(
        "Layer", {"_modules": {}, "_parameters": {}, "_buffers": {}, "use_noise": True}
    )
    block = Persistent(
        "Block", {"_modules": {"conv1": conv, "x": inner}, "_parameters": {}, "_buffers": {}}
    )
    parts = {
        "synthesis": Persistent(
            "Synthesis", {"_modules": {"b4": block}, "_parameters": {}, "_buffers": {}}
        ),
        "mapping": Persistent("Mapping", {"_modules": {}, "_parameters": {}, "_buffers": {}}),
    }
    buffer = io.BytesIO()
    NvidiaPickler(buffer, 2).dump(
        {"G_ema": Persistent("Generator", {"_modules": parts, "_parameters": {}, "_buffers": {}})}
    )
    path.write_bytes(buffer.getvalue())
    return path


def test_sizes_in_headers_are_not_believed(tmp_path: Path) -> None:
    model = small()
    for changes, message in (
        ({"resolution": 2**40}, "resolution must be a power of two from 8 to 16384"),
        ({"resolution": 16384}, "x.safetensors: channel_base must be at least"),
        ({"resolution": 16384, "channel_base": 16384}, "the generator has no tensor"),
        ({"z_dim": 10**12}, "z_dim must be a whole number"),
        ({"z_dim": 10**8}, "z_dim must be a whole number from 1 to 4096"),
        ({"z_dim": 4000}, "fc0.weight has shape"),
        ({"c_dim": 30_000_000}, "c_dim must be a whole number from 0 to 32768"),
        ({"resample_filter": [1, -1]}, "taps of at most 1e6 whose sum is not 0"),
        (
            {"mapping_lr_multiplier": float("nan")},
            "generator.mapping_lr_multiplier is nan, expected a finite number",
        ),
        ({"conv_clamp": [[[]]]}, "conv_clamp must be a finite number greater than 0, got a list"),
        ({"mapping_layers": 10**9}, "mapping_layers must be"),
        ({"resample_filter": "abc"}, "x.safetensors: "),
        ({"channel_widths": [1] * 10**5}, "channel_widths must name"),
        ({"conv_clamp": float("inf")}, "generator.conv_clamp is inf"),
        ({"conv_clamp": 10**400}, "generator.conv_clamp is a number of 1329 bits"),
        ({"conv_clamp": True}, "conv_clamp must be a finite number greater than 0, got True"),
        ({"conv_clamp": 1e40}, "conv_clamp must be"),
        ({"mapping_lr_multiplier": 1e40}, "mapping_lr_multiplier must be a finite number above 0"),
        ({"resample_filter": [1, float("-inf")]}, r"generator.resample_filter\[1\] is -inf"),
        ({"resample_filter": [1, True]}, "taps, all numbers"),
        ({"channels": True}, "channels must be at least 1, got True"),
        ({"z_dim": True}, "z_dim must be a whole number"),
        ({"w_dim": "4"}, "w_dim must be a whole number"),
        ({"colour": 1}, "x.safetensors: "),
    ):
        save_model(tmp_path / "x.safetensors", model)
        data = (tmp_path / "x.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        inside = json.loads(header["__metadata__"]["latentedit"])
        inside["generator"].update(changes)
        header["__metadata__"]["latentedit"] = json.dumps(inside)
        text = json.dumps(header).encode()
        (tmp_path / "x.safetensors").write_bytes(
            len(text).to_bytes(8, "little") + text + data[8 + size :]
        )
        with pytest.raises(Error, match=message) as caught:
            load_model(tmp_path / "x.safetensors")
        assert len(str(caught.value)) < 600


FORMATS = (
    "native.safetensors",
    "rosinality.pt",
    "plain.pt",
    "genforce.pth",
    "legacy.pt",
    "nvidia.pkl",
    "written.pkl",
    "tensorflow.pkl",
    "latent.safetensors",
    "projected_w.npz",
    "projected.pt",
    "boundary.npy",
    "direction.safetensors",
)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("name", FORMATS)
def test_a_thousand_mutations(tmp_path: Path, network: Any, name: str) -> None:
    (tmp_path / "seeds").mkdir()
    found = seeds(tmp_path / "seeds", network)
    assert set(found) == set(FORMATS)
    path, kind = found[name]
    assert path.stat().st_size <= 96 << 10

    def work() -> None:
        warnings.resetwarnings()  # which are no errors outside of tests
        warnings.simplefilter("ignore")
        found = outcomes(str(path), kind, str(tmp_path), 1000)
        (tmp_path / "found.json").write_text(json.dumps(found))

    # Forked: to start Python and import everything takes as long as all variants of most formats.
    child = get_context("fork").Process(target=work)
    child.start()
    child.join(timeout=600)
    child.kill()  # which does nothing to one that has ended
    child.join()
    assert child.exitcode == 0
    result = json.loads((tmp_path / "found.json").read_text())
    assert result["wrong"] == []
    assert result["read"] + result["refused"] == 1000
    assert result["refused"] > 100


MODELS = tuple(
    name
    for name in FORMATS
    if name.split(".")[0]
    in ("native", "rosinality", "plain", "genforce", "legacy", "nvidia", "written", "tensorflow")
)


@pytest.mark.parametrize("name", MODELS)
def test_every_command_takes_every_format(tmp_path: Path, network: Any, name: str) -> None:
    (tmp_path / "seeds").mkdir()
    file = seeds(tmp_path / "seeds", network)[name][0]
    model = load_model(file)
    out = tmp_path / "out"
    works("model", "info", file)
    works("sample", file, "--seeds", "3", "--cutoff", "2", "--out", out / "x.png")
    works("sample", file, "--seeds", "3", "--out", out / "x.safetensors")
    works(
        "directions",
        "import",
        tmp_path / "seeds" / "boundary.npy",
        "--model",
        file,
        "--name",
        "a",
        "--out",
        out / "a.safetensors",
    )
    edited = works(
        "edit",
        out / "x.safetensors",
        "--model",
        file,
        "--set",
        f"{out / 'a.safetensors'}=2",
        "--out",
        out / "y.png",
    )
    assert "y.png" in edited.stdout
    works("model", "convert", file, out / "native.safetensors")
    assert fingerprint(load_model(out / "native.safetensors").generator) == fingerprint(
        model.generator
    )
    search = (
        "invert",
        out / "x.png",
        "--model",
        file,
        "--aligned",
        "--steps",
        "3",
        "--out",
        out / "found",
    )
    if model.discriminator is None:
        line = complaint(*search, "--perceptual", "discriminator")
        assert "no discriminator to compare images with" in line
        return
    works(*search)
    arguments = ("--model", file, "--out", out / "fit.safetensors")
    (out / "labels.csv").write_text(
        "file,big\n" + "".join(f"{i}.safetensors,{i % 2}\n" for i in range(12))
    )
    for index in range(12):
        works("sample", file, "--seeds", str(index), "--out", out / f"{index}.safetensors")
    works("directions", "fit", out / "labels.csv", "--column", "big", *arguments)
    held = tmp_path / "held"
    held.mkdir()
    (held / "x.png").write_bytes((out / "x.png").read_bytes())
    shown = works(
        "metrics", file, "--metrics", "inversion", "--held-out", held, "--steps", "2"
    ).stdout
    assert "inversion" in shown


@pytest.mark.parametrize(
    ("parts", "synthesis", "mapping", "name", "message"),
    [
        (
            {},
            {"input": 0, "L0_36_512": 0},
            {"embed_proj": 0},
            "Generator",
            "a StyleGAN-XL generator",
        ),
        ({}, {"L0_36_512": 0}, {}, "SuperresGenerator", "a StyleGAN-XL generator"),
        (
            {"backbone": 0, "superresolution": 0, "renderer": 0},
            {},
            {},
            "TriPlaneGenerator",
            "an EG3D generator",
        ),
        ({}, {"main": 0}, {}, "SwinGenerator", "a network of class SwinGenerator"),
    ],
)
def test_other_generators_are_named(
    tmp_path: Path,
    parts: dict[str, Any],
    synthesis: dict[str, Any],
    mapping: dict[str, Any],
    name: str,
    message: str,
) -> None:
    def module(class_name: str, inside: dict[str, Any]) -> Persistent:
        return Persistent(class_name, {"_modules": inside, "_parameters": {}, "_buffers": {}})

    def all_of(names: dict[str, Any]) -> dict[str, Any]:
        return {key: module("Layer", {}) for key in names}

    inside = {
        "synthesis": module("SynthesisNetwork", all_of(synthesis)),
        "mapping": module("MappingNetwork", all_of(mapping)),
    }
    buffer = io.BytesIO()
    NvidiaPickler(buffer, 2).dump({"G_ema": module(name, {**all_of(parts), **inside})})
    (tmp_path / "x.pkl").write_bytes(buffer.getvalue())
    with pytest.raises(
        Error,
        match=f"x.pkl: {message}; only StyleGAN, StyleGAN2 and StyleGAN3 generators can be read",
    ):
        load_model(tmp_path / "x.pkl")


@pytest.mark.parametrize("zipped", [True, False])
def test_options_beside_the_weights(tmp_path: Path, zipped: bool) -> None:
    """rosinality's training keeps its optimisers and an argparse.Namespace beside the weights."""
    save_rosinality(tmp_path / "x.pt", small())
    found = torch.load(tmp_path / "x.pt", weights_only=True)
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
    found |= {
        "args": argparse.Namespace(size=8, path="x", mixing=0.9),
        "g_optim": optimiser.state_dict(),
        "ada_aug_p": 0.1,
    }
    torch.save(found, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert fingerprint(load_model(tmp_path / "x.pt").generator) == fingerprint(small().generator)
    torch.save(
        {"state_dict": {}, "opts": argparse.Namespace(batch=3)},
        tmp_path / "x.pt",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(
        Error, match=r"x.pt: expected a checkpoint of rosinality's .* it has state_dict, opts"
    ):
        load_model(tmp_path / "x.pt")


DEEP = b"}" + b")" + b"\x85" * 100_000 + b"Ns"
GREEDY = b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R"
WIDE = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"}h\x00Ns"


def legacy(objects: bytes) -> bytes:
    """A file of torch's older format with that program for its objects."""
    parts = [
        pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    ]
    return b"".join(parts) + b"\x80\x02" + objects + b"." + pickle.dumps([], 2)


@pytest.mark.parametrize(
    "code",
    [DEEP, WIDE, b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R"],
    ids=["deep", "wide", "bytearray"],
)
@pytest.mark.parametrize("where", ["legacy", "storage", "zip"])
def test_programs_of_torch_files(tmp_path: Path, code: bytes, where: str) -> None:
    """torch follows these programs itself, so that they are read through first, wherever they
    are."""
    path = tmp_path / ("x.pkl" if where == "storage" else "x.pt")
    if where == "legacy":
        path.write_bytes(legacy(code))
    elif where == "storage":
        (
            Instructions().name("torch.storage", "_load_from_bytes").value((legacy(code),)) + b"R"
        ).write(path)
    else:
        save_rosinality(tmp_path / "good.pt", small())
        rezipped(
            tmp_path / "good.pt",
            path,
            lambda name, data: b"\x80\x02" + code + b"." if name.endswith("data.pkl") else data,
        )
    with pytest.raises(
        Error,
        match="nested more than|tuples within|asks for builtins.bytearray|far larger than the file",
    ):
        load_model(path)


def test_archives_that_can_be_read_in_two_ways(tmp_path: Path) -> None:
    save_rosinality(tmp_path / "good.pt", small())
    good = (tmp_path / "good.pt").read_bytes()
    evil = legacy(b"}")
    for data in (evil + good, good[:-22] + good, b"x" * 100 + good):
        (tmp_path / "x.pt").write_bytes(data)
        with pytest.raises(Error, match=r"x.pt: "):
            load_model(tmp_path / "x.pt")

    def doubled(case: str) -> Path:
        with (
            zipfile.ZipFile(tmp_path / "good.pt") as a,
            zipfile.ZipFile(tmp_path / "x.pt", "w") as b,
        ):
            for name in a.namelist():
                if name.endswith("data.pkl"):
                    b.writestr(name.replace("data.pkl", case), b"\x80\x02" + DEEP + b".")
                b.writestr(name, a.read(name))
        return tmp_path / "x.pt"

    with pytest.raises(Error, match="not an archive of torch's"):
        load_model(doubled("DATA.PKL"))


def test_memory_is_not_given_for_words(tmp_path: Path) -> None:
    """Small files that would grow when they are unpacked, copied or followed."""
    from latentedit.formats.arrays import read_arrays

    torch.save(torch.zeros(1).expand(1, 200_000_000), tmp_path / "view.pt")
    with pytest.raises(Error, match="claims more numbers than its storage has"):
        read_arrays(tmp_path / "view.pt")
    several = [
        torch.zeros(3).to_sparse(),
        torch.zeros(3, device="meta"),
        torch.zeros(3, dtype=torch.complex64),
    ]
    for value in several:
        torch.save(value, tmp_path / "odd.pt")
        with pytest.raises(Error, match=r"odd.pt: "):
            read_arrays(tmp_path / "odd.pt")
    code = b"\x80\x02]q\x00(" + b"h\x00" * 2000 + b"e."
    save_rosinality(tmp_path / "good.pt", small())
    rezipped(
        tmp_path / "good.pt",
        tmp_path / "loop.pt",
        lambda name, data: code if name.endswith("data.pkl") else data,
    )
    with pytest.raises(Error, match="a container that holds itself"):
        read_arrays(tmp_path / "loop.pt")
    chain = Instructions().name("_codecs", "encode") + b"q\x00"
    chain.value(("x" * 300_000, "latin1")) + b"q\x01"
    chain + b"0" * 1 + b"]" + b"h\x00h\x01Ra" * 600
    with pytest.raises(Error, match="the same data given to functions again and again"):
        read_pickle(chain.write(tmp_path / "copies.pkl"))
    model = small()
    save_plain(tmp_path / "plain.pt", model)
    document = torch.load(tmp_path / "plain.pt", weights_only=True)
    one = torch.zeros(1024, 1024)
    config = {
        **model.generator.config.as_dict(),
        "w_dim": 1024,
        "z_dim": 1024,
        "mapping_layers": 60,
    }
    state = document["G_ema"]
    state |= {f"mapping.fc{i}.weight": one for i in range(60)} | {
        f"mapping.fc{i}.bias": torch.zeros(1024) for i in range(60)
    }
    state |= {
        name: torch.zeros(len(t), 1024)
        for name, t in state.items()
        if name.endswith("affine.weight")
    }
    state["mapping.w_avg"] = torch.zeros(1024)
    state._metadata[""]["config"] = {
        k: list(v) if isinstance(v, tuple) else v for k, v in config.items()
    }
    torch.save({"G_ema": state}, tmp_path / "shared.pt")
    with pytest.raises(Error, match="bytes, or the same ones again and again"):
        load_model(tmp_path / "shared.pt")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_the_pytorch_layout(tmp_path: Path, protocol: int) -> None:
    """Python 3.7 wrote sets by name, protocol 5 writes arrays by another one."""
    model = small()
    value = Persistent(
        "x",
        {
            "_non_persistent_buffers_set": {"a", "b"},
            "array": np.arange(6, dtype="f4").reshape(2, 3),
        },
    )
    buffer = io.BytesIO()
    NvidiaPickler(buffer, protocol).dump({"G_ema": None, "x": value})
    (tmp_path / "x.pkl").write_bytes(buffer.getvalue())
    found = read_pickle(tmp_path / "x.pkl")["x"]
    assert set(found["_non_persistent_buffers_set"]) == {"a", "b"}
    assert np.array_equal(found["array"].value, value.state["array"])
    nvidia_pickle(tmp_path / "net.pkl", model, protocol)
    assert fingerprint(load_model(tmp_path / "net.pkl").generator) == fingerprint(model.generator)


def test_files_under_other_names(tmp_path: Path) -> None:
    """Downloads come under all sorts of names; what is in them counts."""
    model = small()
    nvidia_pickle(tmp_path / "x.pkl", model)
    save_rosinality(tmp_path / "y.pt", model)
    save_model(tmp_path / "z.safetensors", model)
    own = fingerprint(model.generator)
    for source, target in (
        ("x.pkl", "x.PKL"),
        ("x.pkl", "x.bin"),
        ("x.pkl", "x.pt"),
        ("y.pt", "y.ckpt"),
        ("z.safetensors", "z"),
    ):
        (tmp_path / target).write_bytes((tmp_path / source).read_bytes())
        assert fingerprint(load_model(tmp_path / target).generator) == own, target
    for name, data, message in (
        ("page.pkl", b"\n<!DOCTYPE html>", "a web page, not a network; the download went wrong"),
        ("empty.pkl", b"", "the file is empty"),
        ("text.pt", b"hello", "not a file of weights"),
    ):
        (tmp_path / name).write_bytes(data)
        assert f"{name}: {message}" in complaint(
            "sample", tmp_path / name, "--out", tmp_path / "x.png"
        )
    (tmp_path / "folder.pkl").mkdir()
    assert "folder.pkl: a folder, not a model file" in complaint(
        "sample", tmp_path / "folder.pkl", "--out", tmp_path / "x.png"
    )


def test_what_a_terminal_would_not_print(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04\x8c\x05a\nb\x1b[\x8c\x01c\x93.")
    line = complaint("sample", tmp_path / "x.pkl", "--out", tmp_path / "x.png")
    assert "asks for a?b?[.c" in line
    model = small()
    save_plain(tmp_path / "x.pt", model)
    document = torch.load(tmp_path / "x.pt", weights_only=True)
    document["G_ema"]["a\nb\x1b[31m" + "x" * 5000] = torch.zeros(1)
    torch.save(document, tmp_path / "x.pt")
    line = complaint("sample", tmp_path / "x.pt", "--out", tmp_path / "x.png")
    assert "unknown tensor a?b?[31mxxx" in line
    assert len(line) < 900


def test_networks_that_mention_what_they_are(tmp_path: Path) -> None:
    """Real files of these kinds ask for modules of torch's long before their own structure can be
    seen."""
    for name, kind in (
        ("TriPlaneGenerator", "an EG3D network"),
        ("pg_modules.x", "a StyleGAN-XL or Projected GAN network"),
    ):
        code = Instructions().value(name) + b"0"
        code.name("torch.nn.modules.container", "Sequential")
        with pytest.raises(
            Error,
            match=f"{kind}, by the names in it; .* asks for torch.nn.modules.container.Sequential",
        ):
            load_model(code.write(tmp_path / "x.pkl"))
