"""Attach a task's head to whatever a fusion made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fusionbench_core.methods.conditioned import TaskConditioned
from fusionbench_core.methods.predictor import Predictor
from fusionbench_core.tasks.task import Task


class EnsembleTaskModel(nn.Module):
    """A predictor whose members each carry the task's head; their logits are combined."""

    def __init__(self, predictor: Predictor, task: Task) -> None:
        super().__init__()
        self.trunk = predictor
        self.members = predictor.members.attach(task.attach)

    def forward(self, *args: Any, **inputs: Any) -> Tensor:
        """Logits `(n, classes)`."""
        return self.trunk.combine(torch.stack(self.members(*args, **inputs)))


def attach(task: Task, trunk: nn.Module) -> nn.Module:
    """The task model of a trunk, of a predictor over several trunks, or of what has one for each task.

    Raises:
        MissingCapability: if a task-conditioned model does not know this task.
    """
    if isinstance(trunk, TaskConditioned):
        trunk = trunk.for_task(task.name)
    if isinstance(trunk, Predictor):
        return EnsembleTaskModel(trunk, task)
    return task.attach(trunk)
