"""Several runs, one comparison: every method over every benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fusionbench_core.config.compose import Composed, compose
from fusionbench_core.config.errors import explain
from fusionbench_core.config.schema import RunConfig
from fusionbench_core.engine.plan import Plan, make_plan
from fusionbench_core.errors import ConfigError, FusionError, Interrupted, NotInstalled, OutputError
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


def _inside(name: str) -> str:
    """A name that is a path below the comparison's directory."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError("it names a directory, which must lie inside that of the comparison")
    return name


Name = Annotated[str, AfterValidator(_inside)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class CompareConfig(BaseModel):
    """The `compare` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmarks: tuple[Name, ...] = Field(min_length=1, description="root configs to run every method over")
    methods: dict[Name, Entry] = Field(min_length=1, description="label -> method")
    seeds: tuple[Seed, ...] = Field(
        default=(), description="seeds to run every method with; empty: the one of the benchmark"
    )


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes:
        benchmark: Root config that it is over.
        label: What the comparison calls the method.
        config: Its config.
        seed: Its seed, if the comparison names seeds.
    """

    benchmark: str
    label: str
    config: RunConfig
    seed: int | None = None

    @property
    def place(self) -> Path:
        """Its directory, in that of the comparison."""
        place = Path(self.benchmark, self.label)
        return place if self.seed is None else place / f"seed-{self.seed}"

    def __str__(self) -> str:
        said = f"{self.benchmark}: {self.label}"
        return said if self.seed is None else f"{said}, seed {self.seed}"


Reports = dict[str, dict[str, list[Report]]]
"""Benchmark -> label -> one report a seed."""


def comparison_runs(
    section: dict[str, Any],
    registry: Registry,
    console: Console,
    *,
    overrides: Sequence[str] = (),
    configs: Path | None = None,
) -> list[Run]:
    """All runs that a comparison is made of.

    Methods and benchmarks that no installed plugin provides are left out, with a line that says so.

    Args:
        section: The `compare` section.
        registry: Where methods and presets come from.
        console: Told what is left out.
        overrides: Go to every run.
        configs: The user's directory of configs, where benchmarks are looked for before the presets.

    Raises:
        ConfigError: if the section or one of the runs' configs is wrong, or nothing of it is there.
    """
    try:
        config = CompareConfig.model_validate(section)
    except ValidationError as error:
        raise explain(error, CompareConfig, where="compare") from error
    runs: list[Run] = []
    missing: dict[str, FusionError] = {}
    for benchmark in dict.fromkeys(config.benchmarks):
        for label, entry in config.methods.items():
            try:
                composed = _compose(benchmark, entry, registry, overrides, configs)
            except _Missing as absent:
                missing.setdefault(absent.error.what, absent.error)
                continue
            file = composed.file_of_values(overrides)
            for seed in dict.fromkeys(config.seeds or (None,)):
                runs.append(Run(benchmark, label, _validated(composed, benchmark, seed, file), seed))
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
    runs: Sequence[Run],
    registry: Registry,
    directory: Path,
    console: Console,
    *,
    on_failure: Callable[[Run, FusionError], None] = lambda run, error: None,
) -> Reports:
    """Run all, and compare. A run that is finished in `directory` is not repeated.

    A run that fails is told to `on_failure`, and the others go on; started again, only that one is repeated.

    Raises:
        Interrupted: after Ctrl-C; runs finished before are kept.
    """
    reports: Reports = {}
    for run in runs:
        console.stage("run", str(run))
        try:
            report = _run(run.config, registry, directory / run.place, console)
        except Interrupted:
            raise
        except FusionError as error:
            console.line(f"failed: {error.what}")
            on_failure(run, error)
            continue
        reports.setdefault(run.benchmark, {}).setdefault(run.label, []).append(report)
        write_comparison(reports[run.benchmark], directory / run.benchmark)
    return reports


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison, planned.

    Attributes:
        run: The run.
        prepared: Its checked objects.
        plan: Its plan.
    """

    run: Run
    prepared: Prepared
    plan: Plan


def plan_comparison(
    runs: Sequence[Run],
    registry: Registry,
    console: Console,
    *,
    on_failure: Callable[[Run, FusionError], None] = lambda run, error: None,
) -> Iterator[PlannedRun]:
    """Plan every method, with the first of its seeds, which cost the same.

    One that cannot work is told to `on_failure`, and the others go on.
    """
    first = {(run.benchmark, run.label): run for run in reversed(runs)}
    for run in runs:
        if first[run.benchmark, run.label] is not run:
            continue
        console.stage("plan", f"{run.benchmark}: {run.label}")
        try:
            prepared = prepare(run.config, registry)
            plan = make_plan(prepared.method, prepared.pool, prepared.options, seed=run.config.seed)
        except FusionError as error:
            on_failure(run, error)
            continue
        yield PlannedRun(run, prepared, plan)


class _Missing(Exception):
    """A method or a benchmark is not there."""

    def __init__(self, error: FusionError) -> None:
        self.error = error
        super().__init__(error.what)


def _compose(
    benchmark: str, entry: Entry, registry: Registry, overrides: Sequence[str], configs: Path | None
) -> Composed:
    try:
        record = registry.find("method", entry.method)
        composed = compose([f"method={record.full_name}", *overrides], configs, benchmark, registry)
    except NotInstalled as error:
        raise _Missing(error) from error
    except ConfigError as error:
        if error.what.startswith("there is no config"):
            raise _Missing(error) from error
        raise
    method = {"name": record.full_name, **entry.parameters}
    return replace(
        composed, values={**composed.values, "method": method, "tune": entry.tune, "name": entry.method}
    )


def _validated(composed: Composed, benchmark: str, seed: int | None, file: Path | None) -> RunConfig:
    for several in ("compare", "stages"):
        if several in composed.values:
            raise ConfigError(
                f"{benchmark!r} is no benchmark: it is a config of several runs itself",
                file=file,
                why=f"it has a section `{several}`",
                fix="name root configs of one model pool and one task pool",
            )
    values = composed.values if seed is None else {**composed.values, "seed": seed}
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise explain(error, RunConfig, file=file) from error


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
