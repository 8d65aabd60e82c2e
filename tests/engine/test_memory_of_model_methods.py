"""The plan states what a model method holds in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fusionbench_core import (
    Fused,
    MethodRecord,
    ModelMethod,
    ModelPool,
    PooledModel,
    implements,
)
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.plan import make_plan
from fusionbench_core.errors import InsufficientResources
from fusionbench_core.records import Capabilities

CAPABILITIES = Capabilities(locality="model")
HELD = MethodRecord(name="held", target="x:Held", summary="holds", capabilities=CAPABILITIES)


@implements(HELD)
class Held(ModelMethod):
    def fuse(self, job):
        return Fused.weights({})


class Known(Held):
    def memory(self, pool: ModelPool) -> int:
        return 7 * pool.live_bytes()


def pool() -> ModelPool:
    """Three models of 20 numbers in bf16, two of them tied, and a counter."""

    def state() -> dict[str, torch.Tensor]:
        shared = torch.zeros(3, 4, dtype=torch.bfloat16)
        rest = {"b": torch.zeros(8, dtype=torch.bfloat16), "n": torch.tensor(1)}
        return {"a": shared, "tied": shared, **rest}

    models = {name: PooledModel(name, content=state()) for name in "xy"}
    return ModelPool(models, PooledModel("base", content=state()))


LIVE = 4 * 20 + 8


def test_a_live_model_is_in_fp32_and_holds_tied_tensors_once():
    assert pool().live_bytes() == pool().live_bytes("x") == LIVE


@pytest.mark.parametrize(("method", "expected"), [(Held(), 3 * LIVE), (Known(), 7 * LIVE)])
def test_the_plan_states_all_models_live_unless_the_method_says_otherwise(method, expected):
    assert make_plan(method, pool()).peak_bytes == expected


def test_a_budget_that_the_method_exceeds_is_refused_if_the_user_gave_it_and_noted_if_not():
    enough, little = (EngineOptions(memory_budget=size) for size in (3 * LIVE, 3 * LIVE - 1))
    assert make_plan(Held(), pool(), enough).notes == ()
    with pytest.raises(InsufficientResources, match="memory budget"):
        make_plan(Held(), pool(), little)
    (note,) = make_plan(Held(), pool(), replace(little, budget_is_guess=True)).notes
    assert "more than the memory budget" in note


def test_a_module_counts_its_tensors():
    models = {"x": PooledModel("x", content=nn.Linear(3, 2))}
    assert ModelPool(models).live_bytes("x") == 4 * 8
