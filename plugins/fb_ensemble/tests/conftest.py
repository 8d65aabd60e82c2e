"""Small models and tasks of the conformance kit, as a method sees them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fusionbench_core import AdaptationTask, FusionJob, ModelPool, PooledModel
from fusionbench_core.testing import Case, case


@pytest.fixture(scope="session")
def zoo() -> Case:
    """Three models with a task each: three classes, 48 samples a split."""
    return case("mlp", samples=48)


@pytest.fixture
def job(zoo: Case) -> Callable[..., FusionJob]:
    """Makes the job of a method over the zoo: labelled validation data, no test data."""

    def make(**options) -> FusionJob:
        models = options.pop("models", zoo.models)
        pool = ModelPool({name: PooledModel(name, content=model) for name, model in models.items()})
        tasks = {name: AdaptationTask(task, labels=True) for name, task in zoo.tasks.items()}
        return FusionJob(pool, **{"tasks": tasks, **options})

    return make


@pytest.fixture(scope="session")
def validation(zoo: Case) -> dict[str, tuple[Tensor, Tensor]]:
    """Task -> fp64 logits `(models, n, classes)` of all models, and labels, on its validation split."""
    return {name: (logits_of(zoo, name, "validation"), labels_of(zoo, name)) for name in zoo.tasks}


@torch.no_grad()
def logits_of(zoo: Case, task: str, split: str) -> Tensor:
    """fp32 forward passes of every model under the task's head, as fp64."""
    (batch,) = zoo.tasks[task].batches(split, labelled=False)
    attached = [zoo.tasks[task].attach(copy.deepcopy(model)) for model in zoo.models.values()]
    return torch.stack([each(**batch.inputs) for each in attached]).double()


def labels_of(zoo: Case, task: str, split: str = "validation") -> Tensor:
    (batch,) = zoo.tasks[task].batches(split, labelled=True)
    assert batch.labels is not None
    return batch.labels
