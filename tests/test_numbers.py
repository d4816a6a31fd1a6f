"""Numbers that options and functions take: every one has a range, and NaN and infinity are in none."""

from pathlib import Path
from typing import Any

import click
import pytest
import torch
from PIL import Image

from latentedit.cli.common import Finite, check_quad, parse_numbers, quad_of, quads_of
from latentedit.cli.models import parse_seeds
from latentedit.cli.moves import parse_move, parse_sweep
from latentedit.directions import Direction
from latentedit.errors import Error, check_number
from latentedit.inversion.projector import invert
from latentedit.latent.editing import edit, edit_holding, parse_layers
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.model.model import Model
from latentedit.photo.alignment import quad_of_window
from tests.helpers import commands, complaint, run, tiny_discriminator, tiny_generator

NUMBERS = [
    (path, parameter)
    for path, command in commands()
    for parameter in command.params
    if isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType)
]
FRAMING = {"kind": "face", "eyes": [[0.36, 0.47], [0.63, 0.47]]}


@pytest.mark.parametrize(("path", "parameter"), NUMBERS, ids=lambda value: getattr(value, "name", None) or " ".join(value))
def test_every_number_has_a_range(path: tuple[str, ...], parameter: click.Option) -> None:
    kind: Any = parameter.type
    assert isinstance(parameter.type, click.IntRange | Finite), f"{' '.join(path)} {parameter.opts}: any number is taken"
    assert kind.min is not None, f"{' '.join(path)} {parameter.opts}: negative numbers are taken"
    context = click.Context(click.Command("x", params=[parameter]))
    record = parameter.get_help_record(context)
    assert record is not None
    assert kind._describe_range() in record[1]
    for text in ("nan", "inf", "-inf", "-1e9", "x"):
        with pytest.raises(click.BadParameter):
            kind.convert(text, parameter, context)
    assert kind.max is not None, f"{' '.join(path)} {parameter.opts}: numbers that overflow are taken"
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
    assert quad_of(photo, model, "-20,-20,140", False, "x.png") == quad_of_window(-20, -20, 140)
    for crop in ("0,0,99999", "-500,0,520"):
        with pytest.raises(Error, match=rf"x.png: --crop {crop} extends far beyond the image of 100 x 80 pixels"):
            quad_of(photo, model, crop, False, "x.png")

    def framed(landmarks: str) -> None:
        quads_of(photo, model, "x.png", "1", landmarks, None)

    framed("40,40,60,40,50,60")
    for marks in ("0,0,99999,0,50,50", "-5,10,30,10,20,30"):
        with pytest.raises(Error, match=rf"x.png: --landmarks {marks} lie outside the image of 100 x 80 pixels"):
            framed(marks)
    with pytest.raises(Error, match="the crop around --landmarks 0,40,100,40,50,60 extends far beyond"):
        framed("0,40,100,40,50,60")
    check_quad(quad_of_window(0, 0, 80), photo, "x.png")


def test_functions_take_no_nan(tmp_path: Path) -> None:
    generator = tiny_generator()
    ws = torch.randn(1, generator.num_ws, 12)
    direction = Direction("axis", torch.nn.functional.normalize(torch.arange(12.0), dim=0), 0.0, 0.7, "")
    for call in (
        lambda: edit(ws, direction, float("nan")),
        lambda: edit_holding(ws, [(direction, float("inf"), None)], []),
        lambda: generator.mapping(torch.randn(1, 12), truncation_psi=float("nan")),
    ):
        with pytest.raises(Error, match="must be a finite number, got (nan|inf)"):
            call()
    image = generator(torch.randn(1, 12))
    for options in ({"delta_weight": float("nan")}, {"prior_weight": -1.0}, {"adversarial_weight": float("inf")}):
        with pytest.raises(Error, match=f"{next(iter(options))} must be a finite number from 0, got"):
            invert(generator, image, steps=1, discriminator=tiny_discriminator(), **options)  # type: ignore[arg-type]
    poisoned = Latent(ws * float("nan"), None, "", "w+")
    with pytest.raises(Error, match="x.safetensors: not written, because the latent has values that are not numbers"):
        save_latent(tmp_path / "x.safetensors", poisoned)
    assert not (tmp_path / "x.safetensors").exists()
    with pytest.raises(Error, match="share must be a finite number from 0 to 1, got 2"):
        check_number("share", 2, 0, 1)


def test_what_commands_say(tmp_path: Path, tiny_file: Path) -> None:
    out = ("--out", tmp_path / "x.png")
    assert "--cutoff takes 0 to 6, the number of layers of this network; got 99" in complaint(
        "sample", tiny_file, "--cutoff", 99, *out
    )
    for arguments in (("--psi", "nan"), ("--psi", "1e9")):
        assert run("sample", tiny_file, *arguments, *out).exit_code == 2
    assert "0<=x<=4294967295" in run("invert", "--help").output
