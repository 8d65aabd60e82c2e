"""Each fault in what a method's class promises is caught by its own check, and by no other."""

from __future__ import annotations

import faults_contract as faults
import pytest
from kit import caught, results

from fusionbench_core.testing.result import FAILING

FULL = ("FM-108",)

FAULTS = [
    (faults.PERMUTED, "FM-101"),
    (faults.INHERITED, "FM-101"),
    (faults.DEFAULTS, "FM-102"),
    (faults.OUTSIDE, "FM-102"),
    (faults.THAWED, "FM-103"),
    (faults.STATEFUL, "FM-103"),
    (faults.EXCLUDED, "FM-104"),
    (faults.PERCENT, "FM-104"),
    (faults.SILENT, "FM-105"),
    (faults.SWALLOWS, "FM-106"),
    (faults.RANGELESS, "FM-107"),
    (faults.TAKES_NAN, "FM-107"),
    (faults.LOCAL, "FM-108"),
    (faults.SETUP, "FM-108"),
    (faults.HIDDEN, "FM-109"),
    (faults.LOUD, "FM-109"),
    (faults.UNDOCUMENTED, "FM-110"),
    (faults.NO_FORMULA, "FM-110"),
    (faults.NO_REFERENCE, "FM-110"),
    (faults.LINK, "FM-111"),
    (faults.OTHER_PAPER, "FM-111"),
    (faults.IDENTITY, "FM-112"),
    (faults.ALL_EQUAL, "FM-112"),
    (faults.UNHASHABLE, "FM-112"),
]


@pytest.mark.parametrize(("record", "check"), FAULTS, ids=lambda each: getattr(each, "target", each))
def test_a_fault_of_a_class_is_caught_by_its_check(record, check):
    faults.setup()
    assert caught(record, *FULL) == {check}


@pytest.mark.parametrize("record", [faults.SOUND, faults.SOUND_MODULE], ids=lambda record: record.target)
def test_a_sound_class_passes(record):
    wrong = [result for result in results(record) + results(record, "full", FULL) if result.status in FAILING]
    assert wrong == []
