"""The member models of a predictor, and how they are run."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn


class Members(nn.Module):
    """Several models of one architecture, run on the same input. A subclass decides what is in memory when.

    Args:
        names: Names of the models, in the order of their outputs.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)

    @abstractmethod
    def attach(self, head: Callable[[nn.Module], nn.Module]) -> Members:
        """The same models, not copied, each under a head, e.g. `task.attach`."""

    @abstractmethod
    def member(self, name: str) -> nn.Module:
        """A copy of one of the models, which the caller may move and change."""

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> list[Any]:
        """What each model gives for this input, in the order of `names`."""


class LiveMembers(Members):
    """All models in memory; they run one after the other.

    Args:
        models: Name -> live module; kept, not copied.
    """

    def __init__(self, models: Mapping[str, nn.Module]) -> None:
        super().__init__(tuple(models))
        self.models = nn.ModuleList(models.values())

    def attach(self, head: Callable[[nn.Module], nn.Module]) -> LiveMembers:
        return LiveMembers({name: head(model) for name, model in zip(self.names, self.models)})

    def member(self, name: str) -> nn.Module:
        return copy.deepcopy(self.models[self.names.index(name)])

    def forward(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [model(*args, **kwargs) for model in self.models]
