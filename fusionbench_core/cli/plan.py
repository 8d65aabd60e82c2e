"""`fb plan`: what a run would do and cost, from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fusionbench_core.cli.comparison import plan_all
from fusionbench_core.cli.configured import compose_values, config_options, validate_run
from fusionbench_core.cli.help import examples
from fusionbench_core.cli.output import emit_json, json_option
from fusionbench_core.cli.planned import described, show

if TYPE_CHECKING:
    from fusionbench_core.registry import Registry


@click.command(
    "plan",
    epilog=examples(
        "fb plan",
        "fb plan method=ties_merging --json",
        "fb plan --config-path ./configs --config-name mine",
    ),
)
@config_options
@json_option
def command(
    overrides: tuple[str, ...],
    config_path: str | None,
    config_name: str | None,
    mergekit: str | None,
    as_json: bool,
) -> None:
    """Check a run and say what it would do and cost; no weight is read, nothing is written.

    The time is a range, from trying the method on small models, and the disk, once a day.

    Of a comparison every run is planned, and shown in a table.

    Exit status 4 says that it cannot work on these models or on this machine, and why.
    """
    show_plan(overrides, config_path, config_name, as_json, mergekit)


def show_plan(
    overrides: Sequence[str],
    config_path: str | None,
    config_name: str | None,
    as_json: bool,
    mergekit: str | None = None,
) -> None:
    """Compose, prepare and plan; print the plan, of a comparison or a config of several stages one each.

    Raises:
        FusionError: if the run cannot work.
    """
    from fusionbench_core.engine.plan import make_plan
    from fusionbench_core.run import prepare

    given = compose_values(overrides, config_path, config_name, mergekit)
    if "compare" in given.values:
        plan_all(given, overrides, as_json)
        return
    if "stages" in given.values:
        _show_stages(given.values, given.registry, as_json)
        return
    config = validate_run(given.values, given.file)
    prepared = prepare(config, given.registry, given.file)
    plan = make_plan(prepared.method, prepared.pool, prepared.options, seed=config.seed)
    if as_json:
        emit_json(described(config, prepared, plan))
    else:
        show(config, prepared, plan)


def _show_stages(values: dict[str, Any], registry: Registry, as_json: bool) -> None:
    from fusionbench_core.run.stages import plan_stages

    stages: dict[str, Any] = {}
    for stage in plan_stages(values, registry):
        if as_json:
            found = described(stage.config, stage.prepared, stage.plan)
            # It names the directory of an outline, which is another one each time.
            found.pop("key")
            if stage.name is None:
                emit_json({"stages": stages, **found})
            else:
                stages[stage.name] = found
            continue
        click.echo(f"stage {stage.name}" if stage.name else "the result")
        show(stage.config, stage.prepared, stage.plan, indent="  ")
