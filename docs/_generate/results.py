"""What the methods give on the embedded benchmarks: one table and one picture each."""

from __future__ import annotations

import json
from pathlib import Path

from _generate.text import ROOT
from fusionbench_core.report import Report, read_report
from fusionbench_core.report.compare import comparison, comparison_figure
from fusionbench_core.report.view import percent

RESULTS = ROOT / "docs/assets/results"
"""One JSON file a benchmark: label -> what its report says about the result."""

BENCHMARKS = ("embedded_text", "embedded_vision")

_TITLES = {"embedded_text": "Text", "embedded_vision": "Vision"}

_KEPT = ("tasks", "model_info", "status", "method", "taskpool", "seed", "baselines", "plugins")


def take(directory: Path) -> None:
    """Keep the results of a comparison, and nothing about the machine it was made on."""
    for benchmark in BENCHMARKS:
        reports = {
            file.parent.name: read_report(file) for file in directory.glob(f"{benchmark}/*/report.json")
        }
        found = {label: _small(report) for label, report in reports.items() if report.status == "complete"}
        if found:
            RESULTS.mkdir(parents=True, exist_ok=True)
            text = json.dumps(dict(sorted(found.items())), indent=1)
            (RESULTS / f"{benchmark}.json").write_text(f"{text}\n", encoding="utf-8")


def results() -> dict[str, str]:
    """The sections of the page: table and picture of each benchmark that was run."""
    return {"sections": "\n\n".join(_section(benchmark) for benchmark in BENCHMARKS if _reports(benchmark))}


def pictures() -> dict[str, str]:
    """Path -> text of the pictures."""
    made = {}
    for benchmark in BENCHMARKS:
        figure = comparison_figure(comparison(found)) if (found := _reports(benchmark)) else None
        if figure is not None:
            made[f"docs/assets/results/{benchmark}.svg"] = f"{figure.svg}\n"
    return made


def _small(report: Report) -> dict:
    return Report(**{name: getattr(report, name) for name in _KEPT}).to_json()


def _stored(benchmark: str) -> dict:
    file = RESULTS / f"{benchmark}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _reports(benchmark: str) -> dict[str, Report]:
    found = {label: Report.from_json(each) for label, each in _stored(benchmark).items()}
    return dict(sorted(found.items(), key=lambda item: -(item[1].average["accuracy"] or 0.0)))


def _section(benchmark: str) -> str:
    found = comparison(_reports(benchmark))
    head = ["method", *found.columns]
    lines = [f"| {' | '.join(head)} |", f"| --- {'| ---: ' * len(found.columns)}|"]
    for line in found.lines:
        cells = [
            f"**{percent(value)}**" if index in line.best else percent(value)
            for index, value in enumerate(line.cells)
        ]
        name = f"*{line.name}*" if line.reference else f"`{line.name}`"
        lines.append(f"| {' | '.join([name, *cells])} |")
    picture = f"![Accuracy of every method relative to the experts](../assets/results/{benchmark}.svg)"
    warnings = [f"- {warning}" for warning in found.warnings]
    return "\n".join(
        [f"## {_TITLES[benchmark]}", "", *lines, "", *warnings, *([""] if warnings else []), picture]
    )
