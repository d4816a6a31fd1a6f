"""Hooks of mkdocs: README.md is the front page, and links to files that the site lacks become plain
text."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
"""An exclamation mark for pictures, the text, the target."""


def on_files(files: Files, config: Any) -> Files:
    """Add README.md as the front page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=front_page(text)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Keep of a link only the text where its target is a file of the repository outside docs/."""
    folder = posixpath.dirname(page.file.src_uri)
    return LINK.sub(lambda link: _inside(link, folder), markdown)


def front_page(readme: str) -> str:
    """README.md with its links as seen from within docs/."""

    def moved(link: re.Match[str]) -> str:
        mark, text, target = link.groups()
        if _is_elsewhere(target):
            return link[0]
        inner = target.removeprefix("docs/")
        return f"{mark}[{text}]({inner if inner != target else '../' + target})"

    return LINK.sub(moved, readme)


def _inside(link: re.Match[str], folder: str) -> str:
    _, text, target = link.groups()
    if _is_elsewhere(target):
        return link[0]
    path = posixpath.normpath(posixpath.join(folder, target.partition("#")[0]))
    leaves = path.startswith("..")
    if leaves and not (ROOT / "docs" / path).exists():
        return link[0]  # mkdocs reports it
    return text if leaves else link[0]


def _is_elsewhere(target: str) -> bool:
    """Whether a link leads to another site or to a place on its own page."""
    return target.startswith("#") or re.match(r"[a-z]+:", target) is not None
