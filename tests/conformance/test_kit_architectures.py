"""A method may refuse models of some architectures, but not the plainest."""

from __future__ import annotations

import faults_architecture as faults
from kit import results

ONLY = ("FM-203", "FM-205", "FM-206", "FM-301")


def statuses(record) -> dict[str, str]:
    return {result.check: result.status for result in results(record, only=ONLY)}


def test_a_method_that_refuses_models_without_layers_is_looked_at_on_others():
    found = statuses(faults.PICKY)
    # Two of the checks look at a model without a list of layers as well.
    assert found == {"FM-203": "passed", "FM-205": "skipped", "FM-206": "skipped", "FM-301": "passed"}


def test_a_method_about_mixtures_is_looked_at_on_mixtures():
    found = statuses(faults.MIXED)
    assert found == {"FM-203": "passed", "FM-205": "skipped", "FM-206": "skipped", "FM-301": "passed"}


def test_a_method_that_refuses_the_plainest_models_is_caught():
    assert "passed" not in statuses(faults.REFUSING).values()
