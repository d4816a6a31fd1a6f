"""CLIP: files of all kinds give the same network, words are split as published, nothing runs."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from latentedit.errors import Error
from latentedit.io.torchscript import is_torchscript, read_torchscript
from latentedit.metrics.clip import MEAN, STD, ClipNetwork, load_clip
from latentedit.metrics.clip_words import FILE, Words
from tests.clip_files import (
    CONFIG,
    tiny_clip,
    write_folder,
    write_script,
    write_state,
    write_vocabulary,
)

PICTURES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
TEXTS = ["a smiling face", "a face", "Smiling"]


def vectors(clip: ClipNetwork) -> torch.Tensor:
    return torch.cat([clip.images(PICTURES), clip.texts(TEXTS)])


def test_every_kind_of_file_gives_the_same_network(tmp_path: Path) -> None:
    clip = tiny_clip()
    clip.words = Words(write_vocabulary(tmp_path / FILE), CONFIG.vocabulary)
    expected = vectors(clip)
    assert torch.allclose(expected.norm(dim=1), torch.ones(6), atol=1e-5)
    script = write_script(tmp_path / "script", clip)
    assert is_torchscript(script)
    for path in (
        script,
        write_folder(tmp_path / "folder", clip),
        write_folder(tmp_path / "pickled", clip, pickled=True),
    ):
        found = load_clip(path)
        assert found.config == CONFIG
        assert torch.allclose(vectors(found), expected, atol=1e-6), path
    halves = write_state(tmp_path / "state", clip)
    assert not is_torchscript(halves)
    assert torch.allclose(vectors(load_clip(halves)), expected, atol=2e-2)


def test_the_vision_transformer_against_its_equations() -> None:
    """Patches, attention and perceptron written out with plain matrix products."""
    clip = tiny_clip()
    visual, width, heads = clip.visual, CONFIG.vision_width, 2
    mean, std = (torch.tensor(value)[:, None, None] for value in (MEAN, STD))
    pixels = ((PICTURES + 1) / 2 - mean) / std
    patches = pixels.unfold(2, 8, 8).unfold(3, 8, 8)  # [N, 3, 4, 4, 8, 8]
    flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(3, 16, -1)
    x = flat @ visual.conv1.weight.flatten(1).t()
    x = torch.cat([visual.class_embedding.expand(3, 1, width), x], dim=1)
    x = visual.ln_pre(x + visual.positional_embedding)
    layers: Any = visual.transformer.resblocks
    for layer in layers:
        y = layer.ln_1(x)
        query, key, value = (
            (y @ w.t() + b).reshape(3, 17, heads, -1).transpose(1, 2)
            for w, b in zip(
                layer.attn.in_proj_weight.chunk(3), layer.attn.in_proj_bias.chunk(3), strict=True
            )
        )
        share = (query @ key.transpose(2, 3) / (width / heads) ** 0.5).softmax(dim=-1)
        mixed = (share @ value).transpose(1, 2).reshape(3, 17, width)
        x = x + layer.attn.out_proj(mixed)
        y = layer.mlp["c_fc"](layer.ln_2(x))
        x = x + layer.mlp["c_proj"](y * torch.sigmoid(1.702 * y))
    expected = F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=1)
    assert torch.allclose(clip.images(PICTURES), expected, atol=1e-5)


def test_a_text_is_read_up_to_its_end(tmp_path: Path) -> None:
    """What comes after the end, and how many texts there are, changes nothing."""
    clip = tiny_clip()
    clip.words = Words(write_vocabulary(tmp_path / FILE), CONFIG.vocabulary)
    alone = clip.texts(["a face"])
    assert torch.allclose(clip.texts(["a smiling face", "a face"])[1:], alone, atol=1e-6)
    clip.positional_embedding[10:] += 1
    assert torch.allclose(clip.texts(["a face"]), alone, atol=1e-6)
    assert not torch.allclose(clip.texts(["face a"]), alone, atol=1e-3)


def test_grey_and_other_sizes() -> None:
    clip = tiny_clip()
    grey = PICTURES[:, :1]
    assert torch.equal(clip.images(grey), clip.images(grey.expand(-1, 3, -1, -1)))
    large = F.interpolate(PICTURES[:, :, :8, :8], scale_factor=16)
    assert clip.images(large).shape == (3, CONFIG.embedding)


def test_words(tmp_path: Path) -> None:
    words = Words(write_vocabulary(tmp_path / FILE), CONFIG.vocabulary)
    names = {number: name for name, number in words.numbers.items()}

    def parts(text: str) -> list[str]:
        return [names[number] for number in words.parts(text)]

    assert parts("A  smiling FACE") == ["a</w>", "smiling</w>", "face</w>"]
    assert parts("facing") == ["fac", "ing</w>"]
    assert parts("it's 42!?") == ["i", "t</w>", "'", "s</w>", "4</w>", "2</w>", "!", "?</w>"]
    assert parts("&amp;") == ["&</w>"]
    assert len(parts("ü")) == 2  # two bytes
    # The numbers are those of the published list: "!" is the first letter, the end the last part.
    assert words.parts("!") == [256]
    assert words.end == CONFIG.vocabulary - 1
    rows = words(["face", ""], 6)
    assert rows[0].tolist() == [words.end - 1, words.numbers["face</w>"], words.end, 0, 0, 0]
    with pytest.raises(Error, match="has 5 word parts; CLIP reads at most 4"):
        words(["a face a face a"], 6)


def test_the_published_list_if_it_is_here() -> None:
    """Numbers that CLIP's paper's code gives, known from its documentation."""
    pytest.importorskip("open_clip")
    from latentedit.metrics.clip_words import find_vocabulary

    words = Words(find_vocabulary("nowhere.pt"), 49408)
    assert (words.numbers["<|startoftext|>"], words.end) == (49406, 49407)
    assert words.parts("a photo of a cat") == [320, 1125, 539, 320, 2368]


def test_a_script_is_not_run(tmp_path: Path) -> None:
    """Its code may be anything, even damaged; only tensors are read."""
    source = write_script(tmp_path / "script", tiny_clip())
    target = tmp_path / "changed.pt"
    with zipfile.ZipFile(source) as one, zipfile.ZipFile(target, "w") as two:
        for member in one.infolist():
            data = b"import os" if "/code/" in member.filename else one.read(member)
            two.writestr(member.filename, data)
    assert read_torchscript(target).keys() == read_torchscript(source).keys()


def rewritten(source: Path, target: Path, program: bytes) -> Path:
    with zipfile.ZipFile(source) as one, zipfile.ZipFile(target, "w") as two:
        for member in one.infolist():
            data = program if member.filename.endswith("/data.pkl") else one.read(member)
            two.writestr(member.filename, data)
    return target


def test_hostile_scripts(tmp_path: Path) -> None:
    source = write_script(tmp_path / "script", tiny_clip())
    mark = tmp_path / "mark"
    call = b"\x80\x02cposix\nsystem\nX" + len(f"touch {mark}").to_bytes(4, "little")
    call += f"touch {mark}".encode() + b"\x85R."
    with pytest.raises(
        Error, match=r"attack.pt: not a TorchScript archive of weights: it asks for"
    ):
        load_clip(rewritten(source, tmp_path / "attack.pt", call))
    assert not mark.exists()
    for program in (
        b"\x80\x02c__torch__\nA\n)\x81X\x01\x00\x00\x00ab.",  # a word for its attributes
        b"\x80\x02]q\x00h\x00a.",  # a list within itself
        b"\x80\x02c__torch__\nA\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.",  # a module within itself
        b"",
    ):
        with pytest.raises(Error, match="bad.pt: not a TorchScript archive"):
            read_torchscript(rewritten(source, tmp_path / "bad.pt", program))
    (tmp_path / "cut.pt").write_bytes(source.read_bytes()[:2000])
    with pytest.raises(Error, match=r"cut.pt"):
        load_clip(tmp_path / "cut.pt")


def test_what_is_not_a_clip(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(Error) as caught:
            load_clip(path)
        return str(caught.value)

    assert "no such CLIP weights" in message(tmp_path / "none.pt")
    state = tiny_clip().state_dict()
    write_vocabulary(tmp_path / FILE)
    path = tmp_path / "x.pt"
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(1)}, path)
    assert "a CLIP with a ResNet" in message(path)
    torch.save({"a": torch.zeros(1)}, path)
    assert "expected the weights of a CLIP with a vision transformer; it has a" in message(path)
    torch.save({**state, "ln_final.bias": torch.zeros(5)}, path)
    assert "the tensor ln_final.bias has shape [5], expected [64]" in message(path)
    torch.save({**state, "ln_final.bias": torch.full((64,), torch.nan)}, path)
    assert "ln_final.bias" in message(path)
    torch.save({**state, "extra": torch.zeros(5)}, path)
    assert "CLIP has no tensor extra" in message(path)
    folder = write_folder(tmp_path / "folder", tiny_clip())
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert "the model_type in config.json must be clip" in message(folder)
    (folder / "config.json").write_text("[")
    assert "config.json is not one of a network" in message(folder)
    (folder / "config.json").unlink()
    assert "expected a folder in Hugging Face's layout" in message(folder)
    torch.save(state, path)
    os.remove(tmp_path / FILE)
    if not load_available():
        assert "CLIP needs its list of word parts" in message(path)
    write_vocabulary(tmp_path / FILE).write_text("one\ntwo three\n")
    assert "expected a list of at least 9 merges" in message(path)


def load_available() -> bool:
    import importlib.util

    return importlib.util.find_spec("open_clip") is not None
