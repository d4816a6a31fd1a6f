"""The studio's session: what it draws, keeps, undoes and says; no page and no server."""

import io
import shlex
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.directions import Direction
from latentedit.directions.sigma import measure_sigma
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_model
from latentedit.io.images import open_image, to_uint8
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.model.model import Model
from latentedit.photo.crop_hash import crop_hash
from latentedit.studio.discovery import Discovery
from latentedit.studio.history import History, Setting, State
from latentedit.studio.intake import LARGEST_UPLOAD
from latentedit.studio.keeping import MOST, Keeper, free_file
from latentedit.studio.making import (
    Pasting,
    amounts,
    blended,
    crossed,
    save_grid,
    save_sweep,
    swept,
)
from latentedit.studio.painter import Newest
from latentedit.studio.photos import Crop, preview
from latentedit.studio.saving import command_line, save_face, save_picture
from latentedit.studio.searches import QUALITIES
from latentedit.studio.session import QUIET, Session
from latentedit.studio.sliders import group_of, reported_range, slider_of, title_of, with_ranges
from tests.helpers import complaint, hopper, tiny_generator, works


@pytest.fixture
def directions(tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with three directions of the tiny network."""
    folder = tmp_path / "directions"
    generator = load_model(tiny_file).generator
    draws = torch.Generator().manual_seed(0)
    from latentedit.networks.fingerprint import fingerprint

    for name in ("smile", "turn", "hat"):
        vector = torch.nn.functional.normalize(torch.randn(generator.w_dim, generator=draws), dim=0)
        direction = Direction(
            name, vector, 0.1, measure_sigma(vector, generator), fingerprint(generator)
        )
        direction.save(folder / f"{name}.safetensors")
    monkeypatch.setenv("LATENTEDIT_DIRECTIONS", str(folder))
    return folder


@pytest.fixture
def session(tmp_path: Path, tiny_file: Path, directions: Path) -> Session:
    """A session that draws at once, with a random face open."""
    made = Session(load_model(tiny_file), str(tiny_file), Keeper(tmp_path / "out"), live=False)
    made.show(made.random_latent(3, 0.8), "someone", "a random face")
    return made


def pixels(session: Session) -> Any:
    return to_uint8(session.render(session.edited()))


# -- What is drawn


def test_a_slider_moves_its_score_by_its_amount(session: Session) -> None:
    before = pixels(session)
    session.slide("smile", 1.5)
    assert session.picture is not None
    assert session.marks.moved["smile"] == pytest.approx(1.5, abs=1e-4)
    assert not torch.equal(pixels(session), before)
    session.reset("smile")
    assert torch.equal(pixels(session), before)


def test_a_locked_score_stays_while_others_move(session: Session) -> None:
    session.slide("smile", 1.0)
    assert session.picture is not None
    assert abs(session.marks.moved["turn"]) > 0.01
    session.lock("turn", True)
    assert session.marks.moved["turn"] == pytest.approx(0, abs=1e-4)
    assert session.marks.moved["smile"] == pytest.approx(1, abs=1e-4)
    with pytest.raises(Error, match="turn is locked"):
        session.slide("turn", 1)


def test_a_slider_that_is_locked_away_from_rest_keeps_its_amount(session: Session) -> None:
    session.slide("turn", -0.7)
    session.lock("turn", True)
    session.slide("smile", 2.0)
    assert session.picture is not None
    assert session.marks.moved["turn"] == pytest.approx(-0.7, abs=1e-4)
    assert session.marks.moved["smile"] == pytest.approx(2, abs=1e-4)


def test_layers_limit_a_slider(session: Session) -> None:
    session.slide("smile", 1.0)
    session.set_layers("smile", "0-1")
    moved, face = session.edited().ws, session.faces[session.state.face].latent.ws
    assert torch.equal(moved[:, 2:], face[:, 2:])
    assert not torch.equal(moved[:, :2], face[:, :2])
    with pytest.raises(Error, match="layers 0-99 lie outside"):
        session.set_layers("smile", "0-99")


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), 1e6])
def test_amounts_that_are_none(session: Session, amount: float) -> None:
    with pytest.raises(Error, match="an amount lies between"):
        session.slide("smile", amount)


def test_a_slider_that_there_is_not(session: Session) -> None:
    with pytest.raises(Error, match="there is no slider 'nose'"):
        session.slide("nose", 1)


def test_the_painter_draws_what_the_latent_renders(session: Session) -> None:
    latent = session.random_latent(5, 1.0)
    name, parameter = next(iter(session.model.generator.synthesis.named_parameters()))
    latent.tuned = {name: torch.full_like(parameter, 0.05).half()}
    assert torch.equal(session.render(latent), latent.render(session.model.generator))
    # from the copy that was kept
    assert torch.equal(session.render(latent), latent.render(session.model.generator))


# -- What is saved


def test_the_command_line_draws_the_same_picture(session: Session, tmp_path: Path) -> None:
    session.slide("smile", 1.25)
    session.set_layers("smile", "0-2")
    session.slide("hat", -0.5)
    session.lock("turn", True)
    session.lock("hat", True)
    saved = save_picture(session, "mine")
    command = command_line(session, str(tmp_path / "typed.png"))
    words = shlex.split(command)
    assert words[:2] == ["latentedit", "edit"]
    works(*words[1:])
    assert np.array_equal(
        np.asarray(open_image(saved)), np.asarray(open_image(tmp_path / "typed.png"))
    )


def test_the_command_line_of_a_face_without_edits(session: Session, tmp_path: Path) -> None:
    works(*shlex.split(command_line(session, str(tmp_path / "typed.png")))[1:])
    saved = save_picture(session, "mine")
    assert np.array_equal(
        np.asarray(open_image(saved)), np.asarray(open_image(tmp_path / "typed.png"))
    )


def test_a_saved_latent_renders_what_was_seen(session: Session) -> None:
    session.slide("smile", 1.25)
    saved = load_latent(save_face(session, "mine"))
    assert torch.equal(to_uint8(saved.render(session.model.generator)), pixels(session))
    assert saved.settings["edits"] == ["smile=1.25"]


def test_nothing_is_overwritten_and_no_name_leaves_the_folder(
    session: Session, tmp_path: Path
) -> None:
    names = [
        save_picture(session, name).relative_to(tmp_path / "out")
        for name in ("a", "a", "../../b", "/etc/c", "", "ä ö")
    ]
    assert [str(name) for name in names] == [
        "a.png",
        "a-2.png",
        "b.png",
        "etc-c.png",
        "untitled.png",
        "untitled-2.png",
    ]
    assert free_file(tmp_path, "x" * 300, ".png").name == "x" * 80 + ".png"


# -- What can be undone, and what is kept


def test_undo_and_redo_of_everything(session: Session) -> None:
    face = session.state.face
    session.slide("smile", 1.0)
    session.slide("smile", 1.2)
    session.settle()
    session.lock("turn", True)
    session.set_layers("smile", "coarse")
    session.show(session.random_latent(4, 0.8), "other", "")
    states = [session.state]
    while session.history.can_undo:
        session.undo()
        states.append(session.state)
    assert states[1] == State(face, {"smile": Setting(1.2, "coarse")}, frozenset({"turn"}))
    assert states[2].settings == {"smile": Setting(1.2)}
    assert states[3].locks == frozenset()
    assert states[4] == State(face)
    for state in reversed(states[:-1]):
        session.redo()
        assert session.state == state
    assert not session.history.can_redo


def test_a_new_step_forgets_what_was_undone(session: Session) -> None:
    for amount in (1.0, 2.0):
        session.slide("smile", amount)
        session.settle()
    session.undo()
    session.slide("turn", 1.0)
    session.settle()
    assert not session.history.can_redo
    assert session.state.settings == {"smile": Setting(1.0), "turn": Setting(1.0)}


def test_a_session_is_found_again_after_a_crash(
    session: Session, tiny_file: Path, tmp_path: Path
) -> None:
    session.slide("smile", 1.0)
    session.settle()
    session.lock("turn", True)
    expected = pixels(session)
    # Nothing is closed: this is what a killed process leaves.
    again = Session(load_model(tiny_file), str(tiny_file), Keeper(tmp_path / "out"), live=False)
    kept = again.keeper.read()
    assert kept is not None
    again.restore(kept)
    assert again.state == session.state
    assert torch.equal(pixels(again), expected)
    assert again.face is not None
    assert again.face.name == "someone"
    again.undo()
    assert again.state.locks == frozenset()


def test_a_session_that_is_not_gone_on_with_is_kept(
    session: Session, tiny_file: Path, tmp_path: Path
) -> None:
    session.slide("smile", 1.0)
    session.settle()
    expected = pixels(session)
    keeper = Keeper(tmp_path / "out")
    again = Session(load_model(tiny_file), str(tiny_file), keeper, live=False)
    again.show(again.random_latent(5, 0.7), "another", "")
    left = [kept.name for kept in keeper.sessions()]
    assert left == ["another", "someone"]

    third = Session(load_model(tiny_file), str(tiny_file), keeper, live=False)
    third.restore(keeper.sessions()[1])
    assert torch.equal(pixels(third), expected)
    third.slide("smile", 2.0)
    third.settle()
    assert [kept.name for kept in keeper.sessions()] == ["someone", "another"]

    keeper.forget(keeper.sessions()[1])
    assert [kept.name for kept in keeper.sessions()] == ["someone"]
    latents = [path.stem for path in keeper.hidden.glob("*.safetensors")]
    assert set(latents) == set(keeper.sessions()[0].faces)


def test_only_the_newest_sessions_are_kept(session: Session, tiny_file: Path) -> None:
    keeper = session.keeper
    for number in range(MOST + 2):
        again = Session(load_model(tiny_file), str(tiny_file), keeper, live=False)
        again.show(again.random_latent(number, 0.7), f"face-{number}", "")
    names = [kept.name for kept in keeper.sessions()]
    assert names == [f"face-{number}" for number in reversed(range(2, MOST + 2))]
    assert len(list(keeper.hidden.glob("*.safetensors"))) == MOST


def test_a_latent_file_is_uploaded(session: Session, tmp_path: Path) -> None:
    latent = session.random_latent(3, 0.8)
    save_latent(tmp_path / "mine.safetensors", latent)
    data = (tmp_path / "mine.safetensors").read_bytes()
    face = session.upload(data, "C:\\faces\\mine.safetensors")
    assert face is not None
    assert face is session.face
    assert face.name == "mine"
    assert face.file is None
    assert torch.equal(face.latent.ws, latent.rows(session.model.generator.num_ws))
    before = set(session.keeper.hidden.iterdir())
    for bad in (b"", data[:100], b"\0" * 500):
        with pytest.raises(Error, match="^mine.safetensors: ") as caught:
            session.upload(bad, "mine.safetensors")
        assert str(session.keeper.hidden) not in str(caught.value)
    latent.fingerprint = "f" * 64
    save_latent(tmp_path / "other.safetensors", latent)
    with pytest.raises(Error, match="belongs to the generator"):
        session.upload((tmp_path / "other.safetensors").read_bytes(), "other.safetensors")
    assert set(session.keeper.hidden.iterdir()) == before
    assert session.face is face


def test_a_face_is_compared_with_its_photo(session: Session) -> None:
    photo = session.intake.open(hopper())
    face = session.intake.invert("balanced", steps=1)
    assert face is not None
    shown = Image.open(io.BytesIO(session.intake.photographed(face)))
    wanted = preview(photo, shown.width)
    difference = np.asarray(shown, float) - np.asarray(wanted, float)
    assert np.abs(difference).mean() < 2
    session.show(session.random_latent(1, 0.7), "random", "")
    assert not session.intake.has_photo(session.face)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{}",
        b"[]",
        b'{"version": 1}',
        b"\xff\xfe",
        b'{"version":1,"fingerprint":"x","saved":0,"place":9,"states":[],"faces":{}}',
    ],
)
def test_a_damaged_session_is_no_session(session: Session, damage: bytes) -> None:
    (session.keeper.hidden / "session.json").write_bytes(damage)
    assert session.keeper.read() is None


def test_a_session_of_another_model_is_not_taken(session: Session, tmp_path: Path) -> None:
    kept = session.keeper.read()
    assert kept is not None
    other = Session(Model(tiny_generator(9)), "other", Keeper(tmp_path / "out"), live=False)
    with pytest.raises(Error, match="belongs to another model"):
        other.restore(kept)


def test_the_file_names_of_a_session_are_keys(session: Session) -> None:
    for key in ("../../etc", "a/b", "", "0123456789"):
        with pytest.raises(Error, match="no such file in this session"):
            session.keeper.latent_file(key)


def test_a_history_has_an_end() -> None:
    history = History()
    for number in range(600):
        history.push(State("").moved("a", number + 1))
    assert len(history.states) == 500
    assert history.state.settings["a"].amount == 600


def test_the_command_says_what_is_wrong_before_it_writes(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_latent("other.safetensors", Latent(torch.zeros(1, 6, 12), None, "f" * 64, "w"))
    Path("notes.txt").write_text("nothing")
    there = sorted(Path().iterdir())
    common = ("studio", "--model", tiny_file, "--no-browser")
    assert "no.jpg: no such file" in complaint(*common, "no.jpg")
    assert "belongs to the generator" in complaint(*common, "other.safetensors")
    assert "notes.txt" in complaint(*common, "notes.txt")
    assert "no such model file" in complaint("studio", "--model", "no.safetensors", "--no-browser")
    assert sorted(Path().iterdir()) == there


# -- The queue


def test_positions_that_newer_ones_overtake_are_dropped() -> None:
    seen: list[int] = []
    started, go = threading.Event(), threading.Event()

    def work(job: int) -> None:
        seen.append(job)
        started.set()
        assert go.wait(10)

    queue = Newest(work)
    queue.put(0)
    assert started.wait(10)
    for job in range(1, 50):
        queue.put(job)
    go.set()
    assert queue.wait(10)
    queue.close()
    assert seen == [0, 49]
    assert queue.dropped == 48


def test_a_fault_while_drawing_is_told_and_the_next_position_drawn(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    session.listen(told.append)
    with monkeypatch.context() as patch:
        patch.setattr(session.painter, "paint", lambda latent: 1 / 0)
        session.slide("smile", 1.0)
    assert told == ["trouble"]
    assert "ZeroDivisionError" in session.trouble
    session.slide("smile", 2.0)
    assert told == ["trouble", "picture", "marks"]


# -- Sliders


def test_titles_and_groups() -> None:
    assert title_of("mouth-open") == "Mouth open"
    assert [group_of(name) for name in ("smile", "turn", "grey-hair", "age", "warmth", "xyz")] == [
        "Expression",
        "Pose",
        "Hair and beard",
        "Face",
        "Picture",
        "More",
    ]


def test_ranges_come_from_the_face_else_from_the_report() -> None:
    vector = torch.nn.functional.normalize(torch.ones(4), dim=0)
    direction = Direction(
        "smile", vector, 0.0, 1.0, "f" * 64, report={"effect": {"whole": [-2, 1.5]}}
    )
    slider = slider_of(direction, group="Expression")
    latent = Latent(torch.zeros(1, 1, 4), None, "f" * 64, "w")
    assert with_ranges({"smile": slider}, latent)["smile"].whole == (-2, 1.5)
    latent.safe = {"smile": (-3.0, 0.75)}
    assert with_ranges({"smile": slider}, latent)["smile"].whole == (-3, 0.75)
    latent.safe = {"smile": (0.0, 0.0)}  # the picture was broken before anything moved
    assert with_ranges({"smile": slider}, latent)["smile"].whole == (-2, 1.5)
    for whole in ("x", [1, 2], [1], [-1, "b"], None):
        assert (
            reported_range(
                Direction("a", vector, 0.0, 1.0, "f" * 64, report={"effect": {"whole": whole}})
            )
            is None
        )


# -- What else is made


def test_a_grid_has_the_pictures_of_its_amounts(session: Session, tmp_path: Path) -> None:
    session.slide("hat", 0.5)
    session.settle()
    steps = amounts(-1, 1, 3)
    rows = crossed(session, "smile", "turn", steps, steps)
    state = session.state.moved("smile", 1.0).moved("turn", -1.0)
    assert torch.equal(to_uint8(rows[0][2]), to_uint8(session.render(session.edited(state))))
    assert len(rows) == len(rows[0]) == 3
    assert save_grid(session, rows, "grid", steps, steps, ("Smile", "Turn")).is_file()
    with pytest.raises(Error, match="two different sliders"):
        crossed(session, "smile", "smile", steps, steps)
    with pytest.raises(Error, match="at most 81"):
        crossed(session, "smile", "turn", amounts(0, 1, 10), amounts(0, 1, 10))
    for low, high, count in ((0, 1, 1), (0, 1, 999), (float("nan"), 1, 3), (0, 1e9, 3)):
        with pytest.raises(Error):
            amounts(low, high, count)


@pytest.mark.parametrize("ending", [".gif", ".mp4", ".png"])
def test_a_sweep_becomes_a_film(session: Session, ending: str) -> None:
    steps = amounts(-1, 1, 3)
    place, _ = save_sweep(session, swept(session, "smile", steps), "film", ending, steps)
    assert place.suffix == ending
    assert place.stat().st_size > 100


def test_faces_are_mixed_and_interpolated(session: Session) -> None:
    a = session.face
    b = session.show(session.random_latent(9, 1.0), "other", "")
    assert a is not None
    assert torch.equal(blended(session, a, b, share=0).ws, a.latent.ws)
    assert torch.equal(blended(session, a, b, share=1).ws, b.latent.ws)
    mixed = blended(session, a, b, layers="0-1").ws
    assert torch.equal(mixed[:, :2], b.latent.ws[:, :2])
    assert torch.equal(mixed[:, 2:], a.latent.ws[:, 2:])
    with pytest.raises(Error, match="between 0 and 1"):
        blended(session, a, b, share=1.5)


def test_a_face_goes_back_into_its_photo_and_only_there(session: Session, tmp_path: Path) -> None:
    with pytest.raises(Error, match="none to paste it into"):
        Pasting(session)
    latent = session.random_latent(3, 0.8)
    latent.crop = [[10.0, 20.0], [40.0, 20.0], [40.0, 50.0], [10.0, 50.0]]
    Image.new("RGB", (90, 70), "white").save(tmp_path / "photo.png")
    session.show(latent, "me", "", photo=tmp_path / "photo.png")
    session.slide("smile", 2.0)
    pasting = Pasting(session)
    before, after = (
        np.asarray(open_image(tmp_path / "photo.png")),
        np.asarray(pasting.paste(difference=False)),
    )
    outside = np.ones(before.shape[:2], dtype=bool)
    outside[20:50, 10:40] = False
    assert np.array_equal(before[outside], after[outside])
    assert not np.array_equal(before, after)
    words = shlex.split(pasting.command(str(tmp_path / "typed.jpg"), feather=0.2))
    assert words[words.index("--paste-back") + 1] == str(tmp_path / "photo.png")
    assert ("--difference" in words, words[words.index("--feather") + 1]) == (True, "0.2")
    assert open_image(pasting.save("pasted")).size == (90, 70)
    face = session.face
    assert face is not None
    noise = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    face.latent.crop_hash = crop_hash(noise)  # of another photo, which had this name before
    with pytest.raises(Error, match=r"photo.png: the photo does not show the latent's image"):
        Pasting(session)


def test_a_new_slider_comes_from_labels_with_its_report(session: Session, tmp_path: Path) -> None:
    discovery = Discovery(session)
    desk = discovery.begin("bright", count=30)
    with pytest.raises(Error, match="at least 2 faces of each kind"):
        discovery.fit()
    levels = [
        float(np.asarray(open_image(sample.picture)).mean()) for sample in desk.labelling.samples
    ]
    for number, level in enumerate(levels):
        desk.answer(number, str(int(level > np.median(levels))))
    slider = discovery.fit()
    assert slider.direction.report["samples"] == 30
    assert slider.direction.report["auc"] > 0.6
    assert set(slider.direction.report["leakage"]) == {"smile", "turn", "hat"}
    assert slider.file == tmp_path / "out" / "directions" / "bright.safetensors"
    session.slide("bright", 1.0)
    assert session.picture is not None
    assert session.marks.moved["bright"] == pytest.approx(1.0, abs=1e-3)
    works(*shlex.split(command_line(session, str(tmp_path / "typed.png")))[1:])
    discovery.leave()
    again = Session(session.model, session.model_name, session.keeper, live=False)
    assert "bright" in again.sliders
    assert Discovery(again).begun() == ["bright"]


@pytest.mark.parametrize("name", ["", "../x", "a b", "file", "x" * 300, "\u00e4"])
def test_names_that_no_slider_can_have(session: Session, name: str) -> None:
    with pytest.raises(Error, match="a name has letters"):
        Discovery(session).begin(name)
    assert not (session.keeper.folder / "labels").exists()


def test_components_can_be_named(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentedit.studio.discovery.COMPONENTS", 3)
    discovery = Discovery(session)
    found = discovery.components("sefa")
    assert [slider.group for slider in found] == ["Unnamed"] * 3
    session.slide("sefa-01", 1.0)
    session.settle()
    moved = pixels(session)
    named = discovery.name_component("sefa-01", "drift")
    assert (named.name, named.group) == ("drift", "Yours")
    assert dict(session.state.settings) == {"drift": Setting(1.0)}
    assert torch.equal(pixels(session), moved)
    discovery.drop_components()
    # undo needs it
    assert [name for name in session.sliders if name.startswith("sefa")] == ["sefa-01"]
    with pytest.raises(Error, match="no unnamed slider 'smile'"):
        discovery.name_component("smile", "x")


# -- Photos


def test_a_crop_and_its_corners() -> None:
    crop = Crop(40, 30, 20, 90)
    assert np.allclose(crop.quad(), [[50, 20], [50, 40], [30, 40], [30, 20]])
    found = Crop.of(crop.quad())
    assert (found.x, found.y, found.side, found.angle) == pytest.approx((40, 30, 20, 90))
    assert Crop(-5, 900, 1e9, 270).within(100, 80) == Crop(0, 80, 200, -90)
    with pytest.raises(Error, match="four finite numbers"):
        Crop(float("nan"), 0, 1).within(10, 10)


def test_a_photo_has_faces_and_a_crop_that_can_be_moved(session: Session) -> None:
    photo = session.intake.open(hopper())
    assert len(photo.faces) == 1
    assert photo.crop == photo.faces[0]
    assert not any("no face" in remark for remark in session.intake.remarks)
    session.intake.set_crop(Crop(photo.crop.x, photo.crop.y, 5.0))
    assert photo.crop.side == 16
    assert Image.open(io.BytesIO(session.intake.crop_preview())).size == (256, 256)


def test_a_picture_without_a_face_says_so(session: Session) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (90, 70), "white").save(buffer, "PNG")
    photo = session.intake.upload(buffer.getvalue(), "blank.png")
    assert photo.crop.side == 70
    assert "no face was found" in session.intake.remarks[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "evil.png: not an image"),
        (b"GIF89a", "evil.png: "),
        (b"\xff\xd8\xff" + b"\0" * 999, "evil.png: "),
        (b"\0" * (LARGEST_UPLOAD + 1), "more than 40 MB"),
    ],
)
def test_uploads_that_are_no_photos_leave_nothing(
    session: Session, data: bytes, message: str
) -> None:
    before = set(session.keeper.hidden.iterdir())
    with pytest.raises(Error, match=message) as caught:
        session.intake.upload(data, "../../../evil.png")
    assert str(session.keeper.hidden) not in str(caught.value)
    assert set(session.keeper.hidden.iterdir()) == before


def test_an_upload_of_too_many_pixels(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTEDIT_MEGAPIXELS", "0.001")
    buffer = io.BytesIO()
    Image.new("RGB", (90, 70)).save(buffer, "PNG")
    with pytest.raises(Error, match="more than 0.001$"):
        session.intake.upload(buffer.getvalue(), "large.png")


@pytest.mark.parametrize("quality", list(QUALITIES))
def test_a_search_opens_its_face(
    session: Session, quality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentedit.studio.searches.TUNE_STEPS", 2)
    photo = session.intake.open(hopper())
    seen: list[float] = []
    session.listen(
        lambda what: (
            seen.append(session.intake.progress.share)
            if what == "search" and session.intake.progress
            else None
        )
    )
    face = session.intake.invert(quality, steps=3)
    assert face is not None
    assert face.latent.space == QUALITIES[quality].space
    assert bool(face.latent.tuned) == QUALITIES[quality].tuned
    assert face.latent.crop is not None
    assert np.allclose(face.latent.crop, photo.quad_in_file())
    assert face.photo == hopper()
    assert seen[-1] == 1.0
    assert session.verdict() is not None
    assert session.intake.can_refine(session.face)


def test_a_stopped_search_keeps_the_best(session: Session) -> None:
    session.intake.open(hopper())

    def stop(what: str) -> None:
        if (
            what == "search"
            and session.intake.progress is not None
            and session.intake.progress.step
        ):
            session.intake.stop()

    session.listen(stop)
    face = session.intake.invert("likeness", steps=50)
    assert face is not None
    assert face.latent.settings["interrupted"]
    assert not face.latent.tuned
    assert session.intake.search is None


def test_a_refined_search_leaves_the_sliders(session: Session) -> None:
    session.intake.open(hopper())
    session.intake.invert("balanced", steps=2)
    session.slide("smile", 1.0)
    session.settle()
    before = session.state
    session.intake.refine(session.face)
    assert session.state.settings == before.settings
    assert session.state.face != before.face
    assert session.intake.photo is None


def test_looking_waits_for_a_hand_at_the_slider(
    tmp_path: Path, tiny_file: Path, directions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it has begun: its pictures take the processor that the slider's need."""
    session = Session(load_model(tiny_file), str(tiny_file), Keeper(tmp_path / "out"))
    try:
        session.show(session.random_latent(3, 0.8), "someone", "a random face")
        clock = [100.0]
        moves = [0.5, 1.0, 1.5]

        def sleep(seconds: float) -> None:
            clock[0] += seconds
            if moves:
                session.slide("smile", moves.pop())

        time = SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
        monkeypatch.setattr("latentedit.studio.session.time", time)
        session.slide("smile", 0.1)
        session.limits.pause()
        assert not moves
        last = 100 + 3 * QUIET / 10
        assert last + QUIET <= clock[0] < last + 1.2 * QUIET
    finally:
        session.close()
