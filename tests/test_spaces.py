"""Latent spaces know their coordinates, scores, moves and the standard deviation of a score."""

import ast
from pathlib import Path

import pytest
import torch

from latentedit.directions import Direction, LabelledLatents, ProbeOptions, fit, fit_probe
from latentedit.errors import ArgumentError
from latentedit.latent.spaces import SPACES, W_PLUS, S, W, Z, space_of, space_of_latent
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator, GeneratorConfig

TOP = Path(__file__).parents[1]
CONFIG = GeneratorConfig(
    resolution=16, z_dim=6, w_dim=5, channel_base=64, channel_max=8, mapping_layers=2
)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(3)
    return Generator(CONFIG).eval().requires_grad_(False)


def test_spaces_are_found_by_name() -> None:
    assert [space_of(name) for name in ("z", "w", "w+", "s")] == [Z, W, W_PLUS, S]
    assert all(space.name == name for name, space in SPACES.items())
    with pytest.raises(ArgumentError, match=r"space must be one of z, w, w\+, s, got 'x'"):
        space_of("x")


def test_rows_are_what_embed_puts_back(generator: Generator) -> None:
    """With ``v`` embedded, the inner product with the whole latent is that of the features."""
    ws = torch.randn(3, generator.num_ws, 5)
    at = W_PLUS.coordinates(generator, (1, 2))
    features = torch.randn(10)
    assert W_PLUS.rows(generator, ws, at).shape == (3, 10)
    expected = W_PLUS.rows(generator, ws, at) @ features
    assert torch.allclose((ws * at.embed(features)).sum(dim=(1, 2)), expected, atol=1e-5)

    at = W.coordinates(generator, (1, 2))
    assert torch.allclose(W.rows(generator, ws, at), (ws[:, 1] + ws[:, 2]) / 2)


def test_style_channels_that_never_vary_are_not_seen(generator: Generator) -> None:
    at = S.coordinates(generator, (0, 0))
    sizes = [size for row, size in generator.synthesis.style_layers if row == 0]
    assert int(at.seen.sum()) <= sum(sizes)
    assert at.scale is not None
    assert bool((at.scale > 0).all())


@pytest.mark.parametrize("name", ["w", "w+", "s"])
def test_a_move_by_one_sigma_raises_the_score_by_one_sigma(generator: Generator, name: str) -> None:
    space = space_of(name)
    at = space.coordinates(generator)
    vector = torch.randn(int(at.seen.sum()))
    vector = at.embed(vector / vector.norm())
    sigma = space.sigma(generator, vector, at.scale)
    direction = Direction(
        "d", vector, 0.25, sigma, fingerprint(generator), space=name, scale=at.scale
    )
    ws = torch.randn(2, generator.num_ws, 5)
    before = space.score(generator, ws, [], direction, 0.25)
    moved, styles = space.move(generator, ws, [], direction, 1.0)
    assert torch.allclose(
        space.score(generator, moved, styles, direction, 0.25) - before,
        torch.tensor(sigma),
        rtol=1e-3,
    )


def test_sigma_of_z_is_the_length_of_the_vector(generator: Generator) -> None:
    assert Z.sigma(generator, torch.tensor([2.0, 0, 0, 0, 0, 0])) == pytest.approx(2, rel=0.03)
    with pytest.raises(ArgumentError, match="edits all layers"):
        Z.coordinates(generator, (0, 1))


def test_the_space_of_a_latent() -> None:
    ws = torch.randn(1, 1, 5).expand(1, 4, 5)
    assert space_of_latent(ws, []) is W
    assert space_of_latent(torch.randn(1, 4, 5), []) is W_PLUS
    assert space_of_latent(ws, [torch.zeros(1, 8)]) is S


def test_the_short_form_fits_what_labelled_latents_fit(generator: Generator) -> None:
    ws = torch.randn(60, generator.num_ws, 5)
    labels = (ws[:, 1, 0] > 0).double().numpy()
    short = fit(ws, labels, generator=generator, space="w+", layers=(0, 2), strength=0.1, name="x")
    samples = LabelledLatents(ws, labels, facts={"method": "planted"})
    long = fit_probe(
        samples, generator, ProbeOptions(space="w+", layers=(0, 2), strength=0.1), name="x"
    )
    assert torch.equal(short.vector, long.vector)
    assert (short.intercept, short.sigma, short.layers) == (long.intercept, long.sigma, long.layers)
    assert long.report == {**short.report, "method": "planted"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "tree"}, "probe must be one of"),
        ({"space": "x"}, "space must be one of"),
        ({"confident": 0.0}, "confident share must be above 0"),
    ],
)
def test_probe_options_are_checked_when_they_are_made(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        ProbeOptions(**options)  # type: ignore[arg-type]


def test_directions_ask_the_space_instead_of_its_name() -> None:
    """No module of directions compares a space with a text."""
    found = []
    for path in sorted((TOP / "directions").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and ast.unparse(node.left).endswith("space"):
                right = ast.unparse(node.comparators[0])
                found += [f"{path.name}:{node.lineno}"] * any(
                    f"'{name}'" in right for name in SPACES
                )
    assert not found
