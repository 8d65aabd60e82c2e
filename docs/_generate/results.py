"""What the methods give on the embedded benchmarks: a table and a picture each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from _generate.text import ROOT
from fusionbench_core.report import Report, read_report
from fusionbench_core.report.compare import Comparison, Line, comparison, comparison_figure
from fusionbench_core.report.view import percent

RESULTS = ROOT / "docs/assets/results"
"""One JSON file a benchmark: `baselines`, and `runs`: label -> what its report says about the result."""

PRESET = ROOT / "plugins/fb_merging/fb_merging/configs/data_free.yaml"

BENCHMARKS = {"embedded_text": "Text", "embedded_vision": "Vision"}
"""Root config -> title."""

_KEPT = ("accuracy", "n", "split", "fingerprint", "task_given")


def take(directory: Path) -> None:
    """Keep the results of a comparison, and nothing about the machine it was made on."""
    for benchmark in BENCHMARKS:
        reports = {
            file.parent.name: read_report(file)
            for file in sorted((directory / benchmark).glob("*/report.json"))
        }
        complete = {label: report for label, report in reports.items() if report.status == "complete"}
        if complete:
            first = next(iter(complete.values()))
            stored = {
                "baselines": {kind: _results(found) for kind, found in first.baselines.items()},
                "runs": {label: _run(report) for label, report in complete.items()},
            }
            RESULTS.mkdir(parents=True, exist_ok=True)
            text = json.dumps(stored, indent=1)
            (RESULTS / f"{benchmark}.json").write_text(f"{text}\n", encoding="utf-8")


def results() -> dict[str, str]:
    """The sections of the page, one for each benchmark that was run."""
    return {"sections": "\n\n".join(_section(each) for each in BENCHMARKS if _stored(each))}


def pictures() -> dict[str, str]:
    """Path -> text of the pictures."""
    made = {}
    for benchmark in BENCHMARKS:
        figure = comparison_figure(_table(_stored(benchmark))) if _stored(benchmark) else None
        if figure is not None:
            made[f"docs/assets/results/{benchmark}.svg"] = f"{figure.svg}\n"
    return made


def _run(report: Report) -> dict[str, Any]:
    method = {key: report.method[key] for key in ("name", "parameters", "version") if key in report.method}
    return {"method": method, "seed": report.seed, "tasks": _results(report.tasks)}


def _results(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {task: {key: entry[key] for key in _KEPT if key in entry} for task, entry in found.items()}


def _stored(benchmark: str) -> dict[str, Any]:
    file = RESULTS / f"{benchmark}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _table(stored: Mapping[str, Any]) -> Comparison:
    """Best first; models that were told the task come last and take no part in the contest."""
    reports = {
        label: Report(tasks=run["tasks"], method=run["method"], baselines=stored["baselines"])
        for label, run in stored["runs"].items()
    }
    ranked = sorted(reports, key=lambda label: -(reports[label].average["accuracy"] or 0.0))
    table = comparison({label: reports[label] for label in ranked if not reports[label].task_given})
    told = {label: reports[label] for label in ranked if reports[label].task_given}
    if not told:
        return table
    guests = [replace(line, best=frozenset()) for line in comparison(told).lines if not line.reference]
    return replace(table, lines=[*table.lines, *guests])


def _section(benchmark: str) -> str:
    stored = _stored(benchmark)
    table = _table(stored)
    head = ["method", *table.columns]
    lines = [f"| {' | '.join(head)} |", f"| --- {'| ---: ' * len(table.columns)}|"]
    for line in table.lines:
        cells = [
            f"**{percent(value)}**" if index in line.best else percent(value)
            for index, value in enumerate(line.cells)
        ]
        lines.append(f"| {' | '.join([_name(line, stored), *cells])} |")
    warnings = [f"- {warning}" for warning in table.warnings]
    picture = f"![Accuracy of every method relative to the experts](../assets/results/{benchmark}.svg)"
    missing = [f"`{label}`" for label in _labels() if label not in stored["runs"]]
    notes = [*warnings, *([f"- not run yet: {', '.join(missing)}"] if missing else [])]
    parts = [f"## {BENCHMARKS[benchmark]}", "", *lines, "", *notes, *([""] if notes else []), picture]
    return "\n".join(parts)


def _labels() -> list[str]:
    """What the preset calls its runs."""
    return list(yaml.safe_load(PRESET.read_text(encoding="utf-8"))["compare"]["methods"])


def _name(line: Line, stored: Mapping[str, Any]) -> str:
    if line.reference:
        return f"*{line.name}*"
    run = stored["runs"][line.name]
    told = " (told the task)" if any(each.get("task_given") for each in run["tasks"].values()) else ""
    return f"[`{line.name}`](methods/{run['method']['name'].rpartition('/')[2]}.md){told}"
