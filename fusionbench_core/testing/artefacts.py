"""Run a method on a pool of the kit's own making: in memory, to disk, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench_core.artefact.complete import complete_state
from fusionbench_core.artefact.load import load_artefact
from fusionbench_core.artefact.write import ArtefactWriter
from fusionbench_core.config.schema import EngineConfig, FabricConfig, RunConfig
from fusionbench_core.engine.plan import make_plan
from fusionbench_core.engine.step import PlanStep
from fusionbench_core.plugins.local import load_file
from fusionbench_core.registry import Registry
from fusionbench_core.run.console import Console
from fusionbench_core.run.fusing import fuse_in_memory, fuse_to_disk
from fusionbench_core.run.prepare import Prepared, engine_options
from fusionbench_core.tasks.pool import TaskPool, TaskPoolConfig
from fusionbench_core.testing import zoo_source
from fusionbench_core.testing.sandbox import fixed_global_seed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fusionbench_core.methods import Method
    from fusionbench_core.pools import ModelPool
    from fusionbench_core.tasks import Task
    from fusionbench_core.tasks.adaptation import AdaptationTask
    from fusionbench_core.testing.method_subject import MethodSubject
    from fusionbench_core.testing.zoo import Case

ZOO_PLUGIN = Path(zoo_source.__file__)
"""The plugin file that a process needs to load what is written here."""


def takes_base(subject: MethodSubject) -> bool:
    """Whether the pool of a method has a base."""
    return subject.record.capabilities.base != "forbidden"


def pool_for(subject: MethodSubject, case: Case, directory: Path, **options: Any) -> ModelPool:
    """A case on disk, with a base if the method takes one. Options as of `pool_on_disk`."""
    return zoo_source.pool_on_disk(case, directory, base=takes_base(subject), **options)


def fuse_pool(
    subject: MethodSubject,
    pool: ModelPool,
    tasks: Mapping[str, Task],
    *,
    threads: int | None = None,
    accelerator: str = "auto",
) -> dict[str, Tensor] | nn.Module:
    """Fuse a pool in memory: a whole state dict, or the module of a new architecture.

    Args:
        threads: Of the engine; None for one a processor.
        accelerator: Where learned methods and statistics compute, in Fabric's words.
    """
    method = subject.method(pool.names)
    prepared, adaptation = _prepare(subject, method, pool, tasks, threads, accelerator)
    with fixed_global_seed():
        fused = fuse_in_memory(prepared, subject.registry, adaptation)
    return complete_state(fused.state or {}, pool) if fused.module is None else fused.module


def write_artefact(
    subject: MethodSubject,
    pool: ModelPool,
    tasks: Mapping[str, Task],
    directory: Path,
    *,
    method: Method | None = None,
    on_step: Callable[[PlanStep], None] = lambda step: None,
) -> None:
    """Fuse a pool to disk, as `fb run` does.

    Args:
        method: The very object to use; by default a new one.
        on_step: Called whenever a tensor is written.
    """
    method = method or subject.method(pool.names)
    prepared, adaptation = _prepare(subject, method, pool, tasks)
    writer = ArtefactWriter(directory, method, subject.record, pool, options=prepared.options)
    plan = make_plan(method, pool, prepared.options)
    with fixed_global_seed():
        fuse_to_disk(prepared, plan, writer, subject.registry, adaptation, Console(), on_step)
    writer.publish()


def load_written(subject: MethodSubject, directory: Path) -> nn.Module:
    """The live module of an artefact made from models of the zoo."""
    zoo = load_file(ZOO_PLUGIN, subject.registry.plugins)
    return load_artefact(directory, Registry([*subject.registry.plugins, zoo]))


def _prepare(
    subject: MethodSubject,
    method: Method,
    pool: ModelPool,
    tasks: Mapping[str, Task],
    threads: int | None = None,
    accelerator: str = "auto",
) -> tuple[Prepared, dict[str, AdaptationTask]]:
    config = RunConfig(modelpool={}, fabric=FabricConfig(accelerator=accelerator))
    device = "cuda" if accelerator == "cuda" else "cpu"
    options = engine_options(EngineConfig(threads=threads, device=device))
    declared = subject.record.capabilities
    entries: dict[str, Any] = {name: {"task": task.record.name} for name, task in tasks.items()}
    task_pool = TaskPool(tasks, TaskPoolConfig.model_validate({"tasks": entries}))
    prepared = Prepared(config, method, subject.record, pool, task_pool, options)
    wanted = declared.tasks or declared.statistics
    return prepared, task_pool.for_adaptation(declared.tasks) if wanted else {}
