"""Checkpoints that give no NaN and no Inf, and what model methods are given."""

from __future__ import annotations

import pytest
import torch

from fusionbench_core import ModelPool, NonFiniteInput, PooledModel, StateDictCheckpoint
from fusionbench_core.checkpoints.finite import FiniteCheckpoint

STATE = {
    "whole": torch.ones(2, 3),
    "broken": torch.tensor([1.0, float("nan"), float("inf"), 2.0]),
    "counter": torch.tensor(3),
}


def test_sound_tensors_are_given_as_they_are():
    checkpoint = FiniteCheckpoint(StateDictCheckpoint(STATE), "alpha")
    assert checkpoint.keys() == ("whole", "broken", "counter")
    assert torch.equal(checkpoint.tensor("whole"), STATE["whole"])
    assert checkpoint.tensor("counter").item() == 3
    assert checkpoint.chunk("broken", 3, 4).tolist() == [2.0]
    assert checkpoint.fingerprint() == StateDictCheckpoint(STATE).fingerprint()


def test_reading_nan_or_inf_names_model_and_tensor():
    checkpoint = FiniteCheckpoint(StateDictCheckpoint(STATE), "alpha")
    with pytest.raises(NonFiniteInput, match="2 of 4 entries") as caught:
        checkpoint.tensor("broken")
    assert caught.value.where["model"] == "alpha"
    assert caught.value.where["tensor"] == "broken"
    with pytest.raises(NonFiniteInput):
        checkpoint.chunk("broken", 1, 2)


def test_a_checked_pool_names_the_base_and_leaves_the_pool_as_it_is():
    pool = ModelPool(
        {"alpha": PooledModel("alpha", content={"w": torch.ones(1)})}, PooledModel("b", content=STATE)
    )
    with pytest.raises(NonFiniteInput, match=r"model +the base"):
        pool.checked().checkpoint().tensor("broken")
    assert pool.checkpoint().tensor("broken").isnan().any()


def test_a_module_is_not_made_of_nan():
    broken = torch.nn.Linear(1, 1).requires_grad_(False)
    broken.weight.fill_(float("nan"))
    pool = ModelPool({"alpha": PooledModel("alpha", content=broken)})
    assert pool.module("alpha").weight.isnan().all()
    with pytest.raises(NonFiniteInput, match="alpha"):
        pool.checked().module("alpha")
