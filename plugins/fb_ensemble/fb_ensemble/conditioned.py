"""What is another model for each task, made of members that all tasks share."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fb_ensemble.predictors import StackedPredictor
from fusionbench_core import Members, TaskConditioned


class StackedTasks(TaskConditioned):
    """For each task an ensemble with a classifier of its own; the members are shared.

    Args:
        members: The models.
        classifiers: Task -> weight `(classes, members * classes)` and bias `(classes,)`.
    """

    def __init__(self, members: Members, classifiers: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__(tuple(classifiers))
        self.members = members
        self.classifiers = dict(classifiers)

    def view(self, task: str) -> nn.Module:
        """The ensemble of a task, over the members themselves, which are not copied."""
        return StackedPredictor(self.members, *self.classifiers[task])


class TaskRouter(TaskConditioned):
    """For each task one of the members.

    Args:
        members: The models.
        routes: Task -> name of its model.
    """

    def __init__(self, members: Members, routes: Mapping[str, str]) -> None:
        super().__init__(tuple(routes))
        self.members = members
        self.routes = dict(routes)

    def view(self, task: str) -> nn.Module:
        """A copy of the task's model."""
        return self.members.member(self.routes[task])
