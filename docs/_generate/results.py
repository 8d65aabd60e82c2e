"""What the methods give on the embedded benchmarks: tables and pictures of the comparisons of two presets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from _generate.benchmarks import TEXT, VISION, recorded_baselines
from _generate.text import ROOT
from fusionbench_core.report import Report, read_report
from fusionbench_core.report.compare import Comparison, Line, comparison, comparison_figure

RESULTS = ROOT / "docs/assets/results"
"""`PRESET/BENCHMARK.json`: `baselines`, and `runs`: label -> one result a seed."""

CONFIGS = ROOT / "plugins/fb_merging/fb_merging/configs"

PRESETS = ("data_free", "data_driven")

BENCHMARKS = {"embedded_text": "Text", "embedded_vision": "Vision"}
"""Root config -> title."""

EMBEDDED = {"embedded_text": TEXT, "embedded_vision": VISION}

_KEPT = ("accuracy", "n", "split", "fingerprint", "task_given")


def take(preset: str, directories: Sequence[Path]) -> None:
    """Add the results of a comparison, one directory a seed, and nothing about the machine.

    What is stored of other seeds stays if the method is the same, with its parameters and its version: a mean
    over seeds is one over runs of one thing.
    """
    for benchmark in BENCHMARKS:
        taken = _taken(directories, benchmark)
        if not taken:
            continue
        file = _file(preset, benchmark)
        stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        runs = {label: list(each) for label, each in stored.get("runs", {}).items()}
        for label, report in taken:
            runs[label] = _with(runs.get(label, []), _run(report))
        baselines = {kind: _results(found) for kind, found in taken[0][1].baselines.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"baselines": baselines, "runs": dict(sorted(runs.items()))}, indent=1)
        file.write_text(f"{text}\n", encoding="utf-8")


def _taken(directories: Sequence[Path], benchmark: str) -> list[tuple[str, Report]]:
    """Label and report of every run that was completed."""
    found = []
    for place in (each / benchmark for each in directories):
        for file in sorted([*place.glob("*/report.json"), *place.glob("*/seed-*/report.json")]):
            report = read_report(file)
            if report.status == "complete":
                found.append((file.relative_to(place).parts[0], report))
    return found


def _with(runs: Sequence[Mapping[str, Any]], added: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """These runs of one label and the one added, by seed; those of another method or other parameters go."""
    same = [run for run in runs if run["method"] == added["method"] and run["seed"] != added["seed"]]
    return sorted([*same, added], key=lambda run: run["seed"])


def results() -> dict[str, str]:
    """The sections of the page, for each preset one for each benchmark that was run."""
    return {
        preset: "\n\n".join(_section(preset, each) for each in BENCHMARKS if _stored(preset, each))
        for preset in PRESETS
    }


def pictures() -> dict[str, str]:
    """Path -> text of the pictures."""
    made = {}
    for preset in PRESETS:
        for benchmark in BENCHMARKS:
            stored = _stored(preset, benchmark)
            figure = comparison_figure(_table(stored)) if stored else None
            if figure is not None:
                made[f"docs/assets/results/{preset}/{benchmark}.svg"] = f"{figure.svg}\n"
    return made


def _run(report: Report) -> dict[str, Any]:
    method = {key: report.method[key] for key in ("name", "parameters", "version") if key in report.method}
    return {"method": method, "seed": report.seed, "tasks": _results(report.tasks)}


def _results(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {task: {key: entry[key] for key in _KEPT if key in entry} for task, entry in found.items()}


def _file(preset: str, benchmark: str) -> Path:
    return RESULTS / preset / f"{benchmark}.json"


def _stored(preset: str, benchmark: str) -> dict[str, Any]:
    """The file, and baselines that are recorded by now but were not when the methods ran."""
    file = _file(preset, benchmark)
    if not file.is_file():
        return {}
    stored = json.loads(file.read_text(encoding="utf-8"))
    recorded = recorded_baselines(EMBEDDED[benchmark], benchmark)
    return {**stored, "baselines": {**recorded, **stored["baselines"]}}


def _table(stored: Mapping[str, Any]) -> Comparison:
    """Best first; models that were told the task come last and take no part in the contest."""
    reports = {
        label: [
            Report(tasks=run["tasks"], method=run["method"], baselines=stored["baselines"]) for run in runs
        ]
        for label, runs in stored["runs"].items()
    }
    means = {line.name: line.cells[-2] or 0.0 for line in comparison(reports).lines if not line.reference}
    ranked = sorted(reports, key=lambda label: -means[label])
    table = comparison({label: reports[label] for label in ranked if not reports[label][0].task_given})
    told = {label: reports[label] for label in ranked if reports[label][0].task_given}
    if not told:
        return table
    guests = [replace(line, best=frozenset()) for line in comparison(told).lines if not line.reference]
    return replace(table, lines=[*table.lines, *guests])


def _section(preset: str, benchmark: str) -> str:
    stored = _stored(preset, benchmark)
    table = _table(stored)
    head = ["method", *table.columns]
    lines = [f"| {' | '.join(head)} |", f"| --- {'| ---: ' * len(table.columns)}|"]
    for line in table.lines:
        texts = [line.text(column) for column in range(len(line.cells))]
        cells = [f"**{text}**" if column in line.best else text for column, text in enumerate(texts)]
        lines.append(f"| {' | '.join([_name(line, stored), *cells])} |")
    warnings = [f"- {warning}" for warning in table.warnings]
    picture = (
        f"![Accuracy of every method relative to the experts](../assets/results/{preset}/{benchmark}.svg)"
    )
    notes = [*warnings, *_incomplete(preset, stored["runs"])]
    parts = [f"### {BENCHMARKS[benchmark]}", "", *lines, "", *notes, *([""] if notes else []), picture]
    return "\n".join(parts)


def _incomplete(preset: str, runs: Mapping[str, Sequence[Any]]) -> list[str]:
    """Which methods were not run, or with fewer seeds than others."""
    counts = {label: len(runs.get(label, ())) for label in _labels(preset)}
    missing = [f"`{label}`" for label, count in counts.items() if not count]
    notes = [f"- not run yet: {', '.join(missing)}"] if missing else []
    for fewer in sorted(set(counts.values()) - {0, max(counts.values())}):
        those = ", ".join(f"`{label}`" for label, count in counts.items() if count == fewer)
        notes.append(f"- {fewer} {'seed' if fewer == 1 else 'seeds'} only: {those}")
    return notes


def _labels(preset: str) -> list[str]:
    """What the preset calls its runs."""
    return list(
        yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text(encoding="utf-8"))["compare"]["methods"]
    )


def _name(line: Line, stored: Mapping[str, Any]) -> str:
    if line.reference:
        return f"*{line.name}*"
    run = stored["runs"][line.name][0]
    told = " (told the task)" if any(each.get("task_given") for each in run["tasks"].values()) else ""
    return f"[`{line.name}`](methods/{run['method']['name'].rpartition('/')[2]}.md){told}"
