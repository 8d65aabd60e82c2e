"""Several runs, one comparison: every method over every benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fusionbench_core.config.compose import compose
from fusionbench_core.config.errors import explain
from fusionbench_core.config.schema import RunConfig
from fusionbench_core.engine.plan import Plan, make_plan
from fusionbench_core.errors import ConfigError, FusionError, Interrupted, OutputError, UnknownName
from fusionbench_core.registry import Registry
from fusionbench_core.report import Report, read_report, write_comparison
from fusionbench_core.run.console import Console
from fusionbench_core.run.directory import RunDirectory
from fusionbench_core.run.prepare import Prepared, prepare
from fusionbench_core.run.processes import refuse_several
from fusionbench_core.run.runner import Runner


class Entry(BaseModel):
    """One method of a comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = Field(description="registered name")
    parameters: dict[str, Any] = Field(default={}, description="parameters that differ from the defaults")
    tune: dict[str, list[Any]] | None = Field(
        default=None, description="parameters to choose on the validation split"
    )


class CompareConfig(BaseModel):
    """The `compare` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmarks: tuple[str, ...] = Field(min_length=1, description="root configs to run every method over")
    methods: dict[str, Entry] = Field(min_length=1, description="label -> method")


Runs = Mapping[str, Mapping[str, RunConfig]]
"""Benchmark -> label -> config of one run."""


def comparison_runs(
    section: dict[str, Any],
    registry: Registry,
    console: Console,
    *,
    overrides: Sequence[str] = (),
    configs: Path | None = None,
) -> Runs:
    """All runs that a comparison is made of.

    Methods and benchmarks that no installed plugin provides are left out, with a line that says so.

    Args:
        section: The `compare` section.
        registry: Where methods and presets come from.
        console: Told what is left out.
        overrides: Go to every run.
        configs: The user's directory of configs, where benchmarks are looked for before the presets.

    Raises:
        ConfigError: if the section is wrong, or nothing of it is there.
    """
    try:
        config = CompareConfig.model_validate(section)
    except ValidationError as error:
        raise explain(error, CompareConfig, where="compare") from error
    runs: dict[str, dict[str, RunConfig]] = {}
    missing: dict[str, FusionError] = {}
    for benchmark in config.benchmarks:
        for label, entry in config.methods.items():
            try:
                run = _compose(benchmark, entry, registry, overrides, configs)
            except _Missing as absent:
                missing.setdefault(absent.error.what, absent.error)
            else:
                runs.setdefault(benchmark, {})[label] = run
    for what in missing:
        console.line(f"left out: {what}")
    if not runs:
        raise ConfigError(
            "nothing of this comparison is installed",
            why="\n".join(missing),
            fix=next((error.fix for error in missing.values() if error.fix), None),
        )
    return runs


def run_comparison(
    runs: Runs,
    registry: Registry,
    directory: Path,
    console: Console,
    *,
    on_failure: Callable[[str, str, FusionError], None] = lambda benchmark, label, error: None,
) -> dict[str, dict[str, Report]]:
    """Benchmark -> label -> report. A run that is finished in `directory` is not repeated.

    A run that fails is told to `on_failure`, and the others go on; started again, only that one is repeated.

    Raises:
        Interrupted: after Ctrl-C; runs finished before are kept.
    """
    reports: dict[str, dict[str, Report]] = {}
    for benchmark, label, config in _each(runs):
        console.stage("run", f"{benchmark}: {label}")
        try:
            report = _run(config, registry, directory / benchmark / label, console)
        except Interrupted:
            raise
        except FusionError as error:
            console.line(f"failed: {error.what}")
            on_failure(benchmark, label, error)
            continue
        reports.setdefault(benchmark, {})[label] = report
        write_comparison(reports[benchmark], directory / benchmark)
    return reports


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison, planned.

    Attributes:
        benchmark: Root config that it is over.
        label: What the comparison calls it.
        config: Its config.
        prepared: Its checked objects.
        plan: Its plan.
    """

    benchmark: str
    label: str
    config: RunConfig
    prepared: Prepared
    plan: Plan


def plan_comparison(
    runs: Runs,
    registry: Registry,
    console: Console,
    *,
    on_failure: Callable[[str, str, FusionError], None] = lambda benchmark, label, error: None,
) -> Iterator[PlannedRun]:
    """Plan every run; one that cannot work is told to `on_failure`, and the others go on."""
    for benchmark, label, config in _each(runs):
        console.stage("plan", f"{benchmark}: {label}")
        try:
            prepared = prepare(config, registry)
            plan = make_plan(prepared.method, prepared.pool, prepared.options, seed=config.seed)
        except FusionError as error:
            on_failure(benchmark, label, error)
            continue
        yield PlannedRun(benchmark, label, config, prepared, plan)


def _each(runs: Runs) -> Iterator[tuple[str, str, RunConfig]]:
    return ((benchmark, label, run) for benchmark, each in runs.items() for label, run in each.items())


class _Missing(Exception):
    """A method or a benchmark is not there."""

    def __init__(self, error: FusionError) -> None:
        self.error = error
        super().__init__(error.what)


def _compose(
    benchmark: str, entry: Entry, registry: Registry, overrides: Sequence[str], configs: Path | None
) -> RunConfig:
    try:
        record = registry.find("method", entry.method)
        values = compose([f"method={record.full_name}", *overrides], configs, benchmark, registry).values
    except UnknownName as error:
        raise _Missing(error) from error
    except ConfigError as error:
        if error.what.startswith("there is no config"):
            raise _Missing(error) from error
        raise
    values["method"] = {"name": record.full_name, **entry.parameters}
    values["tune"] = entry.tune
    values["name"] = entry.method
    return RunConfig.model_validate(values)


def _run(config: RunConfig, registry: Registry, directory: Path, console: Console) -> Report:
    finished = directory / "report.json"
    if finished.exists():
        report = read_report(finished)
        if report.status == "complete" and report.config == config.model_dump(mode="json"):
            console.line("done already")
            return report
        raise OutputError(
            f"{directory} holds another run", fix="choose another output directory, or remove it"
        )
    refuse_several(config.fabric, "a comparison")
    config = config.model_copy(update={"output_dir": str(directory)})
    prepared = prepare(config, registry)
    if (directory / "config.yaml").exists():
        place = RunDirectory.resume(directory)
    else:
        place = RunDirectory.create(config, config.name or prepared.record.name)
    prepared = prepare(config.model_copy(update={"output_dir": None}), registry)
    return Runner(prepared, place, registry, console).execute()
