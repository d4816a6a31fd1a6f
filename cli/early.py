"""What can be said of a command's inputs before torch is loaded, which takes seconds."""

import os
from typing import Any

import click

from latentedit.cli.common import blamed
from latentedit.errors import NotFoundError
from latentedit.formats.find_model import find_model

FILES = {"PHOTO", "LATENT", "OTHER", "FILE", "CSV"}
"""What the usage calls arguments that are files and nothing else."""
MODELS = ("--model", "MODEL", "IN")
"""Parameters that name models."""


def check_inputs(command: click.Command, values: dict[str, Any]) -> None:
    """Raise `Error` if an input that ``command`` cannot do without is missing.

    Of several inputs, those that are there are worked on, so nothing is said of the others yet.
    """
    for parameter in command.params:
        value = values.get(str(parameter.name))
        called = parameter.human_readable_name
        if isinstance(value, str) and not {called, *parameter.opts}.isdisjoint(MODELS):
            with blamed("model", str(parameter.name), value):
                find_model(value, verified=False)
        elif isinstance(parameter, click.Argument) and set(called.strip("[].").split("|")) <= FILES:
            texts = value if isinstance(value, tuple) else (value,)
            if len(texts) == 1 and isinstance(texts[0], str) and not os.path.exists(texts[0]):
                raise NotFoundError("no such file", path=texts[0])
