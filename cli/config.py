"""``config``: defaults of options."""

import json
from typing import Any

import click

from latentedit.cli import defaults
from latentedit.cli.common import say, say_written
from latentedit.cli.groups import Forgiving
from latentedit.cli.tables import say_table

KEY = click.Choice(list(defaults.SETTINGS))


@click.group(cls=Forgiving)
def config() -> None:
    """Show and change the defaults of options.

    A default comes from the environment (LATENTEDIT_MODEL, LATENTEDIT_DEVICE and so on), from the
    file of defaults, or is built in, in this order. An option on the command line wins over all of
    them. "latentedit config show" lists every KEY.
    """


def _rows() -> list[dict[str, Any]]:
    """Return what counts for every setting, and where it comes from."""
    rows = []
    for key, setting in defaults.SETTINGS.items():
        found = defaults.user_default(key)
        value = setting.built_in if found is None else found.value
        origin = "built in" if found is None else found.place
        rows.append({"setting": key, "value": value, "from": origin, "meaning": setting.text})
    return rows


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(as_json: bool) -> None:
    """Show every default, where it comes from, and the networks that are found again by their
    fingerprint.

    \b
    Example:
      latentedit config show
    """
    from latentedit.model.remembered import networks

    rows = _rows()
    known = {fingerprint: str(path) for fingerprint, path in networks().items()}
    if as_json:
        settings = {row["setting"]: {name: row[name] for name in ("value", "from")} for row in rows}
        click.echo(
            json.dumps(
                {"file": str(defaults.config_file()), "settings": settings, "networks": known},
                indent=2,
            )
        )
        return
    say_table([list(row.values()) for row in rows], list(rows[0]))
    if known:
        click.echo("")
        say_table(
            [(fingerprint[:12], path) for fingerprint, path in known.items()],
            ("network", "last read from"),
        )


@config.command()
@click.argument("key", type=KEY, metavar="KEY")
def get(key: str) -> None:
    """Print the value of one default, as set or built in.

    \b
    Example:
      latentedit config get model
    """
    found = defaults.user_default(key)
    say(str(defaults.SETTINGS[key].built_in if found is None else found.value))


@config.command("set")
@click.argument("key", type=KEY, metavar="KEY")
@click.argument("value")
def set_(key: str, value: str) -> None:
    """Set a default in the file. Comments in it are kept.

    \b
    Example:
      latentedit config set model ffhq.pkl
      latentedit config set out ~/Pictures/latents
    """
    defaults.change(key, value)
    say_written(defaults.config_file())


@config.command()
@click.argument("key")
def unset(key: str) -> None:
    """Remove a default from the file.

    \b
    Example:
      latentedit config unset model
    """
    defaults.change(key, None)
    say_written(defaults.config_file())


@config.command()
def path() -> None:
    """Print where the file of defaults is, whether it exists or not.

    \b
    Example:
      latentedit config path
    """
    say(str(defaults.config_file()))
