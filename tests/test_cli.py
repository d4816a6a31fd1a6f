"""The command line: what works, and what one line says of everything that does not."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.cli.moves import Move, Sweep, parse_move, parse_sweep
from latentedit.cli.sample import parse_seeds
from latentedit.directions import Direction, load_direction
from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.formats.load_model import load_generator
from latentedit.inversion.projector import invert
from latentedit.io.contact_sheet import CELL, MARGIN
from latentedit.io.images import load_image, to_uint8
from latentedit.latent.editing import edit
from latentedit.latent.latent_file import save_latent
from latentedit.latent.w_statistics import sample_z
from latentedit.metrics import Judge, save_judge
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.training import load_preset, write_pictures
from tests.helpers import (
    commands,
    complaint,
    hopper,
    run,
    tiny_discriminator,
    tiny_generator,
    works,
)

ROOT = Path(__file__).parent.parent


@pytest.fixture
def latent_file(tmp_path: Path, tiny_file: Path) -> Path:
    generator = load_generator(tiny_file)
    image = generator(sample_z(1, 12))
    path = tmp_path / "me.safetensors"
    result = invert(generator, image, "w+", 3, discriminator=tiny_discriminator())
    latent = result.latent()
    latent.crop = [[0.0, 0.0], [16.0, 0.0], [16.0, 16.0], [0.0, 16.0]]
    save_latent(path, latent)
    return path


@pytest.fixture
def direction_file(tmp_path: Path, tiny_file: Path) -> Path:
    vector = torch.nn.functional.normalize(torch.arange(12.0), dim=0)
    path = tmp_path / "axis.safetensors"
    Direction("axis", vector, 0.0, 0.7, fingerprint(load_generator(tiny_file))).save(path)
    return path


@pytest.mark.parametrize(
    ("path", "command"),
    commands(),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_is_explained(path: tuple[str, ...], command: click.Command) -> None:
    text = works(*path, "--help").output
    assert "Example:" in text
    assert re.search(rf"latentedit {' '.join(path)}( |$)", text, re.M)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path}: {parameter.name} has no help"
    assert f"latentedit {' '.join(path)}" in (ROOT / "docs" / "cli.md").read_text()


def test_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_cli.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_sample(tmp_path: Path, tiny_file: Path) -> None:
    works("sample", tiny_file, "--seeds", "3-4,85", "--psi", "1", "--out", tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:  # enlarged, with gaps and numbers
        assert grid.width == 3 * (CELL + MARGIN) + MARGIN
    works("sample", tiny_file, "--seeds", "85", "--psi", "1", "--out", tmp_path / "one.png")
    generator = load_generator(tiny_file)
    z = torch.from_numpy(np.random.RandomState(85).randn(1, 12)).float()
    one = load_image(tmp_path / "one.png", channels=1)
    assert torch.equal(to_uint8(generator(z)), to_uint8(one))


def test_conditional_sample(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_model(path, Model(tiny_generator(c_dim=3)))
    works("sample", path, "--class", "2", "--seeds", "0", "--out", tmp_path / "c.png")
    assert "this model is conditional: --class must be 0 to 2" in complaint(
        "sample", path, "--out", tmp_path / "c.png"
    )


def test_model_info(tiny_file: Path) -> None:
    facts = json.loads(works("model", "info", tiny_file, "--json").stdout)
    assert facts["fingerprint"] == fingerprint(load_generator(tiny_file))
    assert facts["generator"]["resolution"] == 16
    assert "num_ws  6\n" in works("model", "info", tiny_file).stdout


def test_invert(tmp_path: Path, tiny_file: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)).save(photo)
    result = works(
        "invert",
        photo,
        "--model",
        tiny_file,
        "--out",
        tmp_path / "out",
        "--steps",
        3,
        "--crop",
        "4,5,32",
        "--remember-source",
    )
    latent = load_latent(tmp_path / "out" / "photo.safetensors")
    assert latent.crop == [[4, 5], [36, 5], [36, 37], [4, 37]]
    assert latent.source is not None
    assert latent.source["name"] == "photo.png"
    assert latent.settings["steps"] == 3
    assert "perceptual distance: features of the model's own discriminator" in result.stderr
    assert "PSNR" in result.stdout
    picture = load_image(tmp_path / "out" / "photo.png", channels=1)
    assert torch.equal(to_uint8(picture), to_uint8(latent.render(load_generator(tiny_file))))
    assert (tmp_path / "out" / "photo-compare.png").is_file()
    works(
        "invert",
        photo,
        "--model",
        tiny_file,
        "--out",
        tmp_path / "again",
        "--steps",
        3,
        "--aligned",
        "--space",
        "w",
    )
    again = load_latent(tmp_path / "again" / "photo.safetensors")
    assert again.source is None
    assert bool((again.ws == again.ws[:, :1]).all())


def test_a_bad_photo_does_not_stop_the_others(tmp_path: Path, tiny_file: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("L", (20, 20), 90).save(folder / "a.png")
    (folder / "b.png").write_text("no picture")
    Image.new("RGBA", (30, 20), 90).save(folder / "c.png")
    result = run(
        "invert", folder, "--model", tiny_file, "--out", tmp_path / "out", "--steps", 1, "--aligned"
    )
    assert result.exit_code == 1
    assert "b.png: not an image" in result.stderr
    assert "latentedit: 1 of 3 failed" in result.stderr
    assert {p.name for p in (tmp_path / "out").glob("*.safetensors")} == {
        "a.safetensors",
        "c.safetensors",
    }


def test_align(tmp_path: Path) -> None:
    works("align", hopper(), "--out", tmp_path)
    assert load_image(tmp_path / "grace_hopper.png").shape == (1, 3, 128, 128)


def test_edit(tmp_path: Path, tiny_file: Path, latent_file: Path, direction_file: Path) -> None:
    common = ["edit", latent_file, "--model", tiny_file]
    moves = ["--set", f"{direction_file}=1.5", "--set", f"{direction_file}=-2@0-1"]
    works(*common, *moves, "--out", tmp_path / "edited.png")
    works(*common, *moves, "--out", tmp_path / "edited.safetensors")
    latent, direction = load_latent(latent_file), load_direction(direction_file)
    expected = edit(edit(latent.ws, direction, 1.5), direction, -2, (0, 1))
    edited = load_latent(tmp_path / "edited.safetensors")
    torch.testing.assert_close(edited.ws, expected)
    assert edited.settings["edits"] == [f"{direction_file}=1.5", f"{direction_file}=-2@0-1"]
    rendered = to_uint8(edited.render(load_generator(tiny_file)))
    assert torch.equal(rendered, to_uint8(load_image(tmp_path / "edited.png", channels=1)))
    works(*common, "--sweep", f"{direction_file}=-3:3:5", "--out", tmp_path / "strip.png")
    assert load_image(tmp_path / "strip.png").shape[3] > 5 * 128
    works(
        *common,
        "--sweep",
        f"{direction_file}=-3:3:2",
        "--sweep",
        f"{direction_file}=-3:3:5",
        "--out",
        tmp_path / "grid.png",
    )
    grid, strip = (load_image(tmp_path / name) for name in ("grid.png", "strip.png"))
    assert strip.shape[3] < grid.shape[3] < strip.shape[3] + 128  # and the labels of the rows
    assert grid.shape[2] >= strip.shape[2] + 128
    three = ["--sweep", f"{direction_file}=-1:1:2"] * 3
    assert (
        "a grid takes two --sweep, got 3"
        in run(*common, *three, "--out", tmp_path / "cube.png").stderr
    )
    works(
        "edit",
        latent_file,
        latent_file,
        "--model",
        tiny_file,
        "--set",
        f"{direction_file}=1",
        "--out",
        tmp_path / "several",
    )
    assert (tmp_path / "several" / "me.png").is_file()


def test_mix_and_interpolate(tmp_path: Path, tiny_file: Path, latent_file: Path) -> None:
    other = tmp_path / "other.safetensors"
    latent = load_latent(latent_file)
    latent.ws = latent.ws + 1
    save_latent(other, latent)
    works(
        "mix",
        latent_file,
        other,
        "--layers",
        "0-1",
        "--model",
        tiny_file,
        "--out",
        tmp_path / "mixed.safetensors",
    )
    mixed = load_latent(tmp_path / "mixed.safetensors").ws - load_latent(latent_file).ws
    assert mixed[0, :, 0].round().tolist() == [1, 1, 0, 0, 0, 0]
    works("mix", latent_file, other, "--model", tiny_file, "--out", tmp_path / "mixed.png")
    works(
        "interpolate",
        latent_file,
        other,
        "--count",
        "3",
        "--model",
        tiny_file,
        "--out",
        tmp_path / "line.png",
    )
    works(
        "interpolate",
        latent_file,
        other,
        "--count",
        "3",
        "--model",
        tiny_file,
        "--out",
        tmp_path / "line.gif",
    )
    with Image.open(tmp_path / "line.gif") as video:
        assert video.n_frames > 3  # type: ignore[attr-defined]
    assert load_image(tmp_path / "line.png").shape[3] > 3 * 128


def labelled(tmp_path: Path, generator_file: Path, suffix: str) -> Path:
    """24 samples of the tiny generator, labelled by their brightness, as pictures or latent
    files."""
    generator = load_generator(generator_file)
    rows = []
    for seed in range(24):
        ws = generator.mapping(sample_z(seed, 12))
        image = generator.synthesis(ws)
        name = f"{seed}{suffix}"
        if suffix == ".png":
            Image.fromarray(to_uint8(image)[0, 0].numpy()).save(tmp_path / name)
        else:
            result = invert(generator, image, "w", 1, discriminator=tiny_discriminator()).latent()
            result.ws = ws
            save_latent(tmp_path / name, result)
        rows.append((name, float(image.mean()), f"p{seed % 6}"))
    middle = np.median([row[1] for row in rows])
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "bright", "person"])
        writer.writerows(
            (name, "yes" if level > middle else "no", who) for name, level, who in rows
        )
    return tmp_path / "labels.csv"


@pytest.mark.parametrize(
    ("suffix", "options"), [(".safetensors", []), (".png", ["--aligned", "--samples", "100"])]
)
def test_directions(tmp_path: Path, tiny_file: Path, suffix: str, options: list[str]) -> None:
    table = labelled(tmp_path, tiny_file, suffix)
    out = tmp_path / "bright.safetensors"
    arguments = [
        "directions",
        "fit",
        table,
        "--column",
        "bright",
        "--positive",
        "yes",
        "--group",
        "person",
    ]
    result = works(*arguments, "--model", tiny_file, *options, "--out", out)
    assert "auc_shuffled" in result.stdout
    direction = load_direction(out)
    assert direction.name == "bright"
    assert direction.fingerprint == fingerprint(load_generator(tiny_file))
    facts = json.loads(works("directions", "show", out, "--json").stdout)
    assert facts["report"]["auc"] == direction.report["auc"]
    assert "\nreport\n" in works("directions", "show", out).stdout


def test_refine(tmp_path: Path, tiny_file: Path, direction_file: Path) -> None:
    table, out = labelled(tmp_path, tiny_file, ".png"), tmp_path / "refined.safetensors"
    common = [
        "directions",
        "refine",
        direction_file,
        table,
        "--model",
        tiny_file,
        "--aligned",
        "--steps",
        2,
        "--out",
        out,
    ]
    asked = [
        "--column",
        "bright",
        "--positive",
        "yes",
        "--negative",
        "no",
        "--mirror",
        "swap",
        "--hold",
        "person",
    ]
    assert "times as long" in works(*common, *asked, "--layers", "0-2").stdout
    found = load_direction(out)
    assert found.step is not None
    assert found.layers == (0, 2)
    assert not found.step[3:].any()
    assert found.provenance["refined_held"] == ["person"]
    pictures, folder = table.read_text(), tmp_path / "latents"
    folder.mkdir()
    latents = labelled(folder, tiny_file, ".safetensors")
    works(*common[:3], latents, *common[4:], "--column", "bright", "--positive", "yes")
    first = latents.read_text().splitlines()[1].split(",")[0]
    table.write_text(f"{pictures}{folder / first},yes,p9\n")
    assert "both latent files and photos" in complaint(
        *common, "--column", "bright", "--positive", "yes"
    )
    table.write_text(pictures)
    numbers = folder / "numbers.csv"
    numbers.write_text("file,age\n" + "".join(f"{tmp_path / f'{i}.png'},{i}\n" for i in range(6)))
    assert "labels of two classes" in complaint(
        *common[:3], numbers, *common[4:], "--column", "age"
    )
    assert "needs --positive" in complaint(*common, "--column", "bright", "--negative", "no")
    assert "needs both" in complaint(
        *common, "--column", "bright", "--positive", "yes", "--mirror", "swap"
    )
    assert "no column 'hat'" in complaint(
        *common, "--column", "bright", "--positive", "yes", "--hold", "hat"
    )
    assert "layers 0-99 lie outside" in complaint(
        *common, "--column", "bright", "--positive", "yes", "--layers", "0-99"
    )


def test_list_of_directions() -> None:
    lines = works("directions", "list", "--model", "faces128").stdout.splitlines()
    assert {"smile", "glasses", "turn"} <= {line.split()[0] for line in lines}


@pytest.fixture
def faces_zip(tmp_path: Path) -> Path:
    """Six grey pictures of 16 x 16."""
    squares = np.random.default_rng(0).integers(0, 255, (6, 16, 16), dtype=np.uint8)
    write_pictures(
        tmp_path / "six.zip",
        [(f"{i}.png", Image.fromarray(square)) for i, square in enumerate(squares)],
    )
    return tmp_path / "six.zip"


def test_dataset_and_train(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(6):
        Image.fromarray(
            np.random.default_rng(i).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        ).save(photos / f"{i}.png")
    (photos / "bad.png").write_text("x")
    out = tmp_path / "set.zip"
    result = works("dataset", "build", photos, "--size", "16", "--colour", "grey", "--out", out)
    assert "skipped" in result.stderr
    assert "6 images of 16 x 16, grey" in result.stdout
    assert "6 images of 16 x 16, grey" in works("dataset", "info", out).stdout
    run_folder = tmp_path / "run"
    common = ["train", out, "--out", run_folder, "--batch", "4", "--precision", "fp32"]
    works(*common, "--kimg", "0.008", "--eyes", "0.3,0.4,0.7,0.4", "--mouth", "0.5,0.8")
    works(*common, "--kimg", "0.012")
    state = torch.load(run_folder / "state.pt", weights_only=True)
    assert state["images_seen"] == 12
    assert "r1_gamma (was" in complaint(*common, "--gamma", "3")


def test_dry_run(tmp_path: Path, faces_zip: Path) -> None:
    out = works(
        "train",
        faces_zip,
        "--out",
        tmp_path / "run",
        "--preset",
        "cifar",
        "--kimg",
        "1",
        "--dry-run",
    ).stdout
    assert not (tmp_path / "run").exists()
    assert "images/s" in out
    assert "GB per device, on 1 device" in out
    (tmp_path / "again.toml").write_text(out.split("\n", 1)[1].split("\ngenerator ")[0])
    assert load_preset(str(tmp_path / "again.toml")) == load_preset("cifar").changed(kimg=1.0)
    words = ["train", faces_zip, "--out", tmp_path / "run", "--preset", "cifar", "--json"]
    facts = json.loads(works(*words, "--dry-run").stdout)
    assert facts["estimate"]["memory_gb"] > 0
    assert facts["settings"] == load_preset("cifar").as_dict()
    assert complaint(*words) == "latentedit: --json needs --dry-run"


def test_metrics(
    tmp_path: Path, faces_zip: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTEDIT_CACHE", str(tmp_path / "cache"))
    save_judge(
        tmp_path / "judge.safetensors",
        Judge(1, 16, {"hat": ("no", "yes"), "pose": ("a", "b", "c")}).eval(),
        {},
    )
    judge = ["--features", tmp_path / "judge.safetensors", "--count", "20"]
    found = json.loads(
        works(
            "metrics",
            tiny_file,
            "--data",
            faces_zip,
            *judge,
            "--metrics",
            "kid,precision",
            "--seeds",
            "2",
            "--json",
        ).stdout
    )
    assert len(found["kid"]) == len(found["recall"]) == 2
    rest = [
        "--metrics",
        "inversion,ppl",
        "--held-out",
        faces_zip,
        "--steps",
        "2",
        "--count",
        "10",
        "--ppl-space",
        "z",
    ]
    text = works("metrics", tiny_file, *rest, "--ppl-sampling", "full", "--ppl-crop").stdout
    # with ST-LPIPS where it is installed
    assert re.search(r"ppl_discriminator\S*_z_full_crop", text)
    assert "inversion_psnr_own_noise" in text
    assert "nothing to separate" in complaint(
        "metrics", tiny_file, *judge, "--metrics", "separability"
    )
    assert "add --data" in complaint("metrics", tiny_file, *judge)
    assert "got beauty" in complaint("metrics", tiny_file, "--metrics", "beauty")
    assert "separability needs an attribute classifier" in complaint(
        "metrics", tiny_file, "--metrics", "separability"
    )
    assert "add --held-out" in complaint("metrics", tiny_file, "--metrics", "inversion")
    assert "weights-inception" in complaint("metrics", tiny_file, "--data", faces_zip)
    other = ["--data", faces_zip, "--features", tiny_file, "--count", "20"]
    assert "cannot be measured with the discriminator it was trained with" in complaint(
        "metrics", tiny_file, *other
    )


def test_sample_of_a_class(tmp_path: Path, tiny_file: Path) -> None:
    path = tmp_path / "two.safetensors"
    save_model(path, Model(tiny_generator(c_dim=2), provenance={"label_names": ["left", "right"]}))
    for text in ("right", "1"):
        works("sample", path, "--class", text, "--seeds", "0-1", "--out", tmp_path / f"{text}.png")
    assert (tmp_path / "right.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    works("sample", path, "--class", "left", "--seeds", "3", "--out", tmp_path / "a.safetensors")
    assert load_latent(tmp_path / "a.safetensors").settings == {
        "seed": 3,
        "psi": 0.7,
        "class": "left",
    }
    into = ["--out", tmp_path / "x.safetensors"]
    assert "--class must be 0 to 1 (left, right)" in complaint(
        "sample", path, "--class", "up", "--seeds", "1", *into
    )
    assert "--class must be 0 to 1 (left, right)" in complaint(
        "sample", path, "--seeds", "1", *into
    )
    assert "a latent file holds one latent" in complaint(
        "sample", path, "--class", "0", "--seeds", "0-1", *into
    )
    assert "this one has no labels" in complaint(
        "sample", tiny_file, "--class", "0", "--seeds", "1", *into
    )


def test_photos_of_a_class(
    tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    provenance = {"label_names": ["left", "right"]}
    model = Model(tiny_generator(c_dim=2), tiny_discriminator(), provenance=provenance)
    save_model("two.safetensors", model)
    Image.new("L", (16, 16), 90).save("me.png")
    invert = ("invert", "me.png", "--aligned", "--steps", "2", "--model", "two.safetensors")
    for label in ("left", "right"):
        works(*invert, "--class", label, "--out", label)
    found = [load_latent(f"{label}/me.safetensors") for label in ("left", "right")]
    assert [latent.settings["class"] for latent in found] == [0, 1]
    assert not torch.equal(found[0].ws, found[1].ws)
    # Of the same photo, another class is another inversion.
    assert "already done" in works(*invert, "--class", "right", "--out", "right").stderr
    assert "already done" not in works(*invert, "--class", "left", "--out", "right").stderr
    assert "--class must be 0 to 1 (left, right)" in complaint(
        *invert, "--class", "2", "--out", "x"
    )
    plain = ("invert", "me.png", "--aligned", "--steps", "2", "--model", tiny_file)
    assert "this one has no labels" in complaint(*plain, "--class", "0", "--out", "x")
    model_option = ("--model", "two.safetensors")
    drawn = ("directions", "sample", "--count", "2", *model_option)
    for label in ("left", "right"):
        works(*drawn, "--class", label, "--out", f"drawn-{label}")
    pictures = [Path(f"drawn-{label}/0000.png").read_bytes() for label in ("left", "right")]
    assert pictures[0] != pictures[1]


def test_demo(tmp_path: Path, faces128: Model) -> None:
    facts = json.loads(works("demo", "--out", tmp_path, "--steps", "2", "--json").stdout)
    assert facts["psnr_tuned"] > 0
    assert all(Path(file).is_file() for file in facts["written"])
    names = {p.name for p in tmp_path.iterdir()}
    assert {"demo.png", "sliders.png", "smiling.jpg", "portrait.safetensors"} <= names
    assert load_latent(tmp_path / "portrait.safetensors").crop is not None


def test_parsing() -> None:
    assert parse_move("turn=-1.5@0-3") == Move("turn", -1.5, "0-3")
    assert parse_move("a=b/c.safetensors=2") == Move("a=b/c.safetensors", 2.0, None)
    assert parse_sweep("turn=-3:3:3") == Sweep("turn", -3.0, 3.0, 3)
    assert parse_sweep("turn=-3:3:3").amounts(3) == [-3.0, 0.0, 3.0]
    assert parse_seeds("1,3-5") == [1, 3, 4, 5]
    for text in ("turn", "=3", "turn=x", "turn="):
        with pytest.raises(Error, match="--set takes NAME=AMOUNT"):
            parse_move(text)
    for text in ("turn=1", "turn=1:2:1", "1:2:3", "turn=a:b:3"):
        with pytest.raises(Error, match="--sweep takes NAME=FROM:TO:COUNT"):
            parse_sweep(text)
    for text in ("a", "3-", "5-3", ""):
        with pytest.raises(Error, match="--seeds takes"):
            parse_seeds(text)


def test_bad_input_gets_one_line(
    tmp_path: Path, tiny_file: Path, latent_file: Path, direction_file: Path
) -> None:
    text, cut, small, empty = (
        tmp_path / "text.png",
        tmp_path / "cut.png",
        tmp_path / "small.png",
        tmp_path / "empty",
    )
    text.write_text("no picture")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), dtype=np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:1000])
    Image.new("L", (3, 3)).save(small)
    empty.mkdir()
    wall = tmp_path / "wall.png"
    Image.new("L", (100, 100), 100).save(wall)
    other = tmp_path / "other-model.safetensors"
    save_model(other, Model(tiny_generator(5)))
    second_file = tmp_path / "second.safetensors"
    second_file.write_bytes(latent_file.read_bytes())
    table, out = tmp_path / "labels.csv", tmp_path / "out"
    table.write_text("file,hat\nwall.png,1\n")
    into = ["--model", tiny_file, "--out", out, "--steps", "1"]
    fitted = ["--model", tiny_file, "--out", tmp_path / "d.safetensors", "--aligned"]
    axis = f"{direction_file}=1"
    cases: list[tuple[list[object], str]] = [
        # First, as the network would be found again after it was used.
        (
            ["edit", latent_file, "--set", axis, "--out", out],
            "this latent needs the generator with fingerprint",
        ),
        (["invert", text, *into, "--aligned"], "text.png: not an image"),
        (["invert", cut, *into, "--aligned"], "cut.png: damaged or truncated"),
        (["invert", small, *into, "--aligned"], "small.png: 3 x 3 pixels is too small"),
        (["invert", empty, *into], "empty: no images in this folder"),
        (["invert", wall, *into], "wall.png: no face found"),
        (["invert", wall, *into, "--crop", "1,2"], "--crop takes 3 finite numbers"),
        (
            ["invert", wall, *into, "--crop", "500,0,64"],
            "--crop 500,0,64 lies outside the image of 100 x 100",
        ),
        (["invert", wall, *into, "--crop", "0,0,64", "--aligned"], "cannot be used together"),
        (
            ["invert", wall, *into, "--aligned", "--device", "cuda:99"],
            "device 'cuda:99' is not available",
        ),
        (
            ["invert", wall, "--model", latent_file, "--out", out],
            "expected a latentedit-model file, found latentedit-latent",
        ),
        (["invert", wall, "--model", "faces99", "--out", out], "faces99: no such model file"),
        (["align", wall, "--out", out], "wall.png: no face found"),
        (
            ["edit", latent_file, "--model", other, "--set", axis, "--out", out],
            "this latent belongs to the generator",
        ),
        (
            ["edit", latent_file, "--model", tiny_file, "--set", "hat=1", "--out", out],
            "hat: no direction file or direction",
        ),
        (
            ["edit", latent_file, "--model", tiny_file, "--set", axis + "@9-12", "--out", out],
            "layers 9-12 lie outside",
        ),
        (["edit", latent_file, "--model", tiny_file, "--out", out], "nothing to do"),
        (
            ["edit", tiny_file, "--model", tiny_file, "--set", axis, "--out", out],
            "expected a latentedit-latent file",
        ),
        (
            ["edit", latent_file, second_file, "--set", axis, "--out", tmp_path / "x.png"],
            "2 results need a folder",
        ),
        (
            ["edit", latent_file, "--model", tiny_file, "--set", axis, "--out", tmp_path / "x.xyz"],
            "the name of an image must end in",
        ),
        (
            ["directions", "fit", tmp_path / "no.csv", "--column", "hat", *fitted],
            "no.csv: not a readable CSV file",
        ),
        (
            ["directions", "fit", table, "--column", "coat", *fitted],
            "no column 'coat'; there are file, hat",
        ),
        (
            ["directions", "fit", table, "--column", "hat", *fitted],
            "all 1 labels of 'hat' are the same",
        ),
        (["directions", "show", tiny_file], "expected a latentedit-direction file"),
        (
            ["dataset", "build", empty, "--size", "16", "--out", tmp_path / "e.zip"],
            "empty: no images",
        ),
        (
            ["dataset", "build", empty, "--size", "17", "--out", tmp_path / "e.zip"],
            "size must be a power of two",
        ),
        (["dataset", "info", text], "text.png: not a readable zip"),
        (["train", empty, "--out", out], "empty: no images"),
        (["train", empty, "--out", out, "--preset", "huge"], "huge: no such preset"),
        (["demo", "--photo", text, "--out", out], "text.png: not an image"),
        (["model", "info", text], "not a latentedit-model file"),
    ]
    for arguments, message in cases:
        line = complaint(*arguments)
        assert message in line, line
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))


def test_unknown_files_in_a_table(tmp_path: Path, tiny_file: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,hat\na.png,1\n")
    out = tmp_path / "d.safetensors"
    message = complaint(
        "directions", "fit", table, "--column", "hat", "--model", tiny_file, "--out", out
    )
    assert "line 2: no such file" in message


def test_usage_errors_keep_clicks_form() -> None:
    assert run("invert").exit_code == 2
    assert run("nonsense").exit_code == 2
    assert "latentedit, version" in works("--version").output


def test_holding_and_absolute_amounts(tmp_path: Path) -> None:
    works("sample", "faces128", "--seeds", "4", "--out", tmp_path / "a.safetensors")
    edited = ("edit", tmp_path / "a.safetensors", "--set", "glasses=:1.5")
    works(*edited, "--hold", "turn,smile", "--out", tmp_path / "b.safetensors")
    before, after = (load_latent(tmp_path / name).ws for name in ("a.safetensors", "b.safetensors"))
    directions = {name: load_direction(name) for name in ("glasses", "turn", "smile")}
    assert float(directions["glasses"].score(after)[0]) == pytest.approx(
        1.5 * directions["glasses"].sigma, abs=1e-3
    )
    for name in ("turn", "smile"):
        assert float(directions[name].score(after)[0]) == pytest.approx(
            float(directions[name].score(before)[0]), abs=1e-3
        )
    works(*edited, "--out", tmp_path / "c.safetensors")
    plain = load_latent(tmp_path / "c.safetensors")
    assert float(directions["glasses"].score(plain.ws)[0]) == pytest.approx(
        1.5 * directions["glasses"].sigma, abs=1e-3
    )
    assert plain.settings["edits"] == ["glasses=:1.5"]
    works(
        "edit",
        tmp_path / "a.safetensors",
        "--sweep",
        "turn=-1:1:3",
        "--hold",
        "glasses",
        "--out",
        tmp_path / "strip.png",
    )
    out = ("--out", tmp_path / "x.png")
    both = (
        "--set",
        "turn=1",
        "--set",
        "smile=1",
        "--hold",
        "turn",
        "--out",
        tmp_path / "d.safetensors",
    )
    works("edit", tmp_path / "a.safetensors", *both)
    turned = float(directions["turn"].score(load_latent(tmp_path / "d.safetensors").ws)[0])
    first = float(directions["turn"].score(before)[0])
    assert turned - first == pytest.approx(directions["turn"].sigma, abs=1e-3)
    assert "NAME=:SCORE" in complaint("edit", tmp_path / "a.safetensors", "--set", "turn=:x", *out)
    assert "no direction file" in complaint(
        "edit", tmp_path / "a.safetensors", "--set", "turn=1", "--hold", "tur", *out
    )
    photo = ("--paste-back", tmp_path / "x.jpg")
    assert "--hold needs" in complaint(
        "edit", tmp_path / "a.safetensors", "--hold", "turn", *photo, *out
    )


def test_python_runs_the_package_as_the_command() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "latentedit", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith("latentedit, version ")
