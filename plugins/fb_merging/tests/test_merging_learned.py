"""Methods that learn one merged model: what they make of what is learned, and that they learn it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fb_merging.learned.adarank import AdaRank
from fb_merging.learned.concrete_adamerging import ConcreteAdaMerging
from fb_merging.learned.concrete_task_arithmetic import ConcreteTaskArithmetic
from fb_merging.learned.parameters import ParameterSpace
from torch import Tensor

from fusionbench_core import AdaptationTask, FusionJob, ModelMethod, ModelPool, PooledModel
from fusionbench_core.testing.zoo import case

CASE = case("mlp", count=2, samples=24)


def job_of(architecture: str = "mlp", directory: Path | None = None, **more: Any) -> FusionJob:
    small = CASE if architecture == "mlp" else case(architecture, count=2, samples=24)
    models = {name: PooledModel(name, content=model) for name, model in small.models.items()}
    tasks = {name: AdaptationTask(task, **more) for name, task in small.tasks.items()}
    return FusionJob(
        pool=ModelPool(models, PooledModel("base", content=small.base)), tasks=tasks, directory=directory
    )


def state_of(method: ModelMethod, job: FusionJob | None = None) -> dict[str, Tensor]:
    fused = method.fuse(job or job_of())
    assert fused.state is not None
    return {name: tensor.double() for name, tensor in fused.state.items()}


def deltas_of(name: str) -> list[Tensor]:
    base = CASE.base.state_dict()[name].double()
    return [model.state_dict()[name].double() - base for model in CASE.models.values()]


NAMES = [name for name, _ in CASE.base.named_parameters()]


def test_concrete_task_arithmetic_with_its_first_mask_of_one_half_is_task_arithmetic():
    found = state_of(ConcreteTaskArithmetic(steps=0, final_mask="mean", scaling_factor=0.4))
    for name in NAMES:
        expected = CASE.base.state_dict()[name].double() + 0.4 * sum(deltas_of(name))
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("draw", "binary"), [("relaxed", False), ("binary", True)])
def test_concrete_masks_have_mean_one_and_are_drawn_by_the_seed(draw, binary):
    method = ConcreteTaskArithmetic(steps=0, final_mask=draw, initial_logit=0.5)
    found, other = state_of(method), state_of(method, replace(job_of(), seed=1))
    for name in NAMES:
        moved = found[name] - CASE.base.state_dict()[name].double()
        total = 0.3 * sum(deltas_of(name))
        mask = moved / total
        assert float(mask.mean()) == pytest.approx(1, rel=1e-2)
        if binary:
            levels = mask.abs() / mask.max()
            assert bool(((levels < 1e-3) | (levels > 0.99)).all())
        assert not torch.allclose(other[name], found[name])


def test_concrete_logits_follow_the_gradient_of_the_entropy():
    space = ParameterSpace.of(job_of().pool, job_of().pool.module(), torch.device("cpu"))
    method = ConcreteTaskArithmetic(steps=1, batch_size=24, learning_rate=0.5)
    job = job_of()
    merged = method.parameterize(job, space)
    models = method.task_models(job, job.pool.module())
    method.train(job, merged, models)
    moved = torch.cat([(logit.detach()).flatten() for logit in merged.variables.values()])

    def entropy(name: str, index: int, change: float) -> float:
        """Sum over the tasks, at the mask of step 0 with one logit changed."""
        twin = method.parameterize(job, space)
        with torch.no_grad():
            twin.variables[name].view(-1)[index] += change
            theta = twin.merged(0)
            total = 0.0
            for task in CASE.tasks.values():
                (batch,) = task.batches("validation", labelled=False)
                hidden = batch.inputs["x"].double()
                for layer in ("layers.0", "layers.1"):
                    weight, bias = theta[f"{layer}.weight"].double(), theta[f"{layer}.bias"].double()
                    hidden = torch.relu(hidden @ weight.T + bias)
                weight, bias = theta["norm.weight"].double(), theta["norm.bias"].double()
                hidden = torch.nn.functional.layer_norm(hidden, (8,), weight, bias)
                head = task.attach(torch.nn.Identity()).get_buffer("head").double()
                log_p = (hidden @ head.T).log_softmax(1)
                total += float(-(log_p.exp() * log_p).sum(1).mean())
        return total

    # The first step of Adam has the learning rate's length and the gradient's sign.
    start, agreed, seen = 0, 0, 0
    for name, logit in merged.variables.items():
        for index in range(0, logit.numel(), 7):
            slope = entropy(name, index, 0.5) - entropy(name, index, -0.5)
            if abs(slope) > 1e-4:
                agreed += (float(moved[start + index]) < 0) == (slope > 0)
                seen += 1
        start += logit.numel()
    assert seen > 5
    assert agreed >= seen - 1


@pytest.mark.parametrize(
    "method",
    [
        ConcreteTaskArithmetic(steps=25, learning_rate=0.3, batch_size=24, final_mask="mean"),
        ConcreteAdaMerging(steps=20, mask_steps=3, learning_rate=0.1, batch_size=24),
        AdaRank(steps=25, learning_rate=0.03, batch_size=24),
    ],
    ids=lambda method: method.record.name,
)
def test_the_entropy_falls(method):
    losses = list(method.fuse(job_of()).details["losses"]["series"].values())[-1]
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def test_concrete_adamerging_is_adamerging_under_the_final_mask():
    plain = ConcreteAdaMerging(steps=0, mask_steps=0, final_mask="mean", init_coefficient=0.2)
    found = state_of(plain)
    for name in NAMES:
        expected = CASE.base.state_dict()[name].double() + 0.2 * sum(deltas_of(name))
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop", [2, 5])
def test_a_training_of_two_stages_goes_on_in_either(tmp_path, stop):
    method = ConcreteAdaMerging(
        steps=3,
        mask_steps=3,
        learning_rate=0.05,
        mask_learning_rate=0.1,
        inner_learning_rate=0.1,
        batch_size=5,
    )
    whole = method.fuse(job_of())
    seen: list[int] = []

    def interrupt(done: int, total: int, message: str) -> None:
        seen.append(done)
        if len(seen) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.fuse(replace(job_of(directory=tmp_path), on_progress=interrupt))
    resumed = method.fuse(job_of(directory=tmp_path))
    assert resumed.details == whole.details
    assert resumed.state is not None
    assert whole.state is not None
    assert all(torch.equal(tensor, resumed.state[name]) for name, tensor in whole.state.items())


@pytest.mark.parametrize(("rank", "kept"), [(1.0, 8), (0.5, 4), (0.0, 0)])
def test_adarank_begins_with_the_leading_components(rank, kept):
    method = AdaRank(steps=0, initial_rank=rank, init_coefficient=0.7)
    fused = method.fuse(job_of())
    assert fused.state is not None
    assert fused.details["ranks"]["values"] == [[kept, kept]] * 2
    for name in NAMES:
        deltas = deltas_of(name)
        if name.startswith("layers") and name.endswith("weight"):
            factors = [torch.linalg.svd(delta) for delta in deltas]
            deltas = [(u[:, :kept] * s[:kept]) @ vh[:kept] for u, s, vh in factors]
        expected = CASE.base.state_dict()[name].double() + 0.7 * sum(deltas)
        torch.testing.assert_close(fused.state[name].double(), expected, rtol=1e-4, atol=1e-5)


def test_adarank_around_the_average_of_all_components_is_the_average_plus_their_scaled_differences():
    found = state_of(AdaRank(steps=0, center="average", init_coefficient=2.3))
    for name in NAMES:
        values = [model.state_dict()[name].double() for model in CASE.models.values()]
        mean = sum(values) / 2
        expected = mean + 2.3 * sum(value - mean for value in values)
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


def test_adarank_prunes_and_restores_components():
    method = AdaRank(steps=40, learning_rate=0.05, initial_rank=0.5, batch_size=24)
    fused = method.fuse(job_of())
    ranks = [value for row in fused.details["ranks"]["values"] for value in row]
    assert any(value != 4 for value in ranks)


@pytest.mark.parametrize("architecture", ["conv_bn", "tied_lm", "vit_tiny"])
@pytest.mark.parametrize(
    "method",
    [ConcreteTaskArithmetic(steps=2), ConcreteAdaMerging(steps=1, mask_steps=2), AdaRank(steps=2)],
    ids=lambda method: method.record.name,
)
def test_awkward_models_can_be_learned(architecture, method):
    state = state_of(method, job_of(architecture))
    assert state
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
