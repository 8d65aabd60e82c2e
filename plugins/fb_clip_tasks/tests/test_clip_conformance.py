"""The conformance kit on everything that this plugin provides."""

from __future__ import annotations

import pytest
from fb_clip_tasks.plugin import SOURCES, TASKS

from fusionbench_core.testing import parametrize_with_checks


# The tests of the wheels run all of this, and more, each time.
@pytest.mark.slow
@parametrize_with_checks((*SOURCES, *TASKS), level="fast")
def test_conformance(entry, check):
    check(entry)
