"""The model that the methods of this package give: one task vector, and a mask for each task."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fb_merging.operations.bits import packed_size, unpack
from fusionbench_core import BuildContext, TaskConditioned


class MaskedTasks(TaskConditioned):
    r"""For each task $t$ the model $\theta_0 + \lambda_t\,m_t \odot \tau$.

    It costs two models, and a bit of every parameter a task. In its state dict the base has its own names, as
    model sources look for them in the files of an artefact.

    Args:
        rescalers: Task -> $\lambda_t$.
        trunk: The base $\theta_0$, a live module; kept, not copied.
        tensors: Names of the tensors that $\tau$ changes, in the trunk's state dict.

    Attributes:
        task_vector: $\tau$: a tensor for each of `tensors`, in the trunk's dtype.
        task_masks: $m_t$: uint8 `(tasks, bytes)` for each of `tensors`, packed by `operations.bits`.
        rescalers: $\lambda_t$: task -> factor.
    """

    def __init__(self, rescalers: Mapping[str, float], trunk: nn.Module, tensors: Sequence[str]) -> None:
        super().__init__(tuple(rescalers))
        self.rescalers = dict(rescalers)
        self.trunk = trunk
        self.tensors = tuple(tensors)
        state = trunk.state_dict()
        shaped = [state[name] for name in self.tensors]
        self.task_vector = nn.ParameterList(
            nn.Parameter(torch.zeros_like(each), requires_grad=False) for each in shaped
        )
        self.task_masks = nn.Module()
        for index, each in enumerate(shaped):
            empty = torch.zeros(len(self.tasks), packed_size(each.numel()), dtype=torch.uint8)
            self.task_masks.register_buffer(str(index), empty)
        self.register_state_dict_post_hook(_with_own_names)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def view(self, task: str) -> nn.Module:
        """A copy of the base with the task's masked and rescaled part of the task vector added."""
        index = self.tasks.index(task)
        module = copy.deepcopy(self.trunk)
        state = module.state_dict()
        for place, (name, unified) in enumerate(zip(self.tensors, self.task_vector)):
            mask = unpack(self.task_masks.get_buffer(str(place))[index], unified.numel()).view_as(unified)
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


_TRUNK, _OTHERS = "trunk.", ("task_vector.", "task_masks.")


def _with_own_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(prefix + _TRUNK)]:
        state[prefix + name.removeprefix(prefix + _TRUNK)] = state.pop(name)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    others = tuple(prefix + name for name in _OTHERS)
    for name in [name for name in state if name.startswith(prefix) and not name.startswith(others)]:
        state[prefix + _TRUNK + name.removeprefix(prefix)] = state.pop(name)
