"""Each fault in how a method reads, keeps, saves and rebuilds is caught by its own check alone."""

from __future__ import annotations

import json

import faults_streaming as faults
import pytest
from kit import caught, results

from fusionbench_core.testing.zoo_source import ZooSource

FULL = ("FM-402", "FM-405", "FM-406", "FM-408", "FM-409")
CHECKS = [f"FM-{number}" for number in range(401, 410)]

FAULTS = [
    (faults.LAYERS, "FM-401"),
    (faults.NEIGHBOURS, "FM-401"),
    (faults.HOARDS, "FM-402"),
    (faults.HUNGRY, "FM-409"),
    (faults.READS_TWICE, "FM-403"),
    (faults.LIVE, "FM-404"),
    (faults.STATE_DICTS, "FM-404"),
    (faults.REMEMBERS, "FM-405"),
    (faults.HALF_SAVED, "FM-407"),
    (faults.SCALE_LOST, "FM-407"),
    (faults.NO_BUILDER, "FM-407"),
    (faults.PROCESS, "FM-408"),
]


@pytest.fixture
def baseline(tmp_path, monkeypatch):
    """A file of times, which says that the faulty method took one nanosecond a parameter."""
    file = tmp_path / "speed.json"
    file.write_text(json.dumps({"faulty/faulty": 1.0}))
    monkeypatch.setenv("FB_SPEED_BASELINE", str(file))
    return file


@pytest.mark.parametrize(("record", "check"), FAULTS, ids=lambda each: getattr(each, "target", each))
def test_a_fault_in_reading_or_saving_is_caught_by_its_check(record, check):
    assert caught(record, *{check}.intersection(FULL)) == {check}


def test_a_method_that_became_slow_is_warned_of(baseline):
    assert caught(faults.SLOW, "FM-406") == {"FM-406"}
    [result] = results(faults.SLOW, "full", ["FM-406"])
    assert not result.failing


def test_the_first_time_of_a_method_is_noted_and_the_next_compared_with_it(baseline):
    baseline.unlink()
    first, second = (results(faults.SLOW, "full", ["FM-406"])[0] for _ in range(2))
    assert (first.status, second.status) == ("skipped", "passed")
    # 2 ms for each 64 x 128 parameters is 244 ns a parameter.
    assert json.loads(baseline.read_text())["faulty/faulty"] >= 2e6 / (64 * 128)


@pytest.mark.parametrize(
    "record", [faults.SOUND, faults.SOUND_LAYERS, faults.SOUND_MODULE], ids=lambda record: record.target
)
def test_a_sound_method_passes_all_checks_of_reading_and_saving(record):
    found = results(record, "full", CHECKS)
    assert {result.status for result in found} == {"passed", "skipped"}
    assert caught(record) == set()


def test_what_is_checked_depends_on_what_a_method_is():
    passed = {
        record.target.partition(":")[2]: [
            result.check for result in results(record, "full", CHECKS) if result.status == "passed"
        ]
        for record in (faults.SOUND, faults.SOUND_LAYERS, faults.SOUND_MODULE)
    }
    assert passed == {
        "Surveys": ["FM-402", "FM-403", "FM-404", "FM-405", "FM-407"],
        "MixesWithinLayers": ["FM-401", "FM-404", "FM-407"],
        "GivesAPair": ["FM-407", "FM-408"],
    }


def test_a_pickle_in_the_artefact_is_caught(monkeypatch, tmp_path):
    extra = tmp_path / "optimizer.pt"
    extra.write_bytes(b"\x80\x05.")
    monkeypatch.setattr(ZooSource, "assets", lambda self: [extra])
    [result] = results(faults.SOUND, only=["FM-407"])
    assert result.status == "failed"
    assert "optimizer.pt" in result.message


def test_without_anonymous_memory_to_look_at_memory_is_not_checked(monkeypatch):
    monkeypatch.setattr("fusionbench_core.testing.memory.anonymous_memory", lambda: None)
    [result] = results(faults.HOARDS, "full", ["FM-402"])
    assert result.status == "skipped"
    assert "anonymous memory" in result.message
