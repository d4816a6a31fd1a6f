"""Numbers that options and functions take: every one has a range, and NaN and infinity are in
none."""

import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import torch
from PIL import Image

from latentedit.cli.common import Finite, check_quad, parse_numbers, quad_of, quads_of
from latentedit.cli.moves import parse_move, parse_sweep
from latentedit.cli.sample import parse_seeds
from latentedit.directions import Direction, load_direction
from latentedit.errors import Error, check_number, quoted
from latentedit.formats.load_latent import load_latent
from latentedit.inversion.projector import invert
from latentedit.latent.editing import edit, edit_holding
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.latent.layers import parse_layers
from latentedit.model.model import Model
from latentedit.networks.config import GeneratorConfig
from latentedit.networks.discriminator import DiscriminatorConfig
from latentedit.photo.alignment import quad_of_window
from latentedit.training import TrainingConfig, load_pictures, load_preset, presets, write_pictures
from tests.helpers import commands, complaint, run, tiny_discriminator, tiny_generator, works

NUMBERS = [
    (path, parameter)
    for path, command in commands()
    for parameter in command.params
    if isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType)
]
FRAMING = {"kind": "face", "eyes": [[0.36, 0.47], [0.63, 0.47]]}


@pytest.mark.parametrize(
    ("path", "parameter"),
    NUMBERS,
    ids=lambda value: getattr(value, "name", None) or " ".join(value),
)
def test_every_number_has_a_range(path: tuple[str, ...], parameter: click.Option) -> None:
    kind: Any = parameter.type
    assert isinstance(parameter.type, click.IntRange | Finite), (
        f"{' '.join(path)} {parameter.opts}: any number is taken"
    )
    assert kind.min is not None, f"{' '.join(path)} {parameter.opts}: negative numbers are taken"
    context = click.Context(click.Command("x", params=[parameter]))
    record = parameter.get_help_record(context)
    assert record is not None
    assert kind._describe_range() in record[1]
    for text in ("nan", "inf", "-inf", "-1e9", "x"):
        with pytest.raises(click.BadParameter):
            kind.convert(text, parameter, context)
    assert kind.max is not None, (
        f"{' '.join(path)} {parameter.opts}: numbers that overflow are taken"
    )
    with pytest.raises(click.BadParameter):
        kind.convert("1e300" if isinstance(kind, Finite) else str(2**63), parameter, context)


def test_amounts_and_seeds_of_options() -> None:
    for text in ("turn=nan", "turn=inf", "turn=-inf", "turn=:nan", "turn=1e9", "turn=1@"):
        with pytest.raises(Error, match="--set takes NAME=AMOUNT.* from -1000 to 1000, got"):
            parse_move(text)
    for text in ("turn=nan:1:3", "turn=0:inf:3", "turn=-1e9:0:3"):
        with pytest.raises(Error, match="--sweep takes"):
            parse_sweep(text)
    with pytest.raises(Error, match="write 3-5 instead of 5-3"):
        parse_seeds("1,5-3")
    with pytest.raises(Error, match="layers go from low to high: write 3-9 instead of 9-3"):
        parse_layers("9-3", 12)
    for text in ("0,0,nan", "0,0,inf", "0,0"):
        with pytest.raises(Error, match="--crop takes 3 finite numbers"):
            parse_numbers(text, 3, "--crop")


def test_crops_and_landmarks_stay_by_the_photo() -> None:
    photo, model = Image.new("RGB", (100, 80)), Model(tiny_generator(), None, FRAMING)
    assert quad_of(photo, "-20,-20,140", False, "x.png") == quad_of_window(-20, -20, 140)
    for crop in ("0,0,99999", "-500,0,520"):
        with pytest.raises(
            Error, match=rf"x.png: --crop {crop} extends far beyond the image of 100 x 80 pixels"
        ):
            quad_of(photo, crop, False, "x.png")

    def framed(landmarks: str) -> None:
        quads_of(photo, model, "x.png", "1", landmarks, None)

    framed("40,40,60,40,50,60")
    for marks in ("0,0,99999,0,50,50", "-5,10,30,10,20,30"):
        with pytest.raises(
            Error, match=rf"x.png: --landmarks {marks} lie outside the image of 100 x 80 pixels"
        ):
            framed(marks)
    with pytest.raises(
        Error, match="the crop around --landmarks 0,40,100,40,50,60 extends far beyond"
    ):
        framed("0,40,100,40,50,60")
    check_quad(quad_of_window(0, 0, 80), photo, "x.png")


def test_functions_take_no_nan(tmp_path: Path) -> None:
    generator = tiny_generator()
    ws = torch.randn(1, generator.num_ws, 12)
    direction = Direction(
        "axis", torch.nn.functional.normalize(torch.arange(12.0), dim=0), 0.0, 0.7, ""
    )
    for call in (
        lambda: edit(ws, direction, float("nan")),
        lambda: edit_holding(ws, [(direction, float("inf"), None)], []),
        lambda: generator.mapping(torch.randn(1, 12), truncation_psi=float("nan")),
    ):
        with pytest.raises(Error, match="must be a finite number, got (nan|inf)"):
            call()
    image = generator(torch.randn(1, 12))
    for options in (
        {"delta_weight": float("nan")},
        {"prior_weight": -1.0},
        {"adversarial_weight": float("inf")},
    ):
        with pytest.raises(
            Error, match=f"{next(iter(options))} must be a finite number from 0, got"
        ):
            invert(generator, image, steps=1, discriminator=tiny_discriminator(), **options)  # type: ignore[arg-type]
    poisoned = Latent(ws * float("nan"), None, "", "w+")
    with pytest.raises(
        Error,
        match="x.safetensors: not written, because the latent has values that are not numbers",
    ):
        save_latent(tmp_path / "x.safetensors", poisoned)
    assert not (tmp_path / "x.safetensors").exists()
    with pytest.raises(Error, match="share must be a finite number from 0 to 1, got 2"):
        check_number("share", 2, 0, 1)


NONE = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "1e999": math.inf,
    "9" * 400: int("9" * 400),
}
"""Numbers that are none, as a TOML file has them."""


@pytest.mark.parametrize("text", NONE)
def test_presets_have_finite_numbers(tmp_path: Path, text: str) -> None:
    """Every option, also those of the networks, is refused by its name, in a file and in Python."""
    options = [
        option.name
        for option in fields(TrainingConfig)
        if option.name not in ("generator", "discriminator")
    ]
    networks = [("generator", option.name) for option in fields(GeneratorConfig)]
    networks += [("discriminator", option.name) for option in fields(DiscriminatorConfig)]
    path = tmp_path / "x.toml"
    for lines, name in (
        *((f"{option} = {text}", option) for option in options),
        *(
            (f"[{network}]\n{option} = {text}", f"{network}.{option}")
            for network, option in networks
        ),
        *(
            (f"[{network}]\n{option} = [1, {text}]", f"{network}.{option}[1]")
            for network, option in networks
        ),
        (f"[generator]\nx = {{ y = {text} }}", "generator.x.y"),
    ):
        path.write_text(lines)
        with pytest.raises(Error) as caught:
            load_preset(str(path))
        shown = quoted(NONE[text])
        assert (
            str(caught.value)
            == f"{path}: not a training preset ({name} is {shown}, expected a finite number)"
        )
    for option in options:
        with pytest.raises(Error, match=rf"^{option} must be .*, got"):
            TrainingConfig(**{option: NONE[text]})  # type: ignore[arg-type]
    for kind, resolution in ((GeneratorConfig, 16), (DiscriminatorConfig, 16)):
        for number in ("conv_clamp", "channel_base", "channel_max", "mapping_layers"):
            with pytest.raises(Error, match=number):
                kind(resolution, **{number: NONE[text]})  # type: ignore[arg-type]


def test_preset_options_have_ranges(tmp_path: Path) -> None:
    for line in (
        "ema_rampup = -1",
        "ada_target = 2",
        "ada_target = -1.5",
        "augment_p = 1.5",
        "style_mixing = -0.1",
    ):
        (tmp_path / "x.toml").write_text(line)
        with pytest.raises(Error, match=rf"{line.split()[0]} must be a finite number from"):
            load_preset(str(tmp_path / "x.toml"))
    for preset in presets():
        assert TrainingConfig(**load_preset(preset).as_dict()) == load_preset(preset)


def test_a_preset_without_numbers_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("learning_rate = inf")
    write_pictures(tmp_path / "x.zip", [(f"{i}.png", Image.new("RGB", (8, 8))) for i in range(4)])
    said = complaint(
        "train", tmp_path / "x.zip", "--preset", tmp_path / "x.toml", "--out", tmp_path / "run"
    )
    assert "x.toml: not a training preset (learning_rate is inf, expected a finite number)" in said
    assert not (tmp_path / "run").exists()


def changed_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a native file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + size])
    header = json.loads(table["__metadata__"]["latentedit"])
    change(header)
    table["__metadata__"]["latentedit"] = json.dumps(header)
    text = json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "x", True, None, [1]])
def test_distances_of_a_latent_are_numbers(tmp_path: Path, value: Any) -> None:
    """They decide whether a picture belongs to a photo."""
    path = tmp_path / "x.safetensors"
    save_latent(
        path,
        Latent(
            torch.zeros(1, 2, 4),
            None,
            "f" * 64,
            "w+",
            distances={"psnr": 20.0, "w_distance": math.nan},
        ),
    )
    assert load_latent(path).distances == {"psnr": 20.0}
    changed_header(path, lambda header: header["distances"].update(psnr=value))
    with pytest.raises(
        Error,
        match=r"x.safetensors: (distances.psnr is .*, expected a finite|a latent file's "
        r"distances must)",
    ):
        load_latent(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_headers_have_finite_numbers(tmp_path: Path, value: float) -> None:
    path = tmp_path / "x.safetensors"
    vector = torch.nn.functional.normalize(torch.arange(12.0), dim=0)
    Direction("axis", vector, 0.0, 0.7, "f" * 64, report={"auc": math.nan}).save(path)
    # a figure that could not be measured
    assert math.isnan(load_direction(str(path)).report["auc"])
    for name in ("sigma", "intercept", "name"):
        Direction("axis", vector, 0.0, 0.7, "f" * 64).save(path)
        changed_header(path, lambda header, name=name: header.update({name: value}))  # type: ignore[misc]
        with pytest.raises(Error, match=rf"x.safetensors: {name} is .*, expected a finite number"):
            load_direction(str(path))


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30, True, 1.0, "1", None])
def test_seeds_of_latents_are_seeds(tmp_path: Path, tiny_file: Path, seed: Any) -> None:
    works(
        "directions",
        "sample",
        "--model",
        tiny_file,
        "--count",
        12,
        "--attribute",
        "hat",
        "--out",
        tmp_path / "x",
    )
    rows = (tmp_path / "x" / "labels.csv").read_text().splitlines()
    table = [rows[0], *(row.rstrip(",") + f",{number % 2}" for number, row in enumerate(rows[1:]))]
    (tmp_path / "x" / "labels.csv").write_text("\n".join(table) + "\n")
    latent = tmp_path / "x" / rows[1].split(",")[0]
    changed_header(latent, lambda header: header["settings"].update(seed=seed))
    fit = (
        "directions",
        "fit",
        tmp_path / "x" / "labels.csv",
        "--column",
        "hat",
        "--space",
        "z",
        "--model",
        tiny_file,
    )
    said = complaint(*fit, "--samples", 100, "--out", tmp_path / "d.safetensors")
    assert f"{latent.name}: its z is unknown" in said


def test_labels_that_are_no_numbers_are_words(tmp_path: Path) -> None:
    """Also "nan", which is neither smaller nor larger than anything, and would leave the classes in
    any order."""
    names = ["2", "nan", "10", "inf", "a", "1e999", "1"]
    for number, name in enumerate(names):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "in" / name / "x.png")
    works(
        "dataset",
        "build",
        tmp_path / "in",
        "--size",
        8,
        "--labels",
        "folders",
        "--out",
        tmp_path / "x.zip",
    )
    assert load_pictures(tmp_path / "x.zip").label_names == [
        "1",
        "2",
        "10",
        "1e999",
        "a",
        "inf",
        "nan",
    ]


def test_what_commands_say(tmp_path: Path, tiny_file: Path) -> None:
    out = ("--out", tmp_path / "x.png")
    assert "--cutoff takes 0 to 6, the number of layers of this network; got 99" in complaint(
        "sample", tiny_file, "--cutoff", 99, *out
    )
    for arguments in (("--psi", "nan"), ("--psi", "1e9")):
        assert run("sample", tiny_file, *arguments, *out).exit_code == 2
    assert "0<=x<=4294967295" in run("invert", "--help").output


@pytest.mark.parametrize("number", [math.nan, math.inf, 10**400, "x", None, []])
def test_what_the_page_sends_is_no_traceback(number: Any) -> None:
    pytest.importorskip("nicegui")
    from latentedit.studio.web.app import Frame

    frame = object.__new__(Frame)
    slid: list[tuple[str, float]] = []
    parts: dict[str, Any] = {
        "view": SimpleNamespace(seen=0),
        "session": SimpleNamespace(
            intake=SimpleNamespace(photo=None),
            slide=lambda name, amount: slid.append((name, amount)),
        ),
        "parts": {},
    }
    vars(frame).update(parts)
    frame._did({"what": "slide", "number": number, "name": "smile", "value": 1})
    frame._did({"what": "slide", "number": 1, "name": "smile", "value": number})
    frame._did({"what": "face", "number": number})
    frame._did({"what": "crop", **dict.fromkeys(("x", "y", "side"), 10**400), "angle": number})
    frame._did({"what": "slide", "number": 2, "name": "smile", "value": 0.5})
    assert slid[-1] == ("smile", 0.5)
    assert frame.view.seen == 2
    # What is a number is for the session to refuse; what is none never gets there.
    assert len(slid) == 1 + isinstance(number, float | int)
    assert all(isinstance(amount, float) for _, amount in slid)
