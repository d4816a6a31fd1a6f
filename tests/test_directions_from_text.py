"""Directions from words: a planted channel is found, and files, options and commands hold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latentedit.directions import load_direction
from latentedit.directions.text import (
    TextOptions,
    channel_vectors,
    convolution_channels,
    direction_from_text,
    measure_channel_vectors,
    read_channel_vectors,
    save_channel_vectors,
    screen_towards,
    text_difference,
)
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_generator
from latentedit.latent.w_statistics import sample_w, style_statistics
from latentedit.networks.generator import Generator
from tests.clip_files import CONFIG, tiny_clip, write_state
from tests.foreign_files import random_generator
from tests.helpers import complaint, tiny_generator, works
from tests.reference_nets import REFERENCE

FEW = TextOptions(samples=2, amount=0.3)


def colourful() -> Generator:
    """More pixels than there are changes of images by channels."""
    return tiny_generator(channels=3)


class Planted:
    """Stands for CLIP. The first number of an image's vector follows one style channel alone, and
    the others follow all other channels."""

    def __init__(self, generator: Generator, channel: int, options: TextOptions = FEW) -> None:
        changes = image_changes(generator, options)  # [channels, samples, pixels]
        others = torch.cat([changes[:channel], changes[channel + 1 :]]).flatten(0, 1)
        basis = torch.linalg.svd(others, full_matrices=False).Vh
        # What is left of the channel's change without all that others can do.
        own = changes[channel].mean(dim=0)
        left = own - basis.t() @ (basis @ own)
        size = 10 * float(own.norm() / left.norm())
        self.filters = torch.cat([F.normalize(left, dim=0)[None] * size, basis[:20]])
        self.centre = centre(generator, options)

    @property
    def dimensions(self) -> int:
        return len(self.filters) + 1

    def images(self, images: Tensor) -> Tensor:
        seen = (images.flatten(1) - self.centre) @ self.filters.t()
        # The last number keeps the length nearly the same.
        return F.normalize(torch.cat([seen, torch.full((len(seen), 1), 1e3)], dim=1), dim=1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(texts), self.dimensions)
        rows[:, -1] = 100.0
        for row, text in zip(rows, texts, strict=True):
            row[0] = 1.0 if "planted" in text else 0.0
        return F.normalize(rows, dim=1)


def bases(generator: Generator, options: TextOptions) -> Tensor:
    """The styles of the random images, joined, ``[samples, channels]``."""
    w = sample_w(generator, options.samples, options.seed)
    w = torch.lerp(generator.mapping.w_avg, w, options.psi)
    ws = w[:, None].expand(-1, generator.num_ws, -1)
    return torch.cat(generator.synthesis.styles(ws), dim=1)


def drawn(generator: Generator, joined: Tensor) -> Tensor:
    sizes = [size for _, size in generator.synthesis.style_layers]
    with torch.no_grad():
        images: Tensor = generator.synthesis.synthesize(list(joined.split(sizes, dim=1)))
    return images.flatten(1)


def centre(generator: Generator, options: TextOptions) -> Tensor:
    return drawn(generator, bases(generator, options)).mean(dim=0)


def image_changes(generator: Generator, options: TextOptions) -> Tensor:
    own = bases(generator, options)
    _, std = style_statistics(generator)
    moves = torch.diag(std * options.amount)
    ends = [drawn(generator, (own + side * moves[:, None]).flatten(0, 1)) for side in (1.0, -1.0)]
    return (ends[0] - ends[1]).reshape(len(std), options.samples, -1)


def strongest(generator: Generator, options: TextOptions = FEW) -> int:
    """The convolution's channel that changes images most."""
    size = image_changes(generator, options).norm(dim=(1, 2))
    return int((size * convolution_channels(generator)).argmax())


@pytest.mark.parametrize("shortlist", [12, 0], ids=["screened", "all"])
def test_the_planted_channel_is_found(shortlist: int) -> None:
    generator = colourful()
    channel = strongest(generator)
    clip = Planted(generator, channel)
    options = replace(FEW, shortlist=shortlist, beta=0.5)
    direction = direction_from_text(generator, clip, "a planted face", "a face", options=options)
    assert int(direction.vector.abs().argmax()) == channel
    assert float(direction.vector[channel]) > 0.9
    assert direction.name == "a-planted-face"
    assert direction.report["channels"] <= 2
    assert next(iter(direction.report["relevance"].values())) > 0.9
    assert direction.report["channels_measured"] == (
        shortlist or int(convolution_channels(generator).sum())
    )
    assert "no classifier measured" in direction.report["note"]

    back = direction_from_text(generator, clip, "a face", "a planted face", options=options)
    assert float(back.vector[channel]) < -0.9


def test_the_screening_is_the_limit_of_the_measurement() -> None:
    """For small movements the rendered relevance is the derivative over its length."""
    generator = colourful()
    clip = Planted(generator, strongest(generator))
    towards = text_difference(clip, "planted", "plain")
    _, std = style_statistics(generator)
    options = replace(FEW, amount=0.01, samples=1)
    channels = convolution_channels(generator).nonzero().flatten()
    exact = channel_vectors(generator, clip, std, channels.tolist(), options) @ towards
    guess = screen_towards(generator, clip, std, towards, options)[channels]
    sure = exact.abs() > 0.3
    assert int(sure.sum()) >= 5
    # All but those at a corner of an activation.
    assert float((guess.sign() == exact.sign())[sure].float().mean()) > 0.95
    # With one image they are equal, but for the length, estimated from a few random vectors.
    assert float(np.corrcoef(guess.numpy(), exact.numpy())[0, 1]) > 0.8


def test_differences_of_texts() -> None:
    clip = Planted(colourful(), 0)
    towards = text_difference(clip, "planted", "plain")
    assert float(towards.norm()) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(text_difference(clip, "plain", "planted"), -towards)
    with pytest.raises(Error, match="CLIP cannot tell 'planted' from 'a planted one'"):
        text_difference(clip, "planted", "a planted one")
    with pytest.raises(Error, match="got an empty one"):
        text_difference(clip, "planted", " ")


def test_channels_of_convolutions() -> None:
    generator = tiny_generator()
    sizes = [size for _, size in generator.synthesis.style_layers]
    per_layer = [bool(part.any()) for part in convolution_channels(generator).split(sizes)]
    assert per_layer == [True, False, True, True, False, True, True, False]
    three = load_generator(REFERENCE / "stylegan3_t_32.pkl")
    sizes = [size for _, size in three.synthesis.style_layers]
    per_layer = [bool(part.all()) for part in convolution_channels(three).split(sizes)]
    assert per_layer == [False, *[True] * (len(sizes) - 2), False]
    assert bool(convolution_channels(random_generator()).all())


def test_files_of_channels(tmp_path: Path) -> None:
    generator = tiny_generator()
    clip = tiny_clip()
    options = TextOptions(samples=2)
    vectors = measure_channel_vectors(generator, clip, options)
    save_channel_vectors(tmp_path / "mine.npy", vectors, generator)
    again = read_channel_vectors(tmp_path / "mine.npy", generator)
    assert torch.allclose(again, vectors, atol=1e-6)
    assert len(np.load(tmp_path / "mine.npy")) == int(convolution_channels(generator).sum())

    # As StyleCLIP's: unit rows without ToRGBs, up to some layer.
    first = [size for _, size in generator.synthesis.style_layers][:3]
    part = np.load(tmp_path / "mine.npy")[: first[0] + first[2]] * 7
    np.save(tmp_path / "fs3.npy", part)
    some = read_channel_vectors(tmp_path / "fs3.npy", generator)
    assert torch.allclose(some[: first[0]], vectors[: first[0]], atol=1e-6)
    assert not bool(some[first[0] : first[0] + first[1]].any())
    assert not bool(some[sum(first) :].any())

    for name, array, said in (
        ("rows", part[:-1], "channels, this generator's layers end after"),
        ("flat", part[0], "must be of shape"),
        ("words", np.array(["a"]), "words.npy"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(Error, match=said):
            read_channel_vectors(tmp_path / f"{name}.npy", generator)
    with pytest.raises(Error, match="the vectors of the channels must have shape"):
        direction_from_text(generator, Planted(colourful(), 0), "planted", "plain", vectors=some)


def test_wrong_options() -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"beta": 2.0},
        {"samples": 0},
        {"amount": 0.0},
        {"shortlist": -1},
    )
    for wrong in wrongs:
        with pytest.raises(Error):
            TextOptions(**wrong)
    generator = colourful()
    clip: Any = Planted(generator, strongest(generator))
    zero = torch.zeros(len(style_statistics(generator)[1]), clip.dimensions)
    with pytest.raises(
        Error, match=r"no style channel has a relevance of 0.13 .* largest is 0.000"
    ):
        direction_from_text(generator, clip, "planted", "plain", vectors=zero)


def test_commands(tmp_path: Path, tiny_file: Path) -> None:
    weights = write_state(tmp_path / "clip", tiny_clip())
    start: tuple[object, ...] = ("directions", "from-text", "a smiling face", "--neutral", "a face")
    command = (*start, "--clip", weights, "--model", tiny_file)
    out = tmp_path / "smiling.safetensors"
    few = ("--samples", "2", "--shortlist", "5", "--beta", "0.01")
    told = works(*command, *few, "--out", out).stdout
    assert "a-smiling-face: " in told
    assert "of 5 measured channels reach a relevance of 0.01" in told
    assert "no classifier measured whether the attribute changes" in told
    direction = load_direction(out)
    assert direction.space == "s"
    assert direction.report["text"] == "a smiling face"
    assert direction.report["neutral"] == "a face"

    # Edits work with it, as with other directions in style space.
    works("sample", tiny_file, "--seeds", "1", "--out", tmp_path / "one.safetensors")
    edit = ("edit", tmp_path / "one.safetensors", "--model", tiny_file, "--set", f"{out}=3")
    works(*edit, "--out", tmp_path / "edited.safetensors")
    generator = load_generator(tiny_file)
    before, after = (load_latent(tmp_path / f"{name}.safetensors") for name in ("one", "edited"))
    assert float((after.render(generator) - before.render(generator)).abs().max()) > 1e-3
    works("directions", "show", out)
    works("directions", "sheet", out, "--model", tiny_file, "--out", tmp_path / "sheet.png")

    # All channels once, then other texts without measuring.
    saved = tmp_path / "channels.npy"
    every = ("--samples", "1", "--shortlist", "0", "--beta", "0.01")
    works(*command, *every, "--save-vectors", saved, "--out", out)
    assert np.load(saved).shape[1] == CONFIG.embedding
    works(*command, "--beta", "0.01", "--vectors", saved, "--name", "grin", "--out", out)
    assert load_direction(out).name == "grin"

    for words, said in (
        (("--out", tmp_path / "x.npy"), "--out must end in .safetensors"),
        (("--save-vectors", saved, "--out", out), "--save-vectors needs --shortlist 0"),
        (("--beta", "1", *few[:4], "--out", out), "lower --beta"),
        (("--vectors", tmp_path / "none.npy", "--out", out), "none.npy"),
        (
            ("--neutral", "a face " * 40, *every, "--save-vectors", saved, "--out", out),
            "word parts",
        ),
        (("--vocabulary", tiny_file, "--out", out), "list of word parts"),
    ):
        assert said in complaint(*command, *words)
    other = [tiny_file if word == weights else word for word in command]
    assert "tiny.safetensors" in complaint(*other, "--out", out)
