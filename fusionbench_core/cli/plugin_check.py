"""`fb plugin check`: whether a plugin does what the platform and its users rely on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusionbench_core.cli import complete
from fusionbench_core.cli.help import examples
from fusionbench_core.files import write_atomically

if TYPE_CHECKING:
    from fusionbench_core.testing.report import CheckReport
    from fusionbench_core.testing.result import Result


@click.command(
    "check",
    epilog=examples(
        "fb plugin check fb-mymethod",
        "fb plugin check . --level full --format github",
        "fb plugin check ./my_method.py --only FM-203",
        "fb plugin check merging --subject slerp --level full",
    ),
)
@click.argument("what", metavar="DIST|PATH|FILE.py", shell_complete=complete.plugins)
@click.option("--level", type=click.Choice(["fast", "full"]), default="fast", show_default=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "junit", "github"]),
    default="table",
    show_default=True,
    help="How to print the results.",
)
@click.option("--only", multiple=True, metavar="ID", help="Run this check; may be given several times.")
@click.option(
    "--subject",
    "subjects",
    multiple=True,
    metavar="NAME",
    help="Check this record, or the plugin itself by its namespace; may be given several times.",
)
@click.option(
    "--expect",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file of expected failures: record -> check ID -> reason. Strict: passing fails.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the JSON report to this file as well.")
@click.option("--badge", type=click.Path(path_type=Path), help="Write an endpoint badge to this file.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=None,
    help="Processes at a time; default the processors, at most 4.",
)
@click.option("--strict", is_flag=True, help="Fail on warnings as well.")
@click.option("--verbose", "-v", is_flag=True, help="Show every check, not only what needs attention.")
def command(
    what: str,
    level: str,
    form: str,
    only: tuple[str, ...],
    subjects: tuple[str, ...],
    expect: Path | None,
    output: Path | None,
    badge: Path | None,
    jobs: int | None,
    strict: bool,
    verbose: bool,
) -> None:
    """Run the conformance checks on an installed plugin, a project's directory, or a plugin file.

    Every plugin is checked in a process of its own: without network, in a temporary home, with a time limit.
    The exit status is 0 if all required checks passed, 1 if not, and 2 if there is no such plugin, record or
    check.
    """
    from fusionbench_core.processors import available_cpus
    from fusionbench_core.testing.formats import FORMATS, as_badge, as_json
    from fusionbench_core.testing.supervise import check_plugin

    progress = _Progress(shown=form == "table", verbose=verbose)
    report = check_plugin(
        what,
        level=level,  # type: ignore[arg-type]
        only=only,
        subjects=subjects,
        expected_failures=_expected(expect),
        jobs=jobs or min(4, available_cpus()),
        on_result=progress.result,
    )
    progress.close()
    if form == "table":
        _table(report, verbose)
    else:
        click.echo(FORMATS[form](report))
    if output is not None:
        write_atomically(output, as_json(report) + "\n")
    if badge is not None:
        write_atomically(badge, as_badge(report) + "\n")
    warned = any(result.status in ("failed", "error") for result in report.results)
    sys.exit(0 if report.conformant and not (strict and warned) else 1)


def _expected(file: Path | None) -> dict[str, dict[str, str]]:
    import json

    from fusionbench_core.errors import ConfigError

    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        ok = all(reason.strip() for each in found.values() for reason in each.values())
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"{file} is no table of expected failures",
            why=str(error),
            fix='write {"NAME": {"FM-214": "the reason"}}',
        ) from error
    if not ok:
        raise ConfigError(f"{file} expects a failure without a reason", fix="say why each is expected")
    return found


class _Progress:
    """What is running, on a terminal; nothing otherwise."""

    def __init__(self, *, shown: bool, verbose: bool) -> None:
        self._live = shown and sys.stderr.isatty()
        self._count = 0

    def result(self, result: Result) -> None:
        self._count += 1
        if self._live:
            text = f"{self._count} checks, last {result.check} on {result.subject}"
            click.echo(f"\r\x1b[K{text[:78]}", nl=False, err=True)

    def close(self) -> None:
        if self._live:
            click.echo("\r\x1b[K", nl=False, err=True)


def _table(report: CheckReport, verbose: bool) -> None:
    from fusionbench_core.testing.formats import summary

    for subject in dict.fromkeys(result.subject for result in report.results):
        of_it = [result for result in report.results if result.subject == subject]
        bad = [result for result in of_it if result.status in ("failed", "error", "xpassed")]
        failing, passed = [r for r in bad if r.failing], sum(r.status == "passed" for r in of_it)
        mark = "FAIL" if failing else "warn" if bad else "ok"
        skipped = sum(result.status == "skipped" for result in of_it)
        counts = f"{passed} passed" + (f", {len(bad)} not" if bad else "")
        click.echo(f"{mark:<5} {subject:<40} {counts}" + (f", {skipped} not applicable" if skipped else ""))
        told: dict[str, str] = {}
        for result in of_it if verbose else bad:
            # One fault often fails many checks: it is told in full once.
            first = result.check if verbose else told.setdefault(result.message, result.check)
            _one(result, first)
        for result in of_it:
            if result.suggestion:
                click.echo(f"      {result.check} may be improved: {result.suggestion}")
    click.echo(f"\n{summary(report)}")


def _one(result: Result, first: str) -> None:
    """A result; only its title if the check `first` said the same."""
    word = {"failed": "FAILED" if result.required else "warning", "error": "ERROR"}.get(
        result.status, result.status
    )
    same = f" (as {first})" if first != result.check else ""
    click.echo(f"      {result.check} {word}: {result.title}{same}")
    if same:
        return
    facts = [
        ("what", result.message),
        ("measured", result.measured),
        ("bound", result.bound),
        ("reproduce", result.reproduce),
        ("fix", result.fix),
        ("more", result.page if result.fix else ""),
    ]
    for key, value in facts:
        if value:
            first, *rest = value.splitlines()
            click.echo(f"        {key:<11}{first}")
            for line in rest:
                click.echo(f"        {'':<11}{line}")
