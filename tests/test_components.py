"""Directions without labels, on networks whose components are known: by exact analysis, by
rendering, or because planted."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.cli.moves import parse_amounts
from latentedit.directions import (
    Direction,
    factorised,
    load_direction,
    principal_components,
    style_channels,
    sweep_sheet,
)
from latentedit.directions.channels import GRID, Sampling, screen
from latentedit.directions.pca import moments
from latentedit.directions.sigma import measure_sigma
from latentedit.directions.sweeps import move_latent, title
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_generator
from latentedit.io.contact_sheet import MARGIN, TEXT
from latentedit.io.images import load_image
from latentedit.latent.editing import edit, edit_styles
from latentedit.latent.latent_file import Latent, render, save_latent
from latentedit.latent.w_statistics import sample_w, sample_z, style_statistics
from latentedit.model.model import Model
from latentedit.model.remembered import networks_file
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from latentedit.networks.layers import FullyConnected
from latentedit.networks.synthesis import SynthesisBlock, SynthesisLayer, ToRGB
from tests.helpers import complaint, tiny_discriminator, tiny_generator, works

GENERATOR = tiny_generator()
SHIFTED = tiny_generator(c_dim=3)
ARCHITECTURES = ["skip", "resnet", "stylegan1"]


@pytest.mark.parametrize("generator", [GENERATOR, SHIFTED], ids=["plain", "conditional"])
def test_components_are_those_of_an_exact_analysis(generator: Generator) -> None:
    found = principal_components(generator, 6, samples=3000, seed=5, layers=(1, 3))
    w = sample_w(generator, 3000, seed=5).double().numpy()
    _, singular, rows = np.linalg.svd(w - w.mean(axis=0), full_matrices=False)
    shares = singular**2 / np.sum(singular**2)
    ws = torch.from_numpy(w.mean(axis=0)).float().expand(1, generator.num_ws, -1)
    for i, d in enumerate(found):
        assert d.name == f"pc-{i:02d}"
        assert abs(float(d.vector.double().numpy() @ rows[i])) == pytest.approx(1, abs=1e-6)
        assert float(d.vector[d.vector.abs().argmax()]) > 0
        assert d.report["explained"] == pytest.approx(shares[i], rel=1e-6)
        assert d.report["cumulative"] == pytest.approx(shares[: i + 1].sum(), rel=1e-6)
        assert d.sigma == pytest.approx(measure_sigma(d.vector, generator), rel=1e-5)
        assert (d.space, d.layers, d.fingerprint) == ("w", (1, 3), fingerprint(generator))
        assert float(d.score(ws)[0]) == pytest.approx(0, abs=1e-5)


def test_chunks_change_nothing() -> None:
    """Also where the mean is a thousand times the spread, which a sum of squares would not
    survive."""
    generator = tiny_generator()
    last = generator.mapping.get_submodule("fc1")
    assert isinstance(last, FullyConnected)
    with torch.no_grad():
        last.weight.mul_(1e-3)
        last.bias.add_(2.0 / last.bias_gain)
    steps: list[tuple[int, int]] = []
    whole = moments(generator, 500, seed=2, chunk=500)
    parts = moments(generator, 500, seed=2, chunk=7, progress=lambda *step: steps.append(step))
    assert steps[0] == (7, 500)
    assert steps[-1] == (500, 500)
    w = sample_w(generator, 500, seed=2).double()
    assert float(w.mean(dim=0).abs().max() / w.std(dim=0).mean()) > 100
    exact = torch.from_numpy(np.cov(w.numpy().T, bias=True) * 500)
    for mean, scatter in (whole, parts):
        torch.testing.assert_close(mean, w.mean(dim=0), rtol=1e-6, atol=0)
        # Rounding of float32 w differs between batches; of a spread of 1e-3 about 2 that is 1e-4 of
        # it.
        torch.testing.assert_close(
            scatter, exact, rtol=0, atol=3e-3 * float(exact.diagonal().max())
        )


def affines(generator: Generator) -> list[FullyConnected]:
    """One a row of ws."""
    found = [layer.affine for layer in generator.synthesis.layers]
    rgb = generator.synthesis.blocks[-1].torgb
    return [*found, rgb.affine] if isinstance(rgb, ToRGB) else found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_factorised_directions_move_styles_most(architecture: str) -> None:
    generator = tiny_generator(architecture=architecture)
    assert len(affines(generator)) == generator.num_ws
    for layers in (None, (1, 2), (generator.num_ws - 1, generator.num_ws - 1)):
        found = factorised(generator, 4, layers=layers)
        first, last = layers or (0, generator.num_ws - 1)
        rows = np.concatenate(
            [a.weight.double().numpy() for a in affines(generator)[first : last + 1]]
        )
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        values, vectors = np.linalg.eigh(rows.T @ rows)
        for i, d in enumerate(found):
            assert (d.name, d.layers) == (f"sefa-{i:02d}", layers)
            assert d.report["eigenvalue"] == pytest.approx(values[-1 - i], rel=1e-6)
            assert d.report["share"] == pytest.approx(values[-1 - i] / len(rows), rel=1e-6)
            assert abs(float(d.vector.double().numpy() @ vectors[:, -1 - i])) == pytest.approx(
                1, abs=1e-5
            )
            assert d.sigma == pytest.approx(measure_sigma(d.vector, generator), rel=1e-5)

        def moved(vector: torch.Tensor, first: int = first, last: int = last) -> float:
            """What the network itself makes of a step: its styles, each in units of its row's
            length."""
            ws = torch.zeros(2, generator.num_ws, generator.w_dim)
            ws[1] = vector
            total = 0.0
            for affine in affines(generator)[first : last + 1]:
                with torch.no_grad():
                    before, after = affine(ws[:, 0])
                lengths = affine.weight.norm(dim=1) * affine.weight_gain
                total += float(((after - before) / lengths).square().sum())
            return total

        torch.manual_seed(0)
        others = [
            torch.nn.functional.normalize(torch.randn(generator.w_dim), dim=0) for _ in range(50)
        ]
        assert moved(found[0].vector) == pytest.approx(found[0].report["eigenvalue"], rel=1e-4)
        assert moved(found[0].vector) > max(moved(other) for other in others)


def test_factorisation_looks_only_at_its_layers_and_not_at_lengths() -> None:
    generator = tiny_generator()
    planted = torch.nn.functional.normalize(torch.arange(12.0) - 3, dim=0)
    with torch.no_grad():
        for affine in affines(generator)[2:4]:
            affine.weight.add_(20 * planted)
    assert abs(float(factorised(generator, 1, layers=(2, 3))[0].vector @ planted)) > 0.99
    assert abs(float(factorised(generator, 1, layers=(0, 1))[0].vector @ planted)) < 0.9
    before = factorised(generator, 2, layers=(0, 1))
    # an equal network: a channel's style times 100, what it modulates over 100; and a channel
    # without w
    with torch.no_grad():
        layer = generator.synthesis.layers[0]
        assert isinstance(layer, SynthesisLayer)
        layer.affine.weight[3] *= 100
        layer.affine.bias[3] *= 100
        layer.weight[:, 3] /= 100
    after = factorised(generator, 2, layers=(0, 1))
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a.vector, b.vector, atol=1e-5, rtol=0)
    with torch.no_grad():
        layer.affine.weight[3] = 0
    assert bool(factorised(generator, 1, layers=(0, 1))[0].vector.isfinite().all())


def changes(
    generator: Generator, w: torch.Tensor, std: torch.Tensor, channel: int, step: float
) -> torch.Tensor:
    """Mean square change ``[8, 8]`` by rendering both sides, for one standard deviation."""
    ws = w[:, None].expand(-1, generator.num_ws, -1)
    sizes = [size for _, size in generator.synthesis.style_layers]
    offset = torch.zeros(len(std))
    offset[channel] = step * std[channel]
    ends = [
        render(generator, ws, "const", [o[None] for o in (sign * offset).split(sizes)])
        for sign in (1, -1)
    ]
    change = ((ends[0] - ends[1]) / (2 * step)).square().mean(dim=(0, 1))
    side = len(change) // GRID
    return change.reshape(GRID, side, GRID, side).mean(dim=(1, 3)).double()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_screening_agrees_with_finite_differences(architecture: str) -> None:
    generator = tiny_generator(architecture=architecture)
    _, std = style_statistics(generator)
    w = sample_w(generator, 24, seed=4)
    estimate = screen(generator, w, std)
    channels = range(0, len(std), 7)
    exact = torch.stack([changes(generator, w, std, c, 0.01) for c in channels])
    found = estimate[list(channels)]
    effects, rendered = found.mean(dim=(1, 2)).sqrt(), exact.mean(dim=(1, 2)).sqrt()
    seen = rendered > 1e-6
    assert int(seen.sum()) >= 5
    ratio = effects[seen] / rendered[seen]
    assert float(ratio.min()) > 0.75
    assert float(ratio.max()) < 1.3
    assert float(ratio.log().mean().abs()) < 0.1
    maps = torch.corrcoef(torch.stack([found[seen].flatten().sqrt(), exact[seen].flatten().sqrt()]))
    assert float(maps[0, 1]) > 0.9


def test_channels_are_measured_by_rendering() -> None:
    found = style_channels(GENERATOR, 4, sampling=Sampling(12, 2.0, 0.5, 4))
    mean, std = style_statistics(GENERATOR)
    w = GENERATOR.mapping.w_avg + 0.5 * (sample_w(GENERATOR, 12, seed=4) - GENERATOR.mapping.w_avg)
    ws = sample_w(GENERATOR)[:, None].expand(-1, GENERATOR.num_ws, -1)
    worth = []
    for d in found:
        channel = int(d.vector.argmax())
        assert (d.space, float(d.vector.sum())) == ("s", 1.0)
        assert d.scale is not None
        assert torch.equal(d.scale, std)
        layer = int(
            np.searchsorted(
                np.cumsum([s for _, s in GENERATOR.synthesis.style_layers]), channel, side="right"
            )
        )
        start = sum(size for _, size in GENERATOR.synthesis.style_layers[:layer])
        assert d.name == f"s-{layer:02d}-{channel - start:03d}"
        assert d.layers == (GENERATOR.synthesis.style_layers[layer][0],) * 2
        energy = changes(GENERATOR, w, std, channel, 2.0)
        assert d.report["effect"] == pytest.approx(float(energy.mean().sqrt()), rel=1e-3)
        assert d.report["locality"] == pytest.approx(
            float(energy.flatten().topk(16).values.sum() / energy.sum()), rel=1e-3
        )
        rows = float((energy.sum(dim=1) * torch.arange(0.5, 8)).sum() / energy.sum()) / 8
        assert d.report["place"][0] == pytest.approx(rows, abs=1e-3)
        assert d.sigma == pytest.approx(1, abs=1e-3)
        scores = d.score(ws, GENERATOR)
        assert float(scores.std()) == pytest.approx(d.sigma, rel=1e-3)
        assert float(scores.mean()) == pytest.approx(0, abs=1e-3)
        worth.append(d.report["effect"] * (d.report["locality"] - 0.25) ** 2)
    assert worth == sorted(worth, reverse=True)
    assert mean.shape == std.shape


def test_a_planted_place_is_local_and_dead_channels_are_left_out() -> None:
    generator = tiny_generator()
    block = generator.synthesis.blocks[-1]
    assert isinstance(block, SynthesisBlock)
    assert isinstance(block.torgb, ToRGB)
    with torch.no_grad():
        # Maps 0 and 1 of the last layer: light in one corner, by the noise input, and light
        # everywhere, by the bias.
        block.conv1.weight[:2] = 0
        block.conv1.noise_strength.fill_(1.0)
        block.conv1.noise_const.zero_()
        block.conv1.noise_const[12:, :4] = 5.0
        block.conv1.bias[0], block.conv1.bias[1] = 0.0, 5.0
        block.torgb.weight[:, :2] = 3.0
        block.torgb.affine.weight[2] = 0
    last = generator.num_ws - 1
    width = generator.synthesis.style_layers[-1][1]
    found = {
        d.name: d
        for d in style_channels(generator, width - 1, sampling=Sampling(4), layers=(last, last))
    }
    number = len(generator.synthesis.style_layers) - 1
    assert set(found) == {f"s-{number:02d}-{c:03d}" for c in range(width) if c != 2}
    corner, everywhere = found[f"s-{number:02d}-000"], found[f"s-{number:02d}-001"]
    assert corner.report["locality"] == pytest.approx(1, abs=1e-4)
    assert corner.report["place"] == pytest.approx([0.875, 0.125], abs=0.01)
    assert everywhere.report["locality"] < 0.5
    assert everywhere.report["place"] == pytest.approx([0.5, 0.5], abs=0.1)
    assert corner.report["effect"] < everywhere.report["effect"]
    # Dead channels never turn a score to NaN, whatever a file has as their scale.
    assert corner.scale is not None
    assert float(corner.scale.min()) > 0
    ws = sample_w(generator, 2)[:, None].expand(-1, generator.num_ws, -1)
    zero = replace(corner, scale=style_statistics(generator)[1])
    assert zero.scale is not None
    assert float(zero.scale.min()) == 0
    torch.testing.assert_close(zero.score(ws, generator), corner.score(ws, generator))
    with pytest.raises(
        Error, match=f"count from 1 to {width - 1}, the number of style channels that vary"
    ):
        style_channels(generator, width, sampling=Sampling(1), layers=(last, last))


def test_a_discriminator_says_whether_channels_stay_real() -> None:
    discriminator = tiny_discriminator()
    found = style_channels(GENERATOR, 2, discriminator=discriminator, sampling=Sampling(3))
    ws = GENERATOR.mapping(sample_z(0, GENERATOR.z_dim, 3), None, 0.7)
    base = discriminator(render(GENERATOR, ws))
    ends = [
        discriminator(render(GENERATOR, ws, "const", edit_styles(GENERATOR, [], found[0], a)))
        for a in (-3.0, 3.0)
    ]
    assert found[0].report["realism"] == pytest.approx(
        float((sum(ends) / 2 - base).mean()), abs=1e-3
    )
    assert "realism" not in style_channels(GENERATOR, 1, sampling=Sampling(1))[0].report


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: principal_components(GENERATOR, 13),
            "count from 1 to 12, the number of dimensions of w, got 13",
        ),
        (lambda: principal_components(GENERATOR, 0), "count from 1 to 12"),
        (
            lambda: principal_components(GENERATOR, 5, samples=5),
            "5 components need more than 5 samples, got 5",
        ),
        (
            lambda: principal_components(GENERATOR, 5, layers=(3, 9)),
            "layers 3-9 lie outside this network",
        ),
        (lambda: factorised(GENERATOR, 0), "count from 1 to 12"),
        (lambda: factorised(GENERATOR, 1, layers=(-1, 2)), "lie outside this network"),
        (
            lambda: style_channels(GENERATOR, 10_000),
            "number of style channels that vary in these layers, got 10000",
        ),
        (lambda: style_channels(GENERATOR, 1, layers=(2, 1)), "lie outside this network"),
        (lambda: style_channels(GENERATOR, 1, sampling=Sampling(0)), "at least 1 sample"),
        (lambda: style_channels(GENERATOR, 1, sampling=Sampling(amount=0.0)), "an amount above 0"),
        (lambda: sweep_sheet(GENERATOR, [], [1.0]), "at least one direction"),
        (
            lambda: parse_amounts("1:inf:3", "--amounts takes FROM:TO:COUNT"),
            "--amounts takes FROM:TO:COUNT with a COUNT of 2 to 50",
        ),
    ],
)
def test_what_cannot_be_found(make: object, message: str) -> None:
    with pytest.raises(Error, match=message) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def some_direction(space: str, generator: Generator = GENERATOR) -> Direction:
    sizes = {"w": generator.w_dim, "z": generator.z_dim}
    if space == "s":
        return style_channels(generator, 1, sampling=Sampling(1))[0]
    shape = (generator.num_ws, generator.w_dim) if space == "w+" else (sizes[space],)
    torch.manual_seed(3)
    vector = torch.randn(shape)
    return Direction("d", vector / vector.norm(), 0.5, 0.8, fingerprint(generator), space=space)


def test_files_of_every_space(tmp_path: Path) -> None:
    for space in ("z", "w", "w+", "s"):
        d = some_direction(space)
        d.save(tmp_path / "d.safetensors")
        again = load_direction(tmp_path / "d.safetensors")
        assert torch.equal(again.vector, d.vector)
        assert (again.scale is None) == (d.scale is None)
        assert d.scale is None or (again.scale is not None and torch.equal(again.scale, d.scale))
        for name in (
            "name",
            "space",
            "intercept",
            "sigma",
            "layers",
            "report",
            "provenance",
            "fingerprint",
        ):
            assert getattr(again, name) == getattr(d, name)


def cells(sheet: Image.Image, columns: int, lines: int = 1) -> list[list[torch.Tensor]]:
    """Pictures of a sheet, 128 px each, brought back to 16 px.

    Args:
        lines: of pictures below every title, of which the first has captions.
    """
    line = 128 + 2 * MARGIN
    block = 2 * TEXT + lines * line
    blocks = (sheet.height - MARGIN) // block
    tops = [MARGIN + 2 * TEXT + block * b + line * n for b in range(blocks) for n in range(lines)]
    corners = [[(MARGIN + (128 + MARGIN) * c, top) for c in range(columns)] for top in tops]
    return [
        [load_image(sheet.crop((x, y, x + 128, y + 128)), 16, 1) for x, y in row] for row in corners
    ]


@torch.no_grad()
def test_a_sheet_shows_the_moved_pictures() -> None:
    generator, amounts = GENERATOR, [-2.0, 0.0, 2.0]
    # Without a report, whose figures would make a title of two lines.
    directions = [replace(some_direction(s), report={}) for s in ("z", "w", "w+", "s")]
    sheet = sweep_sheet(generator, directions, amounts, seeds=(3, 4), psi=0.5)
    shown = cells(sheet, 3, lines=2)
    assert len(shown) == 8
    for d, first, second in zip(directions, shown[::2], shown[1::2], strict=True):
        row = [*first, *second]
        for i, seed in enumerate((3, 4)):
            z = sample_z(seed, generator.z_dim)
            ws = generator.mapping(z, None, 0.5)
            for j, amount in enumerate(amounts):
                styles: list[torch.Tensor] = []
                moved = ws
                if d.space == "z":
                    moved = generator.mapping(z + amount * d.sigma * d.vector, None, 0.5)
                elif d.space == "s":
                    styles = edit_styles(generator, [], d, amount)
                else:
                    moved = edit(ws, d, amount)
                expected = render(generator, moved, "const", styles).clamp(-1, 1)
                assert float((row[3 * i + j] - expected).abs().mean()) < 0.05, (
                    d.space,
                    seed,
                    amount,
                )
        assert float((row[0] - row[1]).abs().mean()) > 0.06, d.space
    # From a latent: one base, and held scores.
    latent = Latent(generator.mapping(sample_z(5, generator.z_dim)), None, "", "w")
    assert sweep_sheet(generator, directions[1:3], amounts, latent=latent).width == 6 + 3 * 134
    held = move_latent(generator, latent, directions[1], 2.0, hold=[directions[2]])
    assert float(directions[2].score(held.ws) - directions[2].score(latent.ws)) == pytest.approx(
        0, abs=1e-5
    )
    for wrong in (dict(latent=latent), dict(hold=[directions[1]])):
        with pytest.raises(Error, match="the z of a latent is unknown"):
            sweep_sheet(generator, directions[:1], amounts, **wrong)
    with pytest.raises(Error, match="only directions in w and w"):
        sweep_sheet(generator, directions[3:], amounts, hold=[directions[1]])
    with pytest.raises(Error, match="does not fit z of 7 numbers"):
        sweep_sheet(tiny_generator(z_dim=7), directions[:1], amounts)


def test_large_pictures_are_reduced() -> None:
    generator = tiny_generator(resolution=512, channel_base=512, channel_max=4)
    sheet = sweep_sheet(generator, [some_direction("w", generator)], [0.0, 1.0], seeds=(0,))
    assert sheet.width == 6 + 2 * (256 + 6)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def folder_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LATENTEDIT_DIRECTIONS", str(tmp_path / "own"))
    return tmp_path / "own"


def test_commands_find_directions_and_draw_them(tmp_path: Path, tiny_file: Path) -> None:
    common = ("--model", tiny_file, "--seeds", "0-1", "--amounts", "-2:2:3")
    works(
        "directions",
        "pca",
        *common,
        "--count",
        3,
        "--samples",
        500,
        "--layers",
        "0-2",
        "--out",
        tmp_path / "pca",
    )
    works(
        "directions", "sefa", *common, "--count", 2, "--layers", "1-2", "--out", tmp_path / "sefa"
    )
    works(
        "directions",
        "channels",
        *common,
        "--count",
        3,
        "--samples",
        2,
        "--layers",
        "1-2",
        "--out",
        tmp_path / "s",
    )
    generator = load_generator(tiny_file)
    expected = principal_components(generator, 3, samples=500, layers=(0, 2))
    for d in expected:
        torch.testing.assert_close(
            load_direction(tmp_path / "pca" / f"{d.name}.safetensors").vector, d.vector
        )
    assert load_direction(tmp_path / "sefa" / "sefa-01.safetensors").layers == (1, 2)
    channels = sorted((tmp_path / "s").glob("s-*.safetensors"))
    assert len(channels) == 3
    assert all(load_direction(path).report["realism"] is not None for path in channels)
    # a line a seed: the first with title and captions, the second with pictures alone; the titles
    # of channels take two lines of 18 pixels
    for folder, count, more in (("pca", 3, 0), ("sefa", 2, 0), ("s", 3, 18)):
        size = 6 + 3 * 134, 6 + count * (176 + more + 140)
        assert size_of(tmp_path / folder / "sheet.png") == size
    works(
        "directions",
        "sheet",
        channels[0],
        tmp_path / "pca" / "pc-00.safetensors",
        *common,
        "--out",
        tmp_path / "two.png",
    )
    assert size_of(tmp_path / "two.png") == (6 + 3 * 134, 6 + 18 + 2 * (176 + 140))
    assert "pc-00: " in title(expected[0])
    assert "layers 0-2" in title(expected[0])
    networks_file().unlink()  # else the network is found again
    for words, message in [
        (("sheet", channels[0]), "needs the generator .*name its file with --model"),
        (("pca", "--count", 13, "--model", tiny_file), "count from 1 to 12"),
        (("pca", "--amounts", "1:2", "--model", tiny_file), "--amounts takes FROM:TO:COUNT"),
        (("sefa", "--layers", "3-9", "--model", tiny_file), "layers 3-9 lie outside"),
        (("sefa", "--seeds", "0-20", "--model", tiny_file), "at most 20 seeds"),
        (("sheet", "absent"), "absent: no direction file"),
    ]:
        assert re.search(message, complaint("directions", *words, "--out", tmp_path / "bad.png")), (
            message
        )
    assert not (tmp_path / "bad.png").exists()


def test_naming(tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = folder_of(tmp_path, monkeypatch)
    generator = load_generator(tiny_file)
    component = principal_components(generator, 2, samples=300)[1]
    path = tmp_path / "pc-01.safetensors"
    component.save(path)
    result = works(
        "directions", "name", path, "beard", "--flip", "--layers", "1-2", "--model", tiny_file
    )
    assert str(own / "beard.safetensors") in result.output
    named = load_direction("beard", fingerprint(generator))
    assert torch.equal(named.vector, -component.vector)
    assert named.intercept == -component.intercept
    assert (named.name, named.layers, named.sigma) == ("beard", (1, 2), component.sigma)
    assert (named.provenance["named_from"], named.provenance["flipped"]) == ("pc-01", True)
    assert named.provenance["method"] == "pca"
    assert named.report == component.report
    ws = sample_w(generator, 2)[:, None].expand(-1, generator.num_ws, -1)
    whole = load_direction(path)
    works("directions", "name", path, "back", "--flip", "--out", tmp_path / "back.safetensors")
    back = load_direction(tmp_path / "back.safetensors")
    torch.testing.assert_close(back.score(ws), -whole.score(ws))
    # A name that is in use, there or among those that ship.
    assert "beard.safetensors exists" in complaint("directions", "name", path, "beard")
    assert torch.equal(load_direction("beard").vector, -component.vector)
    works("directions", "name", path, "beard", "--force")
    assert torch.equal(load_direction("beard").vector, component.vector)
    assert "back.safetensors exists" in complaint(
        "directions", "name", path, "x", "--out", tmp_path / "back.safetensors"
    )
    networks_file().unlink()  # else the network is found again
    for words, message in [
        (("x", "--layers", "0-2"), "name its file with --model"),
        (("a b",), "letters, digits"),
        (("../x",), "letters, digits"),
        (("x", "--layers", "0-99", "--model", tiny_file), "layers 0-99 lie outside"),
        (("x", "--out", tmp_path / "x.png"), "must end in .safetensors"),
    ]:
        assert message in complaint("directions", "name", path, *words)
    channel = style_channels(generator, 1, sampling=Sampling(1), layers=(2, 2))[0]
    channel.save(tmp_path / "s.safetensors")
    text = complaint(
        "directions",
        "name",
        tmp_path / "s.safetensors",
        "x",
        "--layers",
        "0-1",
        "--model",
        tiny_file,
    )
    assert "is in layers 2-2, outside of 0-1" in text
    assert sorted(file.name for file in own.iterdir()) == ["beard.safetensors"]


def test_names_of_shipped_directions_are_taken(
    tmp_path: Path, faces128: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = folder_of(tmp_path, monkeypatch)
    factorised(faces128.generator, 1)[0].save(tmp_path / "sefa.safetensors")
    assert "a bundled direction has the name turn" in complaint(
        "directions", "name", tmp_path / "sefa.safetensors", "turn"
    )
    assert not own.exists()
    works(
        "directions", "name", tmp_path / "sefa.safetensors", "turn", "--force", "--layers", "fine"
    )
    assert load_direction("turn", fingerprint(faces128.generator)).layers == (
        8,
        faces128.generator.num_ws - 1,
    )
    # another generator: nothing of that name ships
    factorised(GENERATOR, 1)[0].save(tmp_path / "other.safetensors")
    (own / "turn.safetensors").unlink()
    works("directions", "name", tmp_path / "other.safetensors", "turn")


@pytest.fixture
def edited(tmp_path: Path, tiny_file: Path) -> tuple[Generator, Latent, Path, dict[str, Path]]:
    """A latent and directions of every space, in files."""
    generator = load_generator(tiny_file)
    latent = Latent(generator.mapping(sample_z(1, 12)), None, fingerprint(generator), "w")
    save_latent(tmp_path / "me.safetensors", latent)
    paths = {}
    for space in ("z", "w", "s"):
        paths[space] = tmp_path / f"{space}.safetensors"
        some_direction(space, generator).save(paths[space])
    return generator, latent, tmp_path / "me.safetensors", paths


def test_editing_along_style_directions(
    tmp_path: Path, tiny_file: Path, edited: tuple[Generator, Latent, Path, dict[str, Path]]
) -> None:
    generator, latent, file, paths = edited
    model, out = ("--model", tiny_file), tmp_path / "out.safetensors"
    d, w = load_direction(paths["s"]), load_direction(paths["w"])
    works(
        "edit", file, *model, "--set", f"{paths['s']}=2", "--set", f"{paths['w']}=1", "--out", out
    )
    moved = load_latent(out)
    assert moved.space == "s"
    torch.testing.assert_close(moved.ws, edit(latent.ws, w, 1.0))
    for offset, expected in zip(moved.styles, edit_styles(generator, [], d, 2.0), strict=True):
        torch.testing.assert_close(offset, expected)
    # On from there, to a score: the earlier offsets count.
    works("edit", out, *model, "--set", f"{paths['s']}=:1.5", "--out", tmp_path / "on.safetensors")
    moved = load_latent(tmp_path / "on.safetensors")
    assert float(d.score(moved.ws, generator, moved.styles)[0]) / d.sigma == pytest.approx(
        1.5, abs=1e-4
    )
    assert [edit.rpartition("=")[2] for edit in moved.settings["edits"]] == ["2", "1", ":1.5"]
    # Rows that are not the channel's: nothing moves.
    other = (d.layers[0] + 1) % generator.num_ws if d.layers else 0
    works("edit", file, *model, "--set", f"{paths['s']}=2@{other}", "--out", out)
    assert not any(bool(offset.any()) for offset in load_latent(out).styles)
    # The sweep draws what the sliders make.
    works("edit", file, *model, "--sweep", f"{paths['s']}=-3:3:2", "--out", tmp_path / "strip.png")
    works("edit", file, *model, "--set", f"{paths['s']}=3", "--out", tmp_path / "end.png")
    with Image.open(tmp_path / "strip.png") as strip:
        (row,) = cells(strip, 2)
    end = load_image(tmp_path / "end.png", 16, 1)
    assert float((row[1] - end).abs().mean()) < 0.05
    assert float((row[0] - end).abs().mean()) > 0.06
    for words, message in [
        (("--set", f"{paths['z']}=1"), "the z of a latent is unknown"),
        (("--set", f"{paths['z']}=:1"), "the z of a latent is unknown"),
        (("--sweep", f"{paths['z']}=-1:1:3"), "the z of a latent is unknown"),
        (
            ("--set", f"{paths['s']}=1", "--hold", paths["w"]),
            "only directions in w and w+ can be held",
        ),
        (
            ("--set", f"{paths['w']}=1", "--hold", paths["s"]),
            "only directions in w and w+ can be held",
        ),
    ]:
        assert message in complaint("edit", file, *model, *words, "--out", tmp_path / "bad.png")
    assert not (tmp_path / "bad.png").exists()
    assert "the z of a latent is unknown" in complaint(
        "directions", "sheet", paths["z"], "--latent", file, *model, "--out", tmp_path / "bad.png"
    )
