"""What is shown at the end of a run."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

from fusionbench_core.cli.output import facts

if TYPE_CHECKING:
    from fusionbench_core.report import Report
    from fusionbench_core.run import RunDirectory


def show_report(report: Report, directory: RunDirectory) -> None:
    """The table, a picture, and where things are."""
    from fusionbench_core.report import summary_facts, summary_lines, terminal_chart

    lines = summary_lines(report)
    if lines:
        click.echo()
        _table(lines)
        click.echo()
        click.echo(terminal_chart(report, min(100, shutil.get_terminal_size().columns)))
    click.echo()
    page = directory.path / "report.html"
    facts([*summary_facts(report), ("report", page if page.exists() else directory.path)])


def _table(lines: list[tuple[str, ...]]) -> None:
    if not sys.stdout.isatty():
        from fusionbench_core.report import plain_table

        click.echo("\n".join(plain_table(lines)))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    header, *rows = lines
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, title in enumerate(header):
        grid.add_column(
            title, justify="left" if position == 0 else "right", style="bold" if title == "fused" else None
        )
    for number, row in enumerate(rows):
        grid.add_row(*row, end_section=number == len(rows) - 2)
    Console().print(grid)
