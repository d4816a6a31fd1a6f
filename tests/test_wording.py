"""Help texts and documentation use the field's terms and full phrases."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from latentedit.cli.main import main

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT) for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
)
OWN_WORDS = {
    r"rows? of ws": "layer",
    r"brought over|brings? over": "success rate",
    r"the judge|a judge": "attribute classifier",
    r"pictures?": "image",
    r"photographs? besides": "additional photos",
    r"go(?:es|ne)? on with": "run the same command again",
    r"at hand": "available",
}
"""Words that a reader has to decode, with what they stand for; names of options and columns are in
code marks or quotes."""


def commands(
    command: click.Command, path: tuple[str, ...] = ("latentedit",)
) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


COMMANDS = dict(commands(main))


def decoded(text: str) -> list[str]:
    """Return the own words in ``text``, outside of code and of names in quotes."""
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|\"\w+\"|--[\w-]+", " ", text, flags=re.S)
    found = (
        (re.search(rf"\b(?:{word})\b", prose, re.I), instead) for word, instead in OWN_WORDS.items()
    )
    return [f"{match[0]!r}: say {instead!r}" for match, instead in found if match]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_a_phrase_of_its_own(name: str) -> None:
    command = COMMANDS[name]
    texts = {name: (command.help or "").partition("\b")[0]}
    texts |= {p.opts[0]: p.help or "" for p in command.params if isinstance(p, click.Option)}
    for what, text in texts.items():
        assert text.strip(), what
        # "Of the new direction" only makes sense to somebody who completes it with the option's
        # name.
        assert not re.match(r"(Of|By default|To)\b", text), f"{what}: {text}"
        assert not decoded(text), f"{what}: {decoded(text)}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_pages_use_the_terms_of_the_field(page: Path) -> None:
    assert not decoded((ROOT / page).read_text())


def test_the_readme_explains_before_it_uses() -> None:
    assert "sigma" not in (ROOT / "README.md").read_text()
    terms = (ROOT / "docs" / "terms.md").read_text()
    for term in (
        "W",
        "W+",
        "Sigma",
        "psi",
        "truncation",
        "Noise maps",
        "Identity distance",
        "PSNR",
    ):
        assert re.search(rf"^\*\*[^*]*{re.escape(term)}[^*]*\.\*\*", terms, re.M), term
