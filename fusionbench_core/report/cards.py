"""The cards of a report page, as (what, value) pairs: run, method, models, data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from fusionbench_core.report.report import Report, metrics_of
from fusionbench_core.report.view import duration, reference_of, size

Facts = list[tuple[str, str]]


def run_card(report: Report) -> Facts:
    """What is needed to run it again, and how long it took."""
    artefact, environment = report.artefact, report.environment
    packages = environment.get("packages") or {}
    info = report.model_info
    return _known(
        ("command", shlex.join(report.command)),
        ("status", report.status),
        ("started", report.created),
        ("seed", report.seed),
        ("model", artefact.get("path")),
        ("content hash", artefact.get("content_hash")),
        ("model size", size(artefact["bytes"]) if artefact.get("bytes") else None),
        ("parameters", f"{info['all_params']:,}" if isinstance(info.get("all_params"), int) else None),
        ("time", ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in report.timings.items())),
        ("python", environment.get("python")),
        ("platform", environment.get("platform")),
        ("packages", _pairs(packages, " ") if isinstance(packages, Mapping) else packages),
    )


def method_card(report: Report) -> Facts:
    """What the method is and where it comes from; its formula and parameters are shown apart."""
    method = report.method
    provider = " ".join(str(method[key]) for key in ("distribution", "version") if method.get(key))
    return _known(
        ("method", method.get("name")),
        ("what it does", method.get("summary")),
        ("provided by", provider),
        ("paper", paper_of(method.get("paper"))[0]),
    )


def paper_of(paper: Any) -> tuple[str, str]:
    """Text and address of a paper; the address is empty unless it is plain https."""
    if not isinstance(paper, Mapping):
        return (str(paper or ""), "")
    where = ", ".join(str(paper[key]) for key in ("venue", "year") if paper.get(key))
    arxiv = str(paper.get("arxiv") or "")
    parts = [str(paper[key]).rstrip(".") for key in ("authors", "title") if paper.get(key)]
    parts += [part for part in (where, f"arXiv:{arxiv}" if arxiv else "") if part]
    url = str(paper.get("url") or (f"https://arxiv.org/abs/{arxiv}" if arxiv else ""))
    return (". ".join(parts), url if url.startswith("https://") else "")


def parameters(report: Report) -> Facts:
    """The method's parameters."""
    return [(str(key), value_text(value)) for key, value in (report.method.get("parameters") or {}).items()]


def models(report: Report) -> list[tuple[str, str, str]]:
    """(name, reference, fingerprint) of the base and of each fused model."""
    pool = report.modelpool
    found = [("base", *reference_of(pool["base"]))] if pool.get("base") else []
    return found + [(str(name), *reference_of(model)) for name, model in (pool.get("models") or {}).items()]


DATA_COLUMNS = ("task", "data", "source", "licence", "version", "split")


def data(report: Report) -> list[tuple[str, ...]]:
    """One row a task: :data:`DATA_COLUMNS`."""
    cards = report.taskpool.get("cards") or {}
    rows = []
    for task in dict.fromkeys([*report.tasks, *cards]):
        card, entry = cards.get(task) or {}, report.tasks.get(task, {})
        split = card.get("split") or entry.get("split") or report.taskpool.get("split")
        facts = (card.get("title"), card.get("source"), card.get("licence"), card.get("version"), split)
        rows.append((task, *("" if fact is None else str(fact) for fact in facts)))
    return rows if any(any(row[1:]) for row in rows) else []


def adaptation(report: Report) -> str:
    """What the method adapted to, and whether the model was told the task; empty if neither."""
    seen = [f"{name} ({_pairs(what, ' ')})" for name, what in report.adaptation_data.items()]
    start = "Transductive: the method adapted to test data." if report.transductive else ""
    data = f"Adaptation data: {'; '.join(seen)}." if seen else ""
    given = "The model was told which task each sample belongs to." if report.task_given else ""
    return " ".join(part for part in (start, data, given) if part)


def other_metrics(report: Report) -> tuple[list[str], list[tuple[str, ...]]]:
    """Metrics that are neither accuracy nor loss: their names, and one row of values a task."""
    found = {task: metrics_of(entry) for task, entry in report.tasks.items()}
    names = list(dict.fromkeys(key for metrics in found.values() for key in metrics))
    names = [name for name in names if name not in ("accuracy", "loss")]
    rows = [(task, *(_metric(metrics.get(name)) for name in names)) for task, metrics in found.items()]
    return (names, rows if names else [])


def plain_details(report: Report, drawn: set[str]) -> Facts:
    """Details that are not drawn, as text."""
    return [(key, value_text(value)) for key, value in report.details.items() if key not in drawn]


def value_text(value: Any) -> str:
    """A JSON value for people: strings bare, six digits of a number, long values cut."""
    value = float(f"{value:.6g}") if isinstance(value, float) else value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else text[:399] + "…"


def expert_note(report: Report) -> str:
    """How the individual experts' numbers came to be; empty without any."""
    individual = report.baselines.get("individual", {})
    if not individual:
        return ""
    recorded = [task for task in report.tasks if individual.get(task, {}).get("recorded") is True]
    measured = [task for task in report.tasks if task in individual and task not in recorded]
    if recorded and measured:
        how = f"measured in this run, except for {', '.join(recorded)}: recorded before"
    else:
        how = "recorded before, not measured in this run" if recorded else "measured in this run"
    return f"The individual experts' numbers were {how}."


def _metric(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _pairs(values: Any, glue: str) -> str:
    if not isinstance(values, Mapping):
        return value_text(values)
    return ", ".join(f"{key}{glue}{value_text(value)}" for key, value in values.items())


def _known(*facts: tuple[str, Any]) -> Facts:
    return [(what, str(value)) for what, value in facts if value not in (None, "")]
