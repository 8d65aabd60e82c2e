"""Numbers over all tasks: mean, mean normalised by the individual experts, worst case, interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


def averages(
    tasks: Mapping[str, Mapping[str, Any]], individual: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The `average` entry of a report.

    With accuracy $a_t$ and the individual expert's accuracy $e_t$ on tasks $t = 1..T$:

    - `accuracy`: mean of $a_t$ over the tasks that have one; `loss` likewise.
    - `normalized_accuracy`: mean of $a_t / e_t$; None unless every such task has $e_t > 0$, for a mean
      over some of the tasks looks the same and says another thing.
    - `worst_accuracy`: least $a_t$.
    - `interval`: 95 % interval of the mean, with half widths $h_t$ of the tasks added as independent
      errors, $\\sqrt{\\sum h_t^2} / T$; None unless every such task has an interval.
    """
    accuracies = {name: task["accuracy"] for name, task in tasks.items() if number(task.get("accuracy"))}
    ratios = [ratio(value, individual.get(name, {}).get("accuracy")) for name, value in accuracies.items()]
    return {
        "accuracy": mean(accuracies.values()),
        "loss": mean(task["loss"] for task in tasks.values() if number(task.get("loss"))),
        "normalized_accuracy": mean(value for value in ratios if value is not None)
        if all_known(ratios)
        else None,
        "worst_accuracy": min(accuracies.values(), default=None),
        "interval": _interval([tasks[name] for name in accuracies]),
    }


def number(value: Any) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def mean(values: Iterable[float]) -> float | None:
    """Arithmetic mean; None of nothing."""
    known = list(values)
    return math.fsum(known) / len(known) if known else None


def ratio(value: Any, reference: Any) -> float | None:
    """`value / reference`; None where either is unknown or the reference is not positive."""
    return value / reference if number(value) and number(reference) and reference > 0 else None


def all_known(values: Iterable[object]) -> bool:
    """Whether none is None."""
    return all(value is not None for value in values)


def _interval(tasks: list[Mapping[str, Any]]) -> list[float] | None:
    bounds = [task.get("interval") for task in tasks]
    if not bounds or not all_known(bounds):
        return None
    centre = mean(task["accuracy"] for task in tasks)
    assert centre is not None
    half = math.sqrt(math.fsum(((high - low) / 2) ** 2 for low, high in bounds)) / len(bounds)  # type: ignore[misc]
    return [max(0.0, centre - half), min(1.0, centre + half)]
