"""Methods that hold whole models hold no more than their plans state."""

from __future__ import annotations

from pathlib import Path

import pytest
from held import MODEL, SLACK, held

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc"),
    # All runs are made once, for all tests.
    pytest.mark.xdist_group("memory-of-whole-models"),
]

MIXTURES = {"modules": ["layers.*"], "steps": 2, "batch_size": 4}
CASES = [
    ("simple_ensemble", {"in_memory": "one"}, 3),
    ("simple_ensemble", {"in_memory": "all"}, 3),
    ("smile_upscaling", {"k": 8, "gate_k": 4}, 2),
    ("weight_ensembling_moe", MIXTURES, 2),
    ("adamerging", {"steps": 2}, 2),
    ("model_recombination", {}, 3),
    ("depth_upscaling", {}, 1),
    ("depth_upscaling", {"layers": [0, 1] * 32}, 1),
    ("expert_sparsity", {"num_experts": 4}, 0),
    ("expert_sparsity", {"num_experts": 6, "progressive": True}, 0),
    ("moe_pruner", {}, 0),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Method and parameters -> what a run held, and what its plan stated, in bytes."""
    measured = held(CASES, tmp_path_factory.mktemp("models"))
    return {(name, str(parameters)): each for (name, parameters, _), each in zip(CASES, measured)}


@pytest.mark.parametrize(("name", "parameters", "models"), CASES)
def test_the_peak_that_the_plan_states_is_honoured(found, name, parameters, models):
    each = found[name, str(parameters)]
    assert each["grown"] <= each["stated"] + SLACK


def test_members_that_take_turns_take_the_memory_of_one(found):
    one, every = (found["simple_ensemble", str({"in_memory": how})]["grown"] for how in ("one", "all"))
    assert one <= MODEL + SLACK
    assert every - one == pytest.approx(2 * MODEL, abs=SLACK)
