"""The documentation site, but for what ``mkdocs build --strict`` finds itself."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_module_has_a_page_of_reference() -> None:
    pages = {path.stem: path.read_text() for path in (DOCS / "reference").glob("*.md")}
    modules = {
        "latentedit": "latentedit",
        **{name: f"latentedit.{name}" for name in ("directions", "metrics", "ops", "training")},
    }
    assert set(pages) == set(modules)
    for name, module in modules.items():
        assert re.search(rf"^::: {re.escape(module)}$", pages[name], re.M), name


@pytest.mark.parametrize(
    ("readme", "page"),
    [
        ("[photo](docs/photo.md#faces)", "[photo](photo.md#faces)"),
        ("![people](docs/people.png)", "![people](people.png)"),
        ("[licence](LICENSE)", "[licence](../LICENSE)"),
        ("[paper](https://example.org/docs/a)", "[paper](https://example.org/docs/a)"),
        ("[below](#install)", "[below](#install)"),
    ],
)
def test_links_of_the_readme_are_those_of_a_page_in_docs(
    hooks: ModuleType, readme: str, page: str
) -> None:
    assert hooks.front_page(readme) == page


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("see [formats](../formats.md)", "see [formats](../formats.md)"),
        ("see [the licence](../../LICENSE)", "see the licence"),
        ("see [nothing](../../NO-SUCH-FILE)", "see [nothing](../../NO-SUCH-FILE)"),
        ("see [paper](https://example.org)", "see [paper](https://example.org)"),
    ],
)
def test_links_out_of_the_site_become_text(hooks: ModuleType, written: str, shown: str) -> None:
    class File:
        src_uri = "cards/smile.md"

    class Page:
        file = File()

    assert hooks.on_page_markdown(written, page=Page(), files=None, config=None) == shown
