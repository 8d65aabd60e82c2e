from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from fb_merging.conditioned.emr_merging import EmrMerging
from fb_merging.operations.bits import pack, packed_size, unpack
from torch import nn

from fusionbench_core import (
    ConfigError,
    FusionJob,
    MissingCapability,
    ModelPool,
    PooledModel,
    TaskConditioned,
    TaskResult,
    evaluate,
    fuse,
)
from fusionbench_core.registry import default_registry
from fusionbench_core.report import Report, summary_facts
from fusionbench_core.report.markdown import to_markdown
from fusionbench_core.tasks.attach import attach
from fusionbench_core.testing.artefacts import load_written, pool_for, write_artefact
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.zoo import case

NAMES = ("a", "b", "c")


class Small(nn.Module):
    """A matrix that every model changes, a bias that only the first does, and a counter."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 3)
        self.tied = self.linear
        self.register_buffer("counter", torch.tensor(3))

    def forward(self, x):
        return self.linear(x)


def small_models(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    base = Small()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    models = {}
    for name in NAMES:
        model = Small()
        model.load_state_dict(base.state_dict())
        with torch.no_grad():
            model.linear.weight += 0.1 * torch.randn(3, 5, generator=generator)
            if name == "a":
                model.linear.bias.add_(0.1 * torch.randn(3, generator=generator))
        models[name] = model.to(dtype)
    return models, base.to(dtype)


def task_vectors(models, base):
    """Float64 arrays `(models, entries)` of the weight and the bias, differences in fp32."""
    flat = lambda m: torch.cat([m.linear.weight.flatten(), m.linear.bias]).detach().float()  # noqa: E731
    return np.stack([(flat(model) - flat(base)).double().numpy() for model in models.values()])


def flat_update(view, base):
    made, start = ([m.linear.weight, m.linear.bias] for m in (view, base))
    return np.concatenate([(x.double() - y.double()).detach().numpy().ravel() for x, y in zip(made, start)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_emr_elects_masks_and_rescales(dtype):
    models, base = small_models(dtype)
    fused = fuse("emr_merging", models, base)
    deltas = task_vectors(models, base)
    sign = np.sign(deltas.sum(0))
    unified = sign * np.max(np.where(np.sign(deltas) == sign, np.abs(deltas), 0), axis=0)
    for name, delta in zip(NAMES, deltas):
        mask = delta * unified > 0
        wanted = mask * unified * np.abs(delta).sum() / np.abs(mask * unified).sum()
        found = flat_update(fused.for_task(name), base)
        assert np.abs(found - wanted).max() <= 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("lambdas", [0.4, {"a": 0.2, "b": 0.6, "c": 0.4}, [0.2, 0.6, 0.4]])
def test_tall_masks_keep_what_outweighs_the_other_tasks(lambdas):
    models, base = small_models()
    fused = fuse("tall_mask", models, base, tall_lambda=lambdas)
    deltas = task_vectors(models, base)
    each = [0.4] * 3 if isinstance(lambdas, float) else [0.2, 0.6, 0.4]
    for name, delta, value in zip(NAMES, deltas, each):
        mask = np.abs(delta) > value * np.abs(deltas.sum(0) - delta)
        assert 0 < mask.sum() < len(mask)
        found = flat_update(fused.for_task(name), base)
        assert np.abs(found - mask * deltas.sum(0)).max() <= 16 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_bitdelta_adds_signs_times_the_mean_magnitude(dtype):
    models, base = small_models(dtype)
    fused = fuse("packed_bitdelta", models, base)
    for name, model in models.items():
        delta = (model.linear.weight.float() - base.linear.weight.float()).double()
        wanted = base.linear.weight.double() + torch.where(delta > 0, 1, -1) * delta.abs().mean()
        view = fused.for_task(name)
        assert (view.linear.weight.double() - wanted).abs().max() <= 4 * torch.finfo(dtype).eps
        assert torch.equal(view.linear.bias, model.linear.bias)


def test_packed_bitdelta_gives_each_task_what_bitdelta_gives_alone():
    models, base = small_models()
    fused = fuse("packed_bitdelta", models, base)
    for name, model in models.items():
        alone = fuse("bitdelta", {name: model}, base)
        torch.testing.assert_close(fused.for_task(name).linear.weight, alone.linear.weight, rtol=0, atol=1e-7)


def test_packed_bitdelta_stores_bits_and_keeps_what_is_excluded_whole():
    models, base = small_models()
    signs = fuse("packed_bitdelta", models, base).state_dict()["task_signs.0"]
    assert (signs.dtype, tuple(signs.shape)) == (torch.uint8, (3, 2))
    kept = fuse("packed_bitdelta", models, base, exclude=["linear.*"])
    assert all(torch.equal(kept.for_task(n).linear.weight, m.linear.weight) for n, m in models.items())


def test_randes_finds_each_task_vector_among_randomly_signed_others():
    models, base = small_models()
    fused = fuse("randes", models, base, scaling_factor=0.7, seed=5)
    deltas = task_vectors(models, base)
    signs = []
    for name in NAMES:
        each = [fused.signs(name, place).double() for place in range(2)]
        assert [tuple(sign.shape) for sign in each] == [(5,), (3,)]
        assert all(set(sign.tolist()) <= {-1.0, 1.0} for sign in each)
        signs.append(torch.cat([each[0].expand(3, 5).flatten(), each[1]]).numpy())
    total = sum(sign * delta for sign, delta in zip(signs, deltas))
    for name, sign in zip(NAMES, signs):
        found = flat_update(fused.for_task(name), base)
        assert np.abs(found - 0.7 * sign * total).max() <= 16 * torch.finfo(torch.float32).eps


def test_one_model_alone_is_found_whole_by_randes():
    models, base = small_models()
    view = fuse("randes", {"a": models["a"]}, base, scaling_factor=1).for_task("a")
    torch.testing.assert_close(view.linear.weight, models["a"].linear.weight, rtol=0, atol=1e-6)


def test_the_signs_of_randes_hang_on_the_seed_and_the_task_alone():
    models, base = small_models()
    one, same, other = (fuse("randes", models, base, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())
    turned = fuse("randes", dict(reversed(models.items())), base, seed=1).state_dict()
    assert all(torch.equal(tensor, one[name]) for name, tensor in turned.items())


CONDITIONED = ["emr_merging", "tall_mask", "randes", "packed_bitdelta"]


@pytest.mark.parametrize("method", CONDITIONED)
def test_a_view_keeps_ties_and_counters_and_leaves_the_fused_model_alone(method):
    models, base = small_models()
    fused = fuse(method, models, base)
    before = {name: tensor.clone() for name, tensor in fused.state_dict().items()}
    view = fused.for_task("b")
    assert view.tied.weight is view.linear.weight
    assert view.counter.item() == 3
    with torch.no_grad():
        view.linear.weight.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in fused.state_dict().items())


def test_masks_cost_a_bit_a_parameter():
    models, base = small_models()
    fused = fuse("emr_merging", models, base)
    masks = {name: tensor for name, tensor in fused.state_dict().items() if name.startswith("task_masks.")}
    assert [(tensor.dtype, tuple(tensor.shape)) for tensor in masks.values()] == [
        (torch.uint8, (3, 2)),
        (torch.uint8, (3, 1)),
    ]


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 64, 1001])
def test_packing_bits_loses_nothing(n):
    flags = torch.rand(n, generator=torch.Generator().manual_seed(n)) < 0.5
    packed = pack(flags)
    assert packed.dtype == torch.uint8
    assert len(packed) == packed_size(n) == (n + 7) // 8
    assert torch.equal(unpack(packed, n), flags)
    assert packed.tolist() == np.packbits(flags.numpy(), bitorder="little").tolist()


def test_the_base_is_stored_under_its_own_names():
    models, base = small_models()
    fused = fuse("emr_merging", models, base)
    state = fused.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.state_dict().items())
    again = copy.deepcopy(fused)
    for tensor in again.state_dict().values():
        tensor.zero_()
    again.load_state_dict(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())


def test_it_must_be_told_a_task_that_it_knows():
    models, base = small_models()
    fused = fuse("emr_merging", models, base)
    assert isinstance(fused, TaskConditioned)
    assert sorted(fused.tasks) == list(NAMES)
    with pytest.raises(MissingCapability, match="must be told the task"):
        fused(torch.zeros(1, 5))
    with pytest.raises(MissingCapability, match="knows no task 'd'"):
        fused.for_task("d")


def test_one_model_alone_is_itself():
    models, base = small_models()
    for method in ("emr_merging", "tall_mask"):
        view = fuse(method, {"a": models["a"]}, base).for_task("a")
        assert torch.allclose(view.linear.weight, models["a"].linear.weight, rtol=0, atol=1e-6)


def test_two_models_for_one_task_are_refused():
    models, base = small_models()
    pool = ModelPool(
        {name: PooledModel(name, content=model) for name, model in models.items()},
        PooledModel("_base_", content=base),
        data={"a": "same", "c": "same"},
    )
    with pytest.raises(ConfigError, match="several models are for the task 'same'"):
        EmrMerging().fuse(FusionJob(pool))


def test_an_artefact_gives_each_task_its_model_again(tmp_path):
    registry = default_registry()
    subject = MethodSubject(registry.find("method", "merging/emr_merging"), None, registry)
    small = case("mlp", count=2)
    write_artefact(subject, pool_for(subject, small, tmp_path / "pool"), small.tasks, tmp_path / "out")
    loaded = load_written(subject, tmp_path / "out")
    live = fuse("emr_merging", small.models, small.base)
    for task in small.tasks.values():
        (batch, *_) = task.batches("test", labelled=False)
        with torch.no_grad():
            found, wanted = (attach(task, each)(**batch.inputs) for each in (loaded, live))
        assert torch.equal(found, wanted)


def test_results_and_reports_say_that_the_task_was_given():
    small = case("mlp", count=2)
    fused, plain = (fuse(method, small.models, small.base) for method in ("emr_merging", "simple_average"))
    told, untold = evaluate(fused, small.tasks), evaluate(plain, small.tasks)
    assert all(result.task_given and result.to_json()["task_given"] for result in told.values())
    assert not any(result.task_given or "task_given" in result.to_json() for result in untold.values())
    assert TaskResult.from_json(told["alpha"].to_json()).task_given
    reports = [
        Report(tasks={name: result.to_json() for name, result in results.items()})
        for results in (told, untold)
    ]
    assert [report.task_given for report in reports] == [True, False]
    texts = [to_markdown(report) for report in reports]
    assert ["was told which task" in text for text in texts] == [True, False]
    assert [dict(summary_facts(report)).get("task given") is not None for report in reports] == [True, False]
