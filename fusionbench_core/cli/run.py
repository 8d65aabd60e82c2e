"""`fb run`: fuse, evaluate, report."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusionbench_core.cli.comparison import compare
from fusionbench_core.cli.configured import compose_values, config_options, validate_run
from fusionbench_core.cli.finished import show_report
from fusionbench_core.cli.help import examples
from fusionbench_core.cli.output import emit_json, json_option
from fusionbench_core.cli.stages import run_in_stages

if TYPE_CHECKING:
    from fusionbench_core.registry import Registry
    from fusionbench_core.run import Prepared


@click.command(
    "run",
    epilog=examples(
        "fb run",
        "fb run method=ties_merging method.density=0.2",
        "fb run --config-name embedded_vision method=simple_average",
        "fb run --config-name baselines -o runs/baselines",
        "fb run --config-path ./configs --config-name mine output_dir=runs/mine",
        "fb run --mergekit config.yml -o out",
        "fb run --resume runs/mine",
        "fb run --resume runs/mine --finish",
    ),
)
@config_options
@click.option("--output", "-o", metavar="DIR", help="Run directory; the same as output_dir=DIR.")
@click.option("--resume", metavar="DIR", help="Go on with a run that was interrupted or failed.")
@click.option("--finish", is_flag=True, help="With --resume: learn no further, fuse what is learned so far.")
@click.option("--dry-run", is_flag=True, help="Check and plan only; the same as `fb plan`.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
def command(
    overrides: tuple[str, ...],
    config_path: str | None,
    config_name: str | None,
    mergekit: str | None,
    output: str | None,
    resume: str | None,
    finish: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> int | None:
    """Fuse a pool of models, evaluate the result on a pool of tasks, and write a report.

    KEY=VALUE overrides choose presets (method=…, modelpool=…, taskpool=…) and set values in them
    (method.scaling_factor=0.5, taskpool.limit=100, seed=1). Without a config, a bare `fb run` runs the
    embedded benchmark of an installed plugin.

    Exit status: 0 done, 2 wrong request, 3 broken plugin, 4 cannot work, 5 unreadable input, 6 fusing
    failed, 7 evaluation failed, 8 output cannot be written, 130 interrupted.
    """
    if dry_run:
        from fusionbench_core.cli.plan import show_plan

        return show_plan(overrides, config_path, config_name, as_json, mergekit)
    from fusionbench_core.registry import default_registry
    from fusionbench_core.run import RunDirectory, Runner, prepare
    from fusionbench_core.run.processes import is_further

    if finish and not resume:
        raise click.UsageError("--finish goes with --resume: it ends what an interrupted run was learning")
    if resume:
        if overrides or config_path or config_name or mergekit or output:
            raise click.UsageError("--resume takes everything from the run directory; give nothing else")
        directory = RunDirectory.resume(Path(resume))
        registry, file = default_registry(), directory.config_file
        values = directory.read_config()
        if "stages" in values:
            if finish:
                raise click.UsageError("--finish is for a run of one method, and this one has stages")
            return run_in_stages(values, registry, directory.path, as_json, quiet)
        config = validate_run(values, file)
        prepared = replace(prepare(config, registry, file), finish=finish)
        if is_further(config.fabric):
            return None if directory.fused else _take_part(prepared, registry)
    else:
        words = [*overrides, f"output_dir={_quoted(output)}"] if output else overrides
        given = compose_values(words, config_path, config_name, mergekit)
        values, registry, file = given.values, given.registry, given.file
        if "compare" in values:
            return compare(given, overrides, as_json, quiet)
        if "stages" in values:
            return run_in_stages(values, registry, None, as_json, quiet)
        config = validate_run(values, file)
        prepared = prepare(config, registry, file)
        if is_further(config.fabric):
            return _take_part(prepared, registry)
        directory = RunDirectory.create(config, config.name or prepared.record.name)
    from fusionbench_core.cli.progress import make_console

    console = make_console(quiet or as_json)
    command_line = ["fb", *sys.argv[1:]]
    try:
        report = Runner(prepared, directory, registry, console, command_line).execute()
    finally:
        console.close()
    if as_json:
        emit_json(report.to_json())
    else:
        show_report(report, directory)
    return None


def _take_part(prepared: Prepared, registry: Registry) -> None:
    """Learn together with the first process, which alone writes, prints and knows how it ended."""
    from fusionbench_core.errors import FusionError
    from fusionbench_core.run.processes import take_part

    # Not an exit status of its own: Fabric would kill the first process before it has said what happened.
    with suppress(FusionError, KeyboardInterrupt):
        take_part(prepared, registry)


def _quoted(value: Any) -> str:
    """A value as Hydra's override grammar reads it back."""
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
