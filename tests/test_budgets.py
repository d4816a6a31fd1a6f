"""Small files that ask for much: time, memory, depth, or what memory held before; all are refused
within a budget."""

import io
import json
import pickle
import resource
import struct
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from latentedit.directions import Direction, load_direction
from latentedit.directions.report import card, compared, plot
from latentedit.directions.sweeps import title
from latentedit.errors import Error, listed, quoted
from latentedit.formats.arrays import read_arrays
from latentedit.formats.checkpoints import save_plain
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_model
from latentedit.formats.projections import load_projections
from latentedit.formats.rosinality import save_rosinality
from latentedit.inversion.perceptual import LpipsDistance
from latentedit.io.budget import DEEPEST, NESTED, TEXT, check_things, parse_json, read_toml
from latentedit.io.images import open_image
from latentedit.io.torch_files import read_torch
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.metrics import Judge, inception_features, load_judge, save_judge
from latentedit.metrics.features import _inception
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.training import load_preset, train
from latentedit.training.curves import read_log, save_curves
from latentedit.training.data import PictureSource, write_pictures
from latentedit.training.encoders import train_encoder
from tests.foreign_files import (
    Instructions,
    genforce_state,
    nvidia_pickle,
    pickled,
    rezipped,
    small,
    storage,
    tensorflow_state,
)
from tests.helpers import CONFIG, complaint, pictures, tiny_generator, works
from tests.helpers import trainer as encoder_trainer

SECONDS, MEGABYTES = 5.0, 300


@contextmanager
def within_budget() -> Iterator[None]:
    """What is done in the block takes no more of the processor's time and of memory than a file of
    this kind may."""
    before, started = _peak(), time.process_time()
    yield
    assert time.process_time() - started < SECONDS
    assert _peak() - before < MEGABYTES


def _peak() -> float:
    """The most memory that this process has had, in megabytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / (2**20 if sys.platform == "darwin" else 2**10)


def refused(read: Callable[[Path], Any], path: Path) -> str:
    """The line that reading the file ends with, which comes quickly and names the file."""
    with within_budget(), pytest.raises(Error) as caught:
        read(path)
    line = str(caught.value)
    assert str(path) in line
    assert line.isprintable()
    assert len(line) < 600
    return line


def nested(depth: int) -> list[Any]:
    """A list that is twice in a list that is twice in a list: its text has 2 ** depth letters."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found, found]
    return found


# The files of ../shared/hostile, and their kin.


def test_numbers_in_names(tmp_path: Path) -> None:
    """A layer's number was the exponent of a power."""
    for name in (
        "synthesis.layer20000000000.weight",
        f"synthesis.layer{'9' * 5000}.conv.weight",
        "synthesis.layer\u0664.weight",
    ):
        torch.save(
            {"synthesis.layer0.const": torch.zeros(4), name: torch.zeros(4)}, tmp_path / "x.pth"
        )
        assert "0 outputs and 0 mapping layers are no network of this kind" in refused(
            load_model, tmp_path / "x.pth"
        )
    many = {f"synthesis.output{i}.weight": torch.zeros(1, 1, 1, 1) for i in range(50)}
    torch.save({"synthesis.layer0.const": torch.zeros(4), **many}, tmp_path / "x.pth")
    assert "50 outputs" in refused(load_model, tmp_path / "x.pth")
    state = torch.load(saved(save_rosinality, tmp_path / "y.pt"), weights_only=True)
    state["g_ema"] |= {f"convs.{i}.conv.weight": torch.zeros(1, 1, 1, 1, 1) for i in range(90)}
    torch.save(state, tmp_path / "y.pt")
    assert "45 blocks" in refused(load_model, tmp_path / "y.pt")
    whole = torch.load(saved(save_plain, tmp_path / "z.pt"), weights_only=True)
    plain = OrderedDict({**whole["G_ema"], "synthesis.b99999999999.conv1.bias": torch.zeros(1)})
    torch.save({"G_ema": plain}, tmp_path / "z.pt")
    assert "unknown tensor synthesis.b99999999999" in refused(load_model, tmp_path / "z.pt")


def saved(save: Callable[..., Any], path: Path) -> Path:
    save(path, small())
    return path


@pytest.mark.parametrize(
    "name",
    ["conv_clamp", "resample_kernel", "num_channels", "mapping_lrmul", "fused_scale", "label_size"],
)
def test_texts_without_end(tmp_path: Path, network: Any, name: str) -> None:
    """A setting of lists within lists was written out for the message about it."""
    state = tensorflow_state()
    state["static_kwargs"][name] = nested(60)
    pickled(tmp_path / "x.pkl", network, state, None, state)
    assert "the same ones again and again" in refused(load_model, tmp_path / "x.pkl")
    state["static_kwargs"][name] = "9" * 1_000_000
    pickled(tmp_path / "x.pkl", network, state, None, state)
    assert name in refused(load_model, tmp_path / "x.pkl")


def test_an_architecture_without_end(tmp_path: Path) -> None:
    model = small()
    save_plain(tmp_path / "x.pt", model)
    known = "architecture must be skip, resnet, orig, stylegan1 or stylegan3, got"
    for value, message in (
        (nested(60), "the same ones again and again"),
        ("x" * 100_000, f"{known} 'xxx"),
        (nested(3), f"{known} a list"),
        (10**3000, "a number far larger than the file"),
        ({"a": 1}, f"{known} a dict"),
        (float("nan"), f"{known} nan"),
    ):
        document = torch.load(tmp_path / "x.pt", weights_only=True)
        document["G_ema"]._metadata[""]["config"]["architecture"] = value
        torch.save(document, tmp_path / "y.pt")
        assert message in refused(load_model, tmp_path / "y.pt")


def test_checks_of_the_same_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One storage, a small pickle in a pickle, was checked again for every instruction that names
    it."""
    monkeypatch.setattr("latentedit.io.budget.INSTRUCTIONS", 30_000)
    code = Instructions().value((storage(4),)) + b"q\x090"
    code.name("torch.storage", "_load_from_bytes") + b"q\x0a0" + b"h\x0ah\x09R0" * 3000 + b"N"
    line = refused(load_model, code.write(tmp_path / "x.pkl"))
    assert "more than 30000 instructions, or the same ones again and again" in line


def test_one_tensor_for_many(tmp_path: Path) -> None:
    """A list of references to one tensor became so many copies of it, in double precision."""
    one = torch.zeros(1, 1, 2**18, dtype=torch.float16)
    torch.save([one] * 1500, tmp_path / "list.pt")
    assert "bytes, or the same ones again and again" in refused(
        load_projections, tmp_path / "list.pt"
    )
    few = [one] * 30
    torch.save({str(i): [few] * 50 for i in range(3)}, tmp_path / "lists.pt")
    assert "bytes, or the same ones again and again" in refused(
        load_projections, tmp_path / "lists.pt"
    )
    views = [one[..., i:] for i in range(100)]
    torch.save(views, tmp_path / "views.pt")
    assert "bytes, or the same ones again and again" in refused(
        load_projections, tmp_path / "views.pt"
    )
    layers = {f"synthesis.layer{100 + 2 * i}.weight": one[None] for i in range(3000)}
    torch.save({"synthesis.layer0.const": one, **layers}, tmp_path / "flip.pth")
    assert "bytes, or the same ones again and again" in refused(load_model, tmp_path / "flip.pth")


def test_one_storage_of_two_kinds(tmp_path: Path) -> None:
    """The bytes of one storage as halves and as doubles."""
    halves = torch.zeros(8, dtype=torch.float16)
    buffer = io.BytesIO()
    torch.save([halves, torch.zeros(8)], buffer)
    (tmp_path / "good.pt").write_bytes(buffer.getvalue())

    def second_as_first(name: str, data: bytes) -> bytes:
        return (
            data.replace(b"X\x01\x00\x00\x001", b"X\x01\x00\x00\x000")
            if name.endswith("data.pkl")
            else data
        )

    rezipped(tmp_path / "good.pt", tmp_path / "x.pt", second_as_first)
    assert "one storage with numbers of two kinds" in refused(read_torch, tmp_path / "x.pt")


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = (
    b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"ctorch\nTensor\nK\x01K\x04K\x08\x87R", "a tensor without a storage"),
        (b"ctorch.nn.parameter\nParameter\nK\x04\x85R", "a tensor without a storage"),
        (REBUILD + b"(NK\x00K\x04\x85K\x01\x85\x89NtR", "a tensor without a storage"),
        (REBUILD + STORAGE + b"K\x00K\x04\x85J\xff\xff\xff\xff\x85\x89NtR", "impossible shape"),
        (
            REBUILD + STORAGE + b"K\x00M\xff\xff\x85K\x00\x85\x89NtR",
            "claims more numbers than its storage has",
        ),
        (
            REBUILD + STORAGE + b"K\x01K\x04\x85K\x01\x85\x89NtR",
            "claims more numbers than its storage has",
        ),
        (
            REBUILD
            + STORAGE
            + b"K\x00\x8a\x06\x00\x00\x00\x00\x00\x01K\x00\x86K\x01K\x01\x86\x89NtR",
            "impossible shape",
        ),
        (
            REBUILD + STORAGE + b"K\x00\x8a\x05\x00\x00\x00\x00\x01K\x00\x86K\x01K\x01\x86\x89NtR",
            "claims more numbers",
        ),
        (
            b"ctorch._utils\n_rebuild_sparse_tensor\n)R",
            "asks for torch._utils._rebuild_sparse_tensor",
        ),
        (b"ctorch.serialization\n_get_layout\n)R", "asks for torch.serialization._get_layout"),
        (b"cnumpy.core.multiarray\nscalar\n)R", "asks for numpy.core.multiarray.scalar"),
        (b"}" + b")" + b"\x85" * 200_000 + b"Ns", "nested more than"),
    ],
)
@pytest.mark.parametrize("kind", [".pt", ".pth"])
def test_programs_that_torch_would_follow(
    tmp_path: Path, code: bytes, message: str, kind: str
) -> None:
    """Tensors without a storage were what memory held before; those that step backwards or nowhere
    read beyond the file."""
    torch.save([torch.zeros(4)], tmp_path / "good.pt")
    path = tmp_path / f"x{kind}"
    rezipped(
        tmp_path / "good.pt",
        path,
        lambda name, data: b"\x80\x02" + code + b"." if name.endswith("data.pkl") else data,
    )
    assert message in refused(load_latent if kind == ".pt" else load_model, path)


def test_many_empty_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentedit.io.budget.ENTRIES", 500)
    monkeypatch.setattr("latentedit.io.header.ENTRIES", 500)
    header: dict[str, Any] = {"__metadata__": {"latentedit": "{}"}}
    header |= {str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(500)}
    native(tmp_path / "x.safetensors", json.dumps(header))
    assert "a header of more than 500 tensors" in refused(load_latent, tmp_path / "x.safetensors")
    native(tmp_path / "x.safetensors", json.dumps({"__metadata__": {"latentedit": " " * TEXT}}))
    assert f"expected at most {TEXT}" in refused(load_latent, tmp_path / "x.safetensors")
    torch.save([torch.zeros(0) for _ in range(3)], tmp_path / "good.pt")
    code = (
        b"\x80\x02]("
        + (REBUILD + STORAGE[:-4] + b"K\x00tQK\x00K\x00\x85K\x01\x85\x89NtR") * 501
        + b"e."
    )
    rezipped(
        tmp_path / "good.pt",
        tmp_path / "x.pt",
        lambda name, data: code if name.endswith("data.pkl") else data,
    )
    assert "more than 500 tensors" in refused(read_torch, tmp_path / "x.pt")


def native(path: Path, header: str, data: bytes = b"") -> Path:
    """A safetensors file with that text for its header."""
    text = header.encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def directory(path: Path, count: int, labels: bytes | None = None) -> Path:
    """A zip whose directory has ``count`` pictures, all of them the same empty member, and a
    ``dataset.json``."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", b"")
        if labels is not None:
            archive.writestr("dataset.json", labels)
    data = path.read_bytes()
    start, size = data.index(b"PK\1\2"), len(b"PK\1\2") + 42
    entry, rest, end = data[start : start + size], data[start + size + 5 : -22], data[-22:]
    names = (f"{number:05d}".encode() for number in range(count))
    table = b"".join(entry + name for name in names) + rest
    path.write_bytes(data[:start] + table + end[:12] + len(table).to_bytes(4, "little") + end[16:])
    return path


def test_data_sets_of_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted before anything is made of them."""
    monkeypatch.setattr("latentedit.training.data.PICTURES", 2000)
    monkeypatch.setattr("latentedit.training.data.EXTENSIONS", ("0", "1"))
    assert PictureSource(directory(tmp_path / "x.zip", 2000)).names
    with pytest.raises(Error, match="fewer than 2000 pictures; give a folder"):
        write_pictures(
            tmp_path / "z.zip",
            ((f"{number}.png", Image.new("L", (1, 1))) for number in range(2000)),
        )
    path = directory(tmp_path / "y.zip", 2001)
    monkeypatch.setattr(zipfile, "ZipInfo", None)
    with pytest.raises(
        Error, match=r"y.zip: not a readable zip file \(an archive of more than 2000 members\)"
    ):
        PictureSource(path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (b'{"labels": [' + b"[]," * 1_100_000 + b"[]]}", "a JSON text of more than"),
        (b'{"labels": [' + b'{"a":1},' * 300_000 + b"1]}", "a JSON text of more than"),
        (b'{"labels": ' + b"[" * 100 + b"]" * 100 + b"}", "nested more than"),
        (b" " * 5_000_000, "dataset.json has 5000000 bytes, expected at most"),
        (b'{"labels": ["\x1b[31m"]}', "must be"),
    ],
)
def test_labels_of_data_sets(tmp_path: Path, labels: bytes, message: str) -> None:
    """In a zip and in a folder, whatever they are packed to."""
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"")
    (folder / "dataset.json").write_bytes(labels)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", b"")
        archive.writestr("dataset.json", labels)
    with within_budget():
        for path in (folder, tmp_path / "x.zip"):
            assert message in refused(lambda path: PictureSource(path).labels(), path)


def test_more_pictures_may_have_more_labels(tmp_path: Path) -> None:
    """Vectors of forty numbers for every picture of a folder."""
    rows = [[f"{number}.png", [0.123456] * 40] for number in range(600)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": rows}))
    for number in range(600):
        (tmp_path / f"{number}.png").touch()
    source = PictureSource(tmp_path)
    assert len(source.labels()[1]) == 600
    text, things = source._label_text()
    assert len(text) > 600 * 40 * 10
    assert things >= 1_000_000 + 600 * 41


def test_archives_of_many_members(tmp_path: Path) -> None:
    """The directory of an archive makes an object of every member before the first is looked at."""
    entry = b"PK\x01\x02" + bytes(42)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, len(entry) * 2**17, 0, 0)
    (tmp_path / "x.npz").write_bytes(entry * 2**17 + end)
    assert "an archive with a directory of" in refused(load_projections, tmp_path / "x.npz")


def test_members_larger_than_the_file(tmp_path: Path) -> None:
    """What the directory says of a packed size was allocated before it was read."""
    np.savez(tmp_path / "good.npz", w=np.zeros((1, 4, 4)))
    save_rosinality(tmp_path / "good.pt", small())
    for name, read in (("good.npz", load_projections), ("good.pt", load_model)):
        data = bytearray((tmp_path / name).read_bytes())
        place = data.index(b"PK\x01\x02") + 20
        data[place : place + 4] = struct.pack("<I", 1 << 30)
        (tmp_path / f"x{name[4:]}").write_bytes(data)
        assert "a member that is larger than the file" in refused(read, tmp_path / f"x{name[4:]}")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_members_packed_in_unusual_ways(tmp_path: Path, method: int) -> None:
    """Damaged ones raised what nobody caught, and zeros came out by the gigabyte."""
    np.savez(tmp_path / "good.npz", w=np.zeros((1, 4, 4)))
    rezipped(tmp_path / "good.npz", tmp_path / "x.npz", lambda name, data: data, method)
    assert "neither stored nor deflated" in refused(load_projections, tmp_path / "x.npz")
    save_rosinality(tmp_path / "good.pt", small())
    rezipped(tmp_path / "good.pt", tmp_path / "x.pt", lambda name, data: data, method)
    assert "neither stored nor deflated" in refused(load_model, tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("descr", "shape", "message"),
    [
        ("<f4", (2**40,), "claims more numbers than the file has"),
        ("<f4", (2**62, 2**62), "claims more numbers than the file has"),
        ("<f4", (2**40, 0), "claims more numbers than the file has"),
        ("<f4", (-4,), "expected numbers"),
        ("|O", (4,), "expected numbers"),
        ([("a", "<f4")], (4,), "expected numbers"),
        ("<c8", (1,), "expected numbers"),
    ],
)
def test_arrays_that_claim_more(
    tmp_path: Path, descr: Any, shape: tuple[int, ...], message: str
) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    (tmp_path / "x.npy").write_bytes(header.getvalue() + bytes(16))
    assert message in refused(load_projections, tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("w.npy", header.getvalue() + bytes(16))
    assert message in refused(load_projections, tmp_path / "x.npz")


def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    for array in (
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.ones((3, 2), "f8")),
        np.float32(3.0),
    ):
        np.save(tmp_path / "x.npy", array)
        assert np.array_equal(read_arrays(tmp_path / "x.npy"), array)
        np.savez_compressed(tmp_path / "x.npz", a=array, b=array)
        assert np.array_equal(read_arrays(tmp_path / "x.npz")["b"], array)


def test_torch_files_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    parameter = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimiser.step()
    document = {
        "views": [
            whole,
            whole[1:, ::2],
            whole.T,
            whole.bfloat16(),
            whole.half(),
            whole.long(),
            whole > 3,
            torch.zeros(0, 3),
        ],
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "parameter": parameter,
        "size": torch.Size([3, 4]),
        "optimiser": optimiser.state_dict(),
        "plain": {"a": (1, -2.5, None, True), 3: "x", "big": 2**60},
    }
    for zipped in (True, False):
        torch.save(document, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        expected, found = (
            torch.load(tmp_path / "x.pt", weights_only=True),
            read_torch(tmp_path / "x.pt"),
        )
        assert found["plain"] == expected["plain"]
        assert found["size"] == (3, 4)
        for ours, theirs in zip(found["views"], expected["views"], strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
        assert torch.equal(found["scalar"], expected["scalar"])
        assert torch.equal(found["parameter"], parameter.detach())
        assert torch.equal(
            found["optimiser"]["state"][0]["exp_avg"], expected["optimiser"]["state"][0]["exp_avg"]
        )
        assert found["optimiser"]["param_groups"] == expected["optimiser"]["param_groups"]


# Numbers that are none.


def poisoned(tensor: Tensor, value: float) -> Tensor:
    found = tensor.clone()
    found.view(-1)[-1] = value
    return found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_weights_that_are_not_finite(tmp_path: Path, network: Any, value: float) -> None:
    """Refused by the name of the tensor, in every layout; 1e300 is infinite in the precision of the
    networks."""
    name = "synthesis.b8.conv1.affine.bias"
    model = small()
    with torch.no_grad():
        model.generator.get_parameter(name).copy_(
            poisoned(model.generator.get_parameter(name).double(), value)
        )
    message = "has values that are not finite numbers"
    save_model(tmp_path / "x.safetensors", model)
    assert f"tensor g_ema/{name} {message}" in refused(load_model, tmp_path / "x.safetensors")
    for save, file in ((save_plain, "x.pt"), (save_rosinality, "y.pt"), (nvidia_pickle, "x.pkl")):
        save(tmp_path / file, model)
        assert f"tensor {name} {message}" in refused(load_model, tmp_path / file)
    state = genforce_state()
    state["truncation.w_avg"] = poisoned(state["truncation.w_avg"].double(), value)
    torch.save(state, tmp_path / "x.pth")
    assert f"tensor mapping.w_avg {message}" in refused(load_model, tmp_path / "x.pth")
    if value != 1e300:
        tensorflow = tensorflow_state()
        tensorflow["variables"] = [
            (n, np.full_like(a, value) if n == "dlatent_avg" else a)
            for n, a in tensorflow["variables"]
        ]
        pickled(tmp_path / "y.pkl", network, tensorflow, None, tensorflow)
        assert f"tensor mapping.w_avg {message}" in refused(load_model, tmp_path / "y.pkl")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_and_directions_that_are_not_finite(
    tmp_path: Path, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def latent(**changes: Any) -> Latent:
        return Latent(
            **{
                "ws": torch.zeros(1, 4, 4),
                "noise": None,
                "fingerprint": "f" * 64,
                "space": "w+",
                **changes,
            }
        )

    for name, changes in (
        ("ws", {"ws": poisoned(torch.zeros(1, 4, 4), value)}),
        ("noise/00", {"noise": [poisoned(torch.zeros(1, 1, 4, 4), value)]}),
        ("styles/00", {"styles": [poisoned(torch.zeros(1, 4), value)]}),
        ("tuned/b4.conv1.bias", {"tuned": {"b4.conv1.bias": poisoned(torch.zeros(4), value)}}),
    ):
        with monkeypatch.context() as patch:  # ours are not written in the first place
            patch.setattr("latentedit.latent.latent_file.check_writable", lambda *_: None)
            save_latent(tmp_path / "x.safetensors", latent(**changes))
        line = refused(load_latent, tmp_path / "x.safetensors")
        assert f"tensor {name} has values that are not finite numbers" in line
    for array in (np.full((1, 4, 4), value), np.full((1, 4, 4), 1e300)):
        np.savez(tmp_path / "x.npz", w=array)
        assert "has values that are not numbers" in refused(load_latent, tmp_path / "x.npz")
    for name, header in (("intercept", {"intercept": value}), ("sigma", {"sigma": value})):
        line = refused(load_direction, direction_file(tmp_path / "d.safetensors", **header))
        assert f"{name} is {value}, expected a finite number" in line
    Direction("a", torch.tensor([1.0, 0]), 0.0, 1.0, "f" * 64).save(tmp_path / "d.safetensors")
    data = (tmp_path / "d.safetensors").read_bytes()
    (tmp_path / "d.safetensors").write_bytes(data[:-4] + struct.pack("<f", value))
    line = refused(load_direction, tmp_path / "d.safetensors")
    assert "tensor vector has values that are not finite numbers" in line


def direction_file(path: Path, **changes: Any) -> Path:
    """A direction whose header is changed after it was checked."""
    Direction("a", torch.tensor([1.0, 0]), 0.0, 1.0, "f" * 64).save(path)
    return changed(path, changes)


def changed(path: Path, changes: dict[str, Any]) -> Path:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    inside = {**json.loads(header["__metadata__"]["latentedit"]), **changes}
    header["__metadata__"]["latentedit"] = json.dumps(inside)
    return native(path, json.dumps(header), data[8 + size :])


# Headers of another form.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [0]}, "layers must be two whole numbers, the first and the last"),
        ({"layers": ["a", "b"]}, "layers must be two whole numbers, the first and the last"),
        ({"layers": [3, 1]}, "layers must be two whole numbers, the first and the last"),
        ({"layers": {"a": 1}}, "layers must be the first and the last"),
        ({"layers": [0, 10**30]}, "layers must be two whole numbers, the first and the last"),
        ({"fingerprint": 3}, "fingerprint must be a text, found 3"),
        ({"fingerprint": None}, "fingerprint must be a text, found None"),
        ({"report": [1]}, "report must be an object, found a list"),
        ({"report": {"x": [0] * 10_000}}, "more than 5000 things"),
        ({"provenance": "x"}, "provenance must be an object, found 'x'"),
        ({"name": ["a"]}, "name must be a text, found a list"),
        ({"name": "a\ud800"}, "a direction's name has letters"),
        ({"space": {}}, "cannot have shape|space"),
        ({"space": 7}, "space must be"),
        ({"sigma": "1"}, "sigma must be a finite number, found '1'"),
        ({"sigma": 10**400}, "sigma is a number of 1329 bits, expected a finite"),
        ({"intercept": [nested(3)]}, "intercept must be a finite number, found a list"),
    ],
)
def test_headers_of_directions(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = direction_file(tmp_path / "d.safetensors", **changes)
    if changes == {"space": {}}:
        assert load_direction(path).space == "w"  # an empty one stands for none
        return
    line = refused(load_direction, path)
    assert any(part in line for part in message.split("|")), line


@pytest.mark.parametrize(
    "report",
    [
        {"auc": "high"},
        {"auc": 0.9, "auc_interval": [1]},
        {"layers_alone": 3},
        {"effect": {"brought_over": [1]}},
        {"effect": "x"},
        {"leakage": {"a": "$\\frac{"}},
        {"explained": []},
    ],
)
def test_reports_of_another_form(tmp_path: Path, report: dict[str, Any]) -> None:
    """What makes pages and pictures of a report says which direction's it is."""
    direction = load_direction(direction_file(tmp_path / "d.safetensors", report=report))
    generator = tiny_generator(w_dim=2)
    lines: list[str] = []
    for make in (card, plot, title, lambda d: compared([d], generator)):
        try:
            make(direction)
        except Error as error:
            lines.append(str(error))
    assert lines
    assert all(line.startswith("direction a: the report is incomplete") for line in lines)
    works("directions", "show", tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"framing": {"eyes": [[0.3, 0.5], ["0.6", 0.5]]}},
            "framing must give the centres of two eyes",
        ),
        (
            {"framing": {"eyes": [[0.3, 0.5], [10**400, 0.5]]}},
            "framing.eyes[1][0] is a number of 1329 bits",
        ),
        (
            {"framing": {"eyes": [[0.3, 0.5], [0.6, 0.5]], "mouth": [1]}},
            "framing must give the centre of the mouth",
        ),
        (
            {"framing": {"eyes": [[0.3, 0.5], [0.6, 0.5]], "kind": "ffhq"}},
            "must give the centres of eyes and mouth",
        ),
        ({"framing": {"kind": [1]}}, "framing must be of a kind that has a name, found a list"),
        ({"framing": [1]}, "framing must be an object, found a list"),
        ({"provenance": {"label_names": 3}}, "label_names must be a list of names"),
        ({"provenance": {"label_names": [["a"]]}}, "label_names must be a list of names"),
        (
            {"provenance": {"label_frequencies": [-1]}},
            "label_frequencies must be a list of numbers",
        ),
        (
            {"provenance": {"label_frequencies": ["a"]}},
            "label_frequencies must be a list of numbers",
        ),
        ({"generator": [1]}, "generator must be an object, found a list"),
        ({"version": True}, "written in format version True"),
        ({"version": "1" * 5000}, "written in format version '111"),
        ({"format": "x" * 5000}, "expected a latentedit-model file, found xxx"),
        ({"format": nested(3)}, "expected a latentedit-model file"),
    ],
)
def test_headers_of_models(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_model(tmp_path / "x.safetensors", small())
    line = refused(load_model, changed(tmp_path / "x.safetensors", changes))
    assert message in line
    assert "x" * 101 not in line
    assert "1" * 101 not in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"edits": "x"}}, "edits in a latent file's settings must be a list of texts"),
        ({"settings": {"edits": [1]}}, "edits in a latent file's settings must be a list of texts"),
        ({"crop": [[0, 0]]}, "crop must be four corners"),
        (
            {"crop": [[0, 0], [1, 0], [1, 1], [0, float("nan")]]},
            "crop[3][1] is nan, expected a finite number",
        ),
        ({"crop": [[0, 0], [1, 0], [1, 1], [0, 10**400]]}, "crop[3][1] is a number of 1329 bits"),
        ({"crop": [0, 1, 2, 3]}, "crop must be four corners"),
        ({"source": {"name": 1}}, "source must be a name and a checksum"),
        ({"space": "x"}, "space must be w, w+ or s, found 'x'"),
        ({"space": 3}, "space must be a str"),
        ({"fingerprint": 3}, "and a fingerprint"),
    ],
)
def test_headers_of_latents(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_latent(tmp_path / "x.safetensors", Latent(torch.zeros(1, 4, 4), None, "f" * 64, "w"))
    assert message in refused(load_latent, changed(tmp_path / "x.safetensors", changes))


def test_latents_of_other_kinds_and_shapes(tmp_path: Path, tiny_file: Path) -> None:
    """Wherever two latents meet, or a latent and a generator."""
    own = fingerprint(load_model(tiny_file).generator)
    good = tmp_path / "good.safetensors"
    save_latent(good, Latent(torch.zeros(1, 6, 12), None, own, "w"))

    def latent(tensors: dict[str, Tensor]) -> Path:
        from latentedit.io.native_file import write_tensors

        header = {"fingerprint": own, "space": "w+"}
        write_tensors(tmp_path / "x.safetensors", "latentedit-latent", 1, header, tensors)
        return tmp_path / "x.safetensors"

    ws = torch.zeros(1, 6, 12)
    for tensors, message in (
        (
            {"ws": torch.zeros(1, 6, 12, dtype=torch.int64)},
            "tensor ws is of torch.int64, expected fractions",
        ),
        (
            {"ws": torch.zeros(1, 6, 12, dtype=torch.complex64)},
            "tensor ws is of torch.complex64, expected plain numbers",
        ),
        ({"ws": torch.zeros(2, 6, 12)}, "needs ws of shape [1, num_ws, w_dim]"),
        ({"ws": torch.zeros(1, 0, 12)}, "needs ws of shape [1, num_ws, w_dim]"),
        (
            {"ws": torch.zeros(1, 5, 12)},
            "this latent has 5 x 12 numbers, the generator takes 6 x 12",
        ),
        (
            {"ws": torch.zeros(1, 6, 11)},
            "this latent has 6 x 11 numbers, the generator takes 6 x 12",
        ),
        ({"ws": ws, "noise/00": torch.zeros(4, 4)}, "noise maps must have shape [1, 1, h, w]"),
        (
            {"ws": ws, "noise/00": torch.zeros(1, 1, 4, 4)},
            "the sizes of this latent's noise maps do not match the generator",
        ),
        (
            {"ws": ws, "styles/00": torch.zeros(1, 3)},
            "this latent's style offsets do not fit the generator",
        ),
    ):
        bad = latent(tensors)
        for command, pair in (("mix", (good, bad)), ("interpolate", (bad, good))):
            assert message in complaint(
                command, *pair, "--model", tiny_file, "--out", tmp_path / "x.png"
            )
    latent({"ws": ws.double()})
    works(
        "mix", good, tmp_path / "x.safetensors", "--model", tiny_file, "--out", tmp_path / "x.png"
    )


def test_products_that_no_memory_holds(tmp_path: Path) -> None:
    """A tuned latent holds factors; their product is only computed where it fits the generator."""
    generator = tiny_generator()
    tuned = {
        "b4.conv1.weight/u": torch.zeros(100_000, 1),
        "b4.conv1.weight/v": torch.zeros(1, 100_000),
    }
    save_latent(
        tmp_path / "x.safetensors",
        Latent(torch.zeros(1, 6, 12), None, fingerprint(generator), "w", tuned=tuned),
    )
    latent = load_latent(tmp_path / "x.safetensors")
    with (
        within_budget(),
        pytest.raises(
            Error, match=r"tuned difference does not fit this generator \(b4.conv1.weight\)"
        ),
    ):
        latent.render(generator)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 10**9}, "resolution must be a whole number"),
        ({"channels": "3"}, "channels must be a whole number"),
        ({"fields": 10**6}, "fields must be a whole number"),
        ({"reduction": 0}, "reduction must be a whole number"),
        ({"layers": [[10**6, 3, 1]]}, "width must be a whole number"),
        ({"layers": [[8, 3]]}, "the judge is incomplete"),
        ({"layers": 3}, "1 to 100 layers, found 3"),
        ({"layers": [[16384, 63, 1]] * 5}, "tensors do not match"),
        ({"heads": [1]}, "two classes or more"),
        ({"heads": {"a": []}}, "two classes or more"),
        ({"heads": {"a": [1, 2]}}, "classes of a classifier must have names"),
        ({"heads": None}, "two classes or more"),
    ],
)
def test_headers_of_judges(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_judge(tmp_path / "x.safetensors", Judge(1, 16, {"hat": ("no", "yes")}).eval(), {})
    assert message in refused(load_judge, changed(tmp_path / "x.safetensors", changes))


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 5000, "[" * 100 + "]" * 100, "9" * 10_000, "[1", '"\xff', ""],
)
def test_nested_json(tmp_path: Path, text: str) -> None:
    with within_budget(), pytest.raises(Error, match=rf"not JSON|nested more than {NESTED} deep"):
        parse_json(text)
    refused(load_latent, native(tmp_path / "x.safetensors", text))
    inside = json.dumps({"__metadata__": {"latentedit": text}})
    refused(load_latent, native(tmp_path / "x.safetensors", inside))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 10_000, "TOML nested more than 64 deep"),
        ("a = " + "[" * 100 + "]" * 100, "containers nested more than 64 deep"),
        (".".join("a" * 30_000) + " = 1", "a line of more than 128 dots"),
        ("a = " + "9" * 10_000, "value has 10000 digits"),
        ("a = \x00", "(at line 1, column 5)"),
        ("a = 1\n" * 2, "(at line 2, column 6)"),
        ("x" * 100_000, "has 100000 bytes, expected at most 65536"),
    ],
)
def test_nested_toml(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    assert message in refused(read_toml, tmp_path / "x.toml")
    line = refused(lambda path: load_preset(str(path)), tmp_path / "x.toml")
    assert "not a training preset" in line
    assert message in line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("batch = []", "batch must be a number, got a list"),
        ("kimg = 'x'", "kimg must be a number, got 'x'"),
        ("kimg = nan", "kimg is nan, expected a finite number"),
        ("generator = 3", "generator must be a table, got 3"),
        ("augment = [['bgc']]", "augment must be a word, got a list"),
        ("mirror = 'yes'", "mirror must be true or false, got 'yes'"),
        ("micro_batch = 1.5", "micro_batch must be a whole number"),
        ("colour = 1", "colour"),
        ("seed = 1979-05-27", "seed must be a number, got a date"),
    ],
)
def test_options_of_other_kinds(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "x.toml").write_text(line)
    assert message in refused(lambda path: load_preset(str(path)), tmp_path / "x.toml")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """Within files; they are shown as far as they can be printed, and break nothing."""
    path = native(
        tmp_path / "x.safetensors",
        json.dumps({"__metadata__": {"latentedit": '{"format": "\\ud800\\u001b[2J"}'}}),
    )
    assert "found ??[2J" in refused(load_model, path)
    path.write_bytes(struct.pack("<Q", 8) + b'{"\xff\xfe": ')
    refused(load_model, path)
    torch.save(
        {"x\ud800/../y": {"latent": torch.zeros(4)}, "z": {"latent": torch.zeros(4)}},
        tmp_path / "x.pt",
    )
    assert sorted(name for name, _ in load_projections(tmp_path / "x.pt")) == ["y", "z"]
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a\x81\udc80.npy".encode("utf-8", "surrogateescape").decode("cp437"), b"x")
    refused(load_projections, tmp_path / "x.npz")
    pickle_of_python_2 = b"\x80\x02}U\x02\xff\xfeK\x01s."
    torch.save({}, tmp_path / "good.pt")
    rezipped(
        tmp_path / "good.pt",
        tmp_path / "x.pt",
        lambda name, data: pickle_of_python_2 if "pkl" in name else data,
    )
    refused(load_model, tmp_path / "x.pt")


def test_what_messages_quote() -> None:
    """A hundred printable letters at most, and nothing of containers."""
    assert quoted("a\x1b[31m") == "'a?[31m'"
    assert len(quoted("x" * 10**6)) == 102
    assert quoted(nested(90)) == "a list"
    assert quoted(10**5000) == "a number of 16610 bits"
    assert [quoted(value) for value in (None, True, 3, 1.5)] == ["None", "True", "3", "1.5"]
    assert listed(["a", 3, "b"]) == "a, b"
    assert len(listed(["x" * 70] * 10**5)) == 100


def test_contents_within_themselves() -> None:
    loop: list[Any] = []
    loop.append([loop])
    with pytest.raises(Error, match="a container that holds itself"):
        check_things(loop)
    deep: list[Any] = []
    for _ in range(DEEPEST):
        deep = [deep]
    with pytest.raises(Error, match="nested more than 500 deep"):
        check_things([[], deep])
    check_things(deep[0])
    shared = nested(DEEPEST // 2)
    with within_budget(), pytest.raises(Error, match="the same ones again and again"):
        check_things({"a": [shared, shared]})
    check_things([[1, 2, "x" * 64] * 1000])


# Training states and logs.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps."""
    folder = tmp_path_factory.mktemp("run")
    train(CONFIG.changed(kimg=0.012, snapshot_kimg=0.012), pictures(), folder)
    return folder


def resumed(folder: Path) -> None:
    train(CONFIG.changed(kimg=0.016, snapshot_kimg=0.012), pictures(), folder)


def tampered(run: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    state = torch.load(run / "state.pt", weights_only=True)
    change(state)
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "state.pt")
    return folder


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "nan": (
        lambda s: s["g"]["mapping.fc0.weight"].fill_(float("nan")),
        "g/mapping.fc0.weight has values that are not finite",
    ),
    "shape": (
        lambda s: s["d"].update({"b4.out.bias": torch.zeros(7)}),
        "d/b4.out.bias has [7], expected [1]",
    ),
    "kind": (
        lambda s: s["d"].update({"b4.out.bias": torch.zeros(1).long()}),
        "is of torch.int64, expected torch.float32",
    ),
    "value": (
        lambda s: s["d"].update({"b4.out.bias": "x"}),
        "d/b4.out.bias must be a tensor, found 'x'",
    ),
    "names": (
        lambda s: s["g_ema"].pop("mapping.w_avg"),
        "training state's g_ema has other tensors",
    ),
    "moments": (
        lambda s: s["g_optimizer"]["state"][0].update(exp_avg=torch.zeros(1)),
        "g_optimizer/0/exp_avg has [1], expected",
    ),
    "moment": (
        lambda s: s["g_optimizer"]["state"][0].pop("exp_avg_sq"),
        "must have a step and two moments",
    ),
    "step": (
        lambda s: s["g_optimizer"]["state"][0].update(step=torch.tensor(-1.0)),
        "step must be a number of at least 0",
    ),
    "parameters": (
        lambda s: s["d_optimizer"]["state"].update({999: {}}),
        "d_optimizer has moments of other parameters",
    ),
    "optimiser": (
        lambda s: s.update(d_optimizer=[1]),
        "d_optimizer has moments of other parameters",
    ),
    "images": (
        lambda s: s.update(images_seen=2**60),
        "images_seen must be a whole number of at least 0, found 1152",
    ),
    "steps": (
        lambda s: s.update(steps="x"),
        "steps must be a whole number of at least 0, found 'x'",
    ),
    "seconds": (
        lambda s: s.update(seconds=float("nan")),
        "seconds must be a number of at least 0, found nan",
    ),
    "p": (lambda s: s.update(p=torch.tensor(7.0)), "p must be a probability, found 7"),
    "path": (lambda s: s.update(path_mean=torch.zeros(5)), "path_mean has [5], expected []"),
    "signs": (lambda s: s.update(signs=3), "signs must be a tensor, found 3"),
    "config": (
        lambda s: s.update(config=nested(3)),
        "config must be options by name, found a list",
    ),
    "option": (lambda s: s["config"].update(augment=nested(3)), "augment (was a list, is bgc)"),
    "framing": (
        lambda s: s.update(framing={"eyes": "x"}),
        "framing must give the centres of two eyes",
    ),
    "from": (lambda s: s.update(started_from=[1]), "started_from must be a fingerprint"),
    "version": (
        lambda s: s.update(version=nested(3)),
        "the training state has version a list, expected 1",
    ),
    "text": (lambda s: s.update(version=nested(60)), "the same ones again and again"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_training_states(tmp_path: Path, run: Path, name: str) -> None:
    change, message = TAMPERED[name]
    folder = tampered(run, tmp_path / "run", change)
    line = refused(resumed, folder)
    assert message in line
    assert "state.pt" in line


def test_a_training_state_that_crashed_the_interpreter(tmp_path: Path, run: Path) -> None:
    folder = tampered(run, tmp_path / "run", lambda state: None)
    code = b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns."
    rezipped(
        run / "state.pt",
        folder / "state.pt",
        lambda name, data: code if name.endswith("data.pkl") else data,
    )
    line = refused(resumed, folder)
    assert "not a training state, or damaged" in line
    assert "nested more than 500 deep" in line


def test_options_of_the_optimiser_are_those_of_the_run(tmp_path: Path, run: Path) -> None:
    """A state cannot bring a learning rate of its own."""

    def faster(state: dict[str, Any]) -> None:
        state["g_optimizer"]["param_groups"][0]["lr"] = 1e6
        state["g_optimizer"]["param_groups"][0]["foreach"] = nested(3)

    folder = tampered(run, tmp_path / "run", faster)
    resumed(folder)
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state["g_optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.0025 * 4 / 5)


def test_tampered_states_of_encoders(tmp_path: Path) -> None:
    generator = tiny_generator()
    path = tmp_path / "state.pt"
    train_encoder(encoder_trainer(generator, 1), path)
    good = path.read_bytes()
    cases: tuple[tuple[Callable[[dict[str, Any]], Any], str], ...] = (
        (lambda s: s.update(step="x"), "step must be a whole number of at least 0, found 'x'"),
        (
            lambda s: s.update(curvature=torch.full((2, 6, 12), float("nan"))),
            "curvature has values that are not finite",
        ),
        (
            lambda s: s.update(curvature=torch.zeros(2, 6, 11)),
            "curvature belongs to another encoder",
        ),
        (
            lambda s: s["encoder"]["stem.weight"].fill_(float("inf")),
            "encoder/stem.weight has values that are not finite",
        ),
        (
            lambda s: s["optimiser"]["state"][0].update(exp_avg=torch.zeros(1)),
            "optimiser/0/exp_avg has [1], expected",
        ),
        (lambda s: s.pop("step"), "not a training state of an encoder, or damaged"),
    )
    for change, message in cases:
        path.write_bytes(good)
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)
        line = refused(lambda path: train_encoder(encoder_trainer(generator, 2), path), path)
        assert message in line
        assert "remove it to start again" in line


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 60_000,
        b'{"kimg": "x"}',
        b'{"kimg": 1, "loss_g": [1]}',
        b"[]",
        b"3",
        b"\xff\xfe",
        b'{"kimg": NaN}',
        b"x" * 100_000,
    ],
)
def test_logs_with_other_lines(tmp_path: Path, run: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(
        b'{"kimg": 1.0, "loss_g": 0.5}\n' + line + b'\n{"kimg": 2.0, "loss_g": 0.25}\n'
    )
    with within_budget():
        assert [record["kimg"] for record in read_log(path)] == [1.0, 2.0]
        save_curves(path, tmp_path / "curves.png")


def test_logs_with_names_of_measures(tmp_path: Path) -> None:
    """A line of thousands took minutes to draw, and a name with dollars was read as a formula."""
    names = {
        "metric/$\\frac{$": 1.0,
        "metric/" + "x" * 5000: 1.0,
        **{f"metric/{number}": 1.0 for number in range(2000)},
    }
    (tmp_path / "log.jsonl").write_text(json.dumps({"kimg": 1.0, **names}) + "\n")
    with within_budget():
        save_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert open_image(tmp_path / "curves.png").height < 2000


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[1]",
        '{"kimg": 3}',
        '{"kimg": "1", "name": "m", "value": "x"}',
        '{"kimg": "1", "name": "m", "value": NaN}',
        '{"kimg": "1", "name": "m", "value": true}',
        "\xff",
        "{",
    ],
)
def test_damaged_notes_of_the_best(tmp_path: Path, run: Path, text: str) -> None:
    """Told before any training, which would end at its next snapshot."""
    folder = tampered(run, tmp_path / "run", lambda state: None)
    (folder / "best.json").write_text(text, encoding="latin1")
    assert "best.json" in refused(resumed, folder)


# Weights that others publish.


def test_inception_weights_execute_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with the right checksum, by all its digits, is still read for weights alone."""
    mark = tmp_path / "mark"
    (tmp_path / "x.pth").write_bytes(
        b"\x80\x02cposix\nsystem\n" + pickle.dumps(f"touch {mark}", 2)[2:-1] + b"\x85R."
    )
    line = refused(inception_features, tmp_path / "x.pth")
    assert "that of weights-inception-2015-12-05-6726825d.pth is 6726825d0af5f729" in line
    monkeypatch.setattr("latentedit.metrics.features.check_sha256", lambda *_: None)
    assert "not a file of weights" in refused(inception_features, tmp_path / "x.pth")

    class Attack:
        def __reduce__(self) -> Any:
            import os

            return os.system, (f"touch {mark}",)

    torch.save({"a": Attack()}, tmp_path / "x.pth")
    assert "asks for posix.system" in refused(inception_features, tmp_path / "x.pth")
    assert not mark.exists()


def test_backbones_by_all_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.pth").write_bytes(b"x")
    line = refused(LpipsDistance, tmp_path / "x.pth")
    assert "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0" in line
    monkeypatch.setattr("latentedit.inversion.perceptual.check_sha256", lambda *_: None)
    torch.save({"features.0.weight": torch.tensor([float("nan")])}, tmp_path / "x.pth")
    assert "tensor features.0.weight has values that are not finite numbers" in refused(
        LpipsDistance, tmp_path / "x.pth"
    )


def test_meta_is_no_device(tmp_path: Path, tiny_file: Path) -> None:
    for command in (["sample", tiny_file, "--seeds", "1"], ["model", "info", tiny_file]):
        rest = ["--out", tmp_path / "x.png"] if command[0] == "sample" else []
        assert "device 'meta' is not available here" in complaint(
            *command, "--device", "meta", *rest
        )


@pytest.mark.filterwarnings("ignore")
def test_the_network_of_inception_takes_weights_alone() -> None:
    """Its constructor unpickles a file; it gets one that is made here of a dictionary of
    tensors."""
    with pytest.raises(RuntimeError, match="Missing key"):
        _inception({"fc.bias": torch.zeros(1008)})
