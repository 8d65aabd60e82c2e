"""How a merged model depends on what is learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor


class Parameterization(ABC):
    """Parameters of a merged model as a differentiable function of what is learned.

    Attributes:
        variables: Name -> leaf tensor that is learned, in fp32 or wider.
    """

    variables: dict[str, Tensor]

    @abstractmethod
    def merged(self, step: int) -> dict[str, Tensor]:
        """Name of a parameter of the trunk -> its merged value at a step, counted from 0."""

    def final(self) -> dict[str, Tensor]:
        """The merged parameters once everything is learned."""
        return self.merged(0)

    @abstractmethod
    def details(self) -> dict[str, Any]:
        """What was learned, for the report."""
