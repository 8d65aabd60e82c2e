"""The hooks a plugin may implement, in the order of a run's life.

A plugin is a module named by an entry point of the group `fusionbench`. It implements any of these
functions, marked with :data:`hookimpl`. An implementation may take fewer arguments than its
specification, so adding an argument never breaks a plugin.

Declarations are pure and cheap: they yield records and import nothing heavy. Observers watch a run;
each is called in its own guard, and none can change a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from fusionbench_core import records

PROJECT = "fusionbench"
"""Entry-point group and pluggy project name."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

DECLARATIONS = {
    "fb_methods": "method",
    "fb_model_sources": "source",
    "fb_tasks": "task",
    "fb_statistics": "statistic",
    "fb_builders": "builder",
    "fb_configs": "config",
    "fb_reporters": "reporter",
    "fb_commands": "command",
    "fb_converters": "converter",
    "fb_checks": "check",
}
"""Declaration hook -> the kind of record it yields."""


# --- declarations: what a plugin provides ---------------------------------------------------------


@hookspec
def fb_methods() -> Iterable[records.MethodRecord]:  # type: ignore[empty-body]
    """Yield one record a fusion method. Since 1.0."""


@hookspec
def fb_model_sources() -> Iterable[records.SourceRecord]:  # type: ignore[empty-body]
    """Yield one record a model source: what opens references and builds live modules. Since 1.0."""


@hookspec
def fb_tasks() -> Iterable[records.TaskRecord]:  # type: ignore[empty-body]
    """Yield one record a task evaluator. Since 1.0."""


@hookspec
def fb_statistics() -> Iterable[records.StatisticRecord]:  # type: ignore[empty-body]
    """Yield one record a statistic that methods may ask for by name. Since 1.0."""


@hookspec
def fb_builders() -> Iterable[records.BuilderRecord]:  # type: ignore[empty-body]
    """Yield one record a builder: it rebuilds a saved non-standard module from its fusion.json. Since 1.0."""


@hookspec
def fb_configs() -> Iterable[records.ConfigRecord]:  # type: ignore[empty-body]
    """Yield packages of YAML presets for the config search path. Since 1.0."""


@hookspec
def fb_reporters() -> Iterable[records.ReporterRecord]:  # type: ignore[empty-body]
    """Yield extra report formats. Since 1.0."""


@hookspec
def fb_commands() -> Iterable[records.CommandRecord]:  # type: ignore[empty-body]
    """Yield extra commands of `fb`; `show_progress` shows how far one of them is. Since 1.0."""


@hookspec
def fb_converters() -> Iterable[records.ConverterRecord]:  # type: ignore[empty-body]
    """Yield converters of other tools' configs, for `fb convert` and `fb run`. Since 1.0."""


@hookspec
def fb_checks() -> Iterable[records.CheckRecord]:  # type: ignore[empty-body]
    """Yield extra checks of `fb doctor`. Since 1.0."""


# --- observers: what happens during a run ---------------------------------------------------------


@hookspec
def fb_run_started(run: Any) -> None:
    """A run directory exists and the config is valid. `run` is a `Run`. Since 1.0."""


@hookspec
def fb_tensor_done(run: Any, step: Any) -> None:
    """One output tensor is written. `step` is a `PlanStep`. Called in the thread that runs. Since 1.0."""


@hookspec
def fb_task_evaluated(run: Any, result: Any) -> None:
    """One task is evaluated. `result` is a `TaskResult`. Since 1.0."""


@hookspec
def fb_run_finished(run: Any, report: Any) -> None:
    """All stages are done and the reports are written. Since 1.0."""


@hookspec
def fb_run_failed(run: Any, error: BaseException) -> None:
    """A stage failed or was interrupted. Since 1.0."""
