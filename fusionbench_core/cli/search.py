"""`fb search`: find registered things by words."""

from __future__ import annotations

import click

from fusionbench_core.cli.help import examples
from fusionbench_core.cli.output import emit_json, json_option, table
from fusionbench_core.registry import default_registry


@click.command(
    "search",
    epilog=examples("fb search elect sign", "fb search Yadav", "fb search low rank --json"),
)
@click.argument("text", nargs=-1, required=True)
@json_option
def command(text: tuple[str, ...], as_json: bool) -> None:
    """Find methods, tasks, sources and others whose name, summary, tags or paper hold all the words."""
    from fusionbench_core.cli.describe import record_facts
    from fusionbench_core.records import Record

    words = " ".join(text)
    hits = [(kind, record) for kind, record in default_registry().search(words) if isinstance(record, Record)]
    if as_json:
        emit_json([record_facts(kind, record) for kind, record in hits])
    elif hits:
        table(("kind", "name", "summary"), [(kind, r.full_name, r.summary) for kind, r in hits])
    else:
        click.echo(f"nothing holds {words!r}; fewer words find more", err=True)
