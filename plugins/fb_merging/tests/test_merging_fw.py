from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fb_merging.learned.fw_merging import FwMerging
from torch import Tensor

from fusionbench_core import AdaptationTask, ConfigError, FusionJob, ModelPool, PooledModel, fuse
from fusionbench_core.testing.zoo import case

CASE = case("mlp", count=3, samples=16)
NAMES = [name for name, _ in CASE.base.named_parameters()]


def job_of(labels: bool = True) -> FusionJob:
    models = {name: PooledModel(name, content=model) for name, model in CASE.models.items()}
    tasks = {name: AdaptationTask(task, labels=labels) for name, task in CASE.tasks.items()}
    return FusionJob(pool=ModelPool(models, PooledModel("base", content=CASE.base)), tasks=tasks)


def run(**parameters: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    fused = FwMerging(samples=16, batch_size=16, **parameters).fuse(job_of())
    assert fused.state is not None
    return {name: tensor.double() for name, tensor in fused.state.items()}, dict(fused.details)


def loss_of(theta: dict[str, Tensor]) -> Tensor:
    """Mean cross entropy over the tasks on all training data, written out."""
    total = torch.zeros((), dtype=torch.float64)
    for task in CASE.tasks.values():
        (batch,) = task.batches("train", labelled=True)
        x = batch.inputs["x"].double()
        for layer in ("layers.0", "layers.1"):
            x = torch.relu(x @ theta[f"{layer}.weight"].T + theta[f"{layer}.bias"])
        x = torch.nn.functional.layer_norm(x, (8,), theta["norm.weight"], theta["norm.bias"])
        head = task.attach(torch.nn.Identity()).get_buffer("head").double()
        total = total + torch.nn.functional.cross_entropy(x @ head.T, batch.labels)
    return total / len(CASE.tasks)


def start() -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    states = [{n: m.state_dict()[n].double() for n in NAMES} for m in CASE.models.values()]
    base = {n: CASE.base.state_dict()[n].double() for n in NAMES}
    return {n: base[n] + 0.3 * sum(s[n] - base[n] for s in states) for n in NAMES}, states


def test_without_iterations_it_is_task_arithmetic():
    found, _ = run(iterations=0)
    for name, expected in start()[0].items():
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alignment", ["cosine", "inner_product"])
@pytest.mark.parametrize("granularity", ["task", "tensor"])
def test_one_iteration_moves_towards_the_model_that_the_gradient_points_to(alignment, granularity):
    theta, states = start()
    leaves = {name: value.requires_grad_() for name, value in theta.items()}
    loss = loss_of(leaves)
    loss.backward()
    scores = torch.zeros(len(NAMES), len(states), dtype=torch.float64)
    for row, name in enumerate(NAMES):
        grad = leaves[name].grad
        assert grad is not None
        for column, state in enumerate(states):
            product = (grad * state[name]).sum()
            sizes = grad.norm() * state[name].norm()
            scores[row, column] = product if alignment == "inner_product" else product / sizes
    if granularity == "task":
        scores = scores.sum(0, keepdim=True).expand_as(scores)
    found, details = run(iterations=1, alignment=alignment, granularity=granularity, step_size=2.0)
    for name, best in zip(NAMES, scores.argmin(1).tolist()):
        value = theta[name].detach()
        expected = value + 0.3 * 2.0 * (states[best][name] - value)
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)
    assert details["losses"]["series"]["loss"] == pytest.approx([float(loss.detach())], rel=1e-4)
    assert sum(details["chosen"]["values"][0]) == pytest.approx(1)


def test_the_soft_variant_learns_how_to_merge_the_chosen_models():
    found, details = run(variant="soft", iterations=2, steps=10, learning_rate=0.02)
    for row in details["chosen"]["values"]:
        assert row == pytest.approx([1, 1, 1])
    losses = details["adaptation"]["series"]
    assert list(losses) == ["iteration 1", "iteration 2"]
    assert losses["iteration 1"][-1] < losses["iteration 1"][0]
    assert any(not torch.allclose(found[name], value) for name, value in start()[0].items())


def interrupted(method: FwMerging, directory: Path, after: int) -> None:
    """Run until so many steps were shown."""
    calls: list[str] = []

    def interrupt(done: int, total: int, message: str) -> None:
        calls.append(message)
        if len(calls) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.fuse(replace(job_of(), directory=directory, on_progress=interrupt))


@pytest.mark.parametrize("granularity", ["task", "tensor"])
def test_the_hard_variant_goes_on_after_an_interruption(tmp_path, granularity):
    method = FwMerging(iterations=4, samples=8, batch_size=5, step_size=2.0, granularity=granularity)
    whole = method.fuse(job_of())
    interrupted(method, tmp_path, after=2)
    seen: list[int] = []
    job = replace(job_of(), directory=tmp_path, on_progress=lambda done, total, message: seen.append(done))
    resumed = method.fuse(job)
    assert seen == [3, 4]
    assert resumed.details == whole.details
    assert resumed.state is not None
    assert whole.state is not None
    assert all(torch.equal(tensor, resumed.state[name]) for name, tensor in whole.state.items())


def test_the_hard_variant_can_end_with_the_iteration_it_was_in(tmp_path):
    method = FwMerging(iterations=4, samples=8, batch_size=5, step_size=2.0)
    interrupted(method, tmp_path, after=2)
    finished = method.fuse(replace(job_of(), directory=tmp_path, finish=True))
    shorter = method.model_copy(update={"iterations": 2}).fuse(job_of())
    assert finished.details == shorter.details
    assert finished.state is not None
    assert shorter.state is not None
    assert all(torch.equal(tensor, finished.state[name]) for name, tensor in shorter.state.items())


def test_the_hard_variant_cannot_start_from_another_run(tmp_path):
    with pytest.raises(ConfigError, match="learns nothing that another run could start from"):
        FwMerging(iterations=1).fuse(replace(job_of(), learned_from=tmp_path))


def test_the_soft_variant_goes_on_after_an_interruption(tmp_path):
    method = FwMerging(variant="soft", iterations=2, steps=3, samples=8, batch_size=5)
    whole = method.fuse(job_of())
    interrupted(method, tmp_path, after=6)
    resumed = method.fuse(replace(job_of(), directory=tmp_path))
    assert resumed.details == whole.details


def test_the_soft_variant_can_end_with_the_iteration_it_was_in(tmp_path):
    method = FwMerging(variant="soft", iterations=3, steps=3, samples=8, batch_size=5)
    interrupted(method, tmp_path, after=6)
    finished = method.fuse(replace(job_of(), directory=tmp_path, finish=True))
    series = finished.details["adaptation"]["series"]
    assert [len(losses) for losses in series.values()] == [3, 2]


def test_labels_of_the_test_split_are_never_used():
    with pytest.raises(ValueError, match="split"):
        FwMerging(split="test")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="test data"):
        fuse(
            FwMerging(variant="soft", adaptation_split="test", iterations=1, samples=4, steps=1),
            dict(CASE.models),
            CASE.base,
            tasks=CASE.tasks,
        )
