"""Every check of tasks finds its fault, and no other one does."""

from __future__ import annotations

import faults_tasks
import pytest
from kit import results

from fusionbench_core.testing.result import FAILING

FAULTS = [
    ("NoLicence", "FT-101"),
    ("UnknownMetric", "FT-101"),
    ("StaysInItsMode", "FT-102"),
    ("HashOfAString", "FT-102"),
    ("LeavesEvalMode", "FT-103"),
    ("LeavesAHook", "FT-103"),
    ("FreezesTheModel", "FT-103"),
    ("Percent", "FT-104"),
    ("LabelsOffByOne", "FT-104"),
    ("MeanOfBatches", "FT-105"),
    ("DropsTheLastBatch", "FT-105"),
    ("IgnoresLimit", "FT-106"),
    ("SaysItTookAll", "FT-106"),
    ("NoRecord", "FT-107"),
    ("RecordOfOtherSamples", "FT-107"),
    ("NoInterval", "FT-108"),
    ("CallsItWilson", "FT-108"),
    ("SumsTheLoss", "FT-109"),
    ("OtherHeadInside", "FT-109"),
    ("AlwaysLabelled", "FT-110"),
    ("LabelsAmongInputs", "FT-110"),
    ("TestDataForTraining", "FT-111"),
    ("NeedsTheNetwork", "FT-112"),
    ("OtherTrunkEachTime", "FT-112"),
    ("KeepsAllFeatures", "FT-113"),
]


@pytest.mark.parametrize(("fault", "check"), FAULTS)
def test_a_fault_of_a_task_is_found_by_its_own_check_alone(fault, check):
    found = results(getattr(faults_tasks, fault).record, "full")

    failing = {result.check: result.message for result in found if result.status in FAILING}
    assert set(failing) == {check}, failing


def test_a_sound_task_passes_every_check():
    found = results(faults_tasks.Sound.record, "full")

    assert {result.check: result.message for result in found if result.status != "passed"} == {}
    assert len(found) == 13


def test_the_memory_of_results_is_advice_and_all_else_is_required():
    found = results(faults_tasks.Sound.record, "full")

    assert [result.check for result in found if not result.required] == ["FT-113"]
