"""Several runs beside each other."""

from __future__ import annotations

import pytest

from fusionbench_core.errors import ConfigError
from fusionbench_core.report import Report, write_comparison
from fusionbench_core.report.compare import compare, comparison


def run(make, cars, mnist, **changes) -> Report:
    tasks = make().tasks
    tasks = {"cars": {**tasks["cars"], "accuracy": cars}, "mnist": {**tasks["mnist"], "accuracy": mnist}}
    return make(tasks=tasks, **changes)


def test_the_best_of_each_column_is_marked(make):
    table = comparison({"a": run(make, 0.6, 0.9), "b": run(make, 0.7, 0.8)})
    assert table.columns == ("cars", "mnist", "average", "normalised")
    best = {line.name: line.best for line in table.lines}
    # b: (0.7 / 0.8 + 0.8) / 2 = 0.8375 against a: (0.75 + 0.9) / 2 = 0.825; both average 0.75.
    assert best == {"pretrained": frozenset(), "individual": frozenset(), "a": {1, 2}, "b": {0, 2, 3}}


def test_baselines_are_rows_to_compare_with(make):
    table = comparison({"a": make()})
    reference = {line.name: line.cells for line in table.lines if line.reference}
    assert reference["individual"] == (0.8, 1.0, 0.9, 1.0)
    assert reference["pretrained"] == pytest.approx((0.3, 0.5, 0.4, (0.3 / 0.8 + 0.5) / 2))


def test_every_kind_of_baseline_is_a_row_in_a_fixed_order(make):
    joint = {"cars": {"accuracy": 0.6, "recorded": True}, "mnist": {"accuracy": 0.9}}
    known = {kind: {**found} for kind, found in make().baselines.items()}
    partial = {"cars": {"accuracy": 1.0}}
    baselines = {"distilled": joint, "partial": partial, "multi_task": joint, **known}
    table = comparison({"none": make(baselines={}), "a": run(make, 0.4, 0.5, baselines=baselines)})
    assert [line.name for line in table.lines if line.reference] == [
        "pretrained", "individual", "multi_task", "distilled",
    ]  # fmt: skip
    reference = {line.name: line for line in table.lines if line.reference}
    assert reference["multi_task"].cells == pytest.approx((0.6, 0.9, 0.75, (0.6 / 0.8 + 0.9) / 2))
    assert reference["multi_task"].best == frozenset()
    markdown, html = compare({"a": make(baselines=baselines)})
    assert r"| multi\_task | 60.0 | 90.0 | 75.0 | 82.5 |" in markdown
    assert html.count("multi_task") == 2  # a row, and a grey bar
    assert html.count('<rect class="pretrained"') == 3  # the experts are what bars are relative to


def test_markdown_and_html_show_all_runs(make):
    markdown, html = compare({"a|b": run(make, 0.6, 0.9), "<script>": run(make, 0.7, 0.9)})
    assert r"| a\|b | 60.0 | **90.0** | 75.0 | 82.5 |" in markdown
    assert "&lt;script&gt;" in markdown
    assert "<script" not in html
    assert "Best of 2 methods" in html
    assert "<svg" in html


def test_unlike_things_are_called_unlike(make):
    other = make(tasks={"cars": {"accuracy": 0.5, "fingerprint": "else"}}, transductive=True)
    warnings = " ".join(comparison({"a": make(), "b": other}).warnings)
    assert "cars differs" in warnings
    assert "mnist was not evaluated in every run" in warnings
    assert "b adapted to test data" in warnings
    assert comparison({"a": make(), "b": make()}).warnings == []


def test_runs_without_baselines_or_tasks_can_be_compared(make):
    markdown, html = compare({"a": make(baselines={}), "b": Report(tasks={})})
    assert "| b | – | – | – | – |" in markdown
    assert "<svg" in html
    compare({"b": Report(tasks={})})


def test_there_must_be_something_to_compare():
    with pytest.raises(ConfigError):
        compare({})


def test_a_comparison_is_written(make, tmp_path):
    written = write_comparison({"a": make(), "b": make()}, tmp_path)
    assert {path.name for path in written.values()} == {"comparison.md", "comparison.html"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.html", "comparison.md"]
