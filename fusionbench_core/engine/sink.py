"""Where merged pieces go: into memory, or into a file."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fusionbench_core.engine.plan import Plan


class Sink(Protocol):
    """Takes pieces from any thread, in any order."""

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Store `values` (flat, output dtype) as entries `start`… of tensor `name`."""
        ...

    def read(self, name: str) -> Tensor:
        """The whole tensor, once all its pieces are written."""
        ...


class MemorySink:
    """A state dict, allocated once; tied names share one tensor."""

    def __init__(self, plan: Plan) -> None:
        self._aliases = plan.aliases
        self._state = {step.name: torch.empty(step.info.shape, dtype=step.info.dtype) for step in plan}

    def write(self, name: str, start: int, values: Tensor) -> None:
        self._state[name].view(-1)[start : start + values.numel()] = values

    def read(self, name: str) -> Tensor:
        return self._state[name]

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors, in plan order, then the tied names."""
        return {**self._state, **{alias: self._state[kept] for alias, kept in self._aliases.items()}}
