"""Drags of faces by landmarks and sliders: with landmarks that follow from the image in a known
way, and with dlib's."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from latentedit.cli.drag import FRAMES
from latentedit.directions.face_drag import (
    FARTHEST,
    Array,
    Guide,
    face_drag,
    goes_by_landmarks,
    guide_for,
    landmarks_of,
    on_face,
)
from latentedit.errors import Error
from latentedit.latent.dragging import DragOptions, DragStep, Handle, finished
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.model.model import Model
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.landmarks import has_landmarks
from tests.helpers import complaint, tiny_generator, works

BASE = np.stack(np.meshgrid(np.linspace(2, 13, 17), np.linspace(4, 12, 4)), axis=-1).reshape(68, 2)


def finder(image: Tensor) -> Array:
    """Landmarks that go right as the image gets lighter, and down as its upper half does."""
    light = float(image.mean())
    upper = float(image[:, :, : image.shape[2] // 2].mean())
    return np.asarray(BASE + np.array([8 * light, 8 * (upper - light)]))


def example(find: object = finder) -> tuple[Latent, Guide]:
    generator = tiny_generator()
    torch.manual_seed(1)
    ws = generator.mapping(torch.randn(1, generator.z_dim))
    moves = torch.randn(4, 1, generator.w_dim).expand(-1, generator.num_ws, -1)
    return Latent(ws, None, fingerprint(generator), "w+"), Guide(find, moves)  # type: ignore[arg-type]


def where(latent: Latent) -> Array:
    return finder(latent.render(tiny_generator()))


def steps(handles: list[Handle], find: object = finder) -> list[DragStep]:
    latent, guide = example(find)
    found = face_drag(tiny_generator(), latent, handles, guide)
    assert found is not None
    return list(found)


def test_sliders_bring_handles_to_their_targets() -> None:
    latent, guide = example()
    x, y = (float(round(value)) for value in where(latent)[20])
    handles = [Handle((x, y), (x + 1.5, y)), Handle((x, y + 2), (x + 1.5, y + 2))]
    way = steps(handles)
    assert way[0].points == tuple(handle.start for handle in handles)
    assert [step.number for step in way] == list(range(len(way)))
    assert way[-1].number <= way[-1].total == guide.steps
    assert way[-1].farthest <= 1.0 < way[0].farthest
    result = finished(latent, handles, way[-1])
    moved = where(result.latent) - where(latent)
    assert moved[20, 0] == pytest.approx(1.5, abs=1.0)
    # in the span of the sliders, and not far
    change = (result.latent.ws - latent.ws)[0, 0]
    amounts = torch.linalg.lstsq(guide.moves[:, 0].t(), change[:, None]).solution[:, 0]
    torch.testing.assert_close(guide.moves[:, 0].t() @ amounts, change, atol=1e-4, rtol=0)
    assert float(amounts.abs().max()) <= FARTHEST + 1e-4


def test_sliders_stop_at_what_is_safe() -> None:
    latent, guide = example()
    latent.safe = {"a": (-0.25, 0.5), "b": (0.0, 0.0), "elsewhere": (0.0, 0.0)}
    guide = replace(guide, names=("a", "b", "c", "d"))
    x, y = (float(round(value)) for value in where(latent)[20])
    found = face_drag(tiny_generator(), latent, [Handle((x, y), (x + 6, y))], guide)
    assert found is not None
    change = (list(found)[-1].ws - latent.ws)[0, 0]
    amounts = torch.linalg.lstsq(guide.moves[:, 0].t(), change[:, None]).solution[:, 0]
    assert -0.25 - 1e-4 <= float(amounts[0]) <= 0.5 + 1e-4
    assert abs(float(amounts[1])) <= 1e-4
    assert float(amounts[2:].abs().max()) > 0.5

    latent.safe = dict.fromkeys("abcd", (0.0, 0.0))  # an image that is not the model's own
    found = face_drag(tiny_generator(), latent, [Handle((x, y), (x + 6, y))], guide)
    assert found is not None
    assert not torch.equal(list(found)[-1].ws, latent.ws)


def test_what_cannot_be_reached_ends_where_it_was_nearest() -> None:
    latent, guide = example()
    one, two = (where(latent)[number].round() for number in (20, 47))
    # one to the left and the other one to the right: all landmarks go the same way here
    handles = [Handle(tuple(one), (0.0, one[1])), Handle(tuple(two), (15.0, two[1]))]
    way = steps(handles)
    assert way[-1].number == guide.steps
    assert not way[-1].arrived


def test_without_a_face_or_beside_it_features_serve() -> None:
    latent, guide = example()
    generator = tiny_generator()
    x, y = where(latent)[20].round()
    assert face_drag(generator, latent, [Handle((x, y), (x, y))], guide) is not None
    assert (
        face_drag(generator, latent, [Handle((x, y), (x, y)), Handle((0, 0), (1, 1))], guide)
        is None
    )
    assert face_drag(generator, latent, [Handle((x, y), (x, y))], guide, steps=2) is None
    latent, guide = example(lambda image: None)
    assert face_drag(generator, latent, [Handle((x, y), (x, y))], guide) is None
    with pytest.raises(Error, match="lies outside the image"):
        face_drag(generator, latent, [Handle((x, y), (99, 1))], guide)
    assert on_face(BASE, [Handle((2, 4), (9, 9))], 0.1)
    assert not on_face(BASE, [Handle((0, 0), (9, 9))], 0.1)


def test_a_face_that_is_lost_ends_the_drag() -> None:
    latent, guide = example()
    seen: list[Tensor] = []

    def losing(image: Tensor) -> Array | None:
        seen.append(image)
        return finder(image) if len(seen) <= 1 + 2 * len(guide.moves) else None

    x, y = where(latent)[20].round()
    way = steps([Handle((x, y), (x + 1, y))], losing)
    assert len(way) == 1 + len(guide.moves)
    assert torch.equal(way[-1].ws, latent.ws)


def test_choices_that_ask_for_features() -> None:
    assert goes_by_landmarks(DragOptions(steps=7), None)
    assert not goes_by_landmarks(DragOptions(), torch.ones(1, 1, 16, 16))
    assert not goes_by_landmarks(DragOptions(layers="0-3"), None)
    assert not goes_by_landmarks(DragOptions(prior_weight=1.0), None)


@pytest.mark.skipif(not has_landmarks(), reason="needs latentedit[faces]")
def test_a_mouth_is_opened(tmp_path: Path, faces128: Model) -> None:
    generator = faces128.generator
    guide = guide_for(generator)
    assert guide is not None
    assert guide.moves.shape[1:] == (generator.num_ws, generator.w_dim)
    torch.manual_seed(5)
    ws = generator.mapping(torch.randn(1, generator.z_dim), truncation_psi=0.5)
    latent = Latent(ws, None, fingerprint(generator), "w")
    save_latent(tmp_path / "a.safetensors", latent)
    face = landmarks_of(latent.render(generator))
    assert face is not None
    words: list[object] = ["drag", tmp_path / "a.safetensors"]
    for mark, down in ((57, 4), (51, 0)):
        x, y = (round(value) for value in face[mark])
        words += ["--from", f"{x},{y}", "--to", f"{x},{y + down}"]
    gif = tmp_path / "way.gif"
    done = works(*words, "--out", tmp_path / "b.png", "--gif", gif, "--json")
    facts = json.loads(done.stdout)
    with Image.open(gif) as video:
        assert getattr(video, "n_frames", 1) > FRAMES // 4  # smooth: no still start, no jumps
    assert facts["followed"] == "landmarks"
    assert facts["arrived"]
    from latentedit.io.images import load_image

    after = landmarks_of(load_image(tmp_path / "b.png", size=128))
    assert after is not None
    opened = (after[57] - after[51] - face[57] + face[51])[1]
    assert opened > 1.5
    mask = tmp_path / "b.png"
    said = complaint(*words, "--by", "landmarks", "--mask", mask, "--out", tmp_path / "c.png")
    assert "--by landmarks takes no mask" in said
    far = ["drag", tmp_path / "a.safetensors", "--from", "1,1", "--to", "3,1", "--by", "landmarks"]
    assert "points on a face" in complaint(*far, "--out", tmp_path / "c.png")
