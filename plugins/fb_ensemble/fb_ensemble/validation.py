"""What models predict on the validation split of every task: all that is ever fitted here is fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fusionbench_core import AdaptationTask, FusionJob, Members, MethodError, MissingCapability

Samples = Annotated[
    int | None, Field(gt=0, description="at most so many validation samples a task; null: all of them")
]


@dataclass(frozen=True)
class Predictions:
    """Of several models on one task.

    Attributes:
        logits: `(models, n, classes)`, fp64.
        labels: `(n,)`.
    """

    logits: Tensor
    labels: Tensor

    @property
    def accuracies(self) -> Tensor:
        """Fraction of right predictions of each model, `(models,)`."""
        return (self.logits.argmax(-1) == self.labels).double().mean(-1)

    @property
    def losses(self) -> Tensor:
        """Mean cross-entropy of each model in nats, `(models,)`."""
        models, n, classes = self.logits.shape
        labels = self.labels.expand(models, n).reshape(-1)
        losses = F.cross_entropy(self.logits.reshape(-1, classes), labels, reduction="none")
        return losses.view(models, n).mean(-1)


def predictions(job: FusionJob, members: Members, samples: int | None) -> dict[str, Predictions]:
    """Task name -> predictions of all members on its validation split, every task of the run.

    Every sample is asked for once, whatever the number of members.

    Raises:
        MissingCapability: if there is no task, or one without labels.
        MethodError: if logits are NaN or Inf.
    """
    if not job.tasks:
        raise MissingCapability(
            "this method looks at labelled validation data, and there is no task",
            fix="choose a task pool: taskpool=NAME; `fb list configs` shows them",
        )
    found = {}
    # By name: what is fitted does not depend on the order of the config.
    for done, name in enumerate(sorted(job.tasks), 1):
        found[name] = _on_task(job, job.tasks[name], members, samples)
        job.progress(done, len(job.tasks), f"validation data of {name}")
    return found


def mean_over_tasks(values: Sequence[Tensor]) -> Tensor:
    """Every task counts the same, whatever its number of samples."""
    return torch.stack(list(values)).mean(0)


def used(found: Mapping[str, Predictions]) -> dict[str, int]:
    """Task name -> number of labelled validation samples, for the report."""
    return {name: len(each.labels) for name, each in found.items()}


@torch.no_grad()
def _on_task(job: FusionJob, task: AdaptationTask, members: Members, samples: int | None) -> Predictions:
    device = job.fabric.device
    attached = members.attach(task.attach).to(device).eval()
    logits, labels = [], []
    for batch in task.batches("validation", labelled=True, limit=samples):
        batch = batch.to(device)
        if batch.labels is None:
            raise MissingCapability(f"the validation data of task {task.name!r} have no labels")
        outputs = torch.stack(attached(**batch.inputs)).double().cpu()
        logits.append(_finite(outputs, members, task))
        labels.append(batch.labels.cpu())
    members.to("cpu")
    if not logits:
        raise MissingCapability(
            f"task {task.name!r} has no validation data", fix="leave it out, or choose a method without data"
        )
    return Predictions(torch.cat(logits, dim=1), torch.cat(labels))


def _finite(logits: Tensor, members: Members, task: AdaptationTask) -> Tensor:
    for name, own in zip(members.names, logits):
        if not torch.isfinite(own).all():
            raise MethodError(
                f"the logits of model {name!r} hold NaN or Inf", task=task.name, fix="leave this model out"
            )
    return logits
