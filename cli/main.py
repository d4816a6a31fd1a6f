"""The ``latentedit`` command: a group whose commands are imported when they are called."""

import importlib

import click

from latentedit.errors import Error

COMMANDS = {
    "demo": ("demo", "demo"),
    "align": ("photos", "align"),
    "invert": ("inversions", "invert"),
    "edit": ("edits", "edit"),
    "mix": ("latents", "mix"),
    "interpolate": ("latents", "interpolate"),
    "latent": ("latents", "latent"),
    "sample": ("models", "sample"),
    "model": ("models", "model"),
    "directions": ("directions", "directions"),
    "dataset": ("training", "dataset"),
    "train": ("training", "train"),
    "encoder": ("encoders", "encoder"),
    "metrics": ("metrics", "metrics"),
}
"""Command: the module here and the name in it."""


class Lazy(click.Group):
    """Imports a command's module when it is needed, and turns `Error` into one line and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"latentedit.cli.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Error as error:
            message = str(error)
        except OSError as error:
            named = f"{error.filename}: " if error.filename else ""
            message = f"{named}{error.strerror or error}"
        click.echo(f"latentedit: {message}", err=True)
        raise click.exceptions.Exit(1)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="latentedit", prog_name="latentedit")
def main() -> None:
    """Invert photos into a StyleGAN2 generator, move attribute sliders, find new ones, train your own.

    \b
    Example:
      latentedit invert me.jpg --out latents
      latentedit edit latents/me.safetensors --set smile=1.5 --out me-smiling.png
    """


if __name__ == "__main__":
    main(prog_name="latentedit")
