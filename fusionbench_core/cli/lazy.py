"""A click group that imports a command only when it runs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click


class Lazy(NamedTuple):
    """Where a command lives, and its one line in the listing."""

    module: str
    help: str


class LazyGroup(click.Group):
    """A group some of whose commands are known by name alone.

    Args:
        lazy: Name -> module that holds a click command named `command`.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self.lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy:
            return importlib.import_module(self.lazy[cmd_name].module).command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name[0:1].isalnum() and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            from fusionbench_core.errors import UnknownName
            from fusionbench_core.suggest import did_you_mean

            above = ctx.command_path.partition(" ")[2]
            raise UnknownName(
                f"there is no command {f'{above} {name}'.strip()!r}",
                fix=did_you_mean(name, self.list_commands(ctx))
                or f"`{ctx.command_path} --help` lists the commands",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        known = [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl([*known, *((name, each.help) for name, each in self.lazy.items())])
