"""From what a run knows to its report."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench_core.artefact.describe import describe_method, reference_of
from fusionbench_core.checkpoints.fingerprints import fingerprint
from fusionbench_core.engine.plan import Plan
from fusionbench_core.pools.pool import ModelPool, PooledModel
from fusionbench_core.registry import Registry
from fusionbench_core.report import Report
from fusionbench_core.run.environment import environment
from fusionbench_core.tasks.pool import TaskPool

if TYPE_CHECKING:
    from fusionbench_core.run.state import Run

_FINGERPRINTED = 4 * 10**9
"""Bytes of a pool up to which the report names the content of every model; hashing reads it all."""


def make_report(run: Run, registry: Registry, status: str, observer_warnings: list[str]) -> Report:
    """The report of a run, finished or not."""
    prepared = run.prepared
    record = prepared.record
    order = list(prepared.tasks.tasks) if prepared.tasks else []
    return Report(
        tasks={name: run.results[name].to_json() for name in order if name in run.results},
        model_info=run.model_info,
        status=status,
        name=prepared.config.name or "",
        created=run.created,
        command=[Path(run.command[0]).name, *run.command[1:]] if run.command else [],
        method={
            **describe_method(prepared.method, record),
            "paper": str(record.paper) if record.paper else None,
            "summary": record.summary,
            "formula": inspect.getdoc(type(prepared.method)),
        },
        modelpool=_pool(prepared.pool, run.plan),
        taskpool=_tasks(prepared.tasks),
        seed=prepared.config.seed,
        transductive=any("test" in used for used in run.adaptation.values()),
        adaptation_data=run.adaptation,
        baselines=_baselines(run),
        artefact=_artefact(run),
        plan=run.plan.summary() if run.plan else {},
        timings={stage: round(seconds, 3) for stage, seconds in run.timings.items()},
        environment=environment(registry.plugins.usable),
        plugins=[
            {
                "namespace": plugin.namespace,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "status": str(plugin.status),
            }
            for plugin in registry.plugins
        ],
        warnings=[*run.warnings, *observer_warnings],
        details=run.details,
        config=prepared.config.model_dump(mode="json"),
    )


def _pool(pool: ModelPool, plan: Plan | None) -> dict[str, Any]:
    small = plan is not None and plan.read_bytes <= _FINGERPRINTED

    def facts(model: PooledModel) -> dict[str, Any]:
        return {
            "reference": reference_of(model),
            "fingerprint": fingerprint(model.checkpoint) if small else None,
        }

    return {
        "base": facts(pool.base) if pool.base else None,
        "models": {name: facts(model) for name, model in pool.models.items()},
    }


def _tasks(tasks: TaskPool | None) -> dict[str, Any]:
    if tasks is None:
        return {}
    cards = {}
    for name, task in tasks.tasks.items():
        card = task.card()
        cards[name] = {
            "title": card.title,
            "version": card.version,
            "source": card.source,
            "licence": card.licence,
            "split": tasks.config.split,
        }
    return {"split": tasks.config.split, "limit": tasks.config.limit, "cards": cards}


def _baselines(run: Run) -> dict[str, Any]:
    """Measured or recorded; recorded ones say so. A limit makes recorded ones incomparable, so they go."""
    if run.prepared.config.check_baselines:
        return run.baselines
    if run.prepared.tasks is not None and run.prepared.tasks.config.limit is not None:
        return {}
    return {
        kind: {task: {**metrics, "recorded": True} for task, metrics in found.items()}
        for kind, found in run.baselines.items()
    }


def _artefact(run: Run) -> dict[str, Any]:
    directory = run.model_directory
    if run.manifest is None or not directory.is_dir():
        return {}
    return {
        "path": str(directory),
        "content_hash": run.manifest.content_hash,
        "bytes": sum(file.stat().st_size for file in directory.iterdir() if file.is_file()),
    }
