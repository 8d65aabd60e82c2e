"""`fb plugin new`: a complete plugin package to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fusionbench_core.cli.help import examples


@click.command(
    "new",
    epilog=examples(
        "fb plugin new my-method",
        "fb plugin new my-models --kind source",
        "fb plugin new my-task --kind task --directory ./plugins/my-task",
    ),
)
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["method", "source", "task"]),
    default="method",
    show_default=True,
    help="What the plugin provides.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Where the project goes; by default a new directory named like the distribution.",
)
def command(name: str, kind: Any, directory: Path | None) -> None:
    """Write a plugin package that can be installed, run and tested as it is.

    It has a small working method, model source or task, its tests, and a workflow that validates it on
    GitHub. NAME is lower-case, e.g. my-method; the distribution is then fb-my-method. Nothing is overwritten.
    """
    from fusionbench_core.scaffold import names_for, new_plugin

    names = names_for(name)
    target = directory or Path(names.distribution)
    written = new_plugin(names, kind, target)
    click.echo(f"{len(written)} files in {target}")
    for path in written:
        click.echo(f"  {path.relative_to(target)}")
    first = f"fb run method={names.namespace}" if kind == "method" else f"fb show {names.namespace}"
    click.echo("\nnext")
    for line in (f"cd {target}", 'pip install -e ".[test]"', "python -m pytest", first):
        click.echo(f"  {line}")
