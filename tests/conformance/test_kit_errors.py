"""Each fault in meeting what does not fit is caught by its own check, and by no other."""

from __future__ import annotations

from pathlib import Path

import faults_errors as faults
import pytest
from kit import caught, results

from fusionbench_core.plugins.collection import configure
from fusionbench_core.testing.result import FAILING


@pytest.fixture(autouse=True)
def _statistic():
    """The statistic of the faults' module is found as that of a local plugin is."""
    configure(files=[Path(faults.__file__)])
    yield
    configure()


FAULTS = [
    (faults.HEADS_MISSING, "FM-501"),
    (faults.HEADS_MERGED, "FM-502"),
    (faults.ONE_DTYPE, "FM-503"),
    (faults.REPAIRS, "FM-504"),
    (faults.NEEDS_BASE, "FM-505"),
    (faults.AT_MOST_FOUR, "FM-506"),
    (faults.TAKES_ONE_TOO_MANY, "FM-507"),
    (faults.FIRST_ONLY, "FM-508"),
    (faults.STALE, "FM-508"),
    (faults.ASSERTS, "FM-509"),
    (faults.STACKS, "FM-509"),
    (faults.UNSTOPPABLE, "FM-510"),
    (faults.STRANGER, "FM-510"),
    (faults.DEAF, "FM-510"),
]
SOUND = (faults.SOUND, faults.SOUND_STATISTIC, faults.LEARNS)


@pytest.mark.parametrize(("record", "check"), FAULTS, ids=lambda each: getattr(each, "target", each))
def test_a_fault_in_errors_is_caught_by_its_check(record, check):
    assert caught(record) == {check}


@pytest.mark.parametrize("record", SOUND, ids=lambda record: record.target)
def test_a_method_with_sound_errors_passes(record):
    assert [result for result in results(record) if result.status in FAILING] == []
