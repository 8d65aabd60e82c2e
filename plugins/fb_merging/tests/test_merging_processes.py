"""Learning on several processes gives what learning on one does."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fb_merging.learned.adamerging import AdaMerging
from lightning.fabric import Fabric

from fusionbench_core import AdaptationTask, FusionJob, ModelPool, PooledModel, TaskModels
from fusionbench_core.testing.zoo import case

SMALL = case("mlp", count=2)


def learn(world: int, directory: Path | None = None, **parameters: Any) -> dict[str, Any]:
    """Learn in as many processes as there are; gives the details of this one."""

    def launched() -> Fabric:
        strategy = "ddp" if world > 1 else "auto"
        fabric = Fabric(accelerator="cpu", devices=world, strategy=strategy)
        fabric.launch()
        return fabric

    steps: list[int] = []
    job = replace(
        job_of(),
        make_fabric=launched,
        directory=directory,
        on_progress=lambda done, total, message: steps.append(done),
    )
    # 12 samples a split in batches of 9: shares of 5 and 4, and a last batch of 3.
    method = AdaMerging(batch_size=9, learning_rate=0.02, **parameters)
    return {**method.fuse(job).details, "steps taken": steps}


def job_of() -> FusionJob:
    models = {name: PooledModel(name, content=model) for name, model in SMALL.models.items()}
    tasks = {name: AdaptationTask(task) for name, task in SMALL.tasks.items()}
    return FusionJob(pool=ModelPool(models, PooledModel("base", content=SMALL.base)), tasks=tasks)


@pytest.mark.parametrize("size", [1, 5, 9])
def test_the_mean_over_processes_of_weighted_losses_is_that_of_the_batch(size):
    found = []
    for rank in range(2):
        job = job_of()
        job.__dict__["fabric"] = SimpleNamespace(
            device=torch.device("cpu"), global_rank=rank, world_size=2, autocast=nullcontext
        )
        shared = TaskModels(job, "test", job.pool.module(), split="validation", batch_size=size)
        for task, batch, weight in shared.draw():
            found.append((task, weight * float(batch.inputs["x"].mean()), len(batch)))
    alone = job_of()
    whole = TaskModels(alone, "test", alone.pool.module(), split="validation", batch_size=size)
    for task, batch, weight in whole.draw():
        assert weight == 1
        assert sum(count for of, _, count in found if of == task) == len(batch) == size
        mean = sum(value for of, value, _ in found if of == task) / 2
        assert mean == pytest.approx(float(batch.inputs["x"].mean()), rel=1e-5)


# Forked, because importing everything in new processes would take long.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_two_processes_learn_the_coefficients_of_one_and_go_on_where_one_stopped(tmp_path):
    alone = learn(1, steps=8)

    def stop(done: int, total: int, message: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    method = AdaMerging(batch_size=9, learning_rate=0.02, steps=8)
    with pytest.raises(KeyboardInterrupt):
        method.fuse(replace(job_of(), directory=tmp_path, on_progress=stop))
    # The second process has no directory, and hears from the first where to go on.
    for directory, first in ((None, 1), (tmp_path, 4)):
        together = in_two_processes(directory, steps=8)
        # Sums are added in another order, and Adam divides by the gradients' sizes.
        for details in together:
            assert details["steps taken"] == list(range(first, 9))
            assert flat(details) == pytest.approx(flat(alone), abs=1e-4)
            losses = details["losses"]["series"]["entropy"]
            assert losses == pytest.approx(alone["losses"]["series"]["entropy"], rel=1e-4)
    assert max(flat(alone)) - min(flat(alone)) > 0.01


def flat(details: dict[str, Any]) -> list[float]:
    return [value for row in details["coefficients"]["values"] for value in row]


def in_two_processes(directory: Path | None = None, **parameters: Any) -> list[dict[str, Any]]:
    """The details of both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def work(rank: int) -> None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": str(rank)}
        torch.set_num_threads(1)
        found = learn(2, None if rank else directory, **parameters)
        results.put(json.dumps(found))

    processes = [context.Process(target=work, args=(rank,), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    try:
        assert [process.exitcode for process in processes] == [0, 0]
        return [json.loads(results.get()) for _ in processes]
    finally:
        for process in processes:
            process.kill()
