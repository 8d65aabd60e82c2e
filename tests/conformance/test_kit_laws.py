"""Each false law, wrong weight and forgotten factor is caught by its own check, and by no other."""

from __future__ import annotations

import faults_laws as faults
import pytest
from kit import caught, results

from fusionbench_core.testing.result import FAILING

FULL = ("FM-217", "FM-218", "FM-219", "FM-220")

FAULTS = [
    (faults.NOT_IDENTICAL, "FM-213"),
    (faults.NOT_IDENTICAL_OUTPUTS, "FM-213"),
    (faults.NOT_PERMUTATION, "FM-214"),
    (faults.NOT_SINGLE, "FM-215"),
    (faults.TWO_OR_ONE, "FM-215"),
    (faults.NOT_FIXED, "FM-216"),
    (faults.NOT_TRANSLATED, "FM-217"),
    (faults.NOT_SCALED, "FM-218"),
    (faults.COUNTS_ZERO, "FM-219"),
    (faults.UNEQUAL, "FM-219"),
    (faults.NOT_NORMALISED, "FM-219"),
    (faults.NOT_DELTAS, "FM-220"),
    (faults.NOT_RESCALED, "FM-221"),
]

LAWS = {
    "FM-213": "IDENTICAL",
    "FM-214": "PERMUTATION",
    "FM-215": "SINGLE",
    "FM-216": "BASE_FIXED_POINT",
    "FM-217": "TRANSLATION",
    "FM-218": "SCALE",
}


@pytest.mark.parametrize(("record", "check"), FAULTS, ids=lambda each: getattr(each, "target", each))
def test_a_fault_in_a_law_is_caught_by_its_check(record, check):
    assert caught(record, *{check}.intersection(FULL)) == {check}


def test_failing_on_one_model_is_caught():
    # One model is also the least number that it declares to take, which is what FM-506 looks at.
    assert caught(faults.ONE_IS_TOO_FEW) == {"FM-215", "FM-506"}


@pytest.mark.parametrize("record", [faults.SOUND, faults.SOUND_MODULE], ids=lambda record: record.target)
def test_a_method_that_keeps_its_laws_passes(record):
    found = results(record) + results(record, "full", FULL)
    assert [result for result in found if result.status in FAILING] == []


def test_a_sound_method_is_looked_at_by_all_checks_of_laws():
    only = [f"FM-{number}" for number in range(213, 222)]
    found = results(faults.SOUND, "full", only)
    assert {result.check: result.status for result in found} == dict.fromkeys(only, "passed")


def test_a_law_that_holds_and_is_not_declared_is_suggested():
    found = results(faults.UNDECLARED, "full", LAWS)
    assert {result.check: result.status for result in found} == dict.fromkeys(LAWS, "passed")
    assert all(LAWS[result.check] in result.suggestion for result in found)


@pytest.mark.parametrize("record", [faults.NOT_TRANSLATED, faults.NOT_SCALED], ids=lambda each: each.target)
def test_a_false_law_counts_as_required_also_where_the_check_does_not(record):
    (failed,) = [each for each in results(record, "full", FULL[:2]) if each.status == "failed"]
    assert failed.required


def test_a_law_that_is_neither_declared_nor_kept_is_none_of_the_kits_business():
    (result,) = results(faults.COUNTS_ZERO, "full", ["FM-214"])
    assert result.status == "skipped"
    (result,) = results(faults.NOT_RESCALED, "full", ["FM-213"])
    assert result.status == "skipped"
    assert "IDENTICAL" in result.message
