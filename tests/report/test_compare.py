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


def test_seeds_of_one_method_are_one_row_of_means(make):
    table = comparison({"a": [run(make, 0.5, 0.9), run(make, 0.6, 0.8), run(make, 0.7, 1.0)], "b": make()})
    line = next(line for line in table.lines if line.name == "a")
    # Averages 0.70, 0.70 and 0.85: mean 0.75, standard deviation sqrt(2 * 0.05² + 0.1²) / sqrt(2).
    assert line.cells[:3] == pytest.approx((0.6, 0.9, 0.75))
    assert line.cells[3] == pytest.approx((0.6 / 0.8 + 0.9) / 2)
    assert line.spread == pytest.approx(0.0075**0.5)
    assert [line.text(column) for column in range(4)] == ["60.0", "90.0", "75.0 ± 8.7", "82.5"]
    assert next(line for line in table.lines if line.name == "b").spread is None


def test_pages_show_the_spread_over_seeds_and_every_run(make):
    several = [run(make, 0.5, 0.9, seed=3), run(make, 0.6, 0.8, seed=4)]
    markdown, html = compare({"a": several, "b": make(seed=5)})
    # (0.55 / 0.8 + 0.85) / 2 = 0.76875 of the experts.
    assert "| a | 55.0 | 85.0 | 70.0 ± 0.0 | 76.9 |" in markdown
    assert "standard deviation of the average" in markdown
    assert "70.0 ± 0.0" in html
    assert "2 methods compared" in html
    assert all(f"<td>{seed}</td>" in html for seed in (3, 4, 5))
    assert "standard deviation" not in "".join(compare({"a": make()}))


def test_a_seed_that_differs_in_data_or_tasks_is_told(make):
    tasks = make().tasks
    fewer = make(tasks={"cars": tasks["cars"]})
    # Whichever comes first, the task stays a column, and the others are averaged over both seeds.
    for several in ([make(), fewer], [fewer, make()]):
        table = comparison({"a": several})
        assert table.columns[:2] in (("cars", "mnist"), ("mnist", "cars"))
        assert "mnist was not evaluated in every run" in " ".join(table.warnings)
        line = next(line for line in table.lines if line.name == "a")
        found = dict(zip(table.columns, line.cells))
        assert (found["cars"], found["mnist"], found["average"]) == (0.6, None, 0.6)
        assert line.spread == 0


def test_tasks_without_accuracy_can_be_compared_over_seeds(make):
    spoken = make(tasks={"films": {"loss": 2.0, "perplexity": 7.4, "n": 5}}, baselines={})
    table = comparison({"a": [spoken, spoken], "b": spoken})
    assert table.columns[0] == "films"
    assert [line.cells for line in table.lines] == [(None, None, None)] * 2
    assert [line.spread for line in table.lines] == [None, None]
