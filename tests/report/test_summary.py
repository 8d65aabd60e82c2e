"""What a terminal shows."""

from __future__ import annotations

import pytest

from fusionbench_core.report import Report, plain_table, summary_facts, summary_lines, terminal_chart


def test_the_table_has_one_row_a_task_and_the_average(report):
    assert summary_lines(report) == [
        ("task", "pretrained", "individual (recorded)", "fused", "± 95 %", "of individual"),
        ("cars", "30.0", "80.0", "60.0", "10.0", "75.0"),
        ("mnist", "50.0", "100.0", "90.0", "10.0", "90.0"),
        ("average", "40.0", "90.0", "75.0", "7.1", "82.5"),
    ]


def test_columns_without_numbers_are_left_out():
    report = Report(tasks={"a": {"accuracy": 0.5}})
    assert summary_lines(report) == [("task", "fused"), ("a", "50.0"), ("average", "50.0")]


def test_nothing_evaluated_nothing_shown():
    assert summary_lines(Report(tasks={})) == []
    assert terminal_chart(Report(tasks={})) == ""
    assert plain_table([]) == []


def test_facts_name_the_normalised_mean_and_the_model(report):
    facts = dict(summary_facts(report))
    assert facts["normalised mean"] == "82.5 % of the individual experts"
    assert facts["model"] == "runs/first/model (1.2 kB, sha256 9f9f9f9f9f9f…)"
    assert facts["warning"] == "one thing"


def test_plain_lines_are_aligned(report):
    lines = plain_table(summary_lines(report))
    assert lines[1].startswith("cars     ")
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_chart_fits_the_terminal(report, width):
    chart = terminal_chart(report, width)
    rows = chart.splitlines()
    assert len(rows) == 4
    assert all(len(row) <= max(width, 50) for row in rows[:-1])
    assert "◆" in rows[0]
    assert rows[0].endswith("60.0 %")


def test_the_bar_is_as_long_as_its_value(make):
    plain = make(baselines={}, tasks={"a": {"accuracy": 0.5}, "b": {"accuracy": 1.0}})
    half, full, *_ = terminal_chart(plain, 80).splitlines()
    assert full.count("█") == 2 * half.count("█")
