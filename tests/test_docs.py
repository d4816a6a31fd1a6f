"""What the documentation says can be typed exists."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from latentedit.cli.main import main
from latentedit.directions.registry import shipped
from latentedit.directions.text import convolution_channels
from latentedit.formats.load_model import load_generator, load_model
from latentedit.formats.nvidia_writer import save_nvidia
from latentedit.formats.rosinality import save_rosinality
from latentedit.inversion.options import STEPS
from latentedit.inversion.quality import QUALITIES
from latentedit.metrics import Judge, save_judge
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.training import write_pictures
from tests.clip_files import CONFIG, tiny_clip, write_script
from tests.encoder_files import checkpoint
from tests.helpers import by_two, hopper, onnx_mean, tiny_discriminator, tiny_generator, works
from tests.reference_nets import REFERENCE

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "docs/defaults.md",
    "docs/directions.md",
    "docs/drag.md",
    "docs/faces128.md",
    "docs/networks.md",
    "docs/photo.md",
    "docs/studio.md",
    "docs/tasks.md",
    "docs/train.md",
    "docs/words.md",
]


def shell_lines(page: str) -> list[str]:
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", (ROOT / page).read_text(), re.S)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_options(page: str) -> None:
    lines = [line for line in shell_lines(page) if line.startswith("latentedit ")]
    assert len(lines) >= 2
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        command: click.Command = main
        while isinstance(command, click.Group):
            name = words.pop(0)
            inner = command.get_command(click.Context(command), name)
            assert inner is not None, line
            command = inner
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word in known, f"{line}: {word}"


REFERENCE_PAGES = [
    "CONTRIBUTING.md",
    "docs/formats.md",
    "docs/python.md",
    "docs/shapes.md",
    "docs/speed.md",
    "docs/terms.md",
]


@pytest.mark.parametrize("page", [*PAGES, *REFERENCE_PAGES])
def test_files_and_pictures_named_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
    for target in re.findall(
        r"`((?:recipes|benchmarks|docs|latentedit|tests)/[\w/.-]+\.\w+)`", text
    ):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("page", [*PAGES, *REFERENCE_PAGES])
def test_links_lead_to_headings(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", (ROOT / page).read_text()):
        text = ((ROOT / page).parent / target).read_text() if target else (ROOT / page).read_text()
        headings = [
            re.sub(r"[^\w -]", "", line).strip().lower()
            for line in re.findall(r"^#+ (.*)", text, re.M)
        ]
        assert anchor in [heading.replace(" ", "-") for heading in headings], f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_left_to_fill_in(page: str) -> None:
    text = (ROOT / page).read_text()
    assert not re.search(r"{{|<!-- (measured|compared)", text)
    assert not re.search(r"<!-- figures: [\w ]+ -->\s*<!-- end -->", text)


def test_make_targets_of_the_readme() -> None:
    targets = re.findall(r"^make (\w+)", "\n".join(shell_lines("README.md")), re.M)
    assert {"demo", "test"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M)


def made_pictures(folder: Path) -> None:
    for side, shift in (("left", 10), ("right", 40)):
        (folder / side).mkdir(parents=True)
        for number in range(6):
            picture = Image.new("L", (80, 70), 60 + 10 * number)
            ImageDraw.Draw(picture).ellipse((shift, 20, shift + 25, 50), fill=220)
            picture.save(folder / side / f"{number}.png")


def type_in(line: str, folder: Path, *more: str) -> None:
    """Type a line in ``folder``, with ``more`` options, into a shell's process."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "LATENTEDIT_CACHE": str(folder / "cache"),
    }
    words = [*shlex.split(line, comments=True), *more]
    result = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, f"{line}\n{result.stderr[-2000:]}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches of a few steps, whatever quality they are asked for, with one distance, and few
    pictures of a training run.

    A second distance would take most of the time, and show nothing of the commands.
    """
    for name, quality in QUALITIES.items():
        few = replace(quality, share=2.0 / STEPS["quasi-newton"])
        monkeypatch.setitem(QUALITIES, name, replace(few, tune_steps=min(quality.tune_steps, 2)))
    monkeypatch.setattr("latentedit.inversion.perceptual.stlpips_file", lambda *_: None)
    monkeypatch.setattr("latentedit.training.loop.GRID", (2, 4))


@pytest.mark.slow
def test_train_your_own(
    tmp_path: Path, quick: None, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_pictures(tmp_path / "photos")
    save_judge(tmp_path / "judge.safetensors", Judge(3, 64, {"side": ("left", "right")}).eval(), {})
    monkeypatch.chdir(tmp_path)
    lines = shell_lines("docs/train.md")
    type_in(lines[0], tmp_path)  # the others in this process: to start one takes longer than most
    for line in lines[1:]:
        program, *words = shlex.split(line, comments=True)
        short = {"metrics": ["--count", "12"]}.get(words[0], [])
        if "train" in words and "--dry-run" not in words:
            short = ["--kimg", "0.004", "--batch", "8" if program == "torchrun" else "4"]
        if program == "torchrun":
            type_in(line, tmp_path, *short)
        else:
            works(*words, *short)
    assert len(lines) >= 12
    for name in (
        "sheet.png",
        "left.png",
        "mixed.png",
        "runs/upright/model-best.safetensors",
        "runs/two/curves.png",
    ):
        assert (tmp_path / name).is_file(), name


@pytest.mark.slow
def test_bring_your_own_network(
    tmp_path: Path, rough: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(REFERENCE / "nvidia_32_torch.pkl", tmp_path / "ffhq.pkl")
    shutil.copy(REFERENCE / "stylegan3_t_32.pkl", tmp_path / "stylegan3-t.pkl")
    labelled = tiny_generator(resolution=32, channels=3, c_dim=3)
    judge = tiny_discriminator(resolution=32, channels=3, c_dim=3)
    save_nvidia(tmp_path / "labelled.pkl", Model(labelled, judge))
    wide = tiny_generator(first_size=(4, 8), channels=3)
    save_rosinality(tmp_path / "wide.pt", Model(wide))
    torch.save(checkpoint(), tmp_path / "e4e.pt")
    generator = load_generator(tmp_path / "ffhq.pkl")
    rows, width = generator.num_ws, generator.w_dim
    random = np.random.RandomState(0)
    shutil.copy(hopper(), tmp_path / "portrait.jpg")
    np.save(tmp_path / "stylegan2_ffhq_age_w_boundary.npy", random.randn(1, width))
    torch.save(torch.randn(rows, width), tmp_path / "smile.pt")
    np.savez(
        tmp_path / "ganspace_ffhq.npz",
        comp=random.randn(5, 1, width),
        mean=random.randn(1, width),
        std=np.arange(5.0),
    )
    np.savez(tmp_path / "projected_w.npz", w=random.randn(1, rows, width).astype(np.float32))
    write_pictures(
        tmp_path / "photos.zip",
        [(f"{i}.png", Image.new("RGB", (32, 32), (40 * i, 90, 200))) for i in range(4)],
    )
    widths = (
        f"channel_base = {generator.config.channel_base}\nchannel_max = "
        f"{generator.config.channel_max}\n"
    )
    mapping = (
        f"z_dim = {generator.z_dim}\nw_dim = {width}\nmapping_layers = "
        f"{generator.config.mapping_layers}\n"
    )
    (tmp_path / "small.toml").write_text(
        f"batch = 4\n[generator]\n{widths}{mapping}[discriminator]\n{widths}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("latentedit.training.loop.GRID", (2, 4))
    lines = shell_lines("docs/networks.md")
    for line in lines:  # in this process, as starting one for each takes longer than the work
        program, *words = shlex.split(line, comments=True)
        assert program == "latentedit"
        works(
            *words, *(["--steps", "1"] if words[0] == "invert" and "--steps" not in words else [])
        )
    assert len(lines) >= 19
    for name in (
        "gallery.png",
        "crops/portrait.png",
        "latents/portrait.safetensors",
        "older.png",
        "ages.png",
        "younger.png",
    ):
        assert (tmp_path / name).is_file(), name
    own = fingerprint(generator)
    for name in (
        *("ffhq.safetensors", "ffhq-rosinality.pt", "ffhq-plain.pt", "framed.safetensors"),
        *("ffhq-nvidia.pkl", "ffhq-nvidia3.pkl"),
    ):
        assert fingerprint(load_generator(tmp_path / name)) == own, name


@pytest.mark.slow
def test_five_commands_of_the_readme(
    tmp_path: Path,
    stand_in: Path,
    quick: None,
    fresh_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(hopper(), tmp_path / "me.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTEDIT_QUALITY", "fast")
    text = (ROOT / "README.md").read_text().partition("## Five commands")[2]
    lines = text.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert len(lines) == 5
    told = [works(*shlex.split(line)[1:]).stderr for line in lines]
    assert "me.jpg: inverted in" in told[0]
    assert "me.jpg: its latent is in the cache" in told[2]
    for name in ("smiling.jpg", "strip.png", "me-edited.jpg", "latents/me.safetensors"):
        assert (tmp_path / name).is_file(), name
    with Image.open("me.jpg") as before, Image.open("me-edited.jpg") as after:
        assert before.size == after.size


@pytest.mark.slow
def test_your_photo(
    tmp_path: Path,
    stand_in: Path,
    quick: None,
    fresh_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(hopper(), tmp_path / "me.jpg")
    (tmp_path / "photos").mkdir()
    for number in range(2):
        shutil.copy(hopper(), tmp_path / "photos" / f"{number}.jpg")
    (tmp_path / "clip").mkdir()
    with Image.open(hopper()) as photo:
        for number in range(3):
            shifted = photo.crop((10 * number, 0, photo.width, photo.height - 20))
            shifted.resize((256, 290)).save(tmp_path / "clip" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    lines = shell_lines("docs/photo.md")
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        if program == "torchrun":  # tests/test_docs.py types another such line into a shell
            assert words[:4] == ["--nproc-per-node", "2", "-m", "latentedit"]
            assert by_two(lambda: main([*words[4:], "--steps", "1"])) == [0, 0]  # noqa: B023
            continue
        short = {
            "invert": [] if "--steps" in words else ["--steps", "2"],
            "encoder": ["--steps", "2", "--probes", "8"],
            "video": ["--steps", "2", "--later-steps", "1"] if words[1] == "invert" else [],
        }
        works(
            *words,
            *short.get(words[0], []),
            *(["--tune-steps", "2"] if "--tune" in words else []),
            *(["--seconds", "0.3"] if "--seconds" in words else []),
        )
    assert len(lines) >= 18
    for name in (
        "latents/me-compare.png",
        "everyone/me-1.safetensors",
        "me-turned.jpg",
        "album/sheet.png",
        "shared/1.safetensors",
    ):
        assert (tmp_path / name).is_file(), name
    with Image.open("me.jpg") as before, Image.open("me-turned.jpg") as after:
        assert before.size == after.size


@pytest.mark.slow
def test_drag_points(
    tmp_path: Path,
    stand_in: Path,
    quick: None,
    fresh_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(hopper(), tmp_path / "me.jpg")
    mask = Image.new("L", (128, 128))
    ImageDraw.Draw(mask).rectangle((30, 80, 98, 124), fill=255)
    mask.save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    lines = shell_lines("docs/drag.md")
    for line in lines:
        _, *words = shlex.split(line, comments=True)
        works(*words, "--steps", "2")
    assert len(lines) >= 5
    for name in ("open.png", "open.safetensors", "lips.png", "jaw.safetensors", "way.gif"):
        assert (tmp_path / name).is_file(), name
    with Image.open("me.jpg") as before, Image.open("me-turned.jpg") as after:
        assert before.size == after.size


@pytest.mark.slow
def test_ten_tasks(
    tmp_path: Path,
    stand_in: Path,
    quick: None,
    fresh_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (ROOT / "docs" / "tasks.md").read_text()
    tasks = re.findall(r"^## (\d+)\..*?```\w+\n(.*?)```", text, re.M | re.S)
    assert [number for number, _ in tasks] == [str(number) for number in range(1, 11)]
    assert all(len([line for line in code.splitlines() if line]) <= 5 for _, code in tasks)

    monkeypatch.chdir(tmp_path)
    shutil.copy(hopper(), "me.jpg")
    made_pictures(tmp_path / "photos")
    with Image.open(hopper()) as photo:
        photo.save("photos/portrait.png")
        group = Image.new("RGB", (2 * photo.width, photo.height), "white")
        group.paste(photo, (0, 0))
        group.paste(photo.resize((photo.width * 9 // 10, photo.height * 9 // 10)), (photo.width, 0))
        group.save("group.jpg")
    (tmp_path / "faces-only").mkdir()
    shutil.copy(hopper(), "faces-only/one.jpg")
    save_model("ffhq.safetensors", load_model(str(stand_in)))
    shutil.copy(shipped(fingerprint(load_generator(stand_in)))["smile"], "age.safetensors")

    for line in shell_lines("docs/tasks.md"):
        program, *words = shlex.split(line.replace("ffhq.pkl", "ffhq.safetensors"), comments=True)
        assert program == "latentedit"
        if words[:2] == ["directions", "label"]:  # which asks a person
            fill_in(Path(words[2]), words[words.index("--column") + 1])
            continue
        if words[:2] == ["edit", "photos"]:  # not the drawings, which show no face
            words[1] = "faces-only"
        short = {
            "invert": ["--steps", "2"],
            "train": ["--kimg", "0.004", "--batch", "4"],
        }
        brief = ["--seconds", "0.3"] if "--seconds" in words else []
        works(*words, *short.get(words[0], []), *brief)

    for name in (
        *("latents/me.safetensors", "smiling.jpg", "me-turned.jpg", "group-smiling.jpg"),
        *("smiling/one.jpg", "bright.safetensors", "brighter.jpg", "samples.png", "older.jpg"),
        *("runs/mine/model.safetensors", "smiling.gif"),
    ):
        assert (tmp_path / name).is_file(), name
    assert len(list((tmp_path / "faces-smiling").iterdir())) == 2
    with Image.open("me.jpg") as before, Image.open("me-turned.jpg") as after:
        assert before.size == after.size

    shown: dict[str, Any] = {}
    *lines, last = tasks[-1][1].strip().splitlines()
    code = "\n".join(lines).replace('model="faces128"', 'model="faces128", steps=2')
    exec(code, shown)  # what the page says, and nothing else
    assert isinstance(eval(last, shown), Image.Image)


@pytest.mark.slow
def test_find_your_own_direction(
    tmp_path: Path,
    stand_in: Path,
    quick: None,
    fresh_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LATENTEDIT_DIRECTIONS", str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path)
    made_pictures(tmp_path / "sides")
    rows = ["file,person,glasses,hair"]
    for i, path in enumerate(sorted((tmp_path / "sides").glob("*/*.png"))):
        rows.append(
            f"{path.relative_to(tmp_path)},p{i % 4},{int(path.parent.name == 'left')},"
            f"{('none', 'short', 'long')[i % 3]}"
        )
    (tmp_path / "photos.csv").write_text("\n".join(rows) + "\n")
    onnx_mean(tmp_path / "brightness.onnx", 128)
    judge = Judge(3, 128, {"glasses": ("no", "yes"), "pose": ("straight", "left", "right")})
    save_judge(tmp_path / "judge.safetensors", judge.eval(), {})
    lines = shell_lines("docs/directions.md")
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        assert program == "latentedit"
        # which asks a person; tests/test_labelling.py answers it
        if words[:2] == ["directions", "label"]:
            fill_in(Path(words[2]), words[words.index("--column") + 1])
        else:
            short = {"channels": ["--samples", "4"], "report": ["--pictures", "6"]}
            works(*words, *short.get(words[1], []))
    assert len(lines) >= 15
    for name in (
        "bright.png",
        "kinds-of-hair/hair-none.safetensors",
        "components/sheet.png",
        "channels/sheet.png",
        "tone.png",
        "mine/tone.safetensors",
        "reports/glasses.md",
        "held.png",
    ):
        assert (tmp_path / name).is_file(), name


@pytest.mark.slow
def test_sliders_from_words(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_script(tmp_path, tiny_clip()).rename(tmp_path / "ViT-B-32.pt")
    shutil.copy(REFERENCE / "nvidia_32_torch.pkl", tmp_path / "ffhq.pkl")
    channels = int(convolution_channels(load_generator(tmp_path / "ffhq.pkl")).sum())
    np.save(tmp_path / "fs3.npy", np.random.RandomState(0).randn(channels, CONFIG.embedding))
    monkeypatch.chdir(tmp_path)
    lines = shell_lines("docs/words.md")
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        assert program == "latentedit"
        few = ["--samples", "1", "--beta", "0.01"]
        few += [] if "--shortlist" in words else ["--shortlist", "4"]
        works(*words, *(few if words[1] == "from-text" else []))
    assert len(lines) >= 7
    for name in ("smiling-someone.png", "smiling.png", "old.safetensors", "curls.safetensors"):
        assert (tmp_path / name).is_file(), name


def fill_in(table: Path, column: str) -> None:
    """Label the pictures that are brighter than most."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    levels = [float(np.asarray(Image.open(table.parent / row["picture"])).mean()) for row in rows]
    for row, level in zip(rows, levels, strict=True):
        row[column] = str(int(level > np.median(levels)))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
