"""Shape, averages and round trip of the report."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from fusionbench_core.errors import ConfigError, CorruptFile
from fusionbench_core.report import RESERVED, Report, check_task_names, curve, matrix
from fusionbench_core.report.plain import plain


def test_a_script_for_fusionbench_reports_reads_it(report):
    data = report.to_json()
    names = [key for key in data if key not in ("model_info", "average", "fusionbench")]
    assert names == ["cars", "mnist"]
    assert data["cars"]["accuracy"] == 0.6
    assert data["cars"]["loss"] == 1.0
    assert sum(data[name]["accuracy"] for name in names) / 2 == data["average"]["accuracy"]
    assert data["model_info"] == {"trainable_params": 30, "all_params": 40, "trainable_percentage": 0.75}


def test_a_task_entry_holds_interval_and_provenance(report):
    entry = report.to_json()["cars"]
    assert entry == {
        "accuracy": 0.6,
        "loss": 1.0,
        "n": 50,
        "split": "test",
        "interval": [0.5, 0.7],
        "seconds": 0.5,
        "fingerprint": "f1",
        "samples_sha256": "ab",
    }


def test_averages_are_those_worked_out_by_hand(report):
    average = report.average
    assert average["accuracy"] == pytest.approx(0.75)
    assert average["loss"] == pytest.approx(0.75)
    assert average["normalized_accuracy"] == pytest.approx((0.6 / 0.8 + 0.9 / 1.0) / 2)
    assert average["worst_accuracy"] == 0.6
    half = math.sqrt(0.1**2 + 0.1**2) / 2
    assert average["interval"] == pytest.approx([0.75 - half, 0.75 + half])


@pytest.mark.parametrize(
    "expert", [{}, {"cars": {"accuracy": 0.8}}, {"cars": {"accuracy": 0}, "mnist": {"accuracy": 1}}]
)
def test_there_is_no_normalised_mean_unless_every_expert_is_known(make, expert):
    assert make(baselines={"individual": expert}).average["normalized_accuracy"] is None


def test_tasks_without_accuracy_do_not_count_for_its_mean(make):
    report = make(
        tasks={"a": {"accuracy": 0.5, "loss": 1.0}, "b": {"perplexity": 9.0, "loss": 3.0}}, baselines={}
    )
    assert report.average["accuracy"] == 0.5
    assert report.average["loss"] == 2.0
    assert report.to_json()["b"]["perplexity"] == 9.0


def test_a_report_reads_back_equal(report):
    text = json.dumps(report.to_json(), allow_nan=False)
    assert Report.from_json(json.loads(text)) == report
    assert json.dumps(Report.from_json(json.loads(text)).to_json()) == text


def test_a_report_of_the_older_program_is_read():
    old = {
        "model_info": {"trainable_params": 1, "all_params": 2, "trainable_percentage": 0.5},
        "sun397": {"accuracy": 0.7, "loss": 1.1},
        "average": {"accuracy": 0.7, "loss": 1.1},
    }
    report = Report.from_json(old)
    assert report.tasks == {"sun397": {"accuracy": 0.7, "loss": 1.1}}
    assert report.average["accuracy"] == 0.7


@pytest.mark.parametrize("data", [{}, [], "text", {"average": {}, "fusionbench": {"schema_version": 2}}])
def test_what_is_no_report_of_this_version_is_refused(data):
    with pytest.raises(CorruptFile):
        Report.from_json(data)


def test_numbers_that_are_not_finite_become_none(make):
    report = make(
        tasks={"a": {"accuracy": float("nan"), "loss": float("inf")}}, timings={"fuse": float("nan")}
    )
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["a"]["accuracy"] is None
    assert data["a"]["loss"] is None
    assert data["average"]["accuracy"] is None
    assert data["fusionbench"]["timings"]["fuse"] is None
    assert Report.from_json(data) == report


@pytest.mark.parametrize("name", [*RESERVED, ""])
def test_a_task_cannot_take_a_reserved_name(name):
    with pytest.raises(ConfigError):
        check_task_names(["mnist", name])
    with pytest.raises(ConfigError):
        Report(tasks={name: {"accuracy": 1.0}})


def test_results_are_taken_as_objects_too():
    from fusionbench_core.tasks.result import TaskResult

    result = TaskResult(
        task="a",
        metrics={"accuracy": 0.5, "f1": 0.4},
        n=4,
        split="test",
        intervals={"accuracy": (0.2, 0.8), "f1": (0, 1)},
    )
    entry = Report(tasks={"a": result}).to_json()["a"]
    assert list(entry) == [
        "accuracy",
        "f1",
        "n",
        "split",
        "interval",
        "intervals",
        "seconds",
        "fingerprint",
        "samples_sha256",
    ]
    assert entry["interval"] == [0.2, 0.8]
    assert entry["intervals"] == {"f1": [0, 1]}


def test_the_report_is_not_changed_by_what_its_maker_does_later(make):
    warnings = ["first"]
    report = make(warnings=warnings)
    warnings.append("second")
    assert report.warnings == ["first"]


def test_values_of_any_kind_become_json():
    class Odd:
        def __str__(self):
            return "odd"

    assert plain({1: {"b", "a"}, "t": (1, True), "o": Odd()}) == {"1": ["a", "b"], "t": [1, True], "o": "odd"}


def test_a_curve_needs_an_x_for_every_value():
    with pytest.raises(ValueError, match="longer than x"):
        curve({"a": [1.0, 2.0]}, x=[0.0])


def test_a_matrix_needs_names_for_its_values():
    with pytest.raises(ValueError, match="2 rows of 1 numbers"):
        matrix([[1.0]], rows=["a", "b"], columns=["c"])


def test_showing_a_report_needs_no_torch():
    code = (
        "import sys\n"
        "from fusionbench_core.report import Report\n"
        "from fusionbench_core.report.write import render\n"
        "[render(Report(tasks={'a': {'accuracy': 0.5}}), form) for form in ('json', 'md', 'html')]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
