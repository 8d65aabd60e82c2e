"""The fusing stage: stream a tensor method to disk, or let a model method build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fusionbench_core.artefact.complete import complete_state
from fusionbench_core.artefact.manifest import Manifest
from fusionbench_core.artefact.write import ArtefactWriter
from fusionbench_core.checkpoints import StateDictCheckpoint
from fusionbench_core.config.schema import FabricConfig, RunConfig
from fusionbench_core.engine.memory import merge_in_memory
from fusionbench_core.engine.plan import Plan, make_plan
from fusionbench_core.engine.step import PlanStep
from fusionbench_core.errors import FusionError, MethodError
from fusionbench_core.fabric import fabric_class
from fusionbench_core.methods.fused import Fused
from fusionbench_core.methods.job import FusionJob
from fusionbench_core.methods.method import ModelMethod, TensorMethod
from fusionbench_core.pools.pool import ModelPool
from fusionbench_core.registry import Registry
from fusionbench_core.run.console import Console
from fusionbench_core.run.directory import RunDirectory
from fusionbench_core.run.prepare import Prepared, compute_device
from fusionbench_core.statistics.collect import collect_statistics
from fusionbench_core.tasks.adaptation import AdaptationTask


def fuse_to_disk(
    prepared: Prepared,
    plan: Plan,
    writer: ArtefactWriter,
    registry: Registry,
    adaptation: Mapping[str, AdaptationTask],
    console: Console,
    on_step: Callable[[PlanStep], None],
    scratch: Path | None = None,
) -> tuple[Manifest, Mapping[str, Any]]:
    """Fuse and write; gives the manifest and the method's details for the report.

    `scratch` is where a method keeps what a resumed run goes on with.
    """
    method = prepared.method
    if isinstance(method, ModelMethod):
        console.stage("fuse", prepared.record.full_name)
        fused = call_model_method(method, prepared, adaptation, console, scratch)
        return writer.fused(fused), fused.details
    assert isinstance(method, TensorMethod)
    statistics = None
    if method.capabilities.statistics:
        console.stage("statistics", ", ".join(method.capabilities.statistics))
        statistics = collect_statistics(
            method,
            _as_read(prepared),
            adaptation,
            registry,
            names=plan.models,
            seed=prepared.config.seed,
            device=compute_device(prepared.config.fabric),
            on_progress=console.progress,
        )
    console.stage("merge", prepared.record.full_name)
    total, seen = len(plan.steps), 0

    def written(step: PlanStep) -> None:
        nonlocal seen
        seen += 1
        console.progress(seen, total, step.name)
        on_step(step)

    slow = False

    def finished(done: int, count: int) -> None:
        nonlocal slow
        if not slow and done < count:
            slow = True
            console.stage("finish", "hashes of all tensors, and everything onto the disk")
        if slow:
            console.progress(done, count)

    manifest = writer.merge(
        plan,
        method,
        statistics=statistics,
        on_step=written,
        on_survey=lambda done, count: console.progress(done, count, "survey"),
        on_finish=finished,
    )
    return manifest, {}


def fuse_in_memory(
    prepared: Prepared,
    registry: Registry,
    adaptation: Mapping[str, AdaptationTask],
    console: Console | None = None,
) -> Fused:
    """Fuse without writing anything."""
    console = console or Console()
    method, pool, seed = prepared.method, prepared.pool, prepared.config.seed
    plan = make_plan(method, pool, prepared.options, seed=seed)
    if isinstance(method, ModelMethod):
        return call_model_method(method, prepared, adaptation, console)
    assert isinstance(method, TensorMethod)
    statistics = None
    if method.capabilities.statistics:
        statistics = collect_statistics(
            method,
            _as_read(prepared),
            adaptation,
            registry,
            names=plan.models,
            seed=seed,
            device=compute_device(prepared.config.fabric),
            on_progress=console.progress,
        )
    state = merge_in_memory(
        method, pool, options=prepared.options, seed=seed, statistics=statistics, plan=plan
    )
    return Fused.weights(state)


def live(fused: Fused, pool: ModelPool) -> nn.Module:
    """The module of what a method made."""
    if fused.module is not None:
        return fused.module
    return pool.build(StateDictCheckpoint(complete_state(fused.state or {}, pool)))


def call_model_method(
    method: ModelMethod,
    prepared: Prepared,
    adaptation: Mapping[str, AdaptationTask],
    console: Console,
    scratch: Path | None = None,
) -> Fused:
    """Run a model method in a guard.

    Raises:
        MethodError: naming method and plugin, for anything the method did not foresee.
    """
    job = FusionJob(
        pool=_as_read(prepared),
        tasks=adaptation,
        seed=prepared.config.seed,
        run_tensor_method=lambda inner: merge_in_memory(
            inner, prepared.pool, options=prepared.options, seed=prepared.config.seed
        ),
        make_fabric=lambda: make_fabric(prepared.config.fabric),
        on_progress=console.progress,
        directory=scratch,
        learned_from=_learned_from(prepared.config),
        finish=prepared.finish,
    )
    try:
        fused = method.fuse(job)
    except FusionError:
        raise
    except Exception as error:
        origin = prepared.record.origin
        raise MethodError(
            f"{prepared.record.full_name} failed",
            plugin=f"{origin.distribution} {origin.version}" if origin else None,
            why=f"{type(error).__name__}: {error}",
            fix="report this to the authors of the plugin; FB_DEBUG=1 shows where it happened",
        ) from error
    if not isinstance(fused, Fused):
        raise MethodError(f"{prepared.record.full_name} gave a {type(fused).__name__}, not a Fused")
    return fused


def _learned_from(config: RunConfig) -> Path | None:
    return RunDirectory(Path(config.learned_from)).adaptation if config.learned_from else None


def _as_read(prepared: Prepared) -> ModelPool:
    """The pool as methods and statistics see it: the engine checks what it reads itself."""
    return prepared.pool.checked() if prepared.options.check_finite else prepared.pool


def make_fabric(config: FabricConfig) -> Any:
    """Lightning Fabric as configured, launched."""
    fabric = fabric_class()(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy=config.strategy,
        precision=config.precision,  # type: ignore[arg-type]
        num_nodes=config.num_nodes,
    )
    fabric.launch()
    return fabric
