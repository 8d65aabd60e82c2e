"""`fb analyse`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


@click.command(
    "analyse", epilog="\b\nExamples:\n  fb analyse embedded_text\n  fb analyse pool.yaml --output analysis"
)
@click.argument("pool")
@click.option("--output", "-o", metavar="DIR", help="Write report.html, report.md and report.json there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value on stdout, nothing else.")
def analyse(pool: str, output: str | None, as_json: bool) -> None:
    """Compare the task vectors of POOL, a preset or a YAML file of a model pool with a base.

    Says how long they are, how alike (cosine, model kinship), where their signs conflict, and how large
    their entries are. The models are streamed, whatever their size.
    """
    import json

    from fb_merging.analysis.pictures import as_report
    from fb_merging.analysis.task_vectors import TaskVectorSums, describe
    from fusionbench_core import MissingCapability, open_pool, run_survey, show_progress, write_reports

    opened = open_pool(pool)
    with show_progress("survey", pool, quiet=as_json) as progress:
        sums = run_survey(TaskVectorSums(), opened, on_progress=progress)
    if sums is None:
        raise MissingCapability("no tensor is in the scope of this pool", fix="widen `scope` in the pool")
    found = describe(sums)
    written = write_reports(as_report(f"Analysis of {pool}", found), output) if output else {}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for line in lines_of(found):
        click.echo(line)
    for path in written.values():
        click.echo(str(path))


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """The analysis as text: a table of cosines, then means over all pairs."""
    models = found["models"]
    cells = [["cosine", *models, "norm"]]
    for model, row in zip(models, found["cosine"]):
        cells.append([model, *map(_decimals, row), _text(found["norm"][model])])
    kinship, conflict = found["kinship"], found["sign_conflict"]
    return [
        *_aligned(cells),
        "",
        f"kinship         cosine {_text(kinship['cosine'])}, correlation {_text(kinship['correlation'])}, "
        f"distance {_text(kinship['distance'])} (means over all pairs)",
        f"sign conflict   {_text(conflict['all'])} of the entries that two models or more change",
        f"entries         {found['entries']:,}",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    ]


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-0.000", "0.000")


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
