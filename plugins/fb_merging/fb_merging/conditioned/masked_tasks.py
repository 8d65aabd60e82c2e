"""The model that the methods of this package give: one task vector, and a mask for each task."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fb_merging.operations.bits import packed_size, unpack
from fusionbench_core import BuildContext, TaskConditioned


class MaskedTasks(TaskConditioned):
    r"""For each task $t$ the model $\theta_0 + \lambda_t\,m_t \odot \tau$.

    It costs two models, and a bit of every parameter a task.

    Args:
        rescalers: Task -> $\lambda_t$.
        trunk: The base $\theta_0$, a live module; kept, not copied.
        tensors: Names of the tensors that $\tau$ changes, in the trunk's state dict.

    Attributes:
        unified: $\tau$: a tensor for each of `tensors`, in the trunk's dtype.
        masks: $m_t$: uint8 `(tasks, bytes)` for each of `tensors`, packed by `operations.bits`.
        rescalers: $\lambda_t$: task -> factor.
    """

    def __init__(self, rescalers: Mapping[str, float], trunk: nn.Module, tensors: Sequence[str]) -> None:
        super().__init__(tuple(rescalers))
        self.rescalers = dict(rescalers)
        self.trunk = trunk
        self.tensors = tuple(tensors)
        state = trunk.state_dict()
        shaped = [state[name] for name in self.tensors]
        self.unified = nn.ParameterList(
            nn.Parameter(torch.zeros_like(each), requires_grad=False) for each in shaped
        )
        self.masks = nn.Module()
        for index, each in enumerate(shaped):
            empty = torch.zeros(len(self.tasks), packed_size(each.numel()), dtype=torch.uint8)
            self.masks.register_buffer(str(index), empty)

    def view(self, task: str) -> nn.Module:
        """A copy of the base with the task's masked and rescaled part of the task vector added."""
        index = self.tasks.index(task)
        module = copy.deepcopy(self.trunk)
        state = module.state_dict()
        for place, (name, unified) in enumerate(zip(self.tensors, self.unified)):
            mask = unpack(self.masks.get_buffer(str(place))[index], unified.numel()).view_as(unified)
            wide = working_dtype(unified)
            update = torch.where(mask, unified, 0).to(wide)
            state[name].copy_(torch.add(state[name].to(wide), update, alpha=self.rescalers[task]))
        return module


def build_masked_tasks(context: BuildContext) -> MaskedTasks:
    """The module that `arguments` describe (`rescalers` and `tensors`), with all masks empty."""
    return MaskedTasks(context.arguments["rescalers"], context.skeleton(), context.arguments["tensors"])


def working_dtype(tensor: Tensor) -> torch.dtype:
    """fp32, or fp64 for a tensor in fp64."""
    return torch.promote_types(tensor.dtype, torch.float32)
