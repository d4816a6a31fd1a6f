"""Writes docs/cli.md from the commands' own help; ``--check`` only compares.

python docs/make_cli.py [--check]
"""

import sys
from pathlib import Path

import click

from latentedit.cli.main import main

TARGET = Path(__file__).parent / "cli.md"


def pages(command: click.Command, path: tuple[str, ...], parent: click.Context | None) -> list[str]:
    context = click.Context(command, info_name=path[-1], parent=parent, **main.context_settings)
    text = [f"## `{' '.join(path)}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            text += pages(inner, (*path, name), context)
    return text


def text() -> str:
    head = "# Commands\n\nMade by `python docs/make_cli.py` from `--help`; do not edit.\n"
    return "\n".join([head, *pages(main, ("latentedit",), None)])


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(
            0
            if TARGET.read_text() == text()
            else f"{TARGET} is out of date: run python docs/make_cli.py"
        )
    TARGET.write_text(text())
