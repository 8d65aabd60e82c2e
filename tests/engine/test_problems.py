"""All that speaks against a plan is told at once, so that nobody mends it piece by piece."""

from __future__ import annotations

import pytest
import torch

from fusionbench_core import Capabilities, MethodRecord, TensorMethod, implements
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.plan import make_plan
from fusionbench_core.errors import ConfigError, IncompatibleModels, PlanError
from fusionbench_core.pools import ModelPool, PooledModel


@implements(
    MethodRecord(
        name="demanding",
        target=f"{__name__}:Demanding",
        summary="needs a base and three models",
        capabilities=Capabilities(base="required", min_models=3, locality="tensor"),
    )
)
class Demanding(TensorMethod):
    def merge(self, group):
        raise NotImplementedError

    def check(self, models):
        if "other" not in models:
            raise ConfigError("the parameters do not fit either")


def pool(count=2, *, base=False, **more):
    def model(number):
        return PooledModel(str(number), content={"w": torch.zeros(9, 9), "n": torch.tensor(number)})

    models = {str(number): model(number) for number in range(count)}
    for name, shape in more.items():
        models[name] = PooledModel(name, content={"w": torch.zeros(shape), "n": torch.tensor(0)})
    return ModelPool(models, model(0) if base else None)


def test_a_missing_base_too_few_models_integers_and_memory_are_told_together():
    with pytest.raises(PlanError) as caught:
        make_plan(Demanding(), pool(), EngineOptions(memory_budget=8))
    said = str(caught.value)
    assert "for 4 reasons" in said
    assert all(
        word in said for word in ("needs a base model", "at least 3 models", "n differs", "memory budget")
    )
    assert "add `modelpool.base`" in said


def test_shapes_that_differ_are_told_with_what_the_method_misses():
    with pytest.raises(PlanError, match="2 reasons") as caught:
        make_plan(Demanding(), pool(3, other=(2, 2)))
    assert "needs a base model" in str(caught.value)
    assert "[9, 9] expected, [2, 2] in other" in str(caught.value)


def test_one_problem_alone_is_raised_as_it_is():
    with pytest.raises(IncompatibleModels, match="do not fit together"):
        make_plan(Demanding(), pool(3, base=True, other=(2, 2)))


def test_a_method_looks_at_its_parameters_only_where_the_pool_is_as_it_declares():
    with pytest.raises(ConfigError, match="do not fit either"):
        make_plan(Demanding(), pool(3, base=True), EngineOptions(integers="base"))
