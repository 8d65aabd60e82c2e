"""`fb run` and `fb plan` with a config that compares: many runs, one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusionbench_core.cli.output import emit_json, table
from fusionbench_core.cli.planned import COLUMNS, described, row

if TYPE_CHECKING:
    from fusionbench_core.cli.configured import Configured
    from fusionbench_core.errors import FusionError
    from fusionbench_core.report import Report
    from fusionbench_core.report.compare import Line
    from fusionbench_core.run.comparison import Run
    from fusionbench_core.run.console import Console


def compare(given: Configured, overrides: Sequence[str], as_json: bool, quiet: bool) -> None:
    """Run everything the `compare` section asks for, and show one table a benchmark.

    Overrides other than `compare.…` and `output_dir` go to every run.

    Raises:
        FusionError: if runs failed, after all others, of the kind of the first one that did.
    """
    from fusionbench_core.cli.progress import make_console
    from fusionbench_core.run.comparison import run_comparison

    directory = Path(given.values.get("output_dir") or f"runs/comparison-{datetime.now():%Y%m%d-%H%M%S}")
    console = make_console(quiet or as_json)
    failures = _Failures()
    try:
        runs = _runs(given, overrides, console)
        reports = run_comparison(runs, given.registry, directory, console, on_failure=failures.note)
    finally:
        console.close()
    if as_json:
        emit_json({name: _as_json(each, runs) for name, each in reports.items()})
    else:
        for benchmark, each in reports.items():
            click.echo(f"\n{benchmark}")
            _show(each)
            click.echo(f"\nreport   {directory / benchmark / 'comparison.html'}")
    failures.raise_them(
        "failed, the others are finished",
        fix=f"mend that, and start it again with -o {directory}: finished runs are not repeated",
    )


def plan_all(given: Configured, overrides: Sequence[str], as_json: bool) -> None:
    """Plan everything the `compare` section asks for, and show one table a benchmark.

    Raises:
        FusionError: if runs cannot work, after all others, of the kind of the first one that cannot.
        InsufficientResources: if the disk has no room for what all of them write.
    """
    from fusionbench_core.artefact.write import check_space
    from fusionbench_core.cli.progress import make_console
    from fusionbench_core.errors import FusionError
    from fusionbench_core.run.comparison import plan_comparison

    console = make_console(as_json)
    failures = _Failures()
    plans: dict[str, dict[str, Any]] = {}
    try:
        runs = _runs(given, overrides, console)
        for planned in plan_comparison(runs, given.registry, console, on_failure=failures.note):
            run = planned.run
            try:
                found = described(run.config, planned.prepared, planned.plan)
            except FusionError as error:
                failures.note(run, error)
            else:
                plans.setdefault(run.benchmark, {})[run.label] = found
    finally:
        console.close()
    if as_json:
        emit_json(plans)
    else:
        for benchmark, each in plans.items():
            click.echo(f"\n{benchmark}")
            table(["run", *COLUMNS], [[label, *row(found)] for label, found in each.items()])
    failures.raise_them("cannot work", fix="mend that, or leave it out: '~compare.methods.LABEL'")
    planned_runs = [plans[run.benchmark][run.label] for run in runs]
    written = sum(each["write_bytes"] for each in planned_runs if each["output"] == "weights")
    check_space(written, Path(given.values.get("output_dir") or "runs"))


def _runs(given: Configured, overrides: Sequence[str], console: Console) -> list[Run]:
    from fusionbench_core.run.comparison import comparison_runs

    passed = [word for word in overrides if not word.lstrip("+~").startswith(("compare", "output_dir"))]
    section = given.values["compare"]
    return comparison_runs(section, given.registry, console, overrides=passed, configs=given.directory)


class _Failures:
    """What failed while the others went on."""

    def __init__(self) -> None:
        self._errors: dict[str, FusionError] = {}

    def note(self, run: Run, error: FusionError) -> None:
        self._errors[str(run)] = error

    def raise_them(self, what: str, fix: str) -> None:
        """Raise all in one error, with the first one's exit status."""
        if not self._errors:
            return
        count = "one run" if len(self._errors) == 1 else f"{len(self._errors)} runs"
        why = "\n".join(f"{name}: {error}" for name, error in self._errors.items())
        raise type(next(iter(self._errors.values())))(f"{count} of the comparison {what}", why=why, fix=fix)


def _as_json(reports: Mapping[str, Sequence[Report]], runs: Sequence[Run]) -> dict[str, Any]:
    """Label -> report; a list of reports if the comparison names seeds."""
    seeded = any(run.seed is not None for run in runs)
    found = {label: [report.to_json() for report in each] for label, each in reports.items()}
    return found if seeded else {label: report for label, (report,) in found.items()}


def _show(reports: Mapping[str, Sequence[Report]]) -> None:
    """Methods by tasks, in percent; the base is the first row, the other models to compare with the last."""
    from fusionbench_core.report.compare import comparison

    found = comparison(reports)
    before = [line for line in found.lines if line.reference and line.name == "pretrained"]
    after = [line for line in found.lines if line.reference and line.name != "pretrained"]
    methods = [line for line in found.lines if not line.reference]
    rows = [
        [f"({line.name})" if line.reference else line.name, *_cells(line)]
        for line in (*before, *methods, *after)
    ]
    table(["method", *found.columns[:-1], "of individual"], rows)


def _cells(line: Line) -> list[str]:
    return ["" if value is None else line.text(column) for column, value in enumerate(line.cells)]
