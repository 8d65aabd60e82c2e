"""Collect the statistics a method asks for: once a model, cached by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
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
            collected[name].append(_collect(statistic, pool, model, task, seed, where, seen))
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


def _collect(
    statistic: Statistic,
    pool: ModelPool,
    model: str,
    task: AdaptationTask,
    seed: int,
    device: torch.device,
    seen: Callable[[int], None],
) -> Checkpoint:
    path = _cache_path(statistic, pool, model, task, seed)
    if path is not None and path.exists():
        try:
            known = SafetensorsCheckpoint([path])
        except CorruptFile:
            path.unlink()
        else:
            task.recall(statistic.split, labelled=statistic.labelled, limit=statistic.samples)
            return known
    state = _measure(statistic, pool, model, task, seed, device, seen)
    if path is None:
        return StateDictCheckpoint(state, f"statistic {statistic.record.name} of {model}")
    try:
        write_safetensors(path, state)
    except OutputError:
        return StateDictCheckpoint(state, f"statistic {statistic.record.name} of {model}")
    return SafetensorsCheckpoint([path])


def _measure(
    statistic: Statistic,
    pool: ModelPool,
    model: str,
    task: AdaptationTask,
    seed: int,
    device: torch.device,
    seen: Callable[[int], None],
) -> dict[str, Tensor]:
    attached = task.attach(pool.module(None if statistic.of_base else model)).to(device).eval()
    batches = task.batches(
        statistic.split,
        labelled=statistic.labelled,
        limit=statistic.samples,
        seed=seed,
        batch_size=statistic.batch_size,
    )
    state = dict(statistic.collect(attached, _counted(batches, device, seen)))
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise FusionError(f"statistic {statistic.record.name} of {model} is not finite", tensor=name)
    return {name: tensor.cpu() for name, tensor in state.items()}


def _counted(batches: Iterable[Batch], device: torch.device, seen: Callable[[int], None]) -> Iterator[Batch]:
    """The batches, on the device; `seen` is told after each how many samples there were so far."""
    count = 0
    for batch in batches:
        yield batch.to(device)
        count += len(batch)
        seen(count)


def _cache_path(
    statistic: Statistic, pool: ModelPool, model: str, task: AdaptationTask, seed: int
) -> Path | None:
    facts = {
        "core": __version__,
        "statistic": statistic.record.name,
        "target": statistic.record.target,
        "parameters": statistic.model_dump(mode="json"),
        "model": pool.checkpoint(None if statistic.of_base else model).fingerprint(),
        "task": task.fingerprint(),
        "seed": seed,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    try:
        return cache_dir("statistics") / f"{key}.safetensors"
    except OSError:
        return None
