"""The conformance kit on everything that this plugin declares; CI runs its full level on the wheels."""

from __future__ import annotations

import pytest
from fb_mixing.plugin import ENTRIES

from fusionbench_core.testing import parametrize_with_checks


# The tests of the wheels run all of this, and more, each time.
@pytest.mark.slow
@parametrize_with_checks(ENTRIES, level="fast")
def test_conformance(entry, check):
    check(entry)
