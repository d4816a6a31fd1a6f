"""``help``: what ``--help`` says, for those who ask first."""

import click


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
def help(words: tuple[str, ...]) -> None:
    """Explain a COMMAND, as its --help does. Without one, list all commands.

    \b
    Example:
      latentedit help directions fit
    """
    context = click.get_current_context().find_root()
    for word in words:
        group = context.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"{context.command_path!r} has no command {word!r}.", context)
        _, command, _ = group.resolve_command(context, [word])
        if command is None:
            raise click.UsageError(f"No such command {word!r}.", context)
        context = click.Context(command, context, info_name=word)

    click.echo(context.get_help())
