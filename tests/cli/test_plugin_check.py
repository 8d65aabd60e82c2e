"""`fb plugin check` on a plugin file: what it prints, writes and returns."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from fusionbench_core.cli import main

SOUND = """
import fusionbench_core as fb
from fusionbench_core import hookimpl

RECORD = fb.MethodRecord(name="half", target="{module}:Half", summary="the mean of all models")


@hookimpl
def fb_methods():
    return [RECORD]


@fb.implements(RECORD)
class Half(fb.TensorMethod):
    def merge(self, group):
        {body}
"""


@pytest.fixture
def plugin_file(tmp_path):
    def make(body="return sum(group.models) / len(group.models)", name="half_plugin"):
        file = tmp_path / f"{name}.py"
        file.write_text(SOUND.format(module=name, body=body))
        return str(file)

    return make


def fb(*arguments):
    return CliRunner().invoke(main, ["plugin", "check", "--jobs", "1", *arguments], prog_name="fb")


def test_a_passing_check_gives_status_0_and_one_line_a_record(plugin_file):
    done = fb(plugin_file(), "--only", "FM-203", "--only", "FM-213")
    assert done.exit_code == 0, done.output
    assert "ok    half_plugin/half" in done.stdout
    assert "FM-213 may be improved: the law IDENTICAL holds on all probes: you may declare it" in done.stdout
    assert "is conformant at level fast: 2 passed" in done.stdout


def test_a_failing_check_gives_status_1_and_says_what_why_and_what_to_do(plugin_file):
    done = fb(plugin_file("raise KeyError(group.name)"), "--only", "FM-203", "--format", "json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert (report["schema"], report["conformant"]) == ("fusionbench-check/1", False)
    result = next(each for each in report["results"] if each["check"] == "FM-203")
    assert result["status"] == "failed"
    assert "KeyError" in result["message"]
    assert result["fix"]
    assert result["page"] == "reference/conformance.md#fm-203"


def test_a_check_that_kills_the_process_fails_and_the_others_go_on(plugin_file):
    done = fb(
        plugin_file("import os; os._exit(3)"), "--only", "FM-203", "--only", "FM-102", "--format", "json"
    )
    results = {each["check"]: each for each in json.loads(done.stdout)["results"]}
    assert results["FM-203"]["status"] == "error"
    assert "died (exit status 3)" in results["FM-203"]["message"]
    assert results["FM-102"]["status"] == "passed"


def test_junit_and_github_name_record_check_and_fault(plugin_file, tmp_path):
    file = plugin_file("return group.models[0][:1]")
    suites = ElementTree.fromstring(fb(file, "--only", "FM-203", "--format", "junit").stdout)
    case = suites.find("testsuite[@name='half_plugin/half']/testcase")
    assert case.get("name").startswith("FM-203")
    assert case.find("failure") is not None
    lines = fb(file, "--only", "FM-203", "--format", "github").stdout.splitlines()
    assert lines[0].startswith("::error title=FM-203 half_plugin/half%3A")
    assert lines[-1].endswith(" s)")


def test_the_report_and_the_badge_are_written_beside_what_is_printed(plugin_file, tmp_path):
    report, badge = tmp_path / "check.json", tmp_path / "badge.json"
    fb(plugin_file(), "--only", "FM-203", "--output", str(report), "--badge", str(badge))
    assert json.loads(report.read_text())["conformant"] is True
    assert json.loads(badge.read_text()) == {
        "schemaVersion": 1,
        "label": "FusionBench",
        "message": "conformant, 1 checks",
        "color": "brightgreen",
    }


def test_an_expected_failure_needs_a_reason_and_is_strict(plugin_file, tmp_path):
    table = tmp_path / "expected.json"
    failing = plugin_file("raise KeyError(group.name)", "failing_plugin")
    table.write_text('{"half": {"FM-203": "known, issue 7"}}')
    assert fb(failing, "--only", "FM-203", "--expect", str(table)).exit_code == 0
    passing = fb(plugin_file(), "--only", "FM-203", "--expect", str(table))
    assert passing.exit_code == 1
    assert "it passes, and was expected to fail: known, issue 7" in passing.stdout
    table.write_text('{"half": {"FM-203": " "}}')
    assert "without a reason" in fb(failing, "--expect", str(table)).output


def test_unknown_plugins_checks_and_files_are_named(tmp_path):
    assert "no plugin is called 'fb-mergin'" in fb("fb-mergin").output
    (tmp_path / "README.md").touch()
    told = fb(str(tmp_path / "README.md")).output
    assert "neither an installed plugin, nor a directory with a pyproject.toml, nor a .py file" in told
    assert "did you mean" in fb("merging", "--only", "FM-20").output
    assert "there is no file" in fb(str(tmp_path / "nothing.py")).output
    assert "it has no pyproject.toml" in fb(str(tmp_path)).output
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "fb-elsewhere"\n')
    assert "pip install" in fb(str(tmp_path)).output


def test_what_cannot_be_imported_fails_once_and_not_in_every_check(plugin_file):
    file = plugin_file(name="lost_plugin")
    with open(file, encoding="utf-8") as stream:
        text = stream.read()
    with open(file, "w", encoding="utf-8") as stream:
        stream.write(text.replace("lost_plugin:Half", "lost_plugin:Whole"))
    report = json.loads(fb(file, "--format", "json").stdout)
    failing = {each["check"] for each in report["results"] if each["status"] in ("failed", "error")}
    assert failing == {"FP-107", "FM-101"}
    skipped = {each["message"] for each in report["results"] if each["check"] == "FM-203"}
    assert skipped == {"it cannot be imported"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--subject", "halve"), "declares no 'halve' that can be checked\n  fix   did you mean 'half'"),
        (("--only", "FM-305"), "FM-305 runs at the full level only"),
        (("--only", "FS-101", "--subject", "half"), "no record asked for is looked at by FS-101"),
    ],
)
def test_asking_for_what_is_not_there_gives_status_2_and_no_verdict(plugin_file, words, says):
    done = fb(plugin_file(), *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


@pytest.mark.parametrize("fault", ["@fb.implements(RECORD)\n", "merge"])
def test_what_is_no_complete_method_fails_once_and_not_in_every_check(plugin_file, fault):
    file = plugin_file(name="partial_plugin")
    with open(file, encoding="utf-8") as stream:
        text = stream.read()
    with open(file, "w", encoding="utf-8") as stream:
        stream.write(text.replace(fault, "" if fault.startswith("@") else "fuse"))
    report = json.loads(fb(file, "--subject", "half", "--format", "json").stdout)
    assert {each["check"] for each in report["results"] if each["status"] != "skipped"} == {"FM-101"}
    assert not report["conformant"]


def test_a_fault_that_fails_many_checks_is_told_in_full_once(plugin_file):
    file = plugin_file("raise KeyError('lost')", "lost_key_plugin")
    done = fb(file, "--only", "FM-601", "--only", "FM-602")
    assert done.stdout.count("KeyError: 'lost'") == 1
    assert "FM-602" in done.stdout
    assert "(as FM-601)" in done.stdout
