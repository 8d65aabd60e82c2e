"""The help of every command of `fb`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from _generate.text import WIDTH
from fusionbench_core.cli import main


def commands(command: click.Command = main, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """`fb` and all built-in commands below it: its words, and its help."""
    context = click.Context(
        command,
        info_name=command.name if parent else "fb",
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
    )
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield context.command_path, text
    if isinstance(command, click.Group):
        for name in (*command.commands, *getattr(command, "lazy", ())):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from commands(inner, context)


def cli() -> dict[str, str]:
    """All of them as sections."""
    return {"commands": "\n\n".join(f"## {words}\n\n```text\n{text}\n```" for words, text in commands())}
