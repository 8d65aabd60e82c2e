"""The result of one task on one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What was measured, on how much data, and how sure one can be.

    Attributes:
        task: Name of the task.
        metrics: Metric name -> value; `accuracy` in [0, 1], `loss` in nats.
        n: Number of samples measured.
        split: Split measured on.
        intervals: Metric name -> (low, high) at 95 %.
        seconds: Wall time.
        fingerprint: The task's fingerprint.
        samples_sha256: Hash of the per-sample record.
        task_given: Whether the model was told the task, and so is another one for each.
        samples: Per-sample record, e.g. predicted class and loss; kept beside the report, not in it.
    """

    task: str
    metrics: Mapping[str, float]
    n: int
    split: str
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seconds: float = 0.0
    fingerprint: str = ""
    samples_sha256: str = ""
    task_given: bool = False
    samples: Mapping[str, list] = field(default_factory=dict, repr=False, compare=False)

    def to_json(self, *, samples: bool = False) -> dict[str, Any]:
        """A JSON-able dict; the metrics stand at top level, as FusionBench's reports have them."""
        data = asdict(self)
        record = data.pop("samples")
        metrics = data.pop("metrics")
        if not self.task_given:
            del data["task_given"]
        data["intervals"] = {key: list(value) for key, value in self.intervals.items()}
        return {**metrics, **data, **({"samples": record} if samples else {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskResult:
        """The inverse of :meth:`to_json`."""
        own = {key: data[key] for key in cls.__dataclass_fields__ if key in data and key != "metrics"}
        own["intervals"] = {key: tuple(value) for key, value in data.get("intervals", {}).items()}
        metrics = {key: value for key, value in data.items() if key not in cls.__dataclass_fields__}
        return cls(metrics=metrics, **own)


def wilson_interval(successes: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval for a proportion, 95 % by default (Wilson, JASA 1927)."""
    if n == 0:
        return (0.0, 1.0)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (max(0.0, centre - half), min(1.0, centre + half))
