"""Models that must be told which task an input belongs to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import nn

from fusionbench_core.errors import MissingCapability


class TaskConditioned(nn.Module):
    """A model that is another one for each task it knows.

    Task pools ask for the view of the task they measure, and reports say that the task was given: such
    results do not compare with those of one model for all tasks. It cannot be called by itself.

    Args:
        tasks: Names of the tasks; for methods, `pool.task_of(model)` of each model.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    @abstractmethod
    def view(self, task: str) -> nn.Module:
        """A live module for one of the known tasks, which the caller may move and change."""

    def for_task(self, name: str) -> nn.Module:
        """The model for a task.

        Raises:
            MissingCapability: if it knows no such task.
        """
        if name not in self.tasks:
            raise MissingCapability(
                f"the model knows no task {name!r}",
                why=f"it is another model for each of {', '.join(self.tasks)}",
                fix="measure these tasks only, or say which one a model is for: modelpool.data.MODEL=TASK",
            )
        return self.view(name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise MissingCapability(
            "this model must be told the task",
            why=f"it is another model for each of {', '.join(self.tasks)}",
            fix="call what `model.for_task(NAME)` gives",
        )
