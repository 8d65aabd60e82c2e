"""Several runs, one comparison: every method over every benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fusionbench_core.config.compose import compose
from fusionbench_core.config.errors import explain
from fusionbench_core.config.schema import RunConfig
from fusionbench_core.errors import ConfigError, FusionError, Interrupted, OutputError, UnknownName
from fusionbench_core.registry import Registry
from fusionbench_core.report import Report, read_report, write_comparison
from fusionbench_core.run.console import Console
from fusionbench_core.run.directory import RunDirectory
from fusionbench_core.run.prepare import prepare
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


def run_comparison(
    section: dict[str, Any],
    registry: Registry,
    directory: Path,
    console: Console,
    *,
    overrides: tuple[str, ...] = (),
    on_report: Callable[[str, str, Report], None] = lambda benchmark, label, report: None,
    on_failure: Callable[[str, str, FusionError], None] = lambda benchmark, label, error: None,
) -> dict[str, dict[str, Report]]:
    """Benchmark -> label -> report. A run that is finished in `directory` is not repeated.

    Methods and benchmarks that no installed plugin provides are left out, with a line that says so. A run
    that fails is told to `on_failure`, and the others go on; started again, only that one is repeated.

    Raises:
        ConfigError: if the section is wrong, or nothing of it is installed.
        Interrupted: after Ctrl-C; runs finished before are kept.
    """
    try:
        config = CompareConfig.model_validate(section)
    except ValidationError as error:
        raise explain(error, CompareConfig, where="compare") from error
    reports: dict[str, dict[str, Report]] = {}
    failed = False
    for benchmark in config.benchmarks:
        for label, entry in config.methods.items():
            run = _compose(benchmark, entry, registry, overrides, console)
            if run is None:
                continue
            console.stage("run", f"{benchmark}: {label}")
            try:
                report = _run(run, registry, directory / benchmark / label, console)
            except Interrupted:
                raise
            except FusionError as error:
                failed = True
                console.line(f"failed: {error.what}")
                on_failure(benchmark, label, error)
                continue
            reports.setdefault(benchmark, {})[label] = report
            on_report(benchmark, label, report)
        if benchmark in reports:
            write_comparison(reports[benchmark], directory / benchmark)
    if not reports and not failed:
        raise ConfigError(
            "nothing of this comparison is installed", fix="pip install fb-merging fb-nlp-tasks"
        )
    return reports


def _compose(
    benchmark: str, entry: Entry, registry: Registry, overrides: tuple[str, ...], console: Console
) -> RunConfig | None:
    try:
        record = registry.find("method", entry.method)
        values = compose([f"method={record.full_name}", *overrides], None, benchmark, registry).values
    except UnknownName as error:
        console.line(f"left out: {error.what}")
        return None
    except ConfigError as error:
        if error.what.startswith("there is no config"):
            console.line(f"left out: {error.what}")
            return None
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
