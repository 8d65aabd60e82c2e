"""How a plan is shown: what a run would do, read, write, hold and take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench_core.cli.output import facts

if TYPE_CHECKING:
    from fusionbench_core.config.schema import RunConfig
    from fusionbench_core.engine.plan import Plan
    from fusionbench_core.run.prepare import Prepared


def described(config: RunConfig, prepared: Prepared, plan: Plan) -> dict[str, Any]:
    """What a run would do and cost, as JSON.

    Raises:
        InsufficientResources: if the disk is too full.
    """
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


def show(config: RunConfig, prepared: Prepared, plan: Plan, indent: str = "") -> None:
    """Print what a run would do and cost.

    Raises:
        InsufficientResources: if the disk is too full.
    """
    found = described(config, prepared, plan)
    method = found["method"]
    parameters = ", ".join(f"{key} {value}" for key, value in method["parameters"].items())
    base = "base + " if prepared.pool.base else ""
    memory = f"about {_size(plan.peak_bytes)} beside the interpreter, {prepared.options.threads} threads"
    tasks = f"{', '.join(found['tasks'])} (split {prepared.tasks.config.split})" if prepared.tasks else "none"
    facts(
        [
            ("method", f"{method['name']}  ({parameters})" if parameters else method["name"]),
            ("models", f"{base}{len(plan.models)}: {', '.join(plan.models)}"),
            ("tensors", _tensors(found)),
            ("reads", _size(plan.read_bytes)),
            ("writes", _written(found)),
            ("memory", memory),
            (
                "time",
                f"{_took(found)} to merge, once started"
                if found["seconds"]
                else "not known: it depends on the data",
            ),
            ("tasks", tasks),
            ("notes", "\n".join(plan.notes)),
        ],
        indent=indent,
    )


COLUMNS = ("method", "reads", "writes", "memory", "time to merge")
"""What :func:`row` gives."""


def row(found: Mapping[str, Any]) -> list[str]:
    """What :func:`described` gave, in one line of a table."""
    return [
        found["method"]["name"],
        _size(found["read_bytes"]),
        _written(found),
        _size(found["peak_bytes"]),
        _took(found) if found["seconds"] else "depends on the data",
    ]


def _check_disk(config: RunConfig, prepared: Prepared, plan: Plan) -> None:
    from fusionbench_core.artefact.write import check_space

    if prepared.method.capabilities.output == "weights":
        check_space(plan.write_bytes, _output(config))


def _output(config: RunConfig) -> Path:
    return Path(config.merged_model_save_path or config.output_dir or "runs")


def _tensors(summary: Mapping[str, Any]) -> str:
    tied = f", {summary['tied_tensors']} tied" if summary["tied_tensors"] else ""
    return (
        f"{summary['merged_tensors']} merged, {summary['copied_tensors']} copied{tied}; "
        f"{summary['parameters'] / 1e6:,.1f} M parameters"
    )


def _written(found: Mapping[str, Any]) -> str:
    written = {"weights": _size(found["write_bytes"]), "adapter": "an adapter"}
    return written.get(found["output"], "a new module")


def _took(found: Mapping[str, Any]) -> str:
    from fusionbench_core.engine.calibration import Duration

    return str(Duration(**found["seconds"]))


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
