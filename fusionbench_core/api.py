"""The Python API: `fuse`, `load` and `evaluate`, with the same code behind them as `fb`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from fusionbench_core.artefact.complete import complete_state
from fusionbench_core.artefact.load import is_artefact, load_artefact
from fusionbench_core.artefact.write import ArtefactWriter
from fusionbench_core.checkpoints import Checkpoint
from fusionbench_core.config.errors import explain
from fusionbench_core.config.schema import EngineConfig, FabricConfig, RunConfig
from fusionbench_core.engine.plan import make_plan
from fusionbench_core.errors import ConfigError, MissingCapability
from fusionbench_core.methods.build import build_method
from fusionbench_core.methods.method import Method, TensorMethod
from fusionbench_core.pools.config import build_pool, recognise
from fusionbench_core.pools.pool import ModelPool, PooledModel
from fusionbench_core.registry import Registry, default_registry
from fusionbench_core.run.console import Console
from fusionbench_core.run.fusing import fuse_in_memory, fuse_to_disk, live
from fusionbench_core.run.prepare import Prepared, check_data, compute_device, engine_options
from fusionbench_core.tasks.pool import TaskPool, TaskPoolConfig, build_task_pool
from fusionbench_core.tasks.result import TaskResult
from fusionbench_core.tasks.task import Task

Model = Mapping[str, Any] | nn.Module | str | Path | Checkpoint
Tasks = TaskPool | Mapping[str, Task] | str


def fuse(
    method: str | Method | None = None,
    /,
    models: Mapping[str, Model] | Sequence[Model] = (),
    base: Model | None = None,
    *,
    output: str | Path | None = None,
    source: str | dict[str, Any] | None = None,
    tasks: Tasks | None = None,
    scope: Mapping[str, Sequence[str]] | None = None,
    heads: Sequence[str] = (),
    tokenizer: str | Mapping[str, Any] | None = None,
    seed: int = 0,
    engine: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> Any:
    """Fuse models: state dicts give a state dict, modules a module, paths an artefact on disk.

    >>> merged = fuse("task_arithmetic", models={"a": sd1, "b": sd2}, base=sd0, scaling_factor=0.3)

    Args:
        method: A registered name, with its parameters as further keyword arguments, or a method. If it
            stands first, a keyword `method` is a parameter: of methods that wrap another one.
        models: Name -> state dict, module, path, or reference such as {"source": …, "path": …}; or a
            sequence of them, named "0", "1", ….
        base: The pre-trained model, of the same kind.
        output: Directory to write to; needed for paths, which are streamed from disk to disk.
        source: Model source that reads the paths; recognised if left out.
        tasks: Task pool (or its preset's name) for methods that need data.
        scope: Which tensors are merged: shell patterns of their names to `include` and to `exclude`, e.g.
            `{"exclude": ["embed.*"]}`; default all.
        heads: Shell patterns of task-specific tensors, never merged.
        tokenizer: For paths of different vocabularies: `"base"`, `"union"`, a model's name, or the
            section `modelpool.tokenizer`; aligns their rows token by token.
        seed: Keys all random numbers.
        engine: Settings of the `engine` section, e.g. `{"threads": 1, "dtype": "bfloat16"}`.
        parameters: Parameters of the method, if it was named.

    Returns:
        The same kind as `models`: a new state dict, a new module (a module as well if the method
        builds a new architecture), or the `Path` of the artefact. Inputs are not changed.

    Raises:
        FusionError: what is wrong, where, why, and what to do.
    """
    registry = default_registry()
    method, record = _method(method or parameters.pop("method", None), parameters, registry)
    named = dict(models) if isinstance(models, Mapping) else {str(i): model for i, model in enumerate(models)}
    kind = _kind(named, base)
    pool = _pool(named, base, source, registry, scope, tuple(heads), tokenizer)
    task_pool = _tasks(tasks, registry)
    check_data(method, record, pool, task_pool)
    options = engine_options(_engine(engine))
    config = RunConfig(modelpool={}, seed=seed)
    prepared = Prepared(config, method, record, pool, task_pool, options)
    if kind == "path":
        return _fuse_paths(prepared, output, registry)
    if output is not None:
        raise ConfigError("`output` is for models given as paths", fix="save what fuse() returns yourself")
    adaptation = task_pool.for_adaptation(method.capabilities.tasks) if task_pool else {}
    fused = fuse_in_memory(prepared, registry, adaptation)
    if fused.module is None and kind == "state":
        # A tensor method's state is whole and checked already, its tied names and output dtype included.
        return fused.state if isinstance(method, TensorMethod) else complete_state(fused.state or {}, pool)
    return live(fused, pool)


def open_pool(pool: str | Path | Mapping[str, Any]) -> ModelPool:
    """A model pool, as configs describe it; no checkpoint is opened yet.

    Args:
        pool: Name of a preset such as "embedded_text", path of a YAML file, or the section itself.

    Raises:
        ConfigError: if there is no such preset, or the section is wrong.
    """
    from fusionbench_core.config import load_preset

    registry = default_registry()
    section = pool if isinstance(pool, Mapping) else load_preset("modelpool", str(pool), registry)
    return build_pool(section, registry)


def load(path: str | Path, source: str | None = None) -> nn.Module:
    """A live module, in eval mode, from an artefact or anything a model source recognises.

    Args:
        path: An artefact's directory, a local model, `pkg://PACKAGE/PATH`, or a hub id.
        source: Model source to read it with; recognised if left out.

    Raises:
        FusionError: if it cannot be found, read or recognised.
    """
    registry = default_registry()
    if is_artefact(Path(path)):
        return load_artefact(Path(path), registry)
    cls = registry.load("source", source) if source else recognise(str(path), registry)
    opened = cls.model_validate({"path": str(path)})
    return opened.build(opened.open())


def evaluate(
    model: nn.Module | str | Path,
    tasks: Tasks,
    *,
    split: str = "test",
    limit: int | None = None,
    source: str | None = None,
) -> dict[str, TaskResult]:
    """Measure a model on tasks.

    Args:
        model: A trunk, a predictor, or what `load` takes.
        tasks: A task pool, the name of a preset such as "embedded_text", or name -> task.
        split: Split to measure on.
        limit: At most so many samples a task.
        source: Model source of a path; recognised if left out.

    Raises:
        FusionError: if the model cannot be loaded or a task fails.
    """
    module = model if isinstance(model, nn.Module) else load(model, source)
    pool = _tasks(tasks, default_registry())
    assert pool is not None
    config = TaskPoolConfig.model_validate({**pool.config.model_dump(), "split": split, "limit": limit})
    return TaskPool(pool.tasks, config).evaluate(module, device=compute_device(FabricConfig()))


def _method(
    method: str | Method | None, parameters: dict[str, Any], registry: Registry
) -> tuple[Method, Any]:
    if method is None:
        raise ConfigError("there is no method", fix='name one first: fuse("simple_average", models=…)')
    if isinstance(method, str):
        return build_method({"name": method, **parameters}, registry)
    if parameters:
        raise ConfigError(
            f"parameters were given beside a ready {type(method).__name__}: {', '.join(parameters)}",
            fix=f"pass them to {type(method).__name__}(…), or name the method",
        )
    return method, method.record


def _engine(settings: Mapping[str, Any] | None) -> EngineConfig:
    try:
        return EngineConfig.model_validate(dict(settings or {}))
    except ValidationError as error:
        raise explain(error, EngineConfig, where="engine") from error


def _kind(models: Mapping[str, Model], base: Model | None) -> str:
    kinds = {name: _kind_of(name, model) for name, model in models.items()}
    if base is not None:
        kinds["base"] = _kind_of("base", base)
    if not models:
        raise MissingCapability("there are no models to fuse", fix="give at least one")
    if len(set(kinds.values())) > 1:
        raise ConfigError(
            "models of different kinds cannot be fused together",
            why=", ".join(f"{name}: {kind}" for name, kind in kinds.items()),
            fix="give all of them as state dicts, as modules, or as paths",
        )
    return next(iter(kinds.values()))


def _kind_of(name: str, model: Model) -> str:
    if isinstance(model, nn.Module):
        return "module"
    if isinstance(model, Mapping) and isinstance(model.get("path"), str):
        return "path"
    if isinstance(model, (Mapping, Checkpoint)):
        return "state"
    if isinstance(model, (str, Path)):
        return "path"
    raise ConfigError(
        f"model {name!r} is a {type(model).__name__}", fix="give a state dict, a torch.nn.Module, or a path"
    )


def _pool(
    models: Mapping[str, Model],
    base: Model | None,
    source: str | dict[str, Any] | None,
    registry: Registry,
    scope: Mapping[str, Sequence[str]] | None,
    heads: tuple[str, ...],
    tokenizer: str | Mapping[str, Any] | None = None,
) -> ModelPool:
    if _kind_of("models", next(iter(models.values()))) == "path":
        references = {name: _reference(model) for name, model in models.items()}
        section: dict[str, Any] = {"models": references, "heads": heads}
        section |= {"base": _reference(base)} if base is not None else {}
        section |= {"source": source} if source is not None else {}
        section |= {"scope": scope} if scope is not None else {}
        section |= {"tokenizer": tokenizer} if tokenizer is not None else {}
        return build_pool(section, registry)
    if tokenizer is not None:
        raise ConfigError("`tokenizer` is for models given as paths: others come without one")
    pooled = {name: PooledModel(name, content=model) for name, model in models.items()}
    reference = PooledModel("_base_", content=base) if base is not None else None
    return ModelPool(pooled, reference, scope=scope, heads=heads)


def _reference(model: Any) -> str | dict[str, Any]:
    return dict(model) if isinstance(model, Mapping) else str(model)


def _tasks(tasks: Tasks | None, registry: Registry) -> TaskPool | None:
    if tasks is None or isinstance(tasks, TaskPool):
        return tasks
    if isinstance(tasks, str):
        from fusionbench_core.config import load_preset

        return build_task_pool(load_preset("taskpool", tasks, registry), registry)
    entries = {name: {"task": task.record.name} for name, task in tasks.items()}
    return TaskPool(tasks, TaskPoolConfig.model_validate({"tasks": entries}))


def _fuse_paths(prepared: Prepared, output: str | Path | None, registry: Registry) -> Path:
    if output is None:
        raise ConfigError(
            "models given as paths are fused from disk to disk, and there is no output directory",
            fix='say where to write: fuse(…, output="merged")',
        )
    directory = Path(output)
    method, pool, options, seed = prepared.method, prepared.pool, prepared.options, prepared.config.seed
    plan = make_plan(method, pool, options, seed=seed)
    tasks = prepared.tasks.for_adaptation(method.capabilities.tasks) if prepared.tasks else {}
    writer = ArtefactWriter(directory, method, prepared.record, pool, options=options, seed=seed)
    fuse_to_disk(prepared, plan, writer, registry, tasks, Console(), lambda step: None)
    writer.publish()
    return directory
