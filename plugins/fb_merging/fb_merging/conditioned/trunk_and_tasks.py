"""A base, and what turns it into the model of each task."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusionbench_core import TaskConditioned


class TrunkAndTasks(TaskConditioned):
    """For each task the base with some tensors changed.

    In its state dict the base has its own names, as model sources look for them in the files of an artefact.

    Args:
        tasks: Their names.
        trunk: The base, a live module; kept, not copied.
        tensors: Names of the tensors that change, in the trunk's state dict.
    """

    own: ClassVar[tuple[str, ...]]
    """Names of the modules and parameters that are not the trunk's."""

    def __init__(self, tasks: Sequence[str], trunk: nn.Module, tensors: Sequence[str]) -> None:
        super().__init__(tasks)
        self.trunk = trunk
        self.tensors = tuple(tensors)
        self.register_state_dict_post_hook(_with_own_names)
        self.register_load_state_dict_pre_hook(_with_prefix)

    @property
    def shaped(self) -> list[Tensor]:
        """The base's tensors that change."""
        state = self.trunk.state_dict()
        return [state[name] for name in self.tensors]

    @abstractmethod
    def tuned(self, task: str, place: int, base: Tensor) -> Tensor:
        """Tensor number `place` of a task's model; `base` is the base's, in fp32 or fp64, not written to."""

    def view(self, task: str) -> nn.Module:
        """A copy of the base with the task's tensors."""
        module = copy.deepcopy(self.trunk)
        state = module.state_dict()
        for place, name in enumerate(self.tensors):
            state[name].copy_(self.tuned(task, place, state[name].to(working_dtype(state[name]))))
        return module


def working_dtype(tensor: Tensor) -> torch.dtype:
    """fp32, or fp64 for a tensor in fp64."""
    return torch.promote_types(tensor.dtype, torch.float32)


_TRUNK = "trunk."


def _with_own_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(prefix + _TRUNK)]:
        state[prefix + name.removeprefix(prefix + _TRUNK)] = state.pop(name)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    assert isinstance(module, TrunkAndTasks)
    others = tuple(f"{prefix}{name}." for name in module.own)
    for name in [name for name in state if name.startswith(prefix) and not name.startswith(others)]:
        state[prefix + _TRUNK + name.removeprefix(prefix)] = state.pop(name)
