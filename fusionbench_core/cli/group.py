"""The top-level click group: built-in commands known by name, then those of plugins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from fusionbench_core.cli.lazy import LazyGroup

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from fusionbench_core.records import CommandRecord


OPTIONS = "fusionbench.options"
"""Where the options about plugins are kept in the context's `meta`."""

_FLAGS = ("--no-plugins", "--trace-hooks")


class Fb(LazyGroup):
    """The top-level group: lazy built-in commands, then those of plugins.

    Args:
        lazy: Built-in commands; a plugin cannot take their names.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, hoist(args))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(name for name, _ in self._of_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        built_in = super().get_command(ctx, cmd_name)
        if built_in is not None:
            return built_in
        from fusionbench_core.errors import PluginBroken, UnknownName
        from fusionbench_core.registry import default_registry

        registry = default_registry()
        try:
            record = registry.find("command", cmd_name.replace("-", "_"))
        except UnknownName:
            return None
        found = registry.resolve(record)
        if not isinstance(found, click.Command):
            raise PluginBroken(
                f"{record.full_name} is not a click command",
                plugin=record.origin.distribution if record.origin else None,
                target=record.target,
                fix="the plugin's author must let the target name a click.Command",
            )
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_commands(ctx, formatter)
        extra = self._of_plugins()
        if extra:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(extra)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        listing = [(name, command.help) for name, command in self.lazy.items()]
        found = [
            CompletionItem(name, help=text)
            for name, text in [*listing, *self._of_plugins()]
            if name.startswith(incomplete)
        ]
        # The group's own options; `click.Group` would import every command to list it.
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Any:
        standalone = kwargs.pop("standalone_mode", True)
        if not standalone:
            return super().main(args, *rest, standalone_mode=False, **kwargs)
        from fusionbench_core.cli.errors import guarded

        return guarded(lambda: super(Fb, self).main(args, *rest, standalone_mode=False, **kwargs))

    def _of_plugins(self) -> list[tuple[str, str]]:
        """Name and summary; a name that is taken shows, and works, with its namespace."""
        from fusionbench_core.plugins import discovery_cache

        context = click.get_current_context(silent=True)
        plain = context is None or not any(context.meta.get(OPTIONS, {}).values())
        if plain and (known := discovery_cache.read_commands()) is not None:
            return known
        from fusionbench_core.errors import FusionError
        from fusionbench_core.registry import default_registry

        try:
            registry = default_registry()
        except FusionError:
            # Help must work whatever is wrong with the plugins; the command that needs one will say it.
            return []
        found = list(self._named(registry.all("command")))
        if plain:
            discovery_cache.write_commands(found, registry.plugins)
        return found

    def _named(self, records: Sequence[CommandRecord]) -> Iterator[tuple[str, str]]:
        short = [record.name for record in records]
        for record in records:
            unique = short.count(record.name) == 1 and record.name not in self.lazy
            name = record.name if unique else record.full_name
            yield name.replace("_", "-"), record.summary


def hoist(args: Sequence[str]) -> list[str]:
    """Move the options about plugins to the front, since people write them after the command.

    >>> hoist(["run", "x=1", "--plugin", "./mine.py"])
    ['--plugin', './mine.py', 'run', 'x=1']
    """
    front: list[str] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in _FLAGS or word.startswith("--plugin="):
            front.append(word)
        elif word == "--plugin":
            front += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return [*front, *rest]
