"""Predictors: several models whose outputs are combined."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Predictor(nn.Module):
    """Several member models, one combined output.

    A task attaches its head to every member and calls :meth:`combine` on their logits. Called as a
    module, it combines the members' raw outputs, however deeply nested in mappings and tuples.
    """

    def __init__(self, members: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.names = tuple(members)
        self.members = nn.ModuleList(members.values())

    @abstractmethod
    def combine(self, outputs: Tensor) -> Tensor:
        """Combine stacked outputs `(members, …)` into one of shape `(…)`."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._nested([member(*args, **kwargs) for member in self.members])

    def _nested(self, outputs: Sequence[Any]) -> Any:
        first = outputs[0]
        if isinstance(first, Tensor):
            return self.combine(torch.stack(list(outputs)))
        if isinstance(first, Mapping):
            items = {key: self._nested([output[key] for output in outputs]) for key in first}
            return type(first)(**items) if type(first) is not dict else items
        if isinstance(first, (tuple, list)):
            return type(first)(self._nested(list(parts)) for parts in zip(*outputs))
        return first
