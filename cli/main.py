"""The ``latentedit`` command: a group whose commands are imported when they are called."""

import copy
import functools
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from latentedit.cli import defaults, log
from latentedit.cli.completion import completed
from latentedit.cli.early import check_inputs
from latentedit.cli.groups import Forgiving
from latentedit.errors import Error, Interrupted, as_option, printable, spelling
from latentedit.io import outputs
from latentedit.runtime.loading import end_at_once, load_torch

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells give it to programs that SIGINT ended."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables that control how threads wait; if the user sets one of them, it is left alone."""

COMMANDS = {
    "demo": ("demo", "demo"),
    "align": ("align", "align"),
    "invert": ("invert", "invert"),
    "edit": ("edit", "edit"),
    "drag": ("drag", "drag"),
    "studio": ("studio", "studio"),
    "mix": ("latents", "mix"),
    "interpolate": ("interpolate", "interpolate"),
    "video": ("video", "video"),
    "latent": ("latents", "latent"),
    "sample": ("sample", "sample"),
    "model": ("models", "model"),
    "directions": ("directions", "directions"),
    "dataset": ("training", "dataset"),
    "train": ("training", "train"),
    "encoder": ("encoder", "encoder"),
    "metrics": ("metrics", "metrics"),
    "config": ("config", "config"),
    "help": ("help", "help"),
}
"""Command: its module in this package and its name there."""
OUTPUTS = {"out", "target", "sheet", "picture", "gif", "latents_out", "save_vectors"}
"""Parameters that name output files; files that other parameters name are inputs."""


def named_files(parameters: dict[str, Any]) -> Iterator[str]:
    """Yield the parameters of a command that may name input files."""
    for name, value in parameters.items():
        if name in OUTPUTS:
            continue
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and text:
                yield text
                # --set FILE=AMOUNT, --keep FILE,FILE
                yield from text.rpartition("=")[0].split(",") if "=" in text else text.split(",")


def with_guard(command: click.Command, path: tuple[str, ...]) -> click.Command:
    """Return ``command``, guarded so that it never writes to a file that it was given, nor loads
    torch for missing ones.

    Args:
        path: the words that call it; shells complete its parameters by them.
    """
    # A copy, as the command itself is also used by programs and tests that have no guard.
    found = copy.copy(command)
    found.params = completed(command, path)
    if isinstance(found, click.Group):
        found.commands = {
            name: with_guard(inner, (*path, name)) for name, inner in found.commands.items()
        }
    elif command.callback is not None:
        own = command.callback

        @functools.wraps(own)
        def call(*arguments: Any, **options: Any) -> Any:
            with outputs.guarded():
                for text in named_files(options):
                    outputs.given(text)
                check_inputs(found, options)
                if "device" in options:  # it computes
                    load_torch()
                return own(*arguments, **options)

        found.callback = call

    return found


class Lazy(Forgiving):
    """Imports a command's module when it is needed, and turns `Error` into one line and exit status
    1 (130 after Ctrl-C)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"latentedit.cli.{module}"), name)
        return with_guard(command, (cmd_name,))

    def invoke(self, ctx: click.Context) -> object:
        status = 1
        try:
            with spelling(as_option):
                return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort, Interrupted) as error:
            message = str(error) or "interrupted; files that were already written are kept"
            status = INTERRUPTED
        except Error as error:
            with spelling(as_option):
                message = str(error)
            logging.getLogger(__name__).debug("where the error came from", exc_info=error)
        except BrokenPipeError:
            raise  # whoever read the output has enough; click ends quietly
        except OSError as error:
            named = f"{error.filename}: " if error.filename else ""
            # A disk or a permission, and no fault of the program: one line, as for other errors.
            message = f"{named}{error.strerror or error}"
            logging.getLogger(__name__).debug("where the error came from", exc_info=error)

        click.echo(f"latentedit: {printable(message)}", err=True)
        raise click.exceptions.Exit(status)


@click.group(
    cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(None, "-V", "--version", package_name="latentedit", prog_name="latentedit")
@click.option(
    "-v", "--verbose", is_flag=True, help="Log every step to stderr, and the traceback of errors."
)
@click.option(
    "-q",
    "--quiet",
    is_flag=True,
    help="Print results, warnings and errors only: no remarks, no progress bars.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, defaults.MOST_THREADS),
    help="Processor threads to compute with.  [default: chosen by torch]",
)
@click.pass_context
def main(context: click.Context, verbose: bool, quiet: bool, threads: int | None) -> None:
    """Invert photos into a StyleGAN2 generator, edit them with attribute sliders, create sliders,
    and train generators.

    The options below come before the command: "latentedit --quiet invert me.jpg --out latents".

    \b
    Example:
      latentedit invert me.jpg --out latents
      latentedit edit latents/me.safetensors --set smile=1.5 --out me-smiling.png
    """
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet exclude each other")
    context.call_on_close(log.start(verbose=verbose, quiet=quiet))
    wait_passively()
    if context.invoked_subcommand != "config":  # which can repair a file that is wrong
        context.with_resource(defaults.in_environment())
        context.with_resource(defaults.with_threads(threads or defaults.value_of("threads")))


def wait_passively() -> None:
    """Let torch's threads sleep while they wait for one another, unless the user has configured
    this.

    By default they spin. On a busy machine, a spinning thread takes the time that the thread it
    waits for needs, and everything takes 4 to 13 times as long. The setting only works before torch
    is loaded, which commands do when work starts.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def run(name: str | None = None) -> None:
    """Run the command as the work of this process, and end it.

    Args:
        name: what usage lines call it; None for the name of the script.
    """
    try:
        main(prog_name=name)
    except SystemExit as ended:
        if isinstance(ended.code, int) and "torch" in sys.modules:
            end_at_once(ended.code)
        raise


if __name__ == "__main__":
    run("latentedit")
