"""What a metric's number means: its range, its direction, how sure one is of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Facts about a metric.

    Attributes:
        higher_is_better: Direction.
        low: Smallest value it can take.
        high: Largest value it can take.
        perfect: Value of a model that is right about every sample, and sure of it.
        interval: Method of its confidence intervals, e.g. `wilson`; empty if it has none.
    """

    higher_is_better: bool
    low: float
    high: float
    perfect: float
    interval: str = ""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


ACCURACY = Metric(higher_is_better=True, low=0.0, high=1.0, perfect=1.0, interval="wilson")
"""Fraction of samples whose class was predicted."""

LOSS = Metric(higher_is_better=False, low=0.0, high=float("inf"), perfect=0.0)
"""Mean cross-entropy, in nats."""

KNOWN: Mapping[str, Metric] = {"accuracy": ACCURACY, "loss": LOSS}
"""Metrics that a task need not describe itself."""
