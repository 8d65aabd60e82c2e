"""The embedded benchmarks behave as the literature says, measured on a part of their test splits."""

from __future__ import annotations

import pytest

from fusionbench_core.config import compose, load_preset
from fusionbench_core.config.schema import RunConfig
from fusionbench_core.pools.config import build_pool
from fusionbench_core.registry import default_registry
from fusionbench_core.run import prepare
from fusionbench_core.run.fusing import fuse_in_memory, live
from fusionbench_core.tasks.pool import TaskPool, build_task_pool

LIMIT = 120
BENCHMARKS = ["embedded_text", "embedded_vision"]


def prepared(benchmark: str, *overrides: str):
    registry = default_registry()
    composed = compose([*overrides, f"taskpool.limit={LIMIT}"], None, benchmark, registry)
    return prepare(RunConfig.model_validate(composed.values), registry)


def mean(results: dict) -> float:
    return sum(result.metrics["accuracy"] for result in results.values()) / len(results)


@pytest.fixture(scope="module", params=BENCHMARKS)
def measured(request) -> dict[str, float]:
    """Mean accuracy of the base, the average, the preset's task arithmetic, and the experts at home."""
    registry, scores = default_registry(), {}
    for label, overrides in (("average", ["method=simple_average"]), ("arithmetic", [])):
        run = prepared(request.param, *overrides)
        assert run.tasks is not None
        model = live(fuse_in_memory(run, registry, {}), run.pool)
        scores[label] = mean(run.tasks.evaluate(model))
    scores["base"] = mean(run.tasks.evaluate(run.pool.module()))
    own = [run.tasks.evaluate(run.pool.module(name), only=run.pool.task_of(name)) for name in run.pool.names]
    scores["individual"] = sum(map(mean, own)) / len(own)
    return scores


def test_base_average_task_arithmetic_and_experts_are_in_the_order_of_the_literature(measured):
    assert measured["base"] + 0.02 < measured["average"]
    assert measured["average"] < measured["arithmetic"]
    assert measured["arithmetic"] + 0.02 < measured["individual"]


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_recorded_baselines_cover_every_task(benchmark):
    registry = default_registry()
    tasks = build_task_pool(load_preset("taskpool", benchmark, registry), registry)
    pool = build_pool(load_preset("modelpool", benchmark, registry), registry)
    assert len(tasks.tasks) >= 5
    assert set(pool.baselines) == {"multi_task"}
    assert set(tasks.config.baselines) == {"pretrained", "individual", *pool.baselines}
    for measured in tasks.config.baselines.values():
        assert set(measured) == set(tasks.tasks)
    assert {pool.task_of(name) for name in pool.names} == set(tasks.tasks)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_recorded_baselines_are_what_is_measured(benchmark):
    run = prepared(benchmark, "taskpool.limit=null")
    assert run.tasks is not None
    tasks = TaskPool(run.tasks.tasks, run.tasks.config.model_copy(update={"limit": None}))
    for kind, model in [("pretrained", None), *((name, name) for name in run.pool.baselines)]:
        for task, result in tasks.evaluate(run.pool.module(model)).items():
            recorded = tasks.config.baselines[kind][task]["accuracy"]
            assert result.metrics["accuracy"] == pytest.approx(recorded, abs=0.005), kind
    for name in run.pool.names:
        task = run.pool.task_of(name)
        result = tasks.evaluate(run.pool.module(name), only=task)[task]
        recorded = tasks.config.baselines["individual"][task]["accuracy"]
        assert result.metrics["accuracy"] == pytest.approx(recorded, abs=0.005)
