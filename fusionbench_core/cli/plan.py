"""`fb plan`: what a run would do and cost, from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusionbench_core.cli.configured import compose_run, config_options
from fusionbench_core.cli.help import examples
from fusionbench_core.cli.output import emit_json, facts, json_option

if TYPE_CHECKING:
    from fusionbench_core.config.schema import RunConfig


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
    """Compose, prepare and plan; print the plan.

    Raises:
        FusionError: if the run cannot work.
    """
    from fusionbench_core.artefact.describe import describe_method
    from fusionbench_core.engine.calibration import estimate
    from fusionbench_core.engine.plan import make_plan
    from fusionbench_core.run import prepare

    config, registry, file = compose_run(overrides, config_path, config_name, mergekit)
    prepared = prepare(config, registry, file)
    plan = make_plan(prepared.method, prepared.pool, prepared.options, seed=config.seed)
    took = estimate(prepared.method, plan, prepared.pool, prepared.options, _output(config))
    method = describe_method(prepared.method, prepared.record)
    tasks = list(prepared.tasks.tasks) if prepared.tasks else []
    if as_json:
        emit_json(
            {
                "method": method,
                "tasks": tasks,
                "output": prepared.method.capabilities.output,
                **plan.summary(),
                "seconds": None if took is None else {"low": took.low, "high": took.high},
            }
        )
        return
    parameters = ", ".join(f"{key} {value}" for key, value in method["parameters"].items())
    base = "base + " if prepared.pool.base else ""
    facts(
        [
            ("method", f"{method['name']}  ({parameters})" if parameters else method["name"]),
            ("models", f"{base}{len(plan.models)}: {', '.join(plan.models)}"),
            ("tensors", _tensors(plan.summary())),
            ("reads", _size(plan.read_bytes)),
            (
                "writes",
                _size(plan.write_bytes)
                if prepared.method.capabilities.output == "weights"
                else "an adapter"
                if prepared.method.capabilities.output == "adapter"
                else "a new module",
            ),
            (
                "memory",
                f"about {_size(plan.peak_bytes)} beside the interpreter, {prepared.options.threads} threads",
            ),
            ("time", f"{took} to merge, once started" if took else "not known: it depends on the data"),
            (
                "tasks",
                f"{', '.join(tasks)} (split {prepared.tasks.config.split})" if prepared.tasks else "none",
            ),
            ("notes", "\n".join(plan.notes)),
        ]
    )


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
