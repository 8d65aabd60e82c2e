"""The comparison with other tools covers what it should, and nothing in it differs without a reason."""

from __future__ import annotations

import json

import pytest
from pages import DOCS

REPORT = json.loads((DOCS / "assets/parity.json").read_text(encoding="utf-8"))
COMPARISONS = [
    pytest.param(each, id=f"{peer}-{number}-{each['theirs']}")
    for peer, found in REPORT["peers"].items()
    for number, each in enumerate(found["comparisons"])
]

MERGEKIT = """
arcee_fusion breadcrumbs breadcrumbs_ties dare_linear dare_ties della della_linear extract_lora karcher linear
model_stock multislerp nearswap nuslerp passthrough ram ramplus_tl sce slerp task_arithmetic ties
"""
FUSION_BENCH = """
SimpleAverageAlgorithm WeightedAverageAlgorithm TaskArithmeticAlgorithm TiesMergingAlgorithm ExPOAlgorithm
LinearInterpolationAlgorithm SlerpMergeAlgorithm MagMaxAlgorithm ModelStock DareSimpleAverage
DareTaskArithmetic DareTiesMerging TaskSingularVectorMerging ISO_C_Merge ISO_CTS_Merge WUDIMerging TALL_masks
TallMaskTaskArithmeticAlgorithm EMRMerging SuperposedTaskArithmeticAlgorithm BinaryDiff subspace_alignment
unstructured_magnitude_prune_ semistructured_magnitude_prune_ MagnitudeDiffPruningAlgorithm DOGE_TA_Algorithm
ContinualTaskArithmeticForCLIP ContinualTiesMergingForCLIP ContinualWeightAverageForCLIP OPCM DOPMerging
SingularValueCalibrationArithmeticTask SingularValueCalibrationWithBaseMethod
"""


@pytest.mark.parametrize(("peer", "methods"), [("mergekit", MERGEKIT), ("fusion_bench", FUSION_BENCH)])
def test_every_method_of_a_peer_that_merges_without_data_is_compared(peer, methods):
    assert {each["theirs"] for each in REPORT["peers"][peer]["comparisons"]} == set(methods.split())


@pytest.mark.parametrize("each", COMPARISONS)
def test_no_difference_beyond_its_bound_lacks_a_reason(each):
    assert not each["unexplained"]
    for setting, bound in each["bounds"].items():
        if setting in each["largest"]:
            assert each["largest"][setting]["difference"] <= bound


@pytest.mark.parametrize("each", COMPARISONS)
def test_what_is_not_measured_was_refused(each):
    for setting in each["bounds"]:
        apart = any(setting in purpose["differences"] for purpose in each["on_purpose"])
        assert setting in each["largest"] or apart or "all" in each["refused"][setting]


@pytest.mark.parametrize("each", COMPARISONS)
def test_bounds_are_those_of_rounding(each):
    allowed = {"float32": 3e-5, "bfloat16": 2**-7, "draws": 5.5}
    assert all(bound <= allowed[setting] for setting, bound in each["bounds"].items())


@pytest.mark.parametrize("each", COMPARISONS)
def test_a_reason_speaks_of_a_difference_that_is_there(each):
    for purpose in each["on_purpose"]:
        assert purpose["why"]
        for setting, tensors in purpose["differences"].items():
            assert tensors.keys() <= REPORT["tensors"].keys() | {"head.weight"}
            assert all(value is None or value > each["bounds"][setting] for value in tensors.values())
