"""Surveys: quantities of whole models, gathered by streaming over them before the merge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionbench_core.methods.group import TensorGroup


class Survey(ABC):
    """One round of a survey: an immutable state, folded over all groups.

    The engine calls :meth:`observe` for every group (from several threads), adds the observations up
    in plan order with `+`, and hands the total to :meth:`advance`. That gives the next round, or the
    result: anything that is not a `Survey`. Because the sum is taken in plan order over fixed groups,
    the result does not depend on the number of threads.
    """

    @abstractmethod
    def observe(self, group: TensorGroup) -> Any:
        """What one group contributes; supports `+`, which may change and give its left side."""

    @abstractmethod
    def advance(self, total: Any) -> Survey | Any:
        """The next round, or the result. `total` is None if no tensor was merged."""
