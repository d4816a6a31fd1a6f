"""Completion for shells: models, sliders, networks to download, layers, files. Nothing here loads
torch."""

import copy
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

Complete = Callable[[str], Iterable[str]]

LAYERS = ("coarse", "middle", "fine")


def models(_: str) -> list[str]:
    """Bundled models, and published networks that are on this machine."""
    from latentedit.formats.zoo import catalogue
    from latentedit.model.bundled import bundled_names

    return [
        *bundled_names(),
        *(name for name, entry in catalogue().items() if entry.path.is_file()),
    ]


def downloads(_: str) -> list[str]:
    """Return everything that ``model fetch`` knows."""
    from latentedit.formats.zoo import catalogue
    from latentedit.io.weights import WEIGHTS

    return [*catalogue(), *WEIGHTS]


def sliders(_: str) -> list[str]:
    """Return the user's own directions and the bundled ones."""
    from latentedit.directions.registry import own_directions, shipped

    return sorted({*own_directions(), *shipped()})


def several_sliders(typed: str) -> list[str]:
    """``turn,smi``: the last name of several."""
    start, comma, _ = typed.rpartition(",")
    taken = start.split(",")
    return [f"{start}{comma}{name}" for name in sliders(typed) if name not in taken]


def moves(typed: str) -> list[str]:
    """``smile=``, and after an amount the layers: ``smile=1@coarse``."""
    before, at, _ = typed.partition("@")
    if at:
        return [f"{before}@{name}" for name in LAYERS]
    return [f"{name}=" for name in sliders(typed)]


def layers(_: str) -> list[str]:
    return list(LAYERS)


WORDS: dict[str, Complete] = {
    "--model": models,
    "--set": moves,
    "--sweep": moves,
    "--hold": several_sliders,
    "--keep": several_sliders,
    "--layers": layers,
    "MODEL": models,
    "IN": models,
    "NAME|FILE": sliders,
    "NAME|FILE...": sliders,
}
"""What is completed beside files, by the name of the option or what the usage calls the
argument."""
DOWNLOADS = ("model", "fetch")
"""The command whose NAME is a download."""


class Named(click.types.StringParamType):
    """A text that the shell completes with names, with files, or both."""

    def __init__(self, complete: Complete | None, files: bool) -> None:
        self.complete = complete
        self.files = files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        names = self.complete(incomplete) if self.complete else ()
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return [*found, CompletionItem(incomplete, type="file")] if self.files else found


def completed(command: click.Command, path: tuple[str, ...]) -> list[click.Parameter]:
    """Return the parameters of ``command``, whose texts are completed with the names and files that
    they can be.

    Args:
        path: the words that call the command, without ``latentedit``.
    """
    return [_completed(parameter, path) for parameter in command.params]


def _completed(parameter: click.Parameter, path: tuple[str, ...]) -> click.Parameter:
    if type(parameter.type) is not click.types.StringParamType:
        return parameter

    named = [*parameter.opts, str(getattr(parameter, "metavar", None))]
    complete = next((WORDS[name] for name in named if name in WORDS), None)
    if path == DOWNLOADS and isinstance(parameter, click.Argument):
        complete = downloads
    is_file = complete in (None, models, sliders)
    found = copy.copy(parameter)
    found.type = Named(complete, is_file)
    return found
