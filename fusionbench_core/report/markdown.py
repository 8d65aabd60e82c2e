"""A report as Markdown, for a model card, an issue or a paper's appendix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fusionbench_core.report import cards
from fusionbench_core.report.report import Report
from fusionbench_core.report.view import (
    MISSING,
    bounds,
    headline,
    mean_row,
    other_baselines,
    percent,
    points,
    rows_of,
)


def to_markdown(report: Report) -> str:
    """The whole report; text from configs and plugins is escaped."""
    parts = [f"# {escape(report.label)}", escape(headline(report))]
    parts += [f"> **Warning:** {escape(warning)}" for warning in report.warnings]
    if report.tasks:
        parts += ["## Results", _results(report)]
        parts += [escape(note) for note in (cards.expert_note(report),) if note]
    names, rows = cards.other_metrics(report)
    if rows:
        parts += ["### Other metrics", table(["task", *names], rows)]
    method = [*cards.method_card(report), *((f"`{key}`", value) for key, value in cards.parameters(report))]
    if method:
        parts += ["## Method", table(["", ""], method)]
    if formula := report.method.get("formula"):
        parts.append(f"{_fence(formula)}math\n{formula}\n{_fence(formula)}")
    if models := cards.models(report):
        parts += ["## Models", table(["name", "reference", "fingerprint"], models)]
    if rows := cards.data(report):
        parts += ["## Data", table(cards.DATA_COLUMNS, rows)]
    if note := cards.adaptation(report):
        parts.append(escape(note))
    if rows := cards.plain_details(report, _drawn(report)):
        parts += ["## Details", table(["", ""], rows)]
    facts = dict(cards.run_card(report))
    parts.append("## Run")
    if command := facts.pop("command", ""):
        parts.append(f"{_fence(command)}sh\n{command}\n{_fence(command)}")
    parts.append(table(["", ""], list(facts.items())))
    if report.plugins:
        keys = ("namespace", "distribution", "version", "status")
        parts += ["## Plugins", table(keys, [[str(p.get(key, "")) for key in keys] for p in report.plugins])]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are escaped. Columns of numbers are aligned to the right."""
    body = [list(map(str, row)) for row in rows]
    right = [bool(column) and all(map(_numeric, column)) for column in zip(*body)] or [False] * len(header)
    rule = ["---:" if align else "---" for align in right]
    lines = [[escape(cell) for cell in header], rule, *([escape(cell) for cell in row] for row in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    r"""Text that Markdown and HTML leave as it is, on one line.

    >>> escape("a|b <script> *x*")
    'a\\|b &lt;script&gt; \\*x\\*'
    """
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    code = re.fullmatch(r"`[\w.-]+`", text)
    return text if code else re.sub(r"([\\|*_`\[\]#~])", r"\\\1", text)


def _results(report: Report) -> str:
    others = other_baselines(report)
    header = [
        "task",
        "pretrained",
        "individual",
        *others,
        "fused",
        "Δ pretrained",
        "% of individual",
        "95 % interval",
        "n",
    ]
    average = mean_row(report)
    lines = [
        [
            row.task,
            percent(row.pretrained),
            percent(row.individual),
            *(percent(row.others[kind]) for kind in others),
            percent(row.fused),
            points(row.gain),
            percent(row.normalized if row is not average else report.average["normalized_accuracy"]),
            bounds(row.interval),
            "" if row.n is None else str(row.n),
        ]
        for row in [*rows_of(report), average]
    ]
    return table(header, lines)


def _drawn(report: Report) -> set[str]:
    from fusionbench_core.report.details import read_curve, read_matrix

    return {key for key, value in report.details.items() if read_curve(key, value) or read_matrix(key, value)}


def _numeric(cell: str) -> bool:
    return bool(re.fullmatch(r"[+−±]?[\d.,]+( – [\d.]+)?|", cell)) or cell == MISSING


def _fence(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)
