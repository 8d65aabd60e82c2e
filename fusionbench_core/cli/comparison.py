"""`fb run` with a config that compares: many runs, one table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusionbench_core.cli.output import emit_json, table

if TYPE_CHECKING:
    from fusionbench_core.errors import FusionError
    from fusionbench_core.registry import Registry
    from fusionbench_core.report import Report


def compare(
    values: Mapping[str, Any], registry: Registry, overrides: tuple[str, ...], as_json: bool, quiet: bool
) -> None:
    """Run everything the `compare` section asks for, and show one table a benchmark.

    Overrides other than `compare.…` and `output_dir` go to every run.

    Raises:
        FusionError: if runs failed, after all others, of the kind of the first one that did.
    """
    from fusionbench_core.cli.progress import make_console
    from fusionbench_core.run.comparison import run_comparison

    directory = Path(values.get("output_dir") or f"runs/comparison-{datetime.now():%Y%m%d-%H%M%S}")
    passed = tuple(word for word in overrides if not word.lstrip("+~").startswith(("compare", "output_dir")))
    console = make_console(quiet or as_json)
    failed: dict[str, FusionError] = {}

    def note(benchmark: str, label: str, error: FusionError) -> None:
        failed[f"{benchmark}: {label}"] = error

    try:
        reports = run_comparison(
            values["compare"], registry, directory, console, overrides=passed, on_failure=note
        )
    finally:
        console.close()
    if as_json:
        emit_json({name: {label: r.to_json() for label, r in each.items()} for name, each in reports.items()})
    else:
        for benchmark, each in reports.items():
            click.echo(f"\n{benchmark}")
            _show(each)
            click.echo(f"\nreport   {directory / benchmark / 'comparison.html'}")
    if failed:
        raise _failure(failed, directory)


def _failure(failed: Mapping[str, FusionError], directory: Path) -> FusionError:
    """All that failed in one error, with the first one's exit status."""
    count = "one run" if len(failed) == 1 else f"{len(failed)} runs"
    return type(next(iter(failed.values())))(
        f"{count} of the comparison failed, the others are finished",
        why="\n".join(f"{name}: {error}" for name, error in failed.items()),
        fix=f"mend that, and start it again with -o {directory}: finished runs are not repeated",
    )


def _show(reports: Mapping[str, Report]) -> None:
    """Methods by tasks, in percent; the base is the first row, the other models to compare with the last."""
    from fusionbench_core.report.compare import comparison

    found = comparison(reports)
    before = [line for line in found.lines if line.reference and line.name == "pretrained"]
    after = [line for line in found.lines if line.reference and line.name != "pretrained"]
    methods = [line for line in found.lines if not line.reference]
    rows = [
        [f"({line.name})" if line.reference else line.name, *map(_percent, line.cells)]
        for line in (*before, *methods, *after)
    ]
    table(["method", *found.columns[:-1], "of individual"], rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
