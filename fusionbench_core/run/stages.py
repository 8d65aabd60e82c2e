"""Runs that are made of one another: the results of some are models of others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fusionbench_core.artefact.write import ArtefactWriter
from fusionbench_core.config.errors import explain
from fusionbench_core.config.schema import RunConfig
from fusionbench_core.engine.plan import Plan, make_plan
from fusionbench_core.errors import ConfigError, FusionError, MissingCapability, OutputError
from fusionbench_core.files import write_atomically
from fusionbench_core.registry import Registry
from fusionbench_core.report import Report, read_report
from fusionbench_core.run.console import Console
from fusionbench_core.run.directory import CONFIG, RunDirectory
from fusionbench_core.run.prepare import Prepared, prepare
from fusionbench_core.run.processes import refuse_several
from fusionbench_core.run.runner import Runner
from fusionbench_core.suggest import did_you_mean

STAGE = "stage://"
"""How a reference names the result of a stage."""


def run_stages(
    values: Mapping[str, Any],
    registry: Registry,
    directory: Path,
    console: Console,
    command: list[str] | None = None,
) -> Report:
    """Run all stages in `DIRECTORY/stages`, then the config itself in `directory`; gives its report.

    A stage that is finished there is not repeated, an interrupted one goes on.

    Raises:
        ConfigError: if stages need each other, or one that is not there.
        OutputError: if the directory holds another run.
        FusionError: what stopped a run; those finished before are kept.
    """
    configs = dict(values)
    stages = configs.pop("stages")
    order = stage_order(values)
    _claim(directory, values)
    places = {name: directory / "stages" / name for name in order}
    for name in order:
        console.stage("stage", name)
        _run(_parsed(stages[name], places, f"stages.{name}"), registry, places[name], console, command)
    configs.pop("output_dir", None)
    return _run(_parsed(configs, places, ""), registry, directory, console, command, claimed=True)


@dataclass(frozen=True)
class PlannedStage:
    """One run of several, planned.

    Attributes:
        name: Name of the stage; None for what is made of all others.
        config: Its config, stages replaced by directories that hold their outlines.
        prepared: Its checked objects.
        plan: Its plan.
    """

    name: str | None
    config: RunConfig
    prepared: Prepared
    plan: Plan


def plan_stages(values: Mapping[str, Any], registry: Registry) -> Iterator[PlannedStage]:
    """Plan each stage on outlines of those before it, last the config itself; look at each as it comes.

    Outlines are in a temporary directory, and take next to no space.

    Raises:
        ConfigError: if stages need each other, or one that is not there.
        PlanError: naming the stage, if it cannot work, or its result is no model that can be planned with.
    """
    configs = dict(values)
    stages = configs.pop("stages")
    with tempfile.TemporaryDirectory(prefix="fb-plan-") as directory:
        places = {name: Path(directory) / name for name in stage_order(values)}
        for name in [*places, None]:
            try:
                config = _parsed(configs if name is None else stages[name], places, f"stages.{name}")
                prepared = prepare(config, registry)
                plan = make_plan(prepared.method, prepared.pool, prepared.options, seed=config.seed)
                if name is not None:
                    _outline(prepared, plan, places[name] / "model")
            except FusionError as error:
                if name is not None:
                    error.where.setdefault("stage", name)
                raise
            yield PlannedStage(name, config, prepared, plan)


def _outline(prepared: Prepared, plan: Plan, place: Path) -> None:
    output = prepared.method.capabilities.output
    if output != "weights":
        raise MissingCapability(
            f"{prepared.record.full_name} gives no weights of one model, so nothing can be planned with it",
            why=f"its output is {output}, whose tensors are known when it is made",
            fix="plan one stage by itself, or run it: fb run",
        )
    writer = ArtefactWriter(place, prepared.method, prepared.record, prepared.pool, options=prepared.options)
    writer.outline(plan)


def stage_order(values: Mapping[str, Any]) -> list[str]:
    """Names of the stages, each after those that it is made of.

    Raises:
        ConfigError: if stages need each other, or one that is not there.
    """
    stages = values["stages"]
    if not isinstance(stages, Mapping) or not all(isinstance(each, Mapping) for each in stages.values()):
        raise ConfigError("`stages` must be a mapping: name -> method, modelpool, …", config="stages")
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ConfigError(
                "stages need each other in a circle", config="stages", why=" -> ".join([*above, name])
            )
        if name in order:
            return
        if name not in stages:
            raise ConfigError(
                f"there is no stage {name!r}",
                config="stages",
                fix=did_you_mean(name, stages) or f"the stages are {', '.join(stages)}",
            )
        for other in _needs(stages[name]):
            visit(other, (*above, name))
        order.append(name)

    for name in [*stages, *_needs({key: value for key, value in values.items() if key != "stages"})]:
        visit(str(name), ())
    return order


def _needs(node: Any) -> Iterator[str]:
    """Names of the stages that a config refers to."""
    if isinstance(node, str) and node.startswith(STAGE):
        yield node.removeprefix(STAGE).partition("@")[0]
    elif isinstance(node, Mapping):
        for each in node.values():
            yield from _needs(each)
    elif isinstance(node, (list, tuple)):
        for each in node:
            yield from _needs(each)


def _parsed(values: Mapping[str, Any], places: Mapping[str, Path], where: str) -> RunConfig:
    try:
        return RunConfig.model_validate(_placed(values, places))
    except ValidationError as error:
        raise explain(error, RunConfig, where=where) from error


def _placed(node: Any, places: Mapping[str, Path]) -> Any:
    """The config with paths in place of references to stages."""
    if isinstance(node, str) and node.startswith(STAGE):
        return str(places[node.removeprefix(STAGE)] / "model")
    if isinstance(node, Mapping):
        return {key: _placed(each, places) for key, each in node.items()}
    return [_placed(each, places) for each in node] if isinstance(node, (list, tuple)) else node


def _claim(directory: Path, values: Mapping[str, Any]) -> None:
    """Keep the whole config in the directory; refuse one that holds something else."""
    kept = {key: value for key, value in values.items() if key != "output_dir"}
    file = directory / CONFIG
    if file.exists() and yaml.safe_load(file.read_text(encoding="utf-8")) == kept:
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise OutputError(
            f"the output directory {directory} exists and is not empty",
            fix="choose another one, or remove it",
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(file, yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise OutputError(f"cannot write {directory}", why=str(error), fix="choose another place") from error


def _run(
    config: RunConfig,
    registry: Registry,
    directory: Path,
    console: Console,
    command: list[str] | None,
    claimed: bool = False,
) -> Report:
    report = directory / "report.json"
    if report.exists() and (found := read_report(report)).status == "complete":
        console.line("done already")
        return found
    refuse_several(config.fabric, "a run of several stages")
    prepared = prepare(config, registry)
    if claimed or (directory / CONFIG).exists():
        place = RunDirectory.resume(directory)
    else:
        own = config.model_copy(update={"output_dir": str(directory)})
        place = RunDirectory.create(own, config.name or prepared.record.name)
    return Runner(prepared, place, registry, console, command).execute()
