"""How a run shows that it goes on: a bar on a terminal, a line a tenth elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from fusionbench_core.run.console import Console


class PlainConsole(Console):
    """One line a stage, and one every tenth of it; lines that people and logs can read."""

    def __init__(self) -> None:
        self._stage = ""
        self._shown = (None, -1)

    def stage(self, name: str, text: str = "") -> None:
        self._stage, self._shown = name, (None, -1)
        click.echo(f"{name:<10} {text}".rstrip(), err=True)

    def progress(self, done: int, total: int, text: str = "") -> None:
        tenth = 10 * done // total if total else 10
        about = text if self._stage == "evaluate" or text == "survey" else None
        if self._shown[0] == about and tenth <= self._shown[1]:
            return
        self._shown = (about, tenth)
        if tenth in (0, 2, 5, 8, 10) and done:
            click.echo(f"{'':<10} {done}/{total} {text}".rstrip(), err=True)

    def line(self, text: str) -> None:
        click.echo(f"{'':<10} {text}", err=True)


class RichConsole(Console):
    """A live bar for the stage that runs, a line for each that is done."""

    def __init__(self) -> None:
        from rich.console import Console as Terminal
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        self._terminal = Terminal(stderr=True)
        self._columns = (
            SpinnerColumn(),
            TextColumn("{task.fields[stage]:<10}"),
            BarColumn(bar_width=32),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._make = Progress
        self._live: Any = None
        self._bar: Any = None
        self._name = ""
        self._started = time.monotonic()

    def stage(self, name: str, text: str = "") -> None:
        self.close()
        self._name = name
        self._terminal.print(f"[bold]{name:<10}[/bold] ", end="")
        self._terminal.print(text, markup=False, highlight=False)

    def progress(self, done: int, total: int, text: str = "") -> None:
        if self._live is None:
            self._live = self._make(*self._columns, console=self._terminal, transient=True)
            self._bar = self._live.add_task("", total=total, stage=self._name)
            self._live.start()
        self._live.update(self._bar, completed=done, total=total, description=text[-40:])

    def line(self, text: str) -> None:
        self._terminal.print(f"{'':<10} {text}", markup=False, highlight=False)

    def close(self) -> None:
        """Take the bar down."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def make_console(quiet: bool = False) -> Console:
    """A console that fits where stderr goes."""
    if quiet:
        return Console()
    return RichConsole() if sys.stderr.isatty() else PlainConsole()


@contextmanager
def show_progress(stage: str, text: str = "", *, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """Show on stderr how far a command is: a bar on a terminal, a few lines elsewhere.

        with show_progress("survey", pool_name, quiet=as_json) as progress:
            run_survey(survey, pool, on_progress=progress)

    It gives a function of `(done, total)`, and of a word about the current item if there is one, which is
    called from the thread that called this.

    Args:
        stage: What happens, in one word.
        text: What it happens to.
        quiet: Show nothing.
    """
    console = make_console(quiet)
    console.stage(stage, text)
    try:
        yield console.progress
    finally:
        console.close()
