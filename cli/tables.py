"""Tables of plain text, as wide as the terminal; in files and pipes every row is one line."""

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click

from latentedit.errors import printable

GAP = "  "
NARROWEST = 24
"""Letters that the last column has at least, however narrow the terminal."""


def said(value: Any) -> str:
    """Return a value as a person writes it: "-" for nothing, "yes" and "no", numbers with five
    digits at most."""
    if value is None or (isinstance(value, str | list | tuple | dict) and not value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        parts = [
            f"({said(part)})" if isinstance(part, list | tuple) else said(part) for part in value
        ]
        return ", ".join(parts)
    if isinstance(value, dict):
        return ", ".join(f"{name} {said(part)}" for name, part in value.items())
    return printable(str(value))


def table(rows: Sequence[Sequence[Any]], head: Sequence[str] = (), *, indent: str = "") -> str:
    """Return ``rows`` as aligned columns, without a line break at the end.

    Args:
        head: titles of the columns; without them there is no first line.
        indent: begins every line.
    """
    texts = [[said(cell) for cell in row] for row in rows]
    lines = [[title.upper() for title in head], *texts] if head else texts
    if not lines:
        return ""

    columns = max(map(len, lines))
    widths = [
        max((len(line[i]) for line in lines if i < len(line)), default=0) for i in range(columns)
    ]
    before = len(indent) + sum(widths[:-1]) + len(GAP) * (columns - 1)
    room = max(_width() - before, NARROWEST) if sys.stdout.isatty() else None

    found = []
    for line in lines:
        cells = [*line, *[""] * (columns - len(line))]
        first = indent + "".join(
            f"{cell:{width}}{GAP}" for cell, width in zip(cells[:-1], widths[:-1], strict=True)
        )
        parts = textwrap.wrap(cells[-1], room) if room is not None else [cells[-1]]
        for number, part in enumerate(parts or [""]):
            found.append(((first if number == 0 else " " * before) + part).rstrip())
    return "\n".join(found)


def say_table(rows: Sequence[Sequence[Any]], head: Sequence[str] = (), *, indent: str = "") -> None:
    """Print `table`; nothing where there are no rows."""
    text = table(rows, head, indent=indent)
    if text:
        click.echo(text)


def describe(facts: Mapping[str, Any], indent: str = "") -> list[str]:
    """Return ``facts`` as lines: names and values side by side, what has parts of its own below its
    name, and lists of alike things as tables."""
    lines: list[str] = []
    plain: list[tuple[str, Any]] = []

    def flush() -> None:
        if plain:
            lines.extend(table(plain, indent=indent).splitlines())
            plain.clear()

    for name, value in facts.items():
        title = printable(str(name))
        if isinstance(value, dict) and value:
            flush()
            lines.append(f"{indent}{title}")
            lines.extend(describe(value, f"{indent}{GAP}"))
        elif _is_table(value):
            flush()
            lines.append(f"{indent}{title}")
            head = list(dict.fromkeys(key for row in value for key in row))
            rows = [[row.get(key) for key in head] for row in value]
            lines.extend(table(rows, head, indent=f"{indent}{GAP}").splitlines())
        else:
            plain.append((title, value))
    flush()
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _width() -> int:
    return shutil.get_terminal_size().columns
