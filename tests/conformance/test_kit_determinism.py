"""Each fault in what decides a result is caught by its own check alone."""

from __future__ import annotations

import faults_determinism as faults
import pytest
import torch
from kit import caught, results

FULL = ("FM-305", "FM-308")
CHECKS = [f"FM-{number}" for number in range(301, 309)]

FAULTS = [
    (faults.ENTROPY, "FM-301"),
    (faults.UNDECLARED, "FM-302"),
    (faults.IDLE, "FM-302"),
    (faults.ONE_STREAM, "FM-303"),
    (faults.FIRST, "FM-304"),
    (faults.SORTED, "FM-304"),
    (faults.HASHED, "FM-305"),
    (faults.MOVES, "FM-306"),
    (faults.READS, "FM-306"),
    (faults.WHOLE_NORM, "FM-307"),
    (faults.SAME_MASK, "FM-307"),
]

SOUND = [faults.SOUND, faults.SOUND_ORDERED, faults.SOUND_ROWS]


@pytest.mark.parametrize(("record", "check"), FAULTS, ids=lambda each: getattr(each, "target", each))
def test_a_fault_in_what_decides_a_result_is_caught_by_its_check(record, check):
    assert caught(record, *{check}.intersection(FULL)) == {check}


def test_drawing_from_the_global_generator_is_caught_wherever_it_does_harm():
    # Its seed decides nothing (302), its draws follow the order of tensors (303), and all others' move (306).
    # Whatever compares two runs for another reason may see it as well.
    assert caught(faults.GLOBAL) >= {"FM-302", "FM-303", "FM-306"}


@pytest.mark.parametrize("record", SOUND, ids=lambda record: record.target)
def test_a_sound_method_passes_all_checks_of_determinism(record):
    found = results(record, "full", CHECKS)
    assert {result.status for result in found} == {"passed", "skipped"}
    assert caught(record) == set()


def test_a_streaming_method_is_looked_at_by_all_checks_but_that_of_devices():
    found = {result.check: result.status for result in results(faults.SOUND, "full", CHECKS)}
    assert found == {**dict.fromkeys(CHECKS, "passed"), "FM-308": "skipped"}


def test_without_a_gpu_devices_are_not_compared(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    [result] = results(faults.ON_DEVICE, "full", ["FM-308"])
    assert (result.status, result.message) == ("skipped", "there is no GPU on this machine")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_drawing_on_the_device_is_caught_on_a_gpu():
    [result] = results(faults.ON_DEVICE, "full", ["FM-308"])
    assert result.status == "failed"


def test_a_wrong_locality_counts_although_the_check_is_optional():
    [result] = results(faults.WHOLE_NORM, only=["FM-307"])
    assert result.failing
