"""Names that are nearly right are answered with the right one."""

from pathlib import Path

import pytest

from latentedit.errors import Error, closest, meant
from latentedit.latent.layers import parse_layers
from latentedit.metrics.measures import check_metrics
from latentedit.training import load_preset
from tests.helpers import complaint, run, works


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("smlie", "smile"),
        ("SMILE", "smile"),
        ("grayhair", "grey-hair"),
        ("x", None),
        ("", None),
        ("\0" * 5000, None),
    ],
)
def test_the_closest_of_some_names(word: str, expected: str | None) -> None:
    assert closest(word, ["smile", "turn", "grey-hair"]) == expected


def test_advice_goes_on_with_what_there_is() -> None:
    assert meant("smlie", ["smile"], "there is: smile") == "did you mean smile? There is: smile"
    assert meant("beard", ["smile"], "there is: smile") == "there is: smile"
    assert meant("smlie", ["smile"]) == "did you mean smile?"
    assert meant("beard", ["smile"]) == ""


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["edti"], "Did you mean 'edit'?"),
        (["directions", "lst"], "Did you mean 'list'?"),
        (["fetch", "vgg16"], "model fetch'?"),
        (["zoo"], "model zoo'?"),
        (["invert", "me.jpg", "--spacee", "w"], "--space"),
        (["help", "edti"], "Did you mean 'edit'?"),
        (["help", "edit", "smile"], "has no command 'smile'"),
        (["qqqqqqq"], "No such command 'qqqqqqq'."),
        (["align", "me.jpg", "--framing", "fhq", "--out", "x"], "'ffhq'"),
    ],
    ids=" ".join,
)
def test_commands_and_options(words: list[str], advice: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert advice in result.stderr


def test_sliders_models_and_downloads(tmp_path: Path) -> None:
    assert "did you mean smile?" in complaint("directions", "show", "smlie")
    assert "did you mean faces128?" in complaint("sample", "face128", "--out", tmp_path / "x.png")
    assert "did you mean ada-ffhq?" in complaint("model", "info", "ada-fhq")
    assert "did you mean ada-ffhq?" in complaint("model", "fetch", "ada-fhq")
    latent = tmp_path / "a.safetensors"
    works("sample", "faces128", "--seeds", "1", "--out", latent)
    assert "did you mean smile?" in complaint(
        "edit", latent, "--set", "smlie=1", "--out", tmp_path / "x.png"
    )
    assert "did you mean coarse?" in complaint(
        "edit", latent, "--set", "smile=1@corse", "--out", tmp_path / "x.png"
    )


def test_other_names() -> None:
    with pytest.raises(Error, match=r"did you mean middle\?"):
        parse_layers("midle", 10)
    with pytest.raises(Error, match=r"did you mean precision\?"):
        check_metrics(["precison"])
    with pytest.raises(Error, match=r"did you mean auto\?"):
        load_preset("atuo")
