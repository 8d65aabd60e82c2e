"""Each fault in what a result looks like, or in values at the edge, is caught by its own check alone."""

from __future__ import annotations

import faults_structure as faults
import pytest
from kit import caught, results

from fusionbench_core.testing.result import FAILING

FULL = ("FM-212", "FM-222", "FM-225", "FM-226")

FAULTS = [
    (faults.PREFIXED, "FM-201"),
    (faults.WRAPPED, "FM-201"),
    (faults.PADDED, "FM-202"),
    (faults.WIDENED, "FM-203"),
    (faults.META, "FM-204"),
    (faults.CANCELLED, "FM-205"),
    (faults.OVERWRITES, "FM-206"),
    (faults.TRAIN_MODE, "FM-206"),
    (faults.SHARES, "FM-207"),
    (faults.INTEGERS, "FM-208"),
    (faults.VARIANCE, "FM-209"),
    (faults.COUNTER, "FM-209"),
    (faults.NOISY, "FM-210"),
    (faults.HEAD_ONLY, "FM-210"),
    (faults.RANKED, "FM-211"),
    (faults.ROWS, "FM-211"),
    (faults.STORAGE, "FM-212"),
    (faults.VIEWS, "FM-212"),
    (faults.HALF, "FM-222"),
    (faults.UNIT, "FM-223"),
    (faults.ASKS, "FM-224"),
    (faults.GRAPH, "FM-224"),
    (faults.BACKWARD, "FM-224"),
    (faults.THREADS, "FM-225"),
    (faults.DEFAULT_DTYPE, "FM-226"),
    (faults.PRECISION, "FM-226"),
]

SOUND = [faults.SOUND, faults.SOUND_WEIGHTS, faults.SOUND_MODULE]


@pytest.mark.parametrize(("record", "check"), FAULTS, ids=lambda each: getattr(each, "target", each))
def test_a_fault_in_a_result_is_caught_by_its_check(record, check):
    assert caught(record, *{check}.intersection(FULL)) == {check}


@pytest.mark.parametrize("record", SOUND, ids=lambda record: record.target)
def test_a_sound_result_passes(record):
    found = results(record) + results(record, "full", FULL)
    assert [result for result in found if result.status in FAILING] == []


def test_a_tensor_method_is_looked_at_by_all_checks_of_results():
    only = [f"FM-{number}" for number in (*range(201, 213), *range(222, 227))]
    found = results(faults.SOUND, "full", only)
    assert {result.check: result.status for result in found} == dict.fromkeys(only, "passed")
