"""Collect the statistics a method asks for: once a model, cached by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from fusionbench_core import __version__
from fusionbench_core.checkpoints import Checkpoint, SafetensorsCheckpoint, StateDictCheckpoint
from fusionbench_core.checkpoints.writer import write_safetensors
from fusionbench_core.config.errors import explain
from fusionbench_core.errors import CorruptFile, FusionError, MissingCapability, OutputError
from fusionbench_core.methods.method import Method
from fusionbench_core.places import cache_dir
from fusionbench_core.pools.pool import ModelPool
from fusionbench_core.registry import Registry
from fusionbench_core.statistics.statistic import Statistic
from fusionbench_core.tasks.adaptation import AdaptationTask
from fusionbench_core.tasks.task import Batch


def collect_statistics(
    method: Method,
    pool: ModelPool,
    tasks: Mapping[str, AdaptationTask],
    registry: Registry,
    *,
    names: tuple[str, ...],
    seed: int = 0,
    device: torch.device | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, message: None,
) -> dict[str, list[Checkpoint]]:
    """Statistic name -> one checkpoint of named tensors a model, in the order of `names`.

    Raises:
        MissingCapability: if a model's task is not in the task pool.
        ConfigError: if the method gives a statistic parameters it does not know.
    """
    wanted = method.statistics()
    statistics = {name: _build(name, parameters, registry) for name, parameters in wanted.items()}
    total = len(names) * sum(statistic.samples for statistic in statistics.values())
    collected: dict[str, list[Checkpoint]] = {name: [] for name in statistics}
    done = 0
    for name, statistic in statistics.items():
        for model in names:

            def seen(samples: int, before: int = done, message: str = f"{name} of {model}") -> None:
                on_progress(before + samples, total, message)

            seen(0)
            task = _task_of(pool, model, tasks, method)
            where = device or torch.device("cpu")
            measurement = _Measurement(statistic, pool, model, task, seed, where)
            collected[name].append(measurement.collect(seen))
            done += statistic.samples
    on_progress(total, total, "")
    return collected


def _build(name: str, parameters: Mapping[str, Any], registry: Registry) -> Statistic:
    cls = registry.load("statistic", name)
    try:
        return cls.model_validate(dict(parameters))
    except ValidationError as error:
        raise explain(error, cls, where=f"statistic {name}") from error


def _task_of(
    pool: ModelPool, model: str, tasks: Mapping[str, AdaptationTask], method: Method
) -> AdaptationTask:
    task = pool.task_of(model)
    if task not in tasks:
        raise MissingCapability(
            f"{method.record.full_name} needs data of model {model!r}, and there is no task {task!r}",
            why=f"it reads {', '.join(method.statistics())}; the tasks are {', '.join(tasks) or 'none'}",
            fix=f"add the task, or say which one it is: modelpool.data.{model}=TASK",
        )
    return tasks[task]


@dataclass(frozen=True)
class _Measurement:
    """One statistic of one model, on its task's data."""

    statistic: Statistic
    pool: ModelPool
    model: str
    task: AdaptationTask
    seed: int
    device: torch.device

    def collect(self, seen: Callable[[int], None]) -> Checkpoint:
        """From the cache, or measured now; `seen` is told how many samples there were so far."""
        statistic, path = self.statistic, self._cache_path()
        if path is not None and path.exists():
            try:
                known = SafetensorsCheckpoint([path])
            except CorruptFile:
                path.unlink()
            else:
                self.task.recall(statistic.split, labelled=statistic.labelled, limit=statistic.samples)
                return known
        state = self._measure(seen)
        if path is not None:
            try:
                write_safetensors(path, state)
                return SafetensorsCheckpoint([path])
            except OutputError:
                pass  # it stays in memory
        return StateDictCheckpoint(state, f"statistic {statistic.record.name} of {self.model}")

    def _measure(self, seen: Callable[[int], None]) -> dict[str, Tensor]:
        statistic = self.statistic
        attached = self.task.attach(self.pool.module(self._measured)).to(self.device).eval()
        batches = self.task.batches(
            statistic.split,
            labelled=statistic.labelled,
            limit=statistic.samples,
            seed=self.seed,
            batch_size=statistic.batch_size,
        )
        state = dict(statistic.collect(attached, _counted(batches, self.device, seen)))
        for name, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise FusionError(
                    f"statistic {statistic.record.name} of {self.model} is not finite", tensor=name
                )
        return {name: tensor.cpu() for name, tensor in state.items()}

    @property
    def _measured(self) -> str | None:
        return None if self.statistic.of_base else self.model

    def _cache_path(self) -> Path | None:
        facts = {
            "core": __version__,
            "statistic": self.statistic.record.name,
            "target": self.statistic.record.target,
            "parameters": self.statistic.model_dump(mode="json"),
            "model": self.pool.checkpoint(self._measured).fingerprint(),
            "task": self.task.fingerprint(),
            "seed": self.seed,
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        try:
            return cache_dir("statistics") / f"{key}.safetensors"
        except OSError:
            return None


def _counted(batches: Iterable[Batch], device: torch.device, seen: Callable[[int], None]) -> Iterator[Batch]:
    """The batches, on the device; `seen` is told after each how many samples there were so far."""
    count = 0
    for batch in batches:
        yield batch.to(device)
        count += len(batch)
        seen(count)
