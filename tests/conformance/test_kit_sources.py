"""Every check of model sources finds its fault, and no other one does."""

from __future__ import annotations

import faults_sources
import pytest
from kit import results

from fusionbench_core.testing.result import FAILING

FAULTS = [
    ("OtherOrderEachTime", "FS-101"),
    ("RepeatedName", "FS-101"),
    ("ReadsForShapes", "FS-102"),
    ("LoadsEverything", "FS-102"),
    ("WrongDtype", "FS-102"),
    ("ForgotScaling", "FS-103"),
    ("SlicesRows", "FS-104"),
    ("IgnoresTies", "FS-105"),
    ("FalseTie", "FS-105"),
    ("ForgetsAssets", "FS-106"),
    ("FirstShardOnly", "FS-106"),
    ("LosesBuffers", "FS-107"),
    ("OneModuleForAll", "FS-107"),
    ("HashesItsPath", "FS-108"),
    ("OrderOfASet", "FS-108"),
    ("ForgetsCommit", "FS-109"),
    ("IgnoresRevision", "FS-109"),
    ("RawErrorOffline", "FS-110"),
    ("NoAdviceOffline", "FS-110"),
    ("ReachesForTheNetwork", "FS-110"),
    ("KeepsFilesOpen", "FS-111"),
    ("SharesAPosition", "FS-112"),
    ("FillsUpWithZeros", "FS-113"),
    ("RawErrorOfTheParser", "FS-113"),
]


@pytest.mark.parametrize(("fault", "check"), FAULTS)
def test_a_fault_of_a_source_is_found_by_its_own_check_alone(fault, check):
    found = results(getattr(faults_sources, fault).record, "full")

    assert {result.check: result.status for result in found if result.status in FAILING} == {check: "failed"}


@pytest.mark.parametrize("name", ["Sound", "SoundAdapter"])
def test_a_sound_source_passes_every_check(name):
    found = results(getattr(faults_sources, name).record, "full")

    assert {result.check: result.message for result in found if result.status != "passed"} == {}
    assert len(found) == 13


def test_a_source_without_an_example_is_told_so():
    class Silent(faults_sources.Sound):
        record = faults_sources.record("Silent")

        @classmethod
        def example(cls, directory):
            return None

    faults_sources.Silent = Silent
    try:
        found = results(Silent.record)
    finally:
        del faults_sources.Silent

    assert {result.status for result in found} == {"failed", "skipped"}
    assert "there is no example" in found[0].message
