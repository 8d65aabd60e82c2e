"""A pool of tasks, and their evaluation on one model: nothing done is lost, nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from fusionbench_core.config.errors import explain
from fusionbench_core.errors import ConfigError, FusionError, TaskError
from fusionbench_core.files import output_error, write_atomically
from fusionbench_core.methods.conditioned import TaskConditioned
from fusionbench_core.registry import Registry
from fusionbench_core.tasks.adaptation import AdaptationTask
from fusionbench_core.tasks.attach import attach
from fusionbench_core.tasks.result import TaskResult
from fusionbench_core.tasks.task import EvalContext, Split, Task


class TaskPoolConfig(BaseModel):
    """The `taskpool` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str | None = Field(default=None, description="task evaluator of every entry that names none")
    tasks: dict[str, dict[str, Any]] = Field(
        min_length=1, description="name -> {task: EVALUATOR, parameters}"
    )
    split: Split = Field(default="test", description="split that is measured")
    transductive: bool = Field(
        default=False, description="let methods adapt to unlabelled test inputs; the report says so"
    )
    limit: int | None = Field(default=None, gt=0, description="measure at most so many samples a task")
    batch_size: int = Field(default=64, gt=0, description="samples a batch; does not change a result")
    baselines: dict[str, dict[str, dict[str, float]]] = Field(
        default={},
        description="recorded results to compare with: pretrained, individual, multi_task -> task -> "
        "metrics; check_baselines=true measures them again",
    )


class TaskPool:
    """Named tasks and how to measure them.

    Args:
        tasks: Name -> task, in config order.
        config: Split, limits, recorded baselines.
    """

    def __init__(self, tasks: Mapping[str, Task], config: TaskPoolConfig) -> None:
        self.tasks = dict(tasks)
        self.config = config

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __getitem__(self, name: str) -> Task:
        return self.tasks[name]

    def for_adaptation(self, needs: tuple[str, ...]) -> dict[str, AdaptationTask]:
        """The guarded tasks that a method with these declared needs may use."""
        return {
            name: AdaptationTask(task, transductive=self.config.transductive, labels="labels" in needs)
            for name, task in self.tasks.items()
        }

    def evaluate(
        self,
        model: nn.Module,
        *,
        device: torch.device | None = None,
        store: ResultStore | None = None,
        on_result: Callable[[TaskResult, bool], None] = lambda result, cached: None,
        on_progress: Callable[[str, int, int], None] = lambda task, done, total: None,
        only: str | None = None,
    ) -> dict[str, TaskResult]:
        """Measure a model on every task.

        Args:
            model: A trunk, a predictor, or a task-conditioned model.
            device: Where to compute; default the CPU.
            store: Results of earlier measurements of this model, and where new ones are kept.
            on_result: Called with each result, and whether it came from the store.
            on_progress: Called with (task, samples done, samples in all).
            only: Name of the one task to measure.

        Raises:
            TaskError: after all tasks were tried, naming those that failed.
        """
        results: dict[str, TaskResult] = {}
        failures: dict[str, Exception] = {}
        for name in [only] if only else self.tasks:
            try:
                known = store.find(self._key(name)) if store else None
                result = known or self._measure(name, model, device or torch.device("cpu"), on_progress)
            except Exception as error:
                failures[name] = error
                continue
            if store and known is None:
                store.keep(self._key(name), result)
            results[name] = result
            on_result(result, known is not None)
        if failures:
            raise _failed(failures, len(results))
        return results

    def _measure(
        self, name: str, model: nn.Module, device: torch.device, on_progress: Callable[[str, int, int], None]
    ) -> TaskResult:
        task = self.tasks[name]
        context = EvalContext(
            split=self.config.split,
            limit=self.config.limit,
            batch_size=self.config.batch_size,
            device=device,
            on_progress=lambda done, total: on_progress(name, done, total),
        )
        result = task.evaluate(attach(task, model).to(device), context)
        return replace(result, task_given=isinstance(model, TaskConditioned))

    def _key(self, name: str) -> str:
        return f"{name}|{self.tasks[name].fingerprint()}|{self.config.split}|{self.config.limit}"


class ResultStore:
    """Results of one model, one JSON file a task, written as soon as they are there.

    Args:
        directory: Where the files are; made if need be.
        content_hash: The model's content; results of other content are not used.

    Raises:
        OutputError: if the directory cannot be made.
    """

    def __init__(self, directory: Path, content_hash: str) -> None:
        self._directory = directory
        self._content = content_hash
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(error, directory) from error

    def find(self, key: str) -> TaskResult | None:
        """The result kept under `key`, if it is of this content."""
        try:
            data = json.loads(self._path(key).read_text(encoding="utf-8"))
            if data.pop("model") == self._content and data.pop("key") == key:
                return TaskResult.from_json(data)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None

    def keep(self, key: str, result: TaskResult) -> None:
        """Write a result with its per-sample record."""
        data = {"model": self._content, "key": key, **result.to_json(samples=True)}
        write_atomically(self._path(key), json.dumps(data, indent=1))

    def _path(self, key: str) -> Path:
        return self._directory / f"{key.partition('|')[0]}.json"


def build_task_pool(section: Mapping[str, Any], registry: Registry, *, file: Path | None = None) -> TaskPool:
    """The pool that a `taskpool` section describes.

    Raises:
        ConfigError: listing everything that is wrong with the section.
        UnknownName: if a task evaluator is not registered.
    """
    try:
        config = TaskPoolConfig.model_validate(dict(section))
    except ValidationError as error:
        raise explain(error, TaskPoolConfig, where="taskpool", file=file) from error
    tasks = {
        name: _build_task(name, entry, config.task, registry, file) for name, entry in config.tasks.items()
    }
    return TaskPool(tasks, config)


def _build_task(
    name: str, entry: Mapping[str, Any], default: str | None, registry: Registry, file: Path | None
) -> Task:
    from fusionbench_core.report import check_task_names

    check_task_names([name])
    if "/" in name or name.startswith("."):
        raise ConfigError(
            f"a task cannot be called {name!r}", why="its results are kept in a file of that name"
        )
    parameters = dict(entry)
    evaluator = parameters.pop("task", default)
    where = f"taskpool.tasks.{name}"
    if evaluator is None:
        raise ConfigError(
            "a task names no evaluator", config=where, fix="add `task: NAME`; see `fb list tasks`"
        )
    cls = registry.load("task", evaluator)
    try:
        return cls.model_validate({"name": name, **parameters})
    except ValidationError as error:
        raise explain(error, cls, where=where, file=file) from error


def _failed(failures: Mapping[str, Exception], done: int) -> FusionError:
    causes = "\n".join(f"{name}: {type(error).__name__}: {error}" for name, error in failures.items())
    first = next(iter(failures.values()))
    if isinstance(first, FusionError) and len(failures) == 1:
        first.where.setdefault("task", next(iter(failures)))
        return first
    error = TaskError(
        f"{len(failures)} of {len(failures) + done} tasks could not be evaluated",
        why=causes,
        fix=f"the {done} results that were measured are kept; `fb run --resume` goes on" if done else None,
    )
    error.__cause__ = first
    return error
