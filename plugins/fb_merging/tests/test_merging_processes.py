"""Learning on several processes gives what learning on one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fusionbench_core import AdaptationTask, FusionJob, ModelPool, PooledModel, TaskModels
from fusionbench_core.testing.zoo import case

CHILD = """
import json, os, sys
from lightning.fabric import Fabric
from fb_merging.learned.adamerging import AdaMerging
from fusionbench_core import AdaptationTask, FusionJob, ModelPool, PooledModel
from fusionbench_core.testing.zoo import case

def make():
    world = int(os.environ.get("WORLD_SIZE", 1))
    strategy = "ddp" if world > 1 else "auto"
    fabric = Fabric(accelerator="cpu", devices=world, strategy=strategy)
    fabric.launch()
    return fabric

small = case("mlp", count=2)
models = {name: PooledModel(name, content=model) for name, model in small.models.items()}
tasks = {name: AdaptationTask(task) for name, task in small.tasks.items()}
job = FusionJob(
    pool=ModelPool(models, PooledModel("base", content=small.base)), tasks=tasks, make_fabric=make
)
# 48 samples a split in batches of 9: shares of 5 and 4, and a last batch of 3.
details = AdaMerging(steps=8, batch_size=9, learning_rate=0.02).fuse(job).details
if job.fabric.is_global_zero:
    json.dump(details, open(sys.argv[1], "w"))
"""


@pytest.mark.parametrize("size", [1, 5, 9])
def test_the_mean_over_processes_of_weighted_losses_is_that_of_the_batch(size):
    small = case("mlp", count=2)
    models = {name: PooledModel(name, content=model) for name, model in small.models.items()}
    pool = ModelPool(models, PooledModel("base", content=small.base))
    found = []
    for rank in range(2):
        job = FusionJob(pool=pool, tasks={name: AdaptationTask(task) for name, task in small.tasks.items()})
        job.__dict__["fabric"] = SimpleNamespace(
            device=torch.device("cpu"), global_rank=rank, world_size=2, autocast=nullcontext
        )
        shared = TaskModels(job, "test", pool.module(), split="validation", batch_size=size)
        for task, batch, weight in shared.draw():
            found.append((task, weight * float(batch.inputs["x"].mean()), len(batch)))
    alone = FusionJob(pool=pool, tasks={name: AdaptationTask(task) for name, task in small.tasks.items()})
    whole = TaskModels(alone, "test", pool.module(), split="validation", batch_size=size)
    for task, batch, weight in whole.draw():
        assert weight == 1
        assert sum(count for of, _, count in found if of == task) == len(batch) == size
        mean = sum(value for of, value, _ in found if of == task) / 2
        assert mean == pytest.approx(float(batch.inputs["x"].mean()), rel=1e-5)


# Importing everything in new processes takes long.
@pytest.mark.slow
def test_two_processes_learn_the_coefficients_of_one(tmp_path):
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [_start(alone)]
    children += [_start(together, LOCAL_RANK=str(rank), RANK=str(rank), **shared) for rank in range(2)]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    one, two = (json.loads(path.read_text()) for path in (alone, together))
    # Sums are added in another order, and Adam divides by the gradients' sizes.
    flat = [[value for row in each["coefficients"]["values"] for value in row] for each in (one, two)]
    assert flat[1] == pytest.approx(flat[0], abs=1e-4)
    assert two["losses"]["series"]["entropy"] == pytest.approx(one["losses"]["series"]["entropy"], rel=1e-4)
    assert max(flat[0]) - min(flat[0]) > 0.01


def _start(result: Any, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-c", CHILD, str(result)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
