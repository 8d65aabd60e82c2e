from __future__ import annotations

import pytest
import torch
from fb_mixing.smile.ada_svd import AdaSvd
from torch import Tensor, nn

from fusionbench_core import AdaptationTask, Fused, FusionJob, ModelPool, PooledModel
from fusionbench_core.testing.zoo import case

CASE = case("mlp", count=3, samples=24)
LAYERS = ("layers.0", "layers.1")


def job_of(**more) -> FusionJob:
    models = {name: PooledModel(name, content=model) for name, model in CASE.models.items()}
    tasks = {name: AdaptationTask(task) for name, task in CASE.tasks.items()}
    return FusionJob(pool=ModelPool(models, PooledModel("base", content=CASE.base)), tasks=tasks, **more)


def state_of(fused: Fused) -> dict[str, Tensor]:
    assert fused.state is not None
    return {name: tensor.double() for name, tensor in fused.state.items()}


def wide(model: nn.Module, name: str) -> Tensor:
    return model.state_dict()[name].double()


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_layers_are_weighed_as_routers_do_on_average_over_tokens(scale):
    method = AdaSvd(gate_k=2, samples=24, batch_size=7, split="validation", scaling_factor=scale)
    fused = method.fuse(job_of())
    found = state_of(fused)
    x = torch.cat(
        [
            batch.inputs["x"]
            for task in CASE.tasks.values()
            for batch in task.batches("validation", labelled=False)
        ]
    ).double()
    for row, layer in enumerate(LAYERS):
        weight, bias = wide(CASE.base, f"{layer}.weight"), wide(CASE.base, f"{layer}.bias")
        deltas = [wide(model, f"{layer}.weight") - weight for model in CASE.models.values()]
        shifts = [wide(model, f"{layer}.bias") - bias for model in CASE.models.values()]
        norms = [(x @ torch.linalg.svd(delta).Vh[:2].T).norm(dim=1) for delta in deltas]
        gates = torch.stack(norms, 1).softmax(1)
        mean = gates.mean(0)
        expected = weight + scale * sum(w * delta for w, delta in zip(mean, deltas))
        torch.testing.assert_close(found[f"{layer}.weight"], expected, rtol=1e-4, atol=1e-5)
        expected = bias + scale * sum(w * shift for w, shift in zip(mean, shifts))
        torch.testing.assert_close(found[f"{layer}.bias"], expected, rtol=1e-4, atol=1e-5)
        shown = torch.tensor(fused.details["weights"]["values"][row], dtype=torch.float64)
        torch.testing.assert_close(shown, mean, rtol=1e-4, atol=1e-5)
        # The next layer sees what the mixtures of all experts give.
        update = sum(
            gates[:, [t]] * (x @ delta.T + shift) for t, (delta, shift) in enumerate(zip(deltas, shifts))
        )
        x = torch.relu(x @ weight.T + bias + update)
    assert set(found) == {f"{layer}.{name}" for layer in LAYERS for name in ("weight", "bias")}


def test_all_else_is_averaged_if_asked_for():
    found = state_of(AdaSvd(gate_k=2, samples=8, average_experts=True).fuse(job_of()))
    for name in ("norm.weight", "norm.bias"):
        mean = sum(wide(model, name) for model in CASE.models.values()) / 3
        torch.testing.assert_close(found[name], mean, rtol=1e-5, atol=1e-6)


def test_it_sees_as_many_samples_as_it_says_and_no_labels():
    job = job_of()
    AdaSvd(gate_k=2, samples=9, split="validation").fuse(job)
    assert [task.used for task in job.tasks.values()] == [{"validation": 9}] * 3
