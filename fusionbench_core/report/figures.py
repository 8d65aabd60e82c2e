"""Which pictures a report gets, and what is said under them."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from fusionbench_core.report.charts import Bar, grouped_bars, heat_map, line_chart, radar
from fusionbench_core.report.charts.lines import MOST
from fusionbench_core.report.details import read_curve, read_matrix
from fusionbench_core.report.report import Report
from fusionbench_core.report.view import Row, rows_of


@dataclass(frozen=True)
class Figure:
    """A picture with its title and caption."""

    title: str
    svg: Markup
    caption: str = ""
    wide: bool = False


def result_figures(report: Report) -> list[Figure]:
    """Bars a task; from three tasks on also a radar chart."""
    rows = [row for row in rows_of(report) if row.fused is not None]
    made = [_bars(rows)] if rows else []
    if len(rows) >= 3:
        made.append(_radar(rows))
    return made


def detail_figures(report: Report) -> tuple[list[Figure], set[str]]:
    """Curves and matrices of the details, and the keys of those that are drawn."""
    made, drawn = [], set()
    for key, value in report.details.items():
        if (curve := read_curve(key, value)) is not None:
            longest = max(len(points) for points in curve.series.values())
            caption = f"Means over {-(-longest // MOST)} consecutive values each." if longest > MOST else ""
            made.append(Figure(curve.title, Markup(line_chart(curve)), caption))
        elif (matrix := read_matrix(key, value)) is not None:
            made.append(Figure(matrix.title, Markup(heat_map(matrix))))
        else:
            continue
        drawn.add(key)
    return made, drawn


def _bars(rows: list[Row]) -> Figure:
    series = {
        "pretrained": [Bar(row.pretrained, row.pretrained_interval) for row in rows],
        "individual": [Bar(row.individual, row.individual_interval) for row in rows],
        "fused": [Bar(row.fused, row.interval) for row in rows],
    }
    shown = {name: bars for name, bars in series.items() if any(bar.value is not None for bar in bars)}
    groups = [(row.task, [bars[index] for bars in shown.values()]) for index, row in enumerate(rows)]
    whiskers = any(bar.interval for bars in shown.values() for bar in bars)
    caption = "Whiskers: 95 % intervals." if whiskers else ""
    label = f"Accuracy on {len(rows)} tasks: {', '.join(shown)}"
    return Figure("Accuracy by task", Markup(grouped_bars(groups, list(shown), label=label)), caption)


def _radar(rows: list[Row]) -> Figure:
    normalised = all(row.normalized is not None for row in rows)
    rings: dict[str, list[float]] = {}
    if all(row.pretrained is not None for row in rows):
        rings["pretrained"] = [_part(row.pretrained, row, normalised) for row in rows]
    if normalised:
        rings["individual"] = [1.0] * len(rows)
    rings["fused"] = [_part(row.fused, row, normalised) for row in rows]
    title = "Accuracy relative to the individual experts" if normalised else "Accuracy"
    picture = Markup(radar([row.task for row in rows], rings, label=f"{title}, one axis a task"))
    return Figure(title, picture, "100 % is the expert of each task." if normalised else "")


def _part(value: float | None, row: Row, normalised: bool) -> float:
    return (value or 0.0) / (row.individual or 1.0) if normalised else value or 0.0
