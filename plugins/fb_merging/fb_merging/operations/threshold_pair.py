"""Magnitude thresholds of two densities, found as one survey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fb_merging.operations.magnitude import MagnitudeThreshold
from fb_merging.operations.per_model import PerModel
from fusionbench_core import Survey, TensorGroup


@dataclass
class PairOfTotals:
    """What the two surveys of a pair have seen; nothing of one that has ended."""

    first: Any
    second: Any

    def __add__(self, other: PairOfTotals) -> PairOfTotals:
        first = None if self.first is None else self.first + other.first
        return PairOfTotals(first, None if self.second is None else self.second + other.second)


@dataclass(frozen=True)
class ThresholdPair(Survey):
    """The thresholds of two densities, found side by side; the result is a pair of lists."""

    first: MagnitudeThreshold | list[float]
    second: MagnitudeThreshold | list[float]

    @classmethod
    def of(cls, first: PerModel, second: PerModel) -> ThresholdPair:
        """A pair that has not seen anything yet."""
        return cls(MagnitudeThreshold(first), MagnitudeThreshold(second))

    def observe(self, group: TensorGroup) -> PairOfTotals:
        first, second = (
            s.observe(group) if isinstance(s, Survey) else None for s in (self.first, self.second)
        )
        return PairOfTotals(first, second)

    def advance(self, total: PairOfTotals | None) -> ThresholdPair | tuple[list[float], list[float]]:
        if total is None:
            return [], []
        first = self.first.advance(total.first) if isinstance(self.first, Survey) else self.first
        second = self.second.advance(total.second) if isinstance(self.second, Survey) else self.second
        if isinstance(first, list) and isinstance(second, list):
            return first, second
        return ThresholdPair(first, second)
