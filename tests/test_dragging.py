"""Dragging: points go where they shall, the mask holds, latents keep what they have, and wrong
inputs get one line."""

import base64
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import latentedit
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_generator, load_model
from latentedit.io.images import note_of
from latentedit.latent.dragging import (
    PATIENCE,
    Drag,
    DragOptions,
    DragStep,
    Handle,
    drag,
    drag_steps,
    feature_side,
    moved_layers,
    read_mask,
)
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.networks.config import AliasFree
from latentedit.networks.fingerprint import fingerprint
from latentedit.networks.generator import Generator
from latentedit.studio.dragging import Dragging, handles_of, mask_of
from latentedit.studio.keeping import Keeper
from latentedit.studio.session import Session
from tests.helpers import complaint, tiny_generator, works
from tests.reference_nets import REFERENCE

SMALL = {"resolution": 32, "channels": 3, "channel_base": 256}
KINDS = ["skip", "resnet", "orig", "stylegan1", "stylegan3"]


def small(kind: str = "skip", **changes: Any) -> Generator:
    if kind == "stylegan3":
        design = AliasFree(layers=4, margin=4)
        return load_generator(REFERENCE / "stylegan3_t_32.pkl") if not changes else _alias(design)
    return tiny_generator(architecture=kind, **{**SMALL, **changes})


def _alias(design: AliasFree) -> Generator:
    torch.manual_seed(0)
    return tiny_generator(architecture="stylegan3", alias_free=design, **SMALL)


def random_latent(generator: Generator, seed: int = 1, **changes: Any) -> Latent:
    z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    c = torch.eye(generator.c_dim)[:1] if generator.c_dim else None
    ws = generator.mapping(z, c)
    return replace(Latent(ws, None, fingerprint(generator), "w"), **changes)


def shifted_by(generator: Generator, ws: torch.Tensor) -> torch.Tensor:
    """How far the input of a StyleGAN3 shifts its image, in pixels right and down."""
    styles = generator.synthesis.styles(ws)[0][0]
    shift: torch.Tensor = styles[2:] / styles[:2].norm() * generator.resolution
    return shift


# -- Features


@pytest.mark.parametrize("kind", ["orig", "stylegan1", "stylegan3"])
def test_features_are_those_that_the_image_is_made_of(kind: str) -> None:
    generator = small(kind)
    synthesis = generator.synthesis
    styles = synthesis.styles(random_latent(generator).ws)
    features = synthesis.features(styles, synthesis.feature_sides[-1])
    if kind == "stylegan3":
        image = (
            synthesis.layers[-1](features, styles[-1]) * synthesis.config.alias_free.output_scale
        )
    elif kind == "stylegan1":
        image = synthesis.blocks[-1].torgb(features)
    else:
        image = synthesis.blocks[-1].torgb(features, styles[-1])
    assert torch.allclose(image, synthesis.synthesize(styles), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_every_side(kind: str) -> None:
    synthesis = small(kind).synthesis
    styles = synthesis.styles(random_latent(small(kind)).ws)
    for side in synthesis.feature_sides:
        features = synthesis.features(styles, side)
        assert features.shape[2:] == (side, side)
        assert bool(features.isfinite().all())


@pytest.mark.parametrize(
    ("resolution", "side"),
    [(8, 8), (16, 16), (32, 32), (64, 32), (128, 32), (256, 64), (512, 128), (1024, 256)],
)
def test_features_are_compared_at_a_quarter_of_the_resolution(resolution: int, side: int) -> None:
    sides = [2**i for i in range(2, resolution.bit_length())]
    assert feature_side(sides, resolution) == side


# -- Points


def test_a_dragged_point_takes_the_image_along() -> None:
    """A network that can do nothing but shift its image has to shift it by the way of the point."""
    generator = small("stylegan3")
    draws = torch.Generator().manual_seed(3)
    affine = generator.synthesis.input.affine
    affine.weight[2:] = torch.randn(2, generator.w_dim, generator=draws)
    latent = random_latent(generator)
    options = DragOptions(steps=60, layers="0", learning_rate=0.03)
    result = drag(generator, latent, [Handle((12, 14), (18, 11))], options)
    assert result.arrived
    assert max(result.distances) <= 2
    shift = shifted_by(generator, result.latent.ws) - shifted_by(generator, latent.ws)
    assert float((shift - torch.tensor([6.0, -3.0])).norm()) < 3
    assert torch.equal(result.latent.ws[:, 1:], latent.ws[:, 1:])


def test_a_drag_ends_where_its_points_arrive_or_its_steps_end() -> None:
    generator = small()
    latent = random_latent(generator)
    near = list(drag_steps(generator, latent, [Handle((10, 10), (11, 11))]))
    assert [step.number for step in near] == [0]
    assert near[0].arrived
    assert torch.equal(near[0].ws, latent.ws)

    far = list(drag_steps(generator, latent, [Handle((4, 4), (28, 28))], DragOptions(steps=3)))
    assert [step.number for step in far] == [0, 1, 2, 3]
    assert not far[-1].arrived
    assert far[0].distances[0] == pytest.approx(24 * 2**0.5)
    none = drag(generator, latent, [Handle((4, 4), (28, 28))], DragOptions(steps=0))
    assert torch.equal(none.latent.ws, latent.ws)


def test_a_drag_that_gets_no_nearer_ends() -> None:
    generator = small()
    still = DragOptions(learning_rate=0.0)
    steps = list(drag_steps(generator, random_latent(generator), [Handle((4, 4), (28, 28))], still))
    assert [step.number for step in steps] == list(range(PATIENCE + 1))
    assert not steps[-1].arrived


def test_of_a_drag_that_wanders_the_nearest_step_is_kept() -> None:
    generator = small()
    latent = random_latent(generator)
    handles = [Handle((4, 4), (28, 28)), Handle((20, 8), (20, 8))]
    options = DragOptions(steps=12, learning_rate=2.0)
    steps = list(drag_steps(generator, latent, handles, options))
    least = min(step.farthest for step in steps)
    assert steps[-1].farthest > least  # else this shows nothing
    kept = drag(generator, latent, handles, options)
    assert max(kept.distances) == least
    assert torch.equal(kept.latent.ws, steps[kept.steps].ws)


def test_the_same_drag_twice_is_the_same() -> None:
    generator = small()
    latent = random_latent(generator)
    handles = [Handle((10, 12), (16, 12)), Handle((20, 20), (20, 20))]
    first, second = (drag(generator, latent, handles, DragOptions(steps=5)) for _ in range(2))
    assert torch.equal(first.latent.ws, second.latent.ws)
    assert first.points == second.points
    assert not torch.equal(first.latent.ws, latent.ws)


def test_ctrl_c_keeps_what_was_reached() -> None:
    generator = small()

    def stop(step: DragStep) -> None:
        if step.number == 2:
            raise KeyboardInterrupt

    latent = random_latent(generator)
    result = drag(generator, latent, [Handle((4, 4), (28, 28))], on_step=stop)
    assert result.steps == 2


def test_the_mask_holds_the_rest() -> None:
    """Of every image, the more firmly the more the mask weighs; networks with random weights differ
    in how much, so the default weight is judged by the mean."""
    generator = small()
    handles = [Handle((8, 8), (14, 8))]
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :20, :20] = 1

    def change(latent: Latent, weight: float, given: torch.Tensor | None = mask) -> float:
        options = DragOptions(steps=12, mask_weight=weight)
        result = drag(generator, latent, handles, options, mask=given)
        outside = (result.latent.render(generator) - latent.render(generator)).abs() * (1 - mask)
        return float(outside.sum() / (1 - mask).sum())

    usual = DragOptions().mask_weight
    latents = [random_latent(generator, seed) for seed in range(1, 5)]
    free = [change(latent, usual, None) for latent in latents]
    held = [change(latent, usual) for latent in latents]
    firm = [change(latent, 3 * usual) for latent in latents]
    assert sum(held) < 0.7 * sum(free)
    for some, more, most in zip(firm, held, free, strict=True):
        assert some < more < most
        assert some < 0.4 * most


# -- Latents


def test_a_latent_keeps_what_it_has() -> None:
    generator = small()
    draws = torch.Generator().manual_seed(5)
    noise = [torch.randn(shape, generator=draws) for shape in generator.synthesis.noise_shapes]
    latent = random_latent(generator, noise=noise, crop=[[0, 0], [9, 0], [9, 9], [0, 9]])
    latent.settings = {"edits": ["smile=1"]}
    latent.safe = {"smile": (-1.0, 1.0)}
    result = drag(generator, latent, [Handle((10, 12), (16, 12))], DragOptions(steps=2))
    moved = result.latent
    assert moved.noise is latent.noise
    assert (moved.crop, moved.fingerprint) == (latent.crop, latent.fingerprint)
    assert moved.settings["edits"] == ["smile=1", "drag 10,12 to 16,12"]
    assert moved.safe is None
    assert moved.space == "w+"
    changed = (moved.ws != latent.ws).any(dim=2)[0]
    assert changed.tolist() == [True] * 6 + [False] * (generator.num_ws - 6)


def test_noise_offsets_and_tuning_are_in_the_features() -> None:
    generator = small()
    plain = random_latent(generator)
    offsets = [torch.full((1, width), 0.3) for _, width in generator.synthesis.style_layers]
    loud = [torch.full(shape, 5.0) for shape in generator.synthesis.noise_shapes]
    weight = generator.synthesis.layers[1].weight
    tuned = {"b8.conv0.weight": 0.5 * torch.ones_like(weight).half()}
    found = [
        drag(generator, latent, [Handle((10, 12), (16, 12))], DragOptions(steps=1)).latent.ws
        for latent in (
            plain,
            replace(plain, styles=offsets),
            replace(plain, noise=loud),
            replace(plain, tuned=tuned),
        )
    ]
    assert all(not torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network(kind: str) -> None:
    generator = small(kind)
    latent = random_latent(generator)
    handles = [Handle((10, 12), (18, 12))]
    # The last step: `drag` keeps the start where two steps brought the point no nearer.
    *_, step = drag_steps(generator, latent, handles, DragOptions(steps=2))
    assert not torch.equal(step.ws, latent.ws)
    if kind == "stylegan3":  # whose first w would shift the whole image
        assert torch.equal(step.ws[:, 0], latent.ws[:, 0])


def test_an_image_that_is_not_square() -> None:
    generator = small(first_size=(4, 8))
    latent = random_latent(generator)
    mask = torch.zeros(1, 1, 32, 64)
    mask[..., 32:] = 1
    handles = [Handle((50, 12), (58, 12))]
    result = drag(generator, latent, handles, DragOptions(steps=2), mask=mask)
    assert result.steps == 2
    assert not torch.equal(result.latent.ws, latent.ws)
    with pytest.raises(Error, match="pixels are 0,0 to 63,31"):
        drag(generator, latent, [Handle((50, 32), (58, 12))])


def test_the_layers_that_move() -> None:
    generator = small()
    assert moved_layers(generator, None) == (0, 5)
    assert moved_layers(generator, "0-1") == (0, 1)
    assert moved_layers(tiny_generator(resolution=8), None) == (0, 3)
    assert moved_layers(small("stylegan3"), None) == (1, 6)


def test_the_short_form() -> None:
    generator = small()
    result = latentedit.drag(
        generator, random_latent(generator), [Handle((10, 12), (11, 12))], DragOptions(steps=1)
    )
    assert isinstance(result, Drag)
    assert result.arrived


def test_what_is_refused(tmp_path: Path) -> None:
    generator = small()
    latent = random_latent(generator)
    whole = torch.ones(1, 1, 32, 32)
    inside = Handle((1, 1), (9, 9))
    for handles, mask, message in (
        (
            [Handle((1, 1), (32, 1))],
            None,
            "32,1 lies outside the image, whose pixels are 0,0 to 31",
        ),
        ([Handle((-1, 1), (3, 1))], None, "-1,1 lies outside"),
        ([], None, "the number of handles must be from 1 to 100, got 0"),
        ([inside], whole * 0, "nothing in it is white"),
        ([inside], torch.ones(1, 1, 16, 16), "mask must have shape"),
        ([inside], whole - torch.eye(32), "the mask holds the point 1,1"),
    ):
        with pytest.raises(Error, match=message):
            drag(generator, latent, handles, mask=mask)
    with pytest.raises(Error, match="generator takes"):
        drag(generator, random_latent(tiny_generator()), [inside])
    for options, message in (
        ({"steps": -1}, "steps must be"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"tracking_radius": 0.5}, "tracking_radius must be"),
    ):
        with pytest.raises(Error, match=message):
            DragOptions(**options)
    with pytest.raises(Error, match="start must be a finite number"):
        Handle((float("inf"), 0), (0, 0))
    Image.new("L", (30, 32)).save(tmp_path / "odd.png")
    with pytest.raises(Error, match="has the size of the image, 32 x 32, and this one has 30 x 32"):
        read_mask(tmp_path / "odd.png", (32, 32))


# -- The command


@pytest.fixture
def me(tmp_path: Path, tiny_file: Path) -> Path:
    generator = load_model(tiny_file).generator
    save_latent(tmp_path / "me.safetensors", random_latent(generator))
    return tmp_path / "me.safetensors"


def test_the_command_writes_image_latent_and_video(me: Path, tiny_file: Path) -> None:
    out, way = me.with_name("out.png"), me.with_name("way.gif")
    mask = np.zeros((16, 16), np.uint8)
    mask[:12, :12] = 255
    Image.fromarray(mask).save(me.with_name("mask.png"))
    points = ["--from", "4,4", "--to", "9,4", "--from", "8,8", "--to", "8,8"]
    result = works("drag", me, "--model", tiny_file, *points, "--mask", me.with_name("mask.png"),
                   "--steps", 3, "--gif", way, "--out", out, "--json")  # fmt: skip
    facts = json.loads(result.stdout)
    assert facts["steps"] <= 3
    assert [handle["from"] for handle in facts["handles"]] == [[4, 4], [8, 8]]
    assert facts["files"] == [str(out), str(out.with_suffix(".safetensors")), str(way)]
    latent = load_latent(out.with_suffix(".safetensors"))
    assert latent.settings["edits"] == ["drag 4,4 to 9,4", "drag 8,8 to 8,8"]
    drawn = latent.render(load_generator(tiny_file))
    assert torch.equal(
        torch.from_numpy(np.asarray(Image.open(out)).copy()).float(),
        ((drawn[0, 0].clamp(-1, 1) + 1) * 127.5).round(),
    )
    assert "edited" in note_of(out)
    with Image.open(way) as video:
        assert video.n_frames >= facts["steps"]  # type: ignore[attr-defined]


def test_the_command_says_how_near_it_came_and_replaces_nothing(me: Path, tiny_file: Path) -> None:
    words = ["drag", me, "--model", tiny_file, "--from", "2,3", "--to", "13,14", "--steps", 1]
    first = works(*words)
    assert "2,3 to 13,14: " in first.stdout
    assert "pixels from the target after 1 steps" in first.stdout
    assert "not all points arrived" in first.stderr
    assert "more --steps" in first.stderr
    kept = me.with_name("me-dragged.png").read_bytes()
    works(*words)
    assert me.with_name("me-dragged.png").read_bytes() == kept
    assert me.with_name("me-dragged-2.safetensors").is_file()
    works(*words, "--out", me.with_name("only.safetensors"))
    assert me.with_name("only.png").is_file()


def test_wrong_inputs_get_one_line_and_write_nothing(me: Path, tiny_file: Path) -> None:
    black, other = me.with_name("black.png"), me.with_name("other.png")
    Image.new("L", (16, 16)).save(black)
    Image.new("L", (8, 16), 255).save(other)
    save_latent(me.with_name("alien.safetensors"), random_latent(tiny_generator(4)))
    before = sorted(me.parent.iterdir())
    point = ("--from", "3,4", "--to", "9,9")
    for source, words, message in (
        (me, ("--from", "3,4", "--to", "16,4"), "the point 16,4 lies outside the image"),
        (me, ("--from", "3", "--to", "4,4"), "--from takes 2 finite numbers"),
        (me, ("--from", "3,4", "--to", "nan,4"), "--to takes 2 finite numbers"),
        (me, (*point, "--from", "5,5"), "got 2 --from and 1 --to"),
        (me, (*point, "--mask", black), "nothing in it is white"),
        (me, (*point, "--mask", other), "this one has 8 x 16"),
        (me, (*point, "--mask", me.with_name("none.png")), "none.png"),
        (me, (*point, "--mask", me), "me.safetensors"),
        (me, (*point, "--layers", "0-99"), "layers 0-99 lie outside"),
        (me, (*point, "--gif", "way.txt"), "--gif takes a name that ends in .mp4, .webm or .gif"),
        (me, (*point, "--out", "out.txt"), "the name of an image must end in"),
        (me, (*point, "--out", me), "is an input of this command"),
        (me, (*point, "--out", "none/out.txt"), "the name of an image must end in"),
        (me.with_name("gone.safetensors"), point, "gone.safetensors"),
        (black, point, "no face"),
        (me.with_name("alien.safetensors"), point, "belongs to the generator"),
    ):
        assert message in complaint("drag", source, "--model", tiny_file, *words), words
    assert sorted(me.parent.iterdir()) == before


# -- The studio


@pytest.fixture
def session(tmp_path: Path, tiny_file: Path) -> Session:
    made = Session(load_model(tiny_file), str(tiny_file), Keeper(tmp_path / "out"), live=False)
    made.show(made.random_latent(3, 0.8), "someone", "a random face")
    return made


def test_a_drag_in_the_studio_is_a_step_that_can_be_undone(session: Session) -> None:
    told: list[str] = []
    session.listen(told.append)
    before = session.face
    dragging = Dragging(session)
    made = dragging.run([Handle((3, 4), (9, 4))], None, 3)
    assert made is not None
    assert session.face is made
    assert not session.dragging
    assert dragging.progress is not None
    assert dragging.progress.step.number <= 3
    assert dragging.progress.image.startswith(b"\xff\xd8")
    assert "drag" in told
    assert made.latent.settings["edits"] == ["drag 3,4 to 9,4"]
    assert not session.intake.can_refine(made)
    session.undo()
    assert session.face is before


def test_the_command_that_the_studio_shows_draws_the_same(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :10, :] = 1
    dragging = Dragging(session)
    made = dragging.run([Handle((3, 4), (9, 4))], mask, 2)
    assert made is not None
    monkeypatch.chdir(tmp_path)
    works(*shlex.split(dragging.command)[1:])
    again = load_latent(tmp_path / "dragged.safetensors")
    assert torch.equal(again.ws, made.latent.ws)


def test_the_studio_stops_a_drag_and_refuses_a_second(session: Session) -> None:
    dragging = Dragging(session)
    refused = []

    def stop(what: str) -> None:
        if what == "drag" and dragging.progress is not None and session.dragging:
            with pytest.raises(Error, match="runs already"):
                session.begin_drag()
            refused.append(what)
            dragging.stop()

    session.listen(stop)
    dragging.run([Handle((1, 1), (14, 14))], None, 50)
    assert refused
    assert dragging.progress is not None
    assert dragging.progress.step.number == 0


def test_what_the_page_sends(session: Session) -> None:
    assert handles_of([[1, 2, 3.5, 4]]) == [Handle((1, 2), (3.5, 4))]
    for pairs in (None, [], [[1, 2]], [[1, 2, 3, "x"]], [[1, 2, 3, None]], [[1, 2, 3, 4]] * 21):
        with pytest.raises(Error, match="target"):
            handles_of(pairs)
    bits = np.zeros(256, np.uint8)
    bits[[0, 17]] = 1
    found = mask_of(base64.b64encode(np.packbits(bits).tobytes()).decode(), 16)
    assert found is not None
    assert found.flatten().nonzero().flatten().tolist() == [0, 17]
    assert mask_of("", 16) is None
    for data in ("AAAA", "?", 5):
        with pytest.raises(Error, match="paint it again"):
            mask_of(data, 16)
    with pytest.raises(Error, match="lies outside"):
        Dragging(session).run(handles_of([[1, 2, 99, 4]]), None, 2)
    assert not session.dragging
