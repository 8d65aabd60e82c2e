"""How a merged model depends on what is learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
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


class PartlyFixed(Parameterization):
    """Another parameterization, and parameters that do not depend on what is learned."""

    def __init__(self, inner: Parameterization, fixed: Mapping[str, Tensor]) -> None:
        self.variables, self._inner, self._fixed = inner.variables, inner, dict(fixed)

    def merged(self, step: int) -> dict[str, Tensor]:
        return {**self._inner.merged(step), **self._fixed}

    def final(self) -> dict[str, Tensor]:
        return {**self._inner.final(), **self._fixed}

    def details(self) -> dict[str, Any]:
        return self._inner.details()
