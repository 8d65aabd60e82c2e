from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fb_merging.learned.surgery import Surgery
from fb_merging.learned.surgery_model import Correction, representations
from torch import nn

from fusionbench_core import AdaptationTask, Fused, FusionJob, ModelPool, PooledModel, fuse
from fusionbench_core.testing.zoo import case

CASE = case("mlp", count=2, samples=24)


def job_of(architecture: str = "mlp") -> FusionJob:
    small = CASE if architecture == "mlp" else case(architecture, count=2, samples=24)
    models = {name: PooledModel(name, content=model) for name, model in small.models.items()}
    tasks = {name: AdaptationTask(task) for name, task in small.tasks.items()}
    return FusionJob(pool=ModelPool(models, PooledModel("base", content=small.base)), tasks=tasks)


def model_of(fused: Fused) -> nn.Module:
    assert fused.module is not None
    return fused.module


def test_without_steps_every_task_has_task_arithmetic():
    model = model_of(Surgery(steps=0, init_coefficient=0.4).fuse(job_of()))
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    plain = fuse("task_arithmetic", dict(CASE.models), CASE.base, scaling_factor=0.4)
    for task in CASE.tasks:
        torch.testing.assert_close(model.for_task(task)(x), plain(x), rtol=1e-5, atol=1e-5)


def test_corrections_come_nearer_to_each_tasks_own_model():
    fused = Surgery(steps=60, learning_rate=0.02, rank=4, batch_size=24).fuse(job_of())
    losses = fused.details["losses"]["series"]["distance"]
    assert losses[-1] < 0.8 * losses[0]
    model = model_of(fused)
    plain = fuse("task_arithmetic", dict(CASE.models), CASE.base, scaling_factor=0.3)
    distances = []
    for name, task in CASE.tasks.items():
        (batch,) = task.batches("validation", labelled=False)
        x, wanted = batch.inputs["x"], CASE.models[name](batch.inputs["x"])
        with torch.no_grad():
            before = float((plain(x) - wanted).abs().mean())
            after = float((model.for_task(name)(x) - wanted).abs().mean())
        assert after < before
        distances.append(before)
    # The first loss is taken before any step, on the same data.
    assert losses[0] == pytest.approx(sum(distances) / 2, rel=1e-4)


def test_the_correction_is_a_low_rank_step_behind_a_relu():
    z = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    down = torch.randn(2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    up = torch.randn(6, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    module = nn.Identity()
    module.register_forward_hook(Correction({"": (down, up)}))
    expected = torch.stack([row - up @ torch.relu(down @ row) for row in z])
    torch.testing.assert_close(module(z), expected)


def test_only_floating_tensors_at_top_level_are_representations():
    from collections import namedtuple

    output = namedtuple("Output", ["states", "ids", "cache"])
    made = output(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long), (torch.zeros(2, 3),))
    assert list(representations(made)) == ["0"]
    assert list(representations({"pooled": torch.zeros(2, 3), "loss": torch.tensor(0.0)})) == ["pooled"]


def test_adamerging_comes_first_if_asked_for_and_its_coefficients_can_be_used_again():
    fused = Surgery(steps=2, merging_steps=5, learning_rate=0.05).fuse(job_of())
    learned = fused.details["coefficients"]
    assert any(abs(value - 0.3) > 1e-3 for row in learned["values"] for value in row)
    again = Surgery(steps=0, init_coefficient=learned).fuse(job_of())
    first, second = model_of(fused).trunk, model_of(again).trunk
    for one, other in zip(first.parameters(), second.parameters()):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("architecture", ["conv_bn", "tied_lm", "vit_tiny"])
def test_awkward_models_are_corrected(architecture):
    model = model_of(Surgery(steps=2).fuse(job_of(architecture)))
    floats = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    assert all(torch.isfinite(tensor).all() for tensor in floats)


def test_another_seed_begins_with_other_corrections():
    one, other = (model_of(Surgery(steps=0).fuse(replace(job_of(), seed=seed))) for seed in (0, 1))
    assert not torch.equal(one.down[0], other.down[0])
    assert float(one.up[0].abs().max()) == 0
