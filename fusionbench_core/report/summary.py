"""A report in a terminal: plain data that the command line renders, and a small picture."""

from __future__ import annotations

from collections.abc import Sequence

from fusionbench_core.report.report import Report
from fusionbench_core.report.view import Row, mean_row, percent, rows_of, size, spread

Cells = tuple[str, ...]


def summary_lines(report: Report) -> list[Cells]:
    """A compact table in percent: the header first, one row a task, the average last.

    Columns that no task fills are left out. No rows at all if nothing was evaluated.
    """
    rows = rows_of(report)
    if not rows:
        return []
    rows.append(mean_row(report))
    recorded = " (recorded)" if rows[-1].recorded else ""
    columns = [
        ("task", [row.task for row in rows]),
        ("pretrained", [percent(row.pretrained) for row in rows]),
        (f"individual{recorded}", [percent(row.individual) for row in rows]),
        ("fused", [percent(row.fused) for row in rows]),
        ("± 95 %", [spread(row.interval).lstrip("±") for row in rows]),
        ("of individual", [percent(row.normalized) for row in rows[:-1]] + [_normalized(report)]),
    ]
    if all(row.fused is None for row in rows):
        columns.append(("loss (nats)", ["–" if row.loss is None else f"{row.loss:.3f}" for row in rows]))
    kept = [(title, cells) for title, cells in columns if any(cell != percent(None) for cell in cells)]
    return [tuple(title for title, _ in kept), *zip(*(cells for _, cells in kept))]


def summary_facts(report: Report) -> list[tuple[str, str]]:
    """What to print under the table, as (what, value) pairs."""
    average, artefact = report.average, report.artefact
    facts: list[tuple[str, str]] = []
    if average["normalized_accuracy"] is not None:
        facts.append(("normalised mean", f"{_normalized(report)} % of the individual experts"))
    elif average["accuracy"] is not None:
        facts.append(("mean accuracy", f"{percent(average['accuracy'])} %"))
    if artefact.get("path"):
        digest = str(artefact.get("content_hash") or "").removeprefix("sha256:")
        known = [size(artefact["bytes"])] if artefact.get("bytes") else []
        known += [f"sha256 {digest[:12]}…"] if digest else []
        facts.append(("model", f"{artefact['path']}" + (f" ({', '.join(known)})" if known else "")))
    if report.status == "complete" and not report.tasks:
        facts.append(("evaluated", "nothing: there is no task pool; taskpool=NAME or FILE chooses one"))
    if report.transductive:
        facts.append(("transductive", "the method adapted to test data"))
    if report.task_given:
        facts.append(("task given", "the model was told which task each sample belongs to"))
    facts += [("warning", warning) for warning in report.warnings]
    return facts


def plain_table(rows: Sequence[Cells]) -> list[str]:
    """Rows as aligned lines: the first column to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return ["  ".join(_aligned(row, widths)).rstrip() for row in rows]


def terminal_chart(report: Report, width: int = 80) -> str:
    """A bar a task: the fused model filled, the pre-trained model `|`, the individual expert `◆`.

    Args:
        report: With or without baselines.
        width: Columns of the terminal.
    """
    rows = [row for row in [*rows_of(report), mean_row(report)] if row.fused is not None]
    if not rows:
        return ""
    names = min(max(len(row.task) for row in rows), max(8, width // 3))
    cells = max(10, width - names - 9)
    lines = [
        f"{_short(row.task, names):<{names}} {_bar(row, cells)} {percent(row.fused):>5} %" for row in rows
    ]
    marks = ["█ fused"]
    marks += ["| pretrained"] if any(row.pretrained is not None for row in rows) else []
    marks += ["◆ individual"] if any(row.individual is not None for row in rows) else []
    return "\n".join([*lines, f"{'':<{names}} {'   '.join(marks)}"])


def _bar(row: Row, cells: int) -> str:
    filled = round(8 * cells * (row.fused or 0.0))
    full, eighths = divmod(filled, 8)
    bar = list(("█" * full + (" ▏▎▍▌▋▊▉"[eighths] if eighths else "")).ljust(cells, "·")[:cells])
    for mark, value in (("|", row.pretrained), ("◆", row.individual)):
        if value is not None:
            bar[min(cells - 1, max(0, round(value * cells) - 1))] = mark
    return "".join(bar)


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def _aligned(row: Cells, widths: list[int]) -> list[str]:
    return [f"{row[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:]))]


def _normalized(report: Report) -> str:
    return percent(report.average["normalized_accuracy"])
