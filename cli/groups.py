"""Groups of commands that say which command was probably meant."""

from collections.abc import Iterator

import click

from latentedit.errors import closest


def commands_in(group: click.Group, context: click.Context) -> Iterator[tuple[str, ...]]:
    """Yield the names of all commands in ``group``, those in groups within it as several words."""
    for name in group.list_commands(context):
        yield (name,)
        inner = group.get_command(context, name)
        if isinstance(inner, click.Group):
            for words in commands_in(inner, context):
                yield (name, *words)


class Forgiving(click.Group):
    """A group that answers a wrong command with the one that was probably meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word.startswith("-") or self.get_command(ctx, word) is not None:
            return super().resolve_command(ctx, args)
        if ctx.resilient_parsing:
            return None, None, args[1:]

        advice = meant_command(ctx, word)
        raise click.UsageError(f"No such command {word!r}.{f' {advice}' if advice else ''}", ctx)


def meant_command(context: click.Context, word: str) -> str:
    """Return a question that names the command ``word`` was probably meant to be, or "".

    A command of another group counts too, because few people know which group one is in.
    """
    group = context.command
    assert isinstance(group, click.Group)
    near = closest(word, group.list_commands(context))
    if near is not None:
        return f"Did you mean {near!r}?"

    root = context.find_root()
    assert isinstance(root.command, click.Group)
    everywhere = {words[-1]: " ".join(words) for words in commands_in(root.command, root)}
    near = closest(word, everywhere)
    return f"Did you mean '{root.info_name} {everywhere[near]}'?" if near is not None else ""
