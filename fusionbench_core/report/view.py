"""A report as people read it: rows of a table, percentages, sentences. All pages share this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusionbench_core.report.averages import mean, number, ratio
from fusionbench_core.report.baselines import in_order
from fusionbench_core.report.report import Report

MISSING = "–"


@dataclass(frozen=True)
class Row:
    """One task, or the mean over all: accuracies in [0, 1], None where unknown.

    `recorded` tells that the individual expert was measured before and not in this run. `others` are
    further baselines: kind -> accuracy.
    """

    task: str
    pretrained: float | None
    individual: float | None
    fused: float | None
    interval: tuple[float, float] | None = None
    pretrained_interval: tuple[float, float] | None = None
    individual_interval: tuple[float, float] | None = None
    loss: float | None = None
    n: int | None = None
    recorded: bool = False
    others: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def normalized(self) -> float | None:
        """Accuracy as a fraction of the individual expert's."""
        return ratio(self.fused, self.individual)

    @property
    def gain(self) -> float | None:
        """Accuracy above the pre-trained model's."""
        return None if self.fused is None or self.pretrained is None else self.fused - self.pretrained


def rows_of(report: Report) -> list[Row]:
    """One row a task, in the order of the task pool."""
    return [_row(report, task) for task in report.tasks]


def mean_row(report: Report) -> Row:
    """Means over the tasks; a baseline that lacks a task has none."""
    rows, average = [row for row in rows_of(report) if row.fused is not None], report.average
    return Row(
        "average",
        _mean_of([row.pretrained for row in rows]),
        _mean_of([row.individual for row in rows]),
        average["accuracy"],
        interval=_pair(average["interval"]),
        loss=average["loss"],
        recorded=any(row.recorded for row in rows),
        others={kind: _mean_of([row.others[kind] for row in rows]) for kind in other_baselines(report)},
    )


def other_baselines(report: Report) -> list[str]:
    """Kinds of baselines beside the pre-trained model and the individual experts."""
    return [kind for kind in in_order(report.baselines) if kind not in ("pretrained", "individual")]


def percent(value: float | None, digits: int = 1) -> str:
    """`0.834` as `83.4`; a dash where unknown."""
    return MISSING if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None) -> str:
    """A difference in percentage points with its sign: `+24.1`."""
    return MISSING if value is None else f"{100 * value:+.1f}".replace("-", "−")


def spread(interval: tuple[float, float] | None) -> str:
    """Half the width of an interval: `±0.6`."""
    return MISSING if interval is None else f"±{50 * (interval[1] - interval[0]):.1f}"


def bounds(interval: tuple[float, float] | None) -> str:
    """An interval in percent: `82.8 – 84.0`."""
    return MISSING if interval is None else f"{percent(interval[0])} – {percent(interval[1])}"


def headline(report: Report) -> str:
    """One sentence for the top of the page."""
    average, row = report.average, mean_row(report)
    who = report.method.get("name") or report.label
    models = len(report.modelpool.get("models") or ())
    start = f"{who} fuses {models} models" if models else who
    if average["accuracy"] is None:
        if report.details and not (models or report.method):
            return f"{report.label}."
        return f"{start}; no task was evaluated." if models else "No task was evaluated."
    count = len([row for row in rows_of(report) if row.fused is not None])
    tasks = "one task" if count == 1 else f"{count} tasks"
    normalized = average["normalized_accuracy"]
    kept = (
        f"keeps {percent(normalized)} % of the individual experts' accuracy over {tasks}"
        if normalized is not None
        else f"reaches {percent(average['accuracy'])} % mean accuracy over {tasks}"
    )
    parts = [f"{start} and {kept}" if models else f"{start} {kept}"]
    if row.gain is not None:
        where = "above" if row.gain >= 0 else "below"
        parts.append(f"{percent(abs(row.gain))} points {where} the pre-trained model")
    if count > 1:
        worst = min(
            (row for row in rows_of(report) if row.fused is not None), key=lambda row: row.fused or 0.0
        )
        parts.append(f"its weakest task is {worst.task} at {percent(worst.fused)} %")
    return "; ".join(parts) + "."


def size(count: Any) -> str:
    """Bytes for people: `335.4 MB`."""
    if not number(count):
        return MISSING
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: Any) -> str:
    """Seconds for people: `0.12 s`, `34 s`, `1 h 02 min`."""
    if not number(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _row(report: Report, task: str) -> Row:
    entry = report.tasks[task]
    pretrained, individual = (
        report.baselines.get(kind, {}).get(task, {}) for kind in ("pretrained", "individual")
    )
    return Row(
        task,
        pretrained.get("accuracy"),
        individual.get("accuracy"),
        entry.get("accuracy"),
        _pair(entry.get("interval")),
        _pair(pretrained.get("interval")),
        _pair(individual.get("interval")),
        entry.get("loss"),
        entry.get("n"),
        individual.get("recorded") is True,
        {kind: report.baselines[kind].get(task, {}).get("accuracy") for kind in other_baselines(report)},
    )


def _mean_of(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def _pair(interval: Any) -> tuple[float, float] | None:
    if not isinstance(interval, list | tuple) or len(interval) != 2 or not all(map(number, interval)):
        return None
    return (interval[0], interval[1])


def reference_of(model: Any) -> tuple[str, str]:
    """Where a pooled model comes from and its fingerprint."""
    if not isinstance(model, Mapping):
        return (str(model), "")
    return (str(model.get("reference") or MISSING), str(model.get("fingerprint") or ""))
