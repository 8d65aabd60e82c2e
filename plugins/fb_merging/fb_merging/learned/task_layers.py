"""The model that SyMerge gives: one trunk, and for each task a few tensors of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fb_merging.conditioned.trunk_and_tasks import TrunkAndTasks
from fusionbench_core import BuildContext


class TaskLayers(TrunkAndTasks):
    """For each task the trunk with its own values of some tensors.

    Args:
        tasks: Their names.
        trunk: The merged trunk; kept, not copied.
        tensors: Names of the tensors that each task has its own, in the trunk's state dict.

    Attributes:
        task_layers: The values `(tasks, *shape)` for each of `tensors`, in the trunk's dtype.
    """

    own = ("task_layers",)

    def __init__(self, tasks: Sequence[str], trunk: nn.Module, tensors: Sequence[str]) -> None:
        super().__init__(tasks, trunk, tensors)
        self.task_layers = nn.ParameterList(
            nn.Parameter(torch.stack([each] * len(self.tasks)), requires_grad=False) for each in self.shaped
        )

    def tuned(self, task: str, place: int, base: Tensor) -> Tensor:
        return self.task_layers[place][self.tasks.index(task)].to(base.dtype)


def build_task_layers(context: BuildContext) -> TaskLayers:
    """The module that `arguments` describe (`tasks` and `tensors`), every layer the trunk's."""
    return TaskLayers(context.arguments["tasks"], context.skeleton(), context.arguments["tensors"])
