"""Training sets from pictures of any kind."""

import dataclasses
import importlib.util
import io
import json
import logging
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.cli.fitting import read_crops
from latentedit.errors import Error
from latentedit.io.images import save_image
from latentedit.model.model import Model
from latentedit.photo.face import DetectedFace
from latentedit.photo.faces import warning_of_several
from latentedit.photo.framing import FRAMINGS
from latentedit.training import PictureSet, load_pictures, write_pictures
from latentedit.training.data import StoredPictureSet
from latentedit.training.loop import loading_rate
from latentedit.training.preparation import Preparation, Skipped, class_labels, prepared
from tests.helpers import complaint, tiny_generator, works


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two folders of pictures of several kinds, one of which is no picture."""
    for name, image in (
        ("left/a.png", picture(seed=1)),
        ("left/b.jpg", picture(20, 50, 2)),
        ("right/c.png", picture(32, 32, 3).convert("P")),
        ("right/d.png", Image.new("RGBA", (16, 16), (10, 20, 30, 0))),
    ):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "right" / "e.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def squares(path: Path, preparation: Preparation) -> tuple[dict[str, Image.Image], list[str]]:
    skipped = Skipped()
    found = dict(prepared(path, preparation, skipped))
    return found, [*skipped.others, *skipped.images]


def build_set(
    out: Path, source: Path, labels: str | None = None, column: str | None = None
) -> Path:
    given, sources = class_labels(source, labels, column), dict[str, str]()
    pictures = prepared(source, Preparation(16), Skipped(), sources)
    write_pictures(out, pictures, (lambda name: given(sources[name])) if given else None)
    return out


def test_all_kinds_become_squares(photos: Path) -> None:
    found, skipped = squares(photos, Preparation(16))
    assert sorted(found) == ["left/a.png", "left/b.png", "right/c.png", "right/d.png"]
    assert {image.size for image in found.values()} == {(16, 16)}
    assert {image.mode for image in found.values()} == {"RGB"}
    assert len(skipped) == 1
    assert skipped[0].startswith("right/e.png: not an image")
    grey, _ = squares(photos, Preparation(16, grey=True))
    assert {image.mode for image in grey.values()} == {"L"}


def test_what_is_not_square(photos: Path) -> None:
    cut = squares(photos, Preparation(16))[0]["left/a.png"]
    with Image.open(photos / "left" / "a.png") as whole:
        expected = (
            whole.convert("RGB").crop((5, 0, 35, 30)).resize((16, 16), Image.Resampling.LANCZOS)
        )
    # At the cut the resampling filter sees a little of what was cut off.
    assert np.array_equal(np.asarray(cut)[:, 3:-3], np.asarray(expected)[:, 3:-3])
    padded = squares(photos, Preparation(32, fit="pad"))[0]["left/b.png"]
    rows = np.asarray(padded).astype(int)
    assert abs(rows[:, 0] - rows[:, 5]).max() <= 8  # 15 of 50 columns continue the border
    left, skipped = squares(photos, Preparation(16, fit="skip"))
    assert sorted(left) == ["right/c.png", "right/d.png"]
    assert any("left/a.png: is 40 x 30, not square" in line for line in skipped)


def test_what_is_transparent(photos: Path) -> None:
    assert np.asarray(squares(photos, Preparation(16))[0]["right/d.png"]).min() == 255
    assert (
        np.asarray(squares(photos, Preparation(16, background="black"))[0]["right/d.png"]).max()
        == 0
    )
    left, skipped = squares(photos, Preparation(16, background="skip"))
    assert "right/d.png" not in left
    assert "right/d.png: is transparent" in skipped


def test_rectangle(photos: Path) -> None:
    found, skipped = squares(photos, Preparation(8, crop=(12.0, 4.0, 8.0)))
    with Image.open(photos / "left" / "a.png") as whole:
        assert np.array_equal(
            np.asarray(found["left/a.png"]), np.asarray(whole.convert("RGB"))[4:12, 12:20]
        )
    _, skipped = squares(photos, Preparation(8, crop=(12.0, 4.0, 25.0)))
    assert "left/b.jpg: the rectangle 12,4,25 lies outside the image of 20 x 50" in skipped


def test_face_crop_puts_the_eyes_where_they_belong() -> None:
    import matplotlib

    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(portrait) as photo:
        whole = photo.convert("RGB")
    wide = Preparation(64, crop="face", framing={"eyes": [[0.45, 0.5], [0.55, 0.5]]}).square(
        whole, "hopper"
    )
    near = Preparation(64, crop="face").square(whole, "hopper")
    assert near.size == wide.size == (64, 64)
    assert not np.array_equal(np.asarray(near), np.asarray(wide))
    with pytest.raises(Error, match="wall: no face found"):
        Preparation(64, crop="face").square(Image.new("RGB", (100, 100)), "wall")


def test_doubts_about_faces_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line about all images, by "dataset build" and by what "directions fit" reads photos
    with."""
    names = ["a.png", "b.png", "odd.png", "odd2.png"]
    for name in names:
        picture(64, 64).save(tmp_path / name)
    certain = DetectedFace((16, 16, 32, 32), (24, 28), (40, 28), True)
    doubtful = dataclasses.replace(certain, doubts=("no eyes found",))
    head = dataclasses.replace(certain, turned=180)
    faces = iter([[certain] * 2, [head], [doubtful], [doubtful]] * 2)
    for module in ("training.preparation", "photo.alignment"):
        monkeypatch.setattr(f"latentedit.{module}.find_faces", lambda *_: next(faces))
    monkeypatch.setattr("latentedit.photo.faces.has_landmarks", lambda: True)
    begin, end = "the faces of 2 of 4 images may be framed wrongly: ", "; check these crops"

    told = works(
        "dataset", "build", tmp_path, "--size", 16, "--crop", "face", "--out", tmp_path / "d.zip"
    ).stderr
    assert f"{begin}odd.png (no eyes found), odd2.png (no eyes found){end}\n" in told
    assert "1 of 4 images show several faces; the largest was taken: a.png\n" in told
    assert "1 of 4 images are upside down or lie on their side, and were turned: b.png\n" in told
    caplog.set_level(logging.INFO, "latentedit")
    read_crops(
        [tmp_path / name for name in names],
        Model(tiny_generator(), None, FRAMINGS["ffhq"]),
        None,
        False,
    )
    assert (
        f"{begin}{tmp_path}/odd.png (no eyes found), {tmp_path}/odd2.png (no eyes found){end}"
        in caplog.messages
    )
    assert f"1 of 4 images show several faces; the largest was taken: {tmp_path}/a.png" in (
        caplog.messages
    )


def test_many_doubts_are_counted() -> None:
    doubts = {f"{n}.png": ("no eyes found",) for n in range(12)}
    line = warning_of_several(doubts, 20)
    assert line.startswith(
        "the faces of 12 of 20 images may be framed wrongly: 0.png (no eyes found), 1.png"
    )
    assert "9.png (no eyes found), ...; check these crops" in line
    assert warning_of_several({"a.png": ()}, 1) == ""


def test_labels_from_folders_csv_and_nvidia(photos: Path, tmp_path: Path) -> None:
    def build(out: str, source: Path, **options: str) -> Path:
        return build_set(tmp_path / out, source, **options)

    folders = load_pictures(build("folders.zip", photos, labels="folders"))
    assert folders.label_names == ["left", "right"]
    assert folders.labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert folders.label_frequencies(False) == [0.5, 0.5]
    document = json.loads(zipfile.ZipFile(tmp_path / "folders.zip").read("dataset.json"))
    assert document["labels"][0] == ["left/a.png", 0]  # as NVIDIA's tools read it

    table = tmp_path / "labels.csv"
    table.write_text(
        "file,age\nphotos/left/a.png,10\nphotos/left/b.jpg,9\nphotos/right/c.png,10\nphotos/right/d.png,10\n"
    )
    ages = load_pictures(build("ages", photos, labels=str(table), column="age"))
    assert ages.label_names == ["9", "10"]
    assert ages.labels[:, 1].tolist() == [1, 0, 1, 1]
    # the dataset.json of the source is kept
    again = load_pictures(build("again.zip", tmp_path / "ages"))
    assert again.label_names == ages.label_names
    assert torch.equal(again.labels, ages.labels)
    assert torch.equal(again.pixels, ages.pixels)


def test_labels_that_do_not_fit(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    for text, message in (
        ("name,age\nphotos/left/a.png,1\n", "no column 'file'; there are name, age"),
        ("file,age\nphotos/left/z.png,1\n", "line 2: no such file photos/left/z.png"),
        (
            "file,age\nphotos/left/a.png,1\nleft/a.png,2\n",
            "line 3: left/a.png is labelled '2' here and '1' before",
        ),
        ("file,age\nphotos/left/a.png,\n", "column 'age' has no label"),
    ):
        table.write_text(text)
        with pytest.raises(Error, match=message):
            class_labels(photos, str(table), "age")
    table.write_text("file,age\nphotos/left/a.png,1\n")
    for out in (tmp_path / "x.zip", tmp_path / "x"):
        with pytest.raises(Error, match="left/b.png has no label, others have"):
            build_set(out, photos, str(table), "age")
        assert not out.exists()
    with pytest.raises(Error, match="a column needs a CSV file of labels"):
        class_labels(photos, None, "age")
    with pytest.raises(Error, match="none of the images has a label"):
        build_set(tmp_path / "x.zip", photos / "left", "folders")
    with pytest.raises(Error, match="need the name of their column"):
        class_labels(photos, str(table))


def test_dataset_json_that_is_wrong(tmp_path: Path) -> None:
    for i in range(2):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    for labels, message in (
        ([["0.png", 1]], "no label for 1.png"),
        ([["0.png", [1, 0]], ["1.png", [1]]], r"labels of unequal length \(1 and 2\)"),
        ([["0.png", "a"], ["1.png", "b"]], "must have a whole number"),
        ([["0.png", -1], ["1.png", 2]], "must have a whole number"),
        ("no", "must be"),
    ):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        with pytest.raises(Error, match=message):
            load_pictures(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(Error, match="dataset.json must be"):
        load_pictures(tmp_path)
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": [["0.png", [0.5, 1]], ["1.png", [1, 0]]]})
    )
    assert load_pictures(tmp_path).labels.tolist() == [[0.5, 1], [1, 0]]


def test_same_names_with_other_endings(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.bmp"):
        picture().save(tmp_path / name)
    assert sorted(squares(tmp_path, Preparation(16))[0]) == ["a.jpg.png", "a.png", "a.png.png"]


def test_a_folder_that_is_there_is_left_alone(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="already exists; give a new folder"):
        write_pictures(photos, prepared(photos, Preparation(16), Skipped()))


def test_large_sets_are_decoded_as_they_are_wanted(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    pictures = [(f"{i}.png", picture(16, 16, i)) for i in range(10)]
    write_pictures(tmp_path / "x.zip", pictures, lambda name: "odd" if int(name[0]) % 2 else "even")
    inside, outside = (
        load_pictures(tmp_path / "x.zip"),
        load_pictures(tmp_path / "x.zip", in_memory=0),
    )
    assert isinstance(outside, StoredPictureSet)
    assert (len(outside), outside.shape, outside.label_names) == (10, (3, 16, 16), ["even", "odd"])
    for start in range(0, 24, 4):  # the second on is read ahead
        ours, theirs = (data.batch(range(start, start + 4), 1, True) for data in (outside, inside))
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    assert outside.digest() == load_pictures(tmp_path / "x.zip", in_memory=0).digest()
    write_pictures(tmp_path / "y.zip", [*pictures[:9], ("9.png", picture(16, 16, 99))])
    assert outside.digest() != load_pictures(tmp_path / "y.zip", in_memory=0).digest()
    assert loading_rate(outside) > 0
    write_pictures(tmp_path / "z.zip", [*pictures[:9], ("9.png", picture(8, 8))])
    with pytest.raises(Error, match=r"9.png has shape \(3, 8, 8\), expected \(3, 16, 16\)"):
        load_pictures(tmp_path / "z.zip", in_memory=0).read([9])


def test_labels_that_change_places_in_the_mirror(tmp_path: Path) -> None:
    names = ["left", "right", "up"]
    pictures = [(f"{i}.png", picture(16, 16, i)) for i in range(6)]
    write_pictures(tmp_path / "x.zip", pictures, lambda name: names[int(name[0]) % 3])
    data = load_pictures(tmp_path / "x.zip")
    data.swap_when_mirrored({"left": "right"})
    seen = set()
    for image, label in zip(*data.batch(range(12), 0, True), strict=True):
        for index, original in enumerate(data.pixels.float() / 127.5 - 1):
            if torch.equal(image, original):
                assert names[int(label.argmax())] == names[index % 3]
            elif torch.equal(image.flip(2), original):
                swapped = {"left": "right", "right": "left", "up": "up"}[names[index % 3]]
                assert names[int(label.argmax())] == swapped
                seen.add(swapped)
    assert seen == set(names)
    with pytest.raises(Error, match="no label 'down'; labels are left, right, up"):
        data.swap_when_mirrored({"up": "down"})
    with pytest.raises(Error, match="in more than one pair"):
        data.swap_when_mirrored({"left": "up"})


def test_mirrored_labels_count_in_the_frequencies() -> None:
    labels = torch.tensor([[1.0, 0.0]] * 9 + [[0.0, 1.0]])
    data = PictureSet(
        torch.zeros(10, 1, 8, 8, dtype=torch.uint8),
        labels,
        [str(i) for i in range(10)],
        ["left", "right"],
    )
    before = data.digest()
    assert data.label_frequencies(True) == [0.9, 0.1]
    data.swap_when_mirrored({"left": "right"})
    assert data.label_frequencies(True) == [0.5, 0.5]
    assert data.label_frequencies(False) == [0.9, 0.1]
    assert data.digest() != before
    assert torch.equal(
        data.labels_at(torch.tensor([0, 10]), True), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    )
    assert PictureSet(data.pixels, labels * 0.5, data.names).label_frequencies(False) is None


def test_names_that_point_outside_are_refused(tmp_path: Path) -> None:
    for name in (
        "../../escaped.png",
        "/tmp/escaped.png",
        "..\\escaped.png",
        "C:escaped.png",
        "c:/escaped.png",
    ):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr(name, b"x")
        with pytest.raises(Error, match="points outside"):
            squares(tmp_path / "bad.zip", Preparation(16))


def test_pictures_of_one_stem_keep_their_own_labels(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture(seed=1).save(tmp_path / "in" / "a.png")
    picture(seed=2).save(tmp_path / "in" / "a.jpg")
    (tmp_path / "labels.csv").write_text("file,hat\na.png,no\na.jpg,yes\n")
    data = load_pictures(
        build_set(tmp_path / "x.zip", tmp_path / "in", str(tmp_path / "labels.csv"), "hat")
    )
    found = {
        name: data.label_names[int(label.argmax())]
        for name, label in zip(data.names, data.labels, strict=True)
    }
    assert found == {"a.png": "yes", "a.png.png": "no"}


def test_vectors_are_not_classes(tmp_path: Path) -> None:
    for i in range(2):
        Image.new("L", (16, 16), i).save(tmp_path / f"{i}.png")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": [["0.png", [0.5, 1]], ["1.png", [1, 0]]]})
    )
    with pytest.raises(Error, match="vector labels"):
        class_labels(tmp_path)


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def png(seed: int = 0, side: int = 16) -> bytes:
    buffer = io.BytesIO()
    picture(side, side, seed).save(buffer, "PNG")
    return buffer.getvalue()


def test_readers_take_what_writers_write(tmp_path: Path) -> None:
    """Whatever a photo is called: colons, drives, backslashes, bytes that are not UTF-8."""
    folder = tmp_path / "photos"
    (folder / "a:b").mkdir(parents=True)
    names = [
        b"2021-03-04 12:30:45.png",
        b"c:d.png",
        b"x\\y.png",
        b"q..\\z.png",
        b"caf\xe9.png",
        b"\x1b[2J.png",
        b"a:b/e.png",
    ]
    for seed, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(png(seed))
    for out in (tmp_path / "set.zip", tmp_path / "set"):
        data = load_pictures(build_set(out, folder))
        assert len(data) == len(names)
        assert "2021-03-04 12:30:45.png" in data.names
        assert all(name.isprintable() for name in data.names)
        again = load_pictures(build_set(out.with_name(f"again-{out.name}"), out))
        assert again.names == data.names
        assert data.digest() == again.digest()


def test_a_common_top_folder_is_no_class(tmp_path: Path) -> None:
    members = {f"photos/{side}/{i}.png": png(i) for side in ("left", "right") for i in range(2)}
    members |= {"photos/": b"", "__MACOSX/photos/left/._0.png": b"x", "photos/.DS_Store": b"x"}
    source = zipped(tmp_path / "in.zip", members)
    data = load_pictures(build_set(tmp_path / "out.zip", source, "folders"))
    assert data.label_names == ["left", "right"]
    assert data.names == ["left/0.png", "left/1.png", "right/0.png", "right/1.png"]
    for prefix in ("", "photos/", "./", ".\\"):
        rows = [
            [f"{prefix}{name}".replace("/", "\\" if "\\" in prefix else "/"), i]
            for i, name in enumerate(data.names)
        ]
        document = {"labels": rows, "label_names": ["a", "b", "c", "d"]}
        within = zipped(
            tmp_path / "json.zip", members | {"photos/dataset.json": json.dumps(document).encode()}
        )
        assert load_pictures(within).labels.argmax(dim=1).tolist() == [0, 1, 2, 3]
        assert load_pictures(build_set(tmp_path / "kept.zip", within)).label_names == [
            "a",
            "b",
            "c",
            "d",
        ]
    # One folder without further ones may be a class.
    single = zipped(tmp_path / "single.zip", {"left/0.png": png()})
    assert load_pictures(build_set(tmp_path / "one.zip", single, "folders")).label_names == ["left"]


def test_a_single_class_is_warned_of(tmp_path: Path) -> None:
    source = zipped(tmp_path / "in.zip", {f"left/{i}.png": png(i) for i in range(2)})
    command = ("dataset", "build", source, "--size", "16", "--out", tmp_path / "out.zip")
    assert (
        "warning: all images have the same class, 'left'"
        in works(*command, "--labels", "folders").stderr
    )
    assert "warning" not in works(*command).stderr


def test_separators_in_tables_are_matched(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for i, side in enumerate(("left", "right")):
        (folder / side).mkdir(parents=True)
        (folder / side / "0.png").write_bytes(png(i))
    for prefix, table in ((".\\photos\\", tmp_path / "a.csv"), ("./", tmp_path / "b.csv")):
        lines = [f"{prefix}left/0.png,yes", f"{prefix}right/0.png,no"]
        lines = [line.replace("/", "\\") if "\\" in prefix else line for line in lines]
        table.write_text("\n".join(["file,hat", *lines]))
        assert load_pictures(
            build_set(tmp_path / f"{table.stem}.zip", folder, str(table), "hat")
        ).label_names == ["no", "yes"]
    (folder / "dataset.json").write_text(
        json.dumps({"labels": [["left\\0.png", 0], [".\\right\\0.png", 1]]})
    )
    assert load_pictures(folder).labels.tolist() == [[1, 0], [0, 1]]
    assert load_pictures(build_set(tmp_path / "json.zip", folder)).labels.tolist() == [
        [1, 0],
        [0, 1],
    ]


def test_hidden_files_and_other_kinds(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / ".cache").mkdir(parents=True)
    for name in (".a.png", ".cache/b.png", "c.jfif", "d.gif", "e.png"):
        picture(16, 16).save(folder / name, {".jfif": "JPEG"}.get(Path(name).suffix))
    # read where its extra is installed
    heic = () if importlib.util.find_spec("pillow_heif") else ("f.heic",)
    for name in (*heic, "g.txt", "h.txt"):
        (folder / name).write_bytes(b"x")
    found, skipped = squares(folder, Preparation(16))
    assert sorted(found) == ["c.png", "d.png", "e.png"]
    assert not heic or skipped[0].startswith("left out 1: f.heic (.heic")
    assert skipped[-1] == "left out 2: g.txt, h.txt (.txt)"
    shown = works("dataset", "build", folder, "--size", "16", "--out", tmp_path / "out.zip")
    assert "left out 2: g.txt, h.txt (.txt)" in shown.stderr
    assert "3 images of 16 x 16" in shown.stdout


def test_renderings_are_no_photographs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    picture(16, 16).save(tmp_path / "photos" / "a.png")
    save_image(picture(16, 16), tmp_path / "photos" / "a-compare.png")
    command = (
        "dataset",
        "build",
        tmp_path / "photos",
        "--size",
        "16",
        "--out",
        tmp_path / "out.zip",
    )
    shown = works(*command)
    assert "skipped a-compare.png: rendered by latentedit; use --renderings" in shown.stderr
    assert len(load_pictures(tmp_path / "out.zip")) == 1
    works(*command, "--renderings")
    assert len(load_pictures(tmp_path / "out.zip")) == 2


def test_zips_of_zeros_are_one_bad_picture(tmp_path: Path) -> None:
    members = {"zeros.png": bytes(2**25), "good.png": png()}
    source = zipped(tmp_path / "in.zip", members, zipfile.ZIP_DEFLATED)
    assert source.stat().st_size < 2**16
    found, skipped = squares(source, Preparation(16))
    assert list(found) == ["good.png"]
    assert (
        "zeros.png is 32629 bytes that unpack to 32 MB" in skipped[0]
        or "unpack to 32 MB" in skipped[0]
    )
    zipped(
        tmp_path / "json.zip",
        {"good.png": png(), "dataset.json": bytes(2**25)},
        zipfile.ZIP_DEFLATED,
    )
    with pytest.raises(Error, match=r"dataset.json has 33554432 bytes, expected at most"):
        load_pictures(tmp_path / "json.zip")


def test_too_large_files_are_one_bad_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_bytes(png() + bytes(3 * 2**20))
    monkeypatch.setattr("latentedit.training.data.LARGEST_FILE", 2**20)
    found, skipped = squares(tmp_path, Preparation(16))
    assert list(found) == ["a.png"]
    assert "b.png has 3 MB, more than 1 MB" in skipped[0]


def test_members_that_cannot_be_unpacked(tmp_path: Path) -> None:
    for compression in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED):
        source = zipped(tmp_path / "in.zip", {"a.png": png(1), "b.png": png(2)}, compression)
        data = bytearray(source.read_bytes())
        data[60:90] = bytes(30)  # in the first member
        source.write_bytes(data)
        found, skipped = squares(source, Preparation(16))
        assert (list(found), len(skipped)) == (["b.png"], 1)
        assert "a.png cannot be read" in skipped[0]


def test_labels_from_a_file_are_not_believed(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png())
    (tmp_path / "1.png").write_bytes(png())
    for labels, message in (
        (
            [["0.png", 30_000_000], ["1.png", 0]],
            "has the label 30000000, but only 2 different ones",
        ),
        ([["0.png", 10**400], ["1.png", 0]], "has the label a number of 1329 bits"),
        ([["0.png", [1.0, float("nan")]], ["1.png", [0, 1]]], "not finite numbers"),
        ([["0.png", [1.0, float("inf")]], ["1.png", [0, 1]]], "not finite numbers"),
        ([["0.png", [10**400]], ["1.png", [1]]], "labels that are not numbers"),
        ([["0.png", [[1]]], ["1.png", [[1]]]], "not finite numbers"),
    ):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        with pytest.raises(Error, match=message) as caught:
            load_pictures(tmp_path)
        assert len(str(caught.value)) < 500
    (tmp_path / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(Error, match="dataset.json must be"):
        load_pictures(tmp_path)
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": [["0.png", 0], ["1.png", 1]], "label_names": 7})
    )
    with pytest.raises(Error, match="label_names"):
        load_pictures(tmp_path)
    names = ["\x1b[2Jred", "b"]
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": [["0.png", 0], ["1.png", 1]], "label_names": names})
    )
    assert "\x1b" not in works("dataset", "info", tmp_path).output


def test_a_set_after_a_killed_one_is_not_mixed_with_it(tmp_path: Path, photos: Path) -> None:
    left = tmp_path / f".latentedit-{2**22 + 1}-set-abc"  # no process has such a number
    left.mkdir()
    (left / "old.png").write_bytes(png())
    (tmp_path / ".set-partial").mkdir()  # of earlier versions
    (tmp_path / ".set-partial" / "old.png").write_bytes(png())
    data = load_pictures(build_set(tmp_path / "set", photos))
    assert len(data) == 4
    assert {path.name for path in (tmp_path / "set").rglob("*.png")} == {
        "a.png",
        "b.png",
        "c.png",
        "d.png",
    }
    assert not left.exists()


def test_archives_of_the_users_own_stay(tmp_path: Path, photos: Path) -> None:
    mine = zipped(tmp_path / "photos.zip", {"a.png": png()})
    before = mine.read_bytes()
    command = ("dataset", "build", photos, "--size", "16", "--out")
    assert (
        "photos.zip: already exists, and latentedit did not write it"
        in complaint(*command, mine)[-200:]
    )
    assert mine.read_bytes() == before
    works(*command, tmp_path / "set.zip")
    works(*command, tmp_path / "set.zip")
    source = tmp_path / "set.zip"
    assert "is an input of this command" in complaint(
        "dataset", "build", source, "--size", "16", "--out", source
    )


def test_sets_keep_no_secrets(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    exif[0x010E] = "my name"
    (tmp_path / "in").mkdir()
    picture(16, 16).save(tmp_path / "in" / "a.jpg", exif=exif)
    picture(16, 16).save(tmp_path / "in" / "b.png", exif=exif)
    build_set(tmp_path / "out", tmp_path / "in")
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as stored:
            stored.load()
            assert not stored.getexif()
