"""The model that the methods of this package give: one task vector, and a mask for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fb_merging.conditioned.trunk_and_tasks import TrunkAndTasks
from fb_merging.operations.bits import packed_size, unpack
from fusionbench_core import BuildContext


class MaskedTasks(TrunkAndTasks):
    r"""For each task $t$ the model $\theta_0 + \lambda_t\,m_t \odot \tau$.

    It costs two models, and a bit of every parameter a task.

    Args:
        rescalers: Task -> $\lambda_t$.
        trunk: The base $\theta_0$, a live module; kept, not copied.
        tensors: Names of the tensors that $\tau$ changes, in the trunk's state dict.

    Attributes:
        task_vector: $\tau$: a tensor for each of `tensors`, in the trunk's dtype.
        task_masks: $m_t$: uint8 `(tasks, bytes)` for each of `tensors`, packed by `operations.bits`.
        rescalers: $\lambda_t$: task -> factor.
    """

    own = ("task_vector", "task_masks")

    def __init__(self, rescalers: Mapping[str, float], trunk: nn.Module, tensors: Sequence[str]) -> None:
        super().__init__(tuple(rescalers), trunk, tensors)
        self.rescalers = dict(rescalers)
        self.task_vector = nn.ParameterList(
            nn.Parameter(torch.zeros_like(each), requires_grad=False) for each in self.shaped
        )
        self.task_masks = nn.Module()
        for place, each in enumerate(self.shaped):
            empty = torch.zeros(len(self.tasks), packed_size(each.numel()), dtype=torch.uint8)
            self.task_masks.register_buffer(str(place), empty)

    def tuned(self, task: str, place: int, base: Tensor) -> Tensor:
        unified = self.task_vector[place]
        packed = self.task_masks.get_buffer(str(place))[self.tasks.index(task)]
        mask = unpack(packed, unified.numel()).view_as(unified)
        update = torch.where(mask, unified, 0).to(base.dtype)
        return torch.add(base, update, alpha=self.rescalers[task])


def build_masked_tasks(context: BuildContext) -> MaskedTasks:
    """The module that `arguments` describe (`rescalers` and `tensors`), with all masks empty."""
    return MaskedTasks(context.arguments["rescalers"], context.skeleton(), context.arguments["tensors"])
