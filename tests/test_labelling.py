"""Labels made by hand: the samples, the order of the questions, and the page that asks them."""

import csv
import http.client
import json
import os
import socket
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fastapi import FastAPI
from PIL import Image
from sklearn.metrics import roc_auc_score

from latentedit.cli.main import main
from latentedit.directions import load_direction, read_labels
from latentedit.directions.labelling.desk import Desk, for_browser
from latentedit.directions.labelling.samples import write_samples
from latentedit.directions.labelling.session import Labelling, labelled_alone
from latentedit.directions.labelling.table import Table
from latentedit.directions.probe import probe
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_generator
from latentedit.io.images import load_image, open_image, to_uint8
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.latent.w_statistics import sample_w
from latentedit.networks.fingerprint import fingerprint
from latentedit.studio.web.questions import LARGEST_ANSWER, end_points
from latentedit.studio.web.server import STRANGERS, Studio
from tests.helpers import complaint, tiny_generator, works
from tests.web import Caller, Served, browser, served

PLANTED = np.arange(1.0, 13.0) - 5


def planted(folder: Path, count: int) -> tuple[Path, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A table of ``count`` latents, their w ``[count, 12]``, and labels that are 1 on one side of a
    plane."""
    w = sample_w(tiny_generator(), count, seed=3)
    scores = w.double().numpy() @ PLANTED
    for i in range(count):
        save_latent(
            folder / f"{i:03d}.safetensors", Latent(w[i].expand(1, 6, -1), None, "f" * 64, "w")
        )
        Image.new("L", (16, 16), i % 256).save(folder / f"{i:03d}.png")
    (folder / "labels.csv").write_text(
        "".join(["file\n", *(f"{i:03d}.safetensors\n" for i in range(count))])
    )
    return folder / "labels.csv", w.double().numpy(), (scores > np.median(scores)).astype(int)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray[Any, Any]]:
    folder = tmp_path_factory.mktemp("planted")
    table, _, truth = planted(folder, 40)
    return table, truth


@pytest.fixture
def table(made: tuple[Path, np.ndarray[Any, Any]]) -> Path:
    """Forty latents without any label."""
    made[0].write_text("".join(["file\n", *(f"{i:03d}.safetensors\n" for i in range(40))]))
    return made[0]


def written(table: Path, column: str = "hat") -> dict[str, str]:
    """Labels by file, as they are in the CSV."""
    with open(table, newline="", encoding="utf-8-sig") as file:
        return {row["file"]: row[column] for row in csv.DictReader(file)}


def answered(labelling: Labelling, truth: np.ndarray[Any, Any], count: int) -> list[int]:
    """Answer ``count`` questions truly; the samples asked about."""
    asked = []
    for _ in range(count):
        sample = labelling.next()
        assert sample is not None
        labelling.answer(sample.file, str(truth[sample.number]))
        asked.append(sample.number)
    return asked


# -- Samples


def test_samples_are_the_pictures_of_their_seeds_and_become_a_direction(
    tmp_path: Path, tiny_file: Path
) -> None:
    out = tmp_path / "samples"
    arguments = (
        "directions",
        "sample",
        "--model",
        tiny_file,
        "--count",
        12,
        "--seed",
        5,
        "--psi",
        0.8,
        "--out",
        out,
    )
    result = works(*arguments, "--attribute", "bright", "--attribute", "hat")
    assert f"directions label {out / 'labels.csv'} --column bright" in result.stdout
    lines = (out / "labels.csv").read_text().splitlines()
    assert lines[:2] == ["file,picture,bright,hat", "0000.safetensors,0000.png,,"]
    assert len(lines) == 13
    words = ("--seeds", "5-16", "--psi", "0.8", "--each", "--out", tmp_path / "same")
    works("sample", tiny_file, *words)
    generator, levels = load_generator(tiny_file), []
    for i in range(12):
        picture = to_uint8(load_image(out / f"{i:04d}.png", channels=1))
        same = load_image(tmp_path / "same" / f"seed{5 + i:04d}.png", channels=1)
        assert torch.equal(picture, to_uint8(same))
        latent = load_latent(out / f"{i:04d}.safetensors")
        assert latent.settings == {"seed": 5 + i, "psi": 0.8}
        assert latent.fingerprint == fingerprint(generator)
        assert torch.equal(to_uint8(latent.render(generator)), picture)
        levels.append(float(picture.float().mean()))
    sheet = open_image(out / "sheet.png").size  # eight in a row, each enlarged to 128 pixels
    assert 8 * 128 < sheet[0] < 9 * 128
    assert 2 * 128 < sheet[1] < 3 * 128
    labelling = Labelling(out / "labels.csv", "bright", order="file")
    answered(labelling, (np.array(levels) > np.median(levels)).astype(int), 12)
    fitted = tmp_path / "bright.safetensors"
    works(
        "directions",
        "fit",
        out / "labels.csv",
        "--column",
        "bright",
        "--model",
        tiny_file,
        "--out",
        fitted,
    )
    assert load_direction(fitted).report["samples"] == 12
    assert "has 12 labels of 'bright', which would be lost" in complaint(
        *arguments, "--attribute", "bright"
    )
    assert len(read_labels(out / "labels.csv", "bright").paths) == 12


def test_samples_of_a_conditional_network_and_large_ones(tmp_path: Path) -> None:
    generator = tiny_generator(c_dim=3, resolution=256, channel_base=256, channel_max=4)
    write_samples(generator, "x", tmp_path, 3, attributes=[])
    assert {load_latent(tmp_path / f"000{i}.safetensors").settings["class"] for i in range(3)} <= {
        0,
        1,
        2,
    }
    assert load_image(tmp_path / "0000.png", channels=1).shape == (1, 1, 256, 256)
    assert open_image(tmp_path / "sheet.png").size[0] < 3 * 140
    assert (
        (tmp_path / "labels.csv")
        .read_text()
        .startswith("file,picture\n0000.safetensors,0000.png\n")
    )
    # nothing is lost by writing over it
    write_samples(generator, "x", tmp_path, 1, attributes=["hat"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attributes": ["a hat"]}, "an attribute's name has letters, digits"),
        ({"attributes": ["file"]}, "is not file or picture; got 'file'"),
        ({"attributes": ["hat", "hat"]}, "named twice: hat, hat"),
        ({"attributes": [], "count": 0}, "number of samples must be 1 to 10000, got 0"),
        ({"attributes": [], "seed": 2**32}, "the seeds of 2 samples must be below 2\\^32"),
    ],
)
def test_samples_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Error, match=message):
        write_samples(tiny_generator(), "x", tmp_path / "new", **{"count": 2, **options})
    assert not (tmp_path / "new").exists()


# -- The table


def test_only_the_cell_changes(tmp_path: Path) -> None:
    before = (
        b'\xef\xbb\xbf"file",note,hat\r\n"a.png","said ""no""\r\nand '
        b'left",\r\nb.png,"b",1\r\n\r\nc.png'
    )
    place = tmp_path / "labels.csv"
    place.write_bytes(before)
    table = Table(place)
    table.set(1, "hat", "0")
    assert place.read_bytes() == before.replace(b'b.png,"b",1', b"b.png,b,0")
    table.set(0, "hat", "1")
    after = (
        before.replace(b'b.png,"b",1', b"b.png,b,0")
        .replace(b'"a.png"', b"a.png")
        .replace(b'left",\r', b'left",1\r')
    )
    assert place.read_bytes() == after
    table.set(3, "coat", "1")
    after = after.replace(b'"file",note,hat', b"file,note,hat,coat").replace(b"c.png", b"c.png,,,1")
    assert place.read_bytes() == after.replace(b'left",1', b'left",1,').replace(
        b"b.png,b,0", b"b.png,b,0,"
    )
    assert [table.cell(row, "hat") for row in range(4)] == ["1", "0", "", ""]


def test_what_another_program_wrote_is_not_lost(tmp_path: Path) -> None:
    place = tmp_path / "labels.csv"
    place.write_text("file,hat\na.png,\n")
    table = Table(place)
    place.write_text("file,hat\na.png,1\n")
    with pytest.raises(Error, match="another program has changed this file"):
        table.set(0, "hat", "0")
    assert place.read_text() == "file,hat\na.png,1\n"
    assert table.cell(0, "hat") == ""


def test_a_link_to_a_table_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("file\na.png\n")
    try:
        (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    except OSError:
        pytest.skip("no links here")
    Table(tmp_path / "link.csv").set(0, "hat", "1")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "file,hat\na.png,1\n"


# -- The order of questions


def test_answers_are_in_the_file_and_can_be_taken_back(table: Path) -> None:
    labelling = Labelling(table, "hat", order="file")
    # reading changes nothing
    assert table.read_text() == "".join(["file\n", *(f"{i:03d}.safetensors\n" for i in range(40))])
    assert labelling.undo() is None
    for value in ("1", "0", "", "1"):
        sample = labelling.next()
        assert sample == labelling.next()
        assert sample is not None
        labelling.answer(sample.file, value)
        assert written(table)[sample.file] == value
    assert (labelling.progress().yes, labelling.progress().no, labelling.progress().left) == (
        2,
        1,
        37,
    )
    # the skipped one comes last
    assert [sample.number for sample in labelling.upcoming(40)] == [*range(4, 40), 2]
    for number, value in ((3, "1"), (2, ""), (1, "0")):
        undone = labelling.undo()
        assert undone is not None
        assert undone.number == number
        assert labelling.next() == undone
        assert written(table)[undone.file] == "", value
    assert [sample.number for sample in labelling.upcoming(40)] == [*range(1, 40)]
    assert list(written(table).values()) == ["1", *[""] * 39]
    for number in (30, 20):
        labelling.answer(f"0{number}.safetensors", "0")
    labelling.undo()
    labelling.undo()
    assert [sample.number for sample in labelling.upcoming(3)] == [30, 20, 1]


def test_skipped_samples_come_back_in_their_order(table: Path) -> None:
    labelling = Labelling(table, "hat", order="file")
    for number in range(40):
        labelling.answer(f"{number:03d}.safetensors", "" if number in (5, 9) else "1")
    assert [sample.number for sample in labelling.upcoming(9)] == [5, 9]
    labelling.answer("005.safetensors", "")
    assert [sample.number for sample in labelling.upcoming(9)] == [9, 5]
    labelling.undo()
    assert [sample.number for sample in labelling.upcoming(9)] == [5, 9]
    labelling.answer("005.safetensors", "0")
    labelling.answer("009.safetensors", "0")
    assert labelling.next() is None
    assert labelling.progress().left == 0


def test_order_is_fixed_by_the_seed_and_resumes(
    made: tuple[Path, np.ndarray[Any, Any]], table: Path
) -> None:
    truth, empty = made[1], table.read_bytes()
    first = answered(Labelling(table, "hat"), truth, 20)
    assert first != sorted(first)
    labels = table.read_bytes()
    table.write_bytes(empty)
    assert answered(Labelling(table, "hat"), truth, 20) == first
    assert table.read_bytes() == labels
    going_on = Labelling(table, "hat")
    assert (going_on.progress().yes, going_on.progress().no) == (
        int(truth[first].sum()),
        20 - int(truth[first].sum()),
    )
    assert going_on.progress().auc is not None
    rest = answered(going_on, truth, 20)
    assert sorted(first + rest) == list(range(40))
    table.write_bytes(empty)
    assert answered(Labelling(table, "hat", seed=1), truth, 3) != first[:3]


def test_the_most_uncertain_sample_is_asked_next(
    made: tuple[Path, np.ndarray[Any, Any]], table: Path
) -> None:
    truth = made[1]
    labelling = Labelling(table, "hat")
    answered(labelling, truth, 30)
    again = Labelling(table, "hat")  # fitted to all thirty
    rows = np.stack(
        [load_latent(sample.path).ws[0, 0].double().numpy() for sample in again.samples]
    )
    rows -= rows.mean(axis=0)
    rows /= np.sqrt(np.square(rows).mean())
    known = np.array([value != "" for value in written(table).values()])
    fitted = probe("logistic", 0.1).fit(rows[known], truth[known])
    distance = np.abs(fitted.predict_proba(rows)[:, 1] - 0.5)
    sample = again.next()
    assert sample is not None
    assert sample.number == min(np.flatnonzero(~known), key=lambda i: float(distance[i]))


def answers_needed(
    labelling: Labelling, w: np.ndarray[Any, Any], truth: np.ndarray[Any, Any], wanted: float
) -> int:
    """Until a probe of the answers orders all samples with that ROC AUC."""
    x = (w - w.mean(axis=0)) / w.std()
    known: list[int] = []
    for count in range(1, 200):
        known += answered(labelling, truth, 1)
        if min(np.bincount(truth[known], minlength=2)) >= 2:
            scores = probe("logistic", 1.0).fit(x[known], truth[known]).decision_function(x)
            if roc_auc_score(truth, scores) >= wanted:
                return count
    return 200


def test_uncertain_first_needs_fewer_answers(tmp_path: Path) -> None:
    table, w, truth = planted(tmp_path, 250)
    needed = {}
    for order in ("uncertain", "file"):
        needed[order] = answers_needed(
            Labelling(table, f"by-{order}", order=order), w, truth, 0.995
        )
    assert needed["uncertain"] < 0.75 * needed["file"], needed


def test_photographs_are_asked_about_by_their_look(tmp_path: Path) -> None:
    """Photographs lit from the left and from the right: the probe has both sides right after some
    answers."""
    rng = np.random.RandomState(0)
    truth = rng.permutation(np.arange(40) % 2)
    for i, left in enumerate(truth):
        ramp = np.linspace(200, 60, 40) if left else np.linspace(60, 200, 40)
        pixels = (ramp[None] + rng.normal(0, 20, (30, 40))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    table = tmp_path / "labels.csv"
    table.write_text("".join(["file,who\n", *(f"{i}.png,p{i}\n" for i in range(40))]))
    labelling = Labelling(table, "left")
    assert not labelling.latents
    assert labelling.samples[3].picture == tmp_path / "3.png"
    answered(labelling, truth, 25)
    assert labelling.progress().auc == 1.0
    with open(table, newline="") as file:
        assert [row["who"] for row in csv.DictReader(file)] == [f"p{i}" for i in range(40)]


def test_what_cannot_be_labelled(tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "a.png")
    Image.new("L", (16, 16)).save(tmp_path / "b.png")
    for name, row in (("b", 0), ("lonely", 0), ("other", 1)):
        save_latent(
            tmp_path / f"{name}.safetensors",
            Latent(torch.randn(1, 6, 12), None, "fe"[row] * 64, "w"),
        )
    Image.new("L", (16, 16)).save(tmp_path / "other.png")
    table = tmp_path / "labels.csv"
    cases = [
        ("name\na.png\n", "no column 'file'; there are name"),
        ("", "the first line must name the columns"),
        ("file\n", "no row names a file"),
        ("file\nc.png\n", "line 2: no such file"),
        ("file,picture\na.png,\nb.safetensors,c.png\n", "line 3: no such image"),
        (
            "file\nlonely.safetensors\n",
            "line 2: no image for .*lonely.safetensors: neither in a column 'picture', nor lonely",
        ),
        (
            "file,hat\na.png,maybe\n",
            "line 2: hat is 'maybe'; labels here are 1 or yes, 0 or no, or empty",
        ),
        ("file,hat\na.png,1.0\n", "line 2: hat is '1.0'"),
        ("file,hat,hat\na.png,1,\n", "has 2 columns 'hat'"),
        ("file\na.png\na.png\n", "line 3: a.png already has an earlier row"),
        ("file\na.png\nb.safetensors\n", "names both latent files and photos"),
        (
            "file\nb.safetensors\nother.safetensors\n",
            "other.safetensors: belongs to the generator eeee",
        ),
        ('file\n"a.png\n', "not a readable CSV file"),
        ("file\na\0.png\n", "labels.csv"),
    ]
    for text, message in cases:
        table.write_text(text)
        with pytest.raises(Error, match=message):
            Labelling(table, "hat")
        assert table.read_text() == text
    table.write_text("file\na.png\n")
    with pytest.raises(Error, match="order must be one of uncertain, file"):
        Labelling(table, "hat", order="best")
    for column in ("file", "picture", " "):
        with pytest.raises(Error, match="cannot be a column of labels"):
            Labelling(table, column)
    labelling = Labelling(table, "hat")
    with pytest.raises(Error, match="has no row for 'b.png'"):
        labelling.answer("b.png", "1")
    with pytest.raises(Error, match="an answer is 1, 0 or empty"):
        labelling.answer("a.png", "yes")
    assert table.read_text() == "file\na.png\n"
    table.write_text("file,hat\na.png,1\n")
    assert "all 1 samples have a label in 'hat'" in complaint(
        "directions", "label", table, "--column", "hat"
    )
    assert "no.csv: no such file" in complaint(
        "directions", "label", tmp_path / "no.csv", "--column", "hat"
    )
    assert "a folder, expected a CSV file" in complaint(
        "directions", "label", tmp_path, "--column", "hat"
    )


# -- The page


@pytest.fixture
def page(table: Path) -> Caller:
    """The end points behind their guard, for forty latents in the order of the file."""
    app = FastAPI()
    desk = Desk(Labelling(table, "hat", order="file"))
    end_points(app, lambda: desk)
    return Caller(app)


def send(
    page: Caller, path: str, body: bytes = b"{}", **headers: str | None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a POST."""
    headers.setdefault("content_type", "application/json")
    status, _, text = page(f"/label{path}", method="POST", chunks=(body,), headers=headers)
    return status, json.loads(text) if text.startswith(b"{") else {}


def answer(page: Caller, sample: object, value: object) -> tuple[int, dict[str, Any]]:
    return send(page, "/answer", json.dumps({"sample": sample, "value": value}).encode())


def test_every_answer_is_in_the_file_before_the_reply(page: Caller, table: Path) -> None:
    state = json.loads(page("/label/state")[2])
    assert (state["column"], state["number"], state["following"], state["left"]) == (
        "hat",
        0,
        1,
        40,
    )
    for number, value in enumerate(("1", "0", "", "1")):
        assert state["number"] == number
        status, state = answer(page, number, value)
        assert status == 200
        assert written(table)[f"00{number}.safetensors"] == value
    assert (state["yes"], state["no"], state["left"], state["can_undo"]) == (2, 1, 37, True)
    assert send(page, "/undo")[1]["number"] == 3
    assert written(table)["003.safetensors"] == ""


def test_pictures_are_numbered(page: Caller, tmp_path: Path) -> None:
    status, headers, body = page("/label/picture/7")
    assert (status, headers["content-type"]) == (200, "image/png")
    (tmp_path / "got.png").write_bytes(body)
    assert open_image(tmp_path / "got.png").getpixel((0, 0)) == 7
    for number in (
        "40",
        "-1",
        "x",
        "007.png",
        "../labels.csv",
        "1" * 5000,
        "1.0",
        "..",
        "labels.csv",
    ):
        assert page(f"/label/picture/{number}")[0] == 404, number


def test_a_large_photograph_is_sent_small_and_without_its_notes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "where I live", 6  # turned by a quarter
    Image.new("RGB", (3000, 1500), (200, 10, 10)).save(
        tmp_path / "a.jpg", exif=exif, comment="where I live"
    )
    (tmp_path / "labels.csv").write_text("file\na.jpg\n")
    kind, body = for_browser(tmp_path / "a.jpg")
    (tmp_path / "got.jpg").write_bytes(body)
    with Image.open(tmp_path / "got.jpg") as got:
        assert (kind, got.size, len(got.getexif())) == ("image/jpeg", (512, 1024), 0)
    assert b"where I live" not in body


def test_a_damaged_picture_does_not_end_the_program(page: Caller, table: Path) -> None:
    picture = table.parent / "000.png"
    whole = picture.read_bytes()
    try:
        picture.write_text("no picture")
        status, _, body = page("/label/picture/0")
    finally:
        picture.write_bytes(whole)
    assert status == 404
    assert "000.png: not an image" in json.loads(body)["error"]
    assert page("/label/state")[0] == 200


def test_strangers_get_nothing(page: Caller, table: Path) -> None:
    before = table.read_bytes()
    for headers in (
        {"cookie": None},
        {"cookie": "studio=x"},
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
    ):
        for path in ("/answer", "/undo", "/done"):
            assert send(page, path, b'{"sample": 0, "value": "1"}', **headers)[0] == 403
    for path in ("/label/state", "/label/picture/0"):
        assert page(path, cookie=None)[0] == 403
    assert table.read_bytes() == before


def test_bad_requests_write_nothing(page: Caller, table: Path) -> None:
    before = table.read_bytes()
    good = b'{"sample": 0, "value": "1"}'
    cases: list[tuple[int, bytes, dict[str, str | None]]] = [
        (413, good + b" " * LARGEST_ANSWER, {}),
        (413, good + b" " * 50_000, {}),
        (413, good + b" " * 70_000, {}),
        (413, b"", {"content_length": "9" * 12}),
        (400, b"", {"content_length": "-5"}),
        (415, good, {"content_type": "text/plain"}),
        (415, good, {"content_type": None}),
        (400, b"sample=0&value=1", {}),
        (400, b"[" * 1000, {}),
        (400, b"[0, 1]", {}),
        (400, b"\xff\xfe", {}),
    ]
    for status, body, headers in cases:
        assert send(page, "/answer", body, **headers)[0] == status, (body[:50], headers)
    for sample in (40, -1, 0.0, True, None, "x", [0], 10**30):
        status, found = answer(page, sample, "1")
        assert (status, found) == (409, {"error": "no such sample"}), sample
    for value in ("yes", 1, None, True, ["1"], "1\n"):
        assert answer(page, 0, value)[0] == 409, value
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        assert page("/label/answer", method=method)[0] == 405
    assert table.read_bytes() == before
    assert json.loads(page("/label/state")[2])["can_undo"] is False


def test_a_table_that_another_program_changed_is_left_alone(page: Caller, table: Path) -> None:
    table.write_text("file,hat\n000.safetensors,1\n")
    status, found = answer(page, 0, "0")
    assert status == 409
    assert "another program has changed this file" in found["error"]
    assert table.read_text() == "file,hat\n000.safetensors,1\n"


def test_two_pages_on_one_table(table: Path) -> None:
    """The second one is told whose it is; through a link to the table too."""
    before = table.read_bytes()
    link = table.parent / "linked.csv"
    link.symlink_to(table)
    try:
        with labelled_alone(link):
            for name in (table, link):
                message = complaint(
                    "directions",
                    "label",
                    name,
                    "--column",
                    "hat",
                    "--order",
                    "file",
                    "--no-browser",
                )
                expected = (
                    f"{name}: process {os.getpid()} on {socket.gethostname()} is working on it; "
                    "wait for it"
                )
                assert expected in message
    finally:
        link.unlink()
    assert table.read_bytes() == before
    assert not list(table.parent.glob("*.lock"))


def test_samples_do_not_replace_a_table_that_is_being_labelled(tmp_path: Path) -> None:
    write_samples(tiny_generator(), "x", tmp_path, 1, attributes=["hat"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    refused = pytest.raises(Error, match="labels.csv: process [0-9]+ on .* is working on it")
    with labelled_alone(tmp_path / "labels.csv"), refused:
        write_samples(tiny_generator(1), "x", tmp_path, 1, attributes=["hat"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_secret_is_not_on_the_browsers_command_line(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user can read the arguments of every process; the file that they name can be read by
    its owner alone."""
    opened: list[tuple[str, str]] = []

    def look(address: str) -> None:
        opened.append((address, Path(url2pathname(urlsplit(address).path)).read_text()))

    def run(page: Studio, ready: Any) -> bool:
        ready()
        page.close()
        return False

    monkeypatch.setattr("webbrowser.open", look)
    monkeypatch.setattr("latentedit.studio.web.server.Studio.run", run)
    result = works("directions", "label", table, "--column", "hat", "--order", "file")
    [(address, text)] = opened
    assert address.startswith("file:///")
    printed = result.stdout.splitlines()[0]
    assert "?key=" in printed
    assert "key" not in address
    assert escape(printed) in text
    assert "a direction needs at least 2 of each" in result.stdout
    monkeypatch.setattr("webbrowser.open", lambda address: pytest.fail("opened a browser"))
    works("directions", "label", table, "--column", "hat", "--order", "file", "--no-browser")
    assert (
        CliRunner()
        .invoke(main, ["directions", "label", str(table), "--column", "x", "--port", "70000"])
        .exit_code
        == 2
    )


@pytest.fixture
def command(table: Path) -> Iterator[Served]:
    with served(
        "directions", "label", table, "--column", "hat", "--order", "file", "--no-browser"
    ) as found:
        yield found


def ask(command: Served, method: str, path: str, body: object) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", command.port, timeout=60)
    try:
        connection.request(
            method,
            f"{command.place}/label{path}",
            json.dumps(body) if body is not None else None,
            command.headers,
        )
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_command_says_how_to_go_on(
    command: Served, made: tuple[Path, np.ndarray[Any, Any]], table: Path
) -> None:
    """Strangers that say nothing do not keep the owner out; Done ends the program."""
    idle = [socket.create_connection(("127.0.0.1", command.port), 10) for _ in range(STRANGERS + 9)]
    try:
        for number in range(8):
            assert (
                ask(command, "POST", "/answer", {"sample": number, "value": str(made[1][number])})
                == 200
            )
            assert written(table)[f"{number:03d}.safetensors"] == str(made[1][number])
        assert ask(command, "POST", "/done", {}) == 200
        out, err = command.process.communicate(timeout=60)
    finally:
        for connection in idle:
            connection.close()
    yes = int(made[1][:8].sum())
    assert f"hat: {yes} yes, {8 - yes} no, 32 left" in out
    expected = f"latentedit directions fit {table} --column hat --model MODEL --out hat.safetensors"
    assert out.splitlines()[-1] == f"next: {expected}"
    assert (err, command.process.returncode) == ("", 0)


def test_ctrl_c_ends_it_with_one_line(command: Served, table: Path) -> None:
    assert ask(command, "POST", "/answer", {"sample": 0, "value": "1"}) == 200
    out, err = command.interrupt()
    assert command.process.returncode == 130
    assert "hat: 1 yes, 0 no, 39 left" in out
    assert err == f"latentedit: interrupted; all answers are saved in {table}\n"
    assert written(table)["000.safetensors"] == "1"


def test_keys_in_a_browser(command: Served, table: Path) -> None:
    """What a person does, in headless Chromium: the CSV has what the keys said."""
    problems: list[str] = []
    with browser() as context:
        from playwright.sync_api import expect

        tab = context.new_page()
        tab.on(
            "console",
            lambda message: problems.append(message.text) if message.type == "error" else None,
        )
        tab.on("pageerror", lambda error: problems.append(str(error)))
        outside: list[str] = []
        tab.on("request", lambda request: outside.append(request.url))
        tab.goto(command.address)
        image, left = tab.locator("#sample"), tab.locator("#count-left")

        def asked_about(number: int) -> None:
            expect(image).to_have_attribute("alt", f"Sample 00{number}.safetensors")
            expect(tab.locator("#yes")).to_be_enabled()

        for number, key in enumerate(["ArrowRight", "f", "s", "j", "ArrowLeft", "J"]):
            asked_about(number)
            tab.keyboard.press(key)
        asked_about(6)
        expect(left).to_have_text("35")
        tab.keyboard.press("Backspace")
        asked_about(5)
        assert list(written(table).values())[:6] == ["1", "0", "", "1", "0", ""]
        tab.locator("#yes").focus()
        tab.keyboard.press("Enter")
        asked_about(6)
        tab.click("#label-done")
        expect(tab.get_by_text("Finished: 3 yes, 2 no, 35 left")).to_be_visible()
        assert "key=" not in tab.url
    assert command.process.wait(60) == 0
    assert list(written(table).values()) == ["1", "0", "", "1", "0", "1", *[""] * 34]
    assert not problems, problems
    assert all(url.startswith((f"http://127.0.0.1:{command.port}/", "data:")) for url in outside), (
        outside
    )
