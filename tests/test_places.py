"""Where in pictures a direction acts, with directions made to act on the border, or on the face,
alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from latentedit.cli.main import main
from latentedit.directions import Direction
from latentedit.directions.places import AROUND, places
from latentedit.directions.sigma import measure_sigma
from latentedit.inversion.face_weights import within_face
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.latent.w_statistics import sample_w
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.synthesis import SynthesisNetwork
from latentedit.photo.framing import FRAMINGS
from tests.helpers import tiny_discriminator, tiny_generator

GENERATOR = tiny_generator()
FFHQ = FRAMINGS["ffhq"]


def area(times: float = 1.0) -> torch.Tensor:
    found = within_face(FFHQ, GENERATOR.resolution, times)
    assert found is not None
    return found


BORDER, FACE, BOTH = (
    torch.eye(12)[0],
    torch.eye(12)[1],
    torch.tensor([1.0, 1.0, *[0.0] * 10]) / 2**0.5,
)


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generators paint the first number of w on the border and the second one on the face."""

    def paint(self: SynthesisNetwork, ws: torch.Tensor, noise: object = "const") -> torch.Tensor:
        first, second = (ws.mean(dim=1)[:, i, None, None, None] for i in (0, 1))
        return (first * ~area(AROUND) + second * area()) / 100

    monkeypatch.setattr(SynthesisNetwork, "forward", paint)


def direction(vector: torch.Tensor) -> Direction:
    return Direction("hat", vector, 0.0, measure_sigma(vector, GENERATOR), fingerprint(GENERATOR))


def test_areas_are_where_the_framing_has_the_face() -> None:
    face, head = area(), area(AROUND)
    side = GENERATOR.resolution
    assert face[round(0.475 * side), round(0.375 * side)]  # an eye
    assert face[round(0.74 * side), side // 2]  # the mouth
    assert not head[0, 0]
    assert not head[0, -1]
    assert bool(head[face].all())
    assert within_face(None, side) is None


@pytest.mark.parametrize(("vector", "behind"), [(BORDER, True), (FACE, False), (BOTH, False)])
def test_a_direction_of_the_border_is_told_from_one_of_the_face(
    painted: None, vector: torch.Tensor, behind: bool
) -> None:
    one = direction(vector)
    found = places(GENERATOR, one, FFHQ)
    assert found is not None
    assert found.mainly_behind == behind
    step = 2 * one.sigma * 127.5 / 100  # from -1 to +1 sigma
    assert found.border == pytest.approx(step * float(vector[0]), abs=0.01)
    assert found.face == pytest.approx(step * float(vector[1]), abs=0.01)


def test_nothing_is_said_where_no_framing_is_known() -> None:
    one = direction(BORDER)
    assert places(GENERATOR, one, None) is None
    assert places(GENERATOR, one, {"kind": "centre"}) is None
    wide = {"eyes": [[0.0, 0.5], [1.0, 0.5]]}  # the head fills the crop
    assert places(GENERATOR, one, wide) is None


@pytest.mark.parametrize("space", ["z", "w+", "s"])
def test_every_space_has_places(space: str) -> None:
    from latentedit.directions import fit

    w = sample_w(GENERATOR, 60)
    latents = (
        w
        if space != "z"
        else torch.randn(60, GENERATOR.z_dim, generator=torch.Generator().manual_seed(0))
    )
    labels = (latents @ torch.ones(12) > (latents @ torch.ones(12)).median()).double().numpy()
    found = places(GENERATOR, fit(latents, labels, generator=GENERATOR, space=space), FFHQ)
    assert found is not None
    assert found.face > 0
    assert found.border > 0


def fitted(folder: Path, vector: torch.Tensor, *options: str) -> str:
    """What `directions fit` says of labels planted along ``vector``."""
    model = folder / "tiny.safetensors"
    save_model(model, Model(GENERATOR, tiny_discriminator(), FFHQ, {}))
    w = sample_w(GENERATOR, 80, seed=3)
    level = w @ vector
    studios = np.random.default_rng(0).integers(0, 2, len(w))
    rows = ["file,hat,studio"]
    for i, row in enumerate(w):
        path = folder / f"{i}.safetensors"
        save_latent(
            path,
            Latent(
                row[None, None].repeat(1, GENERATOR.num_ws, 1), None, fingerprint(GENERATOR), "w"
            ),
        )
        rows.append(f"{path.name},{int(level[i] > level.median())},{studios[i]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    line = [
        "directions",
        "fit",
        str(folder / "labels.csv"),
        "--column",
        "hat",
        "--model",
        str(model),
        *options,
    ]
    result = CliRunner().invoke(main, [*line, "--out", str(folder / "hat.safetensors")])
    assert result.exit_code == 0, result.output
    return result.stderr


def test_the_command_says_when_a_slider_moves_the_background(painted: None, tmp_path: Path) -> None:
    told = fitted(tmp_path, BORDER)
    assert "hat: the slider moves mainly the background, by " in told
    assert "--balance with a column of the background or the collection" in told


def test_with_balance_it_advises_another_column(painted: None, tmp_path: Path) -> None:
    told = fitted(tmp_path, BORDER, "--balance", "studio")
    assert "these labels go along with something else than the columns of --balance" in told


def test_a_slider_of_the_face_is_not_remarked_upon(painted: None, tmp_path: Path) -> None:
    assert "background" not in fitted(tmp_path, FACE)
