"""How commands print: tables for people, aligned lines for pipes, one JSON value for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON value on stdout, nothing else."
)
"""The `--json` that every listing has."""


def emit_json(value: Any) -> None:
    """Print a JSON value; what JSON lacks becomes its text."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
    """Print rows: with rich on a terminal, else one aligned line a row under a line of headings."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, cells, title)
        return
    lines = [list(columns), *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def facts(pairs: Sequence[tuple[str, Any]], *, indent: str = "") -> None:
    """Print `key   value` lines, empty values left out, longer values aligned under their first line."""
    present = [(key, str(value)) for key, value in pairs if value not in (None, "", (), [], {})]
    width = max((len(key) for key, _ in present), default=0) + 3
    for key, value in present:
        first, *rest = value.splitlines() or [""]
        click.echo(f"{indent}{key:<{width}}{first}".rstrip())
        for line in rest:
            click.echo(f"{indent}{'':<{width}}{line}".rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        grid.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in rows:
        # Text, not markup: a summary may hold square brackets.
        grid.add_row(*(Text(cell) for cell in row))
    Console().print(grid)


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    return getattr(value, "value", None) or str(value)
