"""Files appear whole or not at all."""

from __future__ import annotations

import json
import os

import pytest

from fusionbench_core.errors import ConfigError, CorruptFile, NotFound, OutputError
from fusionbench_core.report import Report, read_report, write_reports


def test_all_formats_are_written_and_nothing_else(report, tmp_path):
    written = write_reports(report, tmp_path / "run")
    assert {name: path.name for name, path in written.items()} == {
        "json": "report.json",
        "md": "report.md",
        "html": "report.html",
    }
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]
    assert read_report(tmp_path / "run") == report
    assert read_report(written["json"]) == report


def test_only_the_formats_asked_for_are_written(report, tmp_path):
    assert list(write_reports(report, tmp_path, formats=["md"])) == ["md"]
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_an_unknown_format_is_refused_before_anything_is_written(report, tmp_path):
    with pytest.raises(ConfigError, match="htm"):
        write_reports(report, tmp_path / "run", formats=["json", "htm"])
    assert not (tmp_path / "run").exists()


def test_a_failed_write_leaves_the_old_report(report, tmp_path, monkeypatch):
    write_reports(report, tmp_path, formats=["json"])
    before = (tmp_path / "report.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_reports(Report(tasks={}), tmp_path, formats=["json"])
    assert (tmp_path / "report.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_directory_that_cannot_be_made_is_an_output_error(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_reports(report, tmp_path / "file" / "run")


def test_a_plugin_adds_its_own_format(report, tmp_path):
    def csv(found, directory):
        path = directory / "report.csv"
        path.write_text("\n".join(found.tasks))
        return path

    written = write_reports(report, tmp_path, formats=(), reporters=[("csv", csv)])
    assert written == {"csv": tmp_path / "report.csv"}


def test_a_failing_plugin_costs_only_its_own_report(report, tmp_path):
    def broken(found, directory):
        raise RuntimeError("no such luck")

    with pytest.warns(UserWarning, match=r"reporter extra failed.*RuntimeError: no such luck"):
        written = write_reports(report, tmp_path, reporters=[("extra", broken)])
    assert list(written) == ["json", "md", "html"]


def test_the_json_is_strict_and_keeps_the_order_of_tasks(report, tmp_path):
    text = write_reports(report, tmp_path)["json"].read_text()
    assert "NaN" not in text
    assert list(json.loads(text)) == ["model_info", "cars", "mnist", "average", "fusionbench"]


def test_reading_says_what_is_wrong(tmp_path):
    with pytest.raises(NotFound):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(CorruptFile):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"a": 1}')
    with pytest.raises(CorruptFile):
        read_report(tmp_path)
