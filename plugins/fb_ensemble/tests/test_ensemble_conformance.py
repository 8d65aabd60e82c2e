"""The conformance kit on everything that this plugin declares; CI runs its full level on the wheels."""

from __future__ import annotations

from fb_ensemble.records import ENTRIES

from fusionbench_core.testing import parametrize_with_checks


@parametrize_with_checks(ENTRIES, level="fast")
def test_conformance(entry, check):
    check(entry)
