"""Routing: to the model that is surest, or to the task's own."""

from __future__ import annotations

import pytest
import torch
from fb_ensemble.confidence_routing import ConfidenceRouting
from fb_ensemble.predictors import ConfidentPredictor
from fb_ensemble.task_routing import TaskRouting
from torch import nn

from fusionbench_core import (
    ConfigError,
    FusionJob,
    MissingCapability,
    ModelPool,
    PooledModel,
    TaskConditioned,
)
from fusionbench_core.tasks.attach import attach

MEMBERS = {"a": nn.Identity(), "b": nn.Identity()}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("confidence", ["max_probability", "entropy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_input_goes_to_the_surest_model(confidence, dtype):
    z = (3 * randn(4, 50, 6)).to(dtype)
    p = z.double().softmax(-1)
    sure = p.max(-1).values if confidence == "max_probability" else (p * p.log()).sum(-1)
    chosen = sure.argmax(0)
    expected = z[chosen, torch.arange(50)]
    members = {name: nn.Identity() for name in "abcd"}
    assert torch.equal(ConfidentPredictor(members, confidence).combine(z), expected)
    assert len(set(chosen.tolist())) == 4


def test_confidence_is_compared_where_probabilities_round_to_one():
    z = torch.tensor([[[40.0, 0.0]], [[0.0, 50.0]]])
    assert (z.softmax(-1).amax(-1) == 1).all()
    for confidence in ("max_probability", "entropy"):
        assert ConfidentPredictor(MEMBERS, confidence).combine(z).argmax() == 1


def test_a_constant_added_to_all_logits_changes_no_route():
    z = randn(2, 30, 4)
    moved = z + torch.tensor([7.0, -3.0])[:, None, None]
    route = ConfidentPredictor(MEMBERS).combine(z).argmax(-1)
    assert torch.equal(ConfidentPredictor(MEMBERS).combine(moved).argmax(-1), route)


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 1), (2, 4, 3, 6), (2, 0, 3)])
@pytest.mark.parametrize("confidence", ["max_probability", "entropy"])
def test_any_shape_of_logits_is_routed(shape, confidence):
    z = randn(*shape)
    found = ConfidentPredictor(MEMBERS, confidence).combine(z)
    assert found.shape == shape[1:]
    assert ((found == z[0]) | (found == z[1])).all()


def test_confidence_routing_runs_all_models_of_the_pool(job, zoo):
    fused = ConfidenceRouting().fuse(job())
    assert fused.tensors == {}
    x = randn(20, 8, seed=3)
    z = torch.stack([model(x) for model in zoo.models.values()])
    expected = z[z.double().softmax(-1).amax(-1).argmax(0), torch.arange(20)]
    assert fused.module is not None
    torch.testing.assert_close(fused.module(x), expected)


def test_each_task_gets_its_own_model(job, zoo):
    fused = TaskRouting().fuse(job(tasks={}))
    assert isinstance(fused.module, TaskConditioned)
    assert fused.tensors == {}
    x = randn(5, 8)
    for name, model in zoo.models.items():
        assert torch.equal(fused.module.for_task(name)(x), model(x))
        (batch,) = zoo.tasks[name].batches("test", labelled=False)
        own = zoo.tasks[name].attach(model)(**batch.inputs)
        assert torch.equal(attach(zoo.tasks[name], fused.module)(**batch.inputs), own)


def test_a_view_can_be_changed_without_changing_the_router(job, zoo):
    fused = TaskRouting().fuse(job())
    assert isinstance(fused.module, TaskConditioned)
    x = randn(5, 8)
    fused.module.for_task("beta").get_parameter("norm.weight").zero_()
    assert torch.equal(fused.module.for_task("beta")(x), zoo.models["beta"](x))


def test_models_are_routed_to_by_the_tasks_they_are_mapped_to(zoo):
    pool = ModelPool(
        {name: PooledModel(name, content=zoo.models[name]) for name in ("alpha", "beta")},
        data={"alpha": "cars"},
    )
    fused = TaskRouting().fuse(FusionJob(pool))
    assert fused.details["routes"] == {"cars": "alpha", "beta": "beta"}
    assert isinstance(fused.module, TaskConditioned)
    with pytest.raises(MissingCapability, match="knows no task 'alpha'"):
        fused.module.for_task("alpha")


def test_two_models_for_one_task_are_refused(zoo):
    models = {name: PooledModel(name, content=zoo.models[name]) for name in ("alpha", "beta")}
    with pytest.raises(ConfigError, match="both for the task 'beta'"):
        TaskRouting().fuse(FusionJob(ModelPool(models, data={"alpha": "beta"})))
