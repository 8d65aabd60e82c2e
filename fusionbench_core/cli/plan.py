"""`fb plan`: what a run would do and cost, from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusionbench_core.cli.configured import compose_values, config_options, validate_run
from fusionbench_core.cli.help import examples
from fusionbench_core.cli.output import emit_json, facts, json_option

if TYPE_CHECKING:
    from fusionbench_core.config.schema import RunConfig
    from fusionbench_core.engine.plan import Plan
    from fusionbench_core.registry import Registry
    from fusionbench_core.run.prepare import Prepared


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
    """Compose, prepare and plan; print the plan, of a config of several stages one each.

    Raises:
        FusionError: if the run cannot work.
    """
    from fusionbench_core.engine.plan import make_plan
    from fusionbench_core.run import prepare

    values, registry, file = compose_values(overrides, config_path, config_name, mergekit)
    if "stages" in values:
        _show_stages(values, registry, as_json)
        return
    config = validate_run(values, file)
    prepared = prepare(config, registry, file)
    plan = make_plan(prepared.method, prepared.pool, prepared.options, seed=config.seed)
    if as_json:
        emit_json(_described(config, prepared, plan))
    else:
        _show(config, prepared, plan)


def _show_stages(values: dict[str, Any], registry: Registry, as_json: bool) -> None:
    from fusionbench_core.run.stages import plan_stages

    stages: dict[str, Any] = {}
    for stage in plan_stages(values, registry):
        if as_json:
            described = _described(stage.config, stage.prepared, stage.plan)
            # It names the directory of an outline, which is another one each time.
            described.pop("key")
            if stage.name is None:
                emit_json({"stages": stages, **described})
            else:
                stages[stage.name] = described
            continue
        click.echo(f"stage {stage.name}" if stage.name else "the result")
        _show(stage.config, stage.prepared, stage.plan, indent="  ")


def _described(config: RunConfig, prepared: Prepared, plan: Plan) -> dict[str, Any]:
    from fusionbench_core.artefact.describe import describe_method
    from fusionbench_core.engine.calibration import estimate

    _check_disk(config, prepared, plan)
    took = estimate(prepared.method, plan, prepared.pool, prepared.options, _output(config))
    return {
        "method": describe_method(prepared.method, prepared.record),
        "tasks": list(prepared.tasks.tasks) if prepared.tasks else [],
        "output": prepared.method.capabilities.output,
        **plan.summary(),
        "seconds": None if took is None else {"low": took.low, "high": took.high},
    }


def _show(config: RunConfig, prepared: Prepared, plan: Plan, indent: str = "") -> None:
    from fusionbench_core.engine.calibration import Duration

    described = _described(config, prepared, plan)
    method, seconds = described["method"], described["seconds"]
    parameters = ", ".join(f"{key} {value}" for key, value in method["parameters"].items())
    base = "base + " if prepared.pool.base else ""
    written = {"weights": _size(plan.write_bytes), "adapter": "an adapter"}
    took = f"{Duration(**seconds)} to merge, once started" if seconds else "not known: it depends on the data"
    facts(
        [
            ("method", f"{method['name']}  ({parameters})" if parameters else method["name"]),
            ("models", f"{base}{len(plan.models)}: {', '.join(plan.models)}"),
            ("tensors", _tensors(described)),
            ("reads", _size(plan.read_bytes)),
            ("writes", written.get(described["output"], "a new module")),
            (
                "memory",
                f"about {_size(plan.peak_bytes)} beside the interpreter, {prepared.options.threads} threads",
            ),
            ("time", took),
            (
                "tasks",
                f"{', '.join(described['tasks'])} (split {prepared.tasks.config.split})"
                if prepared.tasks
                else "none",
            ),
            ("notes", "\n".join(plan.notes)),
        ],
        indent=indent,
    )


def _check_disk(config: RunConfig, prepared: Prepared, plan: Plan) -> None:
    from fusionbench_core.artefact.write import check_space

    if prepared.method.capabilities.output == "weights":
        check_space(plan.write_bytes, _output(config))


def _output(config: RunConfig) -> Path:
    return Path(config.merged_model_save_path or config.output_dir or "runs")


def _tensors(summary: dict) -> str:
    tied = f", {summary['tied_tensors']} tied" if summary["tied_tensors"] else ""
    return (
        f"{summary['merged_tensors']} merged, {summary['copied_tensors']} copied{tied}; "
        f"{summary['parameters'] / 1e6:,.1f} M parameters"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
