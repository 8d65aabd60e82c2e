from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fb_merging.learned.symerge import SyMerge, labelled_by
from torch import nn

from fusionbench_core import (
    AdaptationTask,
    ConfigError,
    Fused,
    FusionJob,
    ModelPool,
    PooledModel,
    TaskConditioned,
    fuse,
)
from fusionbench_core.testing.zoo import case

CASE = case("mlp", count=2, samples=24)
LAST = ["layers.1.weight", "layers.1.bias"]


def job_of(architecture: str = "mlp", **more: Any) -> FusionJob:
    small = CASE if architecture == "mlp" else case(architecture, count=2, samples=24)
    models = {name: PooledModel(name, content=model) for name, model in small.models.items()}
    tasks = {name: AdaptationTask(task) for name, task in small.tasks.items()}
    return FusionJob(pool=ModelPool(models, PooledModel("base", content=small.base)), tasks=tasks, **more)


def model_of(fused: Fused) -> TaskConditioned:
    assert isinstance(fused.module, TaskConditioned)
    return fused.module


def test_without_steps_it_is_task_arithmetic_with_a_layer_of_each_model():
    model = model_of(SyMerge(steps=0, init_coefficient=0.4).fuse(job_of()))
    plain = fuse("task_arithmetic", dict(CASE.models), CASE.base, scaling_factor=0.4)
    for name, own in CASE.models.items():
        state = model.for_task(name).state_dict()
        for key, value in state.items():
            expected = (own if key in LAST else plain).state_dict()[key]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("confident", [True, False])
def test_labels_come_from_the_other_model_where_it_is_the_surer_one(confident):
    generator = torch.Generator().manual_seed(1)
    wanted, given = (2 * torch.randn(40, 3, generator=generator) for _ in range(2))
    total, left_out = 0.0, 0
    for expert, merged in zip(wanted.double().numpy(), given.double().numpy()):
        p, q = (np.exp(each) / np.exp(each).sum() for each in (expert, merged))
        if confident and p.argmax() != q.argmax() and p.max() < q.max():
            left_out += 1
        else:
            total -= np.log(q[p.argmax()])
    assert bool(left_out) == confident
    found = labelled_by(wanted, given, confident=confident)
    assert float(found) == pytest.approx(total / 40, rel=1e-5)


def test_the_first_step_follows_the_gradient_of_the_labels_likelihood():
    method = SyMerge(steps=1, learning_rate=1e-3, batch_size=24)
    fused = method.fuse(job_of())
    names = [name for name, _ in CASE.base.named_parameters()]
    start = {name: tensor.double() for name, tensor in CASE.base.state_dict().items()}
    deltas = [
        {name: model.state_dict()[name].double() - start[name] for name in names}
        for model in CASE.models.values()
    ]
    coefficients = torch.full((2, len(names)), 0.3, dtype=torch.float64, requires_grad=True)
    layers = [{name: (start[name] + delta[name]).requires_grad_() for name in LAST} for delta in deltas]
    total = torch.zeros((), dtype=torch.float64)
    for position, (own, task) in enumerate(zip(CASE.models.values(), CASE.tasks.values())):
        (batch,) = task.batches("validation", labelled=False)
        x, head = batch.inputs["x"].double(), task.attach(nn.Identity()).get_buffer("head").double()
        with torch.no_grad():
            labels = (own(batch.inputs["x"]).double() @ head.T).argmax(1)
        theta = {
            name: start[name]
            + coefficients[0, index] * deltas[0][name]
            + coefficients[1, index] * deltas[1][name]
            for index, name in enumerate(names)
        } | layers[position]
        for layer in ("layers.0", "layers.1"):
            x = torch.relu(x @ theta[f"{layer}.weight"].T + theta[f"{layer}.bias"])
        x = nn.functional.layer_norm(x, (8,), theta["norm.weight"], theta["norm.bias"])
        total = total + nn.functional.cross_entropy(x @ head.T, labels)
    total.backward()
    assert coefficients.grad is not None
    found = dict(zip(fused.details["coefficients"]["rows"], fused.details["coefficients"]["values"]))
    assert sorted(found) == sorted(set(names) - set(LAST))
    # The first step of Adam has the learning rate's length.
    for index, name in enumerate(names):
        if name in found:
            expected = 0.3 - 1e-3 * coefficients.grad[:, index].sign()
            torch.testing.assert_close(torch.tensor(found[name]).double(), expected, atol=1e-5, rtol=0)
    assert fused.details["losses"]["series"]["cross entropy"] == pytest.approx(
        [float(total.detach()) / 2], rel=1e-5
    )
    for task, layer in zip(CASE.tasks, layers):
        state = model_of(fused).for_task(task).state_dict()
        for name, value in layer.items():
            assert value.grad is not None
            clear = value.grad.abs() > 1e-6
            moved = (state[name].double() - value.detach())[clear]
            torch.testing.assert_close(moved, -1e-3 * value.grad[clear].sign(), atol=2e-5, rtol=0)


def test_the_loss_falls_and_coefficients_stay_between_0_and_1():
    fused = SyMerge(steps=30, learning_rate=0.05, batch_size=24).fuse(job_of())
    losses = fused.details["losses"]["series"]["cross entropy"]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    learned = fused.details["coefficients"]
    assert all(0 <= value <= 1 for row in learned["values"] for value in row)
    again = SyMerge(steps=0, init_coefficient=learned).fuse(job_of())
    one, other = (model_of(each).trunk.state_dict() for each in (fused, again))  # type: ignore[union-attr]
    for name in set(one) - set(LAST):
        torch.testing.assert_close(one[name], other[name])


def test_another_layer_can_be_chosen_and_one_that_is_not_there_is_refused():
    fused = SyMerge(steps=1, layer=("layers.0.*", "norm.bias")).fuse(job_of())
    assert model_of(fused).tensors == ("layers.0.weight", "layers.0.bias", "norm.bias")
    with pytest.raises(ConfigError, match="layer") as error:
        SyMerge(layer=("head.*",)).fuse(job_of())
    assert "layers.0.weight" in str(error.value)


def test_an_interrupted_training_goes_on(tmp_path):
    method = SyMerge(steps=4, batch_size=5)
    whole = method.fuse(job_of())

    def interrupt(done: int, total: int, message: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.fuse(job_of(directory=tmp_path, on_progress=interrupt))
    resumed = method.fuse(job_of(directory=tmp_path))
    assert resumed.details == whole.details
    one, other = (model_of(each).state_dict() for each in (whole, resumed))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("architecture", ["conv_bn", "tied_lm", "vit_tiny"])
def test_awkward_models_are_adapted(architecture):
    model = model_of(SyMerge(steps=2).fuse(replace(job_of(architecture), seed=1)))
    floats = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    assert all(torch.isfinite(tensor).all() for tensor in floats)
