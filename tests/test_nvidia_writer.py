"""Pickles for NVIDIA's loaders: what is in them, and that they are read again.

That NVIDIA's own code loads them and renders the same pictures was measured with that code
(docs/networks.md says how).
"""

import pickle
import pickletools
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latentedit.errors import Error
from latentedit.formats.load_model import load_model
from latentedit.formats.nvidia_writer import Code, save_nvidia
from latentedit.formats.pickle_allow_list import MODULES, SOURCES, read_pickle
from latentedit.model.model import Model
from latentedit.networks.config import AliasFree
from latentedit.networks.fingerprint import fingerprint
from tests.foreign_files import Instructions, random_generator
from tests.helpers import complaint, tiny_discriminator, tiny_generator, works
from tests.reference_nets import REFERENCE

FILES: list[tuple[str, Code]] = [
    ("nvidia_32_torch.pkl", "stylegan2-ada"),
    ("nvidia_32_torch.pkl", "stylegan3"),
    ("nvidia_32_resnet_generator_clamp.pkl", "stylegan2-ada"),
    ("rosinality_32.pt", "stylegan2-ada"),
    ("stylegan3_t_32.pkl", "stylegan3"),
    ("stylegan3_r_32.pkl", "stylegan3"),
]


def equal(one: nn.Module, two: nn.Module) -> bool:
    ours, theirs = one.state_dict(), two.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


@pytest.mark.parametrize(("file", "code"), FILES)
def test_what_is_written_is_read_again(tmp_path: Path, file: str, code: Code) -> None:
    model = load_model(REFERENCE / file)
    assert save_nvidia(tmp_path / "x.pkl", model, code) == []
    again = load_model(tmp_path / "x.pkl")
    assert fingerprint(again.generator) == fingerprint(model.generator)
    assert again.generator.config == model.generator.config
    assert equal(again.generator, model.generator)
    assert model.discriminator is not None
    assert again.discriminator is not None
    assert again.discriminator.config == model.discriminator.config
    assert equal(again.discriminator, model.discriminator)
    assert again.raw_generator is not None  # theirs has one always
    assert equal(again.raw_generator, model.raw_generator or model.generator)


@pytest.mark.parametrize(("file", "code"), FILES)
def test_the_program_names_classes_and_tensors_alone(tmp_path: Path, file: str, code: Code) -> None:
    save_nvidia(tmp_path / "x.pkl", load_model(REFERENCE / file), code)
    program = list(pickletools.genops((tmp_path / "x.pkl").read_bytes()))
    names = {str(argument) for opcode, argument, _ in program if opcode.name == "GLOBAL"}
    tensors = {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch.storage _load_from_bytes",
    }
    assert {name.split()[0] for name in names - tensors} <= set(SOURCES)
    assert {name.split()[1] for name in names - tensors} <= set(MODULES)
    assert {opcode.name for opcode, _, _ in program} <= {
        *(
            "PROTO",
            "STOP",
            "MARK",
            "GLOBAL",
            "REDUCE",
            "NEWOBJ",
            "BUILD",
            "LONG_BINPUT",
            "LONG_BINGET",
        ),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BINFLOAT", "BINUNICODE", "BINBYTES"),
        *("EMPTY_DICT", "SETITEMS", "EMPTY_LIST", "APPENDS", "EMPTY_TUPLE", "TUPLE"),
    }
    words = " ".join(
        str(argument) for opcode, argument, _ in program if opcode.name == "BINUNICODE"
    )
    assert "module_src" not in words
    assert "import" not in words


@pytest.fixture
def their_modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand-ins for the classes of NVIDIA's code: modules without a ``forward``."""
    package = ModuleType("training")
    monkeypatch.setitem(sys.modules, "training", package)
    found = {}
    for source in SOURCES:
        module = ModuleType(source)
        for name in MODULES:
            found[f"{source}.{name}"] = type(name, (nn.Module,), {"__module__": source})
            setattr(module, name, found[f"{source}.{name}"])
        monkeypatch.setitem(sys.modules, source, module)
    return found


@pytest.mark.parametrize(("file", "code"), FILES)
def test_a_loader_with_the_classes_gets_modules(
    tmp_path: Path, file: str, code: Code, their_modules: dict[str, Any]
) -> None:
    """Python's own unpickler and torch's modules, as their loader uses them."""
    model = load_model(REFERENCE / file)
    save_nvidia(tmp_path / "x.pkl", model, code)
    with open(tmp_path / "x.pkl", "rb") as stream:
        found = pickle.load(stream)
    assert set(found) == {"G", "D", "G_ema", "training_set_kwargs", "augment_pipe"}
    three = "stylegan3" in file
    place = (
        "training.networks" if code == "stylegan2-ada" else f"training.networks_stylegan{2 + three}"
    )
    generator, config = found["G_ema"], model.generator.config
    assert type(generator) is their_modules[f"{place}.Generator"]
    assert isinstance(found["D"], nn.Module)
    state = {
        name: tensor
        for name, tensor in generator.state_dict().items()
        if not name.endswith(("resample_filter", "up_filter", "down_filter"))
    }
    own = model.generator.state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(state[name], own[name]) for name in own)
    assert not any(parameter.requires_grad for parameter in generator.parameters())

    given = generator._init_kwargs
    assert (given["z_dim"], given["c_dim"], given["w_dim"]) == (
        config.z_dim,
        config.c_dim,
        config.w_dim,
    )
    options = given["synthesis_kwargs"] if code == "stylegan2-ada" else given
    assert options["channel_base"] == config.channel_base
    assert options["conv_clamp"] == config.conv_clamp
    block: Tensor = (
        generator.state_dict()["synthesis.b8.resample_filter"] if not three else torch.ones(1)
    )
    assert abs(float(block.sum()) - 1) < 1e-6


def test_without_a_discriminator_there_is_a_fresh_one(tmp_path: Path) -> None:
    generator = tiny_generator(channels=3, c_dim=2)
    first = save_nvidia(tmp_path / "one.pkl", Model(generator))
    assert first == [
        "their loader asks for a discriminator, and there is none to write; the file gets an "
        "untrained"
        " one (random weights of seed 0)"
    ]
    torch.rand(1)
    save_nvidia(tmp_path / "two.pkl", Model(generator))
    assert (tmp_path / "one.pkl").read_bytes() == (tmp_path / "two.pkl").read_bytes()
    again = load_model(tmp_path / "one.pkl")
    assert again.discriminator is not None
    picture = torch.zeros(1, 3, 16, 16)
    assert again.discriminator(picture, torch.eye(2)[:1]).shape == (1, 1)

    odd = tiny_discriminator(channels=3, c_dim=2, label_logits=True)
    notes = save_nvidia(tmp_path / "three.pkl", Model(generator, odd))
    assert "no place for a logit for every label" in notes[0]
    assert len(notes) == 2


def test_commands(tmp_path: Path) -> None:
    source = REFERENCE / "nvidia_32_torch.pkl"
    works("model", "convert", source, tmp_path / "x.pkl", "--loader", "stylegan3")
    names = (tmp_path / "x.pkl").read_bytes()
    assert b"training.networks_stylegan2\nGenerator" in names
    works("sample", tmp_path / "x.pkl", "--seeds", "0", "--out", tmp_path / "x.png")
    three = REFERENCE / "stylegan3_t_32.pkl"
    said = complaint("model", "convert", three, tmp_path / "y.pkl", "--loader", "stylegan2-ada")
    assert "the code of stylegan2-ada-pytorch has no StyleGAN3 networks" in said
    said = complaint("model", "convert", source, tmp_path / "y.pt", "--loader", "stylegan3")
    assert "y.pt: --loader is for a .pkl as OUT" in said
    assert not list(tmp_path.glob("y.*"))


def test_what_their_code_cannot_construct(tmp_path: Path) -> None:
    def message(model: Model) -> str:
        with pytest.raises(Error) as caught:
            save_nvidia(tmp_path / "x.pkl", model)
        assert not (tmp_path / "x.pkl").exists()
        return str(caught.value)

    assert "no place for the first StyleGAN" in message(Model(random_generator()))
    joint = tiny_generator(c_dim=2, joint_labels=True)
    assert "labels that are normalised together with z" in message(Model(joint))


def test_widths_that_follow_no_rule(tmp_path: Path) -> None:
    """They are in the state, but no arguments of the constructor lead to them."""
    generator = tiny_generator(channel_widths=(8, 6, 4))
    discriminator = tiny_discriminator(channel_widths=(8, 6, 5))
    notes = save_nvidia(tmp_path / "x.pkl", Model(generator, discriminator))
    assert len(notes) == 1
    assert "load and render this network, but cannot construct it anew" in notes[0]
    again = load_model(tmp_path / "x.pkl")
    assert again.generator.config.channel_widths == (8, 6, 4)
    assert equal(again.generator, generator)
    assert again.discriminator is not None
    assert equal(again.discriminator, discriminator)
    notes = save_nvidia(tmp_path / "y.pkl", Model(generator))
    fresh = load_model(tmp_path / "y.pkl").discriminator
    assert fresh is not None
    assert fresh.config.channel_widths == (8, 6, 4)
    assert len(notes) == 2


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
def test_variants(tmp_path: Path, architecture: str) -> None:
    changes: dict[str, Any] = {"architecture": architecture, "conv_clamp": 64.0}
    generator = tiny_generator(**changes, resample_filter=(1, 2, 1), mapping_lr_multiplier=0.02)
    discriminator = tiny_discriminator(
        **changes, resample_filter=(1, 2, 1), mbstd_group_size=1 << 30, mbstd_channels=2
    )
    save_nvidia(tmp_path / "x.pkl", Model(generator, discriminator))
    again = load_model(tmp_path / "x.pkl")
    assert again.generator.config == generator.config
    assert equal(again.generator, generator)
    assert again.discriminator is not None
    assert again.discriminator.config == discriminator.config
    plain = tiny_discriminator(**changes, mbstd_channels=0)
    save_nvidia(tmp_path / "y.pkl", Model(generator, plain))
    assert load_model(tmp_path / "y.pkl").discriminator is not None


def test_another_design_of_stylegan3(tmp_path: Path) -> None:
    model = load_model(REFERENCE / "stylegan3_t_32.pkl")
    free = model.generator.config.alias_free
    assert isinstance(free, AliasFree)
    config = replace(
        model.generator.config, alias_free=replace(free, first_stopband=5.0, last_stopband=1.5)
    )
    generator = random_generator(config)
    save_nvidia(tmp_path / "x.pkl", Model(generator))
    assert load_model(tmp_path / "x.pkl").generator.config == config


def test_a_class_of_theirs_gets_a_state_and_nothing_else(tmp_path: Path) -> None:
    """What a hostile pickle does to a stand-in ends with it."""
    made = Instructions().name("training.networks", "Generator") + b")\x81"
    good = made.value({"w_dim": 3}) + b"b"
    record = read_pickle(good.write(tmp_path / "good.pkl"))
    assert (record.class_name, dict(record)) == ("Generator", {"w_dim": 3})

    wrong = (Instructions().name("training.networks", "Generator") + b")\x81").value([1]) + b"b"
    with pytest.raises(Error, match="a module without a state"):
        read_pickle(wrong.write(tmp_path / "wrong.pkl"))
    # The state of the class itself.
    spoilt = Instructions().name("training.networks", "Generator").value({"kind": "Evil"}) + b"b"
    with pytest.raises(Error):
        read_pickle(spoilt.write(tmp_path / "spoilt.pkl"))
    assert read_pickle(tmp_path / "good.pkl").class_name == "Generator"
    for name in ("os", "forward", "persistence"):
        asked = Instructions().name("training.networks", name)
        with pytest.raises(Error, match=f"asks for training.networks.{name}"):
            read_pickle(asked.write(tmp_path / "asked.pkl"))
