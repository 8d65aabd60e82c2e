"""Several runs beside each other: rows are methods, columns are tasks."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from fusionbench_core.errors import ConfigError
from fusionbench_core.report.averages import mean, number
from fusionbench_core.report.baselines import in_order
from fusionbench_core.report.charts import dot_chart
from fusionbench_core.report.figures import Figure
from fusionbench_core.report.report import Report
from fusionbench_core.report.view import percent, rows_of

Measured = Report | Sequence[Report]
"""One run of a method, or one a seed."""

_SEEDS = "Numbers are means over seeds, and ± is the standard deviation of the average."
_TITLES = {True: "Accuracy relative to the individual experts", False: "Accuracy"}


@dataclass(frozen=True)
class Line:
    """One method: accuracy a task, mean, normalised mean; of several seeds, the means over them.

    Attributes:
        name: What the run is called.
        cells: A number a column.
        best: The columns in which it leads.
        reference: Whether it is a baseline, such as the pre-trained model and the individual experts: a row
            to compare with, which takes no part in the contest.
        spread: Standard deviation of the mean accuracy over seeds; None of one seed.
    """

    name: str
    cells: tuple[float | None, ...]
    best: frozenset[int] = frozenset()
    reference: bool = False
    spread: float | None = None

    def text(self, column: int) -> str:
        """A cell in percent; that of the average says how it spreads: `70.1 ± 0.4`."""
        said = percent(self.cells[column])
        average = column % len(self.cells) == len(self.cells) - 2
        return f"{said} ± {percent(self.spread)}" if average and self.spread is not None else said


@dataclass(frozen=True)
class Comparison:
    """The table, its header, and what makes it unfair."""

    columns: tuple[str, ...]
    lines: list[Line]
    warnings: list[str]


def compare(reports: Mapping[str, Measured]) -> tuple[str, str]:
    """Markdown and HTML that put methods beside each other, the best of each column marked.

    Args:
        reports: What to call a method -> its report, or its reports, one a seed.

    Raises:
        ConfigError: if there are no reports.
    """
    reports = _by_seed(reports)
    table = comparison(reports)
    return _markdown(table), _html(table, reports)


def comparison(reports: Mapping[str, Measured]) -> Comparison:
    """The table as data. Raises ConfigError if there are no reports."""
    runs = _by_seed(reports)
    if not runs:
        raise ConfigError("there are no reports to compare", fix="name at least one run directory")
    means = {name: _mean(each) for name, each in runs.items()}
    tasks = list(dict.fromkeys(task for each in runs.values() for report in each for task in report.tasks))
    lines = [
        replace(_line(name, report, tasks), spread=_spread(runs[name], report.tasks))
        for name, report in means.items()
    ]
    columns = (*tasks, "average", "normalised")
    for index in range(len(columns)):
        values = [line.cells[index] for line in lines if line.cells[index] is not None]
        if len(values) > 1:
            # Half a tenth of a percent apart reads as equal in the table, so it is marked as equal.
            most = percent(max(value for value in values if value is not None))
            lines = [
                replace(line, best=line.best | {index}) if percent(line.cells[index]) == most else line
                for line in lines
            ]
    return Comparison(columns, [*_references(means, tasks), *lines], _unfair(runs, tasks))


def _by_seed(reports: Mapping[str, Measured]) -> dict[str, list[Report]]:
    runs = {name: [each] if isinstance(each, Report) else list(each) for name, each in reports.items()}
    return {name: each for name, each in runs.items() if each}


def _mean(runs: Sequence[Report]) -> Report:
    """The first report, its accuracies the means over all runs, of the tasks that all of them have."""
    first, *others = runs
    if not others:
        return first
    found = {
        task: [run.tasks[task]["accuracy"] for run in runs if number(run.tasks.get(task, {}).get("accuracy"))]
        for task in first.tasks
    }
    return replace(
        first,
        tasks={
            task: {**entry, "accuracy": mean(found[task]), "interval": None}
            for task, entry in first.tasks.items()
            if len(found[task]) == len(runs)
        },
    )


def _spread(runs: Sequence[Report], tasks: Iterable[str]) -> float | None:
    """Of the average over those tasks, which all runs have."""
    if len(runs) < 2:
        return None
    averages = [mean(run.tasks[task]["accuracy"] for task in tasks) for run in runs]
    known = [average for average in averages if average is not None]
    return statistics.stdev(known) if known else None


def _line(name: str, report: Report, tasks: list[str]) -> Line:
    found = {row.task: row.fused for row in rows_of(report)}
    average = report.average
    return Line(name, (*map(found.get, tasks), average["accuracy"], average["normalized_accuracy"]))


def _references(reports: Mapping[str, Report], tasks: list[str]) -> list[Line]:
    """Baselines, each of the first report that has it for all tasks."""
    lines = []
    for kind in in_order(kind for report in reports.values() for kind in report.baselines):
        for report in reports.values():
            measured = report.baselines.get(kind, {})
            found = {task: measured.get(task, {}).get("accuracy") for task in tasks}
            if set(report.tasks) == set(tasks) and tasks and None not in found.values():
                twin = replace(report, tasks={task: {"accuracy": found[task]} for task in tasks})
                lines.append(replace(_line(kind, twin, tasks), reference=True))
                break
    return lines


def _unfair(runs: Mapping[str, Sequence[Report]], tasks: list[str]) -> list[str]:
    found = []
    reports = [report for each in runs.values() for report in each]
    for task in tasks:
        entries = [report.tasks[task] for report in reports if task in report.tasks]
        if len(entries) < len(reports):
            found.append(f"{task} was not evaluated in every run, so the averages are over different tasks")
        if len({entry["fingerprint"] for entry in entries if entry.get("fingerprint")}) > 1:
            found.append(
                f"{task} differs between the runs (fingerprints), so its column compares unlike things"
            )
        elif len({(entry.get("split"), entry.get("n")) for entry in entries}) > 1:
            found.append(f"{task} was measured on different samples")
    adapted = [name for name, each in runs.items() if any(report.transductive for report in each)]
    told = [name for name, each in runs.items() if any(report.task_given for report in each)]
    found += [f"{name} adapted to test data" for name in adapted]
    found += [f"{name} was told the task of each sample" for name in told]
    return found


def _markdown(table: Comparison) -> str:
    from fusionbench_core.report.markdown import escape

    def cell(line: Line, index: int) -> str:
        text = line.text(index)
        return f"**{text}**" if index in line.best else text

    rows = [["method", *table.columns], ["---", *["---:"] * len(table.columns)]]
    rows[0] = [escape(name) for name in rows[0]]
    for line in table.lines:
        rows.append([escape(line.name), *(cell(line, index) for index in range(len(line.cells)))])
    seeds = f" {_SEEDS}" if any(line.spread is not None for line in table.lines) else ""
    parts = ["# Comparison", f"Accuracy in percent; the best of each column is bold.{seeds}"]
    parts += [f"> **Warning:** {escape(warning)}" for warning in table.warnings]
    parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts) + "\n"


def _html(table: Comparison, runs: Mapping[str, Sequence[Report]]) -> str:
    from fusionbench_core.report import cards
    from fusionbench_core.report.html import environment

    details = [
        (
            name,
            report.method.get("name") or "",
            ", ".join(f"{key} {value}" for key, value in cards.parameters(report)),
            "" if report.seed is None else str(report.seed),
            str(report.artefact.get("content_hash") or "").removeprefix("sha256:")[:12],
            sum(report.timings.values()) if report.timings else None,
        )
        for name, each in runs.items()
        for report in each
    ]
    page = environment().get_template("compare.html")
    return page.render(
        table=table,
        figure=comparison_figure(table),
        headline=_headline(table),
        details=details,
        methods=len(runs),
        seeds=_SEEDS if any(line.spread is not None for line in table.lines) else "",
    )


def comparison_figure(table: Comparison) -> Figure | None:
    """A bar a method for the mean, a dot a task; None if nothing was evaluated."""
    normalised = all(line.cells[-1] is not None for line in table.lines if not line.reference)
    shown = [line for line in table.lines if line.cells[-2] is not None]
    if not shown:
        return None
    experts = next((line for line in table.lines if line.name == "individual" and line.reference), None)
    normalised = normalised and experts is not None
    rows = [
        (
            line.name,
            line.cells[-1 if normalised else -2] or 0.0,
            [
                (task, value / (experts.cells[at] or 1.0) if normalised and experts else value)
                for at, (task, value) in enumerate(zip(table.columns[:-2], line.cells))
                if value is not None
            ],
        )
        for line in shown
        if not (normalised and (line is experts or line.cells[-1] is None))
    ]
    column = len(table.columns) - (1 if normalised else 2)
    picture = dot_chart(
        rows,
        best={line.name for line in shown if column in line.best},
        grey={line.name for line in shown if line.reference},
        label=f"{_TITLES[normalised]}, by method",
    )
    return Figure(_TITLES[normalised], Markup(picture), wide=True)


def _headline(table: Comparison) -> str:
    contest = [line for line in table.lines if not line.reference]
    column = -1 if all(line.cells[-1] is not None for line in contest) else -2
    known = [line for line in contest if line.cells[column] is not None]
    if not known:
        return "No task was evaluated."
    value, tasks = percent(max(line.cells[column] or 0.0 for line in known)), len(table.columns) - 2
    leaders = " and ".join(line.name for line in known if percent(line.cells[column]) == value)
    what = "of the individual experts' accuracy" if column == -1 else "mean accuracy"
    over = "one task" if tasks == 1 else f"{tasks} tasks"
    if len(contest) == 1:
        return f"{leaders} reaches {value} % {what} over {over}."
    return f"Best of {len(contest)} methods: {leaders}, with {value} % {what} over {over}."
