"""From a config to checked objects: names resolved, parameters validated, nothing read yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fusionbench_core.config.schema import EngineConfig, FabricConfig, RunConfig
from fusionbench_core.dtypes import parse_dtype
from fusionbench_core.engine.device import named_device
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.sizes import available_memory, parse_size
from fusionbench_core.errors import ConfigError, MissingCapability
from fusionbench_core.methods.build import build_method
from fusionbench_core.methods.method import Method, ModelMethod
from fusionbench_core.pools.config import build_pool
from fusionbench_core.pools.pool import ModelPool
from fusionbench_core.processors import available_cpus
from fusionbench_core.records import MethodRecord
from fusionbench_core.registry import Registry
from fusionbench_core.tasks.pool import TaskPool, build_task_pool


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs, checked as far as that goes without opening a checkpoint."""

    config: RunConfig
    method: Method
    record: MethodRecord
    pool: ModelPool
    tasks: TaskPool | None
    options: EngineOptions
    finish: bool = False
    """Whether methods learn no further than they have before the run was interrupted."""


def prepare(config: RunConfig, registry: Registry, file: Path | None = None) -> Prepared:
    """Resolve and validate.

    Raises:
        ConfigError: if parameters are wrong.
        UnknownName: if a name is not registered; `PluginBroken` if it cannot be imported.
        MissingCapability: if the method needs data and there is no task pool.
    """
    if config.method is None:
        raise ConfigError(
            "no method was chosen", fix="choose one, e.g. method=simple_average; `fb list methods` shows them"
        )
    method, record = build_method(config.method, registry, file)
    if config.learned_from and not isinstance(method, ModelMethod):
        raise ConfigError(
            f"{record.full_name} learns nothing that it could start from",
            config="learned_from",
            fix="remove it, or choose the method that learned what is there",
        )
    pool = build_pool(config.modelpool, registry, file=file)
    tasks = build_task_pool(config.taskpool, registry, file=file) if config.taskpool else None
    check_data(method, record, pool, tasks)
    return Prepared(config, method, record, pool, tasks, engine_options(config.engine))


def check_data(method: Method, record: MethodRecord, pool: ModelPool, tasks: TaskPool | None) -> None:
    """Check the tasks against what the method declares that it needs of them.

    Raises:
        MissingCapability: if there are none, or the task of a model does not provide it.
    """
    capabilities = method.capabilities
    needs = [*capabilities.tasks, *(f"statistic {name}" for name in capabilities.statistics)]
    if needs and tasks is None:
        raise MissingCapability(
            f"{record.full_name} needs data, and there is no task pool",
            why=f"it asks for {', '.join(needs)}",
            fix="choose a task pool: taskpool=NAME; `fb list configs` shows them",
        )
    wanted = {*capabilities.tasks, *(["batches"] if capabilities.statistics else [])}
    known = tasks.tasks if tasks is not None else {}
    for model in pool:
        task = known.get(pool.task_of(model))
        if task is not None and (missing := sorted(wanted - set(task.record.provides))):
            raise MissingCapability(
                f"{record.full_name} needs {', '.join(missing)} of task {task.name!r}, which has none",
                model=model,
                why=f"its evaluator {task.record.full_name} provides {', '.join(task.record.provides)}",
                fix="choose another task evaluator, or a method that needs less of tasks",
            )


def engine_options(config: EngineConfig) -> EngineOptions:
    """Engine settings with sizes and dtypes parsed; the budget is 3/4 of the free memory unless given.

    Raises:
        ConfigError: if a size, a dtype or a device is not one.
        InsufficientResources: if there is no such device.
    """
    free = available_memory()
    budget = free * 3 // 4 if free else None
    if config.memory_budget is not None:
        budget = parse_size(config.memory_budget, "engine.memory_budget")
    return EngineOptions(
        threads=config.threads or available_cpus(),
        memory_budget=budget,
        budget_is_guess=config.memory_budget is None,
        cache_size=0 if str(config.cache_size) == "0" else parse_size(config.cache_size, "engine.cache_size"),
        dtype=parse_dtype(config.dtype) if config.dtype else None,
        accumulate=parse_dtype(config.accumulate),
        max_shard_size=parse_size(config.max_shard_size, "engine.max_shard_size"),
        check_finite=config.check_finite,
        integers=config.integers,
        device=named_device(config.device),
    )


def compute_device(config: FabricConfig) -> torch.device:
    """Where statistics and evaluation compute, chosen as Fabric's accelerators are called."""
    wanted = config.accelerator
    if wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", config.devices[0] if isinstance(config.devices, list) else 0)
    if wanted in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    if wanted not in ("auto", "cpu"):
        raise MissingCapability(
            f"there is no {wanted} device on this machine",
            config="fabric.accelerator",
            fix="use fabric.accelerator=cpu",
        )
    return torch.device("cpu")
