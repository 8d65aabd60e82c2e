"""What models predict on the validation split of every task: all that is ever fitted here is fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fusionbench_core import (
    AdaptationTask,
    FusionJob,
    InsufficientResources,
    Members,
    MethodError,
    MissingCapability,
    available_memory,
)

Samples = Annotated[
    int | None, Field(gt=0, description="at most so many validation samples a task; null: all of them")
]


@dataclass(frozen=True)
class Predictions:
    """Of several models on one task. A sample of running text is predicted token by token.

    Attributes:
        logits: `(models, n, classes)`, fp64.
        labels: `(n,)`.
        samples: Number of samples; n is larger where each has several labels.
    """

    logits: Tensor
    labels: Tensor
    samples: int


@dataclass(frozen=True)
class Scores:
    """How good the predictions of several models on one task are.

    Attributes:
        accuracies: Fraction of right predictions of each model, `(models,)`.
        losses: Mean cross-entropy of each model in nats, `(models,)`.
        samples: Number of samples.
    """

    accuracies: Tensor
    losses: Tensor
    samples: int


def predictions(
    job: FusionJob,
    members: Members,
    samples: int | None,
    check: Callable[[str, Predictions], None] = lambda task, batch: None,
) -> dict[str, Predictions]:
    """Task name -> predictions of all members on its validation split, every task of the run.

    Every sample is asked for once, whatever the number of members. All logits are held: 8 bytes a model, a
    label and a class.

    Args:
        job: The job.
        members: The models.
        samples: At most so many samples a task; None for all.
        check: Looks at the predictions of each batch before more are made; may raise.

    Raises:
        MissingCapability: if there is no task, or one without labels.
        InsufficientResources: if the logits do not fit in memory.
        MethodError: if logits are NaN or Inf.
    """
    found: dict[str, Predictions] = {}
    for task, batches in _tasks(job, members, samples):
        kept: list[Predictions] = []
        held = 0
        for batch in batches:
            check(task, batch)
            kept.append(batch)
            held += batch.logits.nbytes
            _check_memory(task, held)
        found[task] = _joined(kept)
    return found


def scores(job: FusionJob, members: Members, samples: int | None) -> dict[str, Scores]:
    """Task name -> scores of all members on its validation split; no more than a batch is held.

    Raises:
        MissingCapability: if there is no task, or one without labels.
        MethodError: if logits are NaN or Inf.
    """
    return {task: _scored(batches) for task, batches in _tasks(job, members, samples)}


def mean_over_tasks(values: Sequence[Tensor]) -> Tensor:
    """Every task counts the same, whatever its number of samples."""
    return torch.stack(list(values)).mean(0)


def used(found: Mapping[str, Predictions] | Mapping[str, Scores]) -> dict[str, int]:
    """Task name -> number of labelled validation samples, for the report."""
    return {name: each.samples for name, each in found.items()}


def _tasks(
    job: FusionJob, members: Members, samples: int | None
) -> Iterator[tuple[str, Iterator[Predictions]]]:
    """Each task with its predictions, batch by batch."""
    if not job.tasks:
        raise MissingCapability(
            "this method looks at labelled validation data, and there is no task",
            fix="choose a task pool: taskpool=NAME; `fb list configs` shows them",
        )
    # By name: what is fitted does not depend on the order of the config.
    for done, name in enumerate(sorted(job.tasks), 1):
        yield name, _on_task(job, job.tasks[name], members, samples)
        job.progress(done, len(job.tasks), f"validation data of {name}")


@torch.no_grad()
def _on_task(
    job: FusionJob, task: AdaptationTask, members: Members, samples: int | None
) -> Iterator[Predictions]:
    device = job.fabric.device
    attached = members.attach(task.attach).to(device).eval()
    empty = True
    for batch in task.batches("validation", labelled=True, limit=samples):
        batch = batch.to(device)
        if batch.labels is None:
            raise MissingCapability(f"the validation data of task {task.name!r} have no labels")
        outputs = torch.stack(attached(**batch.inputs)).double().cpu()
        logits = _finite(outputs, members, task).flatten(1, -2)
        yield Predictions(logits, batch.labels.cpu().flatten(), len(batch))
        empty = False
    members.to("cpu")
    if empty:
        raise MissingCapability(
            f"task {task.name!r} has no validation data", fix="leave it out, or choose a method without data"
        )


def _check_memory(task: str, held: int) -> None:
    """Whether what is held can be joined, which takes as much again."""
    free = available_memory()
    if free is not None and held > free:
        raise InsufficientResources(
            f"the predictions for task {task!r} do not fit in memory",
            why=f"all logits are held in fp64, and {free / 1e9:.1f} GB of memory are free",
            fix="look at fewer samples: method.validation_samples=100",
        )


def _joined(batches: Sequence[Predictions]) -> Predictions:
    return Predictions(
        torch.cat([batch.logits for batch in batches], dim=1),
        torch.cat([batch.labels for batch in batches]),
        sum(batch.samples for batch in batches),
    )


def _scored(batches: Iterator[Predictions]) -> Scores:
    right, loss, n, samples = torch.zeros(()), torch.zeros(()), 0, 0
    for batch in batches:
        right = right + (batch.logits.argmax(-1) == batch.labels).double().sum(-1)
        loss = loss + torch.stack(
            [F.cross_entropy(own, batch.labels, reduction="sum") for own in batch.logits]
        )
        n, samples = n + len(batch.labels), samples + batch.samples
    return Scores(right / n, loss / n, samples)


def _finite(logits: Tensor, members: Members, task: AdaptationTask) -> Tensor:
    for name, own in zip(members.names, logits):
        if not torch.isfinite(own).all():
            raise MethodError(
                f"the logits of model {name!r} hold NaN or Inf", task=task.name, fix="leave this model out"
            )
    return logits
