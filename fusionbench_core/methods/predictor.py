"""Predictors: several models whose outputs are combined."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench_core.methods.members import LiveMembers, Members


class Predictor(nn.Module):
    """Several member models, one combined output.

    A task attaches its head to every member and calls :meth:`combine` on their logits. Called as a
    module, it combines the members' raw outputs, however deeply nested in mappings and tuples. Parts
    that are no floating tensors (caches, integer ids) are kept where all members agree on them, and are
    None otherwise: one member's cache is not the predictor's.

    Args:
        members: Name -> live module, or members that say themselves what is in memory when.
    """

    def __init__(self, members: Mapping[str, nn.Module] | Members) -> None:
        super().__init__()
        self.members = members if isinstance(members, Members) else LiveMembers(members)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members, in the order of their outputs."""
        return self.members.names

    @abstractmethod
    def combine(self, outputs: Tensor) -> Tensor:
        """Combine stacked outputs `(members, …)` into one of shape `(…)`."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._nested(self.members(*args, **kwargs))

    def _nested(self, outputs: Sequence[Any]) -> Any:
        first = outputs[0]
        if isinstance(first, Tensor) and first.is_floating_point():
            return self.combine(torch.stack(list(outputs)))
        if isinstance(first, Tensor):
            return first if all(torch.equal(first, output) for output in outputs) else None
        if isinstance(first, Mapping):
            items = {key: self._nested([output[key] for output in outputs]) for key in first}
            return type(first)(**items) if type(first) is not dict else items
        if isinstance(first, (tuple, list)):
            parts = [self._nested(list(each)) for each in zip(*outputs)]
            return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
        same = all(type(output) in (bool, int, float, str) and output == first for output in outputs)
        return first if same else None
